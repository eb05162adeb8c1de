"""A gradient bound by its matrix products, beside those products alone: ``python -m experiments.benchmarks.matmuls``.

4 × 2048, batch 1024, ReLU, mean of ½‖a − y‖², and on an accelerator 8 × 8192, batch 8192, too, in float32, in TF32 (on
an NVIDIA GPU) and in bfloat16: ``fnn.backprop``, ``jax.grad`` of the same network written plainly, Flax, PyTorch, and
the products that no way can do without, three a layer less that with the first layer's input. Beside them stands the
*measured rate*: as many operations as one large product of the same kind does in that time. All interleaved, medians of
the rounds' ratios. A peer that is not installed is named as such.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.frameworks import torch_device
from experiments.benchmarks.memory import plain, problem
from experiments.benchmarks.timing import Row, compiled, interleaved

OURS, PRODUCTS, GRAD, FLAX, RATE = "fnn.backprop", "its products alone", "jax.grad", "Flax", "the measured rate"
EAGER, COMPILE = "PyTorch eager", "PyTorch compile"


class Precision(NamedTuple):
    """Of the arrays, of JAX's matrix products, and as PyTorch names the latter."""

    dtype: str
    jax: str
    torch: str


PRECISIONS = {
    "float32": Precision("float32", "highest", "highest"),
    "tf32": Precision("float32", "tensorfloat32", "high"),
    "bfloat16": Precision("bfloat16", "default", "highest"),
}


class Shape(NamedTuple):
    depth: int
    width: int
    batch: int

    def __str__(self) -> str:
        return f"{self.depth} × {self.width}, batch {self.batch}"


@dataclass(frozen=True)
class Options:
    """Time of one gradient as a multiple of its matrix products' and of the peers'."""

    shapes: tuple[tuple[int, int, int], ...] = ()
    """Depth, width and batch of each; by the device if not given."""
    precisions: tuple[Literal["float32", "tf32", "bfloat16"], ...] = ()
    """By the device if not given."""
    rounds: int = 15
    out: Path | None = None

    def on(self, platform: str) -> tuple[tuple[Shape, ...], tuple[str, ...]]:
        """The shapes and precisions, with a device's own where none are given."""
        shapes: tuple[Shape, ...] = (Shape(4, 2048, 1024),)
        precisions: tuple[str, ...] = ("float32",)
        if platform != "cpu":
            shapes += (Shape(8, 8192, 8192),)
            precisions += ("tf32", "bfloat16") if platform == "gpu" else ("bfloat16",)
        return tuple(Shape(*each) for each in self.shapes) or shapes, self.precisions or precisions


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


def operations(shape: Shape) -> int:
    """Of the products: a multiplication and an addition for every entry, three a layer less one."""
    return 2 * shape.batch * shape.width**2 * (3 * shape.depth - 1)


def flax_way(params) -> Callable:
    """Flax's gradient of the same network with respect to its weights."""
    nnx: Any = importlib.import_module("flax.nnx")
    sizes = [layer.W.shape[::-1] for layer in params]
    dtype = params[0].W.dtype
    layers = nnx.List([nnx.Linear(*size, param_dtype=dtype, dtype=dtype, rngs=nnx.Rngs(0)) for size in sizes])
    for linear, layer in zip(layers, params):
        linear.kernel[...], linear.bias[...] = layer.W.T, layer.b

    def cost(layers, x, y):
        for layer in layers[:-1]:
            x = jax.nn.relu(layer(x))
        return 0.5 * jnp.mean(jnp.sum((layers[-1](x) - y) ** 2, axis=1))

    gradient = nnx.jit(nnx.grad(cost))
    return lambda x, y: nnx.to_pure_dict(gradient(layers, x, y))


def torch_ways(precision: Precision, params, x, y) -> tuple[dict[str, Callable], dict[str, str]]:
    """PyTorch's gradient of the same network, eager and compiled, where JAX computes; and why not, if it cannot."""
    if importlib.util.find_spec("torch") is None:
        return {}, {EAGER: "not installed", COMPILE: "not installed"}
    torch: Any = importlib.import_module("torch")
    try:
        device = torch_device(torch)
    except RuntimeError as error:
        return {}, dict.fromkeys((EAGER, COMPILE), str(error))
    torch.set_num_threads(os.cpu_count())
    torch.set_float32_matmul_precision(precision.torch)

    def tensor(array):
        made = torch.from_numpy(np.array(array, np.float32))
        return made.to(getattr(torch, precision.dtype)).to(device)

    leaves = [tensor(leaf).requires_grad_() for layer in params for leaf in (layer.W, layer.b)]
    inputs, targets = tensor(x), tensor(y)

    def cost(a, y):
        for W, b in zip(leaves[:-2:2], leaves[1:-2:2]):
            a = torch.relu(torch.nn.functional.linear(a, W, b))
        a = torch.nn.functional.linear(a, *leaves[-2:])
        return 0.5 * ((a - y) ** 2).sum(dim=1).mean()

    def gradient(function) -> None:
        torch.autograd.grad(function(inputs, targets), leaves)
        if device == "cuda":
            torch.cuda.synchronize()

    ways: dict[str, Callable] = {EAGER: partial(gradient, cost)}
    fast = partial(gradient, torch.compile(cost))
    try:
        fast()
    except Exception as error:  # it needs a C++ compiler, and fails in many ways without one
        return ways, {COMPILE: f"does not compile: {type(error).__name__}"}
    return ways | {COMPILE: fast}, {}


