"""Bad parameters of activations, losses and update rules are refused by name."""

import jax.numpy as jnp
import numpy as np

import fnn
from errors import X, assert_refusal, ones, refusals, refused

POSITIVE = {
    "Sigmoid beta": lambda number: fnn.Sigmoid(beta=number),
    "Gaussian sigma": lambda number: fnn.Gaussian(sigma=number),
    "SquaredError scale": lambda number: fnn.SquaredError(scale=number),
    "Huber delta": lambda number: fnn.Huber(delta=number),
    "sgd learning_rate": lambda number: fnn.updates.sgd(number),
    "momentum learning_rate": lambda number: fnn.updates.momentum(number),
}
NUMBERS = POSITIVE | {
    "LeakyReLU slope": lambda number: fnn.LeakyReLU(slope=number),
    "Gaussian mu": lambda number: fnn.Gaussian(mu=number),
    "PiecewiseLinear m": lambda number: fnn.PiecewiseLinear(number, 0, 0, 1),
    "PiecewiseLinear b": lambda number: fnn.PiecewiseLinear(1, number, 0, 1),
    "PiecewiseLinear x_min": lambda number: fnn.PiecewiseLinear(1, 0, number, 1),
    "PiecewiseLinear x_max": lambda number: fnn.PiecewiseLinear(1, 0, 0, number),
    "continuous x_min": lambda number: fnn.PiecewiseLinear.continuous(number, 1),
    "continuous x_max": lambda number: fnn.PiecewiseLinear.continuous(1, number),
    "momentum alpha": lambda number: fnn.updates.momentum(0.1, number),
}


def each(message, numbers, *names):
    """A table for each of the calls that take a number; its name, the last word, stands before ``message``."""
    error, text = message.split(": ")
    return [
        ({name: NUMBERS[name]}, {repr(n): refused(f"{error}: {name.split()[-1]}: {text}", number=n) for n in numbers})
        for name in names
    ]


MADE = {
    "a slope below 0": refused(
        "ValueError: slope: expected a finite number >= 0, got -0.1", make=lambda: fnn.LeakyReLU(slope=-0.1)
    ),
    "x_min is x_max": refused(
        "ValueError: x_min, x_max: expected x_min < x_max, got …1", make=lambda: fnn.PiecewiseLinear(1, 0, 1, 1)
    ),
    "x_min over x_max": refused(
        "ValueError: x_min, x_max: expected x_min < x_max, got 2 and 1",
        make=lambda: fnn.PiecewiseLinear.continuous(2, 1),
    ),
    "a string for approximate": refused(
        "TypeError: approximate: expected True or False, got 'tanh'", make=lambda: fnn.GELU(approximate="tanh")
    ),
    "a string for categorical": refused(
        "TypeError: categorical: expected True or False, got 'yes'", make=lambda: fnn.CrossEntropy(categorical="yes")
    ),
    "the derivative of Softmax": refused(
        "TypeError: Softmax has no elementwise derivative; use pullback", make=lambda: fnn.Softmax().derivative(X, X)
    ),
}
RATES = ("sgd learning_rate", "momentum learning_rate")


@refusals(
    *each("ValueError: expected a finite number > 0, got 0", [0], *POSITIVE),
    *each("ValueError: expected a finite number > 0, got -1.0", [-1.0], "Sigmoid beta"),
    *each("ValueError: expected a finite number > 0, got -0.5", [np.float32(-0.5)], "Sigmoid beta"),
    *each("ValueError: expected a finite number…got nan", [np.nan], *NUMBERS),
    *each("ValueError: expected a finite number…got inf", [np.inf], "Gaussian mu", "momentum learning_rate"),
    *each("ValueError: expected a finite number…got -inf", [-np.inf], "Gaussian mu", "momentum learning_rate"),
    *each("ValueError: expected a finite number > 0, got", list(map(jnp.float32, (0, -0.1, np.nan))), *RATES),
    *each("TypeError: expected a number…got '0.1'", ["0.1"], *NUMBERS),
    *each("TypeError: expected a number…got", ["a", None, [0.5], 1j, np.ones(2)], "Sigmoid beta", RATES[0]),
    *each("TypeError: expected a number…got", [np.ones(1), ones(2)], RATES[0]),
    *each("ValueError: expected 0 <= alpha < 1, got 1…alpha=0.9", [1], "momentum alpha"),
    *each("ValueError: expected 0 <= alpha < 1, got -0.1…alpha=0.9", [-0.1], "momentum alpha"),
    *each("ValueError: expected 0 <= alpha < 1, got 2", [jnp.float32(2)], "momentum alpha"),
    ({"made": lambda make: make()}, MADE),
)
def test_a_bad_parameter_is_refused_by_name(call, message):
    assert_refusal(call, message)
