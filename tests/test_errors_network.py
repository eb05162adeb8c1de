"""A network or a graph that is none, or whose parts do not fit, is refused by the name of its part."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

import fnn
from errors import (
    BACKWARD,
    EVERY,
    GRAPH,
    IN_GRAPHS,
    NETWORK,
    PARAMS,
    Narrow,
    Unhashable,
    X,
    Y,
    assert_refusal,
    changed,
    layer,
    ones,
    only,
    refusals,
    refused,
    zeros,
)
from fnn.graph import GraphParams


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
    return fnn.BatchNorm(ones(gamma), zeros(beta), **options)


def graph_norm(gamma=9, **options):
    return replace(NETWORK, norm=norm(gamma, 9, **options))


INTEGERS = {
    "params": layer(W=ones(2, 3, dtype="int32"), b=zeros(2, dtype="int32")),
    "x": ones(5, 3, dtype="int32"),
    "y": ones(5, 2, dtype="int32"),
}
LAYERS = {
    "no params": refused("TypeError: params: expected a tuple of fnn.Dense, got NoneType", params=None),
    "a later W transposed": refused(
        "ValueError: params[1].W: expected shape (2, 4), rows for…, got (4, 2) with b of shape (2,)…write W.T",
        params=changed(1, W=PARAMS[1].W.T),
    ),
    "b in float64": refused("TypeError: params[0].b: expected float32…got float64", params=layer(b=np.zeros(2))),
    "an activation that is unhashable": refused(
        "TypeError: params[0].activation: expected…got Unhashable", params=changed(activation=Unhashable())
    ),
    "an activation that narrows": refused(
        "ValueError: Narrow().value(z): expected float32 of shape (5, 4), got float32 of shape (5, 1)",
        params=changed(activation=Narrow()),
    ),
}
INTEGER_WEIGHTS = {"integers": refused("TypeError: params[0].W: expected a floating dtype, got int", **INTEGERS)}
FORWARD = {
    "no layers": refused("TypeError: params: expected a tuple of fnn.Dense, got tuple ()", params=()),
    "a bare layer": refused("TypeError: params: expected a tuple of fnn.Dense, got Dense", params=PARAMS[0]),
    "pairs of arrays": refused("TypeError: params: expected a tuple of fnn.Dense, got list", params=[(X, Y)]),
    "a generator": refused("TypeError: params: expected a tuple…got generator", params=(p for p in PARAMS)),
    "W transposed": refused(
        "ValueError: params[0].W: expected shape (4, 3), rows for…, got (3, 4) with b of shape (4,)…write W.T",
        params=changed(W=PARAMS[0].W.T),
    ),
    "every W transposed": refused(
        "ValueError: params[0].W: expected shape (4, 3)…write W.T, because rows and columns are swapped",
        params=changed(1, changed(W=PARAMS[0].W.T), W=PARAMS[1].W.T),
    ),
    "x for another network": refused(
        "ValueError: x: expected shape (3,) or (B, 3), got (5, 4); the network takes 3 inputs", x=ones(5, 4)
    ),
    "x not in rows": refused(
        "ValueError: x: expected shape (3,) or (B, 3), got (3, 5); write x.T, if the examples are in columns",
        x=ones(3, 5),
    ),
    "W of rank 0": refused("ValueError: params[0].W: expected shape…got ()", params=layer(W=ones())),
    "W of rank 1": refused("ValueError: params[0].W: expected shape…got (3,)", params=layer(W=ones(3))),
    "W a list": refused("TypeError: params[0].W: expected an array, got list", params=layer(W=[[1.0] * 3] * 2)),
    "b a list": refused("TypeError: params[0].b: expected an array, got list", params=layer(b=[0.0, 0.0])),
    "a later b a number": refused("TypeError: params[1].b: expected an array, got float", params=changed(1, b=0.0)),
    "b too long": refused("ValueError: params[1].b: expected shape (2,), got (4,)", params=changed(1, b=zeros(4))),
    "b a column": refused("ValueError: params[0].b: expected…got (2, 1)", params=layer(b=zeros(2, 1))),
    "b of one number": refused("ValueError: params[0].b: expected…got (1,)", params=layer(b=zeros(1))),
    "b in bfloat16": refused(
        "TypeError: params[0].b: expected float32 as params[0].W has, got bfloat16",
        params=changed(b=zeros(4, dtype="bfloat16")),
    ),
    "a later W in bfloat16": refused(
        "TypeError: params[1].W: expected float32…got bfloat16", params=changed(1, W=ones(2, 4, dtype="bfloat16"))
    ),
    "a later W in float64": refused(
        "TypeError: params[1].W: expected float32…got float64", params=changed(1, W=np.ones((2, 4)))
    ),
    "all in float64 without x64": refused(
        "TypeError: params[0].W: …x64…float64", params=layer(W=np.ones((2, 3)), b=np.zeros(2)), x=X
    ),
    "an activation's class": refused(
        "TypeError: params[0].activation: expected an activation such as fnn.Sigmoid(), got <class …ReLU",
        params=changed(activation=fnn.ReLU),
    ),
    "a string for an activation": refused(
        "TypeError: params[1].activation: expected…got 'relu'", params=changed(1, activation="relu")
    ),
    "an activation that changes the dtype": refused(
        "ValueError: Halved().value(z): expected float32…got bfloat16", params=changed(activation=Halved())
    ),
    "an activation that returns a number": refused(
        "ValueError: Constant().value(z): expected float32…got float 1.0", params=changed(activation=Constant())
    ),
    "an activation without a value": refused(
        "NotImplementedError: Activation must define value(self, z)", params=changed(activation=fnn.Activation())
    ),
    "a string for a norm": refused("TypeError: params[0].norm: expected…got …'full'", params=layer(norm="full")),
    "a gamma too short": refused(
        "ValueError: params[0].norm.gamma: expected shape (2,), got (1,)", params=layer(norm=norm(gamma=1))
    ),
    "a beta too long": refused(
        "ValueError: params[0].norm.beta: expected shape (2,), got (3,)", params=layer(norm=norm(beta=3))
    ),
    "an unknown gradient of the norm": refused(
        "ValueError: params[0].norm.gradient: expected 'full' or 'fixed', got 'half'",
        params=layer(norm=norm(gradient="half")),
    ),
    "a negative eps": refused(
        "ValueError: params[0].norm.eps: expected…> 0, got -1.0", params=layer(norm=norm(eps=-1.0))
    ),
}
GRAPHS = {
    "too few weights": refused(
        "ValueError: params.weights: expected shape (20,), one per arrow…got (19,)",
        params=replace(NETWORK, weights=ones(19)),
    ),
}
FORWARD_IN_GRAPHS = {
    "a graph": refused("TypeError: params: expected a tuple of fnn.Dense, got Graph…graph.init", params=GRAPH),
    "a matrix of weights": refused(
        "ValueError: params.weights: …got (4, 5)", params=replace(NETWORK, weights=ones(4, 5))
    ),
    "a list of weights": refused(
        "TypeError: params.weights: expected an array, got list", params=replace(NETWORK, weights=[1.0] * 20)
    ),
    "biases of the computed only": refused(
        "ValueError: params.biases: expected shape (9,), one per neuron…got (6,)",
        params=replace(NETWORK, biases=zeros(6)),
    ),
    "biases in bfloat16": refused(
        "TypeError: params.biases: expected float32 as the weights have, got bfloat16",
        params=replace(NETWORK, biases=zeros(9, dtype="bfloat16")),
    ),
    "weights in float64": refused(
        "TypeError: params.weights: expected float32…float64", params=replace(NETWORK, weights=np.ones(20))
    ),
    "integers": refused(
        "TypeError: params.weights: expected a floating dtype, got int32",
        params=GraphParams(ones(20, dtype="int32"), zeros(9, dtype="int32"), GRAPH),
        x=ones(5, 3, dtype="int32"),
    ),
    "gammas of the hidden only": refused(
        "ValueError: params.norm.gamma: expected shape (9,)…got (4,)", params=graph_norm(gamma=4)
    ),
    "a norm that is none": refused(
        "TypeError: params.norm: expected a fnn.BatchNorm or None, got int 5", params=replace(NETWORK, norm=5)
    ),
    "an unknown gradient of the norm": refused(
        "ValueError: params.norm.gradient: expected 'full' or 'fixed', got 'half'", params=graph_norm(gradient="half")
    ),
    "an eps of zero": refused(
        "ValueError: params.norm.eps: expected a finite number > 0, got 0", params=graph_norm(eps=0)
    ),
}


@refusals(
    (EVERY, LAYERS),
    (only("forward", "trace") | BACKWARD, INTEGER_WEIGHTS),
    (only("forward"), FORWARD),
    (IN_GRAPHS, GRAPHS),
    (only("graph.forward"), FORWARD_IN_GRAPHS),
)
def test_a_bad_network_is_refused_by_the_name_of_its_part(call, message):
    assert_refusal(call, message)
