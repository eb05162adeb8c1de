"""Networks drawn by NumPy: ``fnn.init`` compiles a program for all sizes, activations and dtypes it has not had."""

import jax.numpy as jnp
import numpy as np

import fnn


def drawn(sizes=(5, 8, 3), activation=fnn.Tanh(), norm=False, dtype="float32", seed=0):
    """Layers with Glorot's standard deviation, the last one linear; norm: a batch norm in every hidden layer."""
    random, layers = np.random.default_rng(seed), []
    for n_in, n_out in zip(sizes, sizes[1:]):
        W = jnp.asarray(random.normal(size=(n_out, n_in)) * np.sqrt(2 / (n_in + n_out)), dtype)
        zeros, ones = jnp.asarray(np.zeros(n_out), dtype), jnp.asarray(np.ones(n_out), dtype)
        layers.append(fnn.Dense(W, zeros, activation, fnn.BatchNorm(ones, zeros, gradient="full") if norm else None))
    return *layers[:-1], fnn.Dense(layers[-1].W, layers[-1].b, fnn.Identity())
