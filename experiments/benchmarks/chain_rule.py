"""The backward order beside naive ways to the same gradient (H12): ``python -m experiments.benchmarks.chain_rule``.

One example through square tanh layers, ½‖a − y‖², every ∂C/∂W^ℓ and ∂C/∂b^ℓ, by depth L and width n:

- *backward order*: ``fnn.backprop``, each δ once;
- *each chain anew*: from the output too, but every layer's δ^ℓ with the whole product behind it, nothing shared;
- *Jacobians anew*: every layer's ∂z^L/∂z^ℓ = W^L Σ'^{L−1} W^{L−1} … multiplied out from its right end, (n, n) matrices;
- *forward mode*: a Jacobian–vector product for each parameter;
- *differences*: a forward pass for each parameter.

Exponents of operations and times are fitted as in ``growth``. Times of small networks are mostly what a call and a
step of a loop take, whatever their size, and of large ones what reading W takes: their exponents need not be those of
the operations. A way stops where it would take more than ``most_gflop``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.flatten_util import ravel_pytree

import fnn
from experiments import results
from experiments.benchmarks.growth import FIT_LEAST, Fit, fitted
from experiments.benchmarks.orders import NAIVE, OURS, backward_order, counts, problem, stacked
from experiments.benchmarks.timing import Row, interleaved


@dataclass(frozen=True)
class Options:
    """Count and time of the gradient of one example against depth and width, by five orders of the chain rule."""

    depths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256, 512)
    widths: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
    width: int = 16
    """Where depth grows."""
    depth: int = 4
    """Where width grows."""
    most_gflop: float = 4.0
    rounds: int = 5
    out: Path | None = None


def deviations(depth: int, width: int) -> dict[str, float]:
    """‖theirs − ours‖ / ‖ours‖ of every way's gradient."""
    params, x, y = problem(depth, width)
    W, b = stacked(params)
    ours, _ = ravel_pytree(stacked(fnn.backprop(params, x, y)))
    found = {}
    for way, function in NAIVE.items():
        theirs, _ = ravel_pytree(jax.jit(function)(W, b, x, y))
        found[way] = float(f"{jnp.linalg.norm(theirs - ours) / jnp.linalg.norm(ours):.2g}")
    return found


def timed(depth: int, width: int, ways: Sequence[str], rounds: int) -> dict[str, dict]:
    """ms, and ours as a multiple of it, [median, lower, upper quartile] over the rounds, of these ways."""
    params, x, y = problem(depth, width)
    W, b = stacked(params)
    programs: dict[str, Callable] = {OURS: partial(jax.jit(backward_order), params, x, y)}
    programs |= {way: partial(jax.jit(NAIVE[way]), W, b, x, y) for way in ways if way != OURS}
    seconds = interleaved(programs, rounds)
    return {
        way: {
            "ms": round(1e3 * float(np.median(of_way)), 4),
            "ours / it": np.percentile(seconds[OURS] / of_way, (50, 25, 75)).round(6).tolist(),
        }
        for way, of_way in seconds.items()
    }


def growth(networks: dict[int, tuple[int, int]], options: Options) -> dict[str, dict]:
    """By way: counts and times at every size that it can pay for, and their exponents where there are three."""
    found: dict[str, dict] = {way: {"flop": {}, "ms": {}, "ours / it": {}} for way in (OURS, *NAIVE)}
    for size, network in networks.items():
        affordable = {way: n for way, n in counts(*network).items() if n <= 1e9 * options.most_gflop or way == OURS}
        for way, row in timed(*network, tuple(affordable), options.rounds).items():
            for what, value in ({"flop": affordable[way]} | row).items():
                found[way][what][str(size)] = value
    for of_way in found.values():
        for what in ("flop", "ms"):
            sizes = [int(size) for size in of_way[what]]
            enough = len(sizes) >= FIT_LEAST
            of_way[f"{what} fit"] = fitted(sizes, list(of_way[what].values()))._asdict() if enough else None
    return found