def measure(shape: Shape, name: str, rounds: int) -> dict:
    """Time of every way, ours as a multiple of it, and the rate of the products in it."""
    precision = PRECISIONS[name]
    given = problem(fnn.ReLU(), shape.depth - 1, shape.width, shape.batch, outputs=shape.width)
    given = jax.tree.map(lambda leaf: leaf.astype(precision.dtype), given)
    ways: dict[str, tuple[Callable, tuple]] = {
        OURS: (lambda params, x, y: fnn.backprop(params, x, y), given),
        PRODUCTS: (products, given),
        GRAD: (jax.grad(partial(plain, jax.nn.relu)), given),
        RATE: (lambda x, W: x @ W, (given[1], given[0][0].W)),
    }
    with jax.default_matmul_precision(precision.jax):
        run = {way: compiled(function, *arguments).run for way, (function, arguments) in ways.items()}
        peers, missing = torch_ways(precision, *given)
        if importlib.util.find_spec("flax") is None:
            missing[FLAX] = "not installed"
        else:
            peers[FLAX] = partial(flax_way(given[0]), *given[1:])
        seconds = interleaved(run | peers, rounds)
    seconds[RATE] = seconds[RATE] * (3 * shape.depth - 1)
    found = {
        way: {
            "ms": round(1e3 * float(np.median(of_way)), 3),
            "ours / it": np.percentile(seconds[OURS] / of_way, (50, 25, 75)).round(3).tolist(),
            "GFLOP/s": round(operations(shape) / float(np.median(of_way)) / 1e9, 1),
        }
        for way, of_way in seconds.items()
    }
    return {"network": f"{shape}, {name}", "ways": found, "missing": missing}


def rows(figures: dict) -> list[Row]:
    """Ours against the products alone and every peer, those not to be had too."""
    return [row for figure in figures["gradients"] for row in rows_of(figure)]


def rows_of(figure: dict) -> list[Row]:
    workload, ways = f"gradient, {figure['network']}", figure["ways"]
    ours, found = f"{ways[OURS]['ms']:.1f} ms", []
    for way, its in ways.items():
        if way != OURS:
            median, lower, upper = its["ours / it"]
            note = f"{its['GFLOP/s']:.0f} GFLOP/s; ours is {1 / median:.0%} of it" if way == RATE else ""
            found.append(Row(workload, "time", way, median, (lower, upper), ours, f"{its['ms']:.1f} ms", note))
    missing = figure["missing"].items()
    return found + [Row(workload, "time", way, None, None, ours, "", note=why) for way, why in missing]


def claims(figures: dict) -> list[results.Claim]:
    made = []
    for figure in figures["gradients"]:
        ratios = (
            f"{row.peer} {row.note}"
            if row.ratio is None
            else "{} {:.2f} ({:.2f}–{:.2f})".format(row.peer, row.ratio, *row.spread or ())
            for row in rows_of(figure)
        )
        rate = ", ".join(f"{way} {figure['ways'][way]['GFLOP/s']:.0f}" for way in (OURS, PRODUCTS, RATE))
        network = f"a gradient of {figure['network']}, ReLU"
        made.append(results.Claim(f"{network}: time as a multiple of each", ", ".join(ratios)))
        made.append(results.Claim(f"{network}: GFLOP/s of the matrix products", rate))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures: dict = {"gradients": []}
    shapes, precisions = options.on(jax.default_backend())
    for shape in shapes:
        for precision in precisions:
            figures["gradients"].append(figure := measure(shape, precision, options.rounds))
            print(f"\n{figure['network']}\n{'':24}{'ms':>10}{'ours / it (quartiles)':>26}{'GFLOP/s':>10}")
            for way, its in figure["ways"].items():
                ratio = "{:.3f} ({:.3f}–{:.3f})".format(*its["ours / it"])
                print(f"{way:24}{its['ms']:10.2f}{ratio:>26}{its['GFLOP/s']:10.1f}", flush=True)
            for way, why in figure["missing"].items():
                print(f"{way:24}{why:>10}")
    out = results.folder(options.out, "benchmarks.matmuls")
    results.save(out, "benchmarks.matmuls", options, claims(figures), figures)


if __name__ == "__main__":
    main()
