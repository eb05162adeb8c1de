"""A gradient bound by its matrix products, beside those products alone: ``python -m experiments.benchmarks.matmuls``.

4 × 2048, batch 1024, ReLU, mean of ½‖a − y‖², float32: ``fnn.backprop``, ``jax.grad`` of the same network written
plainly, PyTorch, and the products that no way can do without, three a layer less that with the first layer's input.
All interleaved, medians of the rounds' ratios. A peer that is not installed is named as such.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.memory import plain, problem
from experiments.benchmarks.timing import Row, compiled, interleaved

OURS, PRODUCTS, GRAD = "fnn.backprop", "its products alone", "jax.grad"
EAGER, COMPILE = "PyTorch eager", "PyTorch compile"


@dataclass(frozen=True)
class Options:
    """Time of one gradient as a multiple of its matrix products' and of the peers'."""

    depth: int = 4
    width: int = 2048
    batch: int = 1024
    rounds: int = 15
    out: Path | None = None


def products(params, x, y):
    """Forwards, and backwards with y as the output's δ: the matrix products and nothing else."""
    inputs, a, found = [], x, []
    for layer in params:
        inputs.append(a)
        a = a @ layer.W.T
    delta = a + y  # reads the last product, which would else not be computed
    for number in reversed(range(len(params))):
        found.append(delta.T @ inputs[number])
        if number:
            delta = delta @ params[number].W
    return found


def floating_point_operations(options: Options) -> int:
    """Of the products: a multiplication and an addition for every entry, three a layer less one."""
    return 2 * options.batch * options.width**2 * (3 * options.depth - 1)


def torch_ways(params, x, y) -> tuple[dict[str, Callable], dict[str, str]]:
    """PyTorch's gradient of the same network, eager and compiled; and why not, where it is not to be had."""
    if importlib.util.find_spec("torch") is None:
        return {}, {EAGER: "not installed", COMPILE: "not installed"}
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count())
    leaves = [torch.from_numpy(np.array(leaf)).requires_grad_() for layer in params for leaf in (layer.W, layer.b)]
    inputs, targets = (torch.from_numpy(np.array(array)) for array in (x, y))

    def cost(a, y):
        for W, b in zip(leaves[:-2:2], leaves[1:-2:2]):
            a = torch.relu(torch.nn.functional.linear(a, W, b))
        a = torch.nn.functional.linear(a, *leaves[-2:])
        return 0.5 * ((a - y) ** 2).sum(dim=1).mean()

    def gradient(function):
        return [leaf.numpy() for leaf in torch.autograd.grad(function(inputs, targets), leaves)]

    ways: dict[str, Callable] = {EAGER: partial(gradient, cost)}
    fast = partial(gradient, torch.compile(cost))
    try:
        fast()
    except Exception as error:  # it needs a C++ compiler, and fails in many ways without one
        return ways, {COMPILE: f"does not compile: {type(error).__name__}"}
    return ways | {COMPILE: fast}, {}


def measure(options: Options) -> dict:
    """Time of every way, ours as a multiple of it, and the rate of the products."""
    given = problem(fnn.ReLU(), options.depth - 1, options.width, options.batch, outputs=options.width)
    ways: dict[str, Callable] = {
        OURS: lambda params, x, y: fnn.backprop(params, x, y),
        PRODUCTS: products,
        GRAD: jax.grad(partial(plain, jax.nn.relu)),
    }
    peers, missing = torch_ways(*given)
    programs = {way: compiled(function, *given) for way, function in ways.items()}
    seconds = interleaved({way: program.run for way, program in programs.items()} | peers, options.rounds)
    found = {
        way: {
            "ms": round(1e3 * float(np.median(of_way)), 3),
            "ours / it": np.percentile(seconds[OURS] / of_way, (50, 25, 75)).round(3).tolist(),
            "GFLOP/s": round(floating_point_operations(options) / float(np.median(of_way)) / 1e9, 1),
        }
        for way, of_way in seconds.items()
    }
    return {"network": f"{options.depth} × {options.width}, batch {options.batch}", "ways": found, "missing": missing}


def rows(figures: dict) -> list[Row]:
    """Ours against the products alone and every peer, those not to be had too."""
    workload, found = f"gradient, {figures['network']}", []
    ours = f"{figures['ways'][OURS]['ms']:.1f} ms"
    for way, figure in figures["ways"].items():
        if way != OURS:
            median, lower, upper = figure["ours / it"]
            found.append(Row(workload, "time", way, median, (lower, upper), ours, f"{figure['ms']:.1f} ms"))
    missing = figures["missing"].items()
    return found + [Row(workload, "time", way, None, None, ours, "", note=why) for way, why in missing]


def claims(figures: dict) -> list[results.Claim]:
    ratios = (
        f"{row.peer} {row.note}"
        if row.ratio is None
        else "{} {:.2f} ({:.2f}–{:.2f})".format(row.peer, row.ratio, *row.spread or ())
        for row in rows(figures)
    )
    rate = ", ".join(f"{way} {figures['ways'][way]['GFLOP/s']:.0f}" for way in (OURS, PRODUCTS))
    return [
        results.Claim(f"a gradient of {figures['network']}, ReLU: time as a multiple of each", ", ".join(ratios)),
        results.Claim("GFLOP/s of the matrix products in it, and of them alone", rate),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures = measure(options)
    print(f"{figures['network']}\n{'':24}{'ms':>10}{'ours / it (quartiles)':>26}{'GFLOP/s':>10}")
    for way, figure in figures["ways"].items():
        ratio = "{:.3f} ({:.3f}–{:.3f})".format(*figure["ours / it"])
        print(f"{way:24}{figure['ms']:10.2f}{ratio:>26}{figure['GFLOP/s']:10.1f}")
    for way, why in figures["missing"].items():
        print(f"{way:24}{why:>10}")
    out = results.folder(options.out, "benchmarks.matmuls")
    results.save(out, "benchmarks.matmuls", options, claims(figures), figures)


if __name__ == "__main__":
    main()