def exponent(of_way: dict, what: str) -> str:
    found = of_way[f"{what} fit"]
    return "too few sizes" if found is None else str(Fit(**found))


def rows(figures: dict) -> list[Row]:
    """Ours against each naive way, time and count, at the largest network that the naive one was run on."""
    found = []
    for quantity, ways in figures["growth"].items():
        for way in NAIVE:
            ours, theirs = ways[OURS], ways[way]
            if not theirs["ms"]:
                found.append(Row(f"chain rule by {quantity}", "time", way, None, None, "", "", "above --most-gflop"))
                continue
            size = list(theirs["ms"])[-1]
            workload = f"gradient of one example, {quantity} {size}, {figures['fixed'][quantity]}"
            median, lower, upper = theirs["ours / it"][size]
            for what, ratio, spread in (
                ("ms", median, (lower, upper)), ("flop", ours["flop"][size] / theirs["flop"][size], None)
            ):  # fmt: skip
                found.append(
                    Row(
                        workload,
                        {"ms": "time", "flop": "floating-point operations"}[what],
                        way,
                        ratio,
                        spread,
                        f"{ours[what][size]:.4g} {what}",
                        f"{theirs[what][size]:.4g} {what}",
                        f"∝ {quantity}^p: ours {exponent(ours, what)}, theirs {exponent(theirs, what)}",
                    )  # fmt: skip
                )
    return found


def claims(figures: dict) -> list[results.Claim]:
    made = []
    for what, name in (("flop", "operations"), ("ms", "time")):
        grows = "; ".join(
            f"{way} "
            + ", ".join(f"{quantity}^({exponent(ways[way], what)})" for quantity, ways in figures["growth"].items())
            for way in (OURS, *NAIVE)
        )
        made.append(results.Claim(f"{name} of a gradient of one example, by order of the chain rule", grows))
    return made


def draw(path: Path, figures: dict) -> None:
    """Counts above and times below, against depth and width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    panels = figure.subplots(2, len(figures["growth"]))
    for column, (quantity, ways) in zip(panels.T, figures["growth"].items()):
        for axes, (what, label) in zip(column, (("flop", "operations"), ("ms", "ms"))):
            for way, of_way in ways.items():
                sizes = [int(size) for size in of_way[what]]
                name = f"{way}: {quantity}^({exponent(of_way, what)})"
                axes.loglog(sizes, list(of_way[what].values()), ".-", label=name)
            axes.set(xlabel=f"{quantity}, {figures['fixed'][quantity]}", ylabel=label)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    networks = {
        "depth": {depth: (depth, options.width) for depth in options.depths},
        "width": {width: (options.depth, width) for width in options.widths},
    }
    with jax.default_matmul_precision("highest"):  # not the roundings of TF32 or bfloat16
        deviation = deviations(options.depths[0], options.widths[0])
    figures: dict[str, dict] = {
        "fixed": {"depth": f"width {options.width}", "width": f"{options.depth} layers"},
        "deviation": deviation,
        "growth": {quantity: growth(sizes, options) for quantity, sizes in networks.items()},
    }
    for quantity, ways in figures["growth"].items():
        print(
            f"\n∝ {quantity}^p, {figures['fixed'][quantity]:24}"
            f"{'p of operations':>18}{'p of time':>18}{'largest ms':>18}"
        )
        for way, of_way in ways.items():
            size, ms = ([("", float("nan"))] + list(of_way["ms"].items()))[-1]
            print(f"{way:40}{exponent(of_way, 'flop'):>14}{exponent(of_way, 'ms'):>18}{f'{ms:.3f} at {size}':>20}")
    print(f"\nTheir gradients differ from ours by {figures['deviation']}")
    out = results.folder(options.out, "benchmarks.chain_rule")
    draw(out / "benchmarks.chain_rule.png", figures)
    results.save(out, "benchmarks.chain_rule", options, claims(figures), figures)


if __name__ == "__main__":
    main()
