"""The base class of activations."""

from dataclasses import dataclass, fields
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from fnn.numbers import number


@dataclass(frozen=True)
class Activation:
    """Base class of activations; a subclass defines ``value`` and ``derivative``.

    An activation that is not elementwise defines ``pullback`` instead of ``derivative``.
    Parameters are dataclass fields, stored as Python floats. ``smooth``: whether the derivative is continuous.

    >>> import jax.numpy as jnp
    >>> from dataclasses import dataclass
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
        TypeError, ValueError: a parameter is not a finite number or is out of range.
    """

    smooth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.type in (float, "float"):
                value = number(type(self).__name__, f.name, getattr(self, f.name), **f.metadata)
                object.__setattr__(self, f.name, value)

    def value(self, z: Array) -> Array:
        """σ(z)."""
        raise NotImplementedError(f"{type(self).__name__} must define value(self, z) -> a")

    def derivative(self, z: Array, a: Array) -> Array:
        """σ'(z), elementwise."""
        raise TypeError(f"{type(self).__name__} has no elementwise derivative; use pullback(g, z, a)")

    def pullback(self, g: Array, z: Array, a: Array) -> Array:
        """g ⊙ σ'(z)."""
        # the barrier keeps XLA from sharing work with ``value`` and holding its intermediate arrays until here
        return g * self.derivative(lax.optimization_barrier(z), a)

    def second_derivative(self, z: Array, a: Array) -> Array:
        """σ''(z), elementwise."""
        raise NotImplementedError(f"{type(self).__name__} must define second_derivative(self, z, a) for fnn.curvature")

    def pushforward(self, dz: Array, z: Array, a: Array) -> Array:
        """The change of a along dz, σ'(z) ⊙ dz: equal to the pull-back where the Jacobian ∂a/∂z is symmetric."""
        return self.pullback(dz, z, a)

    def pullback_tangent(self, g: Array, z: Array, a: Array, dz: Array) -> Array:
        """The change of the pull-back along dz at fixed g: g ⊙ σ''(z) ⊙ dz."""
        return g * self.second_derivative(z, a) * dz


def inner(u, v):
    """Σ_j u_j v_j over the last axis, which stays, of length 1.

    Written as a product: under ``jax.vmap``, and where a sum over thousands of rows follows, jaxlib 0.10.2 adds up the
    products of wrong entries on processors with AVX2.
    """
    return jnp.vecdot(u, v, precision=lax.Precision.HIGHEST)[..., None]
