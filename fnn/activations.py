"""Activations: a = σ(z), the derivative σ'(z) written by hand, and the pull-back g ⊙ σ'(z).

An activation is a frozen dataclass, compared and hashed by its value, so that a compiled function that was
built for ``Sigmoid(beta=1.0)`` serves every ``Sigmoid(beta=1.0)``. Its methods take and return arrays of one
shape ``(..., n)`` and one floating dtype:

    value(z) -> a               the activation, equation H5
    derivative(z, a) -> σ'(z)   by hand; a is passed because it is often all that is needed
    pullback(g, z, a) -> g ⊙ σ'(z)

``z`` is the weighted input, ``a = value(z)``, ``g = ∂L/∂a``. Values and derivatives are finite for z up to ±1e4, and a
NaN in z passes through value. *At the kink*: what σ'(z) is where σ has no derivative, here and for ``jax.grad``.
"""

import math
from dataclasses import dataclass, field, fields

import jax.numpy as jnp
from jax import Array, lax

from fnn.numbers import number


@dataclass(frozen=True)
class Activation:
    """Base of every activation; one of your own defines ``value`` and ``derivative``.

    An activation that is not elementwise defines ``pullback`` in place of ``derivative``.
    Parameters are fields; they are stored as Python floats.

    >>> @dataclass(frozen=True)
    ... class Square(Activation):
    ...     def value(self, z):
    ...         return z * z
    ...
    ...     def derivative(self, z, a):
    ...         return 2 * z
    >>> Square().pullback(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), jnp.array([9.0, 16.0])).tolist()
    [6.0, 16.0]

    Raises:
        TypeError, ValueError: a parameter is not a finite number, or is outside its range.
    """

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.type in (float, "float"):
                value = number(type(self).__name__, f.name, getattr(self, f.name), **f.metadata)
                object.__setattr__(self, f.name, value)

    def value(self, z: Array) -> Array:
        """σ(z)."""
        raise NotImplementedError(f"{type(self).__name__} must define value(self, z) -> a")

    def derivative(self, z: Array, a: Array) -> Array:
        """σ'(z), entry by entry."""
        raise TypeError(f"{type(self).__name__} has no elementwise derivative; use pullback(g, z, a)")

    def pullback(self, g: Array, z: Array, a: Array) -> Array:
        """g ⊙ σ'(z), the second factor of equation H9."""
        return g * self.derivative(z, a)


@dataclass(frozen=True)
class Identity(Activation):
    """a = z: a linear layer, and the output of a network whose loss takes logits.

    A network of nothing else is one affine map (L3).
    """

    def value(self, z):
        return z

    def derivative(self, z, a):
        return jnp.ones_like(z)

    def pullback(self, g, z, a):
        return g


@dataclass(frozen=True)
class Sigmoid(Activation):
    """a = 1 / (1 + e^(−βz)), slope β > 0; σ' = β a (1 − a) (equations L2, B9)."""

    beta: float = field(default=1.0, metadata={"above": 0})

    def value(self, z):
        return lax.logistic(self.beta * z)

    def derivative(self, z, a):
        return self.beta * (a * (1 - a))


@dataclass(frozen=True)
class Tanh(Activation):
    """a = tanh z; σ' = 1 − a² (equation L2)."""

    def value(self, z):
        return jnp.tanh(z)

    def derivative(self, z, a):
        return 1 - a * a


@dataclass(frozen=True)
class ScaledTanh(Activation):
    """a = 1.7159 tanh(2z/3), so that ±1 maps to ±1; σ' = ⅔ (1.7159 − a²/1.7159) (LeCun et al. 1998)."""

    def value(self, z):
        return 1.7159 * jnp.tanh(z * (2 / 3))

    def derivative(self, z, a):
        return (2 / 3) * (1.7159 - a * a / 1.7159)


@dataclass(frozen=True)
class Softsign(Activation):
    """a = z / (1 + |z|); σ' = 1 / (1 + |z|)² (Glorot and Bengio 2010)."""

    def value(self, z):
        return z / (1 + jnp.abs(z))

    def derivative(self, z, a):
        return 1 / (1 + jnp.abs(z)) ** 2


@dataclass(frozen=True)
class ReLU(Activation):
    """a = max(0, z) (equation L2); σ' is 1 where a > 0, else 0. At the kink: σ'(0) = 0, as in ``jax.nn.relu``.

    The pull-back looks at a alone: with a the next layer's input, nothing else of z need be kept.
    """

    def value(self, z):
        return jnp.where(z <= 0, 0, z)  # and not where(z > 0, z, 0): a NaN must pass

    def derivative(self, z, a):
        return jnp.where(a <= 0, jnp.zeros_like(a), 1)

    def pullback(self, g, z, a):
        return jnp.where(a <= 0, 0, g)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """a = z where z > 0, else slope · z, slope ≥ 0. At the kink: σ'(0) = slope."""

    slope: float = field(default=0.01, metadata={"least": 0})

    def value(self, z):
        return jnp.where(z <= 0, self.slope * z, z)

    def derivative(self, z, a):
        return jnp.where(a <= 0, jnp.full_like(a, self.slope), 1)


