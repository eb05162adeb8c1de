"""Training with the printed backward pass of batch norm (S7): ``python -m experiments.batchnorm_printed``.

Strabel: "During the backwards pass we treat μ̂ and ν̂² as fixed." 784-100-100-100-10, sigmoid, batch 60, at several
learning rates: with the printed backward pass, with the full one (S8), and without batch norm.

Why the printed version fails at a high rate: ψ̂ does not change if a neuron's ψ is shifted or scaled, so the true λ has
no component along these two directions: Σ_i λ_i = 0 and Σ_i λ_i (ψ_i − μ̂) = 0. The printed λ has such components, and
is otherwise the true one. In its own layer, following them does not change the loss, so nothing pulls back and the
scale of ψ, √ν̂², drifts. Earlier layers receive them through W, which rotates the gradient away from that of the loss.
So besides the accuracy we record the cosine between the printed and the true gradient of every hidden layer's W, and
the scale of ψ in the first. At η = 1 the cosine falls to 0 and below: such a step does not descend.
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
from experiments.batchnorm import LOSS, SIZES, small_normal
from experiments.figures import BLUE, GREY, RED
from fnn.data import Dataset
from fnn.train import Progress, fit

WAYS: dict[str, tuple[str | None, str]] = {"none": (None, GREY), "full": ("full", BLUE), "as printed": ("fixed", RED)}


@dataclass(frozen=True)
class Options:
    """Batch norm as printed, full, and none: accuracy by learning rate, and why."""

    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    epochs: int = 2
    batch_size: int = 60
    examples: int = 60_000
    """Number of training images, from the first."""
    watched: float = 1.0
    """The learning rate whose runs are examined."""
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path | None = None


def look(params, x, y) -> dict:
    """The scale of ψ and the share of λ along a shift and a scaling of it, first hidden layer; cosines by layer."""
    t, lam = fnn.trace(params, x)[0], np.asarray(fnn.deltas(params, x, y, loss=LOSS)[0])
    centred = np.asarray(t.psi) - np.asarray(t.psi).mean(axis=0)
    scale = np.sqrt(np.mean(centred**2, axis=0))
    along = [lam.mean(axis=0), np.mean(lam * centred / scale, axis=0)]  # the directions are orthogonal, of length √m
    share = np.sqrt(sum(np.sum(part**2) for part in along) / np.sum(np.mean(lam**2, axis=0)))
    printed, true = (gradients(params, x, y, kind) for kind in ("fixed", "full"))
    cosine = [float(f"{np.sum(p * t) / np.linalg.norm(p) / np.linalg.norm(t):.3g}") for p, t in zip(printed, true)]
    return {"scale": float(f"{np.median(scale):.4g}"), "share": float(f"{share:.3g}"), "cosine": cosine}


def gradients(params, x, y, kind: str) -> list[np.ndarray]:
    """∂C/∂W of every hidden layer, through the statistics (full) or with them fixed."""
    layers = [replace(p, norm=None if p.norm is None else replace(p.norm, gradient=kind)) for p in params]
    return [np.asarray(g.W) for g in fnn.backprop(tuple(layers), x, y, loss=LOSS)[:-1]]


def run(options: Options, way: str, rate: float, seed: int, train: Dataset, test: Dataset, looks: list | None) -> float:
    """The test accuracy at the end; ``looks``, if given, gets one look for each tenth of an epoch."""
    batch_norm, _ = WAYS[way]
    params = fnn.init(jax.random.key(seed), SIZES, initializer=small_normal, batch_norm=batch_norm)
    rule, parts = fnn.updates.sgd(rate), 10 if looks is not None else 1
    x, y = jnp.asarray(train[:600].floats()), jnp.asarray(train.y[:600], "int32")
    accuracy: list[float] = []

    def record(progress: Progress) -> None:
        accuracy.append(progress.history[-1]["validation_accuracy"])

    for number in range(options.epochs * parts):
        if looks is not None:
            looks.append(look(params, x, y))
        size = len(train) // parts
        data = train[number % parts * size : (number % parts + 1) * size]
        key = jax.random.fold_in(jax.random.key(seed), number)
        params = fit(params, data, rule, loss=LOSS, epochs=1, batch_size=options.batch_size, key=key, validation=test,
                     callback=record, progress=False).params  # fmt: skip
    if looks is not None:
        looks.append(look(params, x, y))
    return round(100 * accuracy[-1], 2)


def claims(options: Options, accuracy: dict, looks: dict) -> list[results.Claim]:
    def at(way: str, rate: float) -> str:
        return results.spread(accuracy[way][f"{rate:g}"], 1)

    rates = [rate for rate in (0.1, 1.0) if rate in options.rates] or list(options.rates)[-1:]
    each = "; ".join(
        f"η = {rate:g}: {at('as printed', rate)}, {at('full', rate)}, {at('none', rate)}" for rate in rates
    )
    printed, full = looks["as printed"], looks["full"]
    lowest = [min(look["cosine"][layer] for look in printed) for layer in range(len(SIZES) - 2)]
    return [
        results.Claim(
            f"batch norm with μ̂, ν̂² fixed in the backward pass, as printed, in full, and none: "
            f"{'-'.join(map(str, SIZES))}, sigmoid, {options.epochs} epochs, {len(options.seeds)} seeds, test accuracy",
            f"{each} %",
        ),
        results.Claim(
            f"cosine between the printed and the true gradient of W, hidden layers 1 to {len(lowest)}, the lowest of "
            f"the printed run at η = {options.watched:g}",
            ", ".join(f"{cosine:.2f}" for cosine in lowest),
        ),
        results.Claim(
            "share of λ along a shift and a scaling of ψ, which ψ̂ does not see, at the start, and the scale of ψ from "
            "start to end, first hidden layer, as printed and in full",
            f"{printed[0]['share']:.0%} and {full[0]['share']:.0%}; {printed[0]['scale']:.2g} → "
            f"{printed[-1]['scale']:.2g} and {full[0]['scale']:.2g} → {full[-1]['scale']:.2g}",
        ),
    ]


def draw(path: Path, options: Options, accuracy: dict, looks: dict) -> None:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    by_rate, cosines, scales = figure.subplots(1, 3)
    for way, (_, colour) in WAYS.items():
        values = np.array([accuracy[way][f"{rate:g}"] for rate in options.rates])
        by_rate.plot(options.rates, values.mean(axis=1), ".-", color=colour, label=way)
        low, high = values.min(axis=1), values.max(axis=1)
        by_rate.fill_between(options.rates, low, high, color=colour, alpha=0.2, linewidth=0)
    by_rate.set(xscale="log", xlabel="learning rate η", ylabel="test accuracy, %", title="By learning rate")
    by_rate.legend(frameon=False, title="batch norm")
    epochs = np.linspace(0, options.epochs, len(looks["as printed"]))
    for layer in range(len(SIZES) - 2):
        along = [look["cosine"][layer] for look in looks["as printed"]]
        cosines.plot(epochs, along, ".-", color=RED, alpha=0.35 + 0.3 * layer, label=f"hidden layer {layer + 1}")
    for way, of in looks.items():
        scales.plot(epochs, [look["scale"] for look in of], ".-", color=WAYS[way][1], label=way)
    cosines.axhline(0, color=GREY, linewidth=0.8)
    cosines.set(xlabel="epoch", ylim=(-0.75, 1.05), title=f"Cosine of printed and true ∂C/∂W, η = {options.watched:g}")
    cosines.legend(frameon=False, loc="lower right")
    scales.set(xlabel="epoch", ylabel="√ν̂², median of layer 1", title=f"The scale of ψ, η = {options.watched:g}")
    for axes in (by_rate, cosines, scales):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    train, test = digits.load()
    train = train[: options.examples]
    accuracy: dict = {}
    for way in WAYS:
        for rate in options.rates:
            reached = [run(options, way, rate, seed, train, test, None) for seed in options.seeds]
            accuracy.setdefault(way, {})[f"{rate:g}"] = reached
            print(f"{way}, η = {rate:g}: {results.spread(reached, 1)} %", flush=True)
    looks: dict = {way: [] for way in ("full", "as printed")}
    for way, of in looks.items():
        run(options, way, options.watched, options.seeds[0], train, test, of)
    made = claims(options, accuracy, looks)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    out = results.folder(options.out, "batchnorm_printed")
    draw(out / "batchnorm_printed.png", options, accuracy, looks)
    results.save(out, "batchnorm_printed", options, made, {"accuracy": accuracy, "looks": looks})


if __name__ == "__main__":
    main()
