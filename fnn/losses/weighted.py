"""Weights for examples or outputs, in the loss and hence in every δ."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.activations import Activation
from fnn.losses.base import Loss


@dataclass(frozen=True)
class Weighted(Loss):
    """L = Σ_k w_k ℓ_k(a, y), or w L(a, y): a loss with weights for examples or outputs, in extra columns of y.

    loss: any other loss. y: the targets (B, n) followed by columns with the weights w ≥ 0: one column (B, n + 1), or
    one per output (B, 2n) for losses that are sums over outputs. :meth:`beside` appends them, and ``fit`` does so for
    data (x, y, weights). Without such columns, the weights are 1. A weight of 0 marks a missing target. The mean over
    examples divides by their number, not by the sum of the weights.

    >>> import fnn
    >>> y, weights = jnp.array([[0.0], [3.0]]), jnp.array([1.0, 2.0])
    >>> weighted = Weighted(fnn.SquaredError())
    >>> weighted.value(jnp.zeros((2, 1)), weighted.beside(y, weights)).tolist()
    [0.0, 9.0]
    """

    loss: Any

    @staticmethod
    def beside(y, weights):
        """Targets (B, n) with weights (B,) or (B, n) in further columns, for NumPy and JAX arrays."""
        numpy = np if isinstance(y, np.ndarray) else jnp
        return numpy.concatenate([y, weights.reshape(len(y), -1).astype(y.dtype)], axis=1)

    def __post_init__(self):
        if isinstance(self.loss, type) or not hasattr(self.loss, "gradient"):
            raise TypeError(f"loss: expected a loss, got {self.loss!r}; write Weighted(SquaredError())")

    def columns(self, n_out):
        return (n_out, n_out + 1, 2 * n_out) if self.loss.by_output else (n_out, n_out + 1)

    def misfit(self, activation, n_out):
        return self.loss.misfit(activation, n_out)

    def value(self, a, y):
        y, w = _apart(a, y)
        if w.shape[-1] == 1:
            return _times(w[..., 0], self.loss.value(a, y))
        return jnp.sum(_times(w, self.loss.terms(a, y)), axis=-1)

    def gradient(self, a, y):
        y, w = _apart(a, y)
        return _times(w, self.loss.gradient(a, y))

    def hessian(self, a, y, da):
        y, w = _apart(a, y)
        return _times(w, self.loss.hessian(a, y, da))

    def delta(self, activation, z, a, y):
        y_alone, w = _apart(a, y)
        if _commutes(w, activation):
            return _times(w, self.loss.delta(activation, z, a, y_alone))
        return super().delta(activation, z, a, y)

    def delta_tangent(self, activation, z, a, y, dz, da):
        y_alone, w = _apart(a, y)
        if _commutes(w, activation):
            return _times(w, self.loss.delta_tangent(activation, z, a, y_alone, dz, da))
        return super().delta_tangent(activation, z, a, y, dz, da)

    def gauss_newton(self, activation, z, a, y, da):
        y_alone, w = _apart(a, y)
        if _commutes(w, activation):
            return _times(w, self.loss.gauss_newton(activation, z, a, y_alone, da))
        return super().gauss_newton(activation, z, a, y, da)


def _apart(a: Array, y: Array) -> tuple[Array, Array]:
    """The targets (B, n), and the weights (B, 1) or (B, n) beside them, which are 1 where there are none."""
    n = a.shape[-1]
    if y.shape[-1] == n:
        return y, jnp.ones_like(y[..., :1])
    y, w = y[..., :n], y[..., n:]
    return jnp.where(w == 0, 0, y), w  # a missing target may be NaN


def _times(w: Array, of_targets: Array) -> Array:
    """w times what belongs to the targets, and 0 where w is 0, even if that is infinite."""
    return jnp.where(w == 0, 0, w * of_targets)


def _commutes(w: Array, activation: Activation) -> bool:
    """Whether weighting δ weights ∂L/∂a: one weight per example does, several where σ is elementwise."""
    elementwise = getattr(type(activation), "derivative", Activation.derivative) is not Activation.derivative
    return w.shape[-1] == 1 or elementwise
