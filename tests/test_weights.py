"""Weights of examples and of targets: in the loss, and so in every δ; what is missing has the weight 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import (
    LABELS,
    PARAMS,
    SOFTMAX,
    SQUARED,
    X,
    Y,
    assert_refusal,
    evaluate,
    fit,
    layer,
    ones,
    refusals,
    refused,
    spoiled,
    zeros,
)
from fnn.data import Batches, Dataset
from fnn.losses import Weighted
from problems import LOSSES, and_slow, assert_agrees, problem
from resume_cases import assert_same

WEIGHTS = jnp.asarray(np.array([1, 0, 2, 0.5, 1], "float32"))
SEPARABLE = [loss for loss in LOSSES if loss.by_output]
RANDOM = np.random.default_rng(0)


def test_every_loss_but_the_softmax_is_a_sum_over_outputs():
    assert [loss for loss in LOSSES if not loss.by_output] == [SOFTMAX]


def weighted(loss, columns, activation, output, dtype="float64"):
    p = problem(activation, loss, 2, output=output, dtype=dtype)
    weights = jnp.asarray(RANDOM.uniform(0, 2, (7, columns) if columns > 1 else 7), dtype)
    return p._replace(loss=Weighted(loss), y=Weighted.beside(p.y, weights))


CASES = [
    (fnn.SquaredError(), 6, fnn.Softmax()),
    (fnn.CrossEntropy(), 6, fnn.Sigmoid(2.0)),
    (SOFTMAX, 1, fnn.Identity()),
]
ALL = [(loss, columns, fnn.Sigmoid()) for loss in SEPARABLE for columns in (1, 6)]


@pytest.mark.parametrize("case", and_slow(CASES, ALL), ids=str)
def test_the_hand_written_gradient_of_a_weighted_loss_is_autodiffs(case, x64):
    loss, columns, output = case
    assert_agrees(weighted(loss, columns, fnn.Tanh(), output))


def test_the_checker_judges_every_equation_of_a_weighted_loss():
    p = weighted(fnn.SquaredError(), 6, fnn.Tanh(), fnn.Identity(), "float32")
    assert fnn.verify.network(p.params, p.x, p.y, loss=p.loss).ok


def test_curvature_takes_weights():
    p = weighted(fnn.SquaredError(), 6, fnn.Tanh(), fnn.Sigmoid(), "float32")
    v = jax.tree.map(jnp.ones_like, p.params)
    cost = jax.jit(lambda params: p.loss.value(fnn.forward(params, p.x), p.y).mean())
    _, expected = jax.jit(lambda v: jax.jvp(jax.grad(cost), (p.params,), (v,)))(v)
    for ours, theirs in zip(*map(jax.tree.leaves, (fnn.curvature.hvp(p.params, p.x, p.y, v, loss=p.loss), expected))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_weights_of_examples_multiply_their_gradients():
    gradients = fnn.per_example.gradients(PARAMS, X, LABELS, loss=SOFTMAX)
    by_hand = jax.tree.map(lambda leaf: jnp.tensordot(WEIGHTS, leaf, 1) / 5, gradients)
    y = Weighted.beside(jax.nn.one_hot(LABELS, 2), WEIGHTS)
    for ours, theirs in zip(*map(jax.tree.leaves, (fnn.backprop(PARAMS, X, y, loss=Weighted(SOFTMAX)), by_hand))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["pair", "memory", "streamed", "batches", "triples"])
def test_fit_and_evaluate_take_data_with_weights(kind):
    """An example of weight 2 is one that is there twice, and one of weight 0 is none."""
    rows = np.array([0, 2, 2, 3])
    x, labels, weights = (
        np.asarray(X) + np.arange(5, dtype="f4")[:, None],
        np.asarray(LABELS),
        np.array([1, 0, 2, 1, 0], "f4"),
    )
    y = Weighted.beside(np.eye(2, dtype="f4")[labels], weights)
    data = {
        "pair": (x, labels, weights),
        "memory": Dataset(x, labels, weights=weights),
        "streamed": Dataset(x, labels, weights=weights, chunk_bytes=10),
        "batches": Batches(lambda epoch: [(x, y)]),
        "triples": Batches(lambda epoch: [(x, labels, weights)]),
    }[kind]
    loss = Weighted(SOFTMAX) if kind == "batches" else SOFTMAX  # its y has the weights beside it
    ours = fit(data=data, loss=loss, batch_size=5, reduction="sum")
    theirs = fit(data=(x[rows], labels[rows]), loss=SOFTMAX, batch_size=4, reduction="sum")
    for one, other in zip(*map(jax.tree.leaves, (ours.params, theirs.params))):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    if kind in ("pair", "memory", "streamed"):
        alone = evaluate(ours, (x[rows], labels[rows]), SOFTMAX)
        assert evaluate(ours, data, SOFTMAX)["loss"] == pytest.approx(alone["loss"] * 4 / 5, rel=1e-5)
        assert "accuracy" in evaluate(ours, data, SOFTMAX)


def test_a_missing_target_counts_for_nothing():
    x = np.arange(20, dtype="f4")[:, None] / 20
    y = np.concatenate([2 * x, -x], axis=1)
    there = np.ones_like(y)
    there[::5, 0] = there[1::3, 1] = 0
    y[there == 0] = np.nan
    params = fnn.init(jax.random.key(0), (1, 2))
    run = fit(params, (x, y, there), batch_size=20, epochs=400, optimizer=fnn.updates.momentum(0.3))
    np.testing.assert_allclose(run.params[0].W, [[2], [-1]], atol=1e-3)
    assert_refusal(lambda: fit(params, (x, y)), "ValueError: data: y: expected finite numbers, got …nan")


MISSING = np.array([0, 3])
SOFT = np.eye(2, dtype="f4")[np.asarray(LABELS)]


def missing(array, value):
    array = np.array(array)
    array[MISSING] = value
    return array


ANYTHING = {  # targets, what stands where they are missing, and the loss
    "NaN": (missing(Y, np.nan), SQUARED),
    "infinite": (missing(Y, np.inf), SQUARED),
    "negative counts": (missing(Y, -1), fnn.Poisson()),
    "no label": (missing(LABELS, -100), SOFTMAX),
    "too large a label": (missing(LABELS, 7), SOFTMAX),
    "no row": (missing(SOFT, np.nan), SOFTMAX),
}


@pytest.mark.parametrize("what", ANYTHING)
def test_the_target_of_an_example_without_weight_may_be_anything_and_is_not_counted(what):
    y, loss = ANYTHING[what]
    there = ~np.isin(np.arange(5), MISSING)
    run = fit(data=(X, y, there), loss=loss, batch_size=5, reduction="sum")
    alone = fit(data=(X[there], y[there]), loss=loss, batch_size=3, reduction="sum")
    for one, other in zip(*map(jax.tree.leaves, (run.params, alone.params))):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    ours, theirs = evaluate(run, (X, y, there), loss), evaluate(run, (X[there], y[there]), loss)
    assert ours["loss"] == pytest.approx(theirs["loss"] * 3 / 5, rel=1e-5)
    assert ours.get("accuracy") == theirs.get("accuracy")


def test_nothing_infinite_or_missing_passes_a_weight_of_0():
    """By the functions too, in compiled code and outside it."""
    a = jnp.array([[200.0, 1.0], [1.0, 200.0]])
    y = Weighted.beside(jnp.array([[np.nan, 2.0], [3.0, np.inf]]), jnp.array([[0.0, 1.0], [2.0, 0.0]]))
    loss = Weighted(fnn.Poisson())
    for value, gradient in ((loss.value, loss.gradient), (jax.jit(loss.value), jax.jit(loss.gradient))):
        np.testing.assert_allclose(value(a, y), [np.e - 2, 2 * (np.e - 3)], rtol=1e-5)
        np.testing.assert_allclose(gradient(a, y), [[0, np.e - 2], [2 * (np.e - 3), 0]], rtol=1e-5)


def test_a_mini_batch_may_have_no_weight_at_all():
    weights = [np.zeros(5, "f4"), np.ones(5, "f4")]
    data = Batches(lambda epoch: [(np.asarray(X), np.asarray(LABELS), each) for each in weights], chunk_bytes=1)
    alone = Batches(lambda epoch: [(np.asarray(X), np.asarray(LABELS))])
    assert_same(*(fit(data=each, loss=SOFTMAX, batch_size=5).params for each in (data, alone)))


def test_unequal_exposures_of_counts_are_weights_of_rates():
    """As a Poisson regression with the offset log t, by Newton's method."""
    x, t = RANDOM.normal(size=(400, 2)), RANDOM.uniform(0.2, 5, 400)
    y = RANDOM.poisson(t * np.exp(0.4 * x[:, 0] - 0.2 * x[:, 1] + 0.3))
    X, w = np.hstack([x, np.ones((400, 1))]), np.zeros(3)
    for _ in range(20):
        mean = t * np.exp(X @ w)
        w += np.linalg.solve(X.T @ (mean[:, None] * X), X.T @ (y - mean))
    data = x.astype("f4"), (y / t)[:, None].astype("f4"), t.astype("f4")
    run = fit(layer(zeros(1, 2), zeros(1)), data, optax.lbfgs(), loss=fnn.Poisson(), batch_size=400, epochs=30)
    np.testing.assert_allclose([*run.params[0].W[0], *run.params[0].b], w, atol=1e-3)


