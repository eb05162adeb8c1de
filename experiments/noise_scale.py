"""The gradient noise scale and the batch size that it suggests: ``python -m experiments.noise_scale``.

B_simple = tr Σ / ‖G‖² is the batch at which the noise of a mean gradient is as long as the gradient G itself, where Σ
is the covariance of one example's gradient (``fnn.per_example.noise_scale``). McCandlish, Kaplan, Amodei et al. 2018,
*An empirical model of large-batch training*, expect from it how the steps S and the examples E = S B that reach a goal
depend on the batch B:

    (S/S_min − 1) (E/E_min − 1) = 1,   that is  S = S_min (1 + B_crit/B),  with  B_crit = E_min/S_min

1. Sweep: for every batch size the number of steps to a goal of the training loss, plain gradient descent at a constant
   rate. Rates are tried in factors of 2, until the best one for every goal has a worse one on both sides.
   S_min and B_crit are fitted to the steps of all batch sizes.
2. Noise scale: along the best run of some of these batch sizes. tr Σ and ‖G‖², each estimated without bias, are
   averaged over chunks of the training set, and over neighbouring steps, before one is divided by the other: at rates
   that are best, G swings from step to step across the valley, and ‖G‖² with it by a factor of 10.
3. Prediction: over a run the theory gives S_min = ∫ ds and E_min = ∫ B_simple ds, where a step at batch B counts as
   ds = 1/(1 + B_simple/B) steps without noise. So B_crit should be the mean of B_simple, weighted by ds.

Mini-batches are drawn with replacement: their examples are independent, as the theory has them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import digits, results
from experiments.noise_scale_picture import draw, fit_tradeoff, run_average
from fnn.data import Dataset, as_floats

LOSS = fnn.SoftmaxCrossEntropy()
SPACING = 1.05  # of the steps at which the loss is taken: a goal is met between two of them, 5 % apart
WINDOW = 1.4  # neighbouring steps are those within this factor: 20 to 25 windows in a run
DIVERGED = 5.0  # a loss far above that of guessing, ln 10
FIRST_RATE = 0.2  # where the smallest batch begins its search


@dataclass(frozen=True)
class Options:
    """The gradient noise scale in training, and the batch size that it suggests against a measured sweep."""

    hidden: tuple[int, ...] = (100,)
    batches: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    goals: tuple[float, ...] = (0.5, 0.3, 0.2, 0.1)
    """Goals for the training loss, in decreasing order; the plot of the sweep uses the last."""
    measured: tuple[int, ...] = (64, 1024)
    """Batch sizes along whose best runs the noise scale is measured."""
    loss_examples: int = 10_000
    """Training examples for the loss."""
    noise_examples: int = 5000
    """Training examples for the noise scale, different ones at every step."""
    chunk: int = 1000
    """Examples per estimate of tr Σ and ‖G‖²."""
    most_steps: int = 100_000
    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path | None = None


class Curve(NamedTuple):
    """The training loss after some numbers of steps."""

    steps: list[int]
    losses: list[float]


# -- training --------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("batch", "scale"))
def advance(params, x, y, rate, key, start, stop, *, batch: int, scale: float):
    """The parameters after steps start … stop − 1 of gradient descent, each on ``batch`` examples of its own."""
    rule = fnn.updates.sgd(rate)

    def step(number, carry):
        params, state = carry
        rows = jax.random.randint(jax.random.fold_in(key, number), (batch,), 0, len(x))
        gradients = fnn.backprop(params, as_floats(x[rows], jnp.dtype("float32"), scale), y[rows], loss=LOSS)
        change, state = rule.update(gradients, state, params)
        return jax.tree.map(jnp.add, params, change), state

    return jax.lax.fori_loop(start, stop, step, (params, rule.init(params)))[0]


@jax.jit
def mean_loss(params, x, y):
    return jnp.mean(LOSS.value(fnn.forward(params, x), y))


class Problem:
    """The training set on the device, and networks trained on it from one seed."""

    def __init__(self, options: Options, data: Dataset):
        self.options, self.scale = options, data.scale
        self.x, self.y = jnp.asarray(data.x), jnp.asarray(data.y)
        first = data[: options.loss_examples]
        self.loss_rows = jnp.asarray(first.floats()), jnp.asarray(first.y)

    def states(self, batch: int, rate: float, seed: int) -> Iterator[tuple[int, fnn.layers.Params]]:
        """Steps so far and parameters of one run, at steps that grow by the factor SPACING, without an end."""
        sizes, (first, draws) = (784, *self.options.hidden, 10), jax.random.split(jax.random.key(seed))
        params = fnn.init(first, sizes, activation=fnn.ReLU(), initializer=fnn.initializers.he_normal)
        step = 0
        while True:
            yield step, params
            until = max(step + 1, int(step * SPACING))
            params = advance(
                params, self.x, self.y, np.float32(rate), draws, step, until, batch=batch, scale=self.scale
            )
            step = until

    def run(self, batch: int, rate: float, seed: int, limit: float) -> Curve:
        """The loss of one run until it reaches the last goal, diverges, or has taken ``limit`` steps."""
        curve = Curve([], [])
        for step, params in self.states(batch, rate, seed):
            curve.steps.append(step)
            curve.losses.append(float(mean_loss(params, *self.loss_rows)))
            if not self.options.goals[-1] < curve.losses[-1] < DIVERGED or step >= limit:
                return curve
        raise AssertionError("states has no end")

    def noise(self, params, start: int) -> tuple[float, float]:
        """tr Σ and ‖G‖², each the mean over the chunks of ``noise_examples`` that follow number ``start``."""
        size, parts = self.options.chunk, []
        for offset in range(0, self.options.noise_examples, size):
            i = (start + offset) % (len(self.x) - size + 1)
            x = as_floats(self.x[i : i + size], jnp.dtype("float32"), self.scale)
            parts.append(fnn.per_example.noise_scale(params, x, self.y[i : i + size], loss=LOSS)[1:])
        trace, squared_norm = np.mean(parts, axis=0)
        return float(trace), float(squared_norm)


def reached(curve: Curve, goal: float) -> float:
    """The number of steps at which the loss first falls to ``goal``, between two steps by log-log; else infinity."""
    for i, loss in enumerate(curve.losses):
        if i and loss <= goal:
            (s, t), (a, b) = np.log(np.maximum(curve.steps[i - 1 : i + 1], 0.5)), np.log(curve.losses[i - 1 : i + 1])
            return float(np.exp(s + (t - s) * (a - np.log(goal)) / (a - b)))
    return float("inf")


def tune(run: Callable[[float, float], Curve], goals: Sequence[float], rate: float, most: float) -> dict[float, Curve]:
    """Runs by rate, in factors of 2 from ``rate``, until no goal has its best at an end; run(rate, limit) -> Curve.

    A run that has taken as many steps as the best one to the last goal is stopped: the others are in it by then.
    """
    curves = {rate: run(rate, most)}
    while True:
        best = [best_rate(curves, goal) for goal in goals]
        if min(best) == min(curves):
            rate = min(curves) / 2
        elif max(best) == max(curves):
            rate = max(curves) * 2
        else:
            return curves
        curves[rate] = run(rate, min(most, *(reached(curve, goals[-1]) for curve in curves.values())))


def sweep(problem: Problem, seed: int) -> dict[int, dict[float, Curve]]:
    """Runs by batch size and rate; the search begins at the rate that was best for the batch before."""
    options, rate, found = problem.options, FIRST_RATE, {}
    for batch in options.batches:

        def run(rate, limit, batch=batch):
            return problem.run(batch, rate, seed, limit)

        found[batch] = tune(run, options.goals, rate, options.most_steps)
        rate = best_rate(found[batch], options.goals[-1])
        steps = reached(found[batch][rate], options.goals[-1])
        if steps == float("inf"):
            raise SystemExit(f"batch {batch}: no run reached a loss of {options.goals[-1]}; allow more --most-steps")
        print(f"seed {seed}, batch {batch}: {steps:,.0f} steps at η = {rate:g}, of {len(found[batch])}", flush=True)
    return found


def best_rate(curves: dict[float, Curve], goal: float) -> float:
    return min(curves, key=lambda rate: reached(curves[rate], goal))


def measure(problem: Problem, batch: int, curves: dict[float, Curve], seed: int) -> dict:
    """The noise scale along the best run of a batch size, by windows of steps, and its average up to every goal."""
    goals, rate = problem.options.goals, best_rate(curves, problem.options.goals[-1])
    ends, points = [reached(curves[rate], goal) for goal in goals], []
    for number, (step, params) in enumerate(problem.states(batch, rate, seed)):
        loss = float(mean_loss(params, *problem.loss_rows))
        points.append((step, loss, *problem.noise(params, number * problem.options.noise_examples)))
        if step >= ends[-1]:
            break
    means = windows(points)
    steps, noise = ([point[name] for point in means] for name in ("step", "noise scale"))
    return {
        "rate": rate,
        "windows": [{name: float(f"{value:.4g}") for name, value in point.items()} for point in means],
        "averages": {str(goal): run_average(steps, noise, batch, end) for goal, end in zip(goals, ends)},
        "at goals": {str(goal): float(np.interp(end, steps, noise)) for goal, end in zip(goals, ends)},
    }


def windows(points: Sequence[tuple[float, float, float, float]]) -> list[dict[str, float]]:
    """Means of (step, loss, tr Σ, ‖G‖²) over neighbouring steps, and the noise scale: their quotient of the two last.

    A window holds the steps from s to WINDOW s; the first is step 0 alone.
    """
    means: list[dict[str, float]] = []
    rest = list(points)
    while rest:
        count = sum(point[0] <= WINDOW * rest[0][0] for point in rest)
        step, loss, trace, squared_norm = np.mean(rest[:count], axis=0).tolist()
        means.append({"step": step, "loss": loss, "trace": trace, "squared norm": squared_norm})
        means[-1]["noise scale"] = trace / squared_norm
        rest = rest[count:]
    return means


def one_seed(problem: Problem, seed: int) -> dict:
    """The sweep with its fits by goal, and the noise scale along some runs."""
    found, goals = sweep(problem, seed), problem.options.goals
    best = {goal: [min(reached(c, goal) for c in curves.values()) for curves in found.values()] for goal in goals}
    rates = {goal: [best_rate(curves, goal) for curves in found.values()] for goal in goals}
    return {
        "steps": {str(goal): [round(s, 1) for s in steps] for goal, steps in best.items()},
        "rates": {str(goal): at for goal, at in rates.items()},
        "tried": {str(batch): sorted(curves) for batch, curves in found.items()},
        "fits": {str(goal): fit_tradeoff(list(found), steps) for goal, steps in best.items()},
        "noise": {str(batch): measure(problem, batch, found[batch], seed) for batch in problem.options.measured},
    }


# -- what is left ----------------------------------------------------------------------------------------------


def claims(options: Options, runs: dict[str, dict]) -> list[results.Claim]:
    several, goal = list(runs.values()), str(options.goals[-1])
    network = "-".join(map(str, (784, *options.hidden, 10)))
    critical = [run["fits"][goal]["B_crit"] for run in several]
    predicted = {b: [run["noise"][str(b)]["averages"][goal] for run in several] for b in options.measured}
    made = [
        results.Claim(
            f"{network} on MNIST, to a training loss of {goal}: critical batch of a sweep, and the noise scale "
            f"averaged over the run at batch {' and '.join(map(str, options.measured))}; {len(several)} seeds",
            f"{results.spread(critical, 0)}; {' and '.join(results.spread(p, 0) for p in predicted.values())}: "
            + " and ".join(f"{np.mean(p) / np.mean(critical):.2g}" for p in predicted.values())
            + " times what was measured",
            "it predicts the largest useful batch size (McCandlish et al. 2018)",
            "predicted up to a factor, which is that of the last figures; one network, plain SGD, "
            f"{len(several)} seeds",
        )
    ]
    for batch in options.measured:
        noise = [run["noise"][str(batch)] for run in several]
        first, last = [n["windows"][0]["noise scale"] for n in noise], [n["at goals"][goal] for n in noise]
        made.append(
            results.Claim(
                f"noise scale in examples, batch {batch}: before training, and at a training loss of {goal}",
                f"{results.spread(first, 1)} and {results.spread(last, 0)}",
            )
        )
    for other in options.goals[:-1]:
        fits = [run["fits"][str(other)]["B_crit"] for run in several]
        average = [[run["noise"][str(b)]["averages"][str(other)] for run in several] for b in options.measured]
        made.append(
            results.Claim(
                f"the same comparison, to a training loss of {other}",
                f"{results.spread(fits, 0)}; {' and '.join(results.spread(a, 0) for a in average)}",
            )
        )
    steps = np.exp(np.mean([np.log(run["steps"][goal]) for run in several], axis=0))
    low, high = options.batches[0], options.batches[-1]
    made.append(
        results.Claim(
            f"steps to a training loss of {goal}, batch {low} → {high}; examples",
            f"{steps[0]:,.0f} → {steps[-1]:,.0f}; {low * steps[0]:,.0f} → {high * steps[-1]:,.0f}",
        )
    )
    left = 100 * np.mean([run["fits"][goal]["left"] for run in several])
    made.append(results.Claim("how far the steps are from S_min (1 + B_crit/B): RMS", f"{left:.0f} %"))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if not set(options.measured) <= set(options.batches):
        raise SystemExit(f"--measured: expected batch sizes of the sweep, {options.batches}, got {options.measured}")
    data, _ = digits.load()
    problem = Problem(options, data)
    runs = {f"seed {seed}": one_seed(problem, seed) for seed in options.seeds}
    made = claims(options, runs)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    out = results.folder(options.out, "noise_scale")
    draw(out / "noise_scale.png", options, runs)
    results.save(out, "noise_scale", options, made, runs)


if __name__ == "__main__":
    main()
