"""Temporary memory of a gradient, activation by activation: ``python -m experiments.benchmarks.memory``.

Ours beside ``jax.grad`` of the same network written plainly, with jax.nn's function where there is one. Time stands
beside it: both interleaved, medians of the rounds' ratios.

*Temporary memory* is ``temp_size_in_bytes`` of the compiled program: what it asks for beside its arguments and its
results. So it is not all that a backward pass keeps. XLA lets an activation wait for the backward pass in the memory of
a result that is written after it is read, where that is large enough: of layers one by one, an activation (B, n) lies
where a gradient (n, n) will be written, and while B ≤ n the figure hardly grows with depth. A scan holds all its
activations and all its gradients at once, and a stack's figure grows. That they are kept in both is seen when of the
gradient only its squared length is returned, and no result has room: ``figures["by depth"]``. On wide batches, B much
larger than n, no activation fits into a result, and the figure is what the pass keeps. ``results MiB`` is the size of
the gradients.

The derivative of Threshold and Sign is 0: ``jax.grad`` knows it while it traces and computes no layer below the last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, measured

OURS, PLAIN = "fnn.backprop", "jax.grad"
OUTPUTS, NARROW = 10, 128
RAMP = fnn.PiecewiseLinear.continuous(-1, 1)
ACTIVATIONS: dict[str, tuple[fnn.Activation, Callable]] = {  # ours, and what one writes without fnn
    "ReLU": (fnn.ReLU(), jax.nn.relu),
    "LeakyReLU": (fnn.LeakyReLU(), jax.nn.leaky_relu),
    "ELU": (fnn.ELU(), jax.nn.elu),
    "GELU": (fnn.GELU(), partial(jax.nn.gelu, approximate=False)),
    "GELU, approximate": (fnn.GELU(True), jax.nn.gelu),
    "SiLU": (fnn.SiLU(), jax.nn.silu),
    "Sigmoid": (fnn.Sigmoid(), jax.nn.sigmoid),
    "Tanh": (fnn.Tanh(), jnp.tanh),
    "ScaledTanh": (fnn.ScaledTanh(), lambda z: 1.7159 * jnp.tanh(z * (2 / 3))),
    "Softplus": (fnn.Softplus(), jax.nn.softplus),
    "Softsign": (fnn.Softsign(), jax.nn.soft_sign),
    "Softmax": (fnn.Softmax(), jax.nn.softmax),
    "Gaussian": (fnn.Gaussian(), jax.scipy.stats.norm.pdf),
    "PiecewiseLinear": (RAMP, lambda z: jnp.clip(0.5 * z + 0.5, 0, 1)),
    "Threshold": (fnn.Threshold(), lambda z: jnp.where(z >= 0, 1.0, 0.0)),
    "Sign": (fnn.Sign(), lambda z: jnp.where(z >= 0, 1.0, -1.0)),
    "Identity": (fnn.Identity(), jax.nn.identity),
}


@dataclass(frozen=True)
class Options:
    """Temporary memory and time of one gradient of wide batches, float32, mean of ½‖a − y‖²."""

    depths: tuple[int, ...] = (16, 4)
    """Hidden layers of every network; its width and its batch follow in the same place."""
    widths: tuple[int, ...] = (128, 512)
    batches: tuple[int, ...] = (4096, 1024)
    narrow_depths: tuple[int, ...] = (4, 16, 64)
    """Layers of 128, batch 64, whose memory is looked at for where it lies."""
    only: tuple[str, ...] = ()
    """Activations; all if empty."""
    rounds: int = 7
    out: Path | None = None


def plain(value: Callable, params, x, y):
    """The cost of a network as one writes it without fnn."""
    for layer in params[:-1]:
        x = value(x @ layer.W.T + layer.b)
    return 0.5 * jnp.mean(jnp.sum((x @ params[-1].W.T + params[-1].b - y) ** 2, axis=1))


def problem(activation: fnn.Activation, depth: int, width: int, batch: int, outputs: int = OUTPUTS):
    """Parameters of ``depth`` layers of one width, and ``outputs`` behind them, inputs and targets."""
    params = fnn.init(
        jax.random.key(0),
        (*(width,) * (depth + 1), outputs),
        activation=activation,
        initializer=fnn.initializers.he_normal,
    )
    return params, jax.random.normal(jax.random.key(1), (batch, width)), jnp.zeros((batch, outputs))


def backprop(params, x, y):
    return fnn.backprop(params, x, y)


def compared(options: Options, name: str, network: tuple[int, int, int]) -> dict:
    """Ours and jax.grad's figures for one activation, the ratio of their temporary memory and the results' size."""
    activation, value = ACTIVATIONS[name]
    given = problem(activation, *network)
    ways: dict[str, tuple[Callable, tuple]] = {
        OURS: (backprop, given),
        PLAIN: (jax.grad(partial(plain, value)), given),
    }
    figures = measured(ways, options.rounds, PLAIN)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(given[0])) / 2**20
    return {
        "ours": figures[OURS],
        "theirs": figures[PLAIN],
        "memory ratio": round(figures[OURS]["temporary MiB"] / figures[PLAIN]["temporary MiB"], 3),
        "results MiB": round(size, 2),
    }


def line(name: str, row: dict) -> str:
    ours, theirs = row["ours"], row["theirs"]
    time = "{:.2f} ({:.2f}–{:.2f})".format(*ours[f"/ {PLAIN}"])
    memory = f"{ours['temporary MiB']:10.2f}{theirs['temporary MiB']:10.2f}{row['memory ratio']:8.2f}"
    return f"{name:20}{memory}{ours['ms']:12.2f}{theirs['ms']:10.2f}{time:>20}"


def squared_length(params, x, y):
    """Of the gradient: all of it is computed, and one number returned."""
    return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(fnn.backprop(params, x, y)))


def by_depth(options: Options) -> dict[str, dict[str, float]]:
    """Temporary MiB of a gradient of a narrow batch, by way and depth: what memory of the results hides."""
    found: dict[str, dict[str, float]] = {"one by one": {}, "one by one, length alone": {}, "stack": {}}
    for depth in options.narrow_depths:
        params, x, y = problem(fnn.Tanh(), depth, NARROW, NARROW // 2)
        for way, function, given in zip(
            found, (backprop, squared_length, backprop), (params, params, fnn.stack(params))
        ):
            memory: Any = jax.jit(function).lower(given, x, y).compile().memory_analysis()
            found[way][str(depth)] = round(memory.temp_size_in_bytes / 2**20, 2)
    return found


HEADER = f"{'':20}{'MiB ours':>10}{'theirs':>10}{'ratio':>8}{'ms ours':>12}{'theirs':>10}{'ratio':>20}"


def rows(figures: dict) -> list[Row]:
    """Memory of every activation, and the time of each beside it."""
    found = []
    for network, of_network in figures["networks"].items():
        for name, row in of_network.items():
            ours, theirs = row["ours"], row["theirs"]
            median, lower, upper = ours[f"/ {PLAIN}"]
            workload = f"gradient, {network}, {name}"
            memory = (f"{way['temporary MiB']:.1f} MiB" for way in (ours, theirs))
            time = (f"{way['ms']:.1f} ms" for way in (ours, theirs))
            found.append(Row(workload, "temporary memory", PLAIN, row["memory ratio"], None, *memory))
            found.append(Row(workload, "time", PLAIN, median, (lower, upper), *time))
    return found


def claims(figures: dict) -> list[results.Claim]:
    """Memory and time of every network, and where the memory of narrow batches lies."""
    made = []
    for network, of_network in figures["networks"].items():
        ratios = ", ".join(f"{name} {row['memory ratio']:.2f}" for name, row in of_network.items())
        times = ", ".join(f"{name} {row['ours'][f'/ {PLAIN}'][0]:.2f}" for name, row in of_network.items())
        made.append(results.Claim(f"temporary memory of a gradient, {network}, as a multiple of jax.grad's", ratios))
        made.append(results.Claim(f"its time, {network}, as a multiple of jax.grad's", times))
    hidden = "; ".join(
        f"{way} {', '.join(f'{n}: {m}' for n, m in of.items())}" for way, of in figures["by depth"].items()
    )
    made.append(results.Claim(f"temporary MiB by layers of {NARROW}, batch {NARROW // 2}: results lend memory", hidden))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures: dict[str, dict] = {"networks": {}, "by depth": by_depth(options)}
    for way, of_depth in figures["by depth"].items():
        print(f"{way:26}", "  ".join(f"{depth}: {mib:.2f} MiB" for depth, mib in of_depth.items()))
    for depth, width, batch in zip(options.depths, options.widths, options.batches, strict=True):
        network = f"{depth} × {width}, batch {batch}"
        print(f"\n{network}\n{HEADER}")
        of_network = figures["networks"][network] = {}
        for name in options.only or ACTIVATIONS:
            of_network[name] = compared(options, name, (depth, width, batch))
            print(line(name, of_network[name]), flush=True)
    out = results.folder(options.out, "benchmarks.memory")
    results.save(out, "benchmarks.memory", options, claims(figures), figures)


if __name__ == "__main__":
    main()
