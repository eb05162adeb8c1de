"""The δ's of deep networks before training, and what depth costs: ``python -m experiments.depth``.

δ^ℓ = (δ^{ℓ+1} W^{ℓ+1}) ⊙ σ'(z^ℓ) (equations H9, N5): the backward pass multiplies by W and σ' in every layer, so the
root mean square (RMS) of δ shrinks or grows by a factor per layer. This factor is at most max σ' · ‖W‖₂, with ‖W‖₂ the
largest singular value and max σ' = ¼ for the sigmoid; for weights of variance s²/n it is about s · RMS σ'. Random
examples, in float64, because in float32 the smallest of these δ's are 0.

The networks are stacked, so that they compile as fast as shallow ones; ``depth_cost`` measures this.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array
from matplotlib.figure import Figure

import fnn
from experiments import results
from experiments.depth_cost import WAYS, costs, draw_costs
from experiments.figures import BLUE, GREY, RED
from experiments.glorot import standard_uniform

LOSS, CLASSES = fnn.SoftmaxCrossEntropy(), 10
ACTIVATIONS = {"sigmoid": fnn.Sigmoid(), "tanh": fnn.Tanh(), "ReLU": fnn.ReLU()}
STEEPEST = 0.25  # max σ' of the sigmoid, at 0
INITIALIZERS: dict[str, tuple[Callable, str]] = {
    "U[±1/√n]": (standard_uniform, RED),
    "Glorot": (fnn.initializers.glorot_normal, GREY),
    "He": (fnn.initializers.he_normal, BLUE),
}


@dataclass(frozen=True)
class Options:
    """The size of δ by layer in deep networks before training; time and memory of a gradient against depth."""

    depths: tuple[int, ...] = (4, 16, 64, 256)
    """Numbers of hidden layers; the deepest network is plotted."""
    cost_depths: tuple[int, ...] = (4, 16, 64, 256, 1024)
    """Numbers of hidden layers for the cost measurements, at least 3, because fewer do not form a stack."""
    width: int = 100
    """Neurons per hidden layer, and inputs."""
    examples: int = 32
    """Random examples, x from N(0, 1)."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    out: Path | None = None


class Problem(NamedTuple):
    """A network and its data."""

    params: fnn.layers.Params
    x: Array
    y: Array


def problem(options: Options, depth: int, activation, initializer, seed: int, dtype=jnp.float64) -> Problem:
    """``depth`` hidden layers, all but the first in a stack."""
    key, key_x, key_y = jax.random.split(jax.random.key(seed), 3)
    sizes = (options.width,) * (depth + 1)
    params = fnn.init(key, (*sizes, CLASSES), activation=activation, initializer=initializer, dtype=dtype, stack=True)
    x = jax.random.normal(key_x, (options.examples, options.width), dtype)
    return Problem(params, x, jax.random.randint(key_y, (options.examples,), 0, CLASSES))


def hidden_deltas(network: Problem) -> np.ndarray:
    """δ^1 … δ^depth, (depth, B, width)."""
    first, *stack, _ = map(np.asarray, fnn.deltas(*network, loss=LOSS))
    return np.concatenate([first[None], *(run.reshape(-1, *first.shape) for run in stack)])


def rms_by_layer(network: Problem) -> np.ndarray:
    """RMS of δ^1 … δ^depth, the hidden layers' (depth,); scaled, for the square of 1e-200 is 0 in float64 too."""
    deltas = hidden_deltas(network)
    largest = np.abs(deltas).max(axis=(1, 2), keepdims=True)
    return largest[:, 0, 0] * np.sqrt(np.mean((deltas / largest) ** 2, axis=(1, 2)))


def measure(options: Options, depth: int, activation, initializer) -> dict:
    """δ's factor per layer by seed, and log10 of its RMS by layer, mean and standard deviation over the seeds."""
    curves = [rms_by_layer(problem(options, depth, activation, initializer, seed)) for seed in options.seeds]
    factors = [(rms[0] / rms[-1]) ** (1 / (depth - 1)) for rms in curves]
    logs = np.log10(curves)
    deviation = logs.std(axis=0, ddof=len(logs) > 1)
    return {"factor": rounded(factors), "log10 RMS": rounded(logs.mean(axis=0)), "its deviation": rounded(deviation)}


def bounds(options: Options, depth: int, initializer) -> dict:
    """max σ' · ‖W‖₂ of sigmoids by seed, a mean over the layers, and how near to it a layer's own factor comes."""
    means, nearest = [], []
    for seed in options.seeds:
        network = problem(options, depth, fnn.Sigmoid(), initializer, seed)
        rms = rms_by_layer(network)
        W = np.stack([layer.W for layer in fnn.unstack(network.params)[1:-1]])
        bound = STEEPEST * np.sqrt(np.linalg.eigvalsh(W @ W.transpose(0, 2, 1))[:, -1])
        means.append(np.mean(bound))
        nearest.append(np.max(rms[:-1] / rms[1:] / bound))  # above 1 nowhere, or the bound is none
    return {"bound": rounded(means), "nearest": rounded(nearest)}


def rounded(values) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def zeros_in_float32(options: Options, depth: int) -> int:
    """How many hidden layers of a sigmoid network, drawn from U[±1/√n], have no δ above 0 in float32."""
    network = problem(options, depth, fnn.Sigmoid(), standard_uniform, options.seeds[0], jnp.float32)
    return int(np.sum(~hidden_deltas(network).any(axis=(1, 2))))


