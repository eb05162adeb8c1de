"""Activations whose derivative jumps. *At the kink*: the value of σ' there, here and under ``jax.grad``."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax.numpy as jnp

from fnn.activations.base import Activation
from fnn.numbers import number


class Straight:
    """Shared by the activations here: σ'' = 0 between the kinks."""

    smooth: ClassVar[bool] = False

    def second_derivative(self, z, a):
        return jnp.zeros_like(z)

    def pullback_tangent(self, g, z, a, dz):
        return jnp.zeros_like(dz)  # not g ⊙ 0 ⊙ dz, which would need g


@dataclass(frozen=True)
class ReLU(Straight, Activation):
    """a = max(0, z); σ' is 1 where a > 0, else 0. At the kink: σ'(0) = 0, as in ``jax.nn.relu``.

    The pull-back uses only a, which is kept anyway as the next layer's input, so z need not be stored.
    """

    def value(self, z):
        return jnp.where(z <= 0, 0, z)  # not where(z > 0, z, 0), which would lose NaN

    def derivative(self, z, a):
        return jnp.where(a <= 0, jnp.zeros_like(a), 1)

    def pullback(self, g, z, a):
        return jnp.where(a <= 0, 0, g)


@dataclass(frozen=True)
class LeakyReLU(Straight, Activation):
    """a = z where z > 0, else slope · z, slope ≥ 0. At the kink: σ'(0) = slope."""

    slope: float = field(default=0.01, metadata={"least": 0})

    def value(self, z):
        return jnp.where(z <= 0, self.slope * z, z)

    def derivative(self, z, a):
        return jnp.where(a <= 0, jnp.full_like(a, self.slope), 1)


@dataclass(frozen=True)
class PiecewiseLinear(Straight, Activation):
    """a = 0 for z ≤ x_min, m z + b between, 1 for z ≥ x_max; σ' = m between, else 0.

    Continuous only if m x_min + b = 0 and m x_max + b = 1; :meth:`continuous` chooses m and b accordingly.
    At the kinks, z = x_min and z = x_max: σ' = 0.
    """

    m: float
    b: float
    x_min: float
    x_max: float

    def __post_init__(self):
        super().__post_init__()
        self._check_order(self.x_min, self.x_max)

    @classmethod
    def continuous(cls, x_min: float, x_max: float) -> "PiecewiseLinear":
        """The continuous ramp from 0 at x_min to 1 at x_max.

        >>> PiecewiseLinear.continuous(-1, 1)
        PiecewiseLinear(m=0.5, b=0.5, x_min=-1.0, x_max=1.0)
        """
        cls._check_order(x_min, x_max)
        m = 1 / (x_max - x_min)
        return cls(m, -m * x_min, x_min, x_max)

    @staticmethod
    def _check_order(x_min, x_max):
        if not number("PiecewiseLinear", "x_min", x_min) < number("PiecewiseLinear", "x_max", x_max):
            raise ValueError(f"x_min, x_max: expected x_min < x_max, got {x_min} and {x_max}")

    def value(self, z):
        return jnp.where(z <= self.x_min, 0, jnp.where(z >= self.x_max, 1, self.m * z + self.b))

    def derivative(self, z, a):
        between = (z > self.x_min) & (z < self.x_max)
        return jnp.where(between, jnp.full_like(z, self.m), 0)


@dataclass(frozen=True)
class Threshold(Straight, Activation):
    """a = 1 where z ≥ 0, else 0. σ' = 0, at the jump too: gradient descent cannot train through it."""

    def value(self, z):
        return jnp.where(z < 0, 0, jnp.where(z >= 0, 1, z))  # the last branch keeps NaN

    def derivative(self, z, a):
        return jnp.zeros_like(z)


@dataclass(frozen=True)
class Sign(Straight, Activation):
    """a = +1 where z ≥ 0, else −1; at 0, unlike ``jnp.sign``, +1. σ' = 0: gradient descent cannot train through it."""

    def value(self, z):
        return jnp.where(z < 0, -1, jnp.where(z >= 0, 1, z))

    def derivative(self, z, a):
        return jnp.zeros_like(z)
