"""How the time and the memory of training grow: ``python -m experiments.benchmarks.growth``.

One gradient against depth (a stack of 128-unit layers, batch 64), against width (two square layers, batch 64) and
against the batch (784-512-512-10); and one epoch of ``fnn.train.fit`` (64-32-10, batch 128, bytes as images are stored)
against the number of examples. Memory is what the compiled program holds: arguments, results and temporaries. A size
whose program needs more than ``--gib`` is left out; ``--gib 20`` measures the largest that a machine with 24 GiB holds.

Every size of a quantity is timed in every round; of the medians, and of the memory, the exponent p in time ∝ size^p is
fitted by least squares in log–log, with its standard error, on the upper half of the sizes: below it, what every call
and every step costs at any size still counts.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row
from fnn.data import Dataset
from fnn.functions import Objective
from fnn.optimizers import Optimizer
from fnn.train import fit, loop

WIDTH, BATCH, PIXELS, CLASSES = 128, 64, 64, 10
DATA_BATCH = 128
LEAST = 0.02  # seconds that a measurement takes, by repeating what is shorter
LOSS, RULE = fnn.SoftmaxCrossEntropy(), fnn.updates.sgd(0.1)  # of the epochs
FIT_LEAST = 3  # points: with two, a line through them has no error


@dataclass(frozen=True)
class Options:
    """Time and memory of a gradient or an epoch against depth, width, batch and examples, with fitted exponents."""

    depths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16_384, 65_536)
    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 32_768, 131_072, 524_288)
    examples: tuple[int, ...] = (
        1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000,
    )  # fmt: skip
    gib: float = 6
    """Of memory; sizes that need more are left out."""
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


class Program(NamedTuple):
    """Of one size: the bytes that it holds, and the seconds that it takes once, with arguments made for that alone."""

    bytes: int
    seconds: Callable[[], float]


def held(compiled) -> int:
    """Bytes of a compiled program's arguments, results and temporaries."""
    memory = compiled.memory_analysis()
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def gradient(sizes: Sequence[int], batch: int, stack: bool = False) -> Program:
    """A gradient of a tanh network, mean of ½‖a − y‖²."""
    params = jax.eval_shape(lambda: fnn.init(jax.random.key(0), sizes, activation=fnn.Tanh(), stack=stack))
    x, y = (jax.ShapeDtypeStruct((batch, n), jnp.float32) for n in (sizes[0], sizes[-1]))
    program = jax.jit(lambda params, x, y: fnn.backprop(params, x, y)).lower(params, x, y).compile()

    def seconds() -> float:
        given = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), (params, x, y))
        return steady(lambda: jax.block_until_ready(program(*given)))

    return Program(held(program), seconds)


def steady(run: Callable) -> float:
    """Seconds of a call after a first one, the mean of as many as ``LEAST`` seconds hold."""

    def taken(repeats: int) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - started) / repeats

    run()
    once = taken(1)
    return taken(max(1, int(LEAST / once))) if once < LEAST else once


def epoch(examples: int) -> Program:
    """The second epoch of ``fit`` on so many examples: its first one may compile."""
    params = fnn.init(jax.random.key(0), (PIXELS, 32, CLASSES), activation=fnn.ReLU())
    batch, rule = min(DATA_BATCH, examples), Optimizer(RULE)
    data = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((examples, PIXELS), jnp.uint8), ((examples,), jnp.int32), ((examples // batch, batch), jnp.int32)
        )
    ]  # fmt: skip
    program = loop.take_steps.lower(
        loop.start(rule, params), tuple(data), 0, None, jax.random.key(0), rule,
        objective=Objective(LOSS, "mean"), scale=1 / 255,
    ).compile()  # fmt: skip

    def seconds() -> float:
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (examples, PIXELS), np.uint8)
        given = Dataset(pixels, random.integers(0, CLASSES, examples, np.int32))
        run = fit(params, given, RULE, loss=LOSS, epochs=2, batch_size=batch, key=jax.random.key(1), progress=False)
        return run.history[1]["seconds"] - run.history[0]["seconds"]

    return Program(held(program), seconds)


class Quantity(NamedTuple):
    """What grows: the network it grows in, the exponent of its arithmetic and of its numbers, and a size's program."""

    network: str
    arithmetic: int
    program: Callable[[int], Program]


def quantities() -> dict[str, Quantity]:
    def depth(n):
        return gradient((WIDTH,) * (n + 1), BATCH, stack=True)

    def width(n):
        return gradient((n,) * 3, BATCH)

    def batch(n):
        return gradient((784, 512, 512, CLASSES), n)

    return {
        "depth": Quantity(f"gradient, layers of {WIDTH}, batch {BATCH}", 1, depth),
        "width": Quantity(f"gradient, two square layers, batch {BATCH}", 2, width),
        "batch": Quantity("gradient, 784-512-512-10", 1, batch),
        "examples": Quantity(f"epoch of fit, {PIXELS}-32-{CLASSES}, batch {DATA_BATCH}", 1, epoch),
    }


