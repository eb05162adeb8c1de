"""The tangent kernel before and after training, and what it predicts: ``python -m experiments.kernel``.

Θ(x, x') = ⟨∂f(x)/∂θ, ∂f(x')/∂θ⟩ (``fnn.per_example.ntk``) says how a step of descent on x moves the output at x'. While
Θ stays what it was at the start, training a network to the end with the squared error is kernel regression with Θ
(Jacot, Gabriel and Hongler 2018); it stays in the limit of wide networks. Here: even digits against odd ones, targets
±1, one output, one hidden layer of several widths, and

1. how far the kernel moved: ‖Θ' − Θ‖/‖Θ‖ on the training images, and its alignment with the labels' kernel y yᵀ;
2. test accuracy of kernel regression with the kernel before training, and with the one after, beside the network's, and
   with the limit of infinite width, which is known in closed form (Cho and Saul 2009);
3. how far the network's outputs are from those of kernel regression.

The parametrisation is the one of the theory: all weights are drawn from N(0, 1), biases start at 0, and the factor
√(2/width) stands in the activation; so the kernel does not grow with the width, and one learning rate fits all. Every
hidden neuron is drawn twice, with opposite outgoing weights (Chizat, Oyallon and Bach 2019): the network starts at
f = 0 as kernel regression does. Images are centred, then scaled to a mean ‖x‖² of 1.

Kernel regression is solved in float64, f(x) = Θ(x, X) (Θ(X, X) + λ I)⁻¹ y, with λ = 10⁻⁶ of Θ's mean diagonal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, results
from experiments.figures import BLUE, GREY, RED
from fnn.data import Dataset
from fnn.train import fit

RIDGE = 1e-6  # of the mean diagonal: kernels in float64 need it only where two images are nearly one
CHUNK = 1000  # rows of a kernel computed at a time
COLOURS = {"before": BLUE, "after": RED, "network": GREY}


@dataclass(frozen=True)
class ScaledReLU(fnn.Activation):
    """a = √(2/width) max(0, z): with weights from N(0, 1) the next layer's sums keep their size at any width."""

    width: float
    smooth = False

    def value(self, z):
        return (2 / self.width) ** 0.5 * jnp.maximum(z, 0)

    def derivative(self, z, a):
        return jnp.where(z > 0, (2 / self.width) ** 0.5, jnp.zeros_like(z))


@dataclass(frozen=True)
class Options:
    """The tangent kernel before and after training, and kernel regression against the network."""

    widths: tuple[int, ...] = (64, 256, 1024, 4096)
    images: int = 2000
    """Training images."""
    test_images: int = 10_000
    epochs: int = 200
    batch_size: int = 50
    learning_rate: float = 0.3
    alpha: float = 0.9
    """Momentum coefficient."""
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path | None = None


def prepared(data: Dataset, mean: np.ndarray, length: float) -> Dataset:
    """Centred and scaled images, (N, 784) float32; targets (N, 1), +1 for an odd digit and −1 for an even one."""
    targets = np.where(data.y % 2 == 1, 1, -1).astype(np.float32)
    return Dataset((data.floats() - mean) / np.float32(length), targets[:, None])


def load(options: Options) -> tuple[Dataset, Dataset]:
    """Training and test images, both with the training images' mean and length."""
    data, test = digits.load()
    data, test = data[: options.images], test[: options.test_images]
    mean = data.floats().mean(axis=0)
    length = float(np.sqrt(((data.floats() - mean) ** 2).sum(axis=1).mean()))
    return prepared(data, mean, length), prepared(test, mean, length)


def unit_normal(key, shape, dtype):
    """N(0, 1), and no name that ``fnn.init`` knows: biases stay 0."""
    return jax.random.normal(key, shape, dtype)


