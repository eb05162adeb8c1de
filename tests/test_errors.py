"""Bad input is refused by the argument's name, with what was expected and what came, and leaves nothing changed."""

import re
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


# -- things of one's own that do not keep their promise --------------------------------------------------------


@dataclass(frozen=True)
class Narrow(fnn.Activation):
    def value(self, z):
        return z[..., :1]

    def derivative(self, z, a):
        return z


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


@dataclass(frozen=True)
class NarrowBack(fnn.Activation):
    def value(self, z):
        return z

    def pullback(self, g, z, a):
        return g[:1]


@dataclass
class Unhashable:
    def value(self, z):
        return z

    def pullback(self, g, z, a):
        return g


@dataclass(frozen=True)
class OneNumber(fnn.Loss):
    def value(self, a, y):
        return jnp.sum((a - y) ** 2)

    def gradient(self, a, y):
        return 2 * (a - y)


@dataclass(frozen=True)
class Lopsided(fnn.Loss):
    def value(self, a, y):
        return jnp.sum(a - y, axis=-1)

    def gradient(self, a, y):
        return (a - y).T


@dataclass(frozen=True)
class Unfinished(fnn.Loss):
    def value(self, a, y):
        return jnp.sum(a - y, axis=-1)


@dataclass
class UnhashableLoss:
    def value(self, a, y):
        return jnp.sum(a - y, axis=-1)

    def delta(self, activation, z, a, y):
        return a - y


def one_row(delta, *_):
    return delta[:1]


def one_column(loss, activation, z, a, y):
    return (a - y)[:, :1]


def transposed_weights(delta, a_in, mask=None):
    return a_in.T @ delta


def no_sum(delta):
    return delta


def turned(delta, W, mask=None):
    return (delta @ W).T


def no_sums(norm, psi, delta_z):
    return delta_z, delta_z, delta_z


def half_of_the_norm(norm, psi, delta_z):
    return delta_z, jnp.sum(delta_z, axis=0)


# -- init ------------------------------------------------------------------------------------------------------


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


# -- the network and its input ---------------------------------------------------------------------------------


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


def layer(W=None, b=None, activation=fnn.Identity(), norm=None):
    """A network of one layer from 3 to 2 neurons."""
    return (fnn.Dense(jnp.ones((2, 3)) if W is None else W, jnp.zeros(2) if b is None else b, activation, norm),)


