"""Updating each layer on the way back, in the printed order and in the right one (H11, S11):
``python -m experiments.update_order``.

Hedges: update W^L, "then compute" δ^{L−1} from it, and so "updating each layer as we go backwards". Taken literally, δ
comes from weights that have already changed, and the result is not a gradient. With δ^{L−1} computed first and the
update after it, the steps are bitwise those of ordinary stochastic gradient descent, and a layer's gradient is needed
only until its own update, so the gradient of the whole network never exists at once.

1. The parameters after some steps of both orders, beside ``fnn.backprop`` and ``fnn.updates.sgd``, operation by
   operation: as many bits differ as are counted.
2. Training curves of both orders at several rates: 784-100-100-10 on MNIST.
3. Memory: what XLA plans for a step of a deep network, layer by layer, and with the whole gradient returned to the
   program that then updates. A compiler that sees both in one program may find the thrifty order by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, results
from experiments.figures import BLUE, GREY, RED
from fnn import backward

LOSS = fnn.SquaredError(0.5)
COLOURS = {"as printed": RED, "δ first": BLUE}


@dataclass(frozen=True)
class Options:
    """Updates on the way back: δ from the weights that were updated, as printed, or from those before."""

    hidden: tuple[int, ...] = (100, 100)
    rates: tuple[float, ...] = (0.3, 1.0, 2.0, 3.0)
    steps: int = 3000
    """Steps of the training curves."""
    batch_size: int = 50
    record_every: int = 100
    examples: int = 60_000
    """Number of training images, from the first."""
    depth: int = 32
    """Layers of the network whose memory use is planned."""
    width: int = 256
    seed: int = 0
    out: Path | None = None


def step(params, x, y, rate, *, printed: bool):
    """One step on the way back; ``printed``: δ of a layer from the weights after the next layer's update."""
    traces = fnn.trace(params, x)
    last, t = params[-1], traces[-1]
    delta = backward.output_delta(LOSS, last.activation, t.z, t.a, y)
    updated: list[fnn.Dense] = []
    for number in reversed(range(len(params))):
        layer, t = params[number], traces[number]
        new = descended(layer, delta, t.a_in, rate)
        if number > 0:
            before = params[number - 1]
            g = backward.input_gradient(delta, new.W if printed else layer.W)
            delta = backward.hidden_delta(g, before.activation, traces[number - 1].z, traces[number - 1].a)
        updated.insert(0, new)
    return tuple(updated)


def descended(layer: fnn.Dense, delta, a_in, rate) -> fnn.Dense:
    """The layer after θ ← θ − η g, with g averaged over the examples."""
    n = len(delta)
    W, b = backward.weight_gradient(delta, a_in) / n, backward.bias_gradient(delta) / n
    return replace(layer, W=layer.W + -rate * W, b=layer.b + -rate * b)


def ordinary(params, x, y, rate):
    """The whole gradient, then the whole update."""
    rule = fnn.updates.sgd(rate)
    steps, _ = rule.update(fnn.backprop(params, x, y, loss=LOSS), rule.init(params))
    return optax.apply_updates(params, steps)


def start(options: Options, sizes: Sequence[int]):
    return fnn.init(jax.random.key(options.seed), sizes, activation=fnn.Sigmoid(), output=fnn.Sigmoid())


def differing_bits(options: Options, steps: int = 3) -> dict:
    """How many entries of all parameters are not those of ordinary descent, after a few steps, each order."""
    random, sizes = np.random.default_rng(options.seed), (20, 16, 12, 5)
    x, y = (jnp.asarray(random.uniform(size=(steps, 8, n)), "float32") for n in (sizes[0], sizes[-1]))
    orders: dict[str, Callable] = {name: partial(step, printed=name == "as printed") for name in COLOURS}
    found = {}
    with (
        jax.disable_jit()
    ):  # operation by operation: a compiler may contract a product and a sum in one and not in the other
        right = start(options, sizes)
        for n in range(steps):
            right = ordinary(right, x[n], y[n], 0.5)
        for name, order in orders.items():
            params = start(options, sizes)
            for n in range(steps):
                params = order(params, x[n], y[n], 0.5)
            pairs = zip(jax.tree.leaves(params), jax.tree.leaves(right), strict=True)
            found[name] = int(sum(np.sum(np.asarray(a) != np.asarray(b)) for a, b in pairs))
    return found | {"of": sum(leaf.size for leaf in jax.tree.leaves(right))}


@partial(jax.jit, static_argnames="printed")
def train(params, x, y, rate, *, printed: bool):
    """Some steps, x (steps, B, 784) as bytes, y (steps, B) labels; the mean loss at the end of each."""

    def one(params, batch):
        images, labels = batch[0].astype(jnp.float32) / 255, jax.nn.one_hot(batch[1], 10)
        return step(params, images, labels, rate, printed=printed), jnp.mean(
            LOSS.value(fnn.forward(params, images), labels)
        )

    return jax.lax.scan(one, params, (x, y))


