"""Networks approximate a known function f* (equation N3): ``python -m experiments.approximation``.

f*(x) = sin(2πx) e^{−x²} on [−2, 2], and the ripple f*(x) = cos(1.5π‖x‖) e^{−‖x‖²/2} on [−1.5, 1.5]². Networks with 1
and 2 hidden layers of 2 to 128 tanh neurons are trained on a coarse grid and evaluated on a fine one: root mean square
(RMS) error against width, with the exponent p of a fit error ∝ width^p. For one hidden layer and sufficiently smooth
functions, Barron 1993 guarantees −1/2 for the best weights; gradient descent finds other weights.
"""

import math
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
from jax import Array
from matplotlib.figure import Figure

import fnn
from experiments import results
from experiments.figures import BLUE, RED
from fnn.train import make_step

LOSS = fnn.SquaredError()
COLOURS = {1: RED, 2: BLUE}  # by hidden layers
BOUND = "a bound for the best weights, not a measured figure; here descent finds some"
SLOPE = 3.0  # standard deviation of the first layer's weights: a neuron's step is about 1/3 wide
RATE = 0.1  # of Adam, over √width: with 0.03 at every width, the widest networks end two to three times as far off


@dataclass(frozen=True)
class Options:
    """The error of networks that approximate a known function, against their width."""

    widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
    seeds: int = 5
    steps: int = 2000
    """Adam steps, each on all points."""
    out: Path | None = None


class Target(NamedTuple):
    """A function f* of (N, dimensions) → (N, 1), on the cube [−end, end]^dimensions."""

    function: Callable
    dimensions: int
    end: float
    coarse: int
    fine: int
    formula: str

    def grid(self, points: int) -> Array:
        """``points`` in every direction, (points^dimensions, dimensions)."""
        axis = jnp.linspace(-self.end, self.end, points)
        return jnp.stack(jnp.meshgrid(*[axis] * self.dimensions), axis=-1).reshape(-1, self.dimensions)


def wave(x: Array) -> Array:
    return jnp.sin(2 * jnp.pi * x) * jnp.exp(-(x**2))


def ripple(x: Array) -> Array:
    r = jnp.linalg.norm(x, axis=1, keepdims=True)
    return jnp.cos(1.5 * jnp.pi * r) * jnp.exp(-(r**2) / 2)


TARGETS = {
    "wave": Target(wave, 1, 2.0, 256, 2001, "sin(2πx) e^(−x²)"),
    "ripple": Target(ripple, 2, 1.5, 24, 101, "cos(1.5π‖x‖) e^(−‖x‖²/2)"),
}


def start(key, target: Target, width: int, hidden: int) -> fnn.layers.Params:
    """First-layer weights N(0, SLOPE²); every neuron's hyperplane wᵀx + b = 0 (N1) goes through a random point."""
    key, key_W, key_points = jax.random.split(key, 3)
    sizes = (target.dimensions, *[width] * hidden, 1)
    first, *rest = fnn.init(key, sizes, activation=fnn.Tanh(), initializer=fnn.initializers.lecun_normal)
    W = SLOPE * jax.random.normal(key_W, first.W.shape)
    points = jax.random.uniform(key_points, W.shape, minval=-target.end, maxval=target.end)
    return (replace(first, W=W, b=-jnp.sum(W * points, axis=1)), *rest)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def train(options: Options, target: Target, width: int, hidden: int, x: Array, fine: Array):
    """Networks trained on the points x, one for each seed, and their RMS errors on the fine grid (seeds,)."""
    steps = options.steps
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE / math.sqrt(width), steps))
    one_step = make_step(optimizer, loss=LOSS)
    y = target.function(x)

    def one(key):
        def step(carry, _):
            params, state, _ = one_step(*carry, x, y)
            return (params, state), None

        params = start(key, target, width, hidden)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
        return params, jnp.sqrt(jnp.mean((fnn.forward(params, fine) - target.function(fine)) ** 2))

    return jax.vmap(one)(jax.vmap(jax.random.key)(jnp.arange(options.seeds)))


def run(options: Options, target: Target, hidden: int) -> tuple[dict, dict]:
    """Errors and numbers of parameters by width, the fitted exponent by seed; and the best seeds' networks."""
    grids = target.grid(target.coarse), target.grid(target.fine)
    errors, parameters, networks = [], [], {}
    for width in options.widths:
        params, error = train(options, target, width, hidden, *grids)
        best = int(jnp.argmin(error))
        networks[width] = jax.tree.map(lambda leaf, best=best: leaf[best], params)
        errors.append([float(f"{e:.4g}") for e in error])
        parameters.append(sum(leaf.size for leaf in jax.tree.leaves(networks[width])))
    exponents = np.polyfit(np.log(options.widths), np.log(errors), 1)[0]
    return {"errors": errors, "parameters": parameters, "exponents": exponents.round(3).tolist()}, networks