def norm(gamma=2, beta=2, **options):
    return fnn.BatchNorm(jnp.ones(gamma), jnp.zeros(beta), **options)


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
@table(
    {
        "x of integers": ({"x": jnp.ones((5, 3), jnp.int32)}, TypeError, "^x: expected float32", "got int32", "astype"),
        "x of pixels": ({"x": np.ones((5, 3), np.uint8)}, TypeError, "^x: expected float32", "got uint8", "/ 255"),
        "x of bool": ({"x": jnp.ones((5, 3), bool)}, TypeError, "^x: expected float32", "got bool"),
        "x in float64": ({"x": np.ones((5, 3))}, TypeError, "^x: expected float32", "got float64", "astype"),
        "x in bfloat16": ({"x": jnp.ones((5, 3), "bfloat16")}, TypeError, "^x: expected float32", "got bfloat16"),
        "x a list": ({"x": [[1.0, 2.0, 3.0]]}, TypeError, "^x: expected an array", "got list", "write jnp.asarray"),
        "x a number": ({"x": 1.0}, TypeError, "^x: expected an array", "got float 1.0"),
        "x None": ({"x": None}, TypeError, "^x: expected an array", "got NoneType"),
        "x too wide": ({"x": jnp.ones((5, 4))}, ValueError, r"^x: expected shape \(3,\) or \(B, 3\)", r"got \(5, 4\)"),
        "x of rank 3": ({"x": jnp.ones((5, 1, 3))}, ValueError, r"^x: expected shape", r"got \(5, 1, 3\)"),
        "x of rank 0": ({"x": jnp.ones(())}, ValueError, r"^x: expected shape", r"got \(\)"),
        "an empty batch": (
            {"x": jnp.ones((0, 3)), "y": jnp.ones((0, 2))},
            ValueError,
            "^x: expected at least one example",
            r"got an empty batch of shape \(0, 3\)",
        ),
        "no params": ({"params": None}, TypeError, "^params: expected a tuple of fnn.Dense", "got NoneType"),
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
        "a later W transposed": (
            {"params": changed(1, W=PARAMS[1].W.T)},
            ValueError,
            r"^params\[1\].W: expected shape \(n_out, 4\), rows for receiving neurons",
            r"got \(4, 2\)",
            "W.T if",
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
        "a b in float64": (
            {"params": layer(b=np.zeros(2))},
            TypeError,
            r"^params\[0\].b: expected float32",
            "got float64",
        ),
        "all in float64 without x64": (
            {"params": layer(W=np.ones((2, 3)), b=np.zeros(2)), "x": np.ones((5, 3)), "y": np.ones((5, 2))},
            TypeError,
            r"^(params\[0\].W|x): ",
            "float64",
            "x64",
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
        "a batch norm of one example": (
            {"params": NORMED, "x": X[:1], "y": Y[:1]},
            ValueError,
            r"^x: params\[0\] has a batch norm, which needs at least 2 examples, got 1",
        ),
        "a batch norm of a single example": (
            {"params": NORMED, "x": X[0], "y": Y[0]},
            ValueError,
            r"^x: params\[0\] has a batch norm, which needs at least 2 examples, got 1",
        ),
    }
)
def test_a_network_or_an_input_is_refused_by_every_function(function, given, error, fragments):
    given = {"params": PARAMS, "x": X, "y": Y} | given
    assert_refused(lambda: function(**given), error, fragments)


NONE = fnn.Mask()


@pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
@table(
    {
        "too few": ((NONE,), ValueError, "^masks: expected one Mask per layer, 2, got 1"),
        "too many": ((NONE,) * 3, ValueError, "^masks: expected one Mask per layer, 2, got 3"),
        "a number": (5, TypeError, "^masks: expected one Mask per layer", "got int 5"),
        "one mask for two layers": (fnn.Mask(units=jnp.ones((5, 3))), TypeError, "^masks: expected", "got .*Mask"),
        "an array": (jnp.ones((2, 3)), TypeError, r"^masks(\[0\])?: expected", "Mask", r"got .*float32|got .*Array"),
        "arrays": (
            [jnp.ones((5, 3)), NONE],
            TypeError,
            r"^masks\[0\]: expected a fnn.Mask",
            r"got .*float32|got .*Array",
        ),
        "None for one": ([NONE, None], TypeError, r"^masks\[1\]: expected a fnn.Mask", "got NoneType"),
        "units by neuron only": (
            [fnn.Mask(units=jnp.ones(3)), NONE],
            ValueError,
            r"^masks\[0\].units: expected shape \(5, 3\) or \(1, 3\)",
            r"got \(3,\)",
        ),
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
        "float64": (
            [fnn.Mask(units=np.ones((5, 3))), NONE],
            TypeError,
            r"^masks\[0\].units: expected float32",
            "got float64",
        ),
        "a list": (
            [fnn.Mask(units=[[1.0] * 3] * 5), NONE],
            TypeError,
            r"^masks\[0\].units: expected an array",
            "got list",
        ),
    }
)
def test_masks_are_refused_by_every_function(function, given, error, fragments):
    assert_refused(lambda: function(PARAMS, X, Y, masks=given), error, fragments)


@table(
    {
        "None": (None, TypeError, "^params: expected a tuple of fnn.Dense", "got NoneType"),
        "a bare layer": (PARAMS[0], TypeError, "^params: expected a tuple of fnn.Dense", "got Dense"),
        "W of rank 1": (layer(W=jnp.ones(3)), ValueError, r"^params\[0\].W: expected shape", r"got \(3,\)"),
    }
)
def test_summary_refuses(given, error, fragments):
    assert_refused(lambda: fnn.summary(given), error, fragments)


# -- targets, losses, reductions, rules ------------------------------------------------------------------------


@pytest.mark.parametrize("function", BACKWARD.values(), ids=BACKWARD)
@table(
    {
        "(B,) against (B, 1)": (
            {"params": ONE_OUTPUT, "y": jnp.zeros(5)},
            ValueError,
            r"^y: expected shape \(5, 1\) as the network's output has, got \(5,\)",
            r"write y.reshape\(\(5, 1\)\)",
        ),
        "(B, 1) against (B, 2)": (
            {"y": jnp.zeros((5, 1))},
            ValueError,
            r"^y: expected shape \(5, 2\)",
            r"got \(5, 1\)",
        ),
        "(1, 2) against (B, 2)": (
            {"y": jnp.zeros((1, 2))},
            ValueError,
            r"^y: expected shape \(5, 2\)",
            r"got \(1, 2\)",
        ),
        "a single target": ({"y": jnp.zeros(2)}, ValueError, r"^y: expected shape \(5, 2\)", r"got \(2,\)"),
        "a batch for one example": ({"x": X[0]}, ValueError, r"^y: expected shape \(2,\)", r"got \(5, 2\)"),
        "labels with a squared error": (
            {"y": LABELS},
            TypeError,
            r"^y: SquaredError\(scale=0.5\) takes targets of shape \(B, 2\)",
            r"got integers, int32 of shape \(5,\)",
            r"one-hot them: jax.nn.one_hot\(y, 2\)",
            "SoftmaxCrossEntropy",
        ),
        "one label with a squared error": (
            {"x": X[0], "y": 1},
            TypeError,
            "^y: SquaredError",
            "got integers",
            "one-hot",
        ),
        "labels with Huber": ({"y": LABELS, "loss": fnn.Huber()}, TypeError, "^y: Huber", "got integers", "one-hot"),
        "labels for one output": (
            {"params": ONE_OUTPUT, "y": LABELS, "loss": fnn.SigmoidCrossEntropy()},
            ValueError,
            r"^y: a network with one output takes y of shape \(5, 1\), got labels of shape \(5,\)",
        ),
        "a column of labels": (
            {"y": LABELS[:, None], "loss": SOFTMAX},
            ValueError,
            r"^y: expected labels of shape \(5,\), got \(5, 1\)",
        ),
        "one-hot integers": (
            {"y": jnp.ones((5, 2), jnp.int32), "loss": SOFTMAX},
            ValueError,
            r"^y: expected labels of shape \(5,\), got \(5, 2\)",
            "astype",
        ),
        "too few labels": (
            {"y": LABELS[:3], "loss": SOFTMAX},
            ValueError,
            r"^y: expected labels of shape \(5,\)",
            r"\(3,\)",
        ),
        "y in float64": ({"y": np.zeros((5, 2))}, TypeError, "^y: expected float32", "got float64", "astype"),
        "y in bfloat16": ({"y": jnp.zeros((5, 2), "bfloat16")}, TypeError, "^y: expected float32", "got bfloat16"),
        "y of bool": ({"y": jnp.zeros((5, 2), bool)}, TypeError, "^y: expected float32", "got bool"),
        "y a list": ({"y": [[0.0, 0.0]] * 5}, TypeError, "^y: expected an array", "got list"),
        "y True": ({"x": X[0], "y": True, "loss": SOFTMAX}, TypeError, "^y: expected an array", "got bool True"),
        "y None": ({"y": None}, TypeError, "^y: expected an array", "got NoneType"),
        "a loss's class": ({"loss": fnn.Huber}, TypeError, r"^loss: expected a loss such as", "got <class .*Huber"),
        "a string for a loss": ({"loss": "mse"}, TypeError, "^loss: expected", "got 'mse'", "there are .*SquaredError"),
        "a function for a loss": ({"loss": optax.l2_loss}, TypeError, "^loss: expected", "got <function l2_loss"),
        "no loss": ({"loss": None}, TypeError, "^loss: expected", "got None"),
        "an unhashable loss": ({"loss": UnhashableLoss()}, TypeError, "^loss: expected", "got UnhashableLoss"),
        "a loss whose gradient is turned": (
            {"loss": Lopsided()},
            ValueError,
            "Lopsided|rules.",
            "expected",
            r"got .*2, 5",
        ),
        "rules None": ({"rules": None}, TypeError, "^rules: expected fnn.Rules", "got None"),
        "rules in a tuple": ({"rules": tuple(fnn.RULES)}, TypeError, "^rules: expected fnn.Rules", r"got \("),
        "a rule None": (
            {"rules": fnn.RULES._replace(hidden_delta=None)},
            TypeError,
            "^rules.hidden_delta",
            "expected",
            "got .*None",
        ),
    }
)
def test_a_target_a_loss_or_rules_are_refused_by_every_backward_function(function, given, error, fragments):
    given = {"params": PARAMS, "x": X, "y": Y, "loss": SQUARED} | given
    assert_refused(lambda: function(**given), error, fragments)


@pytest.mark.parametrize("function", [fnn.backprop, fnn.value_and_backprop, fnn.input_gradient, make_and_run_step])
@pytest.mark.parametrize("reduction", ["avg", None, True, ["mean"]], ids=str)
def test_an_unknown_reduction_is_refused(function, reduction):
    fragments = ["^reduction: expected 'mean' or 'sum'", f"got {re.escape(repr(reduction))}"]
    assert_refused(lambda: function(PARAMS, X, Y, loss=SQUARED, reduction=reduction), ValueError, fragments)


@pytest.mark.parametrize(
    "function",
    [
        fnn.value_and_backprop,
        make_and_run_step,
        lambda params, x, y, loss: fnn.train.evaluate(params, (x, y), loss=loss),
    ],
    ids=["value_and_backprop", "step", "evaluate"],
)
def test_a_loss_that_adds_up_the_examples_is_refused_where_its_value_is_used(function):
    fragments = [r"^OneNumber\(\).value\(a, y\): expected float32 of shape \(5,\)", r"got float32 of shape \(\)"]
    assert_refused(lambda: function(PARAMS, X, Y, loss=OneNumber()), ValueError, fragments)


def test_a_loss_or_an_activation_that_is_not_finished_says_what_it_must_define():
    with pytest.raises(NotImplementedError, match=r"Unfinished must define gradient\(self, a, y\)"):
        fnn.backprop(PARAMS, X, Y, loss=Unfinished())
    with pytest.raises(NotImplementedError, match=r"Activation must define value\(self, z\)"):
        fnn.forward(changed(activation=fnn.Activation()), X)
    with pytest.raises(TypeError, match="Softmax has no elementwise derivative; use pullback"):
        fnn.Softmax().derivative(X, X)


@pytest.mark.parametrize("function", BACKWARD.values(), ids=BACKWARD)
@pytest.mark.parametrize(
    ("rule", "fragments"),
    [
        ({"output_delta": one_column}, ["^rules.*delta", r"expected .*\(5, 2\)", r"got .*\(5, 1\)"]),
        ({"hidden_delta": one_row}, ["^rules.*delta", r"expected .*\(5, 4\)", r"got .*\(1, 4\)"]),
        ({"input_gradient": turned}, ["^rules", r"expected .*\(5, 4\)", r"got .*\(4, 5\)"]),
        ({"weight_gradient": transposed_weights}, [r"^rules.weight_gradient: expected .*\(2, 4\)", r"got .*\(4, 2\)"]),
        ({"bias_gradient": no_sum}, [r"^rules.bias_gradient: expected .*\(2,\)", r"got .*\(5, 2\)"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_rule_that_returns_another_shape_is_refused(function, rule, fragments):
    rules = fnn.RULES._replace(**rule)
    assert_refused(lambda: function(PARAMS, X, Y, loss=SQUARED, rules=rules), ValueError, fragments)


def test_an_input_gradient_that_is_turned_is_not_turned_back():
    """The first layer's g has as many numbers as x, so that a reshape would pass it."""
    rules = fnn.RULES._replace(input_gradient=turned)
    fragments = ["^rules", r"expected .*\(5, 3\)", r"got .*\(3, 5\)"]
    one_layer = fnn.init(jax.random.key(0), (3, 2))
    assert_refused(lambda: fnn.input_gradient(one_layer, X, Y, rules=rules), ValueError, fragments)


@pytest.mark.parametrize("rule", [no_sums, half_of_the_norm])
def test_a_norm_pullback_that_returns_something_else_is_refused(rule):
    rules = fnn.RULES._replace(norm_pullback=rule)
    assert_refused(
        lambda: fnn.backprop(NORMED, X, Y, rules=rules), ValueError, ["^rules.norm_pullback", "expected", "got"]
    )


@pytest.mark.parametrize("i", [0, 1])
def test_a_pullback_that_changes_the_shape_is_refused(i):
    params = changed(i, activation=NarrowBack())
    fragments = [r"^rules.*delta|^NarrowBack\(\).pullback", "expected float32", r"got .*\(1, "]
    assert_refused(lambda: fnn.backprop(params, X, Y), ValueError, fragments)


# -- parameters of activations and losses ----------------------------------------------------------------------


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
    "PiecewiseLinear x_max": (lambda number: fnn.PiecewiseLinear(1, 0, 0, number), "x_max"),
    "continuous x_min": (lambda number: fnn.PiecewiseLinear.continuous(number, 1), "x_min"),
    "continuous x_max": (lambda number: fnn.PiecewiseLinear.continuous(1, number), "x_max"),
    "momentum alpha": (lambda number: fnn.updates.momentum(0.1, number), "alpha"),
}


@pytest.mark.parametrize(("call", "name"), NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("number", [0, -1.0, np.float32(-0.5)], ids=str)
def test_a_number_that_must_be_positive_is_named(call, name, number):
    assert_refused(lambda: call(number), ValueError, [rf"\b{name}\b", "expected .*> 0", f"got .*{number}"])


@pytest.mark.parametrize(("call", "name"), MORE_NUMBERS.values(), ids=MORE_NUMBERS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
def test_a_number_that_is_not_finite_is_named(call, name, number):
    assert_refused(lambda: call(number), ValueError, [rf"\b{name}\b", "expected", f"got .*{number}"])


@pytest.mark.parametrize(("call", "name"), MORE_NUMBERS.values(), ids=MORE_NUMBERS)
@pytest.mark.parametrize("number", ["0.1", "a", None, [0.5], 1j, np.ones(2)], ids=repr)
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


# -- fit, evaluate, predict, make_step -------------------------------------------------------------------------


def fit(params=PARAMS, data=(X, Y), optimizer=SGD, **options):
    options = {"loss": SQUARED, "epochs": 1, "batch_size": 2, "key": jax.random.key(0), "progress": False} | options
    return fnn.train.fit(params, data, optimizer, **options)


def spoiled(array, value):
    array = np.array(array)
    array[2, 1] = array[4, 0] = value
    return array


USES = {
    "fit": lambda data, **options: fit(data=data, **options),
    "validation": lambda data, **options: fit(validation=data, **options),
    "evaluate": lambda data, params=PARAMS, loss=SQUARED: fnn.train.evaluate(params, data, loss=loss),
}


@pytest.mark.parametrize("use", USES)
@table(
    {
        "NaN in x": (
            ((spoiled(X, np.nan), Y),),
            ValueError,
            r"x: expected finite numbers, got .*nan.* in row 2 \(2 such",
        ),
        "inf in x": (((spoiled(X, np.inf), Y),), ValueError, "x: expected finite numbers, got .*inf.* in row 2"),
        "NaN in y": (((X, spoiled(Y, np.nan)),), ValueError, "y: expected finite numbers, got .*nan.* in row 2"),
        "a label too large": (
            ((X, jnp.array([0, 1, 2, 0, 9])), SOFTMAX),
            ValueError,
            r"y: expected labels below 2, the network's outputs, got 2 in row 2 \(2 such rows\)",
        ),
        "a negative label": (
            ((X, jnp.array([0, 1, 1, -1, 0])), SOFTMAX),
            ValueError,
            r"y: expected labels >= 0, got -1 in row 3 \(1 such rows\)",
        ),
        "labels with a squared error": (((X, LABELS),), TypeError, "y: SquaredError", "got integers", "one-hot"),
        "no examples": (((X[:0], Y[:0]),), ValueError, "x, y: expected .*at least one, got 0 and 0"),
        "unequal lengths": (((X, Y[:3]),), ValueError, "x, y: expected as many examples in both, .*got 5 and 3"),
        "targets of shape (N,)": (((X, Y[:, 0]),), ValueError, r"y: expected targets of shape \(N, m\), got \(5,\)"),
        "too many inputs": (
            ((jnp.ones((5, 4)), Y),),
            ValueError,
            r"the network takes 3 inputs, got x of shape \(5, 4\)",
        ),
        "too many targets": (((X, X),), ValueError, r"the network has 2 outputs, got y of shape \(5, 3\)"),
        "x in another dtype": (((X.astype("bfloat16"), Y),), TypeError, "expected x in float32", "got bfloat16"),
        "y in another dtype": (((X, Y.astype("bfloat16")),), TypeError, "y: expected float32", "got bfloat16"),
        "x of integers": (((jnp.ones((5, 3), int), Y),), TypeError, "x: expected uint8 or floating", "got int32"),
        "images not in rows": (((jnp.ones((5, 1, 3)), Y),), ValueError, r"x: expected shape \(N, n\), got \(5, 1, 3\)"),
        "lists": (((X.tolist(), Y.tolist()),), TypeError, "x: expected an array", "got list"),
        "x alone": ((X,), TypeError, r"expected a fnn.data.Dataset or a pair \(x, y\)", "got float32 of shape"),
        "three arrays": (((X, Y, Y),), TypeError, r"expected a fnn.data.Dataset or a pair \(x, y\)", "got tuple"),
        "a dict": (({"x": X, "y": Y},), TypeError, r"expected a fnn.data.Dataset or a pair \(x, y\)", "got dict"),
    }
)
def test_data_are_refused_wherever_they_go_in(use, given, error, fragments):
    data, loss = (*given, SQUARED)[:2]
    if use == "validation":
        y = LABELS if loss is SOFTMAX else Y
        assert_refused(lambda: fit(data=(X, y), validation=data, loss=loss), error, ["^validation", *fragments])
    else:
        assert_refused(lambda: USES[use](data, loss=loss), error, fragments)


@table(
    {
        "no data": ({"data": None}, TypeError, "^data: expected", "got NoneType"),
        "labels for one output": (
            {"params": ONE_OUTPUT, "data": (X, LABELS), "loss": fnn.SigmoidCrossEntropy()},
            ValueError,
            r"^data: a network with one output takes y of shape \(N, 1\), got labels of shape \(5,\)",
        ),
        "no params": ({"params": None}, TypeError, "^params: expected a tuple of fnn.Dense", "got NoneType"),
        "W transposed": ({"params": changed(W=PARAMS[0].W.T)}, ValueError, "takes 4 inputs|expected shape", r"got"),
        "a later W transposed": (
            {"params": changed(1, W=PARAMS[1].W.T), "data": (X, jnp.zeros((5, 4)))},
            ValueError,
            r"^params\[1\].W: expected shape \(n_out, 4\)",
            r"got \(4, 2\)",
        ),
        "W of rank 1": ({"params": layer(W=jnp.ones(3))}, ValueError, r"^params\[0\].W: expected shape", r"got \(3,\)"),
        "a b of wrong length": (
            {"params": layer(b=jnp.zeros(1))},
            ValueError,
            r"^params\[0\].b: expected",
            r"got \(1,\)",
        ),
        "an activation's class": (
            {"params": changed(activation=fnn.ReLU)},
            TypeError,
            r"^params\[0\].activation: expected",
            "got <class",
        ),
        "epochs 0": ({"epochs": 0}, ValueError, "^epochs: expected at least 1, got 0"),
        "epochs below 0": ({"epochs": -3}, ValueError, "^epochs: expected at least 1, got -3"),
        "epochs a float": ({"epochs": 1.5}, TypeError, "^epochs: expected an integer, got 1.5"),
        "epochs a string": ({"epochs": "3"}, TypeError, "^epochs: expected an integer, got '3'"),
        "batch_size 0": ({"batch_size": 0}, ValueError, "^batch_size: expected at least 1 .*, got 0"),
        "batch_size over N": ({"batch_size": 6}, ValueError, "^batch_size: .*at most the 5 examples, got 6"),
        "batch_size a float": ({"batch_size": 2.0}, TypeError, "^batch_size: expected an integer, got 2.0"),
        "no batch_size": ({"batch_size": None}, TypeError, "^batch_size: expected an integer, got None"),
        "batches of 1 with a batch norm": (
            {"params": NORMED, "batch_size": 1},
            ValueError,
            r"params\[0\] has a batch norm, which needs at least 2 examples, got 1",
        ),
        "an int seed": ({"key": 0}, TypeError, "^key: expected one PRNG key", "got int 0", "write key="),
        "no key": ({"key": None}, TypeError, "^key: expected one PRNG key", "got NoneType"),
        "a loss's class": ({"loss": fnn.SquaredError}, TypeError, "^loss: expected", "got <class .*SquaredError"),
        "a string for a loss": ({"loss": "mse"}, TypeError, "^loss: expected", "got 'mse'"),
        "an unknown reduction": ({"reduction": "avg"}, ValueError, "^reduction: expected 'mean' or 'sum'", "got 'avg'"),
        "a rate for an optimizer": ({"optimizer": 0.1}, TypeError, "^optimizer: expected an optax", "got 0.1", "sgd"),
        "a rule that was not called": (
            {"optimizer": fnn.updates.sgd},
            TypeError,
            "^optimizer: expected",
            "got <function",
        ),
        "an optimizer's class": (
            {"optimizer": optax.GradientTransformation},
            TypeError,
            "^optimizer: expected",
            "got <class",
        ),
        "a callback that is no function": ({"callback": 5}, TypeError, "^callback: expected", "got .*5"),
    }
)
def test_fit_refuses(given, error, fragments):
    assert_refused(lambda: fit(**given), error, fragments)


@table(
    {
        "no params": ({"params": None}, TypeError, "^params: expected a tuple of fnn.Dense", "got NoneType"),
        "no data": ({"data": None}, TypeError, "^data: expected", "got NoneType"),
        "a loss's class": ({"loss": fnn.Huber}, TypeError, "^loss: expected", "got <class .*Huber"),
        "W of rank 1": (
            {"params": layer(W=jnp.ones(3))},
            ValueError,
            r"^params\[0\].W: expected shape",
            r"got \(3,\)",
        ),
    }
)
def test_evaluate_refuses(given, error, fragments):
    given = {"params": PARAMS, "data": (X, Y), "loss": SQUARED} | given
    assert_refused(lambda: fnn.train.evaluate(**given), error, fragments)


@table(
    {
        "x alone": ((PARAMS, X), TypeError, "^data: expected a fnn.data.Dataset", "got float32"),
        "no params": ((None, fnn.data.Dataset(X, Y)), TypeError, "^params: expected a tuple", "got NoneType"),
        "too many inputs": (
            (PARAMS, fnn.data.Dataset(Y, Y)),
            ValueError,
            "takes 3 inputs|expected shape",
            r"got .*2,?\)",
        ),
    }
)
def test_predict_refuses(given, error, fragments):
    assert_refused(lambda: fnn.train.predict(*given), error, fragments)


@table(
    {
        "no optimizer": ({"optimizer": None}, TypeError, "^optimizer: expected an optax", "got None"),
        "a rule that was not called": (
            {"optimizer": optax.adam},
            TypeError,
            "^optimizer: expected",
            "got <function adam",
        ),
        "an optimizer's class": (
            {"optimizer": optax.GradientTransformation},
            TypeError,
            "^optimizer: expected",
            "got <class",
        ),
        "a loss's class": ({"loss": fnn.SquaredError}, TypeError, "^loss: expected", "got <class"),
        "an unknown reduction": ({"reduction": "avg"}, ValueError, "^reduction: expected 'mean' or 'sum'", "got 'avg'"),
        "no rules": ({"rules": None}, TypeError, "^rules: expected fnn.Rules", "got None"),
    }
)
def test_make_step_refuses_before_any_step(given, error, fragments):
    assert_refused(lambda: fnn.train.make_step(**({"optimizer": SGD} | given)), error, fragments)


# -- verify ----------------------------------------------------------------------------------------------------


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


# -- nothing is changed ----------------------------------------------------------------------------------------


def raising(state):
    raise RuntimeError("stopped by the caller")


def refusing(gradients, state, params=None):
    raise RuntimeError("no step today")


def growing(gradients, state, params=None):
    return jax.tree.map(lambda g: jnp.stack([g, g]), gradients), state


def optimizer(update):
    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


FAILING_FITS = {
    "NaN": {"data": (spoiled(X, np.nan), Y)},
    "labels": {"data": (X, LABELS)},
    "validation": {"validation": (X, X)},
    "batch_size": {"batch_size": 0},
    "a callback that raises": {"callback": raising, "epochs": 3},
    "an optimizer that raises": {"optimizer": optimizer(refusing)},
    "steps of another shape": {"optimizer": optimizer(growing)},
    "an activation that narrows": {"params": changed(activation=Narrow())},
}


@pytest.mark.parametrize("options", FAILING_FITS.values(), ids=FAILING_FITS)
def test_a_fit_that_fails_leaves_the_callers_arrays_as_they_were(options):
    params, data = options.get("params", PARAMS), options.get("data", (X, Y))
    before = [np.array(leaf) for leaf in jax.tree.leaves((params, data))]
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        fit(**options)
    for leaf, copy in zip(jax.tree.leaves((params, data)), before):
        np.testing.assert_array_equal(leaf, copy)


def test_a_fit_after_one_that_failed_is_as_if_there_had_been_none():
    expected, _ = fit(epochs=2)
    with pytest.raises(RuntimeError, match="stopped by the caller"):
        fit(epochs=2, callback=raising)
    after, _ = fit(epochs=2)
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(expected)):
        np.testing.assert_array_equal(ours, theirs)


def test_a_step_after_one_that_was_refused_is_as_if_there_had_been_none():
    step, state = fnn.train.make_step(fnn.updates.momentum(0.1)), fnn.updates.momentum(0.1).init(PARAMS)
    expected = step(PARAMS, state, X, Y)
    with pytest.raises(ValueError, match="^y: "):
        step(PARAMS, state, X, Y[:, :1])
    for ours, theirs in zip(jax.tree.leaves(step(PARAMS, state, X, Y)), jax.tree.leaves(expected)):
        np.testing.assert_array_equal(ours, theirs)


def test_fit_and_evaluate_do_not_write_into_the_callers_arrays():
    x, y = np.full((5, 3), 200, np.uint8), np.array([0, 1, 1, 0, 1])
    for array in (x, y):
        array.flags.writeable = False
    fit(data=(x, y), loss=SOFTMAX, validation=(x, y))
    fnn.train.evaluate(PARAMS, (x, y), loss=SOFTMAX)
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)


def test_a_callback_may_spoil_the_records_it_is_given():
    _, history = fit(epochs=2, callback=lambda state: state.history[0].clear())
    assert [record["epoch"] for record in history] == [1, 2]
