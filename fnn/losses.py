"""Losses: the loss of one example, its gradient ∂L/∂a by hand, and the output δ = ∂L/∂z.

A loss is a frozen dataclass, compared and hashed by value. The loss of one example is **summed over its outputs**; the
mean or sum over examples is taken elsewhere. With B examples and n outputs:

    value(a, y) -> (B,)                      one number per example
    gradient(a, y) -> ∂L/∂a (B, n)           by hand
    delta(activation, z, a, y) -> (B, n)     equation (1), δ = ∂L/∂a ⊙ σ'(z); fused where that is more accurate
    hessian(a, y, da) -> ∂²L/∂a² da (B, n)   by hand; used, like sample, only by ``fnn.curvature``
    sample(key, a) -> y                      drawn from the distribution whose −log p is the loss, if there is one

``a`` is the network's output (B, n). ``y`` has the shape and dtype of ``a``. If ``takes_labels`` is true, y may also be
integer class labels (B,), which are converted to one-hot rows. Integers outside 0 … n−1 are refused wherever their
values are at hand; in compiled code they become rows of NaN.

    possible(y) -> (B,) bool                 whether floating targets can be those of the loss; ``fit`` refuses others
    misfit(activation, n_out) -> str | None  why the loss does not fit the output; ``fit`` and its siblings raise it

In float32, values and gradients are finite for outputs up to ±1e4; those of ``Poisson``, an exponential, up to 88.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from fnn.activations import Activation, Gaussian, PiecewiseLinear, Sigmoid, Softmax, Threshold
from fnn.numbers import number

__all__ = [
    "CrossEntropy",
    "Huber",
    "Loss",
    "Poisson",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "Weighted",
]


PROBABILITIES = "rows of probabilities >= 0 that sum to 1"
BINARY = "entries from 0 to 1"
SIMPLEX = (Softmax,)  # activations whose outputs are the probabilities of classes
UNIT_INTERVAL = (Gaussian, PiecewiseLinear, Sigmoid, Softmax, Threshold)  # those whose outputs may be probabilities


@dataclass(frozen=True)
class Loss:
    """Base class of losses; a custom one defines ``value`` and ``gradient``.

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
        raise TypeError(f"{self} is −log p of no distribution that can be sampled; give y instead of key")


@dataclass(frozen=True)
class SquaredError(Loss):
    """L = scale · ‖a − y‖², ∂L/∂a = 2 · scale · (a − y).

    ``scale=0.5`` gives ½‖a − y‖², ``scale=1`` gives ‖y − a‖².

    Raises:
        ValueError: scale is not a finite number above 0.
    """

    scale: float = 0.5
    by_output: ClassVar[bool] = True

    def __post_init__(self):
        object.__setattr__(self, "scale", number("SquaredError", "scale", self.scale, above=0))

    def terms(self, a, y):
        return self.scale * (a - y) ** 2

    def value(self, a, y):
        return self.scale * jnp.sum((a - y) ** 2, axis=-1)

    def gradient(self, a, y):
        return 2 * self.scale * (a - y)

    def hessian(self, a, y, da):
        return 2 * self.scale * da

    def sample(self, key, a):
        return a + jax.random.normal(key, a.shape, a.dtype) / math.sqrt(2 * self.scale)


