"""The same network, layer by layer and as a stack, and the comparison of what is computed of both."""

import jax
import numpy as np

import fnn
from problems import distance
from random_network import network

SIZES = (5, 4, 4, 4, 4, 3)  # layers 2 to 4 are alike
SHORT = (5, 4, 4, 4, 3)


def pair(dtype="float64", sizes=SIZES, **options):
    """The same network, layer by layer and stacked."""
    layers = network(sizes, dtype=dtype, **options)
    return layers, fnn.stack(layers)


def data(params, rows=(7,), seed=1):
    random, dtype = np.random.default_rng(seed), params[0].W.dtype
    x = random.normal(size=(*rows, params[0].W.shape[1]))
    y = random.uniform(0.05, 0.95, (*rows, params[-1].W.shape[0]))
    return x.astype(dtype), y.astype(dtype)


def by_layer(params, entries):
    """Results for a stack as they are layer by layer; in NumPy, where to take a layer out compiles nothing."""
    return fnn.unstack(params, jax.tree.map(np.asarray, entries))


def assert_equal(ours, theirs, tolerance=1e-12):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    for value, right in zip(ours, theirs, strict=True):
        assert (value.shape, value.dtype) == (right.shape, right.dtype)
        assert distance(value, right) <= tolerance * (1 + np.linalg.norm(np.asarray(right)))
