"""Gradient descent in one and two dimensions: ``python -m experiments.descent``.

1. f(x) = x² with step sizes that are too small, good, too large and far too large (equations H2, B2).
2. f(x, y) = 2x² + 3xy + y³: a saddle, a minimum with its basin, and a start outside it (B1, B10).
3. A function with many minima: from which of 2,001 starts each rule reaches the lowest (E5). Momentum may leave a
   minimum, and it may also run through the lowest one.
4. Linear regression by descent against the closed form, and the printed closed form against the stable one (H4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import results
from experiments.figures import BLUE, GREY, RED
from fnn.regression import normal_equations
from fnn.updates import descend, momentum, nesterov, sgd

GREEN = "#2e7d4f"
RATES = {"crawls, η = 0.02": (0.02, GREY), "goes, η = 0.3": (0.3, BLUE),
         "overshoots, η = 0.9": (0.9, GREEN), "climbs, η = 1.04": (1.04, RED)}  # fmt: skip
RULES = {"plain": (sgd, BLUE), "momentum": (momentum, RED), "Nesterov": (nesterov, GREEN)}
MINIMUM = (-9 / 16, 3 / 4)
INSIDE, OUTSIDE = ((0.9, 0.9), (-1.7, 0.4), (-1.0, -0.4)), (0.45, -0.65)
STARTS = np.linspace(-5, 5, 2001)
START, LOWEST = 4.0, -0.4946  # the start whose path is drawn, and the lowest minimum
DEGREES = range(1, 15)


@dataclass(frozen=True)
class Options:
    """Gradient descent in one and two dimensions: step lengths, a saddle, many minima, least squares."""

    steps: int = 400
    """Steps of gradient descent."""
    examples: int = 50
    """Data points in the regressions."""
    out: Path | None = None


def square(x):
    """H2, B13: f(x) = x², with its derivative 2x."""
    return x * x, 2 * x


def cubic(p):
    """B1: f(x, y) = 2x² + 3xy + y³, with its printed gradient (4x + 3y, 3x + 3y²); 0 is a saddle (B10)."""
    x, y = p
    return 2 * x**2 + 3 * x * y + y**3, jnp.stack([4 * x + 3 * y, 3 * x + 3 * y**2])


def wavy(x):
    """A parabola with waves: minima at −4.29, −2.43, −0.49 (the lowest), 1.46 and 3.38."""
    return x * x / 10 + 0.3 * jnp.sin(3 * x), x / 5 + 0.9 * jnp.cos(3 * x)


def polynomials(examples: int, degree: int) -> jax.Array:
    """1, t, …, t^degree at points of [0, 1], (examples, degree + 1) float64."""
    return jnp.vander(jnp.linspace(0, 1, examples), degree + 1, increasing=True)


def squared_error(A, y, v):
    """½‖Av − y‖² and its gradient Aᵀ(Av − y)."""
    r = A @ v - y
    return r @ r / 2, A.T @ r


def regression_by_descent(options: Options) -> dict[str, list[float]]:
    """‖v_n − v‖/‖v‖ by step for each rule, with v from the closed form: a parabola through noisy points."""
    A = polynomials(options.examples, 2)
    y = A @ np.array([1.0, -2.0, 3.0]) + 0.1 * np.random.default_rng(0).normal(size=options.examples)
    v = fnn.regression.least_squares(A, y)
    rate = 1 / float(jnp.linalg.norm(A, ord=2)) ** 2  # 1/σ₁²: the longest that is safe with momentum
    paths = {}
    for name, (rule, _) in RULES.items():
        points = descend(partial(squared_error, A, y), np.zeros(3), rate, options.steps, rule=rule).points
        paths[name] = (jnp.linalg.norm(points - v, axis=1) / jnp.linalg.norm(v)).tolist()
    return paths


def accuracy(options: Options) -> dict[str, list[float]]:
    """The condition of A for each degree, and the relative errors of coefficients that are all 1, in float64."""
    columns: dict[str, list[float]] = {"condition": [], "factorisation": [], "as printed": []}
    for degree in DEGREES:
        A = polynomials(options.examples, degree)
        columns["condition"].append(float(jnp.linalg.cond(A)))
        for name, solve in (("factorisation", fnn.regression.least_squares), ("as printed", normal_equations)):
            v = np.asarray(solve(A, A @ jnp.ones(degree + 1)))
            columns[name].append(float(np.linalg.norm(v - 1) / np.sqrt(degree + 1)))
    return columns


def run(options: Options) -> dict:
    """Every path and figure, in float64."""
    starts = {str(start): start for start in (*INSIDE, OUTSIDE)}
    return {
        "x squared": {name: descend(square, 1.0, eta, 30).points.tolist() for name, (eta, _) in RATES.items()},
        "saddle": {n: finite(descend(cubic, np.array(x0), 0.05, options.steps).points) for n, x0 in starts.items()},
        "waves": {name: from_every_start(options, rule) for name, (rule, _) in RULES.items()},
        "regression": regression_by_descent(options),
        "accuracy": accuracy(options),
    }


def from_every_start(options: Options, rule: Callable) -> dict:
    """The share of all starts that end in the lowest minimum, where every one ends, and one path."""

    def of_all(x):
        values, slopes = wavy(x)
        return jnp.sum(values), slopes  # the starts do not touch each other: every rule here acts on single entries

    ends = np.asarray(descend(of_all, STARTS, 0.1, options.steps, rule=rule).points[-1])
    path = descend(wavy, START, 0.1, options.steps, rule=rule).points
    return {"share": float(np.mean(lowest(ends))), "ends": ends.tolist(), "path": path.tolist()}


def lowest(ends) -> np.ndarray:
    """Whether a point is in the lowest valley: between the maxima beside it."""
    return np.abs(np.asarray(ends) - LOWEST) < 0.9


def claims(figures: dict) -> list[results.Claim]:
    """Least squares, and momentum among many minima."""
    degree = 10
    errors = {name: values[DEGREES.index(degree)] for name, values in figures["accuracy"].items()}
    shares = ", ".join(f"{100 * of['share']:.1f}" for of in figures["waves"].values())
    return [
        results.Claim(
            f"least squares of degree {degree} in float64: error by factorisation, and by the printed inverse",
            f"{errors['factorisation']:.0e} and {errors['as printed']:.2f}",
        ),
        results.Claim(
            f"many minima: the share of {len(STARTS):,} starts from −5 to 5 that end in the lowest, by plain descent, "
            "momentum, Nesterov's",
            f"{shares} %",
        ),
    ]


def thinned(figures: dict) -> dict:
    """For JSON: five digits, and of long paths every tenth point and the last."""

    def path(points: list) -> list:
        kept = points if len(points) <= 50 else [*points[:-1:10], points[-1]]
        return [
            [float(f"{v:.5g}") for v in point] if isinstance(point, list) else float(f"{point:.5g}") for point in kept
        ]

    def kept(value):
        return path(value) if isinstance(value, list) else thinned(value) if isinstance(value, dict) else value

    return {name: kept(value) for name, value in figures.items()}


def finite(points) -> list:
    """The path as far as it is finite, for JSON has no infinity."""
    return [point for point in np.asarray(points).tolist() if np.all(np.isfinite(point))]


def tell(figures: dict) -> None:
    print("x², 30 steps from 1")
    for name, points in figures["x squared"].items():
        print(f"  {name:20} x = {points[-1]: .2e}")
    print(f"2x² + 3xy + y³, minimum at {MINIMUM}")
    for start, points in figures["saddle"].items():
        print(f"  from {start:14} to ({points[-1][0]: .3g}, {points[-1][1]: .3g})")
    print(f"many minima: starts of {len(STARTS):,} that end in the lowest, at {LOWEST:.2f}")
    for name, of in figures["waves"].items():
        print(f"  {name:9} {of['share']:.1%}; from {START:g} to {of['path'][-1]:.2f}")
    print("least squares by descent, relative distance to the closed form at the end")
    for name, errors in figures["regression"].items():
        print(f"  {name:9} {errors[-1]:.1e}")
    print("closed form in float64, relative error\n  degree  condition  factorisation  as printed")
    for degree, *row in zip(DEGREES, *figures["accuracy"].values()):
        print(f"  {degree:6}  {row[0]:9.1e}  {row[1]:13.1e}  {row[2]:10.1e}")


def draw(path: Path, figures: dict) -> None:
    figure = Figure(figsize=(14, 8), layout="constrained")
    panels = figure.subplots(2, 3)
    for axes, panel in zip(panels.flat, (parabola, lengths, saddle, waves, regression, digits)):
        panel(axes, figures)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def parabola(axes, figures: dict) -> None:
    t = np.linspace(-1.6, 1.6, 200)
    axes.plot(t, t * t, color=GREY, linewidth=0.8)
    for name, (_, colour) in RATES.items():
        points = np.array(figures["x squared"][name][:7])
        axes.plot(points, points**2, ".-", color=colour, linewidth=0.9, label=name)
    axes.set(xlabel="x", ylabel="f", title="x²: the first six steps from 1")


def lengths(axes, figures: dict) -> None:
    for name, (_, colour) in RATES.items():
        axes.semilogy(np.abs(figures["x squared"][name]), color=colour, label=name)
    axes.set(xlabel="step", ylabel="|x|, distance to the minimum", title="x²: the length of the step")
    axes.legend(frameon=False, loc="lower left")


def saddle(axes, figures: dict) -> None:
    x, y = np.meshgrid(np.linspace(-2, 1.2, 200), np.linspace(-1.5, 1.5, 200))
    axes.contour(x, y, 2 * x**2 + 3 * x * y + y**3, levels=np.linspace(-3, 6, 25), colors=GREY, linewidths=0.5)
    for start, points in figures["saddle"].items():
        colour = RED if start == str(OUTSIDE) else BLUE
        axes.plot(*np.transpose(points), ".-", color=colour, markersize=4, linewidth=1)
        axes.plot(*points[0], "o", color=colour)
    axes.plot(*MINIMUM, "*", color="black", markersize=11, label="minimum")
    axes.plot(0, 0, "x", color="black", markersize=8, label="saddle")
    axes.set(xlim=(-2, 1.2), ylim=(-1.5, 1.5), xlabel="x", ylabel="y", title="2x² + 3xy + y³: in and out of the basin")
    axes.legend(loc="lower left", framealpha=1)


def waves(axes, figures: dict) -> None:
    t = np.linspace(-5.3, 5.3, 400)
    axes.plot(t, t * t / 10 + 0.3 * np.sin(3 * t), color=GREY, linewidth=0.8)
    points = np.array(figures["waves"]["momentum"]["path"])
    axes.plot(points, wavy(points)[0], ".", color=RULES["momentum"][1], markersize=3)
    axes.plot(START, wavy(START)[0], "o", color="black", markersize=4)
    for row, (name, of) in enumerate(figures["waves"].items(), 1):
        reached = STARTS[lowest(of["ends"])]
        label = f"{name}: {of['share']:.1%} of all starts"
        axes.plot(
            reached, np.full(len(reached), -0.25 * row - 0.2), "|", color=RULES[name][1], markersize=9, label=label
        )
    axes.set(xlabel="x; below: the starts that end in the lowest minimum", ylabel="f", ylim=(-1.15, 4.3))
    axes.set_title("Many minima, and a path by momentum")
    axes.legend(frameon=False, loc="upper center")


def regression(axes, figures: dict) -> None:
    for name, errors in figures["regression"].items():
        axes.semilogy(errors, color=RULES[name][1], label=name)
    axes.set(xlabel="step", ylabel="distance to the closed form", title="Least squares by descent, a parabola's fit")
    axes.legend(frameon=False)


def digits(axes, figures: dict) -> None:
    columns = figures["accuracy"]
    for name, label, colour in (("as printed", "(AᵀA)⁻¹Aᵀy", RED), ("factorisation", "SVD of A", BLUE)):
        axes.loglog(columns["condition"], columns[name], ".-", color=colour, label=label)
    axes.axhline(1, color=GREY, linewidth=0.8)
    axes.set(xlabel="condition of A", ylabel="relative error", title="Least squares in closed form, float64")
    axes.legend(frameon=False)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    with jax.enable_x64(True):
        figures = run(options)
        tell(figures)
        out = results.folder(options.out, "descent")
        draw(out / "descent.png", figures)
        results.save(out, "descent", options, claims(figures), thinned(figures))


if __name__ == "__main__":
    main()
