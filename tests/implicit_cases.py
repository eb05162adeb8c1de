"""Random single-example problems of every magnitude, and how far a step is from θ' = θ − η∇L(θ')."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn


class Cases(NamedTuple):
    """N problems of one layer: params with a leading axis N, x (N, n_in), y (N, ...), eta (N,)."""

    params: tuple
    x: jax.Array
    y: jax.Array
    eta: jax.Array


def cases(number, n_in, n_out, targets, *, seed=0, dtype="float64", batch=None):
    """‖x‖ from 1e-3 to 1e6, η from 1e-8 to 1e8, ‖θ‖ from 1e-2 to 10; targets: f(random, shape of the outputs) -> y."""
    random = np.random.default_rng(seed)
    rows = (number,) if batch is None else (number, batch)

    def sized(shape, low, high):
        v = random.normal(size=shape)
        exponent = random.uniform(low, high, (number,) + (1,) * (len(shape) - 1))
        return v / np.linalg.norm(v.reshape(number, -1), axis=1).reshape(exponent.shape) * 10**exponent

    W, b = sized((number, n_out, n_in), -2, 1), sized((number, n_out), -2, 1)
    x, eta = sized((*rows, n_in), -3, 6), 10 ** random.uniform(-8, 8, number)
    params = (fnn.Dense(jnp.asarray(W, dtype), jnp.asarray(b, dtype), fnn.Identity()),)
    y = targets(random, (*rows, n_out))
    y = jnp.asarray(y, "int32" if np.issubdtype(y.dtype, np.integer) else dtype)
    return Cases(params, jnp.asarray(x, dtype), y, jnp.asarray(eta, dtype))


def stepped(step, given: Cases):
    """θ' of every problem, in one compiled call."""
    return jax.jit(jax.vmap(step))(*given)


def residual_ratio(given: Cases, new, loss, mean_and_slope):
    """‖θ' − θ + η∇L(θ')‖ over 1 + ‖θ‖ + η‖x‖(|p| + |y|) + η‖x‖² p' ‖θ'‖, for every problem; ∇L by autodiff.

    At ‖x‖ = 1e6 and η = 1e8 the rounding of θ' alone moves the left side by 1e20 · 1e-16: hence the last terms.
    mean_and_slope: f(a) -> (p, p') at θ', p the mean of y that the outputs a stand for.
    """

    def ratio(params, x, y, eta, new):
        def cost(q):
            return jnp.mean(loss.value(jnp.atleast_2d(fnn.forward(q, x)), y if x.ndim == 2 else y[None]))

        gap = jax.tree.map(lambda w, v, g: w - v + eta * g, new, params, jax.grad(cost)(new))
        a = fnn.forward(new, x)
        p, slope = mean_and_slope(a)
        size = jnp.sqrt(1 + jnp.sum(x * x, axis=-1))  # of x̃ = (x, 1)
        truth = y if y.shape == a.shape else jnp.ones_like(size)
        pull = length(p) + length(truth)
        allowed = 1 + length(params) + eta * length(size) * pull + eta * length(size) ** 2 * slope * length(new)
        return length(gap) / allowed

    return np.asarray(jax.jit(jax.vmap(ratio))(*given, new))


def length(tree):
    return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))


def gap_from_explicit(step, params, x, y, loss, rates):
    """‖θ' − (θ − η∇L(θ))‖ for every η; where it falls as η², η ↦ gap/η² is constant."""
    gradients = fnn.backprop(params, x, y, loss=loss)
    return np.array(
        [
            float(length(jax.tree.map(lambda w, v, g, r=rate: w - v + r * g, step(rate), params, gradients)))
            for rate in rates
        ]
    )


def assert_second_order(step, params, x, y, loss, rates=(1e-3, 1e-4, 1e-5)):
    """A tenth of η makes a hundredth of the difference from explicit SGD."""
    gaps = gap_from_explicit(step, params, x, y, loss, rates)
    assert (gaps > 0).all()
    np.testing.assert_allclose(gaps[:-1] / gaps[1:], 100, rtol=0.05)