def measure(quantity: Quantity, sizes: Sequence[int], rounds: int, gib: float) -> dict:
    """Medians and quartiles of the milliseconds at every size, its MiB, and both exponents."""
    if len(sizes) < FIT_LEAST or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"sizes: expected at least {FIT_LEAST}, increasing, got {sizes}")
    all_sizes = {n: quantity.program(n) for n in sizes}
    programs = {n: program for n, program in all_sizes.items() if program.bytes <= gib * 2**30}
    seconds = np.array([[program.seconds() for program in programs.values()] for _ in range(rounds)])
    ms = (1e3 * np.percentile(seconds, (50, 25, 75), axis=0)).T.round(4).tolist()
    mib = [program.bytes / 2**20 for program in programs.values()]
    return {
        "network": quantity.network,
        "arithmetic": quantity.arithmetic,
        "ms": {str(n): of_size for n, of_size in zip(programs, ms)},
        "MiB": {str(n): round(of_size, 2) for n, of_size in zip(programs, mib)},
        "left out, GiB": {str(n): round(all_sizes[n].bytes / 2**30, 1) for n in sizes if n not in programs},
        "fit": fitted([*programs], [middle for middle, _, _ in ms])._asdict(),
        "memory fit": fitted([*programs], mib)._asdict(),
    }


def draw(path: Path, figures: dict) -> None:
    """For every quantity a panel of its time, medians with quartiles, and one of its memory, with the fitted lines."""
    from matplotlib.figure import Figure

    from experiments.figures import BLUE, RED

    figure = Figure(figsize=(13, 6.4), layout="constrained")
    above, below = figure.subplots(2, len(figures), squeeze=False)
    for times, memory, (name, of_quantity) in zip(above, below, figures.items()):
        sizes, ms = [int(n) for n in of_quantity["ms"]], np.array(list(of_quantity["ms"].values()))
        times.fill_between(sizes, ms[:, 1], ms[:, 2], color=BLUE, alpha=0.2, linewidth=0)
        for axes, values, key, unit in (
            (times, ms[:, 0], "fit", "ms"), (memory, list(of_quantity["MiB"].values()), "memory fit", "MiB")
        ):  # fmt: skip
            fit = Fit(**of_quantity[key])
            upper = np.array(sizes[-fit.points :], float)
            axes.loglog(sizes, values, "o", color=BLUE, markersize=4)
            axes.plot(upper, fit.factor * upper**fit.exponent, color=RED)
            axes.set(xlabel=name, ylabel=unit, title=f"∝ {name}^({fit})")
            axes.title.set_fontsize(9)
            axes.spines[["top", "right"]].set_visible(False)
        times.set_title(f"{of_quantity['network']}\n{times.get_title()}", fontsize=9)
    figure.savefig(path, dpi=120)


def rows(figures: dict) -> list[Row]:
    """The exponents of every quantity beside that of its arithmetic, or of how many numbers it has."""
    return [
        Row(f"{of['network']}: growth with {name}", f"exponent of {what}", peer, None, None, str(Fit(**of[key])),
            str(of["arithmetic"]), f"upper {of[key]['points']} of {len(of['ms'])} sizes, to {[*of['ms']][-1]}")
        for name, of in figures.items()
        for what, peer, key in (("time", "arithmetic", "fit"), ("memory", "numbers", "memory fit"))
    ]  # fmt: skip


def claims(figures: dict) -> list[results.Claim]:
    def exponents(key: str) -> str:
        return ", ".join(
            f"{name} ({[*of['ms']][0]}–{[*of['ms']][-1]}) {Fit(**of[key])}" for name, of in figures.items()
        )

    largest = ", ".join(
        f"{name} {n}: {of['ms'][n][0]:.0f} ms, {of['MiB'][n] / 1024:.1f} GiB"
        for name, of in figures.items() for n in [*of["ms"]][-1:]
    )  # fmt: skip
    return [
        results.Claim(
            "time ∝ size^p: p, on the upper half of the sizes, of a gradient or, by examples, an epoch",
            exponents("fit"),
        ),
        results.Claim("memory ∝ size^p: p, likewise", exponents("memory fit")),
        results.Claim("time and memory at the largest size measured", largest),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    ranges = {
        "depth": options.depths, "width": options.widths, "batch": options.batches, "examples": options.examples
    }  # fmt: skip
    figures = {}
    for name, quantity in quantities().items():
        figures[name] = found = measure(quantity, ranges[name], options.rounds, options.gib)
        each = zip(found["ms"].items(), found["MiB"].values())
        told = "  ".join(f"{n}: {middle:.2f} ms {mib:.1f} MiB" for (n, (middle, _, _)), mib in each)
        print(
            f"{quantity.network} by {name}: {told}\n  time ∝ {name}^({Fit(**found['fit'])}), "
            f"memory ∝ {name}^({Fit(**found['memory fit'])})", flush=True,
        )  # fmt: skip
    out = results.folder(options.out, "benchmarks.growth")
    draw(out / "benchmarks.growth.png", figures)
    results.save(out, "benchmarks.growth", options, claims(figures), figures)


if __name__ == "__main__":
    main()
