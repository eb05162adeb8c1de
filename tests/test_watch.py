"""Training that comes to NaN or infinity ends with the equation that did first, and with the last good parameters."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import assert_refused
from fnn import updates
from fnn.functions import Objective
from fnn.optimizers import Optimizer
from fnn.train import NonFinite, fit, nonfinite
from fnn.train.feed import InMemory
from fnn.train.loop import shuffle
from networks import drawn
from problems import and_slow

SQUARED = fnn.SquaredError()
X, Y = jnp.ones((8, 3)), jnp.zeros((8, 2))


@dataclass(frozen=True)
class Exponential(fnn.Activation):
    def value(self, z):
        return jnp.exp(z)

    def derivative(self, z, a):
        return a


@dataclass(frozen=True)
class Root(fnn.Activation):
    """Its derivative is infinite at 0."""

    def value(self, z):
        return jnp.sqrt(z)

    def derivative(self, z, a):
        return 1 / (2 * a)


@dataclass(frozen=True)
class Steep(fnn.Loss):
    """The loss 0, with the targets as its gradient, and NaN for those below 0."""

    def value(self, a, y):
        return jnp.zeros_like(a[:, 0])

    def gradient(self, a, y):
        return jnp.where(y < 0, jnp.nan, y)


def network(W1=0.1, W2=0.1, b1=0.0, hidden=fnn.Identity(), norm=None):
    """3-4-2 with all weights of a layer alike; with a batch norm if ``norm`` is one's (γ, which gradient)."""
    if norm is not None:
        norm = fnn.BatchNorm(jnp.full(4, norm[0]), jnp.zeros(4), gradient=norm[1])
    first = fnn.Dense(jnp.full((4, 3), W1), jnp.full(4, b1), hidden, norm)
    return first, fnn.Dense(jnp.full((2, 4), W2), jnp.zeros(2), fnn.Identity())


def caught(params, x=X, y=Y, optimizer=None, **options) -> NonFinite:
    settings = {"loss": SQUARED, "epochs": 3, "batch_size": 4, "key": jax.random.key(1), "progress": False} | options
    with pytest.raises(NonFinite) as found:
        fit(params, (x, y), optimizer or updates.sgd(0.1), **settings)
    return found.value


def equal(ours, others) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(others)))


def spoiling(rate):
    """Steps of rate × gradient, and a state of NaN."""
    return optax.GradientTransformation(
        lambda params: jnp.zeros(2),
        lambda gradients, state, params=None: (jax.tree.map(lambda g: -rate * g, gradients), state * jnp.nan),
    )


RANDOM = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
FIRST = {
    "psi of layer 1 (psi = a W^T + b) is not finite (inf at [0, 0]; 16 of 16 entries)": {
        "params": network(W1=1e20),
        "x": 1e20 * X,
    },
    "psi of layer 2 (psi = a W^T + b) is not finite": {"params": network(W1=1e20, W2=1e20)},
    "z of layer 1 (its batch norm of psi)": {"params": network(norm=(3e38, "full")), "x": RANDOM},
    "a of layer 1 (Exponential() of z) is not finite (inf": {"params": network(b1=100.0, hidden=Exponential())},
    "the loss of an example (SquaredError(scale=0.5)) is not finite": {"params": network(W1=1e25)},
    "the mean of the examples' losses is not finite (inf; 1 of 1": {"params": network(W2=0.0), "y": 1e19 * (Y + 1.3)},
    "(1) delta of layer 2, at the output, is not finite (nan": {"params": network(), "loss": Steep(), "y": Y - 1},
    "(2a) g of layer 1 (g = delta W of layer 2) is not": {"params": network(0.0, 1e30), "y": 1e10 * (Y + 1)},
    "(2b) delta of layer 1 (delta = g * sigma'(z)) is not": {"params": network(0.0, hidden=Root()), "y": Y + 1},
    "delta of layer 1, after its batch norm's pull-back, is not": {
        "params": network(norm=(1.0, "fixed"), W2=1.0),
        "loss": Steep(),
        "y": Y + 1e37,
    },
    "(3) gradient of W of layer 2 is not": {"params": network(0.0, 0.0, b1=1e25), "y": 1e15 * (Y + 1)},
    "(4) gradient of b of layer 2 is not": {"params": network(0.0, 0.0), "loss": Steep(), "y": Y + 3e38},
    "gradient of norm.beta of layer 1 is not": {
        "params": network(norm=(1e-10, "full"), W2=3.0),
        "loss": Steep(),
        "y": Y + 5e37,
    },
    "params[0].W, updated with finite gradients, is not": {
        "params": network(),
        "y": Y + 100,
        "optimizer": updates.sgd(3e38),
    },
    "the optimizer's new state is not finite, although its gradients are": {
        "params": network(),
        "optimizer": spoiling(0.1),
    },
}


