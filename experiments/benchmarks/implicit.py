"""The cost of a step of layer-wise implicit SGD beside backprop + SGD: ``python -m experiments.benchmarks.implicit``.

784-100-10, batch 100, softmax cross-entropy; one compiled step each, interleaved, medians of the rounds' ratios.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, interleaved, timed

SIZES, BATCH, RATE, LOSS = (784, 100, 10), 100, 0.1, fnn.SoftmaxCrossEntropy()
ACTIVATIONS = fnn.ReLU(), fnn.Tanh(), fnn.Sigmoid()
OUTPUTS = ("linear", "proximal")  # how the last layer steps


@dataclass(frozen=True)
class Options:
    """Time of one implicit step as a multiple of one explicit step."""

    rounds: int = 25
    out: Path | None = None


@jax.jit
def explicit(params, x, y):
    gradients = fnn.backprop(params, x, y, loss=LOSS)
    return jax.tree.map(lambda p, g: p - RATE * g, params, gradients)


def main(arguments: Sequence[str] | None = None) -> None:
    options, rows = tyro.cli(Options, args=arguments), {}
    print("| activation | explicit, ms | linear last layer, ratio (quartiles) | softmax step, ratio (quartiles) |")
    print("|---|---|---|---|")
    for activation in ACTIVATIONS:
        params = fnn.init(jax.random.key(0), SIZES, activation=activation)
        random = np.random.default_rng(0)
        x = jnp.asarray(random.random((BATCH, SIZES[0])), jnp.float32)
        y = jnp.asarray(random.integers(0, SIZES[-1], BATCH), jnp.int32)
        ways: dict[str, Callable] = {"explicit": lambda p=params, x=x, y=y: explicit(p, x, y)}
        for output in OUTPUTS:
            step = jax.jit(lambda p, x, y, o=output: fnn.implicit.layerwise(p, x, y, RATE, loss=LOSS, output=o))
            ways[output] = lambda step=step, p=params, x=x, y=y: step(p, x, y)
        seconds = interleaved(ways, options.rounds)
        ratios = {way: np.percentile(seconds[way] / seconds["explicit"], (50, 25, 75)) for way in ways}
        cells = ("{:.2f} ({:.2f}–{:.2f})".format(*ratios[way]) for way in OUTPUTS)
        milliseconds = 1e3 * float(np.median(seconds["explicit"]))
        print(f"| {activation} | {milliseconds:.3f} | {' | '.join(cells)} |", flush=True)
        rows[str(activation)] = {"explicit, ms": round(milliseconds, 4)} | {
            f"{way}, ratio": ratios[way].round(3).tolist() for way in OUTPUTS
        }
    out = results.folder(options.out, "benchmarks.implicit")
    results.save(out, "benchmarks.implicit", options, [claim(rows)], rows)


def rows(figures: dict) -> list[Row]:
    made = []
    for activation, row in figures.items():
        explicit = row["explicit, ms"]
        for way in OUTPUTS:
            what = f"layer-wise implicit step, {activation.split('(')[0]}, {way} last layer"
            ratio = row[f"{way}, ratio"]
            made.append(timed(what, "explicit step", ratio, explicit * ratio[0], explicit))
    return made


def claim(rows: dict[str, dict]) -> results.Claim:
    """The medians, activation by activation."""
    medians = (" and ".join(f"{row[f'{way}, ratio'][0]:.2f}" for way in OUTPUTS) for row in rows.values())
    return results.Claim(
        f"a layer-wise implicit step of {'-'.join(map(str, SIZES))}, batch {BATCH}, as a multiple of an explicit one: "
        "with a linear last layer, and with the softmax step",
        "; ".join(f"{name.split('(')[0]} {each}" for name, each in zip(rows, medians)),
    )


if __name__ == "__main__":
    main()
