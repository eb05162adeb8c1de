"""The cost of a step of layer-wise implicit SGD beside backprop + SGD: ``python -m experiments.benchmarks.implicit``.

784-100-10, batch 100, softmax cross-entropy; one compiled step each, interleaved, medians of the rounds' ratios.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments.benchmarks.timing import interleaved

SIZES, BATCH, RATE, LOSS = (784, 100, 10), 100, 0.1, fnn.SoftmaxCrossEntropy()
ACTIVATIONS = fnn.ReLU(), fnn.Tanh(), fnn.Sigmoid()


@dataclass(frozen=True)
class Options:
    """Time of one implicit step as a multiple of one explicit step."""

    rounds: int = 25


@jax.jit
def explicit(params, x, y):
    gradients = fnn.backprop(params, x, y, loss=LOSS)
    return jax.tree.map(lambda p, g: p - RATE * g, params, gradients)


def main(options: Options) -> None:
    print("| activation | explicit, ms | linear last layer, ratio (quartiles) | softmax step, ratio (quartiles) |")
    print("|---|---|---|---|")
    for activation in ACTIVATIONS:
        params = fnn.init(jax.random.key(0), SIZES, activation=activation)
        random = np.random.default_rng(0)
        x = jnp.asarray(random.random((BATCH, SIZES[0])), jnp.float32)
        y = jnp.asarray(random.integers(0, SIZES[-1], BATCH), jnp.int32)
        ways: dict[str, Callable] = {"explicit": lambda p=params, x=x, y=y: explicit(p, x, y)}
        for output in ("linear", "proximal"):
            step = jax.jit(lambda p, x, y, o=output: fnn.implicit.layerwise(p, x, y, RATE, loss=LOSS, output=o))
            ways[output] = lambda step=step, p=params, x=x, y=y: step(p, x, y)
        seconds = interleaved(ways, options.rounds)
        ratios = {way: np.percentile(seconds[way] / seconds["explicit"], (50, 25, 75)) for way in ways}
        cells = ("{:.2f} ({:.2f}–{:.2f})".format(*ratios[way]) for way in ("linear", "proximal"))
        print(f"| {activation} | {1e3 * np.median(seconds['explicit']):.3f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
