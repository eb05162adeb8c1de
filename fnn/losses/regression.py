"""Losses of quantities: squared error, Huber, and Poisson for counts."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from fnn.losses.base import NEVER_NEGATIVE, Loss
from fnn.numbers import number


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

    def misfit(self, activation, n_out):
        if isinstance(activation, NEVER_NEGATIVE):
            return (
                "it takes the logarithm of the expected count, which is negative for counts below 1; write "
                "output=fnn.Identity()"
            )
        return None

    def terms(self, a, y):
        return jnp.exp(a) - y * jnp.where(y == 0, 0, a)  # 0 log 0 = 0, where a is −inf

    def gradient(self, a, y):
        return jnp.exp(a) - y

    def hessian(self, a, y, da):
        return jnp.exp(a) * da

    def sample(self, key, a):
        return jax.random.poisson(key, jnp.exp(a)).astype(a.dtype)
