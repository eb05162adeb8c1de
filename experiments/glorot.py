"""Activations and δ's by layer, after Glorot and Bengio 2010 (E2): ``python -m experiments.glorot``.

Networks of 4 or 5 hidden layers of 1,000 neurons with a softmax, plain gradient descent in batches of 10; initial
weights U[−1/√n_in, 1/√n_in] (standard) or U[−r, r], r = √6/√(n_in + n_out) (normalised). Activations come from
``fnn.trace`` and δ's from ``fnn.deltas``, for 300 test images, pooled over all neurons of a layer.

1. Training with sigmoids: the last hidden layer and its derivative fall to 0, and learning stalls (figure 2).
2. Training with tanh and softsign: 98th percentile and standard deviation by layer (figure 3).
3. Before training, tanh: activations (figure 6) and δ's (figure 7), standard and normalised.

The data are MNIST. The paper's figures use generated shapes of 32 × 32 pixels, so only the shape of the curves is
comparable. Its table includes MNIST. The learning rates for tanh and softsign were chosen on the last 10,000 training
images, after 10,000 steps; the paper chose its own too, and does not report them. The rate of the sigmoid decides how
long its plateau is, so three are shown.

``--full``: 2.8 million steps of each network, the 140 epochs of 20,000 that figure 2 shows; the default is one of them.
At 2 to 4 ms a step on one idle core that is two to three hours for each of the seven networks. It is meant for a GPU,
where the command is the same. ``--checkpoint FOLDER`` keeps what is done.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import long_runs, results
from experiments.digits import load
from experiments.glorot_picture import draw
from fnn.data import Batches, Dataset
from fnn.train import Progress, evaluate, fit

LOSS = fnn.SoftmaxCrossEntropy()
BATCH, IMAGES, FULL = 10, 300, 2_800_000
WHAT = ("mean", "sd", "98 %")  # of the activations of a layer


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
NETWORKS |= {f"sigmoid, η = {rate}": NETWORKS["sigmoid"]._replace(learning_rate=rate) for rate in (0.15, 0.1)}
WAITING = tuple(name for name in NETWORKS if name.startswith("sigmoid"))
STARTS = {"standard": "tanh", "normalised": "tanh, normalised"}


@dataclass(frozen=True)
class Options:
    """Activations and δ's by layer, before and during training."""

    steps: int = 20_000
    full: bool = False
    """2.8 million steps, as figure 2 shows."""
    width: int = 1000
    """Neurons per hidden layer."""
    record_every: int = 400
    """Steps between points of the curves."""
    seed: int = 0
    """Random seed of the training."""
    starts: int = 5
    """Random networks for the ratios before training."""
    checkpoint: Path | None = None
    """Folder that keeps what has finished: a repeated command resumes, and several processes may share it."""
    report: bool = False
    """Train nothing, and leave the record of what has finished in the folder."""
    out: Path | None = None


def draw_network(network: Network, width: int, seed: int) -> fnn.layers.Params:
    sizes = (784, *[width] * network.hidden, 10)
    return fnn.init(jax.random.key(seed), sizes, activation=network.activation, initializer=network.initializer)


def train(options: Options, network: Network, data: Dataset, test: Dataset, checkpoint: Path | None) -> dict:
    """Mean, standard deviation and 98th percentile of each hidden layer's activations by step, loss and test error."""
    params, every = draw_network(network, options.width, options.seed), options.record_every
    images = jnp.asarray(test[:IMAGES].floats())

    def look(progress: Progress) -> dict[str, float]:
        layers = by_layer(progress.params, images)
        return {f"{i} {what}": value for i, layer in enumerate(layers) for what, value in zip(WHAT, layer)}

    batches = Batches(partial(mini_batches, data, options.seed, every), scale=data.scale, identity="MNIST")
    run = fit(
        params, batches, fnn.updates.sgd(network.learning_rate), loss=LOSS, epochs=options.steps // every,
        batch_size=BATCH, batches_per_epoch=every, key=jax.random.key(options.seed), callback=look, progress=False,
        checkpoint=checkpoint, every=10,
    )  # fmt: skip
    later = [[[record[f"{i} {what}"] for what in WHAT] for i in range(network.hidden)] for record in run.history]
    return {
        "step": [every * i for i in range(len(later) + 1)],
        "layers": [by_layer(params, images), *later],
        "loss": [rounded(record["loss"]) for record in run.history],
        "test error": round(100 * (1 - evaluate(run, test, loss=LOSS)["accuracy"]), 2),
    }


