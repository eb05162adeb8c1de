"""What the tests of refusals share: a small network with its data, the functions, and ways to go wrong."""

import re
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

PARAMS = fnn.init(jax.random.key(0), (3, 4, 2))
NORMED = fnn.init(jax.random.key(0), (3, 4, 2), batch_norm="full")
ONE_OUTPUT = fnn.init(jax.random.key(0), (3, 1))
X, Y = jnp.ones((5, 3)), jnp.zeros((5, 2))
LABELS = jnp.array([0, 1, 1, 0, 1])
SQUARED, SOFTMAX = fnn.SquaredError(), fnn.SoftmaxCrossEntropy()
SGD = fnn.updates.sgd(0.1)


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


def changed(i=0, params=PARAMS, **parts):
    """``params`` with other parts in layer i."""
    return tuple(replace(layer, **parts) if i == number else layer for number, layer in enumerate(params))


def layer(W=None, b=None, activation=fnn.Identity(), norm=None):
    """A network of one layer from 3 to 2 neurons."""
    return (fnn.Dense(jnp.ones((2, 3)) if W is None else W, jnp.zeros(2) if b is None else b, activation, norm),)


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


def make_and_run_step(params, x, y, *, masks=None, **options):
    return fnn.train.make_step(SGD, **options)(params, SGD.init(PARAMS), x, y, masks)


BACKWARD = {
    "backprop": fnn.backprop,
    "value_and_backprop": fnn.value_and_backprop,
    "deltas": fnn.deltas,
    "input_gradient": fnn.input_gradient,
    "step": make_and_run_step,
}
EVERY = {
    "forward": lambda params, x, y, masks=None: fnn.forward(params, x, masks),
    "trace": lambda params, x, y, masks=None: fnn.trace(params, x, masks),
} | BACKWARD


def fit(params=PARAMS, data=(X, Y), optimizer=SGD, **options):
    options = {"loss": SQUARED, "epochs": 1, "batch_size": 2, "key": jax.random.key(0), "progress": False} | options
    return fnn.train.fit(params, data, optimizer, **options)


def spoiled(array, value):
    array = np.array(array)
    array[2, 1] = array[4, 0] = value
    return array