def dataset(weights=None, **given):
    return Dataset(**{"x": X, "y": Y} | given, weights=weights)


REFUSED = {
    "integers": refused("TypeError: weights: expected floating numbers, got int32", weights=ones(5, dtype="int32")),
    "too few": refused("ValueError: weights: expected shape (5,) or (5, 2), got (4,)", weights=ones(4)),
    "per target of labels": refused(
        "ValueError: weights: expected shape (5,), got (5, 2)", y=np.asarray(LABELS), weights=ones(5, 2)
    ),
    "a column": refused(
        "ValueError: weights: expected shape (5,) or (5, 2), got (5, 1); write weights.reshape(5)", weights=ones(5, 1)
    ),
    "below 0": refused("ValueError: weights: expected finite numbers >= 0, got -1.0 in row 0", weights=WEIGHTS - 2),
    "NaN": refused("ValueError: weights: expected finite numbers >= 0", weights=spoiled(Y + 1, np.nan)),
    "NaN that is there": refused("ValueError: y: expected finite numbers", y=spoiled(Y, np.nan), weights=ones(5, 2)),
}  # fmt: skip
TRIPLE = np.asarray(X), np.asarray(LABELS), np.ones(5, "f4")
OF_BATCHES = {
    "weights later": refused(
        "TypeError: data: batch 1 of epoch 1: expected a pair (x, y), got tuple…weights in every mini-batch or in none",
        data=Batches(lambda epoch: [TRIPLE[:2], TRIPLE]), loss=SOFTMAX, batch_size=5,
    ),
    "weights at first": refused(
        "TypeError: data: batch 1 of epoch 1: expected (x, y, weights) as before, got tuple",
        data=Batches(lambda epoch: [TRIPLE, TRIPLE[:2]]), loss=SOFTMAX, batch_size=5,
    ),
    "weights below 0": refused(
        "ValueError: data: batch 1 of epoch 1: weights: expected finite numbers >= 0, got -1.0 in row 0",
        data=Batches(lambda epoch: [TRIPLE, (*TRIPLE[:2], TRIPLE[2] - 2)]), loss=SOFTMAX, batch_size=5,
    ),
}  # fmt: skip
OF_LOSS = {
    "nothing": refused("ValueError: data: weights: expected at least one above 0, got none", data=(X, Y, zeros(5))),
    "per output of a softmax": refused(
        "ValueError: data: weights: expected shape (N,), because SoftmaxCrossEntropy() is not a sum over outputs",
        data=(X, jax.nn.one_hot(LABELS, 2), ones(5, 2)), loss=SOFTMAX,
    ),
    "y with too many columns": refused(
        "ValueError: data: the network has 2 outputs, got y of shape (5, 5)",
        data=(X, ones(5, 5)), loss=Weighted(SQUARED),
    ),
}  # fmt: skip


@refusals(({"Dataset": dataset}, REFUSED), ({"fit": fit, "evaluate": evaluate}, OF_LOSS), ({"fit": fit}, OF_BATCHES))
def test_weights_that_cannot_be_are_refused(call, message):
    assert_refusal(call, message)


def test_a_weighted_loss_is_the_loss_itself_where_there_are_no_weights():
    assert_same(fnn.backprop(PARAMS, X, Y + 1, loss=Weighted(SQUARED)), fnn.backprop(PARAMS, X, Y + 1, loss=SQUARED))
    assert_refusal(
        lambda: fnn.backprop(PARAMS, X, ones(5, 5), loss=Weighted(SQUARED)),
        "ValueError: y: expected shape (5, 2) or (5, 3) or (5, 4) for Weighted(…), got (5, 5); write loss.beside(",
    )
    assert_refusal(lambda: Weighted(fnn.SquaredError), "TypeError: loss: expected a loss, got <class")


def test_a_slice_keeps_its_weights():
    assert_same(Dataset(X, Y, weights=WEIGHTS)[2:4].weights, np.asarray(WEIGHTS[2:4]))
