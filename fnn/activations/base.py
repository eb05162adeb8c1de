"""What an activation is."""

from dataclasses import dataclass, fields
from typing import ClassVar

from jax import Array, lax

from fnn.checks.numbers import number


@dataclass(frozen=True)
class Activation:
    """Base of every activation; one of your own defines ``value`` and ``derivative``.

    An activation that is not elementwise defines ``pullback`` in place of ``derivative``.
    Parameters are fields; they are stored as Python floats. ``smooth``: whether the derivative is continuous.

    >>> import jax.numpy as jnp
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
        """σ'(z), entry by entry."""
        raise TypeError(f"{type(self).__name__} has no elementwise derivative; use pullback(g, z, a)")

    def pullback(self, g: Array, z: Array, a: Array) -> Array:
        """g ⊙ σ'(z), the second factor of equation H9."""
        # the barrier keeps XLA from sharing work with ``value``, whose intermediate arrays would wait until here
        return g * self.derivative(lax.optimization_barrier(z), a)

    def second_derivative(self, z: Array, a: Array) -> Array:
        """σ''(z), entry by entry."""
        raise NotImplementedError(f"{type(self).__name__} must define second_derivative(self, z, a) for fnn.curvature")

    def pushforward(self, dz: Array, z: Array, a: Array) -> Array:
        """The change of a along dz: σ'(z) ⊙ dz. The pull-back, unless the Jacobian ∂a/∂z is not symmetric."""
        return self.pullback(dz, z, a)

    def pullback_tangent(self, g: Array, z: Array, a: Array, dz: Array) -> Array:
        """The change of the pull-back along dz, where g stays: g ⊙ σ''(z) ⊙ dz."""
        return g * self.second_derivative(z, a) * dz
