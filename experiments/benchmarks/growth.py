"""How the time of training grows: ``python -m experiments.benchmarks.growth``.

One gradient against depth (a stack of 128-unit layers, batch 64), against width (two square layers, batch 64) and
against the batch (784-512-512-10); and one epoch of ``fnn.train.fit`` (64-32-10, batch 128, bytes as images are stored)
against the number of examples. Every size of a quantity is timed in every round; of the medians, the exponent p in
time ∝ size^p is fitted by least squares in log–log, with its standard error, on the upper half of the sizes: below it,
what every call and every step costs at any size still counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, interleaved
from fnn.data import Dataset
from fnn.train import fit

WIDTH, BATCH, PIXELS, CLASSES = 128, 64, 64, 10
DATA_BATCH = 128
FIT_LEAST = 3  # points: with two, a line through them has no error


@dataclass(frozen=True)
class Options:
    """Time of a gradient or an epoch against depth, width, batch and examples, with fitted exponents."""

    depths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    examples: tuple[int, ...] = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    rounds: int = 5
    out: Path | None = None


class Fit(NamedTuple):
    """time = factor · size^exponent, the exponent with its standard error, from so many of the largest sizes."""

    exponent: float
    error: float
    factor: float
    points: int

    def __str__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"


def fitted(sizes: Sequence[float], values: Sequence[float]) -> Fit:
    """Least squares in log–log on the upper half of the sizes, at least three.

    The standard error is √(Σ r² / (n − 2) / Σ (log size − mean)²), r the residuals.

    >>> str(fitted((1, 2, 4, 8), (3, 12, 48, 192)))
    '2.00 ± 0.00'
    """
    points = max(FIT_LEAST, len(sizes) // 2)
    x, y = np.log(sizes[-points:]), np.log(values[-points:])
    if len(x) < FIT_LEAST:
        raise ValueError(f"sizes: expected at least {FIT_LEAST} for an exponent with an error, got {len(x)}")
    slope, intercept = np.polyfit(x, y, 1)
    residuals = y - slope * x - intercept
    error = np.sqrt(np.sum(residuals**2) / (len(x) - 2) / np.sum((x - x.mean()) ** 2))
    return Fit(float(slope), float(error), float(np.exp(intercept)), points)


def gradient(sizes: Sequence[int], batch: int, stack: bool = False) -> Callable[[], object]:
    """A compiled gradient of a tanh network, mean of ½‖a − y‖², with its arguments."""
    params = fnn.init(jax.random.key(0), sizes, activation=fnn.Tanh(), stack=stack)
    given = params, jnp.ones((batch, sizes[0])), jnp.zeros((batch, sizes[-1]))
    return partial(jax.jit(lambda params, x, y: fnn.backprop(params, x, y)).lower(*given).compile(), *given)


def of_gradients(make: Callable[[int], Callable], sizes: Sequence[int], rounds: int) -> dict[int, np.ndarray]:
    return {int(size): of_size for size, of_size in interleaved({str(n): make(n) for n in sizes}, rounds).items()}


def of_epochs(sizes: Sequence[int], rounds: int) -> dict[int, np.ndarray]:
    """Seconds of the second epoch of ``fit`` on the first so many examples: its first one may compile."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (max(sizes), PIXELS), np.uint8)
    data = Dataset(pixels, random.integers(0, CLASSES, max(sizes), np.int32))
    params = fnn.init(jax.random.key(0), (PIXELS, 32, CLASSES), activation=fnn.ReLU())
    train = partial(
        fit, params, optimizer=fnn.updates.sgd(0.1), loss=fnn.SoftmaxCrossEntropy(), epochs=2, key=jax.random.key(1),
        progress=False,
    )  # fmt: skip
    seconds: dict[int, list[float]] = {n: [] for n in sizes}
    for _ in range(rounds):
        for n in sizes:
            first, second = train(data[:n], batch_size=min(DATA_BATCH, n)).history
            seconds[n].append(second["seconds"] - first["seconds"])
    return {n: np.array(of_size) for n, of_size in seconds.items()}


class Quantity(NamedTuple):
    """What grows: the network it grows in, the exponent of the arithmetic in it, and seconds per size."""

    network: str
    arithmetic: int
    seconds: Callable[[Sequence[int], int], dict[int, np.ndarray]]


