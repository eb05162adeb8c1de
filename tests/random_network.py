"""Networks drawn by NumPy, which compiles nothing; ``fnn.init`` compiles a program for every shape and activation."""

import numpy as np

import fnn


def network(sizes, *, activation=fnn.Tanh(), output=fnn.Identity(), norm=None, dtype="float32"):
    """Layers with random biases; with batch norms that are not the identity where ``norm`` is "full" or "fixed"."""
    random, layers = np.random.default_rng(0), []

    def draw(*shape, about=0.0, spread=0.3):
        return (about + spread * random.normal(size=shape)).astype(dtype)

    for n_in, n_out in zip(sizes, sizes[1:]):
        W, b = draw(n_out, n_in, spread=1.5 / np.sqrt(n_in)), draw(n_out)
        last = len(layers) == len(sizes) - 2
        of_layer = None if last or norm is None else fnn.BatchNorm(draw(n_out, about=1.0), draw(n_out), gradient=norm)
        layers.append(fnn.Dense(W, b, output if last else activation, of_layer))
    return tuple(layers)
