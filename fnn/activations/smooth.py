"""Activations with a continuous derivative."""

import math
from dataclasses import dataclass, field

import jax.numpy as jnp
from jax import lax

from fnn.activations.base import Activation, inner


@dataclass(frozen=True)
class Identity(Activation):
    """a = z: a linear layer, and the output of a network whose loss takes logits.

    A network with no other activation is a single affine map.
    """

    def value(self, z):
        return z

    def derivative(self, z, a):
        return jnp.ones_like(z)

    def pullback(self, g, z, a):
        return g

    def second_derivative(self, z, a):
        return jnp.zeros_like(z)

    def pullback_tangent(self, g, z, a, dz):
        return jnp.zeros_like(dz)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """a = 1 / (1 + e^(−βz)), slope β > 0; σ' = β a (1 − a)."""

    beta: float = field(default=1.0, metadata={"above": 0})

    def value(self, z):
        return lax.logistic(self.beta * z)

    def derivative(self, z, a):
        return self.beta * (a * (1 - a))

    def second_derivative(self, z, a):
        return self.beta * self.beta * (a * (1 - a) * (1 - 2 * a))


@dataclass(frozen=True)
class Tanh(Activation):
    """a = tanh z; σ' = 1 − a²."""

    def value(self, z):
        return jnp.tanh(z)

    def derivative(self, z, a):
        return 1 - a * a

    def second_derivative(self, z, a):
        return -2 * a * (1 - a * a)


@dataclass(frozen=True)
class ScaledTanh(Activation):
    """a = 1.7159 tanh(2z/3), so that ±1 maps to ±1; σ' = ⅔ (1.7159 − a²/1.7159) (LeCun et al. 1998)."""

    def value(self, z):
        return 1.7159 * jnp.tanh(z * (2 / 3))

    def derivative(self, z, a):
        return (2 / 3) * (1.7159 - a * a / 1.7159)

    def second_derivative(self, z, a):
        return -2 * (2 / 3) ** 2 * a * (1 - (a / 1.7159) ** 2)


@dataclass(frozen=True)
class Softsign(Activation):
    """a = z / (1 + |z|); σ' = 1 / (1 + |z|)² (Glorot and Bengio 2010)."""

    def value(self, z):
        return z / (1 + jnp.abs(z))

    def derivative(self, z, a):
        return 1 / (1 + jnp.abs(z)) ** 2

    def second_derivative(self, z, a):
        return -2 * jnp.sign(z) / (1 + jnp.abs(z)) ** 3


@dataclass(frozen=True)
class ELU(Activation):
    """a = z where z > 0, else e^z − 1; σ' = 1, else a + 1 (continuous: σ'(0) = 1)."""

    def value(self, z):
        # the inner where keeps the exponential of the unused branch finite, also under jax.grad
        return jnp.where(z <= 0, jnp.expm1(jnp.where(z <= 0, z, 0)), z)

    def derivative(self, z, a):
        return jnp.where(a <= 0, a + 1, 1)

    def second_derivative(self, z, a):
        return jnp.where(a <= 0, a + 1, 0)


@dataclass(frozen=True)
class Softplus(Activation):
    """a = log(1 + e^z); σ' = 1 / (1 + e^(−z))."""

    def value(self, z):
        return jnp.logaddexp(z, jnp.zeros_like(z))

    def derivative(self, z, a):
        return lax.logistic(z)

    def second_derivative(self, z, a):
        s = lax.logistic(z)
        return s * (1 - s)


@dataclass(frozen=True)
class SiLU(Activation):
    """a = z s with s = 1 / (1 + e^(−z)); σ' = s (1 + z (1 − s)) (Elfwing, Uchibe, Doya 2017; also called swish)."""

    def value(self, z):
        return z * lax.logistic(z)

    def derivative(self, z, a):
        s = lax.logistic(z)
        return s * (1 + z * (1 - s))

    def second_derivative(self, z, a):
        s = lax.logistic(z)
        return s * (1 - s) * (2 + z * (1 - 2 * s))


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
            return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * self._slope(z)
        density = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return 0.5 * lax.erfc(z * -math.sqrt(0.5)) + z * density

    def second_derivative(self, z, a):
        if self.approximate:
            t, slope, bend = jnp.tanh(self._u(z)), self._slope(z), math.sqrt(2 / math.pi) * 6 * 0.044715 * z
            return (1 - t * t) * (slope + 0.5 * z * (bend - 2 * t * slope * slope))
        return (2 - z * z) * jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    @staticmethod
    def _u(z):
        return math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)

    @staticmethod
    def _slope(z):
        return math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z * z)


@dataclass(frozen=True)
class Gaussian(Activation):
    """a = e^(−(z−μ)²/2σ²) / (σ√(2π)), the normal density, σ > 0; σ' = −a (z − μ)/σ²."""

    mu: float = 0.0
    sigma: float = field(default=1.0, metadata={"above": 0})

    def value(self, z):
        u = (z - self.mu) / self.sigma
        # the factor is inside the exponential; outside, XLA would keep the array before and after the product
        return jnp.exp(-0.5 * u * u - math.log(self.sigma * math.sqrt(2 * math.pi)))

    def derivative(self, z, a):
        return -a * ((z - self.mu) / self.sigma) / self.sigma

    def second_derivative(self, z, a):
        u = (z - self.mu) / self.sigma
        return a * ((u * u - 1) / self.sigma) / self.sigma


@dataclass(frozen=True)
class Softmax(Activation):
    """a_i = e^(z_i) / Σ_j e^(z_j) over the last axis; the pull-back is the Jacobian product a ⊙ (g − Σ_j g_j a_j).

    Not elementwise, so it has no ``derivative``.
    For training, prefer logits: an ``Identity`` output with ``SoftmaxCrossEntropy``.
    """

    def value(self, z):
        # the shift cancels, so it needs no derivative
        e = jnp.exp(z - lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True)))
        return e / jnp.sum(e, axis=-1, keepdims=True)

    def pullback(self, g, z, a):
        return a * (g - inner(g, a))

    def pullback_tangent(self, g, z, a, dz):
        da = self.pullback(dz, z, a)
        return da * (g - inner(g, a)) - a * inner(g, da)
