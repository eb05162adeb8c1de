"""Bad data and settings of ``fit``, ``evaluate``, ``predict`` and ``make_step`` are refused by name."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import (
    LABELS,
    NORMED,
    ONE_OUTPUT,
    PARAMS,
    SGD,
    SOFTMAX,
    SQUARED,
    X,
    Y,
    assert_refused,
    changed,
    fit,
    layer,
    spoiled,
    table,
)

USES = {
    "fit": lambda data, **options: fit(data=data, **options),
    "validation": lambda data, **options: fit(validation=data, **options),
    "evaluate": lambda data, params=PARAMS, loss=SQUARED: fnn.train.evaluate(params, data, loss=loss),
}


@pytest.mark.parametrize("use", USES)
@table(
    {
        "NaN in x": (
            ((spoiled(X, np.nan), Y),),
            ValueError,
            r"x: expected finite numbers, got .*nan.* in row 2 \(2 such",
        ),
        "a label too large": (
            ((X, jnp.array([0, 1, 2, 0, 9])), SOFTMAX),
            ValueError,
            r"y: expected labels below 2, the network's outputs, got 2 in row 2 \(2 such rows\)",
        ),
        "labels with a squared error": (((X, LABELS),), TypeError, "y: SquaredError", "got integers", "one-hot"),
        "too many inputs": (
            ((jnp.ones((5, 4)), Y),),
            ValueError,
            r"the network takes 3 inputs, got x of shape \(5, 4\)",
        ),
        "x alone": ((X,), TypeError, r"expected a fnn.data.Dataset or a pair \(x, y\)", "got float32 of shape"),
    }
)
def test_bad_data_are_refused_wherever_they_go_in(use, given, error, fragments):
    data, loss = (*given, SQUARED)[:2]
    if use == "validation":
        y = LABELS if loss is SOFTMAX else Y
        assert_refused(lambda: fit(data=(X, y), validation=data, loss=loss), error, ["^validation", *fragments])
    else:
        assert_refused(lambda: USES[use](data, loss=loss), error, fragments)


@table(
    {
        "inf in x": (((spoiled(X, np.inf), Y),), ValueError, "x: expected finite numbers, got .*inf.* in row 2"),
        "NaN in y": (((X, spoiled(Y, np.nan)),), ValueError, "y: expected finite numbers, got .*nan.* in row 2"),
        "a negative label": (
            ((X, jnp.array([0, 1, 1, -1, 0])), SOFTMAX),
            ValueError,
            r"y: expected labels >= 0, got -1 in row 3 \(1 such rows\)",
        ),
        "no examples": (((X[:0], Y[:0]),), ValueError, "x, y: expected .*at least one, got 0 and 0"),
        "unequal lengths": (((X, Y[:3]),), ValueError, "x, y: expected as many examples in both, .*got 5 and 3"),
        "targets of shape (N,)": (((X, Y[:, 0]),), ValueError, r"y: expected targets of shape \(N, m\), got \(5,\)"),
        "too many targets": (((X, X),), ValueError, r"the network has 2 outputs, got y of shape \(5, 3\)"),
        "x in another dtype": (((X.astype("bfloat16"), Y),), TypeError, "expected x in float32", "got bfloat16"),
        "y in another dtype": (((X, Y.astype("bfloat16")),), TypeError, "y: expected float32", "got bfloat16"),
        "x of integers": (((jnp.ones((5, 3), int), Y),), TypeError, "x: expected uint8 or floating", "got int32"),
        "images not in rows": (((jnp.ones((5, 1, 3)), Y),), ValueError, r"x: expected shape \(N, n\), got \(5, 1, 3\)"),
        "lists": (((X.tolist(), Y.tolist()),), TypeError, "x: expected an array", "got list"),
        "three arrays": (((X, Y, Y),), TypeError, r"expected a fnn.data.Dataset or a pair \(x, y\)", "got tuple"),
        "a dict": (({"x": X, "y": Y},), TypeError, r"expected a fnn.data.Dataset or a pair \(x, y\)", "got dict"),
    }
)
def test_fit_refuses_data(given, error, fragments):
    data, loss = (*given, SQUARED)[:2]
    assert_refused(lambda: fit(data=data, loss=loss), error, fragments)


@table(
    {
        "no data": ({"data": None}, TypeError, "^data: expected", "got NoneType"),
        "labels for one output": (
            {"params": ONE_OUTPUT, "data": (X, LABELS), "loss": fnn.SigmoidCrossEntropy()},
            ValueError,
            r"^data: a network with one output takes y of shape \(N, 1\), got labels of shape \(5,\)",
        ),
        "no params": ({"params": None}, TypeError, "^params: expected a tuple of fnn.Dense", "got NoneType"),
        "W transposed": ({"params": changed(W=PARAMS[0].W.T)}, ValueError, "takes 4 inputs|expected shape", r"got"),
        "a later W transposed": (
            {"params": changed(1, W=PARAMS[1].W.T), "data": (X, jnp.zeros((5, 4)))},
            ValueError,
            r"^params\[1\].W: expected shape \(n_out, 4\)",
            r"got \(4, 2\)",
        ),
        "W of rank 1": ({"params": layer(W=jnp.ones(3))}, ValueError, r"^params\[0\].W: expected shape", r"got \(3,\)"),
        "a b of wrong length": (
            {"params": layer(b=jnp.zeros(1))},
            ValueError,
            r"^params\[0\].b: expected",
            r"got \(1,\)",
        ),
        "an activation's class": (
            {"params": changed(activation=fnn.ReLU)},
            TypeError,
            r"^params\[0\].activation: expected",
            "got <class",
        ),
        "epochs 0": ({"epochs": 0}, ValueError, "^epochs: expected at least 1, got 0"),
        "epochs below 0": ({"epochs": -3}, ValueError, "^epochs: expected at least 1, got -3"),
        "epochs a float": ({"epochs": 1.5}, TypeError, "^epochs: expected an integer, got 1.5"),
        "epochs a string": ({"epochs": "3"}, TypeError, "^epochs: expected an integer, got '3'"),
        "batch_size 0": ({"batch_size": 0}, ValueError, "^batch_size: expected at least 1 .*, got 0"),
        "batch_size over N": ({"batch_size": 6}, ValueError, "^batch_size: .*at most the 5 examples, got 6"),
        "batch_size a float": ({"batch_size": 2.0}, TypeError, "^batch_size: expected an integer, got 2.0"),
        "no batch_size": ({"batch_size": None}, TypeError, "^batch_size: expected an integer, got None"),
        "batches of 1 with a batch norm": (
            {"params": NORMED, "batch_size": 1},
            ValueError,
            r"params\[0\] has a batch norm, which needs at least 2 examples, got 1",
        ),
        "an int seed": ({"key": 0}, TypeError, "^key: expected one PRNG key", "got int 0", "write key="),
        "no key": ({"key": None}, TypeError, "^key: expected one PRNG key", "got NoneType"),
        "a loss's class": ({"loss": fnn.SquaredError}, TypeError, "^loss: expected", "got <class .*SquaredError"),
        "a string for a loss": ({"loss": "mse"}, TypeError, "^loss: expected", "got 'mse'"),
        "an unknown reduction": ({"reduction": "avg"}, ValueError, "^reduction: expected 'mean' or 'sum'", "got 'avg'"),
        "a rate for an optimizer": ({"optimizer": 0.1}, TypeError, "^optimizer: expected an optax", "got 0.1", "sgd"),
        "a rule that was not called": (
            {"optimizer": fnn.updates.sgd},
            TypeError,
            "^optimizer: expected",
            "got <function",
        ),
        "an optimizer's class": (
            {"optimizer": optax.GradientTransformation},
            TypeError,
            "^optimizer: expected",
            "got <class",
        ),
        "a callback that is no function": ({"callback": 5}, TypeError, "^callback: expected", "got .*5"),
    }
)
def test_fit_refuses(given, error, fragments):
    assert_refused(lambda: fit(**given), error, fragments)


@table(
    {
        "no params": ({"params": None}, TypeError, "^params: expected a tuple of fnn.Dense", "got NoneType"),
        "no data": ({"data": None}, TypeError, "^data: expected", "got NoneType"),
        "a loss's class": ({"loss": fnn.Huber}, TypeError, "^loss: expected", "got <class .*Huber"),
        "W of rank 1": ({"params": layer(W=jnp.ones(3))}, ValueError, r"^params\[0\].W: expected shape", r"got \(3,\)"),
    }
)
def test_evaluate_refuses(given, error, fragments):
    given = {"params": PARAMS, "data": (X, Y), "loss": SQUARED} | given
    assert_refused(lambda: fnn.train.evaluate(**given), error, fragments)


@table(
    {
        "x alone": ((PARAMS, X), TypeError, "^data: expected a fnn.data.Dataset", "got float32"),
        "no params": ((None, fnn.data.Dataset(X, Y)), TypeError, "^params: expected a tuple", "got NoneType"),
        "too many inputs": (
            (PARAMS, fnn.data.Dataset(Y, Y)),
            ValueError,
            "takes 3 inputs|expected shape",
            r"got .*2,?\)",
        ),
    }
)
def test_predict_refuses(given, error, fragments):
    assert_refused(lambda: fnn.train.predict(*given), error, fragments)


@table(
    {
        "no optimizer": ({"optimizer": None}, TypeError, "^optimizer: expected an optax", "got None"),
        "a rule that was not called": (
            {"optimizer": optax.adam},
            TypeError,
            "^optimizer: expected",
            "got <function adam",
        ),
        "an optimizer's class": (
            {"optimizer": optax.GradientTransformation},
            TypeError,
            "^optimizer: expected",
            "got <class",
        ),
        "a loss's class": ({"loss": fnn.SquaredError}, TypeError, "^loss: expected", "got <class"),
        "an unknown reduction": ({"reduction": "avg"}, ValueError, "^reduction: expected 'mean' or 'sum'", "got 'avg'"),
        "no rules": ({"rules": None}, TypeError, "^rules: expected fnn.Rules", "got None"),
    }
)
def test_make_step_refuses_before_any_step(given, error, fragments):
    assert_refused(lambda: fnn.train.make_step(**({"optimizer": SGD} | given)), error, fragments)
