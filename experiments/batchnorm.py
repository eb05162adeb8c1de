"""Batch normalisation on MNIST, after Ioffe and Szegedy 2015, section 4.1 (E3): ``python -m experiments.batchnorm``.

784-100-100-100-10, sigmoid, small Gaussian initial weights, batch 60, with and without batch norm: test accuracy
against steps, and the 15th, 50th and 85th percentiles of the input to one unit of the last hidden layer. The paper
shows curves but no table. Nothing is shortened: 50,000 steps, as published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, results
from experiments.figures import BLUE, RED
from fnn.data import Dataset
from fnn.train import Progress, fit

SIZES = (784, 100, 100, 100, 10)
PUBLISHED = 50_000  # steps
LOSS = fnn.SoftmaxCrossEntropy()


@dataclass(frozen=True)
class Options:
    """Batch normalisation on MNIST: accuracy against steps, and what one unit receives."""

    steps: int = PUBLISHED
    batch_size: int = 60
    learning_rate: float = 0.1
    seed: int = 0
    record_every: int = 250
    """Steps between points of the curves."""
    out: Path | None = None


def small_normal(key, shape, dtype):
    """N(0, 0.1²): the paper says small random Gaussian values."""
    return 0.1 * jax.random.normal(key, shape, dtype)


def run(options: Options, train: Dataset, test: Dataset, batch_norm: str | None) -> dict:
    """Accuracy and the percentiles of one unit's input, by step."""
    params = fnn.init(jax.random.key(options.seed), SIZES, initializer=small_normal, batch_norm=batch_norm)
    chunk = options.record_every * options.batch_size
    sample = jnp.asarray(train[:2000].floats())
    points: dict = {"step": [], "accuracy": [], "percentiles": []}
    rows = np.random.default_rng(options.seed)
    drawn = np.concatenate(
        [rows.permutation(len(train)) for _ in range(-(-options.steps * options.batch_size // len(train)))]
    )
    optimizer = fnn.updates.sgd(options.learning_rate)

    def record(progress: Progress) -> None:
        z = np.asarray(fnn.trace(progress.params, sample)[2].z[:, 0])  # of one unit in the last hidden layer
        points["percentiles"].append(np.percentile(z, [15, 50, 85]).round(3).tolist())
        points["accuracy"].append(round(progress.history[-1]["validation_accuracy"], 4))

    for start in range(0, options.steps, options.record_every):
        part = drawn[start * options.batch_size :][:chunk]
        data = Dataset(train.x[part], train.y[part])
        key = jax.random.fold_in(jax.random.key(options.seed), start)
        params = fit(params, data, optimizer, loss=LOSS, epochs=1, batch_size=options.batch_size, key=key,
                        validation=test, callback=record, progress=False).params  # fmt: skip
        points["step"].append(start + options.record_every)
    return points


def draw(path: Path, runs: dict[str, dict]) -> None:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    accuracy, *units = figure.subplots(1, 3)
    for (name, points), colour, axes in zip(runs.items(), (RED, BLUE), units):
        accuracy.plot(points["step"], np.multiply(points["accuracy"], 100), color=colour, label=name)
        low, middle, high = np.transpose(points["percentiles"])
        axes.fill_between(points["step"], low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(points["step"], middle, color=colour)
        axes.set(xlabel="step", ylabel="a sigmoid's input", title=f"{name}: 15, 50, 85 %")
    accuracy.set(xlabel="step", ylabel="test accuracy, %", ylim=(max(0, accuracy.get_ylim()[0]), 100))
    accuracy.legend(frameon=False, loc="lower right")
    low = min(axes.get_ylim()[0] for axes in units)
    high = max(axes.get_ylim()[1] for axes in units)
    for axes in (accuracy, *units):
        axes.spines[["top", "right"]].set_visible(False)
    for axes in units:
        axes.set_ylim(low, high)
    figure.savefig(path, dpi=120)


def claim(options: Options, runs: dict[str, dict]) -> results.Claim:
    """Accuracy at the end, and the first step at which it was 95 %, without and with batch norm."""
    last = " and ".join(f"{100 * points['accuracy'][-1]:.2f}" for points in runs.values())
    first = [next((s for s, a in zip(p["step"], p["accuracy"]) if a >= 0.95), None) for p in runs.values()]
    when = " and ".join("none" if step is None else f"{step:,}" for step in first)
    sizes = "-".join(map(str, SIZES))
    return results.Claim(
        f"Ioffe and Szegedy, section 4.1: {sizes}, sigmoid, {options.steps:,} steps, without and with batch norm",
        f"{last} % test accuracy; 95 % at step {when}",
        "curves",
        "published as curves alone, and compared by eye; one seed",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    train, test = digits.load()
    runs = {}
    for name, batch_norm in (("without batch norm", None), ("with batch norm", "full")):
        runs[name] = run(options, train, test, batch_norm)
        print(f"{name}: {100 * runs[name]['accuracy'][-1]:.2f} % after {options.steps:,} steps", flush=True)
    out = results.folder(options.out, "batchnorm")
    draw(out / "batchnorm.png", runs)
    made = claim(options, runs)
    print(f"{made.claim}: {made.here}")
    shortened = f"{options.steps:,} of {PUBLISHED:,} steps" if options.steps < PUBLISHED else ""
    results.save(out, "batchnorm", options, [made], {"runs": runs}, shortened=shortened)


if __name__ == "__main__":
    main()
