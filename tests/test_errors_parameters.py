"""Bad parameters of activations, losses and update rules are refused by name."""

import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import assert_refused, table

NUMBERS = {
    "Sigmoid beta": (lambda number: fnn.Sigmoid(beta=number), "beta"),
    "Gaussian sigma": (lambda number: fnn.Gaussian(sigma=number), "sigma"),
    "SquaredError scale": (lambda number: fnn.SquaredError(scale=number), "scale"),
    "Huber delta": (lambda number: fnn.Huber(delta=number), "delta"),
    "sgd learning_rate": (lambda number: fnn.updates.sgd(number), "learning_rate"),
    "momentum learning_rate": (lambda number: fnn.updates.momentum(number), "learning_rate"),
}
MORE_NUMBERS = NUMBERS | {
    "LeakyReLU slope": (lambda number: fnn.LeakyReLU(slope=number), "slope"),
    "Gaussian mu": (lambda number: fnn.Gaussian(mu=number), "mu"),
    "PiecewiseLinear m": (lambda number: fnn.PiecewiseLinear(number, 0, 0, 1), "m"),
    "PiecewiseLinear b": (lambda number: fnn.PiecewiseLinear(1, number, 0, 1), "b"),
    "PiecewiseLinear x_min": (lambda number: fnn.PiecewiseLinear(1, 0, number, 1), "x_min"),
    "PiecewiseLinear x_max": (lambda number: fnn.PiecewiseLinear(1, 0, 0, number), "x_max"),
    "continuous x_min": (lambda number: fnn.PiecewiseLinear.continuous(number, 1), "x_min"),
    "continuous x_max": (lambda number: fnn.PiecewiseLinear.continuous(1, number), "x_max"),
    "momentum alpha": (lambda number: fnn.updates.momentum(0.1, number), "alpha"),
}


def calls(*names):
    """Parametrise by the calls that take a number, all or those named."""
    chosen = names or tuple(MORE_NUMBERS)
    return pytest.mark.parametrize(("call", "name"), [MORE_NUMBERS[name] for name in chosen], ids=chosen)


@calls(*NUMBERS)
def test_zero_is_refused_wherever_a_number_must_be_positive(call, name):
    assert_refused(lambda: call(0), ValueError, [rf"\b{name}\b", "expected .*> 0", "got .*0"])


@pytest.mark.parametrize("number", [-1.0, np.float32(-0.5)], ids=str)
def test_a_negative_number_is_refused_where_it_must_be_positive(number):
    assert_refused(lambda: fnn.Sigmoid(beta=number), ValueError, [r"\bbeta\b", "expected .*> 0", f"got .*{number}"])


@calls()
def test_nan_is_refused_for_every_parameter_that_is_a_number(call, name):
    assert_refused(lambda: call(np.nan), ValueError, [rf"\b{name}\b", "expected", "got .*nan"])


@calls("Gaussian mu", "momentum learning_rate")
@pytest.mark.parametrize("number", [np.inf, -np.inf], ids=str)
def test_an_infinite_number_is_refused(call, name, number):
    assert_refused(lambda: call(number), ValueError, [rf"\b{name}\b", "expected", f"got .*{number}"])


@calls()
def test_a_string_is_refused_for_every_parameter_that_is_a_number_and_not_made_one(call, name):
    assert_refused(lambda: call("0.1"), TypeError, [rf"\b{name}\b", "expected a number", "got"])


@calls("Sigmoid beta", "sgd learning_rate")
@pytest.mark.parametrize("number", ["a", None, [0.5], 1j, np.ones(2)], ids=repr)
def test_what_is_no_number_is_named_and_not_made_one(call, name, number):
    assert_refused(lambda: call(number), TypeError, [rf"\b{name}\b", "expected a number", "got"])


@pytest.mark.parametrize("rate", [0.0, -0.1, np.nan], ids=str)
def test_a_learning_rate_in_a_jax_array_is_checked_too(rate):
    fragments = ["learning_rate: expected a finite number > 0", "got"]
    assert_refused(lambda: fnn.updates.sgd(jnp.float32(rate)), ValueError, fragments)
    assert_refused(lambda: fnn.updates.momentum(jnp.float32(rate)), ValueError, fragments)


@table(
    {
        "a slope below 0": (lambda: fnn.LeakyReLU(slope=-0.1), ValueError, "slope: expected .* >= 0", "got -0.1"),
        "x_min is x_max": (lambda: fnn.PiecewiseLinear(1, 0, 1, 1), ValueError, "expected x_min < x_max", "got .*1"),
        "x_min over x_max": (
            lambda: fnn.PiecewiseLinear.continuous(2, 1),
            ValueError,
            "expected x_min < x_max, got 2.* and 1",
        ),
        "a string for approximate": (
            lambda: fnn.GELU(approximate="tanh"),
            TypeError,
            "approximate: expected True or False",
            "got 'tanh'",
        ),
        "a string for categorical": (
            lambda: fnn.CrossEntropy(categorical="yes"),
            TypeError,
            "categorical: expected True or False",
            "got 'yes'",
        ),
        "rates in an array": (
            lambda: fnn.updates.sgd(np.ones(1)),
            TypeError,
            "learning_rate: expected a number",
            "got",
        ),
        "rates in a jax array": (
            lambda: fnn.updates.sgd(jnp.ones(2)),
            TypeError,
            "learning_rate: expected a number",
            "got",
        ),
        "alpha 1": (
            lambda: fnn.updates.momentum(0.1, 1),
            ValueError,
            "^alpha: expected",
            "< 1",
            "got 1",
            r"alpha=0\.\d",
        ),
        "alpha below 0": (
            lambda: fnn.updates.momentum(0.1, -0.1),
            ValueError,
            "^alpha: expected",
            "got -0.1",
            r"=0\.\d",
        ),
        "alpha 2 in jax": (lambda: fnn.updates.momentum(0.1, jnp.float32(2)), ValueError, "^alpha: expected", "got 2"),
    }
)
def test_a_parameter_out_of_its_range_is_refused(given, error, fragments):
    assert_refused(given, error, fragments)
