"""The cost of a deep network's gradient: stacked, layer by layer, and by ``jax.grad`` of a scan; for ``depth``."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

import fnn
from experiments.benchmarks.stack import hand, peers
from experiments.benchmarks.timing import measured

MOST_UNROLLED = 256  # hidden layers: more, one by one, take minutes to compile
WAYS = ("stack", "layer by layer", "scan + jax.grad")


def costs(depths: Sequence[int], width: int, batch: int = 64, rounds: int = 5) -> dict[str, dict]:
    """Seconds to compile, milliseconds of one gradient and its temporary memory: tanh networks, by way and depth."""
    figures: dict[str, dict] = {way: {"compile s": {}, "ms": {}, "temporary MiB": {}} for way in WAYS}
    for depth in depths:
        sizes, x, y = (width,) * (depth + 1), jnp.ones((batch, width)), jnp.zeros((batch, 10))
        draw = partial(fnn.init, jax.random.key(0), (*sizes, 10), activation=fnn.Tanh())
        stacked = draw(stack=True)
        ways = {"stack": (hand, stacked), "scan + jax.grad": (peers("tanh")["scan + jax.grad"], stacked)}
        if depth <= MOST_UNROLLED:
            ways["layer by layer"] = (hand, fnn.unstack(stacked))
        rows = measured({way: (function, (params, x, y)) for way, (function, params) in ways.items()}, rounds, "stack")
        for way, row in rows.items():
            for what, of_way in figures[way].items():
                of_way[str(depth)] = row[what]
    return figures


def draw_costs(panels, figures: dict[str, dict], colours: dict[str, str]) -> None:
    """Compile time, time of a gradient and temporary memory against depth."""
    labels = {"compile s": "compile time, s", "ms": "one gradient, ms", "temporary MiB": "its temporary memory, MiB"}
    for axes, (what, label) in zip(panels, labels.items()):
        for way, colour in colours.items():
            depths = [int(depth) for depth in figures[way][what]]
            axes.loglog(depths, list(figures[way][what].values()), ".-", color=colour, label=way)
        axes.set(xlabel="hidden layers", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
