"""What the tests of graphs share: networks and data, and all that fnn and autodiff say of them, each in one program."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from fnn import backprop, deltas, forward, input_gradient, trace
from fnn.graph import Graph, GraphParams
from fnn.graph.passes import Trace
from problems import ACTIVATIONS, distance

SQUARED, SOFTMAX, TANH = fnn.SquaredError(), fnn.SoftmaxCrossEntropy(), fnn.Tanh()


def mixed(seed, kinds, neurons=40, arrows=130) -> Graph:
    """Names; an activation of its own for every neuron; two outputs with outgoing arrows; everything in any order."""
    key, random = jax.random.key(seed), np.random.default_rng(seed)
    drawn = Graph.random(key, neurons, arrows, inputs=4, outputs=3, generations=6)
    names = [f"n{i}" for i in random.permutation(neurons)]
    pairs = [(names[s], names[t]) for s, t in random.permutation(drawn.arrows)]
    activations = {names[i]: kinds[i % len(kinds)] for i in random.permutation(np.arange(4, neurons))}
    outputs = [names[i] for i in (-2, 20, -1, -3, 9)]
    return Graph(pairs, activations, random.permutation(names[:4]).tolist(), outputs)


DIAMOND = [("x", "h"), ("x", "g"), ("h", "y"), ("g", "y"), ("x", "y")]


def diamond(arrows=DIAMOND, activations=TANH, inputs=("x",), outputs=("y",), normed=None):
    return Graph(arrows, activations, inputs, outputs, normed)


def chain(n, activations=TANH):
    return Graph([(i, i + 1) for i in range(n - 1)], activations, [0], [n - 1])


def drawn_pairs(seed, neurons=30, probability=0.1):
    """The arrows of a random directed acyclic graph, whose neurons are numbered in any order, and its ends."""
    random = np.random.default_rng(seed)
    pairs = np.argwhere(np.triu(random.random((neurons, neurons)) < probability, 1))
    pairs = random.permutation(random.permutation(neurons)[pairs])
    first, last = (np.setdiff1d(np.arange(neurons), pairs[:, i]) for i in (1, 0))
    return pairs, first, last


ELEMENTWISE = [activation for activation in ACTIVATIONS if not isinstance(activation, fnn.Softmax)]
EVERY_KIND = mixed(0, ELEMENTWISE, 24, 70)
SMOOTH = mixed(1, [TANH, fnn.Softplus(), fnn.Sigmoid()])


def array(values, dtype) -> jax.Array:
    """What jnp.asarray gives, which compiles a program for every shape."""
    return jax.device_put(np.asarray(values, dtype))


def network(graph, dtype="float64", seed=0, batch_norm=None) -> GraphParams:
    """Random parameters, none of them zero, an input's bias neither."""
    random, n, target = np.random.default_rng(seed), len(graph), graph.arrows[:, 1]

    def around(centre):
        return array(centre + 0.3 * random.normal(size=n), dtype)

    weights = 1.2 * random.normal(size=len(target)) / np.sqrt(np.bincount(target, minlength=n)[target])
    norm = None if batch_norm is None else fnn.BatchNorm(around(1), around(0), gradient=batch_norm)
    return GraphParams(array(weights, dtype), around(0), graph, norm)


def normed_layers(gradient: str):
    """Three layers, with a batch norm at the first and at the output, and x and y; to be made into a graph."""
    random, sizes = np.random.default_rng(0), (4, 5, 4, 3)

    def drawn(centre, *shape):
        return array(centre + 0.5 * random.normal(size=shape), "float64")

    layers = [fnn.Dense(drawn(0, m, n), drawn(0, m), TANH) for n, m in zip(sizes, sizes[1:])]
    for i in (0, 2):
        layers[i] = replace(
            layers[i], norm=fnn.BatchNorm(drawn(1, sizes[i + 1]), drawn(0, sizes[i + 1]), gradient=gradient)
        )
    return tuple(layers), drawn(0, 7, 4), drawn(0, 7, 3)


def data(graph, batch=7, dtype="float64", seed=0, labels=False):
    random, rows = np.random.default_rng(seed), () if batch is None else (batch,)
    x = array(random.normal(size=(*rows, len(graph.inputs))), dtype)
    if labels:
        return x, array(random.integers(0, len(graph.outputs), rows), "int32")
    return x, array(random.uniform(0.05, 0.95, (*rows, len(graph.outputs))), dtype)


def random_mask(graph, parts, batch=7, dtype="float64") -> fnn.Mask | None:
    """parts: of "units", "units of the batch" and "arrows"; some are 0, and the others not 1."""
    n, random = len(graph), np.random.default_rng(0)
    shapes = {"units": (batch, n), "units of the batch": (1, n), "arrows": graph.arrows.shape[:1]}
    drawn = {
        part.split()[0]: array(random.choice([0, 0.5, 1.5], shapes[part], p=[0.1, 0.4, 0.5]), dtype) for part in parts
    }
    return fnn.Mask(**drawn) if parts else None


def cost(params, x, y, *, loss=SQUARED, reduction="mean", masks=None):
    values = loss.value(jnp.atleast_2d(forward(params, x, masks=masks)), y if x.ndim == 2 else y[None])
    return values.mean() if reduction == "mean" else values.sum()


class Passes(NamedTuple):
    """All that both passes say, of the sum over the examples."""

    outputs: jax.Array
    trace: Trace
    gradients: GraphParams
    by_x: jax.Array
    deltas: jax.Array


@jax.jit
def passes(params, x, y, masks=None) -> Passes:
    """By fnn's own functions, of the squared error."""
    return Passes(
        forward(params, x, masks=masks),
        trace(params, x, masks=masks),
        backprop(params, x, y, masks=masks, reduction="sum"),
        input_gradient(params, x, y, masks=masks, reduction="sum"),
        deltas(params, x, y, masks=masks),
    )


@jax.jit
def autodiff(params, x, y, masks=None):
    """Autodiff's gradients of every example, by the parameters and by x, with the examples in front."""

    def of_one(params, x, y, units):
        mask = None if masks is None else fnn.Mask(units=units, arrows=masks.arrows)
        return cost(params, x, y, reduction="sum", masks=mask)

    rows = (x[:, None], y[:, None], None if masks is None or masks.units is None else masks.units[:, None])
    by_params, by_x = jax.vmap(jax.grad(of_one, argnums=(0, 1)), in_axes=(None, 0, 0, 0))(params, *rows)
    return by_params, by_x[:, 0]


@partial(jax.jit, static_argnames=("loss", "reduction"))
def gradients(params, x, y, masks=None, *, loss=SQUARED, reduction="mean"):
    """Those of fnn, and those of autodiff."""
    options = {"loss": loss, "reduction": reduction, "masks": masks}
    return backprop(params, x, y, **options), jax.grad(cost)(params, x, y, **options)


def assert_close(ours, theirs, tolerance=1e-12):
    """Equal structure, shapes and dtypes, and every leaf norm-wise."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert distance(a, b) <= tolerance * np.linalg.norm(np.float64(b))
