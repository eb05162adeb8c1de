"""Initial weights: each initializer is ``f(key, (n_out, n_in), dtype) -> W``.

``fnn.init`` takes any such function. The weights here have rows for receiving neurons, so the initializers of
``jax.nn.initializers`` see n_in and n_out exchanged unless they are told: write
``jax.nn.initializers.he_normal(in_axis=1, out_axis=0)``. (Glorot's are symmetric and need nothing.)

Pass functions that live in a module: a fresh lambda compiles ``init`` anew at every call.
"""

import math

import jax
from jax import Array


def glorot_normal(key: Array, shape: tuple[int, int], dtype) -> Array:
    """N(0, 2/(n_in + n_out)) (Glorot and Bengio 2010)."""
    n_out, n_in = shape
    return math.sqrt(2 / (n_in + n_out)) * jax.random.normal(key, shape, dtype)


def glorot_uniform(key: Array, shape: tuple[int, int], dtype) -> Array:
    """U[−r, r], r = √6/√(n_in + n_out): the normalised initialisation of Glorot and Bengio 2010, equation 16."""
    n_out, n_in = shape
    r = math.sqrt(6 / (n_in + n_out))
    return jax.random.uniform(key, shape, dtype, -r, r)


def he_normal(key: Array, shape: tuple[int, int], dtype) -> Array:
    """N(0, 2/n_in), for ReLU (He, Zhang, Ren, Sun 2015)."""
    return math.sqrt(2 / shape[1]) * jax.random.normal(key, shape, dtype)


def lecun_normal(key: Array, shape: tuple[int, int], dtype) -> Array:
    """N(0, 1/n_in) (LeCun, Bottou, Orr, Müller 1998)."""
    return math.sqrt(1 / shape[1]) * jax.random.normal(key, shape, dtype)


def standard_normal(key: Array, shape: tuple[int, ...], dtype) -> Array:
    """N(0, 1); ``fnn.init`` draws the biases from it too, as Nielsen's network.py does."""
    return jax.random.normal(key, shape, dtype)
