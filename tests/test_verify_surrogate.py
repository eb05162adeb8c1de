"""verify.custom_vjp with surrogate=: derivatives that are deliberately those of another function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from custom_cases import named, normal, with_vjp
from fnn.verify import custom_vjp


def identity(x):
    return x


def rounded(x):
    return jnp.round(x)


def clipped(x):
    return jnp.clip(x, -1, 1)


def bwd_clipped(args, g):
    return (jnp.where(jnp.abs(args[0]) <= 1, g, 0),)


def straight_through(x):
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def gradient_clipped_at(bound):
    return with_vjp(identity, lambda a, g: (jnp.clip(g, -bound, bound),))


X = 3 * normal(6)
DELIBERATE = {  # f, its surrogate, and derivatives of f that are wrong
    "straight through": (rounded, lambda a, g: (g,), identity, [lambda a, g: (2 * g,), lambda a, g: (a[0] * g,)]),
    "straight through, inside": (jnp.sign, bwd_clipped, clipped, [lambda a, g: (g,), lambda a, g: (0 * g,)]),
    "reversed": (identity, lambda a, g: (-0.3 * g,), lambda x: -0.3 * x, [lambda a, g: (0.3 * g,)]),
    "of a pair": (lambda x, y: jnp.where(x > y, 1.0, 0), lambda a, g: (g * jnp.cos(a[0]), -g),
                  lambda x, y: jnp.sin(x) - y, [lambda a, g: (g * jnp.cos(a[0]), g)]),
}  # fmt: skip


@pytest.mark.parametrize("name", DELIBERATE)
def test_the_derivative_must_be_that_of_the_surrogate(name):
    f, bwd, surrogate, mistakes = DELIBERATE[name]
    args = (X, normal(6)) if name == "of a pair" else (X,)
    assert custom_vjp(with_vjp(f, bwd), *args, surrogate=surrogate).check().ok
    for mistake in mistakes:
        assert named(custom_vjp(with_vjp(f, mistake), *args, surrogate=surrogate)) <= {"args[0]", "args[1]"} != set()


@pytest.mark.parametrize("bound", [0.1, 1.0, 30.0])
def test_a_clipped_gradient_is_compared_with_another_implementation(bound):
    def bwd(args, g):
        return (jnp.maximum(jnp.minimum(g, bound), -bound),)

    assert custom_vjp(with_vjp(identity, bwd), X, surrogate=gradient_clipped_at(bound)).ok
    assert not custom_vjp(with_vjp(identity, bwd), X, surrogate=gradient_clipped_at(1.01 * bound)).ok
    assert not custom_vjp(with_vjp(identity, bwd), X, surrogate=identity).ok


def test_a_stopped_gradient_needs_no_decorator():
    assert custom_vjp(straight_through, X, surrogate=identity).ok
    assert not custom_vjp(straight_through, X, surrogate=jnp.sin).ok


def test_the_value_must_be_that_of_the_function():
    f = jax.custom_vjp(rounded)
    f.defvjp(lambda x: (x, None), lambda _, g: (g,))
    assert named(custom_vjp(f, X, surrogate=identity)) == {"value under differentiation"}


def test_a_surrogate_that_does_not_fit_is_refused():
    f = with_vjp(rounded, lambda a, g: (g,))
    with pytest.raises(ValueError, match=r"surrogate: expected a value like that of f, float64 of shape \(6,\), got"):
        custom_vjp(f, X, surrogate=jnp.sum)
    with pytest.raises(TypeError, match="surrogate: expected a function of the same arguments as f, got int 3"):
        custom_vjp(f, X, surrogate=3)
    with pytest.raises(ValueError, match="oracle, surrogate: expected one of them"):
        custom_vjp(f, X, surrogate=identity, oracle=identity)
    with pytest.raises(TypeError, match="surrogate: autodiff cannot differentiate it"):
        custom_vjp(f, X, surrogate=lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((6,), x.dtype), x))