# in the slow run: what needs a program of its own, and is like another
MORE = ("z of layer", "a of layer", "(2b)", "delta of layer 1, behind", "the optimizer's new state")


@pytest.mark.parametrize("where", and_slow([where for where in FIRST if not where.startswith(MORE)], FIRST))
def test_the_first_equation_that_is_not_finite_is_named(where):
    given = FIRST[where]
    error = caught(**given)
    assert f"epoch 1, step 1: {where}" in str(error)
    assert (error.epoch, error.step, error.history) == (1, 1, ())
    assert equal(error.params, given["params"])
    assert isinstance(error, FloatingPointError)


def test_the_step_and_the_last_good_parameters_are_those_of_the_run():
    """The rate explodes at the fifth step of the second epoch, of ten steps each."""
    random = np.random.default_rng(1)
    data = (random.normal(size=(40, 3)).astype(np.float32), random.normal(size=(40, 2)).astype(np.float32))
    params = drawn((3, 4, 2))
    optimizer = updates.momentum(lambda step: jnp.where(step == 14, jnp.inf, 0.1), 0.9)
    error = caught(params, *data, optimizer, epochs=5, validation=data)
    assert (error.epoch, error.step) == (2, 5)
    assert "params[0].W, updated with finite gradients" in str(error)
    good = fit(
        params, data, optimizer, loss=SQUARED, epochs=1, batch_size=4, key=jax.random.key(1), validation=data,
        progress=False,
    )  # fmt: skip
    assert equal(error.params, good.params)
    assert [set(record) for record in error.history] == [set(record) for record in good.history]
    assert [record["loss"] for record in error.history] == [record["loss"] for record in good.history]
    assert 10 in [leaf for leaf in jax.tree.leaves(error.optimizer_state) if leaf.ndim == 0]  # steps so far
    fit(error.params, data, updates.sgd(0.1), loss=SQUARED, epochs=1, batch_size=4, key=jax.random.key(2))


MASKED = {"dropout": fnn.Dropout(0.7)}  # the masks of the step are drawn again


@pytest.mark.parametrize(
    "options", and_slow([MASKED], [{"precision": "bfloat16"}, {"dropout": fnn.DropConnect(0.7)}]), ids=str
)
def test_one_bad_example_is_found_in_its_step(options):
    """Finite, and so no bad data; the layers are a stack, and what is named is the layer in it."""
    x = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
    x[23] = 1e35
    first, second, third, last = drawn((3, 4, 4, 4, 2), activation=fnn.Identity())
    W, b = np.stack([second.W, 1e10 * np.asarray(third.W)]), np.stack([second.b, third.b])
    stacked = (first, fnn.Stack(jnp.asarray(W), jnp.asarray(b), fnn.Identity()), last)
    error = caught(stacked, x, np.zeros((40, 2), np.float32), updates.sgd(1e-30), **options)
    steps = shuffle(jax.random.key(1), 1, 40, 4)
    assert error.step == 1 + int(np.argwhere(steps == 23)[0, 0])
    assert f"at [{int(np.argwhere(steps == 23)[0, 1])}, " in str(error)
    assert "psi of layer 3 (psi = a W^T + b) is not finite" in str(error)


def graph(w=(1.0, 1.0, 1.0), h=fnn.Identity()):
    structure = fnn.graph.Graph([("x", "h"), ("h", "y"), ("x", "y")], {"h": h, "y": fnn.Identity()}, ["x"], ["y"])
    return fnn.graph.GraphParams(jnp.asarray(w), jnp.zeros(3), structure)


