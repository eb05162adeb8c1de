"""How neurons divide the plane: ``python -m experiments.boundaries``.

1. One neuron with σ = sgn divides it by the line wᵀx + b = 0, +1 where wᵀx ≥ −b; why b is needed (equation N1).
2. XOR: no neuron gets more than 3 of the 4 points right. With f(x) = wᵀx + b, f(0,0) + f(1,1) = f(0,1) + f(1,0)
   for any w and b, so the two pairs cannot be on different sides. A hidden layer of 2 neurons learns it.
3. A disc in a ring, enclosed by 3 hidden neurons and not by 2; two spirals, by two hidden layers.

sgn has derivative 0 and cannot be trained by gradient descent. The networks train with the cross-entropy of a sigmoid;
for drawing and counting, the output neuron's σ is sgn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import Array
from matplotlib.figure import Figure

import fnn
from experiments import results
from experiments.figures import BLUE, GREY, RED
from fnn.updates import descend, momentum, sgd

LOSS = fnn.SigmoidCrossEntropy()
W, B = (1.0, 2.0), -2.0  # the neuron of the first two panels; with these, points of the lattice lie on its line
XOR = jnp.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([[0.0], [0.0], [1.0], [1.0]])
RATES = (0.01, 0.1, 1.0, 10.0)  # of the one neuron on XOR


@dataclass(frozen=True)
class Options:
    """How one neuron, and how networks, divide the plane."""

    seeds: int = 100
    """Random starts of each small network."""
    steps: int = 2000
    """Steps of gradient descent."""
    points: int = 200
    """Points in each of the disc with its ring and the spirals."""
    out: Path | None = None


def neuron(w, b: float) -> fnn.layers.Params:
    return (fnn.Dense(jnp.array([w], jnp.float32), jnp.array([b], jnp.float32), fnn.Sign()),)


def with_sign(params: fnn.layers.Params) -> fnn.layers.Params:
    """The network with σ = sgn at the output."""
    return (*params[:-1], replace(params[-1], activation=fnn.Sign()))


def sides(params: fnn.layers.Params, x) -> np.ndarray:
    """−1 or +1 for every point, (N,)."""
    return np.asarray(fnn.forward(with_sign(params), jnp.asarray(x, jnp.float32)))[:, 0]


def right(params, x: Array, y: Array) -> Array:
    """How many points are on their side: y is 0 or 1, the output −1 or +1."""
    return jnp.sum(fnn.forward(with_sign(params), x) == 2 * y - 1)


def objective(x: Array, y: Array, params):
    return fnn.value_and_backprop(params, x, y, loss=LOSS)


def descents(options: Options, data, hidden: Sequence[int], rate: float, rule: Callable, seeds: int, steps: int = 0):
    """The paths of ``seeds`` networks: parameters with two leading axes, (seeds, steps + 1)."""
    f = partial(objective, *data)

    def one(key):
        return descend(
            f, fnn.init(key, (2, *hidden, 1), activation=fnn.Tanh()), rate, steps or options.steps, rule=rule
        )

    return jax.vmap(one)(jax.vmap(jax.random.key)(jnp.arange(seeds))).points


def last(paths):
    return jax.tree.map(lambda leaf: leaf[:, -1], paths)


def count(networks, data) -> np.ndarray:
    """``right`` of every stacked network, whatever its leading axes."""
    axes = networks[0].b.shape[:-1]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(axes) :]), networks)
    return np.asarray(jax.vmap(partial(right, x=data[0], y=data[1]))(flat)).reshape(axes)


def pick(networks, number: int):
    return jax.tree.map(lambda leaf: leaf[number], networks)


# -- one neuron ------------------------------------------------------------------------------------------------


def line(options: Options) -> dict:
    """N1 on a lattice, and what is lost without b: points labelled by the neuron, then judged with b = 0."""
    axis = np.arange(-16, 17) / 8
    lattice = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    sums = lattice @ np.array(W)
    x = np.random.default_rng(0).uniform(-2, 2, (60, 2)).astype(np.float32)
    y = sides(neuron(W, B), x)
    directions = [(np.cos(t), np.sin(t)) for t in np.linspace(0, 2 * np.pi, 3600, endpoint=False)]
    return {
        "lattice": len(lattice), "on the line": int((sums == -B).sum()),
        "as printed": int((sides(neuron(W, B), lattice) == np.where(sums >= -B, 1, -1)).sum()),
        "points": x.tolist(), "labels": y.tolist(),
        "wrong without b": int((sides(neuron(W, 0.0), x) != y).sum()),
        "best w": min(int((sides(neuron(w, 0.0), x) != y).sum()) for w in directions),
    }  # fmt: skip


def separable() -> set[tuple[int, ...]]:
    """The labellings of XOR's four points that some neuron gives, w and b from a grid that has all 14 of them."""
    grid = product((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0), np.arange(-2.0, 2.25, 0.25))
    return {tuple(sides(neuron((u, v), b), XOR[0]).astype(int).tolist()) for u, v, b in grid}


