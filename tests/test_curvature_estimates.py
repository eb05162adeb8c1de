"""What is drawn, and what stands in for the Hessian: the sampled Fisher diagonal, Kronecker factors, the trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from delta_cases import PRODUCTS, SOFTMAX, assert_close, dense_hessian, flat, given, oracle
from fnn import curvature
from problems import and_slow, distance


def test_the_sampled_fisher_diagonal_is_the_gauss_newton_diagonal_in_the_mean(x64):
    params, x, y, _ = given("two layers")

    @jax.jit
    def diagonals(keys):
        def fisher(*y, key=None):
            return curvature.fisher_diagonal(params, x, *y, loss=SOFTMAX, key=key)

        rows = jax.nn.softmax(y)
        right = curvature.gauss_newton_diagonal(params, x, rows, loss=SOFTMAX)
        return jax.vmap(lambda key: fisher(key=key))(keys), fisher(rows), right

    drawn, *others = jax.device_get(diagonals(jax.random.split(jax.random.key(1), 2_000)))
    drawn, (empirical, right) = flat(drawn, 2_000), (flat(of, 1)[0] for of in others)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert float((abs(drawn.mean(axis=0) - right) / error).max()) < 5
    assert distance(empirical, right) > 0.1 * np.linalg.norm(right)  # and is not the empirical one


# with δ's of a batch norm in a stack; of layers one by one
@pytest.mark.parametrize("case", and_slow(["stack with all", "plain"], PRODUCTS))
def test_kronecker_factors_are_second_moments_of_inputs_and_deltas(case, x64):
    params, x, y, options = given(case)

    @jax.jit
    def factors_trace_and_gradients(params, x, y, masks):
        here = options | {"masks": masks}
        trace = fnn.trace(params, x, masks=masks)
        return curvature.kfac_factors(params, x, y, **here), trace, oracle(params, x, y, **here)

    parts = jax.device_get(factors_trace_and_gradients(params, x, y, options["masks"]))
    for (A, G), t, gradient in zip(*parts, strict=True):
        delta = np.moveaxis(gradient.b, 0, -2)  # autodiff's: of every example, by the bias
        a = np.concatenate([t.a_in, np.ones((*t.a_in.shape[:-1], 1))], axis=-1)
        assert_close(A, np.swapaxes(a, -1, -2) @ a / len(x))
        assert_close(G, np.swapaxes(delta, -1, -2) @ delta / len(x))


def test_for_one_example_their_kronecker_product_is_the_fisher_block(x64):
    params, x, y, _ = given("two layers")

    @jax.jit
    def factors_and_gradients(params, x, y):
        return curvature.kfac_factors(params, x[:1], y[:1]), fnn.backprop(params, x[0], y[0])

    for (A, G), g in zip(*jax.device_get(factors_and_gradients(params, x, y)), strict=True):
        row = np.concatenate([g.W, g.b[:, None]], axis=1).ravel()
        assert_close(np.kron(G, A), np.outer(row, row))


@pytest.mark.parametrize("case", and_slow(["two layers"], ["stack"]))
def test_the_trace_is_met_within_its_standard_error_which_is_the_spread_of_the_estimate(case, x64):
    params, x, y, options = given(case)

    @jax.jit
    def estimates_and_trace(keys):
        estimate = jax.vmap(lambda key: curvature.hessian_trace(params, x, y, key=key, samples=20, **options))
        return estimate(keys), jnp.trace(dense_hessian(params, x, y, options["loss"]))

    (total, layers), right = jax.device_get(estimates_and_trace(jax.random.split(jax.random.key(0), 200)))
    spread = total.value.std()
    assert abs(total.value.mean() - right) < 4 * spread / np.sqrt(200)
    assert 0 < spread / np.sqrt(200) < 0.1 * abs(right)
    assert total.standard_error.mean() == pytest.approx(spread, rel=0.15)
    assert (abs(total.value - right) < 4 * total.standard_error).mean() > 0.98
    assert_close(sum(estimate.value.reshape(200, -1).sum(axis=1) for estimate in layers), total.value)


def test_the_trace_has_an_estimate_of_every_layer_in_a_stack_too():
    params, x, y, options = given("stack", "float32")
    _, layers = jax.eval_shape(lambda key: curvature.hessian_trace(params, x, y, key=key, **options), jax.random.key(0))
    assert [(of.value.shape, of.standard_error.shape) for of in layers] == [((), ()), ((2,), (2,)), ((), ())]
