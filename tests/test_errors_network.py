"""A network that is none, or whose layers do not fit, is refused by the name of its part."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import EVERY, PARAMS, Narrow, Unhashable, X, Y, assert_refused, changed, layer, table


@dataclass(frozen=True)
class Halved(fnn.Activation):
    def value(self, z):
        return z.astype(jnp.bfloat16)

    def derivative(self, z, a):
        return z


@dataclass(frozen=True)
class Constant(fnn.Activation):
    def value(self, z):
        return 1.0

    def derivative(self, z, a):
        return z


def norm(gamma=2, beta=2, **options):
    return fnn.BatchNorm(jnp.ones(gamma), jnp.zeros(beta), **options)


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
@table(
    {
        "no params": ({"params": None}, TypeError, "^params: expected a tuple of fnn.Dense", "got NoneType"),
        "a later W transposed": (
            {"params": changed(1, W=PARAMS[1].W.T)},
            ValueError,
            r"^params\[1\].W: expected shape \(n_out, 4\), rows for receiving neurons",
            r"got \(4, 2\)",
            "W.T if",
        ),
        "a b in float64": (
            {"params": layer(b=np.zeros(2))},
            TypeError,
            r"^params\[0\].b: expected float32",
            "got float64",
        ),
        "all of integers": (
            {
                "params": layer(W=jnp.ones((2, 3), "int32"), b=jnp.zeros(2, "int32")),
                "x": jnp.ones((5, 3), "int32"),
                "y": jnp.ones((5, 2), "int32"),
            },
            TypeError,
            "expected a floating dtype|one-hot",
            "got int",
        ),
        "an activation that is unhashable": (
            {"params": changed(activation=Unhashable())},
            TypeError,
            r"^params\[0\].activation: expected",
            "got Unhashable",
        ),
        "an activation that narrows": (
            {"params": changed(activation=Narrow())},
            ValueError,
            r"^Narrow\(\).value\(z\): expected float32 of shape \(5, 4\)",
            r"got float32 of shape \(5, 1\)",
        ),
    }
)
def test_a_bad_network_is_refused_by_every_function(function, given, error, fragments):
    given = {"params": PARAMS, "x": X, "y": Y} | given
    assert_refused(lambda: function(**given), error, fragments)


@table(
    {
        "no layers": ({"params": ()}, TypeError, "^params: expected a tuple of fnn.Dense", r"got tuple \(\)"),
        "a bare layer": ({"params": PARAMS[0]}, TypeError, "^params: expected a tuple of fnn.Dense", "got Dense"),
        "pairs of arrays": ({"params": [(X, Y)]}, TypeError, "^params: expected a tuple of fnn.Dense", "got list"),
        "a generator": ({"params": (p for p in PARAMS)}, TypeError, "^params: expected a tuple", "got generator"),
        "W transposed": (
            {"params": changed(W=PARAMS[0].W.T)},
            ValueError,
            r"^(x|params\[0\].W): expected shape",
            "got",
            "write",
        ),
        "W of rank 0": (
            {"params": layer(W=jnp.array(1.0))},
            ValueError,
            r"^params\[0\].W: expected shape",
            r"got \(\)",
        ),
        "W of rank 1": ({"params": layer(W=jnp.ones(3))}, ValueError, r"^params\[0\].W: expected shape", r"got \(3,\)"),
        "W a list": ({"params": layer(W=[[1.0] * 3] * 2)}, TypeError, r"^params\[0\].W: expected an array", "got list"),
        "b a list": ({"params": layer(b=[0.0, 0.0])}, TypeError, r"^params\[0\].b: expected an array", "got list"),
        "a later b a number": (
            {"params": changed(1, b=0.0)},
            TypeError,
            r"^params\[1\].b: expected an array",
            "got float",
        ),
        "b of wrong length": (
            {"params": changed(1, b=jnp.zeros(4))},
            ValueError,
            r"^params\[1\].b: expected shape \(2,\)",
            r"got \(4,\)",
        ),
        "b a column": (
            {"params": layer(b=jnp.zeros((2, 1)))},
            ValueError,
            r"^params\[0\].b: expected",
            r"got \(2, 1\)",
        ),
        "b of one number": ({"params": layer(b=jnp.zeros(1))}, ValueError, r"^params\[0\].b: expected", r"got \(1,\)"),
        "b in bfloat16": (
            {"params": changed(b=jnp.zeros(4, "bfloat16"))},
            TypeError,
            r"^params\[0\].b: expected float32 as params\[0\].W has",
            "got bfloat16",
        ),
        "a later W in bfloat16": (
            {"params": changed(1, W=jnp.ones((2, 4), "bfloat16"))},
            TypeError,
            r"^params\[1\].W: expected float32",
            "got bfloat16",
        ),
        "a later W in float64": (
            {"params": changed(1, W=np.ones((2, 4)))},
            TypeError,
            r"^params\[1\].W: expected float32",
            "got float64",
        ),
        "all in float64 without x64": (
            {"params": layer(W=np.ones((2, 3)), b=np.zeros(2)), "x": np.ones((5, 3))},
            TypeError,
            r"^(params\[0\].W|x): ",
            "float64",
            "x64",
        ),
        "an activation's class": (
            {"params": changed(activation=fnn.ReLU)},
            TypeError,
            r"^params\[0\].activation: expected an activation such as fnn.Sigmoid\(\)",
            "got <class .*ReLU",
        ),
        "a string for an activation": (
            {"params": changed(1, activation="relu")},
            TypeError,
            r"^params\[1\].activation: expected",
            "got 'relu'",
        ),
        "an activation that changes the dtype": (
            {"params": changed(activation=Halved())},
            ValueError,
            r"^Halved\(\).value\(z\): expected float32",
            "got bfloat16",
        ),
        "an activation that returns a number": (
            {"params": changed(activation=Constant())},
            ValueError,
            r"^Constant\(\).value\(z\): expected float32",
            "got float 1.0",
        ),
        "a string for a norm": (
            {"params": layer(norm="full")},
            TypeError,
            r"^params\[0\].norm: expected",
            "got .*'full'",
        ),
        "a gamma too short": (
            {"params": layer(norm=norm(gamma=1))},
            ValueError,
            r"^params\[0\].norm.gamma: expected shape \(2,\)",
            r"got \(1,\)",
        ),
        "a beta too long": (
            {"params": layer(norm=norm(beta=3))},
            ValueError,
            r"^params\[0\].norm.beta: expected shape \(2,\)",
            r"got \(3,\)",
        ),
        "an unknown norm gradient": (
            {"params": layer(norm=norm(gradient="half"))},
            ValueError,
            r"^params\[0\].norm.gradient: expected 'full' or 'fixed'",
            "got 'half'",
        ),
        "a negative eps": (
            {"params": layer(norm=norm(eps=-1.0))},
            ValueError,
            r"^params\[0\].norm.eps: expected",
            "> 0",
            "got -1.0",
        ),
    }
)
def test_forward_refuses_a_network(given, error, fragments):
    given = {"params": PARAMS, "x": X} | given
    assert_refused(lambda: fnn.forward(**given), error, fragments)
