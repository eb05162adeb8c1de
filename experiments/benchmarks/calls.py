"""Single gradients of a small network, called from Python: ``python -m experiments.benchmarks.calls``.

20-30-10, sigmoid, half of the mean squared error, batch 10: a program so short that what a call costs in Python is most
of its time. ``fnn.backprop`` as it stands checks its arguments at every call; under ``jax.jit`` they are checked once.
The peer is ``jax.jit(jax.grad)`` of the same network as plain (W, b) pairs. All interleaved, medians of the rounds'
ratios.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, interleaved, timed

SIZES, BATCH = (20, 30, 10), 10
EAGER, JITTED, GRAD = "fnn.backprop", "jax.jit(fnn.backprop)", "jax.jit(jax.grad) of (W, b) pairs"


@dataclass(frozen=True)
class Options:
    """Time of one call of a small network's gradient."""

    rounds: int = 501
    """Many and short, so that a machine with other work on it disturbs few of them."""
    out: Path | None = None


def cost(pairs, x, y):
    """The mean of ½‖a − y‖² as one writes it without fnn."""
    (V, b), (W, c) = pairs
    a = jax.nn.sigmoid(x @ V.T + b) @ W.T + c
    return 0.5 * jnp.mean(jnp.sum((a - y) ** 2, axis=1))


def ways() -> dict[str, Callable]:
    """Each way to the gradient as a call without arguments."""
    params = fnn.init(jax.random.key(0), SIZES)
    x, y = (jax.random.normal(jax.random.key(i), (BATCH, n)) for i, n in ((1, SIZES[0]), (2, SIZES[-1])))
    pairs = [(layer.W, layer.b) for layer in params]
    return {
        EAGER: partial(fnn.backprop, params, x, y),
        JITTED: partial(jax.jit(fnn.backprop), params, x, y),
        GRAD: partial(jax.jit(jax.grad(cost)), pairs, x, y),
    }


def measured(rounds: int) -> dict[str, dict]:
    """Microseconds of every way, and its time as a multiple of the peer's, [median, lower, upper quartile]."""
    given = ways()
    with jax.default_matmul_precision("highest"):  # TF32 would not be as close
        ours, theirs = (jax.tree.leaves(given[way]()) for way in (EAGER, GRAD))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    seconds = interleaved(given, rounds, least=0.002)
    return {
        way: {
            "µs": round(1e6 * float(np.median(taken)), 1),
            "/ its peer": np.percentile(taken / seconds[GRAD], (50, 25, 75)).round(3).tolist(),
        }
        for way, taken in seconds.items()
    }


def claims(figures: dict) -> list[results.Claim]:
    ratios = ", ".join(f"{way} {figures['calls'][way]['/ its peer'][0]:.2f}" for way in (EAGER, JITTED))
    return [
        results.Claim("a gradient of 20-30-10 called from Python, as a multiple of jax.jit(jax.grad)'s time", ratios)
    ]


def rows(figures: dict) -> list[Row]:
    found = figures["calls"]
    workload = "one gradient of 20-30-10 called from Python, batch 10"
    return [
        timed(f"{workload}, {way}", GRAD, found[way]["/ its peer"], found[way]["µs"] / 1e3, found[GRAD]["µs"] / 1e3)
        for way in (EAGER, JITTED)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures = {"calls": measured(options.rounds)}
    for way, row in figures["calls"].items():
        print("{:36}{:8.1f} µs   {:.2f} ({:.2f}–{:.2f})".format(way, row["µs"], *row["/ its peer"]), flush=True)
    out = results.folder(options.out, "benchmarks.calls")
    results.save(out, "benchmarks.calls", options, claims(figures), figures)


if __name__ == "__main__":
    main()
