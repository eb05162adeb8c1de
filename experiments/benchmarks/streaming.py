"""One epoch of data in a file against the same in memory: ``python -m experiments.benchmarks.streaming``.

``small`` is 784-30-10, sigmoid, ½‖a − y‖², batch 10; ``large`` is 784-512-512-10, ReLU, softmax cross-entropy, batch
128, momentum: those of ``experiments.benchmarks.epochs``, on MNIST. The images lie in a file of bytes, as they do in
MNIST's own, that is memory-mapped; it has been read before, so that the system holds it in its page cache and no disk
is measured. Then the same arrays in memory, streamed as they can be asked to be, and mini-batches from a function that
gathers them itself. The time is of the second epoch of ``fit``, by the records' own clock. All must find the parameters
that the data in memory lead to, bit by bit, or nothing is timed. Rounds interleave all; ratios are of one round, their
median and quartiles are told.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from experiments import results
from experiments.benchmarks import epochs
from experiments.benchmarks.epochs import fit
from experiments.benchmarks.peers import Problem
from experiments.benchmarks.timing import Row
from fnn.data import Batches, Dataset
from fnn.train.loop import shuffle

BASE = "in memory"
GOAL = 0.9  # of the throughput in memory


@dataclass(frozen=True)
class Options:
    """Seconds per epoch of MNIST from a memory-mapped file, as a multiple of those in memory."""

    workloads: tuple[Literal["small", "large"], ...] = ("small", "large")
    examples: int = 60_000
    chunk_bytes: int | None = None
    """Of mini-batches on the device at a time; fnn's own number if not given."""
    rounds: int = 15
    out: Path | None = None


def ways(problem: Problem, folder: Path, chunk_bytes: int | None) -> dict[str, Any]:
    """The data of the problem in every form that ``fit`` takes."""
    data = problem.data
    images = folder / "images.npy"
    np.save(images, data.x)
    mapped = Dataset(np.load(images, mmap_mode="r"), data.y, data.scale, chunk_bytes)
    assert mapped.chunk_bytes is not None

    def make(epoch):
        for rows in shuffle(jax.random.key(0), epoch, len(data), problem.batch):
            yield data.x[rows], data.y[rows]

    return {
        BASE: data,
        "memory-mapped": mapped,
        "in memory, streamed": replace(data, chunk_bytes=mapped.chunk_bytes),
        "batches from a function": Batches(make, data.scale, mapped.chunk_bytes),
    }


def require_equal(problem: Problem, given: dict[str, Any]) -> None:
    """Raise ValueError unless all lead to the same parameters."""
    expected = jax.tree.leaves(fit(problem, given[BASE], epochs=1).params)
    for name, data in given.items():
        if not all(map(np.array_equal, expected, jax.tree.leaves(fit(problem, data, epochs=1).params))):
            raise ValueError(f"{name}: other parameters than with the data in memory, for {problem}")


def seconds(problem: Problem, data) -> float:
    """Of the second epoch."""
    first, second = fit(problem, data, epochs=2).history
    return second["seconds"] - first["seconds"]


def measured(problem: Problem, options: Options) -> dict:
    """Seconds of every form of the data, and as a multiple of those in memory: median and quartiles of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        given = ways(problem, Path(folder), options.chunk_bytes)
        require_equal(problem, given)
        taken = {name: np.empty(options.rounds) for name in given}
        for number in range(options.rounds):
            for name, data in given.items():
                taken[name][number] = seconds(problem, data)
    return {
        "workload": str(problem),
        "chunk bytes": given["memory-mapped"].chunk_bytes,
        "ways": {
            name: {
                "s": round(float(np.median(each)), 4),
                f"/ {BASE}": np.percentile(each / taken[BASE], (50, 25, 75)).round(3).tolist(),
            }
            for name, each in taken.items()
        },
    }


def rows(figures: dict) -> list[Row]:
    """A row for every workload and form of the data: its time as a multiple of the one in memory."""
    made = []
    for figure in figures["streaming"].values():
        base = f"{1e3 * figure['ways'][BASE]['s']:.3g} ms"
        for name, found in figure["ways"].items():
            if name != BASE:
                median, lower, upper = found[f"/ {BASE}"]
                workload = f"one epoch of MNIST, {figure['workload']}, {name}"
                made.append(Row(workload, "time", BASE, median, (lower, upper), f"{1e3 * found['s']:.3g} ms", base))
    return made


def claims(figures: dict) -> list[results.Claim]:
    shares = [
        f"{figure['workload'].split(',')[0]} {1 / figure['ways']['memory-mapped'][f'/ {BASE}'][0]:.0%}"
        for figure in figures["streaming"].values()
    ]
    claim = f"`fit` on a memory-mapped file: throughput as a share of that in memory (to be at least {GOAL:.0%})"
    return [results.Claim(claim, ", ".join(shares))]


def tell(figure: dict) -> None:
    print(f"\n{figure['workload']}, chunks of {figure['chunk bytes']:,} bytes\n{'':28}{'ms':>9}{f'/ {BASE}':>28}")
    for name, found in figure["ways"].items():
        ratio = "{:.3f} ({:.3f}–{:.3f})".format(*found[f"/ {BASE}"])
        print(f"{name:28}{1e3 * found['s']:9.1f}{ratio:>28}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures: dict = {"streaming": {}, "cores": os.cpu_count()}
    chosen = epochs.Options(workloads=options.workloads, examples=options.examples)
    for name, problem in epochs.problems(chosen).items():
        figures["streaming"][name] = measured(problem, options)
        tell(figures["streaming"][name])
    out = results.folder(options.out, "benchmarks.streaming")
    results.save(out, "benchmarks.streaming", options, claims(figures), figures)


if __name__ == "__main__":
    main()
