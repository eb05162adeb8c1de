"""Finding wrong labels by gradient norm: ``python -m experiments.mislabelled``.

5 % of MNIST's training labels are replaced, each by a random other class, and a network is trained on all of them. The
training examples are then ranked by ‖g_i‖, the norm of their own gradient (``fnn.per_example.norms``). One forward and
one backward pass gives all norms without forming the gradients. A label that contradicts what the network has learnt
from the others has a large gradient. For comparison: ranking by the example's loss, from the same pass, and by chance.

This works as long as the network has learnt the digits but not yet the wrong labels. Once it has memorised a wrong
label, that example's loss and gradient are as small as any other's. So the ranking must be done early in training; the
precision after every epoch shows this.

The figure also shows the examples with the largest gradients whose labels were **not** replaced: odd digits, some of
them mislabelled in MNIST itself.

Source of the score, averaged over networks: Paul, Ganguli and Dziugaite 2021, *Deep learning on a data diet* (GraNd).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, results
from experiments.figures import BLUE, GREY, RED
from fnn.data import Dataset, as_floats
from fnn.train import Progress, evaluate, fit

LOSS = fnn.SoftmaxCrossEntropy()
COLOURS = {"gradient": BLUE, "loss": RED, "chance": GREY}
CHUNK = 2000  # examples scored at a time


@dataclass(frozen=True)
class Options:
    """Flip training labels, train, and find the flipped ones by the length of their gradients."""

    flipped: float = 0.05
    """Fraction of the training labels to flip."""
    hidden: tuple[int, ...] = (300,)
    epochs: int = 40
    batch_size: int = 100
    learning_rate: float = 0.05
    alpha: float = 0.9
    """Momentum coefficient."""
    examples: int = 60_000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    shown: int = 30
    """Digits on the sheet."""
    out: Path | None = None


def flip(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which round(fraction · N), drawn at random, are another class, each as likely; and which they are."""
    random = np.random.default_rng(seed)
    wrong = np.zeros(len(labels), bool)
    wrong[random.choice(len(labels), round(fraction * len(labels)), replace=False)] = True
    shift = np.where(wrong, random.integers(1, 10, len(labels)), 0)
    return ((labels + shift) % 10).astype(labels.dtype), wrong


@partial(jax.jit, static_argnames="scale")
def _scores(params, x, y, *, scale: float):
    x = as_floats(x, jnp.dtype("float32"), scale)
    outputs = fnn.forward(params, x)
    norms = fnn.per_example.norms(params, x, y, loss=LOSS)
    return norms.total, LOSS.value(outputs, y), jnp.argmax(outputs, axis=1)


def scores(params: fnn.layers.Params, data: Dataset) -> dict[str, np.ndarray]:
    """Length of the gradient, loss, and what the network says ("guess"), of every example: (N,) each."""
    parts = [
        _scores(params, data.x[i : i + CHUNK], data.y[i : i + CHUNK], scale=data.scale)
        for i in range(0, len(data), CHUNK)
    ]
    return {name: np.concatenate(of) for name, of in zip(("gradient", "loss", "guess"), zip(*parts))}


