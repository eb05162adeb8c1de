"""What was tried to make a small epoch faster, and what bounds it: ``python -m experiments.benchmarks.variants``.

The loop of 784-30-10, sigmoid, ½‖a − y‖², batch 10, gradient descent, written out by hand in the order of ``fit``'s:
as it is, and with one thing changed at a time. A variant must end at the same parameters, or it is not timed. Three
others leave work out and say what it costs: they are bounds, and compute nothing of use. Beside them epochs of
``fit`` with δᵀ as an array in larger networks. Processor time, which other programs on the machine hardly change;
interleaved, medians of the rounds' ratios.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array, lax

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, interleaved
from fnn.data import Dataset
from fnn.masks import masked
from fnn.train import fit

INPUTS, HIDDEN, OUTPUTS, BATCH = 784, 30, 10, 10
PADDED = 32  # a whole number of vectors
RATE = 3.0 / BATCH
TOLERANCE = 1e-4  # of the way from the initial parameters
BASE = "as it is"
LARGER = ((784, 100, 10), 32), ((784, 512, 512, 10), 128), ((1024, 2048, 2048, 16), 1024)  # sizes and batch
TURNED = "δᵀ of (3) as an array"

Weights = tuple[Array, Array, Array, Array]


@dataclass(frozen=True)
class Options:
    """Processor time of an epoch's loop with one thing changed, as a multiple of the loop as it is."""

    examples: int = 12_000
    rounds: int = 15
    out: Path | None = None


def first(weights: Weights, x: Array) -> Array:
    return x @ weights[0].T


def outer(delta: Array, x: Array, W: Array) -> Array:
    """The step of W¹ by (3)."""
    return W - RATE * (delta.T @ x)


def turned(delta: Array, x: Array, W: Array) -> Array:
    """δᵀ as an array: then the product is of the form that XLA's library for CPUs takes."""
    return W - RATE * (lax.optimization_barrier(delta.T) @ x)


def summed(delta: Array, x: Array, W: Array) -> Array:
    """Without a product: a sum over the examples, fused with the step."""
    return W - RATE * jnp.sum(delta[:, :, None] * x[:, None, :], axis=0)


def one_product(delta: Array, x: Array, W: Array) -> Array:
    """(3) and the step as one product: [−η δᵀ, 1] [x; W]."""
    return jnp.concatenate([-RATE * delta.T, jnp.eye(len(W))], 1) @ jnp.concatenate([x, W], 0)


def layers_above(weights: Weights, psi: Array, y: Array, kept=1.0) -> tuple[Weights, Array]:
    """From ψ¹ on: the step of all parameters but W¹, and δ¹; kept: 0 for units that only pad."""
    W1, b1, W2, b2 = weights
    a1 = jax.nn.sigmoid(psi + b1) * kept
    a2 = jax.nn.sigmoid(a1 @ W2.T + b2)
    delta2 = (a2 - y) * a2 * (1 - a2)
    delta1 = (delta2 @ W2) * a1 * (1 - a1)
    stepped = b1 - RATE * delta1.sum(0), W2 - RATE * (delta2.T @ a1), b2 - RATE * delta2.sum(0)
    return (W1, *stepped), delta1


def as_floats(x: Array) -> Array:
    return x.astype(jnp.float32) * (1 / 255)


def step(weights: Weights, batch, forward=first, update=outer, kept=1.0):
    x, y = as_floats(batch[0]), batch[1]
    (W1, *above), delta = layers_above(weights, forward(weights, x), y, kept)
    return (update(delta, x, W1), *above), None


