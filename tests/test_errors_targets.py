"""Bad targets, losses and reductions are refused by name."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import optax

import fnn
from errors import (
    BACKWARD,
    LABELS,
    ONE_OUTPUT,
    SOFTMAX,
    X,
    assert_refusal,
    evaluate,
    ones,
    only,
    refusals,
    refused,
    zeros,
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


BOTH = {  # layers and graphs
    "labels with a squared error": refused(
        "TypeError: y: SquaredError(scale=0.5) takes targets of shape (B, 2), got integers, int32 of shape (5,); "
        "one-hot them: jax.nn.one_hot(y, 2)…SoftmaxCrossEntropy",
        y=LABELS,
    ),
    "y in float64": refused("TypeError: y: expected float32…got float64…astype", y=np.zeros((5, 2))),
}
LAYERS = {
    "(B,) against (B, 1)": refused(
        "ValueError: y: expected shape (5, 1) as the network's output has, got (5,); write y[:, None]",
        params=ONE_OUTPUT,
        y=zeros(5),
    ),
    "too few labels": refused(
        "ValueError: y: expected labels of shape (5,), one per example, got (3,)", y=LABELS[:3], loss=SOFTMAX
    ),
    "an unhashable loss": refused("TypeError: loss: expected…got UnhashableLoss", loss=UnhashableLoss()),
    "a loss whose gradient is turned": refused("ValueError: rules.output_delta: expected…got …2, 5", loss=Lopsided()),
}
VALUES_OF_BOTH = {
    "(B, 1) against (B, 2)": refused("ValueError: y: expected shape (5, 2)…got (5, 1)", y=zeros(5, 1)),
    "a loss's class": refused("TypeError: loss: expected a loss such as…got <class …Huber", loss=fnn.Huber),
}
VALUES = {
    "(1, 2) against (B, 2)": refused("ValueError: y: expected shape (5, 2)…got (1, 2)", y=zeros(1, 2)),
    "a single target": refused("ValueError: y: expected shape (5, 2)…got (2,)", y=zeros(2)),
    "a batch for one example": refused("ValueError: y: expected shape (2,)…got (5, 2)", x=X[0]),
    "one label with a squared error": refused("TypeError: y: SquaredError…got integers…one-hot", x=X[0], y=1),
    "labels with Huber": refused("TypeError: y: Huber…got integers…one-hot", y=LABELS, loss=fnn.Huber()),
    "labels for one output": refused(
        "ValueError: y: a network with one output takes y of shape (5, 1), got labels of shape (5,)",
        params=ONE_OUTPUT,
        y=LABELS,
        loss=fnn.SigmoidCrossEntropy(),
    ),
    "a column of labels": refused(
        "ValueError: y: expected labels of shape (5,), one per example, got (5, 1); write y[:, 0]",
        y=LABELS[:, None],
        loss=SOFTMAX,
    ),
    "one-hot integers": refused(
        "ValueError: y: expected labels of shape (5,), one per example, got (5, 2)…astype",
        y=ones(5, 2, dtype="int32"),
        loss=SOFTMAX,
    ),
    "y in bfloat16": refused("TypeError: y: expected float32…got bfloat16", y=zeros(5, 2, dtype="bfloat16")),
    "y of bool": refused("TypeError: y: expected float32…got bool", y=zeros(5, 2, dtype="bool")),
    "y a list": refused("TypeError: y: expected an array, got list", y=[[0.0, 0.0]] * 5),
    "y True": refused("TypeError: y: expected an array, got bool True", x=X[0], y=True, loss=SOFTMAX),
    "y None": refused("TypeError: y: expected an array, got NoneType", y=None),
    "a string for a loss": refused("TypeError: loss: expected…got 'mse'…there are …SquaredError", loss="mse"),
    "a function for a loss": refused("TypeError: loss: expected…got <function l2_loss", loss=optax.l2_loss),
    "no loss": refused("TypeError: loss: expected…got None", loss=None),
}
ADDED_UP = {  # where its value is used
    "a loss that adds up the examples": refused(
        "ValueError: OneNumber().value(a, y): expected float32 of shape (5,), got float32 of shape ()",
        loss=OneNumber(),
    )
}
REDUCED = {"a reduction": refused("ValueError: reduction: expected 'mean' or 'sum', got 'avg'", reduction="avg")}
BACKPROP = {
    "reduction None": refused("ValueError: reduction: expected 'mean' or 'sum', got None", reduction=None),
    "reduction True": refused("ValueError: reduction: expected 'mean' or 'sum', got True", reduction=True),
    "reduction a list": refused("ValueError: reduction: expected 'mean' or 'sum', got ['mean']", reduction=["mean"]),
    "an unfinished loss": refused(
        "NotImplementedError: Unfinished must define gradient(self, a, y)", loss=Unfinished()
    ),
}


@refusals(
    (BACKWARD | only("graph.backprop"), BOTH),
    (BACKWARD, LAYERS),
    (only("value_and_backprop", "graph.backprop"), VALUES_OF_BOTH),
    (only("value_and_backprop"), VALUES),
    (only("value_and_backprop", "step") | {"evaluate": evaluate}, ADDED_UP),
    (only("backprop", "value_and_backprop", "input_gradient", "step", "graph.backprop"), REDUCED),
    (only("backprop"), BACKPROP),
)
def test_a_bad_target_loss_or_reduction_is_refused_by_name(call, message):
    assert_refusal(call, message)
