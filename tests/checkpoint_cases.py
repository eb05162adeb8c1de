"""Networks to be exported, and how what is loaded is compared with them."""

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from problems import problem


def network(activation=fnn.Sigmoid(beta=2.5), dtype="float32"):
    return problem(activation, fnn.SquaredError(), 2, dtype=dtype).params


def normed(gradient="full", dtype="float32"):
    """A network with a batch norm in which no two numbers are equal."""
    numbers = np.random.default_rng(0).permutation(47) / 16
    W, b, gamma, beta, V, c = (jnp.asarray(part, dtype) for part in np.split(numbers, [20, 24, 28, 32, 44]))
    norm = fnn.BatchNorm(gamma, beta, gradient=gradient)
    return (
        fnn.Dense(W.reshape(4, 5), b, fnn.Sigmoid(beta=2.5), norm),
        fnn.Dense(V.reshape(3, 4), c, fnn.Identity()),
    )


def graph(names=("x", "h", 7, "y"), dtype="float32", batch_norm="fixed"):
    """A graph with two activations and an output that sends an arrow, in which no two numbers are equal."""
    x, h, k, y = names
    arrows = [(x, h), (h, k), (x, k), (k, y)]
    structure = fnn.graph.Graph(arrows, {h: fnn.Sigmoid(2.5), k: fnn.Tanh(), y: fnn.Sigmoid(2.5)}, [x], [k, y], [h, y])
    params = structure.init(jax.random.key(0), dtype=dtype, batch_norm=batch_norm)
    leaves, form = jax.tree.flatten(params)
    return jax.tree.unflatten(
        form, [leaf + jnp.arange(leaf.size, dtype=dtype) / 16 + i for i, leaf in enumerate(leaves)]
    )


def assert_same(loaded, params):
    """The same classes, shapes, dtypes and bits, in a structure that a compiled function finds again."""
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(params)):
        assert isinstance(ours, jax.Array)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
