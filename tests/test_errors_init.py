"""Bad arguments of ``fnn.init`` and ``fnn.summary`` are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from errors import PARAMS, Unhashable, assert_refused, layer, table


def ones_in_float16(key, shape, dtype):
    return jnp.ones(shape, jnp.float16)


def transposed_ones(key, shape, dtype):
    return jnp.ones(shape[::-1], dtype)


@table(
    {
        "an int seed": ({"key": 0}, TypeError, "^key: expected one PRNG key", "got int 0", r"key=jax.random.key\(0\)"),
        "no key": ({"key": None}, TypeError, "^key: expected", "got NoneType"),
        "two keys": ({"key": jax.random.split(jax.random.key(0))}, TypeError, "^key: expected one", r"shape \(2,\)"),
        "a float array": ({"key": jnp.zeros(2)}, TypeError, "^key: expected", r"got float32 of shape \(2,\)"),
        "a raw key too long": ({"key": np.zeros(3, np.uint32)}, TypeError, "key", "expected", "got .*3"),
        "one size": ({"sizes": (3,)}, ValueError, "^sizes: expected two or more", r"got \(3,\)"),
        "no sizes": ({"sizes": ()}, ValueError, "^sizes: expected two or more", r"got \(\)"),
        "a size of 0": ({"sizes": (3, 0, 2)}, ValueError, "^sizes: expected .* each >= 1", r"got \(3, 0, 2\)"),
        "a negative size": ({"sizes": (3, -1)}, ValueError, "^sizes: expected", r"got \(3, -1\)"),
        "a float size": ({"sizes": (3, 2.0)}, TypeError, "^sizes: expected integers", r"got \(3, 2.0\)"),
        "a number for sizes": ({"sizes": 3}, TypeError, "^sizes: expected integers", "got 3"),
        "a string for sizes": ({"sizes": "32"}, TypeError, "^sizes: expected integers", "got '32'"),
        "an activation's class": ({"activation": fnn.ReLU}, TypeError, "^activation: expected", "got <class .*ReLU"),
        "an output's class": ({"output": fnn.Softmax}, TypeError, "^output: expected", "got <class .*Softmax"),
        "a string": ({"activation": "relu"}, TypeError, "^activation: expected", "got 'relu'", "there are .*ReLU"),
        "a jax function": ({"activation": jnp.tanh}, TypeError, "^activation: expected", "got .*tanh"),
        "an unhashable activation": (
            {"activation": Unhashable()},
            TypeError,
            "^activation: expected",
            "got Unhashable",
        ),
        "no output": ({"output": None}, TypeError, "^output: expected an activation", "got None"),
        "no initializer": ({"initializer": None}, TypeError, "^initializer: expected", "got None"),
        "a string initializer": ({"initializer": "he"}, TypeError, "^initializer: expected", "got 'he'", "he_normal"),
        "a factory of initializers": (
            {"initializer": jax.nn.initializers.he_normal},
            ValueError,
            r"^initializer: expected W of shape \(4, 3\)",
            "got function",
        ),
        "rows and columns exchanged": (
            {"initializer": transposed_ones},
            ValueError,
            r"^initializer: expected W of shape \(4, 3\)",
            r"got float32 of shape \(3, 4\)",
        ),
        "an initializer's dtype": (
            {"initializer": ones_in_float16},
            ValueError,
            "^initializer: .*float32",
            "got float16",
        ),
        "batch_norm True": (
            {"batch_norm": True},
            ValueError,
            "^batch_norm: expected None or 'full' or 'fixed'",
            "got True",
        ),
        "batch_norm half": ({"batch_norm": "half"}, ValueError, "^batch_norm: expected .*'full'", "got 'half'"),
        "an integer dtype": ({"dtype": jnp.int32}, TypeError, "^dtype: expected a floating dtype", "got int32"),
        "an unknown dtype": ({"dtype": "float31"}, TypeError, "^dtype: expected a floating dtype", "got 'float31'"),
        "float64 without x64": ({"dtype": "float64"}, ValueError, "^dtype: float64 needs x64", "jax_enable_x64"),
    }
)
def test_init_refuses(given, error, fragments):
    given = {"key": jax.random.key(0), "sizes": (3, 4, 2)} | given
    assert_refused(lambda: fnn.init(**given), error, fragments)


@table(
    {
        "None": (None, TypeError, "^params: expected a tuple of fnn.Dense", "got NoneType"),
        "a bare layer": (PARAMS[0], TypeError, "^params: expected a tuple of fnn.Dense", "got Dense"),
        "W of rank 1": (layer(W=jnp.ones(3)), ValueError, r"^params\[0\].W: expected shape", r"got \(3,\)"),
    }
)
def test_summary_refuses(given, error, fragments):
    assert_refused(lambda: fnn.summary(given), error, fragments)