# -- the picture -----------------------------------------------------------------------------------------------


def draw_errors(axes, figures: dict, widths: Sequence[int], title: str) -> None:
    for hidden, found in figures.items():
        exponent = np.mean(found["exponents"])
        label = f"{hidden} hidden layer{'s' * (hidden > 1)}, width^{exponent:.2f}"
        error_bars(axes, widths, found, COLOURS[hidden], label)
        fitted = np.exp(np.polyval(np.polyfit(np.log(widths), np.log(found["errors"]).mean(axis=1), 1), np.log(widths)))
        axes.plot(widths, fitted, "--", color=COLOURS[hidden], linewidth=0.8)
    axes.set(xlabel="width", ylabel="RMS error", title=title)
    axes.set_xticks(widths, widths)
    axes.minorticks_off()
    axes.legend(frameon=False)


def error_bars(axes, x, found: dict, colour, label: str, **style) -> None:
    """Mean over the seeds, from the least to the greatest."""
    errors = np.array(found["errors"])
    mean = errors.mean(axis=1)
    axes.errorbar(x, mean, (mean - errors.min(axis=1), errors.max(axis=1) - mean), marker=".", color=colour,
                  label=label, capsize=2, **style)  # fmt: skip
    axes.set(xscale="log", yscale="log")


def draw_fits(axes, target: Target, networks: dict, widths: Sequence[int]) -> None:
    x = target.grid(target.fine)
    axes.plot(x[:, 0], target.function(x)[:, 0], color="black", linewidth=3, alpha=0.3, label="f*")
    for width, style in zip(widths, (":", "--", "-")):
        axes.plot(x[:, 0], fnn.forward(networks[width], x)[:, 0], style, color=RED, label=f"width {width}")
    axes.set(xlabel="x", title=f"{target.formula}, one hidden layer, best seed")
    axes.legend(frameon=False, loc="lower left")


def draw_image(axes, target: Target, function: Callable, title: str) -> None:
    image = np.asarray(function(target.grid(target.fine))).reshape(target.fine, target.fine)
    ends = [-target.end, target.end] * 2
    axes.imshow(image, cmap="RdBu", vmin=-1, vmax=1, extent=ends, origin="lower")
    axes.set(xlabel="x₁", ylabel="x₂", title=title)


def draw(path: Path, options: Options, figures: dict, networks: dict) -> None:
    figure = Figure(figsize=(14, 8), layout="constrained")
    (fits, wave_errors, sizes), (exact, narrow, ripple_errors) = figure.subplots(2, 3)
    widths, shown = options.widths, options.widths[::2][:3]
    draw_fits(fits, TARGETS["wave"], networks["wave"][1], shown)
    draw_errors(wave_errors, figures["wave"], widths, "in one dimension, mean and range of the seeds")
    draw_errors(ripple_errors, figures["ripple"], widths, "in two dimensions")
    for name, style in (("wave", "-"), ("ripple", "--")):
        for hidden, found in figures[name].items():
            error_bars(sizes, found["parameters"], found, COLOURS[hidden], f"{name}, {hidden} hidden", linestyle=style)
    sizes.set(xlabel="parameters", ylabel="RMS error", title="by the number of parameters")
    sizes.legend(frameon=False)
    draw_image(exact, TARGETS["ripple"], ripple, TARGETS["ripple"].formula)
    few = partial(fnn.forward, networks["ripple"][1][shown[-1]])
    draw_image(narrow, TARGETS["ripple"], few, f"one hidden layer of {shown[-1]}, best seed")
    for axes in (fits, wave_errors, sizes, ripple_errors):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def claims(options: Options, figures: dict) -> list[results.Claim]:
    made = []
    for name, by_depth in figures.items():
        for hidden, found in by_depth.items():
            first, *_, last = (f"{np.mean(e):.2g} ± {np.std(e, ddof=options.seeds > 1):.1g}" for e in found["errors"])
            barron = ("−0.5 or steeper (Barron 1993)", BOUND) if hidden == 1 else ()
            made.append(
                results.Claim(
                    f"{TARGETS[name].formula}, {hidden} hidden: RMS error ∝ width^p, widths {options.widths[0]} to "
                    f"{options.widths[-1]}, {options.seeds} seeds",
                    f"p = {results.spread(found['exponents'])}; error from {first} to {last}",
                    *barron,
                )  # fmt: skip
            )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures: dict = {}
    networks: dict = {}
    for name, target in TARGETS.items():
        done = {hidden: run(options, target, hidden) for hidden in COLOURS}
        figures[name] = {hidden: found for hidden, (found, _) in done.items()}
        networks[name] = {hidden: trained for hidden, (_, trained) in done.items()}
    made = claims(options, figures)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    out = results.folder(options.out, "approximation")
    draw(out / "approximation.png", options, figures, networks)
    results.save(out, "approximation", options, made, figures)


if __name__ == "__main__":
    main()
