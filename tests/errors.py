"""What the tests of refusals share: the format of their tables, a small network with its data, and the functions."""

import builtins
import re
from dataclasses import dataclass, replace
from functools import partial, wraps

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.graph import Graph, GraphParams


def assert_refused(call, error, fragments):
    """``call`` raises exactly ``error``, and every fragment, a regular expression, is in its message."""
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    for fragment in fragments:
        assert re.search(fragment, str(caught.value), re.DOTALL), f"{fragment!r} is not in {str(caught.value)!r}"


def table(rows: dict):
    """Parametrise by the rows of a table: id → (what is given, the exception's type, fragments of its message)."""
    cases = [pytest.param(given, error, fragments, id=name) for name, (given, error, *fragments) in rows.items()]
    return pytest.mark.parametrize(("given", "error", "fragments"), cases)


def refused(message, **given) -> tuple:
    """A row of a table: how the exception begins, as "Type: text" with … for anything, and what is given."""
    return message, given


def refusals(*tables):
    """Parametrise by tables, (functions by name, rows by name): every function refuses what is given in every row."""
    cases = [
        pytest.param(partial(function, **given), message, id=f"{name}: {row}")
        for functions, rows in tables
        for name, function in functions.items()
        for row, (message, given) in rows.items()
    ]
    return pytest.mark.parametrize(("call", "message"), cases)


def assert_refusal(call, message):
    """``call`` raises an exception of exactly this type, whose message begins as given; … stands for anything."""
    error, text = message.split(": ", 1)
    assert_refused(call, getattr(builtins, error), ["^" + ".*".join(map(re.escape, text.split("…")))])


# -- a network, a graph and their data; made in NumPy, so that nothing is compiled -----------------------------


def full(value, *shape, dtype="float32"):
    return jnp.asarray(np.full(shape, value, jnp.dtype(dtype)))


ones, zeros = partial(full, 1), partial(full, 0)


def layer(W=None, b=None, activation=fnn.Identity(), norm=None):
    """A network of one layer from 3 to 2 neurons."""
    return (fnn.Dense(ones(2, 3) if W is None else W, zeros(2) if b is None else b, activation, norm),)


def changed(i=0, params=None, **parts):
    """``params`` with other parts in layer i."""
    layers = enumerate(PARAMS if params is None else params)
    return tuple(replace(layer, **parts) if i == number else layer for number, layer in layers)


def spoiled(array, value):
    array = np.array(array)
    array[2, 1] = array[4, 0] = value
    return array


PARAMS = (
    fnn.Dense(jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), "float32"), zeros(4), fnn.Sigmoid()),
    fnn.Dense(jnp.asarray(np.random.default_rng(1).normal(size=(2, 4)), "float32"), zeros(2), fnn.Identity()),
)
NORMED = changed(norm=fnn.BatchNorm(ones(4), zeros(4)))
ONE_OUTPUT = layer(ones(1, 3), zeros(1))
GRAPH = Graph.layered((3, 4, 2), fnn.Tanh())
NETWORK = GraphParams(full(0.1, 20), zeros(9), GRAPH)
X, Y, LABELS = ones(5, 3), zeros(5, 2), jnp.asarray(np.array([0, 1, 1, 0, 1], "int32"))
SQUARED, SOFTMAX = fnn.SquaredError(), fnn.SoftmaxCrossEntropy()
SGD = fnn.updates.sgd(0.1)


@dataclass(frozen=True)
class Narrow(fnn.Activation):
    def value(self, z):
        return z[..., :1]

    def derivative(self, z, a):
        return z


@dataclass
class Unhashable:
    def value(self, z):
        return z

    def pullback(self, g, z, a):
        return g


# -- the functions, with what they take where nothing else is given --------------------------------------------


def on_data(function, network=PARAMS):
    """A function of (params, x, y), of the small network and its data where nothing else is given."""

    @wraps(function)
    def call(params=network, x=X, y=Y, **options):
        return function(params, x, y, **options)

    return call


@on_data
def forward(params, x, y, masks=None):
    return fnn.forward(params, x, masks=masks)


@on_data
def trace(params, x, y, masks=None):
    return fnn.trace(params, x, masks=masks)


@on_data
def step(params, x, y, *, masks=None, **options):
    return fnn.train.make_step(SGD, **options)(params, SGD.init(PARAMS), x, y, masks=masks)


BACKWARD = {
    "backprop": on_data(fnn.backprop),
    "value_and_backprop": on_data(fnn.value_and_backprop),
    "deltas": on_data(fnn.deltas),
    "input_gradient": on_data(fnn.input_gradient),
    "step": step,
}
EVERY = {"forward": forward, "trace": trace} | BACKWARD
IN_GRAPHS = {
    "graph.forward": on_data(lambda params, x, y, masks=None: fnn.forward(params, x, masks=masks), NETWORK),
    "graph.trace": on_data(lambda params, x, y, masks=None: fnn.trace(params, x, masks=masks), NETWORK),
    "graph.backprop": on_data(fnn.backprop, NETWORK),
    "graph.deltas": on_data(fnn.deltas, NETWORK),
    "graph.input_gradient": on_data(fnn.input_gradient, NETWORK),
    "graph.step": on_data(step, NETWORK),
}


def only(*names) -> dict:
    """Some of all these functions."""
    return {name: (EVERY | IN_GRAPHS)[name] for name in names}


def fit(params=PARAMS, data=(X, Y), optimizer=SGD, **options):
    options = {"loss": SQUARED, "epochs": 1, "batch_size": 2, "key": jax.random.key(0), "progress": False} | options
    return fnn.train.fit(params, data, optimizer, **options)


def evaluate(params=PARAMS, data=(X, Y), loss=SQUARED):
    return fnn.train.evaluate(params, data, loss=loss)
