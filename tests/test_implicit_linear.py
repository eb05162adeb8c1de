"""Implicit SGD of least squares is θ' = θ − η∇C(θ'), for one example and batches wide, square, tall and singular."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import assert_refused, layer, table
from fnn.implicit.linear import linear
from implicit_cases import Cases, assert_second_order, cases, length, residual_ratio, stepped


def real(random, shape):
    return random.normal(size=shape) * 10 ** random.uniform(-3, 3, (shape[0],) + (1,) * (len(shape) - 1))


def mean_and_slope(loss):
    return lambda a: (a, 2 * loss.scale)


SCALES = [fnn.SquaredError(), fnn.SquaredError(1.0), fnn.SquaredError(30.0)]
every_scale = pytest.mark.parametrize("loss", SCALES, ids=repr)
every_batch = pytest.mark.parametrize("batch", [None, 1, 3, 5, 12], ids="batch {}".format)  # 5 parameters per output


@every_scale
def test_one_example_solves_its_equation_for_every_size_and_rate(loss, x64):
    given = cases(20_000, 4, 2, real)
    ratio = residual_ratio(given, stepped(partial(linear, loss=loss), given), loss, mean_and_slope(loss))
    print(f"{loss}: largest residual ratio {ratio.max():.1e}")
    assert ratio.max() <= 1e-10, f"worst at case {ratio.argmax()}, seed 0: {ratio.max():.2e}"


@every_batch
def test_a_batch_solves_its_equation_whatever_its_shape(batch, x64):
    loss = fnn.SquaredError(0.7)
    given = cases(4_000, 4, 2, real, batch=batch)
    ratio = residual_ratio(given, stepped(partial(linear, loss=loss), given), loss, mean_and_slope(loss))
    print(f"batch {batch}: largest residual ratio {ratio.max():.1e}")
    assert ratio.max() <= 1e-10, f"worst at case {ratio.argmax()}, seed 0: {ratio.max():.2e}"


@pytest.mark.parametrize("batch", [4, 12])
def test_equal_examples_with_different_targets_are_met_half_way(batch, x64):
    """XXᵀ is singular then, and I + cXXᵀ is to the last bit, for c‖X‖² > 1e16."""
    loss = fnn.SquaredError()
    params, x, y, eta = cases(4_000, 4, 2, real, batch=batch // 2)
    given = Cases(params, jnp.concatenate([x, x], axis=1), jnp.concatenate([y, y[:, ::-1]], axis=1), eta)
    ratio = residual_ratio(given, stepped(linear, given), loss, mean_and_slope(loss))
    assert ratio.max() <= 1e-10, f"worst at case {ratio.argmax()}, seed 0: {ratio.max():.2e}"


@every_batch
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_both_printed_forms_woodburys_and_the_normal_one_agree_with_it(batch, reduction, x64):
    params, x, y, _ = jax.tree.map(lambda v: v[0], cases(1, 4, 2, real, batch=batch, seed=1))
    x, eta, loss = x / jnp.max(jnp.abs(x)), 0.3, fnn.SquaredError(0.8)
    new = linear(params, x, y, eta, loss=loss, reduction=reduction)
    X = np.c_[np.atleast_2d(x), np.ones(batch or 1)]
    c = 2 * 0.8 * eta / (len(X) if reduction == "mean" else 1)
    theta = np.c_[params[0].W, params[0].b]
    R = X @ theta.T - np.atleast_2d(y)
    woodbury = theta - c * R.T @ np.linalg.solve(np.eye(len(X)) + c * X @ X.T, X)
    normal = theta - c * R.T @ X @ np.linalg.inv(np.eye(5) + c * X.T @ X)
    for printed in (woodbury, normal):
        np.testing.assert_allclose(np.c_[new[0].W, new[0].b], printed, rtol=1e-10, atol=1e-12)


@every_batch
def test_as_the_rate_goes_to_0_it_becomes_explicit_sgd_with_an_error_of_second_order(batch, x64):
    params, x, y, _ = jax.tree.map(lambda v: v[0], cases(1, 4, 2, real, batch=batch, seed=2))
    x, loss = x / jnp.max(jnp.abs(x)), fnn.SquaredError(1.0)
    assert_second_order(lambda rate: linear(params, x, y, rate, loss=loss), params, x, y, loss)


def test_as_the_rate_goes_to_infinity_it_becomes_the_nearest_least_squares_solution(x64):
    random = np.random.default_rng(0)
    params, x, y = layer(jnp.ones((2, 3)), jnp.zeros(2)), random.normal(size=(50, 3)), random.normal(size=(50, 2))
    new = linear(params, jnp.asarray(x), jnp.asarray(y), 1e12)
    solution = np.linalg.lstsq(np.c_[x, np.ones(50)], y)[0]
    np.testing.assert_allclose(np.c_[new[0].W, new[0].b], solution.T, atol=1e-9)


@every_batch
def test_float32_is_finite_everywhere_and_close_where_the_problem_is_well_conditioned(batch):
    single = cases(5_000, 4, 2, real, dtype="float32", batch=batch)
    ours = stepped(linear, single)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(ours))
    with jax.enable_x64(True):
        double, ours = jax.tree.map(lambda v: v.astype("float64"), (single, ours))
        exact = stepped(linear, double)
        gap = np.asarray(jax.vmap(length)(jax.tree.map(lambda v, w: v - w, exact, ours)))
        X = np.concatenate([np.asarray(double.x).reshape(5_000, -1, 4), np.ones((5_000, batch or 1, 1))], axis=2)
        pull = np.asarray(double.eta) / (batch or 1) * np.linalg.norm(X, axis=(1, 2)) ** 2
        targets = np.asarray(jax.vmap(length)(double.y))
        size = np.asarray(jax.vmap(length)(double.params)) + targets
    easy = pull < 10
    assert easy.sum() > 500
    assert (gap[easy] <= 1e-4 * size[easy]).all()


def test_the_step_runs_in_a_compiled_loop_and_converges_to_least_squares(x64):
    random = np.random.default_rng(1)
    x, theta = jnp.asarray(random.normal(size=(200, 1, 3))), jnp.asarray(random.normal(size=(2, 3)))
    y = x @ theta.T

    @jax.jit
    def train(params, rate):
        return jax.lax.scan(lambda p, data: (linear(p, *data, rate), None), params, (x, y))[0]

    np.testing.assert_allclose(train(layer(jnp.zeros((2, 3)), jnp.zeros(2)), 1e3)[0].W, theta, atol=1e-2)


@table(
    {
        "another loss": ({"loss": fnn.Huber()}, ValueError, "^loss: .*SquaredError", "got Huber", "generalized_linear"),
        "another output": ({"params": layer(activation=fnn.ReLU())}, ValueError, "^params: .*Identity", "ReLU"),
        "labels": ({"y": jnp.zeros(5, int)}, TypeError, "^y: .*integers", "one-hot"),
        "a negative rate": ({"learning_rate": -1}, ValueError, "^learning_rate: expected a finite number > 0, got -1"),
        "another reduction": ({"reduction": "max"}, ValueError, "^reduction: expected 'mean' or 'sum', got 'max'"),
        "params that are none": ({"params": 3}, TypeError, "^params: expected a tuple of fnn.Dense"),
        "x of another shape": ({"x": jnp.ones((5, 4))}, ValueError, "^x: expected shape"),
    }
)
def test_what_it_cannot_do_is_refused(given, error, fragments):
    arguments = {"params": layer(), "x": jnp.ones((5, 3)), "y": jnp.zeros((5, 2)), "learning_rate": 0.1} | given
    assert_refused(lambda: linear(**arguments), error, fragments)


def test_a_vector_of_rates_under_jit_is_refused():
    step = jax.jit(lambda rate: linear(layer(), jnp.ones((5, 3)), jnp.zeros((5, 2)), rate))
    assert_refused(lambda: step(jnp.ones(3)), ValueError, ["^learning_rate: expected one number", "vmap"])
