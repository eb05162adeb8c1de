"""A linear network of any depth is a linear regression (L3, L13): ``python -m experiments.linear_depth``.

Without activations, W_L (… (W_1 x + b_1) …) + b_L = W x + B: networks of 1 to 8 layers, trained by gradient descent,
converge to the closed-form regression whatever their depth; with tanh, one hidden layer reaches a lower loss. Only the
path differs, because the loss is not convex in the parameters of a deep network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import results
from experiments.figures import BLUE, GREY, RED
from fnn.updates import descend, momentum

LOSS = fnn.SquaredError(0.5)


@dataclass(frozen=True)
class Options:
    """Linear networks of several depths beside the regression in closed form."""

    depths: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of layers."""
    width: int = 6
    """Width of the hidden layers; at least the number of outputs, so that the network can be any linear map."""
    examples: int = 60
    steps: int = 4000
    learning_rate: float = 0.01
    seed: int = 0
    out: Path | None = None


def data(options: Options) -> tuple[np.ndarray, np.ndarray]:
    """x (examples, 4) and y (examples, 3): a linear map, a bend, and noise."""
    random = np.random.default_rng(options.seed)
    x = random.normal(size=(options.examples, 4))
    return x, x @ random.normal(size=(4, 3)) / 2 + np.sin(2 * x[:, :3]) + 0.3 * random.normal(
        size=(options.examples, 3)
    )


def regression(x, y) -> tuple[np.ndarray, np.ndarray]:
    """W and B in closed form."""
    v = np.asarray(fnn.regression.least_squares(jnp.asarray(np.column_stack([x, np.ones(len(x))])), jnp.asarray(y)))
    return v[:-1].T, v[-1]


def loss(outputs, y) -> float:
    return float(np.mean(np.sum((np.asarray(outputs) - y) ** 2, axis=1)) / 2)


def multiplied(params) -> tuple[np.ndarray, np.ndarray]:
    """W = W_L … W_1, and B, of a network without activations."""
    W, B = np.eye(params[0].W.shape[1]), np.zeros(params[0].W.shape[1])
    for layer in params:
        W, B = layer.W @ W, layer.W @ B + layer.b
    return np.asarray(W), np.asarray(B)


def train(options: Options, depth: int, activation: fnn.Activation, x, y):
    """The parameters at the end, and the mean loss by step."""
    sizes = (x.shape[1], *[options.width] * (depth - 1), y.shape[1])
    params = fnn.init(jax.random.key(options.seed), sizes, activation=activation, dtype=jnp.float64)
    x, y = jnp.asarray(x), jnp.asarray(y)

    def f(params):
        return fnn.value_and_backprop(params, x, y, loss=LOSS)

    path = descend(f, params, options.learning_rate, options.steps, rule=momentum)
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[-1]), path.points), np.asarray(path.values)


def run(options: Options) -> dict:
    """Of every depth the loss by step and how far W and B are from the regression's; and a bent network beside them."""
    x, y = data(options)
    W, B = regression(x, y)
    found: dict = {"regression": loss(x @ W.T + B, y), "networks": {}}
    for depth in options.depths:
        params, values = train(options, depth, fnn.Identity(), x, y)
        ours_W, ours_B = multiplied(params)
        off = np.linalg.norm(np.column_stack([ours_W - W, ours_B - B])) / np.linalg.norm(np.column_stack([W, B]))
        found["networks"][str(depth)] = {"loss": values.tolist(), "off": float(off)}
    found["tanh"] = train(options, 2, fnn.Tanh(), x, y)[1].tolist()
    return found


def claims(options: Options, found: dict) -> list[results.Claim]:
    best = found["regression"]
    worst = max(of["off"] for of in found["networks"].values())
    above = max(of["loss"][-1] / best - 1 for of in found["networks"].values())
    depths = ", ".join(found["networks"])
    return [
        results.Claim(
            f"linear networks of {depths} layers after {options.steps:,} steps: how far W_L … W_1 and B are from the "
            "regression in closed form, and their loss above its",
            f"at most {worst:.1g} and {above:.1g}; loss {best:.4f}, with tanh and one hidden layer "
            f"{found['tanh'][-1]:.4f}",
        )
    ]


def draw(path: Path, found: dict) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    names = list(found["networks"])
    for number, name in enumerate(names):
        shade = 0.25 + 0.75 * number / max(1, len(names) - 1)
        label = f"{name} layer" + "s" * (name != "1")
        axes.plot(1 + np.arange(len(found["networks"][name]["loss"])), found["networks"][name]["loss"], color=BLUE,
                  alpha=shade, label=label)  # fmt: skip
    axes.plot(1 + np.arange(len(found["tanh"])), found["tanh"], color=RED, label="2 layers, tanh")
    axes.axhline(found["regression"], color=GREY, linestyle="--", label="regression in closed form")
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="loss", title="Linear networks end at the regression")
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def thinned(found: dict) -> dict:
    """For JSON: every hundredth step and four digits."""

    def curve(values: list) -> list:
        return [float(f"{value:.4g}") for value in values[::100]]

    networks = {name: of | {"loss": curve(of["loss"])} for name, of in found["networks"].items()}
    return found | {"networks": networks, "tanh": curve(found["tanh"])}


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    with jax.enable_x64(True):
        found = run(options)
        made = claims(options, found)
        print(f"{made[0].claim}: {made[0].here}")
        out = results.folder(options.out, "linear_depth")
        draw(out / "linear_depth.png", found)
        results.save(out, "linear_depth", options, made, thinned(found))


if __name__ == "__main__":
    main()
