"""Wrong arguments to the functions of a graph are refused by name."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import PARAMS, SGD, X, Y, assert_refused, table
from fnn.graph import Graph, Network, backprop, deltas, fold, forward, input_gradient, sample_masks, statistics, trace

KEY = jax.random.key(0)
GRAPH = Graph.layered((3, 4, 2), fnn.Tanh())
NETWORK, NORMED = GRAPH.init(KEY), GRAPH.init(jax.random.key(0), batch_norm="full")
EVERY = {
    "forward": lambda params, x, y, masks=None: forward(params, x, masks),
    "trace": lambda params, x, y, masks=None: trace(params, x, masks),
    "backprop": backprop,
    "deltas": deltas,
    "input_gradient": input_gradient,
    "step": lambda params, x, y, masks=None: fnn.train.make_step(SGD)(params, SGD.init(params), x, y, masks),
}


def network(**parts):
    return {"params": replace(NETWORK, **parts)}


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
@table(
    {
        "x too wide": ({"x": jnp.ones((5, 4))}, ValueError, r"^x: expected shape \(3,\) or \(B, 3\)", r"got \(5, 4\)"),
        "x in float64": ({"x": np.ones((5, 3))}, TypeError, "^x: expected float32", "got float64", "astype"),
        "too few weights": (
            network(weights=jnp.ones(19)),
            ValueError,
            r"^params.weights: expected shape \(20,\), one per arrow",
            r"got \(19,\)",
        ),
        "a mask by itself": ({"masks": jnp.ones((5, 9))}, TypeError, "^masks: expected a fnn.Mask", "got"),
        "one example for a batch norm": (
            {"params": NORMED, "x": X[:1], "y": Y[:1]},
            ValueError,
            "^x: params has a batch norm, which needs at least 2 examples, got 1",
        ),
    }
)
def test_bad_arguments_are_refused_by_every_function(function, given, error, fragments):
    given = {"params": NETWORK, "x": X, "y": Y} | given
    assert_refused(lambda: function(**given), error, fragments)


@table(
    {
        "layers": ({"params": PARAMS}, TypeError, "^params: expected a fnn.graph.Network", "got tuple", "graph.init"),
        "a graph": ({"params": GRAPH}, TypeError, "^params: expected a fnn.graph.Network", "got Graph", "graph.init"),
        "a matrix of weights": (network(weights=jnp.ones((4, 5))), ValueError, "^params.weights", r"got \(4, 5\)"),
        "a list of weights": (network(weights=[1.0] * 20), TypeError, "^params.weights: expected an array", "got list"),
        "biases of the computed only": (
            network(biases=jnp.zeros(6)),
            ValueError,
            r"^params.biases: expected shape \(9,\), one per neuron",
            r"got \(6,\)",
        ),
        "biases in bfloat16": (
            network(biases=jnp.zeros(9, "bfloat16")),
            TypeError,
            "^params.biases: expected float32 as the weights have, got bfloat16",
        ),
        "weights in float64": (network(weights=np.ones(20)), TypeError, "^params.weights: expected float32", "float64"),
        "integers": (
            {"params": Network(jnp.ones(20, "int32"), jnp.zeros(9, "int32"), GRAPH), "x": jnp.ones((5, 3), "int32")},
            TypeError,
            "^params.weights: expected a floating dtype, got int32",
        ),
        "gammas of the hidden only": (
            network(norm=fnn.BatchNorm(jnp.ones(4), jnp.zeros(9))),
            ValueError,
            r"^params.norm.gamma: expected shape \(9,\)",
            r"got \(4,\)",
        ),
        "a norm that is none": (
            network(norm=5),
            TypeError,
            "^params.norm: expected a fnn.BatchNorm or None",
            "got int 5",
        ),
        "an unknown gradient of the norm": (
            network(norm=fnn.BatchNorm(jnp.ones(9), jnp.zeros(9), gradient="half")),
            ValueError,
            "^params.norm.gradient: expected 'full' or 'fixed', got 'half'",
        ),
        "an eps of zero": (
            network(norm=fnn.BatchNorm(jnp.ones(9), jnp.zeros(9), eps=0)),
            ValueError,
            "^params.norm.eps: expected a finite number > 0, got 0",
        ),
        "x of integers": ({"x": jnp.ones((5, 3), "int32")}, TypeError, "^x: expected float32", "got int32", "astype"),
        "x a list": ({"x": [[1.0] * 3]}, TypeError, "^x: expected an array", "got list", "jnp.asarray"),
        "x of rank 3": ({"x": jnp.ones((5, 1, 3))}, ValueError, "^x: expected shape", r"got \(5, 1, 3\)"),
        "an empty batch": ({"x": jnp.ones((0, 3))}, ValueError, "^x: expected at least one example", r"\(0, 3\)"),
        "masks for layers": (
            {"masks": (fnn.Mask(), fnn.Mask())},
            TypeError,
            "^masks: expected a fnn.Mask",
            "got tuple",
        ),
        "units of the hidden only": (
            {"masks": fnn.Mask(units=jnp.ones((5, 4)))},
            ValueError,
            r"^masks.units: expected shape \(5, 9\) or \(1, 9\)",
            r"got \(5, 4\)",
        ),
        "arrows as a matrix": (
            {"masks": fnn.Mask(arrows=jnp.ones((4, 5)))},
            ValueError,
            r"^masks.arrows: expected shape \(20,\)",
            r"got \(4, 5\)",
        ),
        "a mask of bool": (
            {"masks": fnn.Mask(arrows=jnp.ones(20, bool))},
            TypeError,
            "^masks.arrows: expected float32 as the parameters have, got bool",
        ),
        "a mask that is a list": (
            {"masks": fnn.Mask(arrows=[1.0])},
            TypeError,
            "^masks.arrows: expected an array",
            "list",
        ),
    }
)
def test_forward_refuses(given, error, fragments):
    given = {"params": NETWORK, "x": X} | given
    assert_refused(lambda: forward(**given), error, fragments)


@table(
    {
        "labels with a squared error": (
            {"y": jnp.zeros(5, "int32")},
            TypeError,
            "^y: SquaredError",
            "integers",
            "one_hot",
        ),
        "y too narrow": ({"y": jnp.zeros((5, 1))}, ValueError, r"^y: expected shape \(5, 2\)", r"got \(5, 1\)"),
        "y in float64": ({"y": np.zeros((5, 2))}, TypeError, "^y: expected float32", "got float64"),
        "a loss class": ({"loss": fnn.SquaredError}, TypeError, "^loss: expected a loss", "got .*SquaredError"),
        "a reduction": ({"reduction": "average"}, ValueError, "^reduction: expected 'mean' or 'sum', got 'average'"),
        "rules": ({"rules": None}, TypeError, "^rules: expected fnn.Rules, got None"),
        "a rule of another shape": (
            {"rules": fnn.RULES._replace(hidden_delta=lambda g, activation, z, a: g[:, :1])},
            ValueError,
            "^rules.hidden_delta: expected float32 of shape",
            r"got float32 of shape \(5, 1\)",
        ),
    }
)
def test_backprop_refuses(given, error, fragments):
    given = {"params": NETWORK, "x": X, "y": Y} | given
    assert_refused(lambda: backprop(**given), error, fragments)


@table(
    {
        "a seed": ({"key": 0}, TypeError, "^key: expected one PRNG key, got int 0", "jax.random.key"),
        "no gain": ({"gain": 0}, ValueError, "^gain: expected a finite number > 0, got 0"),
        "a gain in words": ({"gain": "relu"}, TypeError, "^gain: expected a number > 0, got 'relu'"),
        "an unknown batch norm": (
            {"batch_norm": True},
            ValueError,
            "^batch_norm: expected",
            "'full' or 'fixed'",
            "True",
        ),
        "integers": ({"dtype": "int32"}, TypeError, "^dtype: expected a floating dtype, got int32"),
        "float64 without x64": ({"dtype": "float64"}, ValueError, "^dtype: float64 needs x64"),
    }
)
def test_init_refuses(given, error, fragments):
    assert_refused(lambda: GRAPH.init(**{"key": jax.random.key(0)} | given), error, fragments)


DROPOUTS = {
    "a tuple": (
        fnn.DropConnect((0.5, 0.5)),
        TypeError,
        r"^keep: expected a number or an array \(20,\), one per arrow",
        r"got \(0.5, 0.5\)",
    ),  # fmt: skip
    "a tuple for neurons": (fnn.Dropout([0.5]), TypeError, r"^keep: .*\(9,\), one per neuron", r"got \[0.5\]"),
    "None": (fnn.Dropout(None), TypeError, "^keep: expected a number", "got None"),
    "above one": (fnn.DropConnect(1.5), ValueError, "^keep: expected 0 <= keep <= 1, got 1.5"),
    "below zero": (fnn.Dropout(-0.1), ValueError, "^keep: expected 0 <= keep <= 1, got -0.1"),
    "one of an array": (fnn.DropConnect(np.linspace(0, 2, 20)), ValueError, "^keep: expected 0 <= keep <= 1", "got"),
    "zero where inverted": (fnn.Dropout(0.0, inverted=True), ValueError, "^keep: expected 0 < keep <= 1", "inverted"),
    "another length": (fnn.DropConnect(np.ones(9)), ValueError, r"^keep: expected .*\(20,\), got \(9,\)"),
    "a string": (fnn.Dropout("half"), TypeError, "^keep: expected a probability to keep, got 'half'"),
    "a number": (0.5, TypeError, "^dropout: expected fnn.Dropout or fnn.DropConnect, got 0.5"),
}


@table(DROPOUTS)
def test_a_dropout_that_is_none_is_refused(given, error, fragments):
    assert_refused(lambda: sample_masks(jax.random.key(0), NETWORK, given, 5), error, fragments)
    assert_refused(lambda: fold(NETWORK, dropout=given), error, fragments)


@pytest.mark.parametrize(
    "call",
    [
        lambda params: sample_masks(jax.random.key(0), params, fnn.Dropout(0.5), 5),
        lambda params: fold(params),
        lambda params: statistics(params, [X]),
    ],
    ids=["sample_masks", "fold", "statistics"],
)
def test_layers_are_refused_where_a_graphs_parameters_are_expected(call):
    assert_refused(lambda: call(PARAMS), TypeError, ["^params: expected a fnn.graph.Network", "got tuple"])


def test_what_cannot_be_folded_is_refused():
    assert_refused(lambda: fold(NORMED), ValueError, ["^statistics: params has a batch norm", "fnn.graph.statistics"])
    assert_refused(
        lambda: statistics(NORMED, []), ValueError, ["^batches: expected at least one mini-batch", "got none"]
    )
    assert_refused(lambda: statistics(NORMED, [X[:1]]), ValueError, ["^x: .*needs at least 2 examples, got 1"])
    assert_refused(lambda: statistics(NORMED, [np.ones((5, 3))]), TypeError, ["^x: expected float32", "got float64"])
    with pytest.raises(ValueError, match="write fnn.fold|write fnn.graph.fold|write fold"):
        fnn.train.evaluate(NORMED, (np.ones((5, 3), np.float32), np.zeros((5, 2), np.float32)), loss=fnn.SquaredError())
