"""An activation of its own for every column."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.activations import Activation


@dataclass(frozen=True)
class PerNeuron(Activation):
    """σ_k at column k; ``activations`` are one per column. A loss sees outputs of several kinds as this."""

    activations: tuple[Activation, ...]

    def value(self, z):
        return self._each(lambda activation: activation.value(z))

    def derivative(self, z, a):
        return self._each(lambda activation: activation.derivative(z, a))

    def second_derivative(self, z, a):
        return self._each(lambda activation: activation.second_derivative(z, a))

    def _each(self, function: Callable[[Activation], Array]) -> Array:
        first, *others = dict.fromkeys(self.activations)
        result = function(first)
        for activation in others:
            columns = np.array([kind == activation for kind in self.activations])
            result = jnp.where(columns, function(activation), result)
        return result
