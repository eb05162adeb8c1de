"""Implicit SGD of least squares is θ' = θ − η∇C(θ'), for one example and batches wide, square, tall and singular."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import assert_refused, layer, table
from fnn.implicit.linear import linear
from implicit_cases import (
    assert_second_order,
    assert_solves,
    cases,
    difference,
    first,
    in_float64,
    lengths,
    moderate,
    random_problems,
    stepped,
)
from problems import and_slow

LOSS = fnn.SquaredError(0.7)
SINGLE, WIDE, TALL = None, 4, 12  # 5 parameters per output; a batch of 1 is computed as one example, 5 are square
BATCHES = (SINGLE, 1, WIDE, 5, TALL)


def batches(*default):
    """Which batches are in every run; the others are in the slow one."""
    return pytest.mark.parametrize("batch", and_slow(default, BATCHES), ids="batch {}".format)


def real(random, shape):
    return random.normal(size=shape) * 10 ** random.uniform(-3, 3, (shape[0],) + (1,) * (len(shape) - 1))


def mean_and_slope(a, loss):
    return a, 2 * loss.scale


def one_batch(batch, seed):
    params, x, y, _ = first(cases(4, 2, real, batch=batch, seed=seed))
    return params, moderate(x), y


@random_problems
@pytest.mark.parametrize(
    "loss", and_slow([fnn.SquaredError(30.0)], [fnn.SquaredError(), fnn.SquaredError(1.0)]), ids=repr
)
def test_one_example_solves_its_equation_for_every_size_and_rate(loss, seeds, x64):
    assert_solves(linear, lambda seed: cases(4, 2, real, seed=seed), loss, mean_and_slope, seeds)


@random_problems
@batches(WIDE, TALL)
def test_a_batch_solves_its_equation_whatever_its_shape(batch, seeds, x64):
    assert_solves(linear, lambda seed: cases(4, 2, real, batch=batch, seed=seed), LOSS, mean_and_slope, seeds)


@random_problems
@pytest.mark.parametrize("batch", [WIDE, TALL])
def test_equal_examples_with_different_targets_are_met_half_way(batch, seeds, x64):
    """XXᵀ is singular then, and I + cXXᵀ is to the last bit, for c‖X‖² > 1e16."""

    def make(seed):
        given = cases(4, 2, real, batch=batch // 2, seed=seed)
        x, y = np.asarray(given.x), np.asarray(given.y)
        twice = (np.concatenate(pair, axis=1) for pair in ((x, x), (y, y[:, ::-1])))
        return given._replace(**dict(zip("xy", map(jnp.asarray, twice))))

    assert_solves(linear, make, LOSS, mean_and_slope, seeds)


@pytest.mark.parametrize("case", and_slow([(WIDE, "mean"), (TALL, "sum")], product(BATCHES, ("mean", "sum"))), ids=str)
def test_both_printed_forms_woodburys_and_the_normal_one_agree_with_it(case, x64):
    batch, reduction = case
    (params, x, y), eta = one_batch(batch, seed=1), 0.3
    new = linear(params, x, y, eta, loss=LOSS, reduction=reduction)
    X = np.c_[np.atleast_2d(x), np.ones(batch or 1)]
    c = 2 * LOSS.scale * eta / (len(X) if reduction == "mean" else 1)
    theta = np.c_[params[0].W, params[0].b]
    R = X @ theta.T - np.atleast_2d(y)
    woodbury = theta - c * R.T @ np.linalg.solve(np.eye(len(X)) + c * X @ X.T, X)
    normal = theta - c * R.T @ X @ np.linalg.inv(np.eye(5) + c * X.T @ X)
    for printed in (woodbury, normal):
        np.testing.assert_allclose(np.c_[new[0].W, new[0].b], printed, rtol=1e-10, atol=1e-12)


@batches(WIDE)  # of what solves its equation it must hold
def test_as_the_rate_goes_to_0_it_becomes_explicit_sgd_with_an_error_of_second_order(batch, x64):
    params, x, y = one_batch(batch, seed=2)
    assert_second_order(lambda rate: linear(params, x, y, rate, loss=LOSS), params, x, y, LOSS)


def test_as_the_rate_goes_to_infinity_it_becomes_the_nearest_least_squares_solution(x64):
    params, (x, y) = first(cases(4, 2, real)).params, np.random.default_rng(0).normal(size=(2, TALL, 4))
    y = y[:, :2]
    new = linear(params, jnp.asarray(x), jnp.asarray(y), 1e12, loss=LOSS, reduction="sum")
    solution = np.linalg.lstsq(np.c_[x, np.ones(TALL)], y)[0]
    np.testing.assert_allclose(np.c_[new[0].W, new[0].b], solution.T, atol=1e-9)


@batches(TALL)
def test_float32_is_finite_everywhere_and_close_where_the_problem_is_well_conditioned(batch):
    single = cases(4, 2, real, dtype="float32", batch=batch)
    ours, exact = stepped(linear, single, LOSS), in_float64(linear, single, LOSS)
    gap = lengths(difference(exact, ours))
    assert np.isfinite(gap).all()
    X = np.concatenate([np.float64(single.x).reshape(len(gap), -1, 4), np.ones((len(gap), batch or 1, 1))], axis=2)
    pull = 2 * LOSS.scale * np.asarray(single.eta) / (batch or 1) * np.linalg.norm(X, axis=(1, 2)) ** 2
    easy = pull < 10
    assert easy.sum() > 200
    assert (gap <= 1e-4 * (lengths(single.params) + lengths(single.y)))[easy].all()


def test_the_step_runs_in_a_compiled_loop_and_converges_to_least_squares(x64):
    random = np.random.default_rng(1)
    x, theta = random.normal(size=(200, 1, 3)), random.normal(size=(2, 3))
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
