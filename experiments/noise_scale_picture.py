"""The picture of ``experiments.noise_scale``, and the theory's curves in it."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.figures import BLUE, GREY, RED


def fit_tradeoff(batches: Sequence[float], steps: Sequence[float]) -> dict[str, float]:
    """S_min and B_crit of S = S_min (1 + B_crit/B), by least squares of log S; and the RMS of what is left."""
    B, S = np.array(batches, float), np.log(steps)
    candidates = np.geomspace(B.min() / 100, B.max() * 100, 20_001)
    curves = np.log1p(candidates[:, None] / B)
    constants = (S - curves).mean(axis=1)
    left = np.sqrt(((S - curves - constants[:, None]) ** 2).mean(axis=1))
    i = int(left.argmin())
    minimum, critical = float(np.exp(constants[i])), float(candidates[i])
    return {"S_min": minimum, "E_min": minimum * critical, "B_crit": critical, "left": float(left[i])}


def run_average(steps: Sequence[float], noise: Sequence[float], batch: int, end: float) -> float:
    """∫ B_simple ds / ∫ ds up to step ``end``, with ds = dt/(1 + B_simple/batch), by the trapezoidal rule."""
    t, b = np.array(steps, float), np.array(noise)
    inside = np.append(t[t < end], end)
    b = np.interp(inside, t, b)
    weight = 1 / (1 + b / batch)
    return float(np.trapezoid(b * weight, inside) / np.trapezoid(weight, inside))


def draw(path: Path, options, runs: dict[str, dict]) -> None:
    """Growth of the noise scale, steps and examples by batch size, and both critical batch sizes; runs by seed."""
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    growth, tradeoff, compared = figure.subplots(1, 3)
    draw_growth(growth, options, runs)
    draw_tradeoff(tradeoff, options, runs)
    draw_compared(compared, options, runs)
    for axes in (growth, tradeoff, compared):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="minor", labelleft=False, labelbottom=False)
    figure.savefig(path, dpi=110)


def colours(options) -> dict[int, str]:
    return dict(zip(options.measured, itertools.cycle((BLUE, RED, GREY))))


def draw_growth(axes, options, runs: dict) -> None:
    """The noise scale against the loss, which falls to the right."""
    for batch, colour in colours(options).items():
        for number, run in enumerate(runs.values()):
            points = run["noise"][str(batch)]["windows"]
            label = f"batch {batch}" if number == 0 else None
            values = ([p[name] for p in points] for name in ("loss", "noise scale"))
            axes.plot(*values, ".-", color=colour, alpha=0.7, linewidth=1, markersize=4, label=label)
    axes.set(xscale="log", yscale="log", xlabel="training loss", ylabel="noise scale tr Σ / ‖G‖², examples")
    axes.invert_xaxis()
    ticks = [2, 1, *options.goals]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_title("The noise scale grows in training")
    axes.legend(frameon=False, title=f"run with (each of {len(runs)} seeds)")


def draw_tradeoff(axes, options, runs: dict) -> None:
    """Steps and examples to the last goal by batch size, with the fitted hyperbola."""
    goal, B = str(options.goals[-1]), np.array(options.batches)
    S = np.exp(np.mean([np.log(run["steps"][goal]) for run in runs.values()], axis=0))
    for run in runs.values():
        axes.plot(run["steps"][goal], B * run["steps"][goal], ".", color=GREY, alpha=0.6, markersize=3)
    axes.plot(S, B * S, "o", color=BLUE, markersize=5, label="measured, geometric mean of the seeds")
    fit = fit_tradeoff(options.batches, S.tolist())
    fine = np.geomspace(B[0] / 2, B[-1] * 2, 200)
    steps = fit["S_min"] * (1 + fit["B_crit"] / fine)
    label = f"fit: B_crit = {fit['B_crit']:.0f}"
    axes.plot(steps, fine * steps, color=RED, linewidth=1, label=label, zorder=0)
    axes.axvline(fit["S_min"], color=RED, linestyle=":", linewidth=1, zorder=0)
    axes.axhline(fit["E_min"], color=RED, linestyle=":", linewidth=1, zorder=0)
    for batch, s in zip(B, S):
        axes.annotate(str(batch), (s, batch * s), (8, 6), textcoords="offset points", fontsize=8, color=BLUE)
    axes.set(xscale="log", yscale="log", xlabel="steps S", ylabel="examples E")
    axes.set_title(f"To a training loss of {goal}, by batch size")
    axes.legend(frameon=False)


def draw_compared(axes, options, runs: dict) -> None:
    """B_crit of the sweep and the noise scale's average over the run, by goal."""
    goals = [str(goal) for goal in options.goals]
    critical = [[run["fits"][goal]["B_crit"] for goal in goals] for run in runs.values()]
    series = [("measured: E_min/S_min of the sweep", "o-", "black", critical)]
    for batch, colour in colours(options).items():
        averages = [[run["noise"][str(batch)]["averages"][goal] for goal in goals] for run in runs.values()]
        series.append((f"noise scale, mean over the run at batch {batch}", "s--", colour, averages))
    for label, style, colour, values in series:
        of = np.array(values)
        axes.plot(options.goals, of.mean(axis=0), style, color=colour, label=label, markersize=5)
        for row in of:
            axes.plot(options.goals, row, ".", color=colour, alpha=0.5, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="goal, training loss", ylabel="batch size, examples")
    axes.invert_xaxis()
    axes.set_yticks((50, 100, 200, 500), ("50", "100", "200", "500"))
    axes.set_xticks(options.goals, goals)
    axes.set_xticks([], minor=True)
    axes.set_title("Critical batch size, measured and predicted")
    axes.legend(frameon=False, fontsize=8)