def together(count: int, weights: Weights, batches):
    """Steps of several mini-batches with the products of W¹ for all of them at once.

    After k steps ψ¹ = x (W − η Σ_{j<k} δ_jᵀ x_j)ᵀ = x Wᵀ − η Σ_{j<k} (x x_jᵀ) δ_j: the products x Wᵀ and x xᵀ of all
    come first, and the step of W¹ by all δ last.
    """
    x, y = as_floats(batches[0]), batches[1]
    psi, gram = x @ weights[0].T, x @ x.T
    delta = jnp.zeros((count * BATCH, len(weights[0])))
    for number in range(count):
        rows = slice(number * BATCH, (number + 1) * BATCH)
        before = slice(0, number * BATCH)
        corrected = psi[rows] - RATE * (gram[rows, before] @ delta[before]) if number else psi[rows]
        weights, of_step = layers_above(weights, corrected, y[rows])
        delta = delta.at[rows].set(of_step)
    return (outer(delta, x, weights[0]), *weights[1:]), None


def padded(weights: Weights) -> tuple[Weights, Array]:
    """The same network with hidden units that are always 0, and which they are."""
    more = PADDED - len(weights[0])
    W1, b1, W2, b2 = weights
    wide = jnp.pad(W1, ((0, more), (0, 0))), jnp.pad(b1, (0, more)), jnp.pad(W2, ((0, 0), (0, more))), b2
    return wide, jnp.asarray(np.arange(PADDED) < len(W1), jnp.float32)


def loops(weights: Weights) -> dict[str, tuple[Callable, Weights, int]]:
    """By name: a step, the parameters it begins with, and the mini-batches that it takes at once."""
    wide, kept = padded(weights)
    return {
        BASE: (step, weights, 1),
        f"hidden width padded to {PADDED}": (partial(step, kept=kept), wide, 1),
        TURNED: (partial(step, update=turned), weights, 1),
        "both": (partial(step, update=turned, kept=kept), wide, 1),
        "(3) as a sum, fused with the step": (partial(step, update=summed), weights, 1),
        "(3) and the step as one product": (partial(step, update=one_product), weights, 1),
        **{
            f"products of {n} mini-batches at once": (partial(together, n), weights, n) for n in (2, 4, 8)
        },
        "bound: without (3) and the step of W¹": (partial(step, update=lambda delta, x, W: W), weights, 1),
        "bound: without the product of (2) in layer 1": (partial(step, forward=cut), weights, 1),
        "bound: without both": (partial(step, forward=cut, update=lambda delta, x, W: W), weights, 1),
    }  # fmt: skip


def cut(weights: Weights, x: Array) -> Array:
    return x[:, : len(weights[0])]


def apart(found: Weights, expected: Weights, begun: Weights) -> float:
    """Distance of W¹ from where it should be, as a share of its way."""
    W, goal, start = (np.asarray(weights[0], np.float64)[:HIDDEN] for weights in (found, expected, begun))
    return float(np.linalg.norm(W - goal) / np.linalg.norm(goal - start))