def curves(options: Options) -> dict:
    """Training loss and test error by step, for both orders and every rate."""
    data, test = digits.load()
    data = data[: options.examples]
    random = np.random.default_rng(options.seed)
    rows = random.integers(0, len(data), (options.steps, options.batch_size))
    images = jnp.asarray(test.floats())

    @jax.jit
    def error(params):
        return jnp.mean(jnp.argmax(fnn.forward(params, images), axis=1) != jnp.asarray(test.y, "int32"))

    found: dict = {}
    for name in COLOURS:
        for rate in options.rates:
            params, losses, errors = start(options, (784, *options.hidden, 10)), [], []
            for first in range(0, options.steps, options.record_every):
                part = rows[first : first + options.record_every]
                x, y = jnp.asarray(data.x[part]), jnp.asarray(data.y[part], "int32")
                params, values = train(params, x, y, jnp.float32(rate), printed=name == "as printed")
                losses.append(float(f"{float(values.mean()):.4g}"))
                errors.append(round(100 * float(error(params)), 2))
            found.setdefault(name, {})[f"{rate:g}"] = {"loss": losses, "error": errors}
            print(f"{name}, η = {rate:g}: test error {errors[-1]:.2f} %", flush=True)
    return found


def memory(options: Options) -> dict:
    """Bytes beside the parameters that XLA plans for one step whose parameters are given away, by kind of step."""
    params = start(options, [options.width] * (options.depth + 1))
    x = jnp.zeros((options.batch_size, options.width))
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(params))

    def planned(function, *arguments, donate=()) -> int:
        plan: Any = jax.jit(function, donate_argnums=donate).lower(*arguments).compile().memory_analysis()
        return int(plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes)

    return {
        "parameters": parameters,
        "layer by layer": planned(lambda p, x, y: step(p, x, y, 0.1, printed=False), params, x, x, donate=0),
        "the whole gradient": planned(lambda p, x, y: fnn.backprop(p, x, y, loss=LOSS), params, x, x),
        "one program": planned(lambda p, x, y: ordinary(p, x, y, 0.1), params, x, x, donate=0),
    }


def claims(options: Options, bits: dict, runs: dict, memory: dict) -> list[results.Claim]:
    def errors(name: str) -> str:
        return ", ".join(f"{run['error'][-1]:.2f}" for run in runs[name].values())

    sizes, rates = "-".join(map(str, (784, *options.hidden, 10))), ", ".join(runs["δ first"])
    mega = {name: f"{size / 2**20:.1f}" for name, size in memory.items()}
    return [
        results.Claim(
            f"updates on the way back: of {bits['of']:,} parameters those that are not ordinary descent's to the last "
            "bit after 3 steps, δ first and as printed",
            f"{bits['δ first']} and {bits['as printed']}",
        ),
        results.Claim(
            f"{sizes} on MNIST, {options.steps:,} steps, η = {rates}: test error, δ first and as printed",
            f"{errors('δ first')} and {errors('as printed')} %",
        ),
        results.Claim(
            f"a step of {options.depth} layers of {options.width}, batch {options.batch_size}: memory beside the "
            f"parameters' {mega['parameters']} MiB, layer by layer, with the whole gradient returned, and where the "
            "compiler sees gradient and update in one program",
            f"{mega['layer by layer']}, {mega['the whole gradient']}, {mega['one program']} MiB",
        ),
    ]


def draw(path: Path, options: Options, runs: dict) -> None:
    figure = Figure(figsize=(3.4 * len(options.rates), 3.6), layout="constrained")
    panels = figure.subplots(1, len(options.rates), sharey=True, squeeze=False)[0]
    steps = np.arange(options.record_every, options.steps + 1, options.record_every)
    for axes, rate in zip(panels, options.rates):
        for name, colour in COLOURS.items():
            style = "-" if name == "δ first" else "--"
            axes.plot(steps, runs[name][f"{rate:g}"]["error"], style, color=colour, label=name)
        axes.set(xlabel="step", title=f"η = {rate:g}", yscale="log")
        axes.axhline(90, color=GREY, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test error, %")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if options.steps % options.record_every:
        raise SystemExit(f"--steps {options.steps}: expected a multiple of --record-every {options.record_every}")
    bits, runs, planned = differing_bits(options), curves(options), memory(options)
    made = claims(options, bits, runs, planned)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    out = results.folder(options.out, "update_order")
    draw(out / "update_order.png", options, runs)
    figures = {"differing": bits, "runs": runs, "bytes": planned}
    results.save(out, "update_order", options, made, figures)


if __name__ == "__main__":
    main()
