"""Batch normalisation on MNIST, after Ioffe and Szegedy 2015, section 4.1 (E3): ``python -m experiments.batchnorm``.

784-100-100-100-10, sigmoid, small Gaussian initial weights, batch 60, with and without batch norm: test accuracy
against steps, and the 15th, 50th and 85th percentiles of the input to one unit of the last hidden layer. The paper
shows curves but no table; in numbers, for all 100 units: how far the median travels, and how wide the range from 15 to
85 % is. Nothing is shortened: the default is 50,000 steps, as published, with five seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, long_runs, results
from experiments.figures import BLUE, RED
from fnn.data import Dataset
from fnn.train import Progress, fit

SIZES = (784, 100, 100, 100, 10)
PUBLISHED = 50_000  # steps
LOSS = fnn.SoftmaxCrossEntropy()
KINDS = {"without batch norm": None, "with batch norm": "full"}


@dataclass(frozen=True)
class Options:
    """Batch normalisation on MNIST: accuracy against steps, and what one unit receives."""

    steps: int = PUBLISHED
    batch_size: int = 60
    learning_rate: float = 0.1
    seeds: int = 5
    record_every: int = 250
    """Steps between points of the curves."""
    checkpoint: Path | None = None
    """Folder that keeps what has finished: a repeated command resumes, and several processes may share it."""
    report: bool = False
    """Train nothing, and leave the record of what has finished in the folder."""
    out: Path | None = None


def small_normal(key, shape, dtype):
    """N(0, 0.1²): the paper says small random Gaussian values."""
    return 0.1 * jax.random.normal(key, shape, dtype)


def run(options: Options, train: Dataset, test: Dataset, batch_norm: str | None, seed: int, _: Path | None) -> dict:
    """Accuracy and the percentiles of one unit's input, by step, and how those of all units move."""
    params = fnn.init(jax.random.key(seed), SIZES, initializer=small_normal, batch_norm=batch_norm)
    chunk = options.record_every * options.batch_size
    sample = jnp.asarray(train[:2000].floats())
    steps, accuracy, percentiles = [], [], []
    rows = np.random.default_rng(seed)
    drawn = np.concatenate(
        [rows.permutation(len(train)) for _ in range(-(-options.steps * options.batch_size // len(train)))]
    )
    optimizer = fnn.updates.sgd(options.learning_rate)

    def record(progress: Progress) -> None:
        z = np.asarray(fnn.trace(progress.params, sample)[2].z)  # of the last hidden layer
        percentiles.append(np.percentile(z, [15, 50, 85], axis=0))
        accuracy.append(round(progress.history[-1]["validation_accuracy"], 4))

    for start in range(0, options.steps, options.record_every):
        part = drawn[start * options.batch_size :][:chunk]
        data = Dataset(train.x[part], train.y[part])
        key = jax.random.fold_in(jax.random.key(seed), start)
        params = fit(params, data, optimizer, loss=LOSS, epochs=1, batch_size=options.batch_size, key=key,
                        validation=test, callback=record, progress=False).params  # fmt: skip
        steps.append(start + options.record_every)
    first = np.array(percentiles)[:, :, 0].round(3).tolist()
    return {"step": steps, "accuracy": accuracy, "percentiles": first} | movement(np.array(percentiles))


def movement(percentiles: np.ndarray) -> dict[str, float]:
    """Of percentiles (points, 3, units), the mean over units: how far a median travels, and the width beside it."""
    low, middle, high = np.moveaxis(percentiles, 1, 0)
    travel, width = np.ptp(middle, axis=0), (high - low).mean(axis=0)
    return {
        "travel": round(float(travel.mean()), 4),
        "width": round(float(width.mean()), 4),
        "travel, of the width": round(float((travel / width).mean()), 4),
        "widest over narrowest": round(float(((high - low).max(axis=0) / (high - low).min(axis=0)).mean()), 4),
    }


def draw(path: Path, runs: dict[str, list[dict]]) -> None:
    """Accuracy, the mean over the seeds and their range; the percentiles are of the first seed."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    accuracy, *units = figure.subplots(1, 3)
    for (name, seeds), colour, axes in zip(runs.items(), (RED, BLUE), units):
        points, values = seeds[0], 100 * np.array([seed["accuracy"] for seed in seeds])
        accuracy.fill_between(points["step"], values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)
        accuracy.plot(points["step"], values.mean(axis=0), color=colour, label=name)
        low, middle, high = np.transpose(points["percentiles"])
        axes.fill_between(points["step"], low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(points["step"], middle, color=colour)
        axes.set(xlabel="step", ylabel="a sigmoid's input", title=f"{name}: 15, 50, 85 %")
    title = f"Mean of {len(seeds)} seeds, lowest and highest" if len(seeds) > 1 else ""
    accuracy.set(xlabel="step", ylabel="test accuracy, %", ylim=(max(0, accuracy.get_ylim()[0]), 100), title=title)
    accuracy.legend(frameon=False, loc="lower right")
    low = min(axes.get_ylim()[0] for axes in units)
    high = max(axes.get_ylim()[1] for axes in units)
    for axes in (accuracy, *units):
        axes.spines[["top", "right"]].set_visible(False)
    for axes in units:
        axes.set_ylim(low, high)
    figure.savefig(path, dpi=120)


def claims(options: Options, runs: dict[str, list[dict]]) -> list[results.Claim]:
    """Accuracy at the end, the first step with 95 %, and how percentiles move, with batch norm and without."""
    last = both(runs, lambda points: 100 * points["accuracy"][-1])
    network = f"{'-'.join(map(str, SIZES))}, sigmoid, {options.steps:,} steps"
    seeds = long_runs.count(len(next(iter(runs.values()))), options.seeds)
    return [
        results.Claim(
            f"Ioffe and Szegedy, section 4.1: {network}, {seeds}, without and with batch norm",
            f"{last} % test accuracy; 95 % at step {' and '.join(map(reached, runs.values()))}",
            "curves: faster, and higher at the end",
            f"{better(runs)}; published as curves alone; η = {options.learning_rate:g}, theirs is not given",
        ),
        results.Claim(
            "the input of a sigmoid of the last hidden layer, mean over its 100 units: how far its median travels in "
            "training, as a multiple of the mean width from 15 to 85 %, and the largest such width over the smallest; "
            "without and with batch norm",
            f"{both(runs, lambda points: points['travel, of the width'])}; "
            f"{both(runs, lambda points: points['widest over narrowest'])}",
            "curves of one unit: more stable with batch norm",
            "published as curves of one typical unit alone; these two measures are ours",
        ),
    ]


def better(runs: dict[str, list[dict]]) -> str:
    """In how many seeds batch norm is both faster to 95 % and higher at the end."""
    pairs = list(zip(*runs.values()))
    count = sum(
        (first_step(normed) or np.inf) < (first_step(plain) or np.inf)
        and normed["accuracy"][-1] > plain["accuracy"][-1]
        for plain, normed in pairs
    )
    reproduced = "reproduced" if count == len(pairs) else "not reproduced"
    return f"{reproduced}: faster and higher with batch norm in {count} of {len(pairs)} seeds"


def first_step(points: dict) -> int | None:
    """The first recorded step with 95 %."""
    return next((step for step, a in zip(points["step"], points["accuracy"]) if a >= 0.95), None)


def both(runs: dict[str, list[dict]], figure) -> str:
    """The mean and standard deviation over the seeds, without and with batch norm."""
    return " and ".join(results.spread([figure(points) for points in seeds]) for seeds in runs.values())


def reached(seeds: list[dict]) -> str:
    """The mean over the seeds of the first recorded step with 95 %, or how many never had it."""
    every = [first_step(points) for points in seeds]
    first = [step for step in every if step is not None]
    if len(first) < len(every):
        return f"never in {len(every) - len(first)} of {len(every)}"
    return results.spread(first, 0)


def record_of(runs: dict[str, list[dict]]) -> dict:
    """What is kept: all figures of the first seed, and those of the others without the percentiles."""
    once = ("step", "percentiles")
    return {
        name: [first, *({key: value for key, value in seed.items() if key not in once} for seed in others)]
        for name, (first, *others) in runs.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    train, test = digits.load()
    names = {seed: [f"{name}, seed {seed}" for name in KINDS] for seed in range(options.seeds)}
    left = long_runs.finished(
        options.checkpoint,
        {
            name: partial(run, options, train, test, kind, seed)
            for seed in names
            for name, kind in zip(names[seed], KINDS.values())
        },
        settings=results.command("batchnorm", replace(options, seeds=5)),
        report=options.report,
    )
    done = long_runs.complete(left, names)
    runs = {name: [left[names[seed][i]] for seed in done] for i, name in enumerate(KINDS)}
    out = results.folder(options.out, "batchnorm")
    draw(out / "batchnorm.png", runs)
    made = claims(options, runs)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    shortened = f"{options.steps:,} of {PUBLISHED:,} steps" if options.steps < PUBLISHED else ""
    figures, spent = {"runs": record_of(runs)}, long_runs.seconds(left)
    results.save(out, "batchnorm", options, made, figures, shortened=shortened, seconds=spent)


if __name__ == "__main__":
    main()
