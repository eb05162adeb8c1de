"""A rule, or an activation's pullback, that returns another shape is refused by name and never reshaped."""

from dataclasses import dataclass

import jax.numpy as jnp

import fnn
from errors import BACKWARD, NORMED, assert_refusal, changed, layer, only, refusals, refused


@dataclass(frozen=True)
class NarrowBack(fnn.Activation):
    def value(self, z):
        return z

    def pullback(self, g, z, a):
        return g[:1]


def one_row(delta, *_):
    return delta[:1]


def one_column(loss, activation, z, a, y):
    return (a - y)[:, :1]


def transposed_weights(delta, a_in, mask=None):
    return a_in.T @ delta


def no_sum(delta):
    return delta


def turned(delta, W, mask=None):
    return (delta @ W).T


def no_sums(norm, psi, delta_z):
    return delta_z, delta_z, delta_z


def half_of_the_norm(norm, psi, delta_z):
    return delta_z, jnp.sum(delta_z, axis=0)


def shaped(name, expected, got, **given):
    """A row: what the rule of this name must be like, and is like."""
    return refused(
        f"ValueError: rules.{name}: expected float32 of shape {expected}, got float32 of shape {got}", **given
    )


def rules(**others):
    return fnn.RULES._replace(**others)


BOTH = {"rules None": refused("TypeError: rules: expected fnn.Rules, got None", rules=None)}
LAYERS = {
    "input_gradient": shaped("input_gradient", (5, 4), (4, 5), rules=rules(input_gradient=turned)),
    "weight_gradient": shaped("weight_gradient", (2, 4), (4, 2), rules=rules(weight_gradient=transposed_weights)),
}
BACKPROP = {
    "output_delta": shaped("output_delta", (5, 2), (5, 1), rules=rules(output_delta=one_column)),
    "hidden_delta": shaped("hidden_delta", (5, 4), (1, 4), rules=rules(hidden_delta=one_row)),
    "bias_gradient": shaped("bias_gradient", (2,), (5, 2), rules=rules(bias_gradient=no_sum)),
    "norm_pullback": shaped("norm_pullback", (4,), (5, 4), params=NORMED, rules=rules(norm_pullback=no_sums)),
    "half a norm_pullback": refused(
        "ValueError: rules.norm_pullback: expected 3 arrays, got tuple",
        params=NORMED,
        rules=rules(norm_pullback=half_of_the_norm),
    ),
    "a hidden pullback": shaped("hidden_delta", (5, 4), (1, 4), params=changed(0, activation=NarrowBack())),
    "the output's pullback": shaped("output_delta", (5, 2), (1, 2), params=changed(1, activation=NarrowBack())),
}
VALUE = {
    "rules in a tuple": refused("TypeError: rules: expected fnn.Rules, got (", rules=tuple(fnn.RULES)),
    "a rule None": refused(
        "TypeError: rules.hidden_delta: expected a function, got None", rules=rules(hidden_delta=None)
    ),
}
FIRST_LAYER = {  # its g has as many numbers as x, so that a reshape would pass it
    "turned": shaped("input_gradient", (5, 3), (3, 5), params=layer(), rules=rules(input_gradient=turned))
}
GRAPHS = {"a column": shaped("hidden_delta", "…", (5, 1), rules=rules(hidden_delta=lambda g, *_: g[:, :1]))}


@refusals(
    (BACKWARD | only("graph.backprop"), BOTH),
    (BACKWARD, LAYERS),
    (only("backprop"), BACKPROP),
    (only("value_and_backprop"), VALUE),
    (only("input_gradient"), FIRST_LAYER),
    (only("graph.backprop"), GRAPHS),
)
def test_a_rule_that_returns_another_shape_is_refused_by_name(call, message):
    assert_refusal(call, message)
