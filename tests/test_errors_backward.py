"""Bad targets, losses, reductions and rules are refused by name."""

import re
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import (
    BACKWARD,
    LABELS,
    ONE_OUTPUT,
    PARAMS,
    SOFTMAX,
    SQUARED,
    X,
    Y,
    assert_refused,
    changed,
    make_and_run_step,
    table,
)


@dataclass(frozen=True)
class OneNumber(fnn.Loss):
    def value(self, a, y):
        return jnp.sum((a - y) ** 2)

    def gradient(self, a, y):
        return 2 * (a - y)


@dataclass(frozen=True)
class Lopsided(fnn.Loss):
    def value(self, a, y):
        return jnp.sum(a - y, axis=-1)

    def gradient(self, a, y):
        return (a - y).T


@dataclass(frozen=True)
class Unfinished(fnn.Loss):
    def value(self, a, y):
        return jnp.sum(a - y, axis=-1)


@dataclass
class UnhashableLoss:
    def value(self, a, y):
        return jnp.sum(a - y, axis=-1)

    def delta(self, activation, z, a, y):
        return a - y


@pytest.mark.parametrize("function", BACKWARD.values(), ids=BACKWARD)
@table(
    {
        "(B,) against (B, 1)": (
            {"params": ONE_OUTPUT, "y": jnp.zeros(5)},
            ValueError,
            r"^y: expected shape \(5, 1\) as the network's output has, got \(5,\)",
            r"write y.reshape\(\(5, 1\)\)",
        ),
        "labels with a squared error": (
            {"y": LABELS},
            TypeError,
            r"^y: SquaredError\(scale=0.5\) takes targets of shape \(B, 2\)",
            r"got integers, int32 of shape \(5,\)",
            r"one-hot them: jax.nn.one_hot\(y, 2\)",
            "SoftmaxCrossEntropy",
        ),
        "too few labels": (
            {"y": LABELS[:3], "loss": SOFTMAX},
            ValueError,
            r"^y: expected labels of shape \(5,\)",
            r"\(3,\)",
        ),
        "y in float64": ({"y": np.zeros((5, 2))}, TypeError, "^y: expected float32", "got float64", "astype"),
        "an unhashable loss": ({"loss": UnhashableLoss()}, TypeError, "^loss: expected", "got UnhashableLoss"),
        "a loss whose gradient is turned": (
            {"loss": Lopsided()},
            ValueError,
            "Lopsided|rules.",
            "expected",
            r"got .*2, 5",
        ),
        "rules None": ({"rules": None}, TypeError, "^rules: expected fnn.Rules", "got None"),
    }
)
def test_a_bad_target_loss_or_rules_are_refused_by_every_backward_function(function, given, error, fragments):
    given = {"params": PARAMS, "x": X, "y": Y, "loss": SQUARED} | given
    assert_refused(lambda: function(**given), error, fragments)


