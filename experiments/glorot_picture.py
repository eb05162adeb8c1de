"""The picture of ``experiments.glorot``."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments.figures import BLUE, GREY, RED

STYLES = {
    "sigmoid": (GREY, "-"), "tanh": (RED, "-"), "tanh, normalised": (RED, "--"), "softsign": (BLUE, "-"),
    "softsign, normalised": (BLUE, "--"), "sigmoid, η = 0.15": (GREY, "--"), "sigmoid, η = 0.1": (GREY, ":"),
}  # fmt: skip


LAYER_COLOURS = [colormaps["viridis"](0.9 * i / 4) for i in range(5)]  # of up to 5 hidden layers


def draw_means(axes, run: dict) -> None:
    """Mean ± standard deviation by step, one line per layer."""
    layers = np.array(run["layers"])  # (points, layers, 3)
    for i, colour in zip(range(layers.shape[1]), LAYER_COLOURS):
        mean, deviation = layers[:, i, 0], layers[:, i, 1]
        axes.plot(run["step"], mean, color=colour)
        axes.fill_between(run["step"], mean - deviation, mean + deviation, color=colour, alpha=0.25, linewidth=0)
    axes.set(xlabel="step", ylabel="activation, mean ± sd", ylim=(0, 1))


def draw_saturation(axes, run: dict) -> None:
    """98th percentile (dotted) and standard deviation by step, one colour per layer."""
    layers = np.array(run["layers"])
    for i, colour in zip(range(layers.shape[1]), LAYER_COLOURS):
        axes.plot(run["step"], layers[:, i, 2], ":", color=colour)
        axes.plot(run["step"], layers[:, i, 1], "-", color=colour)
    axes.set(xlabel="step", ylabel="98 % (dotted), sd (line)", ylim=(0, 1))


def draw_density(axes, densities: dict, xlabel: str) -> None:
    end, heights = densities["end"], densities["heights"]
    edges = np.linspace(-end, end, len(heights[0]) + 1)
    for layer, colour in zip(heights, LAYER_COLOURS):
        axes.plot((edges[1:] + edges[:-1]) / 2, layer, color=colour)
    axes.set(xlabel=xlabel, ylabel="density", ylim=(0, None))


def draw_shrinking(axes, before: dict) -> None:
    """The standard deviation of δ by layer, of the last hidden one's; beside it 1/√3 a layer."""
    for (start, found), line in zip(before.items(), ("-", "--")):
        deviations = np.array(found["deviations"]["deltas"])
        ratios = deviations / deviations[:, -1:]
        layers = np.arange(1, ratios.shape[1] + 1)
        axes.errorbar(layers, ratios.mean(axis=0), ratios.std(axis=0), marker=".", color=RED, ls=line, label=start)
    axes.plot(layers, 3.0 ** ((layers - layers[-1]) / 2), ":", color="black", label="1/√3 a layer")
    axes.set(xlabel="hidden layer", ylabel="sd of δ, of the last one's", yscale="log", xticks=layers)
    axes.legend(frameon=False, fontsize=9)


def draw_losses(axes, runs: dict) -> None:
    for name, run in runs.items():
        colour, style = STYLES[name]
        axes.plot(run["step"][1:], run["loss"], style, color=colour, label=f"{name}: {run['test error']:.1f} %")
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.set_ylim(bottom=axes.get_ylim()[0] / 60)  # room for the legend
    axes.legend(frameon=False, fontsize=8, title="test error at the end", title_fontsize=8, loc="lower left")


def draw(path: Path, runs: dict, before: dict) -> None:
    figure = Figure(figsize=(13, 10), layout="constrained")
    grid = figure.subplots(3, 3)
    draw_means(grid[0, 0], runs["sigmoid"])
    for axes, name in zip(grid[0, 1:], ("tanh", "softsign")):
        draw_saturation(axes, runs[name])
    for row, what, xlabel in ((1, "activations", "activation"), (2, "deltas", "δ")):
        for axes, start in zip(grid[row], before):
            draw_density(axes, before[start]["densities"][what], xlabel)
            axes.set_title(f"Before training, tanh: {what.replace('deltas', 'δ')}, {start}")
    draw_losses(grid[1, 2], runs)
    draw_shrinking(grid[2, 2], before)
    titles = {
        (0, 0): "Training, sigmoid: the last layer falls to 0", (0, 1): "Training, tanh, standard",
        (0, 2): "Training, softsign, standard", (1, 2): "Training", (2, 2): "Before training, tanh: δ by layer",
    }  # fmt: skip
    for where, title in titles.items():
        grid[where].set_title(title)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    handles = [figure.axes[0].plot([], [], color=colour)[0] for colour in LAYER_COLOURS]
    figure.legend(
        handles, [f"hidden layer {i}" for i in range(1, 6)], loc="outside upper center", ncols=5, frameon=False
    )
    figure.savefig(path, dpi=100)
