"""Activations and δ's by layer, after Glorot and Bengio 2010 (E2): ``python -m experiments.glorot``.

Networks of 4 or 5 hidden layers of 1,000 neurons with a softmax, plain gradient descent in batches of 10; initial
weights U[−1/√n_in, 1/√n_in] (standard) or U[−r, r], r = √6/√(n_in + n_out) (normalised). Activations come from
``fnn.trace`` and δ's from ``fnn.deltas``, for 300 test images, pooled over all neurons of a layer.

1. Training with sigmoids: the last hidden layer and its derivative fall to 0, and learning stalls (figure 2).
2. Training with tanh and softsign: 98th percentile and standard deviation by layer (figure 3).
3. Before training, tanh: activations (figure 6) and δ's (figure 7), standard and normalised.

The data are MNIST. The paper's figures use generated shapes of 32 × 32 pixels, so only the shape of the curves is
comparable. Its table includes MNIST. Shortened: 20,000 steps, one of the 140 epochs in figure 2. The learning rates for
tanh and softsign were chosen on the last 10,000 training images, after 10,000 steps; the rate for the sigmoid was
chosen so that the end of its plateau is visible.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.digits import load
from experiments.glorot_picture import draw
from fnn.data import Dataset
from fnn.train import evaluate, fit

LOSS = fnn.SoftmaxCrossEntropy()
BATCH, IMAGES, FULL = 10, 300, 400_000


def standard_uniform(key, shape, dtype):
    """U[−1/√n_in, 1/√n_in], so n_in Var W = 1/3: the paper's standard initialisation."""
    r = shape[1] ** -0.5
    return jax.random.uniform(key, shape, dtype, -r, r)


class Network(NamedTuple):
    """What is trained, how it is drawn, and the paper's MNIST error in percent (table 1: 5 hidden layers)."""

    activation: fnn.Activation
    initializer: Callable
    learning_rate: float
    published: float
    hidden: int = 5


NETWORKS = {
    "sigmoid": Network(fnn.Sigmoid(), standard_uniform, 0.3, 2.21, hidden=4),  # 4 as in figure 2
    "tanh": Network(fnn.Tanh(), standard_uniform, 0.1, 1.76),
    "tanh, normalised": Network(fnn.Tanh(), fnn.initializers.glorot_uniform, 0.03, 1.64),
    "softsign": Network(fnn.Softsign(), standard_uniform, 0.2, 1.64),
    "softsign, normalised": Network(fnn.Softsign(), fnn.initializers.glorot_uniform, 0.1, 1.72),
}
STARTS = {"standard": "tanh", "normalised": "tanh, normalised"}


@dataclass(frozen=True)
class Options:
    """Activations and δ's by layer, before and during training."""

    steps: int = 20_000
    full: bool = False
    """400,000 steps: about an hour and a half."""
    width: int = 1000
    """Neurons per hidden layer."""
    record_every: int = 400
    """Steps between points of the curves."""
    seed: int = 0
    """Random seed of the training."""
    starts: int = 5
    """Random networks for the ratios before training."""
    out: Path | None = None


def draw_network(network: Network, width: int, seed: int) -> fnn.layers.Params:
    sizes = (784, *[width] * network.hidden, 10)
    return fnn.init(jax.random.key(seed), sizes, activation=network.activation, initializer=network.initializer)