def measure(options: Options) -> dict[str, dict]:
    """Microseconds of processor time for a step, and the ratio to the loop as it is with quartiles, by variant."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (options.examples, INPUTS)) * (random.random((options.examples, INPUTS)) < 0.2)
    x = jnp.asarray(pixels, jnp.uint8)
    y = jax.nn.one_hot(random.integers(0, OUTPUTS, options.examples), OUTPUTS)
    weights: Any = tuple(
        jnp.asarray(random.normal(0, 0.1, shape), jnp.float32)
        for shape in ((HIDDEN, INPUTS), (HIDDEN,), (OUTPUTS, HIDDEN), (OUTPUTS,))
    )
    order, goal = random.permutation(options.examples).astype(np.int32), None
    ways: dict[str, Callable] = {}
    for name, (one, begun, count) in loops(weights).items():
        rows = order[: len(order) // (8 * BATCH) * 8 * BATCH].reshape(-1, count * BATCH)
        epoch = jax.jit(lambda begun, x, y, rows, one=one: lax.scan(one, begun, (x[rows], y[rows]))[0])
        ways[name] = partial(epoch, begun, x, y, rows)
        reached = ways[name]()
        goal = reached if goal is None else goal
        if not name.startswith("bound") and not (off := apart(reached, goal, weights)) < TOLERANCE:
            raise ValueError(f"{name}: {off:.1e} of the way from where the loop as it is arrives")
    seconds = interleaved(ways, options.rounds, clock=time.process_time)
    steps = rows.size / BATCH
    return {
        name: {
            "µs": round(1e6 * float(np.median(taken)) / steps, 2),
            "/ as it is": np.percentile(taken / seconds[BASE], (50, 25, 75)).round(3).tolist(),
        }
        for name, taken in seconds.items()
    }


def turned_gradient(delta: Array, a_in: Array, mask: Array | None = None) -> Array:
    """(3) with δᵀ as an array, as a rule for ``fit``."""
    return masked(lax.optimization_barrier(delta.T) @ a_in, mask)


def in_larger_networks(options: Options) -> dict[str, dict]:
    """Epochs of ``fit`` with δᵀ of (3) as an array, as a multiple of those as it is, in networks of other sizes."""
    random, found = np.random.default_rng(0), {}
    examples = options.examples // 3
    for sizes, batch in LARGER:
        params = fnn.init(jax.random.key(0), sizes, activation=fnn.ReLU())
        x = random.integers(0, 256, (examples, sizes[0]), np.uint8)
        train = partial(
            fit, params, Dataset(x, random.integers(0, 10, examples)), fnn.updates.sgd(0.01),
            loss=fnn.SoftmaxCrossEntropy(), epochs=1, batch_size=min(batch, examples), key=jax.random.key(0),
            progress=False,
        )  # fmt: skip
        rules = {BASE: fnn.RULES, TURNED: fnn.RULES._replace(weight_gradient=turned_gradient)}
        ways = {name: lambda train=train, rule=rule: train(rules=rule).params for name, rule in rules.items()}
        seconds = interleaved(ways, options.rounds, clock=time.process_time)
        found[f"{'-'.join(map(str, sizes))}, batch {batch}"] = {
            name: round(1e3 * float(np.median(taken)), 2) for name, taken in seconds.items()
        } | {"/ as it is": np.percentile(seconds[TURNED] / seconds[BASE], (50, 25, 75)).round(3).tolist()}
    return found


def rows(figures: dict) -> list[Row]:
    base = figures["variants"][BASE]["µs"]
    compared = [
        (f"a step of 784-30-10, batch 10: {name}", found["/ as it is"], f"{found['µs']:.3g} µs", f"{base:.3g} µs")
        for name, found in figures["variants"].items() if name != BASE
    ] + [
        (f"an epoch of fit, {network}: {TURNED}", found["/ as it is"], f"{found[TURNED]:.3g} ms",
         f"{found[BASE]:.3g} ms")
        for network, found in figures["larger"].items()
    ]  # fmt: skip
    return [
        Row(what, "processor time", BASE, ratio[0], (ratio[1], ratio[2]), ours, theirs)
        for what, ratio, ours, theirs in compared
    ]


def claims(figures: dict) -> list[results.Claim]:
    told = ", ".join(
        f"{name} {found['/ as it is'][0]:.2f}" for name, found in figures["variants"].items() if name != BASE
    )
    here = f"{told}; {figures['variants'][BASE]['µs']:.3g} µs"
    return [results.Claim("a step of 784-30-10 at batch 10, changed: processor time as a multiple of as it is", here)]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures = {"variants": measure(options), "larger": in_larger_networks(options)}
    for name, found in figures["variants"].items():
        print(f"{name:48}{found['µs']:9.2f} µs   {{:.3f}} ({{:.3f}}–{{:.3f}})".format(*found["/ as it is"]), flush=True)
    for layer, found in figures["larger"].items():
        print(
            f"{layer:48}{found[TURNED]:9.1f} ms   {{:.3f}} ({{:.3f}}–{{:.3f}})".format(*found["/ as it is"]), flush=True
        )
    out = results.folder(options.out, "benchmarks.variants")
    results.save(out, "benchmarks.variants", options, claims(figures), figures)


if __name__ == "__main__":
    main()
