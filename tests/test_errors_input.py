"""A bad input x and bad masks are refused by name."""

import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import EVERY, NORMED, PARAMS, X, Y, assert_refused, table


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
@table(
    {
        "x of integers": ({"x": jnp.ones((5, 3), jnp.int32)}, TypeError, "^x: expected float32", "got int32", "astype"),
        "x in float64": ({"x": np.ones((5, 3))}, TypeError, "^x: expected float32", "got float64", "astype"),
        "x too wide": ({"x": jnp.ones((5, 4))}, ValueError, r"^x: expected shape \(3,\) or \(B, 3\)", r"got \(5, 4\)"),
        "a batch norm of one example": (
            {"params": NORMED, "x": X[:1], "y": Y[:1]},
            ValueError,
            r"^x: params\[0\] has a batch norm, which needs at least 2 examples, got 1",
        ),
    }
)
def test_a_bad_input_is_refused_by_every_function(function, given, error, fragments):
    given = {"params": PARAMS, "x": X, "y": Y} | given
    assert_refused(lambda: function(**given), error, fragments)


@table(
    {
        "x of pixels": ({"x": np.ones((5, 3), np.uint8)}, TypeError, "^x: expected float32", "got uint8", "/ 255"),
        "x of bool": ({"x": jnp.ones((5, 3), bool)}, TypeError, "^x: expected float32", "got bool"),
        "x in bfloat16": ({"x": jnp.ones((5, 3), "bfloat16")}, TypeError, "^x: expected float32", "got bfloat16"),
        "x a list": ({"x": [[1.0, 2.0, 3.0]]}, TypeError, "^x: expected an array", "got list", "write jnp.asarray"),
        "x a number": ({"x": 1.0}, TypeError, "^x: expected an array", "got float 1.0"),
        "x None": ({"x": None}, TypeError, "^x: expected an array", "got NoneType"),
        "x of rank 3": ({"x": jnp.ones((5, 1, 3))}, ValueError, r"^x: expected shape", r"got \(5, 1, 3\)"),
        "x of rank 0": ({"x": jnp.ones(())}, ValueError, r"^x: expected shape", r"got \(\)"),
        "an empty batch": (
            {"x": jnp.ones((0, 3))},
            ValueError,
            "^x: expected at least one example",
            r"got an empty batch of shape \(0, 3\)",
        ),
        "a batch norm of a single example": (
            {"params": NORMED, "x": X[0]},
            ValueError,
            r"^x: params\[0\] has a batch norm, which needs at least 2 examples, got 1",
        ),
    }
)
def test_forward_refuses_an_input(given, error, fragments):
    given = {"params": PARAMS, "x": X} | given
    assert_refused(lambda: fnn.forward(**given), error, fragments)


NONE = fnn.Mask()


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
@table(
    {
        "too few": ((NONE,), ValueError, "^masks: expected one Mask per layer, 2, got 1"),
        "arrays": (
            [jnp.ones((5, 3)), NONE],
            TypeError,
            r"^masks\[0\]: expected a fnn.Mask",
            r"got .*float32|got .*Array",
        ),
        "units by neuron only": (
            [fnn.Mask(units=jnp.ones(3)), NONE],
            ValueError,
            r"^masks\[0\].units: expected shape \(5, 3\) or \(1, 3\)",
            r"got \(3,\)",
        ),
        "float64": (
            [fnn.Mask(units=np.ones((5, 3))), NONE],
            TypeError,
            r"^masks\[0\].units: expected float32",
            "got float64",
        ),
    }
)
def test_bad_masks_are_refused_by_every_function(function, given, error, fragments):
    assert_refused(lambda: function(PARAMS, X, Y, masks=given), error, fragments)


@table(
    {
        "too many": ((NONE,) * 3, ValueError, "^masks: expected one Mask per layer, 2, got 3"),
        "a number": (5, TypeError, "^masks: expected one Mask per layer", "got int 5"),
        "one mask for two layers": (fnn.Mask(units=jnp.ones((5, 3))), TypeError, "^masks: expected", "got .*Mask"),
        "an array": (jnp.ones((2, 3)), TypeError, r"^masks(\[0\])?: expected", "Mask", r"got .*float32|got .*Array"),
        "None for one": ([NONE, None], TypeError, r"^masks\[1\]: expected a fnn.Mask", "got NoneType"),
        "units of the layer's output": (
            [NONE, fnn.Mask(units=jnp.ones((5, 2)))],
            ValueError,
            r"^masks\[1\].units: expected shape \(5, 4\) or \(1, 4\)",
            r"got \(5, 2\)",
        ),
        "units of a column": (
            [fnn.Mask(units=jnp.ones((5, 1))), NONE],
            ValueError,
            r"^masks\[0\].units: expected",
            r"got \(5, 1\)",
        ),
        "arrows transposed": (
            [NONE, fnn.Mask(arrows=jnp.ones((4, 2)))],
            ValueError,
            r"^masks\[1\].arrows: expected shape \(2, 4\)",
            r"got \(4, 2\)",
        ),
        "bool": (
            [fnn.Mask(units=jnp.ones((5, 3), bool)), NONE],
            TypeError,
            r"^masks\[0\].units: expected float32",
            "got bool",
        ),
        "a list": (
            [fnn.Mask(units=[[1.0] * 3] * 5), NONE],
            TypeError,
            r"^masks\[0\].units: expected an array",
            "got list",
        ),
    }
)
def test_forward_refuses_masks(given, error, fragments):
    assert_refused(lambda: fnn.forward(PARAMS, X, given), error, fragments)
