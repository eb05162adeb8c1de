"""Inside a network while it learns the digits: the size of its δ's and its saturation, by layer.

For runs of seconds, such as the notebooks'; ``experiments.glorot`` follows the published setting.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from fnn.data import Dataset
from fnn.train import Progress, fit

LOSS = fnn.SoftmaxCrossEntropy()
FLAT = 0.1  # of the slope at z = 0: a neuron with less passes hardly any δ on


class Look(NamedTuple):
    """Root mean square of δ^1 … δ^L, and the share of flat neurons (|σ'(z)| < σ'(0)/10) of each hidden layer."""

    deltas: list[float]
    flat: list[float]


def look(params: fnn.layers.Params, x: jax.Array, y: jax.Array) -> Look:
    """What these examples see. params: plain layers; x: (B, n_0); y: labels (B,)."""
    deltas = [float(jnp.sqrt(jnp.mean(delta**2))) for delta in fnn.deltas(params, x, y, loss=LOSS)]
    flat = [share_flat(layer.activation, t.z, t.a) for layer, t in zip(params[:-1], fnn.trace(params, x))]
    return Look(deltas, flat)


def share_flat(activation: fnn.Activation, z: jax.Array, a: jax.Array) -> float:
    """The share of entries where |σ'(z)| is less than a tenth of σ' at 0; of a ReLU, where it is 0."""
    zero = jnp.zeros(1)
    slope = 1.0 if isinstance(activation, fnn.ReLU) else float(activation.derivative(zero, activation.value(zero))[0])
    return float(jnp.mean(jnp.abs(activation.derivative(z, a)) < FLAT * slope))


def watch(
    params: fnn.layers.Params, data: Dataset, test: Dataset, *, learning_rate: float, epochs: int, examples: int = 500
) -> tuple[fnn.layers.Params, list[dict], list[Look]]:
    """Train by momentum 0.9 in batches of 50: the network, ``fit``'s records, and looks before and after each epoch.

    data, test: digits; examples: the first of ``test`` that the looks are taken on.
    """
    x, y = jnp.asarray(test[:examples].floats()), jnp.asarray(np.asarray(test.y[:examples]))
    looks = [look(params, x, y)]

    def after_epoch(progress: Progress) -> None:
        looks.append(look(progress.params, x, y))

    run = fit(
        params, data, fnn.updates.momentum(learning_rate, 0.9), loss=LOSS, epochs=epochs, batch_size=50,
        key=jax.random.key(0), validation=test, callback=after_epoch, progress=False,
    )  # fmt: skip
    return run.params, run.history, looks