def quantities() -> dict[str, Quantity]:
    def depth(n):
        return gradient((WIDTH,) * (n + 1), BATCH, stack=True)

    def width(n):
        return gradient((n,) * 3, BATCH)

    def batch(n):
        return gradient((784, 512, 512, CLASSES), n)

    return {
        "depth": Quantity(f"gradient, layers of {WIDTH}, batch {BATCH}", 1, partial(of_gradients, depth)),
        "width": Quantity(f"gradient, two square layers, batch {BATCH}", 2, partial(of_gradients, width)),
        "batch": Quantity("gradient, 784-512-512-10", 1, partial(of_gradients, batch)),
        "examples": Quantity(f"epoch of fit, {PIXELS}-32-{CLASSES}, batch {DATA_BATCH}", 1, of_epochs),
    }


def measure(quantity: Quantity, sizes: Sequence[int], rounds: int) -> dict:
    """Medians and quartiles of the milliseconds at every size, and the exponent."""
    if len(sizes) < FIT_LEAST or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"sizes: expected at least {FIT_LEAST}, increasing, got {sizes}")
    seconds = quantity.seconds(sizes, rounds)
    ms = {n: (1e3 * np.percentile(of_size, (50, 25, 75))).round(4).tolist() for n, of_size in seconds.items()}
    fit = fitted(sizes, [middle for middle, _, _ in ms.values()])
    return {
        "network": quantity.network,
        "arithmetic": quantity.arithmetic,
        "ms": {str(n): of_size for n, of_size in ms.items()},
        "fit": fit._asdict(),
    }


def draw(path: Path, figures: dict) -> None:
    """A panel for every quantity: medians with quartiles, and the line fitted to the upper half."""
    from matplotlib.figure import Figure

    from experiments.figures import BLUE, RED

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for axes, (name, of_quantity) in zip(figure.subplots(1, len(figures), squeeze=False).flat, figures.items()):
        sizes, ms = [int(n) for n in of_quantity["ms"]], np.array(list(of_quantity["ms"].values()))
        fit = Fit(**of_quantity["fit"])
        upper = np.array(sizes[-fit.points :], float)
        axes.loglog(sizes, ms[:, 0], "o", color=BLUE, markersize=4)
        axes.fill_between(sizes, ms[:, 1], ms[:, 2], color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(upper, fit.factor * upper**fit.exponent, color=RED)
        axes.set(xlabel=name, ylabel="ms", title=f"{of_quantity['network']}\n∝ {name}^({fit})")
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def rows(figures: dict) -> list[Row]:
    """The exponent of every quantity beside that of its arithmetic."""
    return [
        Row(f"{of['network']}: growth with {name}", "exponent of time", "arithmetic", None, None,
            str(Fit(**of["fit"])), str(of["arithmetic"]), f"upper {of['fit']['points']} of {len(of['ms'])} sizes")
        for name, of in figures.items()
    ]  # fmt: skip


def claims(figures: dict) -> list[results.Claim]:
    spans = {name: list(of["ms"]) for name, of in figures.items()}
    exponents = ", ".join(
        f"{name} ({spans[name][0]}–{spans[name][-1]}) {Fit(**of['fit'])}" for name, of in figures.items()
    )
    largest = ", ".join(
        f"{name} {spans[name][-1]}: {list(of['ms'].values())[-1][0]:.0f}" for name, of in figures.items()
    )
    return [
        results.Claim(
            "time ∝ size^p: p, on the upper half of the sizes, of a gradient or, by examples, an epoch", exponents
        ),
        results.Claim("milliseconds at the largest size", largest),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    ranges = dict(
        zip(
            ("depth", "width", "batch", "examples"), (options.depths, options.widths, options.batches, options.examples)
        )
    )
    figures = {}
    for name, quantity in quantities().items():
        figures[name] = measure(quantity, ranges[name], options.rounds)
        times = "  ".join(f"{n}: {middle:.2f}" for n, (middle, _, _) in figures[name]["ms"].items())
        print(f"{quantity.network}, ms by {name}: {times}\n  time ∝ {name}^({Fit(**figures[name]['fit'])})", flush=True)
    out = results.folder(options.out, "benchmarks.growth")
    draw(out / "benchmarks.growth.png", figures)
    results.save(out, "benchmarks.growth", options, claims(figures), figures)


if __name__ == "__main__":
    main()
