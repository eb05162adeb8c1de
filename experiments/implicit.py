"""Robustness to the learning rate: explicit against implicit SGD (S9), ``python -m experiments.implicit``.

The test loss after a fixed number of steps, for every η over six decades, on three problems: linear and logistic
regression on features of different scales, and MNIST with a 784-100-10 tanh network. The claim is that implicit SGD is
robust to a large η. Two criteria, which can disagree: a method *learns* at an η if its final test loss is below the
initial one, and is *good* if its test loss is at most twice the best of all methods and rates.
Every seed has its own data, starts and mini-batches.

``--full``: six epochs of MNIST, all test images, and two rates for each decade there too. The paper gives no length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, long_runs, results
from experiments.figures import BLUE, GREY, RED

ORANGE = "#d98a1f"
STYLES = {
    "explicit": (GREY, "o"),
    "momentum": (ORANGE, "s"),
    "implicit": (BLUE, "D"),
    "implicit, linear output": (RED, "^"),
}
DIGITS = "MNIST, 784-100-10, tanh"
WITHIN = 2.0  # times the best test loss: "good"


@dataclass(frozen=True)
class Options:
    """Test loss against the learning rate, explicit and implicit."""

    steps: int = 500
    """Mini-batches of the two regressions."""
    mnist_steps: int = 600
    """Mini-batches of 100 on MNIST: 600 are one epoch."""
    test_images: int = 5000
    rates_per_decade: int = 2
    """Learning rates per decade for the regressions; one for MNIST."""
    full: bool = False
    """Six epochs on MNIST with all test images and two rates per decade."""
    momentum: float = 0.9
    seeds: int = 5
    checkpoint: Path | None = None
    """Folder that keeps what has finished: a repeated command resumes, and several processes may share it."""
    report: bool = False
    """Train nothing, and leave the record of what has finished in the folder."""
    out: Path | None = None


class Problem(NamedTuple):
    """What is learnt: params to start from, mini-batches (steps, B, …), the test set, the loss, and implicit steps."""

    params: fnn.layers.Params
    x: jax.Array
    y: jax.Array
    test: tuple[jax.Array, jax.Array]
    loss: fnn.Loss
    rates: np.ndarray
    implicit: dict[str, Callable]


class Method(NamedTuple):
    """A rule: init(params) -> state, and step(params, state, x, y, rate) -> (params, state)."""

    init: Callable
    step: Callable


def rates(per_decade: int) -> np.ndarray:
    """10⁻³ to 10³."""
    return np.logspace(-3, 3, 6 * per_decade + 1)


def regression(
    options: Options, seed: int, logistic: bool, features: int = 20, batch: int = 10, tests: int = 2000
) -> Problem:
    """Features with standard deviations from 0.1 to 10; targets with noise, or classes drawn by their probability."""
    random = np.random.default_rng([seed, logistic])
    size = np.logspace(-1, 1, features)
    theta = random.normal(size=(features, 1)) / size[:, None] / (1 if logistic else features**0.5)
    x = random.normal(size=(options.steps * batch + tests, features)) * size
    if logistic:
        y = (random.uniform(size=(len(x), 1)) < 1 / (1 + np.exp(-x @ theta))).astype("float32")
    else:
        y = x @ theta + 0.1 * random.normal(size=(len(x), 1))
    loss: fnn.Loss = fnn.SigmoidCrossEntropy() if logistic else fnn.SquaredError()
    step = partial(fnn.implicit.generalized_linear if logistic else fnn.implicit.linear, loss=loss)
    params = (fnn.Dense(jnp.zeros((1, features)), jnp.zeros(1), fnn.Identity()),)
    inputs, targets = (jnp.asarray(v[:-tests].reshape(options.steps, batch, -1), "float32") for v in (x, y))
    last = jnp.asarray(x[-tests:], "float32"), jnp.asarray(y[-tests:], "float32")
    return Problem(params, inputs, targets, last, loss, rates(options.rates_per_decade), {"implicit": step})


def mnist(options: Options, seed: int, batch: int = 100) -> Problem:
    train, test = digits.load()
    random = np.random.default_rng(seed)
    passes = -(-options.mnist_steps * batch // len(train))
    order = np.concatenate([random.permutation(len(train)) for _ in range(passes)])
    order = order[: options.mnist_steps * batch].reshape(-1, batch)
    last = jnp.asarray(test[: options.test_images].floats()), jnp.asarray(test.y[: options.test_images], "int32")
    loss = fnn.SoftmaxCrossEntropy()
    step = partial(fnn.implicit.layerwise, loss=loss)
    return Problem(
        fnn.init(jax.random.key(seed), (784, 100, 10), activation=fnn.Tanh()),
        jnp.asarray(train.x[order]), jnp.asarray(train.y[order], "int32"), last, loss,
        rates(2 if options.full else 1),
        {"implicit": step, "implicit, linear output": partial(step, output="linear")},
    )  # fmt: skip


def sweep(problem: Problem, method: Method) -> list[float | None]:
    """The test loss after all mini-batches for every rate, None where it is not finite; one compilation for all."""

    def run(rate):
        def body(carry, batch):
            x, y = batch
            if x.dtype == jnp.uint8:  # as MNIST is stored
                x = x.astype(jnp.float32) / 255
            return method.step(*carry, x, y, rate), None

        start = problem.params, method.init(problem.params)
        (params, _), _ = jax.lax.scan(body, start, (problem.x, problem.y))
        x, y = problem.test
        return jnp.mean(problem.loss.value(fnn.forward(params, x), y))

    values = jax.jit(lambda rates: jax.lax.map(run, rates))(jnp.asarray(problem.rates, jnp.float32))
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values)]


def methods(problem: Problem, alpha: float) -> dict[str, Method]:
    def explicit(rule):
        def step(params, state, x, y, rate):
            gradients = fnn.backprop(params, x, y, loss=problem.loss)
            steps, state = rule(rate).update(gradients, state)
            return optax.apply_updates(params, steps), state

        return Method(rule(1.0).init, step)

    def implicit(step):
        return Method(lambda params: (), lambda params, state, x, y, rate: (step(params, x, y, rate), state))

    rules = {"explicit": fnn.updates.sgd, "momentum": partial(fnn.updates.momentum, alpha=alpha)}
    return {name: explicit(rule) for name, rule in rules.items()} | {
        name: implicit(step) for name, step in problem.implicit.items()
    }


def judge(losses: dict[str, list[float | None]], rates: np.ndarray, before: float) -> dict[str, dict]:
    """For every method its best test loss, the rate of it, and the rates where it learns and where it is good."""
    best = min(value for values in losses.values() for value in values if value is not None)
    report = {}
    for name, values in losses.items():
        finite = [(value, rate) for value, rate in zip(values, rates) if value is not None]
        learns, good = ([float(rate) for value, rate in finite if value <= limit] for limit in (before, WITHIN * best))
        value, rate = min(finite, default=(None, None))
        report[name] = {
            "best": value,
            "at": None if rate is None else float(rate),
            "learns at": learns,
            "good at": good,
        }
    return report


def table(title: str, losses: dict, rates: np.ndarray, report: dict) -> str:
    """One row per method; the rates in columns, whole decades only."""
    whole = [i for i, rate in enumerate(rates) if abs(np.log10(rate) - round(np.log10(rate))) < 1e-6]
    lines = [
        f"\n{title}: test loss by η",
        " " * 25 + "".join(f"{rates[i]:>9.3g}" for i in whole) + "   learns at, good at",
    ]
    for name, values in losses.items():
        cells = "".join(f"{'diverged' if values[i] is None else format(values[i], '.3g'):>9}" for i in whole)
        lines.append(
            f"{name:25}{cells}   {len(report[name]['learns at'])}, {len(report[name]['good at'])} of {len(rates)} rates"
        )
    return "\n".join(lines)


def verdict(report: dict) -> str:
    """Where the claim holds: is an implicit method, by either measure, so at more rates? And at what price?"""
    lines = []
    for measure in ("learns at", "good at"):
        count = {name: len(of[measure]) for name, of in report.items()}
        implicit = max((name for name in report if name.startswith("implicit")), key=count.__getitem__)
        explicit = max(("explicit", "momentum"), key=count.__getitem__)
        holds = "holds" if count[implicit] > count[explicit] else "does NOT hold"
        lines.append(
            f"  robustness {holds}: {implicit} {measure} {count[implicit]} rates, {explicit} at {count[explicit]}"
        )
    bests = sorted((of["best"], name, of["at"]) for name, of in report.items() if of["best"] is not None)
    each = ", ".join(f"{name} {best:.3g} (η = {rate:.3g})" for best, name, rate in bests)
    return "\n".join([*lines, f"  at its own best rate: {each}"])


def run(options: Options, seed: int, _: Path | None = None) -> dict:
    """The losses of every method at every rate, and what follows from them, by problem."""
    problems = {
        "linear regression": regression(options, seed, logistic=False),
        "logistic regression": regression(options, seed, logistic=True),
        DIGITS: mnist(options, seed),
    }
    outcome = {}
    for title, problem in problems.items():
        losses = {name: sweep(problem, method) for name, method in methods(problem, options.momentum).items()}
        x, y = problem.test
        before = float(jnp.mean(problem.loss.value(fnn.forward(problem.params, x), y)))
        report = judge(losses, problem.rates, before)
        outcome[title] = {"rates": problem.rates.tolist(), "losses": losses, "before": before, "report": report,
                          "steps": len(problem.x)}  # fmt: skip
    return outcome


def claims(options: Options, outcomes: list[dict]) -> list[results.Claim]:
    """Robust, and not better: at how many rates it learns, and its best loss, on MNIST and then the regressions."""
    digits_first = (DIGITS, *(title for title in outcomes[0] if title not in (DIGITS, "seconds")))
    return [claim(options, title, [outcome[title] for outcome in outcomes]) for title in digits_first]


def claim(options: Options, title: str, seeds: list[dict]) -> results.Claim:
    """For one problem."""
    names = ("implicit", "explicit")
    counts = " and ".join(
        results.spread([len(of["report"][name]["learns at"]) for of in seeds], 1) for name in names
    )  # fmt: skip
    bests = {name: np.array([of["report"][name]["best"] for of in seeds], float) for name in names}  # NaN for none
    best = " and ".join(results.spread(list(bests[name]), 3) for name in names)
    lower = int((bests["implicit"] < bests["explicit"]).sum())
    more = sum(len(of["report"]["implicit"]["learns at"]) > len(of["report"]["explicit"]["learns at"]) for of in seeds)
    reproduced = "reproduced" if more == len(seeds) else "not reproduced"
    published = (
        "more robust at high rates (Fagan and Iyengar 2018)",
        f"{reproduced}: it learns at more rates in {more} of {len(seeds)} seeds; other networks and data; "
        f"{seeds[0]['steps']:,} mini-batches; the best loss of a rate is lower with implicit steps in {lower}",
    )
    return results.Claim(
        f"{title}: learning rates at which it learns, of {len(seeds[0]['rates'])} from 0.001 to 1,000, and best test "
        f"loss, implicit and explicit, {long_runs.count(len(seeds), options.seeds)}",
        f"{counts}; {best}",
        *(published if title == DIGITS else ()),
    )


def draw(path: Path, outcomes: list[dict]) -> None:
    """The median over the seeds, lowest and highest."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    titles = [title for title in outcomes[0] if title != "seconds"]
    for axes, title in zip(figure.subplots(1, 3), titles):
        seeds = [outcome[title] for outcome in outcomes]
        rates, before = seeds[0]["rates"], float(np.mean([of["before"] for of in seeds]))
        known = [v for of in seeds for values in of["losses"].values() for v in values if v is not None]
        low, high = min(known) / 1.5, before * 4
        axes.axhline(before, color="#bbbbbb", linestyle=":", label="before training")
        for name in seeds[0]["losses"]:
            colour, marker = STYLES[name]
            capped = [[high if v is None else min(v, high) for v in of["losses"][name]] for of in seeds]
            axes.fill_between(rates, np.min(capped, axis=0), np.max(capped, axis=0), color=colour, alpha=0.2, lw=0)
            axes.plot(rates, np.median(capped, axis=0), color=colour, marker=marker, markersize=4, label=name)
        axes.set(xscale="log", yscale="log", ylim=(low, high * 1.6), xlabel="learning rate η", title=title)
        axes.axhspan(high / 1.15, high * 1.6, color="#f3e3de", zorder=0)
        axes.text(1.2e-3, high * 1.3, "worse, or diverged", fontsize=8, color=RED, va="center")
        axes.spines[["top", "right"]].set_visible(False)
    first, *_, last = figure.axes
    first.set_ylabel("test loss" + (f", median and range of {len(outcomes)} seeds" if len(outcomes) > 1 else ""))
    handles, labels = last.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if options.full:
        options = replace(options, mnist_steps=3600, test_images=10_000)
    names = {seed: [f"seed {seed}"] for seed in range(options.seeds)}
    left = long_runs.finished(
        options.checkpoint,
        {name: partial(run, options, seed) for seed, (name,) in names.items()},
        settings=results.command("implicit", replace(options, seeds=5)),
        report=options.report,
    )
    done = [left[name] for seed in long_runs.complete(left, names) for name in names[seed]]
    for title in (title for title in done[0] if title != "seconds"):
        of = done[0][title]
        print(table(f"{title}, first seed", of["losses"], np.array(of["rates"]), of["report"]))
        print(verdict(of["report"]), flush=True)
    shortened = f"MNIST for {options.mnist_steps} mini-batches, {options.test_images:,} test images"
    print(f"Shortened: {shortened}.")
    made = claims(options, done)
    for one in made:
        print(f"{one.claim}: {one.here}")
    out = results.folder(options.out, "implicit")
    draw(out / "implicit.png", done)
    results.save(out, "implicit", options, made, left, shortened=shortened, seconds=long_runs.seconds(left))


if __name__ == "__main__":
    main()