def train(options: Options, network: Network, data: Dataset, test: Dataset) -> dict:
    """Mean, standard deviation and 98th percentile of each hidden layer's activations by step, loss and test error."""
    params = draw_network(network, options.width, options.seed)
    images = jnp.asarray(test[:IMAGES].floats())
    optimizer = fnn.updates.sgd(network.learning_rate)
    rows, examples = np.random.default_rng(options.seed), options.steps * BATCH
    drawn = np.concatenate([rows.permutation(len(data)) for _ in range(-(-examples // len(data)))])
    points: dict = {"step": [0], "layers": [by_layer(params, images)], "loss": []}
    for start in range(0, options.steps, options.record_every):
        part = drawn[start * BATCH :][: options.record_every * BATCH]
        run = fit(
            params, Dataset(data.x[part], data.y[part]), optimizer, loss=LOSS, epochs=1, batch_size=BATCH,
            key=jax.random.fold_in(jax.random.key(options.seed), start), progress=False,
        )  # fmt: skip
        params = run.params
        points["step"].append(start + options.record_every)
        points["layers"].append(by_layer(params, images))
        points["loss"].append(rounded(run.history[-1]["loss"]))
    return points | {"test error": round(100 * (1 - evaluate(params, test, loss=LOSS)["accuracy"]), 2)}


def by_layer(params, images) -> list[list[float]]:
    """[mean, standard deviation, 98th percentile] of each hidden layer's activations."""
    activations = [np.asarray(layer.a) for layer in fnn.trace(params, images)[:-1]]
    return [[rounded(f) for f in (a.mean(), a.std(), np.percentile(a, 98))] for a in activations]


def columns(run: dict) -> dict:
    """What is kept of a run: each layer's mean, deviation and 98th percentile by step, a line of text for each."""
    layers = np.moveaxis(np.array(run["layers"]), 0, -1)  # (layers, 3, points)
    names = ("mean", "sd", "98 %")
    text = [{name: " ".join(f"{v:.3g}" for v in values) for name, values in zip(names, layer)} for layer in layers]
    return run | {"layers": text}


def rounded(value) -> float:
    return float(f"{value:.3g}")


def before_training(options: Options, network: Network, test: Dataset) -> dict:
    """Of activations and δ's by hidden layer: the standard deviations of several networks, the first's densities."""
    images, labels = jnp.asarray(test[:IMAGES].floats()), jnp.asarray(test.y[:IMAGES])
    deviations: dict = {"activations": [], "deltas": []}
    densities: dict = {}
    for seed in range(options.starts):
        params = draw_network(network, options.width, seed)
        activations = [np.asarray(layer.a) for layer in fnn.trace(params, images)[:-1]]
        deltas = [np.asarray(delta) for delta in fnn.deltas(params, images, labels, loss=LOSS)[:-1]]
        for what, values in (("activations", activations), ("deltas", deltas)):
            deviations[what].append([rounded(layer.std()) for layer in values])
            densities.setdefault(what, density(values))
    return {"deviations": deviations, "densities": densities}


def density(values: Sequence[np.ndarray]) -> dict:
    """Histograms of every layer on one axis, ±3 of the largest standard deviations."""
    end = 3 * max(layer.std() for layer in values)
    edges = np.linspace(-end, end, 62)
    heights = [np.histogram(layer, edges)[0] / layer.size / (edges[1] - edges[0]) for layer in values]
    return {"end": rounded(end), "heights": [[rounded(h) for h in layer] for layer in heights]}


# -- what is claimed ---------------------------------------------------------------------------------------------


def claims(options: Options, runs: dict, before: dict) -> list[results.Claim]:
    """What the table of experiments says; published figures of figures 2 and 6 are read off them."""
    return [
        *before_claims(before),
        *sigmoid_claims(runs["sigmoid"]),
        *saturation_claims(runs),
        *error_claims(options, runs),
    ]


def before_claims(before: dict) -> list[results.Claim]:
    made = []
    for start, published in (("standard", "(1/√3)⁴ = 0.11"), ("normalised", "1")):
        deviations = np.array(before[start]["deviations"]["deltas"])
        what = f"before training, tanh, {start}: standard deviation of δ, hidden layer 1 over {deviations.shape[1]}"
        ratios = results.spread(deviations[:, 0] / deviations[:, -1], 3)
        differs = "the published figure is the theory's, and σ' < 1 here; MNIST, where figure 7 has generated shapes"
        here = f"{ratios}, {len(deviations)} networks"
        made.append(results.Claim(what, here, f"{published}, if all σ' = 1", differs))
    for start, published in (("standard", "1.4 → 14"), ("normalised", "1.5 → 1.3")):
        first, *_, last = (max(layer) for layer in before[start]["densities"]["activations"]["heights"])
        what = f"before training, tanh, {start}: peak of the activations' density, first → last hidden layer"
        rises = "rises, as published" if start == "standard" else "rises, where it falls in the paper"
        differs = f"not reproduced in numbers: the peak {rises if last > first else 'falls'}; other data"
        made.append(results.Claim(what, f"{first:.2g} → {last:.2g}", f"{published} (figure 6)", differs))
    return made


def sigmoid_claims(run: dict) -> list[results.Claim]:
    last = np.array(run["layers"])[:, -1, 0]
    lowest = int(last.argmin())
    leaves = next((step for step, loss in zip(run["step"][1:], run["loss"]) if loss < 2), None)
    return [
        results.Claim(
            "training, sigmoid, 4 hidden layers: mean activation of the last one",
            f"{last[0]:.2f}; {last[1]:.3f} at step {run['step'][1]:,}; lowest {last[lowest]:.3f}",
            "0.5; lowest 0.02 (figure 2)",
            "other data; another rate; one network",
        ),
        results.Claim(
            "it stays there, and the loss near ln 10, until",
            f"step {leaves:,} (loss below 2)" if leaves else f"after step {run['step'][-1]:,}",
            "about step 2,000,000 (figure 2)",
            "the numbers of steps do not compare: the rate was chosen for speed, so that the end of the waiting is "
            "seen; other data; one network",
        ),
    ]


def saturation_claims(runs: dict) -> list[results.Claim]:
    def at_the_end(name: str) -> str:
        return ", ".join(f"{layer[2]:.2f}" for layer in runs[name]["layers"][-1])

    what = "at the end, standard: 98th percentile of the activations in hidden layers 1 to 5"
    return [
        results.Claim(
            f"tanh {what}",
            at_the_end("tanh"),
            "layer 1 saturates first, then the next (figure 3)",
            order_of_layers(runs),
        ),
        results.Claim(f"softsign {what}", at_the_end("softsign")),
    ]


def order_of_layers(runs: dict) -> str:
    """What differs from figure 3, and whether layer 1 is the most saturated."""
    first, *others = (layer[2] for layer in runs["tanh"]["layers"][-1])
    place = "the most" if first > max(others) else "the least" if first < min(others) else "neither most nor least"
    reproduced = "reproduced" if first > max(others) else "not reproduced"
    return f"{reproduced}: layer 1 is {place} saturated; other data, shortened, another rate"


def error_claims(options: Options, runs: dict) -> list[results.Claim]:
    return [
        results.Claim(
            f"MNIST test error, {name}, {NETWORKS[name].hidden} hidden layers of {options.width:,}",
            f"{run['test error']:.2f} % after {options.steps:,} steps, one network",
            f"{NETWORKS[name].published} %",
            "shortened; rate chosen after 10,000 steps; one network"
            + ("" if NETWORKS[name].hidden == 5 else f"; {NETWORKS[name].hidden} hidden layers, where the paper has 5"),
        )  # fmt: skip
        for name, run in runs.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if options.full:
        options = dataclasses.replace(options, steps=FULL, record_every=FULL // 50)
    if options.steps % options.record_every:
        raise SystemExit(f"--steps {options.steps}: expected a multiple of --record-every {options.record_every}")
    shortened = f"{options.steps:,} steps of the 2.8 million that figure 2 shows"
    print(f"Shortened: {shortened}. MNIST here, generated shapes in the paper's figures: compare the curves' shapes.")
    data, test = load()
    before = {start: before_training(options, NETWORKS[name], test) for start, name in STARTS.items()}
    runs = {}
    for name, network in NETWORKS.items():
        runs[name] = train(options, network, data, test)
        print(f"{name}: test error {runs[name]['test error']:.2f} %, last training loss {runs[name]['loss'][-1]:.3f}")
    made = claims(options, runs, before)
    for claim in made:
        print(f"{claim.claim}: {claim.here}" + (f" (published: {claim.published})" if claim.published else ""))
    out = results.folder(options.out, "glorot")
    draw(out / "glorot.png", runs, before)
    figures = {"runs": {name: columns(run) for name, run in runs.items()}, "before": before}
    results.save(out, "glorot", options, made, figures, shortened=shortened)


if __name__ == "__main__":
    main()