def draw(path: Path, figures: dict, depth: int) -> None:
    figure = Figure(figsize=(13, 8), layout="constrained")
    layers = np.arange(1, depth + 1)
    panels, below = figure.subplots(2, len(ACTIVATIONS))
    draw_costs(below, figures["cost"], dict(zip(WAYS, (BLUE, GREY, RED))))
    for axes, name in zip(panels, ACTIVATIONS):
        for start, (_, colour) in INITIALIZERS.items():
            run = figures[name][start][str(depth)]
            middle, deviation = np.array(run["log10 RMS"]), np.array(run["its deviation"])
            label = f"{start}: × {np.mean(run['factor']):.2f} a layer"
            axes.semilogy(layers, 10**middle, color=colour, label=label)
            axes.fill_between(layers, 10 ** (middle - deviation), 10 ** (middle + deviation), color=colour, alpha=0.2)
            if name == "sigmoid":
                most = 10 ** middle[-1] * np.mean(figures["bounds"][start]["bound"]) ** (depth - layers)
                axes.semilogy(layers, most, "--", color=colour, linewidth=0.8)
        if name == "sigmoid":
            axes.plot([], [], "--", color="black", linewidth=0.8, label="the bound ¼ ‖W‖₂ a layer")
            axes.axhline(np.finfo(np.float32).tiny, color="black", linewidth=0.8)
            axes.text(depth, np.finfo(np.float32).tiny, "float32 ends here", ha="right", va="bottom", fontsize=9)
        axes.set(xlabel="hidden layer", title=f"{name}, {depth} hidden layers")
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("RMS of δ, before training")
    figure.savefig(path, dpi=110)


def claims(options: Options, figures: dict, depth: int) -> list[results.Claim]:
    """What the table of experiments says."""

    def factor(name: str, start: str) -> str:
        return results.spread(figures[name][start][str(depth)]["factor"], 3)

    standard = figures["sigmoid"]["U[±1/√n]"]
    bound, nearest = figures["bounds"]["U[±1/√n]"].values()
    where = f"{depth} hidden layers of {options.width}, before training"
    return [
        results.Claim(
            f"{where}, sigmoid, U[±1/√n]: δ shrinks by a factor per layer, by ¼/√3 = 0.144 if z is near 0",
            f"{factor('sigmoid', 'U[±1/√n]')}, {len(options.seeds)} seeds",
        ),
        results.Claim(
            "no layer's factor is above ¼ ‖W‖₂",
            f"{results.spread(bound, 3)}; the nearest layer has {100 * max(nearest):.0f} % of it",
        ),
        results.Claim(
            f"the factor with {', '.join(standard)} hidden layers",
            ", ".join(f"{np.mean(run['factor']):.3f}" for run in standard.values()),
        ),
        results.Claim("hidden layers whose δ's are all 0 in float32", f"{figures['zeros in float32']} of {depth}"),
        results.Claim("sigmoid: Glorot, He", f"{factor('sigmoid', 'Glorot')}, {factor('sigmoid', 'He')}"),
        results.Claim("tanh: U[±1/√n], Glorot", f"{factor('tanh', 'U[±1/√n]')}, {factor('tanh', 'Glorot')}"),
        results.Claim(
            "ReLU: Glorot, He; 1/√2 = 0.707 and 1 if half of the neurons are active",
            f"{factor('ReLU', 'Glorot')}, {factor('ReLU', 'He')}",
        ),
        *(
            results.Claim(f"tanh, {options.width} wide, batch 64: {what}, by hidden layers", by_depth(figures, key))
            for what, key in (("seconds to compile", "compile s"), ("milliseconds of one gradient", "ms"))
        ),
    ]


def by_depth(figures: dict, key: str) -> str:
    """One cost of every way, depth by depth."""
    ways = figures["cost"].items()
    return "; ".join(f"{way} " + ", ".join(f"{d}: {v}" for d, v in costs[key].items()) for way, costs in ways)


def run(options: Options, depth: int) -> dict:
    """Every figure, in float64; the curves of the deepest networks only."""
    figures: dict = {
        name: {
            start: {str(d): measure(options, d, activation, initializer) for d in options.depths}
            for start, (initializer, _) in INITIALIZERS.items()
        }
        for name, activation in ACTIVATIONS.items()
    }
    for runs in (runs for starts in figures.values() for runs in starts.values()):
        for shallower in runs.keys() - {str(depth)}:
            runs[shallower] = {"factor": runs[shallower]["factor"]}
    figures["bounds"] = {start: bounds(options, depth, initializer) for start, (initializer, _) in INITIALIZERS.items()}
    figures["zeros in float32"] = zeros_in_float32(options, depth)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if min(options.cost_depths) < 3:
        raise SystemExit("--cost-depths: expected at least 3 hidden layers, for fewer make no stack")
    depth = max(options.depths)
    with jax.enable_x64(True):
        figures = run(options, depth)
    figures["cost"] = costs(options.cost_depths, options.width)
    made = claims(options, figures, depth)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    out = results.folder(options.out, "depth")
    draw(out / "depth.png", figures, depth)
    results.save(out, "depth", options, made, figures)


if __name__ == "__main__":
    main()