def start(seed: int, width: int) -> fnn.layers.Params:
    """A network of pairs of equal hidden neurons with opposite outgoing weights: f = 0 everywhere."""
    key = jax.random.key(seed)
    hidden, output = fnn.init(key, (784, width // 2, 1), activation=ScaledReLU(width), initializer=unit_normal)
    twice = replace(hidden, W=jnp.concatenate([hidden.W, hidden.W]), b=jnp.concatenate([hidden.b, hidden.b]))
    return twice, replace(output, W=jnp.concatenate([output.W, -output.W], axis=1))


def train(options: Options, params, data: Dataset, seed: int) -> tuple[fnn.layers.Params, float]:
    """The trained network, and its mean loss ½ (f − y)² in the last epoch."""
    run = fit(
        params, data, fnn.updates.momentum(options.learning_rate, options.alpha), loss=fnn.SquaredError(),
        epochs=options.epochs, batch_size=options.batch_size, key=jax.random.key(seed), progress=False,
    )  # fmt: skip
    return run.params, run.history[-1]["loss"]


def kernel(params, x: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """Θ(x, x2) of a network with one output, (N, M) float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), params)
        columns = jnp.asarray(x2, jnp.float64)
        parts = [
            np.asarray(fnn.per_example.ntk(wide, jnp.asarray(x[i : i + CHUNK], jnp.float64), columns, traced=True))
            for i in range(0, len(x), CHUNK)
        ]
    return np.concatenate(parts)


def limit(x: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """Θ before training at infinite width, (⟨x, x'⟩ + 1) κ₀ + κ₁ + 1, with the arc-cosine kernels of the angle α.

    κ₀ = (π − α)/π and κ₁ = ‖x‖ ‖x'‖ (sin α + (π − α) cos α)/π.
    """
    x, x2 = x.astype(np.float64), x2.astype(np.float64)
    products, lengths = x @ x2.T, np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x2, axis=1))
    angle = np.arccos(np.clip(products / lengths, -1, 1))
    zeroth = (np.pi - angle) / np.pi
    first = lengths * (np.sin(angle) / np.pi + zeroth * np.cos(angle))
    return (products + 1) * zeroth + first + 1


def regress(of_training: np.ndarray, of_test: np.ndarray, y: np.ndarray) -> np.ndarray:
    """f at the test images, (M,): Θ(x, X) (Θ(X, X) + λ I)⁻¹ y in float64."""
    ridge = RIDGE * of_training.diagonal().mean() * np.eye(len(of_training))
    return of_test @ np.linalg.solve(of_training + ridge, y.astype(np.float64))


def centred(matrix: np.ndarray) -> np.ndarray:
    """H Θ H with H = I − 11ᵀ/N: the kernel of features without their mean."""
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1)[:, None] + matrix.mean()


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """⟨A, B⟩ / (‖A‖ ‖B‖), Frobenius."""
    return float(np.vdot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second)))


def alignment(matrix: np.ndarray, y: np.ndarray) -> float:
    """The cosine of the centred kernel and y yᵀ (Cortes, Mohri and Rostamizadeh 2012)."""
    return cosine(centred(matrix), centred(np.outer(y, y)))


def one_network(options: Options, width: int, seed: int, data: Dataset, test: Dataset) -> dict:
    """What the kernel did in training, and the accuracies, of one network."""
    y, labels = data.y[:, 0], test.y[:, 0]
    before = start(seed, width)
    after, loss = train(options, before, data, seed)
    network = np.asarray(fnn.forward(after, jnp.asarray(test.x)))[:, 0]
    training = {"before": kernel(before, data.x, data.x), "after": kernel(after, data.x, data.x)}
    outputs = {
        when: regress(training[when], kernel(params, test.x, data.x), y)
        for when, params in (("before", before), ("after", after))
    }
    outputs["network"] = network
    change = np.linalg.norm(training["after"] - training["before"]) / np.linalg.norm(training["before"])
    return {
        "moved": float(change),
        "cosine": cosine(centred(training["before"]), centred(training["after"])),
        "alignment": {when: alignment(matrix, y) for when, matrix in training.items()},
        "accuracy": {way: accuracy(of, labels) for way, of in outputs.items()},
        "distance": {when: rms(outputs[when] - network) for when in training},
        "training loss": loss,
    }


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean((outputs > 0) == (labels > 0)))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def infinite(data: Dataset, test: Dataset) -> dict:
    """The same for the kernel at infinite width, before training."""
    matrix, y = limit(data.x, data.x), data.y[:, 0]
    outputs = regress(matrix, limit(test.x, data.x), y)
    return {"alignment": alignment(matrix, y), "accuracy": accuracy(outputs, test.y[:, 0])}


# -- what is left ----------------------------------------------------------------------------------------------


class Table:
    """Figures of all networks: one array (widths, seeds) for each name."""

    def __init__(self, runs: dict[int, list[dict]]):
        self.runs, self.widths = runs, np.array(list(runs))

    def __call__(self, *path: str) -> np.ndarray:
        def at(run):
            for name in path:
                run = run[name]
            return run

        return np.array([[at(run) for run in of_width] for of_width in self.runs.values()])

    def slopes(self, *path: str) -> list[float]:
        """p of figure ∝ width^p, for every seed."""
        return [float(np.polyfit(np.log(self.widths), np.log(of), 1)[0]) for of in self(*path).T]


def draw(path: Path, options: Options, table: Table, wide: dict) -> None:
    """By width: how far the kernel moved, its alignment, the accuracies, and the distance from the network."""
    figure = Figure(figsize=(14, 3.7), layout="constrained")
    moved, aligned, right, far = figure.subplots(1, 4)
    curve(moved, table, "moved", label="‖Θ' − Θ‖ / ‖Θ‖", colour=RED)
    p = np.mean(table.slopes("moved"))
    moved.set(yscale="log", ylabel="relative change", title=f"How far the kernel moved: ∝ width$^{{{p:.2f}}}$")
    for when in ("before", "after"):
        curve(aligned, table, "alignment", when, label=f"kernel {when} training")
        curve(right, table, "accuracy", when, label=f"kernel {when} training", factor=100)
        curve(far, table, "distance", when, label=f"kernel {when} training")
    curve(right, table, "accuracy", "network", label="the network", factor=100)
    for axes, what, factor in ((aligned, "alignment", 1), (right, "accuracy", 100)):
        axes.axhline(factor * wide[what], color="black", linestyle=":", linewidth=1, label="kernel at infinite width")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    aligned.set(ylabel="cosine of Θ and y yᵀ, centred", title="Alignment with the labels")
    right.set(ylabel="test accuracy, %", title=f"Odd or even, {options.images:,} training images")
    far.set(yscale="log", ylabel="RMS of the outputs' difference", title="Distance to the network's outputs")
    far.set_ylim(far.get_ylim()[0] / 1.5, None)
    for axes, ticks in ((moved, (0.05, 0.1, 0.2, 0.5, 1)), (far, (0.05, 0.1, 0.2, 0.3))):
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)
    far.legend(frameon=False, fontsize=8, loc="lower left")
    for axes in (moved, aligned, right, far):
        axes.set(xscale="log", xlabel="width")
        axes.set_xticks(options.widths, [str(width) for width in options.widths])
        axes.set_xticks([], minor=True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def curve(axes, table: Table, *path: str, label: str, colour: str = "", factor: float = 1) -> None:
    """One figure by width: every seed, and the mean."""
    of, colour = factor * table(*path), colour or COLOURS[path[-1]]
    axes.plot(table.widths, of, ".", color=colour, markersize=5, alpha=0.6)
    axes.plot(table.widths, of.mean(axis=1), color=colour, label=label)


def claims(options: Options, table: Table, wide: dict) -> list[results.Claim]:
    widths = ", ".join(map(str, options.widths))

    def by_width(*path: str, digits: int, factor: float = 1) -> str:
        return ", ".join(results.spread(of, digits, factor) for of in table(*path))

    network = f"odd or even digits, 784-n-1, {options.images:,} images, {len(options.seeds)} seeds, n = {widths}"
    limit_accuracy = f"{100 * wide['accuracy']:.2f} % at infinite width"
    return [
        results.Claim(
            f"{network}: how far the tangent kernel moved in training, ‖Θ' − Θ‖/‖Θ‖, ∝ n^p",
            f"{by_width('moved', digits=3)}; p = {results.spread(table.slopes('moved'))}",
            "p ≤ −0.5 (bound of Lee et al. 2019)",
            "a bound for wide networks, not a measured figure; other data",
        ),
        results.Claim(
            "cosine of the kernels before and after, centred: 1 less",
            ", ".join(f"{1 - of.mean():.2g}" for of in table("cosine")),
        ),
        *(
            results.Claim(
                f"alignment with the labels' kernel y yᵀ {when} training, the same widths",
                by_width("alignment", when, digits=3)
                + (f"; {wide['alignment']:.3f} at infinite width" if when == "before" else ""),
            )
            for when in ("before", "after")
        ),
        results.Claim(
            "test accuracy of kernel regression with the kernel before training",
            f"{by_width('accuracy', 'before', digits=2, factor=100)} %; {limit_accuracy}",
        ),
        results.Claim("with the kernel after training", f"{by_width('accuracy', 'after', digits=2, factor=100)} %"),
        results.Claim("of the network itself", f"{by_width('accuracy', 'network', digits=2, factor=100)} %"),
        *(
            results.Claim(
                f"RMS difference of the test outputs, the network's and those of the kernel {when} training",
                by_width("distance", when, digits=3),
            )
            for when in ("before", "after")
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    odd = [width for width in options.widths if width % 2]
    if odd:
        raise SystemExit(f"--widths: expected even ones, for every neuron is drawn twice, got {odd}")
    data, test = load(options)
    runs: dict[int, list[dict]] = {}
    for width in options.widths:
        runs[width] = [one_network(options, width, seed, data, test) for seed in options.seeds]
        print(f"width {width}: moved by {results.spread([run['moved'] for run in runs[width]], 3)}", flush=True)
    table, wide = Table(runs), infinite(data, test)
    made = claims(options, table, wide)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    out = results.folder(options.out, "kernel")
    draw(out / "kernel.png", options, table, wide)
    figures: dict = {f"width {width}": of_width for width, of_width in runs.items()}
    results.save(out, "kernel", options, made, figures | {"infinite width": wide})


if __name__ == "__main__":
    main()
