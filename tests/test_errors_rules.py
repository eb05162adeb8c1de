"""A rule, or an activation's pullback, that returns another shape is refused by name and never reshaped."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

import fnn
from errors import BACKWARD, NORMED, PARAMS, SQUARED, X, Y, assert_refused, changed, table


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


@pytest.mark.parametrize("function", BACKWARD.values(), ids=BACKWARD)
@table(
    {
        "input_gradient": ({"input_gradient": turned}, ValueError, "^rules", r"expected .*\(5, 4\)", r"got .*\(4, 5\)"),
        "weight_gradient": (
            {"weight_gradient": transposed_weights},
            ValueError,
            r"^rules.weight_gradient: expected .*\(2, 4\)",
            r"got .*\(4, 2\)",
        ),
    }
)
def test_a_rule_that_returns_another_shape_is_refused_by_every_function(function, given, error, fragments):
    rules = fnn.RULES._replace(**given)
    assert_refused(lambda: function(PARAMS, X, Y, loss=SQUARED, rules=rules), error, fragments)


@table(
    {
        "output_delta": (
            {"output_delta": one_column},
            ValueError,
            "^rules.*delta",
            r"expected .*\(5, 2\)",
            r"got .*\(5, 1\)",
        ),
        "hidden_delta": (
            {"hidden_delta": one_row},
            ValueError,
            "^rules.*delta",
            r"expected .*\(5, 4\)",
            r"got .*\(1, 4\)",
        ),
        "bias_gradient": (
            {"bias_gradient": no_sum},
            ValueError,
            r"^rules.bias_gradient: expected .*\(2,\)",
            r"got .*\(5, 2\)",
        ),
    }
)
def test_backprop_refuses_a_rule_that_returns_another_shape(given, error, fragments):
    rules = fnn.RULES._replace(**given)
    assert_refused(lambda: fnn.backprop(PARAMS, X, Y, rules=rules), error, fragments)


def test_an_input_gradient_that_is_turned_is_not_turned_back():
    """The first layer's g has as many numbers as x, so that a reshape would pass it."""
    rules = fnn.RULES._replace(input_gradient=turned)
    fragments = ["^rules", r"expected .*\(5, 3\)", r"got .*\(3, 5\)"]
    one_layer = fnn.init(jax.random.key(0), (3, 2))
    assert_refused(lambda: fnn.input_gradient(one_layer, X, Y, rules=rules), ValueError, fragments)


@pytest.mark.parametrize("rule", [no_sums, half_of_the_norm])
def test_a_norm_pullback_that_returns_something_else_is_refused(rule):
    rules = fnn.RULES._replace(norm_pullback=rule)
    assert_refused(
        lambda: fnn.backprop(NORMED, X, Y, rules=rules), ValueError, ["^rules.norm_pullback", "expected", "got"]
    )


@pytest.mark.parametrize("i", [0, 1])
def test_a_pullback_that_changes_the_shape_is_refused(i):
    params = changed(i, activation=NarrowBack())
    fragments = [r"^rules.*delta|^NarrowBack\(\).pullback", "expected float32", r"got .*\(1, "]
    assert_refused(lambda: fnn.backprop(params, X, Y), ValueError, fragments)
