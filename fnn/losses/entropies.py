"""Cross-entropies, on logits and on probabilities."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from fnn.activations import Gaussian, PiecewiseLinear, Sigmoid, Softmax, Threshold
from fnn.activations.base import inner
from fnn.losses.base import NEVER_NEGATIVE, Loss, as_targets

PROBABILITIES = "rows of probabilities >= 0 that sum to 1"
BINARY = "entries from 0 to 1"
SIMPLEX = (Softmax,)  # activations whose outputs are the probabilities of classes
UNIT_INTERVAL = (Gaussian, PiecewiseLinear, Sigmoid, Softmax, Threshold)  # those whose outputs may be probabilities


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """L = −Σ_k y_k log p_k with p = softmax(a): a holds logits; ∂L/∂a = p Σ_k y_k − y.

    y: labels (B,), one-hot rows, or soft targets. Meant for an ``Identity`` output, where the gradient is δ^L itself.
    """

    takes_labels: ClassVar[bool] = True
    targets: ClassVar[str] = PROBABILITIES

    def possible(self, y):
        return _distributions(y)

    def misfit(self, activation, n_out):
        if isinstance(activation, (Sigmoid, Softmax)):
            return (
                "it takes logits and applies the softmax itself; write output=fnn.Identity(), or "
                "loss=fnn.CrossEntropy(categorical=True) with output=fnn.Softmax()"
            )
        if n_out == 1:
            return (
                "a softmax over one output is 1 whatever the network computes; write loss=fnn.SigmoidCrossEntropy() "
                "with y of shape (N, 1)"
            )
        return None

    def value(self, a, y):
        y = as_targets(y, a)
        terms = y * jnp.where(y == 0, 0, _log_softmax(a))  # 0 log 0 = 0, where a logit is −inf
        return -jnp.sum(terms, axis=-1)

    def gradient(self, a, y):
        y = as_targets(y, a)
        return jnp.exp(_log_softmax(a)) * jnp.sum(y, axis=-1, keepdims=True) - y

    def hessian(self, a, y, da):
        p = jnp.exp(_log_softmax(a))
        return p * (da - inner(p, da)) * jnp.sum(as_targets(y, a), axis=-1, keepdims=True)

    def sample(self, key, a):
        return jax.random.categorical(key, a)


@dataclass(frozen=True)
class SigmoidCrossEntropy(Loss):
    """L = −Σ_k [y_k log p_k + (1 − y_k) log(1 − p_k)], p = 1/(1 + e^(−a)): a holds logits; ∂L/∂a = p − y.

    y: rows with entries in [0, 1], or labels (B,). Meant for an ``Identity`` output; for one or more binary labels per
    example.
    """

    takes_labels: ClassVar[bool] = True
    by_output: ClassVar[bool] = True
    targets: ClassVar[str] = BINARY

    def possible(self, y):
        return _in_unit_interval(y)

    def misfit(self, activation, n_out):
        if isinstance(activation, NEVER_NEGATIVE):
            return (
                "it takes logits and applies the sigmoid itself; write output=fnn.Identity(), or "
                "loss=fnn.CrossEntropy() with output=fnn.Sigmoid()"
            )
        return None

    def terms(self, a, y):
        y = as_targets(y, a)
        return y * _softplus(jnp.where(y == 0, 0, -a)) + (1 - y) * _softplus(jnp.where(y == 1, 0, a))  # 0 log 0 = 0

    def gradient(self, a, y):
        return lax.logistic(a) - as_targets(y, a)

    def hessian(self, a, y, da):
        return lax.logistic(a) * lax.logistic(-a) * da

    def sample(self, key, a):
        return jax.random.bernoulli(key, lax.logistic(a)).astype(a.dtype)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """L = −Σ_k [y_k log a_k + (1 − y_k) log(1 − a_k)]: a holds probabilities.

    ``categorical=True`` omits the second term: −Σ_k y_k log a_k, for a ``Softmax`` output.

    The output δ is fused: β (a − y) after ``Sigmoid(beta)``, and a Σ_k y_k − y after ``Softmax`` with
    ``categorical=True``. It is exact even where a rounds to 0 or 1; the unfused product and ``jax.grad`` give 0 there.
    Arguments of logarithms are clamped to the smallest normal number, so the value stays finite where a is 0 or 1.
    Prefer a loss on logits.
    """

    categorical: bool = False
    takes_labels: ClassVar[bool] = True
    by_output: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.categorical, bool):
            raise TypeError(f"categorical: expected True or False, got {self.categorical!r}; write CrossEntropy(True)")

    @property
    def targets(self) -> str:  # type: ignore[override]
        return PROBABILITIES if self.categorical else BINARY

    def possible(self, y):
        return _distributions(y) if self.categorical else _in_unit_interval(y)

    def misfit(self, activation, n_out):
        own = SIMPLEX if self.categorical else UNIT_INTERVAL
        if isinstance(activation, own) or not type(activation).__module__.startswith("fnn."):
            return None
        if self.categorical:
            return (
                "it takes probabilities that sum to 1; write output=fnn.Softmax(), or loss=fnn.SoftmaxCrossEntropy() "
                "with output=fnn.Identity()"
            )
        return (
            "it takes probabilities; write output=fnn.Sigmoid(), or loss=fnn.SigmoidCrossEntropy() with "
            "output=fnn.Identity()"
        )

    def terms(self, a, y):
        y = as_targets(y, a)
        terms = y * jnp.log(_at_least_tiny(a))
        if not self.categorical:
            terms += (1 - y) * jnp.log(_at_least_tiny(1 - a))
        return -terms

    def gradient(self, a, y):
        y = as_targets(y, a)
        gradient = -y * _reciprocal(a)
        if not self.categorical:
            gradient += (1 - y) * _reciprocal(1 - a)
        return gradient

    def delta(self, activation, z, a, y):
        y = as_targets(y, a)
        if not self._matches(activation):
            return super().delta(activation, z, a, y)
        return a * jnp.sum(y, axis=-1, keepdims=True) - y if self.categorical else activation.beta * (a - y)

    def hessian(self, a, y, da):
        y = as_targets(y, a)
        by_a, by_rest = _reciprocal(a), _reciprocal(1 - a)  # unsquared, because a square may overflow
        change = y * by_a * da * by_a
        return change if self.categorical else change + (1 - y) * by_rest * da * by_rest

    def delta_tangent(self, activation, z, a, y, dz, da):
        if not self._matches(activation):
            return super().delta_tangent(activation, z, a, y, dz, da)
        return self.gauss_newton(activation, z, a, y, da)

    def gauss_newton(self, activation, z, a, y, da):
        if not self._matches(activation):
            return super().gauss_newton(activation, z, a, y, da)
        return da * jnp.sum(as_targets(y, a), axis=-1, keepdims=True) if self.categorical else activation.beta * da

    def sample(self, key, a):
        if self.categorical:
            return jax.random.categorical(key, jnp.log(_at_least_tiny(a)))
        return jax.random.bernoulli(key, a).astype(a.dtype)

    def _matches(self, activation) -> bool:
        """Whether δ = ∂L/∂a ⊙ σ'(z) has a fused form."""
        return isinstance(activation, Softmax if self.categorical else Sigmoid)


def _distributions(y: np.ndarray) -> np.ndarray:
    """Whether each row holds probabilities, with a sum that rounding in half precision leaves near 1."""
    return np.all(y >= 0, axis=1) & (np.abs(y.astype(np.float64).sum(axis=1) - 1) < 0.02)


def _in_unit_interval(y: np.ndarray) -> np.ndarray:
    return np.all((y >= 0) & (y <= 1), axis=1)


def _log_softmax(a: Array) -> Array:
    shifted = a - lax.stop_gradient(jnp.max(a, axis=-1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


def _softplus(a: Array) -> Array:
    """log(1 + e^a), which is −log p of the logit −a."""
    return jnp.logaddexp(jnp.zeros_like(a), a)


def _at_least_tiny(p: Array) -> Array:
    tiny = float(jnp.finfo(p.dtype).tiny)
    return jnp.where(p > tiny, p, tiny)


def _reciprocal(p: Array) -> Array:
    """The derivative of log(_at_least_tiny(p))."""
    return jnp.where(p > float(jnp.finfo(p.dtype).tiny), 1 / _at_least_tiny(p), 0)
