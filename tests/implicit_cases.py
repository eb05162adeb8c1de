"""Random single-example problems of every magnitude, and how far a step is from θ' = θ − η∇L(θ')."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

NUMBER = 2_000  # of problems in one compiled call, and of examples in the batches that they make together
random_problems = pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, 5), marks=pytest.mark.slow)], ids=["2,000 problems", "8,000 others"]
)


class Cases(NamedTuple):
    """N problems of one layer: params with a leading axis N, x (N, n_in), y (N, ...), eta (N,)."""

    params: tuple
    x: jax.Array
    y: jax.Array
    eta: jax.Array


def cases(n_in, n_out, targets, *, seed=0, dtype="float64", batch=None):
    """‖x‖ from 1e-3 to 1e6, η from 1e-8 to 1e8, ‖θ‖ from 1e-2 to 10; targets: f(random, shape of the outputs) -> y."""
    random = np.random.default_rng(seed)
    rows = (NUMBER,) if batch is None else (NUMBER, batch)

    def sized(shape, low, high):
        v = random.normal(size=shape)
        exponent = random.uniform(low, high, (NUMBER,) + (1,) * (len(shape) - 1))
        return v / np.linalg.norm(v.reshape(NUMBER, -1), axis=1).reshape(exponent.shape) * 10**exponent

    W, b = sized((NUMBER, n_out, n_in), -2, 1), sized((NUMBER, n_out), -2, 1)
    x, eta = sized((*rows, n_in), -3, 6), 10 ** random.uniform(-8, 8, NUMBER)
    params = (fnn.Dense(jnp.asarray(W, dtype), jnp.asarray(b, dtype), fnn.Identity()),)
    y = targets(random, (*rows, n_out))
    return Cases(params, jnp.asarray(x, dtype), jnp.asarray(y, dtype), jnp.asarray(eta, dtype))


def first(given: Cases):
    """The first problem: params, x, y, η."""
    return jax.tree.map(lambda v: jnp.asarray(np.asarray(v)[0]), given)


def moderate(x):
    """x with 1 as the largest entry."""
    return jnp.asarray(np.asarray(x) / np.abs(x).max())


@cache
def compiled(step, loss):
    return jax.jit(jax.vmap(partial(step, loss=loss)))


def stepped(step, given: Cases, loss):
    """θ' of every problem, in one compiled call."""
    return compiled(step, loss)(*given)


def in_float64(step, single: Cases, loss):
    """The same as of float32 problems, computed in float64."""
    with jax.enable_x64(True):
        return stepped(step, jax.tree.map(lambda v: jnp.asarray(np.float64(v)), single), loss)


def assert_solves(step, make, loss, mean_and_slope, seeds):
    """The residual of θ' is rounding in every problem of ``make(seed)``."""
    for seed in seeds:
        given = make(seed)
        ratio = np.asarray(residual_ratios(given, stepped(step, given, loss), loss, mean_and_slope))
        print(f"{loss}, seed {seed}: largest residual ratio {ratio.max():.1e}")
        assert ratio.max() <= 1e-10, f"worst at case {ratio.argmax()}, seed {seed}: {ratio.max():.2e}"


@partial(jax.jit, static_argnums=(2, 3))
def residual_ratios(given: Cases, new, loss, mean_and_slope):
    """‖θ' − θ + η∇L(θ')‖ over 1 + ‖θ‖ + η‖x‖(|p| + |y|) + η‖x‖² p' ‖θ'‖, for every problem; ∇L by autodiff.

    At ‖x‖ = 1e6 and η = 1e8 the rounding of θ' alone moves the left side by 1e20 · 1e-16: hence the last terms.
    mean_and_slope: f(a, loss) -> (p, p') at θ', p the mean of y that the outputs a stand for.
    """

    def ratio(params, x, y, eta, new):
        def cost(q):
            return jnp.mean(loss.value(jnp.atleast_2d(fnn.forward(q, x)), y if x.ndim == 2 else y[None]))

        gap = jax.tree.map(lambda w, v, g: w - v + eta * g, new, params, jax.grad(cost)(new))
        p, slope = mean_and_slope(fnn.forward(new, x), loss)
        size = jnp.sqrt(1 + jnp.sum(x * x, axis=-1))  # of x̃ = (x, 1)
        pull = length(p) + length(y)
        allowed = 1 + length(params) + eta * length(size) * pull + eta * length(size) ** 2 * slope * length(new)
        return length(gap) / allowed

    return jax.vmap(ratio)(*given, new)


def length(tree):
    return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))


# -- in NumPy, which compiles nothing ---------------------------------------------------------------------------


def lengths(tree):
    """‖·‖ of every one of N trees."""
    return np.sqrt(sum(np.square(leaf, dtype="f8").reshape(len(leaf), -1).sum(axis=1) for leaf in leaves(tree)))


def leaves(tree) -> list[np.ndarray]:
    return list(map(np.asarray, jax.tree.leaves(tree)))


def difference(one, other):
    return [np.float64(a) - np.float64(b) for a, b in zip(leaves(one), leaves(other))]


def distance(one, other) -> float:
    return float(np.sqrt(sum(np.sum(gap * gap) for gap in difference(one, other))))


def size(tree) -> float:
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in leaves(tree))))


def explicit(params, x, y, rate, loss):
    """θ − η∇L(θ)."""
    gradients = fnn.backprop(params, x, y, loss=loss)
    return jax.tree.map(
        lambda v, g: jnp.asarray(np.asarray(v) - np.asarray(rate * np.asarray(g), v.dtype)), params, gradients
    )


def assert_second_order(step, params, x, y, loss, rates=(1e-3, 1e-4, 1e-5)):
    """A tenth of η makes a hundredth of the difference from explicit SGD."""
    gaps = np.array([distance(step(rate), explicit(params, x, y, rate, loss)) for rate in rates])
    assert (gaps > 0).all()
    np.testing.assert_allclose(gaps[:-1] / gaps[1:], 100, rtol=0.05)