def mini_batches(data: Dataset, seed: int, every: int, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Those between two records; each pass over the data has a shuffle of its own."""
    in_a_pass = len(data) // BATCH
    order, drawn = np.empty(0, int), -1
    for step in range((epoch - 1) * every, epoch * every):
        if step // in_a_pass != drawn:
            drawn = step // in_a_pass
            order = np.random.default_rng([seed, drawn]).permutation(len(data))
        rows = order[step % in_a_pass * BATCH :][:BATCH]
        yield data.x[rows], data.y[rows]


def by_layer(params, images) -> list[list[float]]:
    """[mean, standard deviation, 98th percentile] of each hidden layer's activations."""
    activations = [np.asarray(layer.a) for layer in fnn.trace(params, images)[:-1]]
    return [[rounded(f) for f in (a.mean(), a.std(), np.percentile(a, 98))] for a in activations]


def columns(run: dict) -> dict:
    """What is kept of a run: each layer's mean, deviation and 98th percentile by step, a line of text for each."""
    layers = np.moveaxis(np.array(run["layers"]), 0, -1)  # (layers, 3, points)
    text = [{name: " ".join(f"{v:.3g}" for v in values) for name, values in zip(WHAT, layer)} for layer in layers]
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
        *sigmoid_claims(runs),
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


def sigmoid_claims(runs: dict) -> list[results.Claim]:
    run = runs["sigmoid"]
    last = np.array(run["layers"])[:, -1, 0]
    lowest = int(last.argmin())
    left = {NETWORKS[name].learning_rate: waited(runs[name]) for name in WAITING}
    until = ", ".join(f"{step:,} at η = {rate}" if step else f"the end at η = {rate}" for rate, step in left.items())
    products = [rate * step for rate, step in left.items() if step]
    return [
        results.Claim(
            "training, sigmoid, 4 hidden layers: mean activation of the last one",
            f"{last[0]:.2f}; {last[1]:.3f} at step {run['step'][1]:,}; lowest {last[lowest]:.3f}",
            "0.5; lowest 0.02 (figure 2)",
            "other data; another rate; one network",
        ),
        results.Claim(
            "it stays there, and the loss near ln 10 (above 2), until step",
            until,
            "about 2,000,000 (figure 2)",
            "the numbers of steps do not compare: the rate was chosen for speed, so that the end of the waiting is "
            f"seen, and the paper's is not given; {rates(products)}other data; one network for each rate",
        ),
    ]


def waited(run: dict) -> int | None:
    """The first recorded step with a loss below 2."""
    return next((step for step, loss in zip(run["step"][1:], run["loss"]) if loss < 2), None)


def rates(products: list[float]) -> str:
    """What the waiting, in steps times η, says about the paper's rate."""
    if not products:
        return ""
    steps = f"{min(products):,.0f} to {max(products):,.0f}" if len(products) > 1 else f"{products[0]:,.0f}"
    return f"steps × η is {steps}, so that 2,000,000 steps would be η = {np.mean(products) / 2e6:.4f}; "


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
        if name not in WAITING[1:]
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
    runs = long_runs.finished(
        options.checkpoint,
        {name: partial(train, options, network, data, test) for name, network in NETWORKS.items()},
        settings=results.command("glorot", options),
        report=options.report,
    )
    if len(runs) < len(NETWORKS):
        raise SystemExit(f"{len(runs)} of {len(NETWORKS)} networks have finished: nothing to report yet")
    for name, run in runs.items():
        print(f"{name}: test error {run['test error']:.2f} %, last training loss {run['loss'][-1]:.3f}")
    made = claims(options, runs, before)
    for claim in made:
        print(f"{claim.claim}: {claim.here}" + (f" (published: {claim.published})" if claim.published else ""))
    out = results.folder(options.out, "glorot")
    draw(out / "glorot.png", runs, before)
    figures = {"runs": {name: columns(run) for name, run in runs.items()}, "before": before}
    spent = long_runs.seconds(runs)
    results.save(out, "glorot", options, made, figures, shortened=shortened, seconds=spent)


if __name__ == "__main__":
    main()
