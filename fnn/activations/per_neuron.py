"""A different activation for every neuron of a layer."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.activations.base import Activation

HARMLESS = 0.5  # in place of z of other columns


@dataclass(frozen=True)
class PerNeuron(Activation):
    """a_k = σ_k(z_k): one elementwise activation per neuron, in the order of the columns of z.

    Each distinct activation is computed on all columns, from which its own are selected. Raises TypeError unless all
    are elementwise activations, and ValueError if z has a different number of columns.

    >>> from fnn import Identity, ReLU
    >>> PerNeuron((ReLU(), Identity())).value(jnp.array([-1.0, -1.0])).tolist()
    [0.0, -1.0]
    """

    activations: tuple[Activation, ...]

    def __post_init__(self):
        if not isinstance(self.activations, (tuple, list)) or not self.activations:
            raise TypeError(
                f"activations: expected a tuple with one per neuron, got {self.activations!r}; write "
                "PerNeuron((fnn.Tanh(), fnn.ReLU()))"
            )
        object.__setattr__(self, "activations", tuple(self.activations))
        for i, activation in enumerate(self.activations):
            if (
                not hasattr(activation, "value")
                or not hasattr(activation, "derivative")
                or isinstance(activation, type)
            ):
                raise TypeError(
                    f"activations[{i}]: expected an elementwise activation such as fnn.Tanh(), got {activation!r}"
                )

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        return all(getattr(activation, "smooth", True) for activation in self.activations)

    def value(self, z):
        # an activation sees only its own columns: at others it might overflow, and autodiff multiply infinity by 0
        return self._each(z, lambda activation: activation.value(jnp.where(self._columns(activation), z, HARMLESS)))

    def derivative(self, z, a):
        return self._each(z, lambda activation: activation.derivative(z, a))

    def second_derivative(self, z, a):
        return self._each(z, lambda activation: activation.second_derivative(z, a))

    def _each(self, z: Array, function: Callable[[Activation], Array]) -> Array:
        if z.shape[-1] != len(self.activations):
            raise ValueError(
                f"PerNeuron: expected {len(self.activations)} neurons, one per activation, got {z.shape[-1]}"
            )
        first, *others = dict.fromkeys(self.activations)
        result = function(first)
        for activation in others:
            result = jnp.where(self._columns(activation), function(activation), result)
        return result

    def _columns(self, activation: Activation) -> np.ndarray:
        return np.array([other == activation for other in self.activations])