@dataclass(frozen=True, init=False, repr=False)
class Huber(Loss):
    """L = Σ ½r² where |r| ≤ δ, else δ(|r| − ½δ), with r = a − y; ∂L/∂a = r clipped to ±δ.

    ``Huber(delta=1.0)`` stores its argument as ``threshold``, because ``delta`` is the output δ of every loss.

    Raises:
        ValueError: delta is not a finite number above 0.

    Source: Huber, *Robust estimation of a location parameter* (1964).
    """

    threshold: float
    by_output: ClassVar[bool] = True

    def __init__(self, delta: float = 1.0):
        object.__setattr__(self, "threshold", number("Huber", "delta", delta, above=0))

    def __repr__(self):
        return f"Huber(delta={self.threshold})"

    def terms(self, a, y):
        r, t = jnp.abs(a - y), self.threshold
        return jnp.where(r <= t, 0.5 * r * r, t * (r - 0.5 * t))

    def gradient(self, a, y):
        return jnp.clip(a - y, -self.threshold, self.threshold)

    def hessian(self, a, y, da):
        return jnp.where(jnp.abs(a - y) <= self.threshold, da, 0)


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
        if isinstance(activation, Softmax):
            return (
                "it takes logits and applies the softmax itself; write output=fnn.Identity(), or "
                "loss=fnn.CrossEntropy(categorical=True) behind fnn.Softmax()"
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
        return p * (da - jnp.sum(p * da, axis=-1, keepdims=True)) * jnp.sum(as_targets(y, a), axis=-1, keepdims=True)

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
        if isinstance(activation, (Sigmoid, Softmax)):
            return (
                "it takes logits and applies the sigmoid itself; write output=fnn.Identity(), or "
                "loss=fnn.CrossEntropy() behind fnn.Sigmoid()"
            )
        return None

    def terms(self, a, y):
        y, zero = as_targets(y, a), jnp.zeros_like(a)
        return y * jnp.logaddexp(zero, -a) + (1 - y) * jnp.logaddexp(zero, a)

    def gradient(self, a, y):
        return lax.logistic(a) - as_targets(y, a)

    def hessian(self, a, y, da):
        return lax.logistic(a) * lax.logistic(-a) * da

    def sample(self, key, a):
        return jax.random.bernoulli(key, lax.logistic(a)).astype(a.dtype)


@dataclass(frozen=True)
class Poisson(Loss):
    """L = Σ_k e^(a_k) − y_k a_k: a holds the logarithm of the expected count (log link); ∂L/∂a = e^a − y.

    y: counts ≥ 0, with the shape and dtype of a. Meant for an ``Identity`` output. It is −log P(y) without log y!,
    which does not depend on a. Value and gradient are infinite from a = 89 in float32, from 710 in float64.
    Counts over unequal exposures t are rates y/t with weights t: t (e^a − (y/t) a) is the loss of a count with mean
    t e^a.

    >>> Poisson().gradient(jnp.zeros((1, 2)), jnp.array([[0.0, 3.0]])).tolist()
    [[1.0, -2.0]]

    Source: McCullagh and Nelder, *Generalized Linear Models* (1989), chapter 6.
    """

    by_output: ClassVar[bool] = True
    targets: ClassVar[str] = "counts >= 0"

    def possible(self, y):
        return (y >= 0).all(axis=1)

    def terms(self, a, y):
        return jnp.exp(a) - y * a

    def gradient(self, a, y):
        return jnp.exp(a) - y

    def hessian(self, a, y, da):
        return jnp.exp(a) * da

    def sample(self, key, a):
        return jax.random.poisson(key, jnp.exp(a)).astype(a.dtype)


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
                "behind fnn.Identity()"
            )
        return (
            "it takes probabilities; write output=fnn.Sigmoid(), or loss=fnn.SigmoidCrossEntropy() behind "
            "fnn.Identity()"
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


@dataclass(frozen=True)
class Weighted(Loss):
    """L = Σ_k w_k ℓ_k(a, y), or w L(a, y): a loss with weights for examples or for outputs, which stand beside y.

    loss: any other. y: the targets (B, n) and, in further columns, the weights w ≥ 0: one column (B, n + 1), or one per
    output (B, 2n) for losses that are sums over outputs; :meth:`beside` puts them there, and ``fit`` does so for data
    (x, y, weights). Without any, they are 1. A missing target is one of weight 0. The mean over examples is not divided
    by the sum of weights.

    >>> y, weights = jnp.array([[0.0], [3.0]]), jnp.array([1.0, 2.0])
    >>> weighted = Weighted(SquaredError())
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
            return w[..., 0] * self.loss.value(a, y)
        return jnp.sum(w * self.loss.terms(a, y), axis=-1)

    def gradient(self, a, y):
        y, w = _apart(a, y)
        return w * self.loss.gradient(a, y)

    def hessian(self, a, y, da):
        y, w = _apart(a, y)
        return w * self.loss.hessian(a, y, da)

    def delta(self, activation, z, a, y):
        y_alone, w = _apart(a, y)
        if _commutes(w, activation):
            return w * self.loss.delta(activation, z, a, y_alone)
        return super().delta(activation, z, a, y)

    def delta_tangent(self, activation, z, a, y, dz, da):
        y_alone, w = _apart(a, y)
        if _commutes(w, activation):
            return w * self.loss.delta_tangent(activation, z, a, y_alone, dz, da)
        return super().delta_tangent(activation, z, a, y, dz, da)

    def gauss_newton(self, activation, z, a, y, da):
        y_alone, w = _apart(a, y)
        if _commutes(w, activation):
            return w * self.loss.gauss_newton(activation, z, a, y_alone, da)
        return super().gauss_newton(activation, z, a, y, da)


def _apart(a: Array, y: Array) -> tuple[Array, Array]:
    """The targets (B, n), and the weights (B, 1) or (B, n) beside them, which are 1 where there are none."""
    n = a.shape[-1]
    return y[..., :n], y[..., n:] if y.shape[-1] > n else jnp.ones_like(y[..., :1])


def _commutes(w: Array, activation: Activation) -> bool:
    """Whether weighting δ weights ∂L/∂a: one weight per example does, several where σ is elementwise."""
    elementwise = getattr(type(activation), "derivative", Activation.derivative) is not Activation.derivative
    return w.shape[-1] == 1 or elementwise


def as_targets(y: Array, a: Array) -> Array:
    """y unchanged, or one-hot rows in a's dtype if y holds integer labels (B,), of NaN where there is no such class."""
    if jnp.issubdtype(y.dtype, jnp.integer):
        y = y if y.dtype.itemsize >= 4 else y.astype(jnp.int32)  # one byte cannot hold 300 classes
        rows = (y[..., None] == jnp.arange(a.shape[-1], dtype=y.dtype)).astype(a.dtype)
        exists = (y >= 0) & (y < a.shape[-1])
        return jnp.where(exists[..., None], rows, jnp.asarray(jnp.nan, a.dtype))
    return y


def _distributions(y: np.ndarray) -> np.ndarray:
    """Whether each row holds probabilities, with a sum that rounding in half precision leaves near 1."""
    return np.all(y >= 0, axis=1) & (np.abs(y.astype(np.float64).sum(axis=1) - 1) < 0.02)


def _in_unit_interval(y: np.ndarray) -> np.ndarray:
    return np.all((y >= 0) & (y <= 1), axis=1)


def _log_softmax(a: Array) -> Array:
    shifted = a - lax.stop_gradient(jnp.max(a, axis=-1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


def _at_least_tiny(p: Array) -> Array:
    tiny = float(jnp.finfo(p.dtype).tiny)
    return jnp.where(p > tiny, p, tiny)


def _reciprocal(p: Array) -> Array:
    """The derivative of log(_at_least_tiny(p))."""
    return jnp.where(p > float(jnp.finfo(p.dtype).tiny), 1 / _at_least_tiny(p), 0)