@table(
    {
        "(B, 1) against (B, 2)": (
            {"y": jnp.zeros((5, 1))},
            ValueError,
            r"^y: expected shape \(5, 2\)",
            r"got \(5, 1\)",
        ),
        "(1, 2) against (B, 2)": (
            {"y": jnp.zeros((1, 2))},
            ValueError,
            r"^y: expected shape \(5, 2\)",
            r"got \(1, 2\)",
        ),
        "a single target": ({"y": jnp.zeros(2)}, ValueError, r"^y: expected shape \(5, 2\)", r"got \(2,\)"),
        "a batch for one example": ({"x": X[0]}, ValueError, r"^y: expected shape \(2,\)", r"got \(5, 2\)"),
        "one label with a squared error": (
            {"x": X[0], "y": 1},
            TypeError,
            "^y: SquaredError",
            "got integers",
            "one-hot",
        ),
        "labels with Huber": ({"y": LABELS, "loss": fnn.Huber()}, TypeError, "^y: Huber", "got integers", "one-hot"),
        "labels for one output": (
            {"params": ONE_OUTPUT, "y": LABELS, "loss": fnn.SigmoidCrossEntropy()},
            ValueError,
            r"^y: a network with one output takes y of shape \(5, 1\), got labels of shape \(5,\)",
        ),
        "a column of labels": (
            {"y": LABELS[:, None], "loss": SOFTMAX},
            ValueError,
            r"^y: expected labels of shape \(5,\), got \(5, 1\)",
        ),
        "one-hot integers": (
            {"y": jnp.ones((5, 2), jnp.int32), "loss": SOFTMAX},
            ValueError,
            r"^y: expected labels of shape \(5,\), got \(5, 2\)",
            "astype",
        ),
        "y in bfloat16": ({"y": jnp.zeros((5, 2), "bfloat16")}, TypeError, "^y: expected float32", "got bfloat16"),
        "y of bool": ({"y": jnp.zeros((5, 2), bool)}, TypeError, "^y: expected float32", "got bool"),
        "y a list": ({"y": [[0.0, 0.0]] * 5}, TypeError, "^y: expected an array", "got list"),
        "y True": ({"x": X[0], "y": True, "loss": SOFTMAX}, TypeError, "^y: expected an array", "got bool True"),
        "y None": ({"y": None}, TypeError, "^y: expected an array", "got NoneType"),
        "a loss's class": ({"loss": fnn.Huber}, TypeError, r"^loss: expected a loss such as", "got <class .*Huber"),
        "a string for a loss": ({"loss": "mse"}, TypeError, "^loss: expected", "got 'mse'", "there are .*SquaredError"),
        "a function for a loss": ({"loss": optax.l2_loss}, TypeError, "^loss: expected", "got <function l2_loss"),
        "no loss": ({"loss": None}, TypeError, "^loss: expected", "got None"),
        "rules in a tuple": ({"rules": tuple(fnn.RULES)}, TypeError, "^rules: expected fnn.Rules", r"got \("),
        "a rule None": (
            {"rules": fnn.RULES._replace(hidden_delta=None)},
            TypeError,
            "^rules.hidden_delta",
            "expected",
            "got .*None",
        ),
    }
)
def test_value_and_backprop_refuses_a_target_a_loss_or_rules(given, error, fragments):
    given = {"params": PARAMS, "x": X, "y": Y, "loss": SQUARED} | given
    assert_refused(lambda: fnn.value_and_backprop(**given), error, fragments)


@pytest.mark.parametrize("function", [fnn.backprop, fnn.value_and_backprop, fnn.input_gradient, make_and_run_step])
def test_an_unknown_reduction_is_refused_by_every_function_that_takes_one(function):
    fragments = ["^reduction: expected 'mean' or 'sum'", "got 'avg'"]
    assert_refused(lambda: function(PARAMS, X, Y, loss=SQUARED, reduction="avg"), ValueError, fragments)


@pytest.mark.parametrize("reduction", [None, True, ["mean"]], ids=str)
def test_a_reduction_that_is_no_string_is_refused(reduction):
    fragments = ["^reduction: expected 'mean' or 'sum'", f"got {re.escape(repr(reduction))}"]
    assert_refused(lambda: fnn.backprop(PARAMS, X, Y, reduction=reduction), ValueError, fragments)


@pytest.mark.parametrize(
    "function",
    [
        fnn.value_and_backprop,
        make_and_run_step,
        lambda params, x, y, loss: fnn.train.evaluate(params, (x, y), loss=loss),
    ],
    ids=["value_and_backprop", "step", "evaluate"],
)
def test_a_loss_that_adds_up_the_examples_is_refused_where_its_value_is_used(function):
    fragments = [r"^OneNumber\(\).value\(a, y\): expected float32 of shape \(5,\)", r"got float32 of shape \(\)"]
    assert_refused(lambda: function(PARAMS, X, Y, loss=OneNumber()), ValueError, fragments)


def test_a_loss_or_an_activation_that_is_not_finished_says_what_it_must_define():
    with pytest.raises(NotImplementedError, match=r"Unfinished must define gradient\(self, a, y\)"):
        fnn.backprop(PARAMS, X, Y, loss=Unfinished())
    with pytest.raises(NotImplementedError, match=r"Activation must define value\(self, z\)"):
        fnn.forward(changed(activation=fnn.Activation()), X)
    with pytest.raises(TypeError, match="Softmax has no elementwise derivative; use pullback"):
        fnn.Softmax().derivative(X, X)