GRAPHS = {
    "psi of neuron 'h' is not finite": {"params": graph((1e30, 1.0, 1.0)), "x": 1e10 * X[:, :1]},
    "a of neuron 'h' is not finite": {"params": graph((100.0, 1.0, 1.0), Exponential())},
    "psi of neuron 'y' is not finite": {"params": graph((1e20, 1e20, 1.0))},
    "the loss of an example": {"params": graph((1.0, 1.0, 1e25))},
    "lambda of neuron 'y' is not finite": {"params": graph(), "loss": Steep(), "y": Y[:, :1] - 1},
    "lambda of neuron 'h' is not finite": {"params": graph((0.0, 1.0, 1.0), Root())},
    "gradient of the arrow 'x' -> 'y' is not finite": {
        "params": graph((0.0, 0.0, 0.0)),
        "x": 1e25 * X[:, :1],
        "y": 1e15 * (Y[:, :1] + 1),
    },
    "gradient of the bias of neuron 'h' is not finite": {
        "params": graph(),
        "loss": Steep(),
        "x": 1e-3 * X[:, :1],
        "y": Y[:, :1] + 3e38,
    },
    "params.weights, updated with finite gradients": {
        "params": graph(),
        "y": Y[:, :1] + 100,
        "optimizer": updates.sgd(3e38),
    },
}


MORE_OF_GRAPHS = ("a of neuron", "lambda", "gradient of the bias", "params.weights")


@pytest.mark.parametrize("where", and_slow([where for where in GRAPHS if not where.startswith(MORE_OF_GRAPHS)], GRAPHS))
def test_of_a_graph_the_neuron_is_named(where):
    error = caught(**({"x": X[:, :1], "y": Y[:, :1] + 1} | GRAPHS[where]))
    assert f"epoch 1, step 1: {where}" in str(error)


def test_an_optimizer_may_begin_with_an_infinity():
    waiting = optax.contrib.reduce_on_plateau(patience=1, accumulation_size=1000)  # infinite: the best loss so far
    optimizer = optax.chain(optax.sgd(0.1), waiting)
    state = optimizer.init(network())
    assert any(np.isinf(leaf).any() for leaf in jax.tree.leaves(state))
    fit(network(), (X, Y), optimizer, loss=SQUARED, epochs=2, batch_size=4, key=jax.random.key(0), progress=False)


def test_what_does_not_come_again_is_said():
    data, key = fnn.data.Dataset(X, Y), jax.random.key(0)
    optimizer, options = Optimizer(updates.sgd(0.1)), {"objective": Objective(SQUARED, "mean"), "scale": 1.0}
    chunks = InMemory(data, data.y, SQUARED, 4).chunks(key, 3)
    begun = network(), optimizer.init(network())
    error = nonfinite.non_finite(begun, chunks, 3, (None, key, optimizer, None), [], **options)
    assert (error.epoch, error.step) == (3, None)
    assert "epoch 3: the loss, parameters or optimizer state are not finite, but are when" in str(error)


def test_a_mean_of_huge_losses_is_finite():
    y = np.full((8, 2), 1e19, np.float32)
    history = fit(
        network(W2=0.0), (X, y), updates.sgd(1e-30), loss=fnn.SquaredError(1.0), epochs=1, batch_size=1,
        key=jax.random.key(0), progress=False,
    ).history  # fmt: skip
    assert 1e38 < history[0]["loss"] < 3e38  # eight of which are more than float32 holds


def test_the_bar_shows_loss_accuracy_and_speed(capfd):
    labels = np.array([0, 1] * 4)
    options = {"loss": fnn.SoftmaxCrossEntropy(), "epochs": 2, "batch_size": 4, "key": jax.random.key(0)}
    fit(network(), (X, labels), updates.sgd(0.1), validation=(X, labels), progress=True, **options)
    line = capfd.readouterr().err
    assert all(shown in line for shown in ("loss=", "accuracy=", "examples/s=", "2/2"))
    assert "validation" not in line


def test_a_precision_is_refused_before_anything_is_trained():
    assert_refused(
        lambda: fit(graph(), (X[:, :1], Y[:, :1]), updates.sgd(0.1), loss=SQUARED, epochs=1, batch_size=4,
                    key=jax.random.key(0), precision="bfloat16"),
        TypeError,
        ["^precision: 'bfloat16' is for the matrix products of layers", "a graph", "write precision=None"],
    )  # fmt: skip
