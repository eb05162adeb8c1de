"""Deep narrow networks, stacked: ``python -m experiments.benchmarks.stack``.

A gradient of D hidden layers of one width, half of the squared error, batch 64. The peers scan the same weights and are
differentiated by ``jax.grad``: plainly, with ``jax.checkpoint`` around a layer, and with a layer whose
``jax.custom_vjp`` keeps its input and output only. All interleaved, medians of the rounds' ratios; memory is what the
compiled program asks for beside its arguments and results. *Its products alone* are the floor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from jax import lax

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, against, measured

ACTIVATIONS: dict[str, tuple[fnn.Activation, Callable]] = {
    "tanh": (fnn.Tanh(), jnp.tanh), "sigmoid": (fnn.Sigmoid(), jax.nn.sigmoid), "ReLU": (fnn.ReLU(), jax.nn.relu),
}  # fmt: skip
OUTPUTS = 10


@dataclass(frozen=True)
class Options:
    """Time, temporary memory and compile time of deep networks, stacked and not."""

    depths: tuple[int, ...] = (16, 64, 256, 1024)
    """Hidden layers behind the first one."""
    widths: tuple[int, ...] = (32, 128, 512)
    """Of the comparison with layers one by one, at 16 hidden layers."""
    width: int = 128
    batch: int = 64
    rounds: int = 15
    out: Path | None = None


def hand(params, x, y):
    return fnn.backprop(params, x, y, reduction="sum")


def scanned(layer: Callable, params, x, y):
    """½‖a^L − y‖² of a stacked network, its hidden layers by lax.scan over ``layer``."""
    first, stack, last = params
    a = layer(x, first.W, first.b)
    a, _ = lax.scan(lambda a, of: (layer(a, *of), None), a, (stack.W, stack.b))
    return 0.5 * jnp.sum((a @ last.W.T + last.b - y) ** 2)


def products(params, x, y):
    """What no way can do without: three matrix products a layer, the inputs of layers kept, the gradients stacked."""
    Ws = params[1].W
    a, kept = lax.scan(lambda a, W: (a @ W.T, a), x, Ws)
    return lax.scan(lambda g, of: (g @ of[0], g.T @ of[1]), a, (Ws, kept), reverse=True)


def keeping_two(activation: fnn.Activation) -> Callable:
    """A layer with a hand-written pull-back that reads its input and its output."""

    @jax.custom_vjp
    def layer(a, W, b):
        return activation.value(a @ W.T + b)

    def forward(a, W, b):
        out = layer(a, W, b)
        return out, (a, W, out)

    def backward(kept, g):
        a, W, out = kept
        delta = activation.pullback(g, out, out)  # tanh, sigmoid and ReLU read a alone
        return delta @ W, delta.T @ a, delta.sum(axis=0)

    layer.defvjp(forward, backward)
    return layer


def peers(name: str) -> dict[str, Callable]:
    """The gradients of a stacked network, way by way."""
    activation, value = ACTIVATIONS[name]

    def plain(a, W, b):
        return value(a @ W.T + b)

    layers = {
        "scan + jax.grad": plain,
        "scan + jax.checkpoint": jax.checkpoint(plain),
        "scan + custom_vjp": keeping_two(activation),
    }
    ways = {way: jax.grad(partial(scanned, layer)) for way, layer in layers.items()}
    return {"stack": hand, "its products alone": products} | ways


def compared(options: Options) -> int:
    """The depth at which every activation is measured: the last but one."""
    return options.depths[-2:][0]


def problem(options: Options, depth: int, width: int, name: str, stack: bool = True):
    sizes = (width,) * (depth + 2)
    params = fnn.init(
        jax.random.key(0),
        (*sizes, OUTPUTS),
        activation=ACTIVATIONS[name][0],
        initializer=fnn.initializers.he_normal,
        stack=stack,
    )
    x = jax.random.normal(jax.random.key(1), (options.batch, width))
    return params, x, jnp.zeros((options.batch, OUTPUTS))


def beside(options: Options, ways: dict[str, tuple[Callable, tuple]]) -> dict[str, dict]:
    """Every way, with the stack's time as a multiple of its own."""
    rows = measured(ways, options.rounds, "stack")
    for row in rows.values():
        median, lower, upper = row.pop("/ stack")
        row["stack / it"] = [round(1 / ratio, 3) for ratio in (median, upper, lower)]
    return rows


def tell(title: str, rows: dict[str, dict]) -> None:
    print(f"\n{title}\n{'':24}{'ms':>9}{'stack / it (quartiles)':>26}{'temporary MiB':>15}{'compile s':>11}")
    for way, row in rows.items():
        ratio = "{:.2f} ({:.2f}–{:.2f})".format(*row["stack / it"])
        print(f"{way:24}{row['ms']:9.2f}{ratio:>26}{row['temporary MiB']:15.2f}{row['compile s']:11.2f}", flush=True)


def claims(options: Options, figures: dict) -> list[results.Claim]:
    made = []
    depth = compared(options)
    for name in ACTIVATIONS:
        rows = figures["peers"][f"{name}, {depth}"]
        plain, stack = rows["scan + jax.grad"], rows["stack"]
        others = "; ".join(f"{way} {row['stack / it'][0]:.2f}" for way, row in rows.items() if way != "stack")
        made.append(
            results.Claim(
                f"a gradient of {depth} × {options.width}, batch {options.batch}, {name}, as a stack: time as a "
                "multiple of each peer's; temporary memory as one of the plain scan's",
                f"{others}; memory {stack['temporary MiB'] / plain['temporary MiB']:.2f} "
                f"({stack['temporary MiB']:.1f} of {plain['temporary MiB']:.1f} MiB)",
            )
        )
    times = {d: figures["peers"][f"tanh, {d}"]["stack"]["compile s"] for d in options.depths}
    made.append(
        results.Claim(
            "compile time of a stack by its layers, s", ", ".join(f"{depth}: {s:.2f}" for depth, s in times.items())
        )
    )
    widths = ", ".join(f"{w}: {rows['layers']['stack / it'][0]:.2f}" for w, rows in figures["layers"].items())
    made.append(results.Claim("time of a stack of 16 as a multiple of 16 layers one by one, by width", widths))
    return made


def rows(figures: dict) -> list[Row]:
    networks = {f"a gradient of a stack, {name}": ways for name, ways in figures["peers"].items()}
    networks |= {f"a gradient of a stack, 16 × {width}": ways for width, ways in figures["layers"].items()}
    return [
        row
        for network, ways in networks.items()
        for peer in ways
        if peer != "stack"
        for row in against(network, peer, ways["stack"], ways[peer])
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures: dict[str, dict] = {"peers": {}, "layers": {}}
    for name in ACTIVATIONS:
        for depth in options.depths if name == "tanh" else (compared(options),):
            given = problem(options, depth, options.width, name)
            rows = beside(options, {way: (function, given) for way, function in peers(name).items()})
            figures["peers"][f"{name}, {depth}"] = rows
            tell(f"{depth} × {options.width}, batch {options.batch}, {name}", rows)
    for width in options.widths:
        ways = {"stack": (hand, problem(options, 16, width, "tanh"))}
        ways["layers"] = (hand, problem(options, 16, width, "tanh", stack=False))
        figures["layers"][str(width)] = beside(options, ways)
        tell(f"16 × {width}, batch {options.batch}, tanh, stacked and layer by layer", figures["layers"][str(width)])
    out = results.folder(options.out, "benchmarks.stack")
    results.save(out, "benchmarks.stack", options, claims(options, figures), figures)


if __name__ == "__main__":
    main()
