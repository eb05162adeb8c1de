"""Bad arguments of ``fnn.verify.gradient`` are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from errors import assert_refused, table


def double(w):
    return 2 * w


def squares(w):
    return jnp.sum(w * w)


@table(
    {
        "hand no function": ({"hand": 5}, TypeError, "^hand: expected a function", "got 5"),
        "gradients for hand": ({"hand": jnp.ones(3)}, TypeError, "^hand: expected a function", "got .*1"),
        "objective no function": ({"objective": None}, TypeError, "^objective: expected a function", "got None"),
        "an objective of three numbers": (
            {"objective": double},
            ValueError,
            "^objective: expected .*scalar",
            r"got .*\(3,\)",
        ),
        "another structure": ({"hand": lambda w: (w, w)}, ValueError, "^hand: expected the structure of params", "got"),
        "hand returns nothing": (
            {"hand": lambda w: None},
            ValueError,
            "^hand: expected the structure of params",
            "got",
        ),
        "integer params": ({"params": np.arange(3)}, TypeError, "^params: expected", "floating", "got int"),
        "a string for params": ({"params": "w"}, TypeError, "^params: expected", "got .*'?w'?"),
        "an unknown dtype": (
            {"dtype": "float16"},
            ValueError,
            "^dtype: expected 'float64' or 'float32'",
            "got 'float16'",
        ),
        "a numpy dtype": (
            {"dtype": np.float64},
            ValueError,
            "^dtype: expected 'float64' or 'float32'",
            "got .*float64",
        ),
        "a tolerance below 0": ({"tolerance": -1e-3}, ValueError, "^tolerance: expected", "got -0.001"),
        "a tolerance of NaN": ({"tolerance": np.nan}, ValueError, "^tolerance: expected", "got nan"),
        "a tolerance of infinity": ({"tolerance": np.inf}, ValueError, "^tolerance: expected", "got inf"),
        "a string for a tolerance": ({"tolerance": "1e-3"}, TypeError, "^tolerance: expected", "got '1e-3'"),
    }
)
def test_verify_gradient_refuses_and_leaves_x64_off(given, error, fragments):
    given = {"hand": double, "objective": squares, "params": jnp.ones(3)} | given
    assert_refused(lambda: fnn.verify.gradient(**given), error, fragments)
    assert not jax.config.jax_enable_x64


def test_verify_reports_a_gradient_of_another_shape_and_does_not_broadcast_it():
    report = fnn.verify.gradient(lambda w: jnp.ones((1, 3)), squares, jnp.full(3, 0.5))
    assert not report.ok
    assert "shape (1, 3), expected (3,)" in str(report)