# -- networks --------------------------------------------------------------------------------------------------


def xor(options: Options) -> dict:
    """How many of XOR's points are right: the best of one neuron, ever, and hidden layers of 2 and 3 at the end."""
    best = [
        count(descents(options, XOR, (), rate, sgd, options.seeds, steps=200), XOR).max() for rate in RATES
    ]  # at every step of every descent
    found = separable()
    target = tuple((2 * XOR[1][:, 0] - 1).astype(int).tolist())
    figures: dict = {
        "best of one neuron": int(max(best)), "separable labellings": len(found), "XOR is one of them": target in found,
        "bound": max(sum(map(int.__eq__, labels, target)) for labels in found),
    }  # fmt: skip
    for hidden in (2, 3):
        networks = last(descents(options, XOR, (hidden,), 0.1, momentum, options.seeds))
        counts = count(networks, XOR)
        figures[f"learnt with {hidden} hidden"] = int((counts == 4).sum())
        figures[f"network with {hidden} hidden"] = pick(networks, int(counts.argmax()))
    return figures


def ring(points: int) -> tuple[Array, Array]:
    """Half of the points in a disc of radius 1 (y = 1), half in a ring between 1.4 and 2 (y = 0), spread evenly."""
    random = np.random.default_rng(1)
    inside = np.arange(points) % 2 == 0
    low, high = np.where(inside, 0.0, 1.4), np.where(inside, 1.0, 2.0)
    radius = np.sqrt(random.uniform(low**2, high**2))
    angle = random.uniform(0, 2 * np.pi, points)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return jnp.asarray(x, jnp.float32), jnp.asarray(inside[:, None], jnp.float32)


def spirals(points: int, phase: float = 0.0) -> tuple[Array, Array]:
    """Two arms of 1¾ turns, ``points`` in all; another ``phase`` (0 to 1) gives the points between them."""
    along = (np.arange(points // 2) + phase) / (points // 2)
    angle, radius = 3.5 * np.pi * along, 0.2 + 1.8 * along
    arm = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    y = np.repeat([1.0, 0.0], len(arm))[:, None]
    return jnp.asarray(np.concatenate([arm, -arm]), jnp.float32), jnp.asarray(y, jnp.float32)


def shapes(options: Options) -> dict:
    """The disc with 2 and 3 hidden neurons, in percent of the points; the spirals, on points between those trained."""
    data, figures = ring(options.points), {}
    for hidden in (2, 3):
        networks = last(descents(options, data, (hidden,), 0.03, optax.adam, min(options.seeds, 20)))
        counts = count(networks, data)
        figures[f"disc with {hidden} hidden"] = (100 * counts / options.points).tolist()
        figures[f"network with {hidden} hidden"] = pick(networks, int(counts.argmax()))
    data, between = spirals(options.points), spirals(options.points, 0.5)
    networks = last(descents(options, data, (32, 32), 0.01, optax.adam, min(options.seeds, 5)))
    counts = count(networks, between)
    figures["spirals"] = (100 * counts / len(between[0])).tolist()
    alone = count(last(descents(options, data, (), 0.1, optax.adam, min(options.seeds, 5))), data)
    figures["spirals, one neuron"] = (100 * alone / len(data[0])).tolist()
    figures["network of the spirals"] = pick(networks, int(counts.argmax()))
    return figures


# -- the picture -----------------------------------------------------------------------------------------------


def background(axes, params, low: float, high: float) -> None:
    """What the network says of every point: +1 blue, −1 red."""
    axis = np.linspace(low, high, 401)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    found = sides(params, grid).reshape(len(axis), len(axis))
    axes.contourf(axis, axis, found, levels=[-1.5, 0, 1.5], colors=[RED, BLUE], alpha=0.25)
    axes.contour(axis, axis, found, levels=[0], colors="black", linewidths=1)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="x₁", ylabel="x₂")


def dots(axes, x, labels, size: int = 5) -> None:
    """Points: labels above 0 blue, others red."""
    x, labels = np.asarray(x), np.ravel(labels)
    for side, colour, marker in ((labels > 0, BLUE, "o"), (labels <= 0, RED, "s")):
        axes.plot(*x[side].T, marker, color=colour, markersize=size, markeredgecolor="white", markeredgewidth=0.5)


def hidden_lines(axes, layer: fnn.Dense) -> None:
    """Where each hidden neuron's weighted input is 0."""
    for w, b in zip(np.asarray(layer.W), np.asarray(layer.b)):
        foot = -b * w / (w @ w)
        axes.axline(foot, foot + np.array([-w[1], w[0]]), color=GREY, linestyle="--", linewidth=1)


def one_neuron(with_b, without_b, figures: dict) -> None:
    x, labels = np.array(figures["points"]), np.array(figures["labels"])
    for axes, b in ((with_b, B), (without_b, 0.0)):
        background(axes, neuron(W, b), -2, 2)
        dots(axes, x, labels)
        foot = -b * np.array(W) / np.dot(W, W)
        axes.annotate("", foot + 0.4 * np.array(W), foot, arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.5})
        axes.text(*(foot + 0.43 * np.array(W)), "w", fontsize=12, fontweight="bold")
        axes.plot(0, 0, "+", color="black", markersize=9)
        wrong = sides(neuron(W, b), x) != labels
        axes.plot(*x[wrong].T, "o", color="none", markeredgecolor="black", markersize=11)
        if b:
            axes.plot(*np.transpose([(0, 0), foot]), ":", color="black")
            axes.text(*(foot / 2 + np.array([0.08, -0.1])), "−b / ‖w‖", fontsize=10)
    with_b.set_title("One neuron: the line wᵀx + b = 0")
    count = f"{figures['wrong without b']} of {len(x)} wrong (circled)"
    without_b.set_title(f"The same w, no b: {count},\nwith the best w {figures['best w']}")


