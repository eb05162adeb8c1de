"""``Loss``, and targets as the losses take them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.activations import Activation, Gaussian, ReLU, Sigmoid, Softmax, Softplus, Threshold

NEVER_NEGATIVE = (Gaussian, ReLU, Sigmoid, Softmax, Softplus, Threshold)  # outputs that are no logits or logarithms


@dataclass(frozen=True)
class Loss:
    """Base class of losses; a custom one defines ``value`` and ``gradient``.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class LogCosh(Loss):
    ...     def value(self, a, y):
    ...         return jnp.log(jnp.cosh(a - y)).sum(axis=-1)
    ...
    ...     def gradient(self, a, y):
    ...         return jnp.tanh(a - y)
    """

    takes_labels: ClassVar[bool] = False
    by_output: ClassVar[bool] = False  # whether ``terms`` exists: the loss is a sum over outputs, each of one output
    targets: ClassVar[str] = ""  # what ``possible`` wants, in words; empty where any finite targets are possible

    def possible(self, y: np.ndarray) -> np.ndarray:
        """Whether each row of floating targets (B, n) can be one of this loss, (B,) bool."""
        return np.ones(len(y), bool)

    def misfit(self, activation: Activation, n_out: int) -> str | None:
        """Why the loss does not fit the activation of the ``n_out`` outputs and what to write instead, or None."""
        return None

    def columns(self, n_out: int) -> tuple[int, ...]:
        """The numbers of columns that floating targets for ``n_out`` outputs may have."""
        return (n_out,)

    def terms(self, a: Array, y: Array) -> Array:
        """The loss of each output, (B, n), if it is a sum over outputs; needed for weights per output."""
        raise NotImplementedError(f"{type(self).__name__} is not a sum over outputs; it takes weights per example only")

    def value(self, a: Any, y: Any) -> Array:
        """The loss of each example, (B,)."""
        if self.by_output:
            return jnp.sum(self.terms(a, y), axis=-1)
        raise NotImplementedError(f"{type(self).__name__} must define value(self, a, y) -> (B,)")

    def gradient(self, a: Array, y: Array) -> Array:
        """∂L/∂a, (B, n)."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient(self, a, y) -> (B, n)")

    def delta(self, activation: Activation, z: Array, a: Array, y: Array) -> Array:
        """δ^L = ∂L/∂a ⊙ σ'(z^L), equation (1)."""
        return activation.pullback(self.gradient(a, y), z, a)

    def hessian(self, a: Array, y: Array, da: Array) -> Array:
        """∂²L/∂a² da, (B, n)."""
        raise NotImplementedError(f"{type(self).__name__} must define hessian(self, a, y, da) for fnn.curvature")

    def delta_tangent(self, activation: Activation, z: Array, a: Array, y: Array, dz: Array, da: Array) -> Array:
        """The change of δ^L along dz and da = σ'(z) ⊙ dz: (∂²L/∂a² da) ⊙ σ'(z) + ∂L/∂a ⊙ σ''(z) ⊙ dz, (B, n)."""
        bent = activation.pullback_tangent(self.gradient(a, y), z, a, dz)
        return self.gauss_newton(activation, z, a, y, da) + bent

    def gauss_newton(self, activation: Activation, z: Array, a: Array, y: Array, da: Array) -> Array:
        """The part of ``delta_tangent`` due to the loss, (∂²L/∂a² da) ⊙ σ'(z); all of it if δ is fused."""
        return activation.pullback(self.hessian(a, y, da), z, a)

    def sample(self, key: Array, a: Array) -> Array:
        """Targets drawn from p(y | a) with −log p(y | a) = L(a, y) + const: as (B, n), or labels (B,)."""
        raise TypeError(f"{self} is not −log p of a distribution that can be sampled; give y instead of key")


def as_targets(y: Array, a: Array) -> Array:
    """y unchanged, or one-hot rows in a's dtype if y holds integer labels (B,); NaN for labels out of range."""
    if jnp.issubdtype(y.dtype, jnp.integer):
        y = y if y.dtype.itemsize >= 4 else y.astype(jnp.int32)  # one byte cannot hold 300 classes
        rows = (y[..., None] == jnp.arange(a.shape[-1], dtype=y.dtype)).astype(a.dtype)
        exists = (y >= 0) & (y < a.shape[-1])
        return jnp.where(exists[..., None], rows, jnp.asarray(jnp.nan, a.dtype))
    return y
