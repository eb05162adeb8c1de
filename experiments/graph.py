"""Networks that are graphs (S1, S2): ``python -m experiments.graph``.

1. MNIST with layers, with layers and skip connections, and with a sparse random graph.
2. Pruning: the weakest arrows of the trained layers are removed, and training continues on the remaining graph. For
   comparison, a random graph with as many arrows between the same layers is trained from scratch.
3. A small random graph fitted to f*(x, y) = sin(πx) cos(πy), drawn with the λ's of one example as colours.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fnn
from experiments import digits, results
from experiments.figures import BLUE, GREY, RED
from fnn.data import Dataset
from fnn.graph import Graph, GraphParams
from fnn.train import evaluate, fit

LOSS = fnn.SoftmaxCrossEntropy()
TANH = fnn.Tanh()


@dataclass(frozen=True)
class Options:
    """Layers, skip connections, random graphs and pruned ones on MNIST; a small graph with its λ's."""

    epochs: int = 4
    hidden: int = 100
    arrows: int = 20_000
    """Arrows of the random graph, which has 300 hidden neurons in 5 generations."""
    kept: tuple[float, ...] = (0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
    """Fractions of the arrows that remain after each successive pruning."""
    fine_tuning: int = 1
    """Epochs after each pruning."""
    examples: int = 60_000
    batch_size: int = 100
    learning_rate: float = 0.1
    seed: int = 0
    out: Path | None = None


def train(params: GraphParams, data: Dataset, options: Options, epochs: int) -> GraphParams:
    rule = fnn.updates.momentum(options.learning_rate, 0.9)
    key = jax.random.key(options.seed)
    return fit(params, data, rule, loss=LOSS, epochs=epochs, batch_size=options.batch_size, key=key).params


def architectures(options: Options) -> dict[str, Graph]:
    key, hidden = jax.random.key(options.seed), options.hidden
    random: dict[str, Any] = {"inputs": 784, "outputs": 10, "generations": 7, "activation": TANH}
    return {
        f"layers 784-{hidden}-10": Graph.layered((784, hidden, 10), TANH),
        f"layers 784-{hidden}-50-10 with skips": Graph.layered((784, hidden, 50, 10), TANH, skips=[(0, 3), (1, 3)]),
        f"random graph, {options.arrows:,} arrows": Graph.random(key, 784 + 300 + 10, options.arrows, **random),
    }


def only(graph: Graph, arrows: np.ndarray) -> Graph:
    """The graph with these of its arrows; neurons that are left idle are no surprise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Graph(graph.arrows[np.sort(arrows)], graph.activations, graph.inputs, graph.outputs)


def strongest(params: GraphParams, number: int) -> GraphParams:
    """The network without its weakest arrows: the ``number`` largest |w| are kept."""
    arrows = np.sort(np.argsort(-np.abs(np.asarray(params.weights)), kind="stable")[:number])
    return replace(params, weights=params.weights[arrows], graph=only(params.graph, arrows))


def prune(params: GraphParams, data: Dataset, test: Dataset, options: Options) -> list[dict]:
    """Accuracy against arrows: pruned, pruned and fine-tuned, and a random choice of arrows trained from the start."""
    layers, random, rows = params.graph, np.random.default_rng(options.seed), []
    for fraction in options.kept:
        number = int(fraction * len(layers.arrows))
        params = strongest(params, number)
        row = {"arrows": number, "pruned": evaluate(params, test, loss=LOSS)["accuracy"]}
        params = train(params, data, options, options.fine_tuning)
        row["fine-tuned"] = evaluate(params, test, loss=LOSS)["accuracy"]
        chance = only(layers, random.choice(len(layers.arrows), number, replace=False))
        fresh = train(chance.init(jax.random.key(options.seed)), data, options, options.epochs)
        row["random arrows"] = evaluate(fresh, test, loss=LOSS)["accuracy"]
        rows.append(row)
        print(f"  {number:6,} arrows: " + ", ".join(f"{k} {100 * v:.2f} %" for k, v in row.items() if k != "arrows"))
    return rows


def small_graph(options: Options) -> tuple[GraphParams, dict]:
    """A graph of 30 neurons fitted to f*, and its loss before and after."""
    random = np.random.default_rng(options.seed)
    x = random.uniform(-1, 1, (2000, 2)).astype(np.float32)
    y = (np.sin(np.pi * x[:, :1]) * np.cos(np.pi * x[:, 1:])).astype(np.float32)
    shape: dict[str, Any] = {"inputs": 2, "outputs": 1, "generations": 6, "activation": TANH}
    params = Graph.random(jax.random.key(options.seed), 30, 110, **shape).init(jax.random.key(options.seed))
    rule, loss = fnn.updates.momentum(0.03, 0.9), fnn.SquaredError()
    run = fit(params, (x, y), rule, loss=loss, epochs=150, batch_size=50, key=jax.random.key(1))
    return run.params, {"first epoch": run.history[0]["loss"], "last epoch": run.history[-1]["loss"]}


def draw_graph(axes: Axes, params: GraphParams, x, y, title: str) -> None:
    """Generations from left to right; arrows by the sign of their weight, neurons by their λ."""
    graph, lam = params.graph, np.asarray(fnn.deltas(params, x, y))
    place = np.zeros((len(graph), 2))
    for number in range(graph.generation.max() + 1):
        neurons = np.flatnonzero(graph.generation == number)
        height = np.arange(len(neurons)) - (len(neurons) - 1) / 2
        place[neurons] = np.stack([np.full(len(neurons), number), height + 0.25 * (number % 2)], axis=1)
    weights = np.asarray(params.weights)
    for (source, target), w in zip(graph.arrows, weights / np.abs(weights).max()):
        axes.annotate(
            "", place[target], place[source],
            arrowprops={"arrowstyle": "-|>", "color": BLUE if w > 0 else RED, "alpha": 0.15 + 0.85 * abs(w),
                        "linewidth": 0.4 + 2 * abs(w), "shrinkA": 7, "shrinkB": 7, "mutation_scale": 7},
        )  # fmt: skip
    most = np.abs(lam).max()
    shown = axes.scatter(
        place[:, 0], place[:, 1], c=lam, cmap="RdBu", vmin=-most, vmax=most, s=150, edgecolors=GREY, zorder=3
    )
    axes.figure.colorbar(shown, ax=axes, label="λ of one example", shrink=0.8)
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw(path: Path, pruned: list[dict], accuracy: dict[str, dict], params: GraphParams) -> None:
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    title = "30 neurons fitted to sin(πx) cos(πy); inputs left"
    draw_graph(left, params, jnp.array([0.4, -0.3]), jnp.array([0.0]), title)
    arrows = [row["arrows"] for row in pruned]
    lines = (
        ("random arrows", "random arrows, from the start", RED),
        ("pruned", "weakest arrows taken away", GREY),
        ("fine-tuned", "and fine-tuned", BLUE),
    )
    for what, label, colour in lines:
        right.plot(arrows, [100 * (1 - row[what]) for row in pruned], ".-", color=colour, label=label)
    for (name, figures), marker in zip(accuracy.items(), "sD^"):
        right.plot(figures["arrows"], 100 * (1 - figures["accuracy"]), marker, color="black", label=name)
    right.set(xscale="log", yscale="log", xlabel="arrows", ylabel="test error, %", title="MNIST")
    right.set_yticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    right.yaxis.set_minor_formatter("")
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)


def claims(options: Options, accuracy: dict[str, dict], pruned: list[dict]) -> list[results.Claim]:
    """The three graphs, and what is left of the first after each pruning."""
    reached = ", ".join(f"{100 * of['accuracy']:.2f}" for of in accuracy.values())
    layers, arrows = next(iter(accuracy)), ", ".join(f"{row['arrows']:,}" for row in pruned)
    tuned = ", ".join(f"{100 * row['fine-tuned']:.2f}" for row in pruned)
    last = pruned[-1]
    return [
        results.Claim(
            f"graphs on MNIST, {options.epochs} epochs: {', '.join(accuracy)}: test accuracy", f"{reached} %"
        ),
        results.Claim(
            f"the {layers} pruned to {arrows} of {accuracy[layers]['arrows']:,} arrows, fine-tuned each time",
            f"{tuned} %; {last['arrows']:,} random arrows {100 * last['random arrows']:.2f} %",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    data, test = digits.load()
    data = data[: options.examples]
    trained, accuracy = {}, {}
    for name, graph in architectures(options).items():
        trained[name] = train(graph.init(jax.random.key(options.seed)), data, options, options.epochs)
        reached = evaluate(trained[name], test, loss=LOSS)["accuracy"]
        accuracy[name] = {"arrows": len(graph.arrows), "accuracy": reached}
        print(f"{name}: {graph}: {100 * reached:.2f} % after {options.epochs} epochs")
    print("Pruning the layers:")
    pruned = prune(next(iter(trained.values())), data, test, options)
    small, losses = small_graph(options)
    print("Small graph, loss: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
    out = results.folder(options.out, "graph")
    draw(out / "graph.png", pruned, accuracy, small)
    figures = {"accuracy": accuracy, "pruned": pruned, "small graph": losses}
    results.save(out, "graph", options, claims(options, accuracy, pruned), figures)


if __name__ == "__main__":
    main()