@dataclass(frozen=True)
class ELU(Activation):
    """a = z where z > 0, else e^z − 1; σ' = 1, else a + 1 (continuous: σ'(0) = 1)."""

    def value(self, z):
        # the inner where keeps the exponential of the unused branch finite, under jax.grad too
        return jnp.where(z <= 0, jnp.expm1(jnp.where(z <= 0, z, 0)), z)

    def derivative(self, z, a):
        return jnp.where(a <= 0, a + 1, 1)


@dataclass(frozen=True)
class Softplus(Activation):
    """a = log(1 + e^z); σ' = 1 / (1 + e^(−z))."""

    def value(self, z):
        return jnp.logaddexp(z, jnp.zeros_like(z))

    def derivative(self, z, a):
        return lax.logistic(z)


@dataclass(frozen=True)
class SiLU(Activation):
    """a = z s with s = 1 / (1 + e^(−z)); σ' = s (1 + z (1 − s)) (Elfwing, Uchibe, Doya 2017; also called swish)."""

    def value(self, z):
        return z * lax.logistic(z)

    def derivative(self, z, a):
        s = lax.logistic(z)
        return s * (1 + z * (1 - s))


@dataclass(frozen=True)
class GELU(Activation):
    """a = z Φ(z), Φ the normal distribution function; σ' = Φ(z) + z φ(z) (Hendrycks and Gimpel 2016).

    ``approximate=True`` is their a = ½ z (1 + t), t = tanh(u), u = √(2/π) (z + 0.044715 z³), with
    σ' = ½ (1 + t) + ½ z (1 − t²) u'.
    """

    approximate: bool = False

    def __post_init__(self):
        if not isinstance(self.approximate, bool):
            raise TypeError(f"approximate: expected True or False, got {self.approximate!r}; write GELU(True)")

    def value(self, z):
        if self.approximate:
            return 0.5 * z * (1 + jnp.tanh(self._u(z)))
        return 0.5 * z * lax.erfc(z * -math.sqrt(0.5))

    def derivative(self, z, a):
        if self.approximate:
            t = jnp.tanh(self._u(z))
            slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z * z)
            return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * slope
        density = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return 0.5 * lax.erfc(z * -math.sqrt(0.5)) + z * density

    @staticmethod
    def _u(z):
        return math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)


@dataclass(frozen=True)
class Gaussian(Activation):
    """a = e^(−(z−μ)²/2σ²) / (σ√(2π)), the normal density, σ > 0; σ' = −a (z − μ)/σ².

    Equation L2 prints the factor 1/√(2πσ) instead, which integrates to √σ and not to 1.
    """

    mu: float = 0.0
    sigma: float = field(default=1.0, metadata={"above": 0})

    def value(self, z):
        u = (z - self.mu) / self.sigma
        return jnp.exp(-0.5 * u * u) / (self.sigma * math.sqrt(2 * math.pi))

    def derivative(self, z, a):
        return -a * ((z - self.mu) / self.sigma) / self.sigma


@dataclass(frozen=True)
class PiecewiseLinear(Activation):
    """a = 0 for z ≤ x_min, m z + b between, 1 for z ≥ x_max (equation L2); σ' = m between, else 0.

    It is continuous only if m x_min + b = 0 and m x_max + b = 1: :meth:`continuous` chooses m and b so.
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
class Threshold(Activation):
    """a = 1 where z ≥ 0, else 0 (equation L2). σ' = 0, at the jump too: gradient descent cannot train through it."""

    def value(self, z):
        return jnp.where(z < 0, 0, jnp.where(z >= 0, 1, z))  # the last branch is NaN's

    def derivative(self, z, a):
        return jnp.zeros_like(z)


@dataclass(frozen=True)
class Sign(Activation):
    """a = +1 where z ≥ 0, else −1 (N1: not ``jnp.sign`` at 0). σ' = 0: gradient descent cannot train through it."""

    def value(self, z):
        return jnp.where(z < 0, -1, jnp.where(z >= 0, 1, z))

    def derivative(self, z, a):
        return jnp.zeros_like(z)


@dataclass(frozen=True)
class Softmax(Activation):
    """a_i = e^(z_i) / Σ_j e^(z_j) over the last axis; the pull-back is the Jacobian product a ⊙ (g − Σ_j g_j a_j).

    Not elementwise, so it has no ``derivative`` (equation B12 holds for elementwise activations only).
    For training prefer logits: an ``Identity`` output with ``SoftmaxCrossEntropy``.
    """

    def value(self, z):
        # the shift cancels, so its derivative may be left out
        e = jnp.exp(z - lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True)))
        return e / jnp.sum(e, axis=-1, keepdims=True)

    def pullback(self, g, z, a):
        return a * (g - jnp.sum(g * a, axis=-1, keepdims=True))
