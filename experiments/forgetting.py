"""What a network forgets (L17): ``python -m experiments.forgetting``.

Lopez Davila: back-propagation "does not learn continuously", and brains "do not forget information when we learn
something new". 784-100-10, ReLU, momentum, first on the digits 0–4, then

1. on 5–9 alone: the first five are forgotten within an epoch;
2. on 5–9 with a tenth of the old images among them;
3. on all ten: nothing is forgotten.

The gradient is computed in the same way in all three, so back-propagation is not what forgets: a loss without the old
examples has its minimum elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, results
from experiments.figures import BLUE, GREY, RED
from fnn.data import Dataset
from fnn.train import Progress, fit, predict

LOSS = fnn.SoftmaxCrossEntropy()
COLOURS = {"5–9 alone": RED, "with a tenth of the old": GREY, "all ten": BLUE}


@dataclass(frozen=True)
class Options:
    """Digits 0–4, then 5–9, and how many of the first are still recognised."""

    hidden: int = 100
    epochs: int = 3
    """Epochs of each half."""
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_size: int = 100
    learning_rate: float = 0.05
    examples: int = 60_000
    """Number of training images, from the first."""
    data: Path | None = None
    """Folder with four IDX files, such as Fashion-MNIST; MNIST by default."""
    out: Path | None = None


def chosen(data: Dataset, rows: np.ndarray) -> Dataset:
    """These examples of a data set."""
    return Dataset(data.x[rows], data.y[rows], data.scale)


def later(train: Dataset, seed: int) -> dict[str, Dataset]:
    """What is trained on after the digits 0–4, by name."""
    old, new = np.flatnonzero(train.y < 5), np.flatnonzero(train.y >= 5)
    few = np.random.default_rng(seed).choice(old, len(old) // 10, replace=False)
    return {
        "5–9 alone": chosen(train, new),
        "with a tenth of the old": chosen(train, np.sort(np.concatenate([new, few]))),
        "all ten": train,
    }


def run(options: Options, train: Dataset, test: Dataset, seed: int) -> dict:
    """For every way the test accuracy on 0–4 and on 5–9, before and after each epoch of the second half."""
    halves = chosen(test, np.flatnonzero(test.y < 5)), chosen(test, np.flatnonzero(test.y >= 5))
    rule = fnn.updates.momentum(options.learning_rate)
    sizes = (784, options.hidden, 10)
    params = fnn.init(jax.random.key(seed), sizes, activation=fnn.ReLU(), initializer=fnn.initializers.he_normal)

    def accuracies(params) -> list[float]:
        return [round(float(np.mean(predict(params, half).argmax(axis=1) == half.y)), 4) for half in halves]

    def train_on(params, data, key, curve: list):
        def record(progress: Progress) -> None:
            curve.append(accuracies(progress.params))

        return fit(params, data, rule, loss=LOSS, epochs=options.epochs, batch_size=options.batch_size, key=key,
                   callback=record, progress=False).params  # fmt: skip

    old = chosen(train, np.flatnonzero(train.y < 5))
    first, curves = train_on(params, old, jax.random.key(seed), []), {}
    for number, (name, data) in enumerate(later(train, seed).items()):
        curves[name] = [accuracies(first)]
        train_on(first, data, jax.random.fold_in(jax.random.key(seed), number), curves[name])
    return curves


def claims(options: Options, runs: dict) -> list[results.Claim]:
    """The accuracy on the first five digits before and after, over the seeds."""

    def percent(name: str, at: int) -> str:
        return results.spread([run[name][at][0] for run in runs.values()], 1, 100)

    classes = "the digits 0–4" if options.data is None else f"the classes 0–4 of {digits.name(options.data)}"
    afterwards = "; ".join(f"{name} {percent(name, -1)}" for name in COLOURS)
    return [
        results.Claim(
            f"784-{options.hidden}-10, {options.epochs} epochs on {classes}: accuracy on them, then after "
            f"{options.epochs} epochs on other data, {len(runs)} seeds",
            f"{percent('5–9 alone', 0)} %; {afterwards} %",
        )
    ]


def draw(path: Path, runs: dict, what: str) -> None:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for half, (axes, title) in enumerate(zip(panels, (f"the {what} 0–4, learnt first", f"the {what} 5–9"))):
        for name, colour in COLOURS.items():
            for number, run in enumerate(runs.values()):
                share = 100 * np.array(run[name])[:, half]
                axes.plot(range(len(share)), share, ".-", color=colour, label=name if number == 0 else None)
        axes.set(xlabel="epochs after the first half", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(frameon=False, loc="center right", title="then trained on")
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    train, test = digits.load(options.data or digits.FOLDER)
    runs = {f"seed {seed}": run(options, train[: options.examples], test, seed) for seed in options.seeds}
    made = claims(options, runs)
    print(f"{made[0].claim}: {made[0].here}")
    out = results.folder(options.out, "forgetting")
    draw(out / "forgetting.png", runs, "digits" if options.data is None else "classes")
    results.save(out, "forgetting", options, made, runs)


if __name__ == "__main__":
    main()
