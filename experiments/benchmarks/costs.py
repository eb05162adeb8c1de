"""What parts of training cost beside training without them: ``python -m experiments.benchmarks.costs``.

The compiled loop of ``fit`` on 784-512-512-10, ReLU, softmax cross-entropy, batch 128, momentum, with dropout,
DropConnect and batch norm, each beside the same loop without it, interleaved, medians of the rounds' ratios. And what a
``Run`` keeps: epochs of ten mini-batches of 784-30-10, a few milliseconds each, by ``fit`` and with a record in a file,
a callback, the best network and a checkpoint at every epoch, beside the compiled loop with its shuffle alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, interleaved, timed
from fnn.data import Dataset
from fnn.functions import Objective
from fnn.optimizers import Optimizer
from fnn.train import fit, loop

LARGE, BATCH = (784, 512, 512, 10), 128
SMALL, STEPS = (784, 30, 10), 10
LOSS, RULE = fnn.SoftmaxCrossEntropy(), fnn.updates.momentum(0.05, 0.9)
PLAIN, ALONE = "without", "the compiled loop alone"
PARTS: dict[str, tuple[dict, Any]] = {  # the network's options, and the dropout
    PLAIN: ({}, None),
    "dropout, a mask for each example": ({}, fnn.Dropout(0.5)),
    "dropout, a mask for each mini-batch": ({}, fnn.Dropout(0.5, per_example=False)),
    "DropConnect": ({}, fnn.DropConnect(0.5)),
    "batch norm, full gradient": ({"batch_norm": "full"}, None),
    "batch norm, fixed gradient": ({"batch_norm": "fixed"}, None),
}


@dataclass(frozen=True)
class Options:
    """Time of steps and epochs with a part, as a multiple of the time without it."""

    steps: int = 20
    """Steps per call of the loop."""
    epochs: int = 21
    """Epochs per run; all but the first are timed."""
    rounds: int = 15
    out: Path | None = None


def data(examples: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (examples, SMALL[0]), np.uint8), random.integers(0, 10, examples, np.int32)


def loop_of(sizes: Sequence[int], order: np.ndarray, dropout=None, **options) -> Callable[[np.ndarray], Any]:
    """The compiled loop of ``fit``, as a function of the rows of every mini-batch."""
    params = fnn.init(jax.random.key(0), sizes, activation=fnn.ReLU(), **options)
    x, y = map(jnp.asarray, data(order.size))
    rule = Optimizer(RULE)
    begun = loop.start(rule, params)
    take = partial(loop.take_steps, objective=Objective(LOSS, "mean"), scale=1 / 255)
    return lambda order: take(begun, (x, y, order), 0, dropout, jax.random.key(1), rule)


def parts(options: Options) -> dict[str, dict]:
    order = np.arange(options.steps * BATCH, dtype=np.int32).reshape(-1, BATCH)
    ways: dict[str, Callable] = {
        name: partial(loop_of(LARGE, order, dropout, **of_network), order)
        for name, (of_network, dropout) in PARTS.items()
    }
    return compared(interleaved(ways, options.rounds), PLAIN, options.steps)


def bookkeeping(options: Options) -> dict[str, dict]:
    """Of an epoch by ``fit``, with what a run may keep, beside the loop."""
    given = Dataset(*data(STEPS * BATCH))
    params = fnn.init(jax.random.key(0), SMALL, activation=fnn.ReLU())
    alone = loop_of(SMALL, loop.shuffle(jax.random.key(0), 1, len(given), BATCH))

    def by_loop(folder: Path) -> float:
        taken = []
        for epoch in range(1, options.epochs + 1):
            started = time.perf_counter()
            jax.block_until_ready(alone(loop.shuffle(jax.random.key(0), epoch, len(given), BATCH)))
            taken.append(time.perf_counter() - started)
        return float(np.median(taken[1:]))

    def by_fit(folder: Path, **more) -> float:
        run = fit(
            params, given, RULE, loss=LOSS, epochs=options.epochs, batch_size=BATCH, key=jax.random.key(0),
            progress=False, **{name: make(folder) for name, make in more.items()},
        )  # fmt: skip
        return float(np.median(np.diff([record["seconds"] for record in run.history])))

    ways: dict[str, Callable[[Path], float]] = {
        ALONE: by_loop,
        "fit": by_fit,
        "fit, with a callback": partial(by_fit, callback=lambda folder: lambda progress: None),
        "fit, with a record in a file": partial(by_fit, log=lambda folder: folder / "log.jsonl"),
        "fit, validated, the best kept": partial(
            by_fit, keep=lambda folder: "best", validation=lambda folder: given[: 2 * BATCH]
        ),
        "fit, with a checkpoint at every epoch": partial(by_fit, checkpoint=lambda folder: folder / "run"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            with TemporaryDirectory() as folder:
                taken = way(Path(folder))
            if number:  # the first one compiles
                seconds[name].append(taken)
    return compared({name: np.array(taken) for name, taken in seconds.items()}, ALONE, 1)


def compared(seconds: dict[str, np.ndarray], base: str, count: int) -> dict[str, dict]:
    """Milliseconds of one of ``count``, and the ratio to the base's with quartiles."""
    return {
        name: {
            "ms": round(1e3 * float(np.median(taken)) / count, 4),
            "ratio": np.percentile(taken / seconds[base], (50, 25, 75)).round(3).tolist(),
        }
        for name, taken in seconds.items()
    }


def rows(figures: dict) -> list[Row]:
    return [
        timed(f"{what}: {name}", base, found["ratio"], found["ms"], figures[key][base]["ms"])
        for key, what, base in (
            ("parts", "a step of 784-512-512-10, batch 128", PLAIN),
            ("bookkeeping", "an epoch of 10 steps, 784-30-10, batch 128", ALONE),
        )
        for name, found in figures[key].items() if name != base
    ]  # fmt: skip


def claims(figures: dict) -> list[results.Claim]:
    def told(key: str, base: str) -> str:
        return ", ".join(f"{name} {found['ratio'][0]:.2f}" for name, found in figures[key].items() if name != base)

    alone = figures["bookkeeping"][ALONE]["ms"]
    kept = ", ".join(
        f"{name} {found['ms'] - alone:.2f}" for name, found in figures["bookkeeping"].items() if name != ALONE
    )
    return [
        results.Claim("a step of 784-512-512-10, batch 128, as a multiple of one without", told("parts", PLAIN)),
        results.Claim("milliseconds of an epoch beside those of its compiled loop", kept),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures = {"parts": parts(options), "bookkeeping": bookkeeping(options)}
    for of in figures.values():
        for name, found in of.items():
            print(f"{name:44}{found['ms']:10.3f} ms   {{:.3f}} ({{:.3f}}–{{:.3f}})".format(*found["ratio"]), flush=True)
    out = results.folder(options.out, "benchmarks.costs")
    results.save(out, "benchmarks.costs", options, claims(figures), figures)


if __name__ == "__main__":
    main()
