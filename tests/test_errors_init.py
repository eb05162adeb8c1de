"""Bad arguments of ``fnn.init``, of a graph's, and of ``fnn.summary`` are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from errors import GRAPH, PARAMS, Unhashable, assert_refusal, layer, ones, refusals, refused, zeros


def ones_in_float16(key, shape, dtype):
    return ones(*shape, dtype="float16")


def transposed_ones(key, shape, dtype):
    return ones(*shape[::-1])


def init(**given):
    return fnn.init(**{"key": jax.random.key(0), "sizes": (3, 4, 2)} | given)


def init_graph(**given):
    return GRAPH.init(**{"key": jax.random.key(0)} | given)


BOTH = {
    "an int seed": refused("TypeError: key: expected one PRNG key, got int 0; write key=jax.random.key(0)", key=0),
    "an integer dtype": refused("TypeError: dtype: expected a floating dtype, got int32", dtype="int32"),
    "float64 without x64": refused("ValueError: dtype: float64 needs x64…jax_enable_x64", dtype="float64"),
    "batch_norm True": refused("ValueError: batch_norm: expected None or 'full' or 'fixed', got True", batch_norm=True),
}
LAYERS = {
    "no key": refused("TypeError: key: expected one PRNG key, got NoneType", key=None),
    "two keys": refused("TypeError: key: expected one PRNG key…shape (2,)", key=jax.random.split(jax.random.key(0))),
    "a float array": refused("TypeError: key: expected one PRNG key, got float32 of shape (2,)", key=zeros(2)),
    "a raw key too long": refused("TypeError: …key…expected…got …3", key=np.zeros(3, np.uint32)),
    "one size": refused("ValueError: sizes: expected two or more…got (3,)", sizes=(3,)),
    "no sizes": refused("ValueError: sizes: expected two or more…got ()", sizes=()),
    "a size of 0": refused("ValueError: sizes: expected two or more sizes, each >= 1, got (3, 0, 2)", sizes=(3, 0, 2)),
    "a negative size": refused("ValueError: sizes: expected…got (3, -1)", sizes=(3, -1)),
    "a float size": refused("TypeError: sizes: expected a tuple of integers, got (3, 2.0)", sizes=(3, 2.0)),
    "a number for sizes": refused("TypeError: sizes: expected a tuple of integers, got 3", sizes=3),
    "a string for sizes": refused("TypeError: sizes: expected a tuple of integers, got '32'", sizes="32"),
    "an activation's class": refused("TypeError: activation: expected…got <class …ReLU", activation=fnn.ReLU),
    "an output's class": refused("TypeError: output: expected…got <class …Softmax", output=fnn.Softmax),
    "a string": refused("TypeError: activation: expected…got 'relu'…there are …ReLU", activation="relu"),
    "a jax function": refused("TypeError: activation: expected…got …tanh", activation=jnp.tanh),
    "an unhashable one": refused("TypeError: activation: expected…got Unhashable", activation=Unhashable()),
    "no output": refused("TypeError: output: expected an activation…got None", output=None),
    "no initializer": refused("TypeError: initializer: expected…got None", initializer=None),
    "a string initializer": refused("TypeError: initializer: expected…got 'he'…he_normal", initializer="he"),
    "a factory of initializers": refused(
        "ValueError: initializer: expected W of shape (4, 3)…got function", initializer=jax.nn.initializers.he_normal
    ),
    "rows and columns exchanged": refused(
        "ValueError: initializer: expected W of shape (4, 3)…got float32 of shape (3, 4)", initializer=transposed_ones
    ),
    "an initializer's dtype": refused(
        "ValueError: initializer: expected W of shape (4, 3) and dtype float32, got float16",
        initializer=ones_in_float16,
    ),
    "batch_norm half": refused("ValueError: batch_norm: expected None or 'full'…got 'half'", batch_norm="half"),
    "an unknown dtype": refused("TypeError: dtype: expected a floating dtype, got 'float31'", dtype="float31"),
}
GRAPHS = {
    "no gain": refused("ValueError: gain: expected a finite number > 0, got 0", gain=0),
    "a gain in words": refused("TypeError: gain: expected a number > 0, got 'relu'", gain="relu"),
}
SUMMARY = {
    "None": refused("TypeError: params: expected a tuple of fnn.Dense, got NoneType", params=None),
    "a bare layer": refused("TypeError: params: expected a tuple of fnn.Dense, got Dense", params=PARAMS[0]),
    "W of rank 1": refused("ValueError: params[0].W: expected shape…got (3,)", params=layer(W=ones(3))),
}


@refusals(
    ({"init": init, "graph.init": init_graph}, BOTH),
    ({"init": init}, LAYERS),
    ({"graph.init": init_graph}, GRAPHS),
    ({"summary": fnn.summary}, SUMMARY),
)
def test_a_bad_argument_is_refused_by_name(call, message):
    assert_refusal(call, message)