def precisions(score: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The share of wrong labels among the 1, 2, … N examples with the highest scores."""
    order = np.argsort(-score, kind="stable")
    return np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1)


def precision_at(score: np.ndarray, wrong: np.ndarray) -> float:
    """That share among as many examples as there are wrong labels; it is the recall too."""
    return float(precisions(score, wrong)[int(wrong.sum()) - 1])


def average_precision(score: np.ndarray, wrong: np.ndarray) -> float:
    """The mean, over the wrong labels, of the precision where each of them is found: the area under the curve."""
    order = np.argsort(-score, kind="stable")
    return float(precisions(score, wrong)[wrong[order]].mean())


def one_seed(options: Options, data: Dataset, test: Dataset, seed: int) -> tuple[dict, list[dict], np.ndarray]:
    """Precisions by epoch and way of ranking, beside accuracies; the scores of every epoch; and which labels are wrong.

    The first epoch is 0, before any training.
    """
    labels, wrong = flip(data.y, options.flipped, seed)
    noisy = Dataset(data.x, labels, data.scale)
    chance = np.random.default_rng([seed, 1]).uniform(size=len(data))
    found: list[dict] = []

    def rank(params) -> None:
        found.append(scores(params, noisy) | {"chance": chance})

    def after_epoch(progress: Progress) -> None:
        rank(progress.params)

    params = fnn.init(
        jax.random.key(seed), (784, *options.hidden, 10), activation=fnn.ReLU(), initializer=fnn.initializers.he_normal
    )
    rank(params)
    rule = fnn.updates.momentum(options.learning_rate, options.alpha)
    run = fit(
        params, noisy, rule, loss=LOSS, epochs=options.epochs, batch_size=options.batch_size,
        key=jax.random.key(seed), validation=test, callback=after_epoch, progress=False,
    )  # fmt: skip
    memorised = evaluate(run, Dataset(data.x[wrong], labels[wrong], data.scale), loss=LOSS)["accuracy"]
    ways = {
        way: {
            "precision": [round(precision_at(by[way], wrong), 4) for by in found],
            "average precision": [round(average_precision(by[way], wrong), 4) for by in found],
        }
        for way in COLOURS
    }
    tests = [round(record["validation_accuracy"], 4) for record in run.history]
    return {"ways": ways, "test accuracy": tests, "wrong labels learnt": memorised}, found, wrong


def best_epoch(runs: Sequence[dict], way: str = "gradient") -> int:
    """The epoch at which that way of ranking has the highest precision, in the mean over the seeds."""
    return int(np.mean([run["ways"][way]["precision"] for run in runs], axis=0).argmax())


def oddest(norms: np.ndarray, wrong: np.ndarray, most: int) -> np.ndarray:
    """Examples with the longest gradients, by the mean over the networks that were given their own labels.

    norms, wrong: (seeds, N). One whose label was replaced for every network is never among them.
    """
    right = ~wrong
    mean = np.where(right, norms, 0).sum(axis=0) / np.maximum(right.sum(axis=0), 1)
    return np.argsort(-mean, kind="stable")[:most]


def majority(guesses: np.ndarray) -> np.ndarray:
    """The class that most networks say, (N,); guesses: (seeds, N)."""
    return np.array([np.bincount(of, minlength=10).argmax() for of in guesses.T])


def curve(score: np.ndarray, wrong: np.ndarray, points: int = 200) -> dict[str, list[float]]:
    """Precision at equally spaced recalls."""
    precision = precisions(score, wrong)
    recall = np.cumsum(wrong[np.argsort(-score, kind="stable")]) / wrong.sum()
    at = np.searchsorted(recall, np.linspace(1 / points, 1, points) - 1e-12)  # the spacing is not exact in binary
    return {"recall": recall[at].round(4).tolist(), "precision": precision[at].round(4).tolist()}


# -- what is left ----------------------------------------------------------------------------------------------


def draw(path: Path, options: Options, runs: Sequence[dict], curves: dict[str, dict], odd: tuple) -> None:
    """Precision by epoch, precision and recall by rank, and the sheet; odd: (images, labels, what the networks say)."""
    figure = Figure(figsize=(13.5, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1), squeeze=False)[0]
    epochs, recalls = left.subplots(1, 2)
    draw_epochs(epochs, options, runs)
    for way, points in curves.items():
        recalls.plot(points["recall"], points["precision"], color=COLOURS[way], label=way)
    best = best_epoch(runs)
    recalls.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), title=f"By rank, epoch {best}, first seed")
    recalls.legend(frameon=False, loc="center left", title="ranked by")
    for axes in (epochs, recalls):
        axes.spines[["top", "right"]].set_visible(False)
    columns = 6
    rows = -(-len(odd[0]) // columns)
    right.suptitle("Longest gradients among MNIST's own labels:\nlabel (what most networks say)", fontsize=11)
    sheet = right.subplots(rows, columns, squeeze=False).ravel()
    for axes in sheet:
        axes.axis("off")
    for axes, image, label, guess in zip(sheet, *odd):
        axes.imshow(image.reshape(28, 28), cmap="gray_r")
        axes.set_title(f"{label} ({guess})", fontsize=9, color=RED, pad=2)
    figure.savefig(path, dpi=110)


def draw_epochs(axes, options: Options, runs: Sequence[dict]) -> None:
    """Precision by epoch for every way, mean and range of the seeds."""
    for way, colour in COLOURS.items():
        values = np.array([run["ways"][way]["precision"] for run in runs])
        axes.plot(values.mean(axis=0), color=colour, label=way)
        axes.fill_between(range(values.shape[1]), values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2)
    tests = np.mean([run["test accuracy"] for run in runs], axis=0)
    axes.plot(range(1, len(tests) + 1), tests, ":", color="black", label="(test accuracy)")
    axes.set(
        xlabel="epoch",
        ylabel="precision",
        ylim=(0, 1.02),
        title=f"Wrong labels among the top {100 * options.flipped:g} %",
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc=(0.12, 0.12), title="ranked by")  # below the curves, above chance


def claims(options: Options, runs: Sequence[dict], data: Dataset) -> list[results.Claim]:
    best, share = best_epoch(runs), f"{100 * options.flipped:g} %"

    def at(epoch: int, way: str, what: str = "precision", digits: int = 1) -> str:
        return results.spread([run["ways"][way][what][epoch] for run in runs], digits, 100)

    network = "-".join(map(str, (784, *options.hidden, 10)))
    learnt = results.spread([run["wrong labels learnt"] for run in runs], 1, 100, "%")
    return [
        results.Claim(
            f"{share} of {len(data):,} training labels flipped, {network}, {len(runs)} seeds: precision among the top "
            f"{share} by gradient norm, by loss, by chance, after epoch {best} (the best)",
            f"{at(best, 'gradient')}, {at(best, 'loss')}, {at(best, 'chance')} %",
        ),
        results.Claim(
            f"average precision after epoch {best}, by gradient norm, by loss, by chance",
            ", ".join(at(best, way, "average precision") for way in COLOURS) + " %",
        ),
        results.Claim(
            "the best epoch of each: precision by gradient norm, and by loss",
            " and ".join(
                f"{at(best_epoch(runs, way), way)} % after epoch {best_epoch(runs, way)}"
                for way in ("gradient", "loss")
            ),
        ),
        results.Claim(
            "precision before training, by gradient norm and by loss", f"{at(0, 'gradient')}, {at(0, 'loss')} %"
        ),
        results.Claim(
            f"precision after epoch {options.epochs}, by gradient norm and by loss; wrong labels learnt by then",
            f"{at(-1, 'gradient')}, {at(-1, 'loss')} %; {learnt}",
        ),
        results.Claim(
            f"test accuracy after epoch {best} and after epoch {options.epochs}",
            " and ".join(
                results.spread([run["test accuracy"][epoch] for run in runs], 2, 100, "%") for epoch in (best - 1, -1)
            ),
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    data, test = digits.load()
    data = data[: options.examples]
    found = [one_seed(options, data, test, seed) for seed in options.seeds]
    runs, ranks, wrong = [run for run, _, _ in found], [by for _, by, _ in found], np.stack([w for _, _, w in found])
    best = best_epoch(runs)
    made = claims(options, runs, data)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    odd = oddest(np.stack([by[best]["gradient"] for by in ranks]), wrong, options.shown)
    curves = {way: curve(ranks[0][best][way], wrong[0]) for way in COLOURS}
    out = results.folder(options.out, "mislabelled")
    guesses = majority(np.stack([by[best]["guess"] for by in ranks])[:, odd])
    draw(out / "mislabelled.png", options, runs, curves, (data.x[odd], data.y[odd], guesses))
    figures: dict = {f"seed {seed}": run for seed, run in zip(options.seeds, runs)}
    figures |= {"best epoch": best, "curves of the first seed": curves, "oddest": odd.tolist()}
    results.save(out, "mislabelled", options, made, figures)


if __name__ == "__main__":
    main()