def draw(path: Path, figures: dict, points: int) -> None:
    figure = Figure(figsize=(13, 8.8), layout="constrained")
    (with_b, without_b, single), (pair, disc, spiral) = figure.subplots(2, 3)
    one_neuron(with_b, without_b, figures["line"])
    background(single, neuron((1.0, 1.0), -0.5), -0.6, 1.6)
    dots(single, *XOR, size=9)
    single.set_title("XOR: one neuron has at most 3 of 4 right")
    panels = (
        (pair, figures["xor"]["network with 2 hidden"], XOR, (-0.6, 1.6), "XOR: two hidden neurons (dashed) can"),
        (
            disc,
            figures["shapes"]["network with 3 hidden"],
            ring(points),
            (-2.2, 2.2),
            "A disc: three hidden neurons enclose it",
        ),
        (
            spiral,
            figures["shapes"]["network of the spirals"],
            spirals(points),
            (-2.2, 2.2),
            "Two spirals: two hidden layers of 32",
        ),
    )
    for axes, params, data, (low, high), title in panels:
        background(axes, params, low, high)
        dots(axes, *data, size=9 if data is XOR else 5)
        if len(params) == 2:
            hidden_lines(axes, params[0])
        axes.set_title(title)
    figure.savefig(path, dpi=100)


def claims(options: Options, figures: dict) -> list[results.Claim]:
    line, xor, shapes = figures["line"], figures["xor"], figures["shapes"]
    networks = min(options.seeds, 20)
    two, three = (shapes[f"disc with {hidden} hidden"] for hidden in (2, 3))
    return [
        results.Claim(
            "one neuron with σ = sgn gives +1 where wᵀx ≥ −b",
            f"at {line['as printed']:,} of {line['lattice']:,} points, {line['on the line']} of them on the line",
        ),
        results.Claim(
            "points labelled by it, without b",
            f"{line['wrong without b']} of {len(line['points'])} wrong, {line['best w']} with the best w",
        ),
        results.Claim(
            f"XOR with one neuron: the best of {options.seeds * len(RATES)} descents, at any step",
            f"{xor['best of one neuron']} of 4 right; the bound: {xor['bound']}, neurons give "
            f"{xor['separable labellings']} of the 16 labellings",
        ),
        results.Claim(
            "XOR is learnt by a hidden layer of 2, of 3 (tanh)",
            f"{xor['learnt with 2 hidden']}, {xor['learnt with 3 hidden']} of {options.seeds} starts",
        ),
        results.Claim(
            f"a disc in a ring with 2, with 3 hidden neurons: points right, the best of {networks} starts",
            f"{max(two):.1f} %, {max(three):.1f} %",
        ),
        results.Claim(
            "two spirals with hidden layers of 32 and 32: points between those trained on",
            f"{results.spread(shapes['spirals'], 1)} %, {len(shapes['spirals'])} starts; "
            f"one neuron {results.spread(shapes['spirals, one neuron'], 1)} %",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures = {"line": line(options), "xor": xor(options), "shapes": shapes(options)}
    made = claims(options, figures)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    out = results.folder(options.out, "boundaries")
    draw(out / "boundaries.png", figures, options.points)
    kept = {part: {k: v for k, v in of.items() if "network" not in k} for part, of in figures.items()}
    results.save(out, "boundaries", options, made, kept)


if __name__ == "__main__":
    main()
