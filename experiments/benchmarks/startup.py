"""Seconds from nothing to the first step: ``python -m experiments.benchmarks.startup``.

Every figure is of a fresh Python process, start of the interpreter included: importing fnn and its peers, the first
gradient of 784-512-10 on 32 examples, and ``python -m experiments.mnist`` until its first epoch is reported, one of a
single step (the digits are read, the gradient is checked in two precisions and 10,000 images are evaluated by then).
Programs that compile are run with nothing kept, and with what an earlier run left in the persistent compilation cache.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tyro

from experiments import results
from experiments.benchmarks.timing import Row

TARGET = 4.0  # seconds to the first training step
GIVEN = """
import jax, jax.numpy as jnp, numpy as np
x, y = jnp.asarray(np.ones((32, 784), np.float32)), jnp.asarray(np.zeros(32, np.int32))
"""
OURS = """
import fnn
params = fnn.init(jax.random.key(0), (784, 512, 10), activation=fnn.ReLU())
jax.block_until_ready(fnn.backprop(params, x, y, loss=fnn.SoftmaxCrossEntropy()))
"""
JAX = """
def cost(params, x, y):
    (V, b), (W, c) = params
    z = jax.nn.relu(x @ V + b) @ W + c
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()
def draw(key):
    first, last = jax.random.split(key)
    return ((0.05 * jax.random.normal(first, (784, 512)), jnp.zeros(512)),
            (0.05 * jax.random.normal(last, (512, 10)), jnp.zeros(10)))
jax.block_until_ready(jax.jit(jax.grad(cost))(jax.jit(draw)(jax.random.key(0)), x, y))
"""
MNIST = ("-m", "experiments.mnist", "--examples", "32", "--epochs", "1")
IMPORTS = ("fnn", "jax", "optax", "flax.nnx", "equinox", "torch")
PROGRAMS = {
    "first gradient": ("-c", GIVEN + OURS), "first gradient, jax.grad": ("-c", GIVEN + JAX), "mnist": MNIST,
}  # fmt: skip
SAYS = {"mnist": "epoch  1"}  # the line that ends a program's time; its end, if not given


@dataclass(frozen=True)
class Options:
    """Time to import, to the first gradient and to the first step of training."""

    imports: tuple[str, ...] = IMPORTS
    programs: tuple[str, ...] = tuple(PROGRAMS)
    rounds: int = 5
    out: Path | None = None


def seconds(arguments: Sequence[str], until: str = "", cache: str = "") -> float:
    """Until a fresh Python has printed a line that begins so, or has ended; cache: folder of compiled programs."""
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": str(bool(cache)).lower()}
    if cache:  # as the experiments use it
        environment |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-u", *arguments], env=environment, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said, taken = [], None
        for line in process.stdout:
            said.append(line)
            if until and taken is None and line.startswith(until):
                taken = time.perf_counter() - started
    if process.returncode or (until and taken is None):
        raise RuntimeError(f"python {' '.join(arguments)} did not come so far:\n{''.join(said[-20:])}")
    return time.perf_counter() - started if taken is None else taken


def run_program(name: str, cache: str = "") -> float:
    with tempfile.TemporaryDirectory() as out:
        arguments = PROGRAMS[name] + (("--out", out) if name == "mnist" else ())
        return seconds(arguments, SAYS.get(name, ""), cache)


def measured(options: Options) -> dict[str, list[float]]:
    """Seconds of every round; each round runs every way once, one after the other."""
    known = (name for name in options.imports if find_spec(name.split(".")[0]) is not None)
    ways = {f"import {name}": lambda _, name=name: seconds(("-c", f"import {name}")) for name in known}
    for name in options.programs:
        ways[name] = lambda _, name=name: run_program(name)
        ways[f"{name}, kept"] = lambda kept, name=name: run_program(name, kept)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as kept:
        for way in ways:
            ways[way](kept)  # reads the files into memory, and fills the cache
        for _ in range(options.rounds):
            for way, run in ways.items():
                taken[way].append(round(run(kept), 3))
    return taken


def claims(figures: dict) -> list[results.Claim]:
    def median(way: str) -> str:
        return f"{np.median(figures['seconds'][way]):.1f}" if way in figures["seconds"] else "not measured"

    return [
        results.Claim(
            "`python -m experiments.mnist` to its first training step, gradient check and evaluation included: "
            f"with nothing kept (to be below {TARGET:.0f} s), and with a warm compilation cache",
            f"{median('mnist')} and {median('mnist, kept')} s",
        ),
        results.Claim(
            "`import fnn`, `import jax`, a first gradient of 784-512-10 with fnn, and one with jax.grad",
            ", ".join(
                median(way) for way in ("import fnn", "import jax", "first gradient", "first gradient, jax.grad")
            ) + " s",
        ),
    ]  # fmt: skip


def rows(figures: dict) -> list[Row]:
    taken, warm, made = figures["seconds"], ", warm compilation cache", []
    pairs = [("import fnn", "import fnn", f"import {name}", f"import {name}") for name in IMPORTS if name != "fnn"]
    pairs += [
        ("first gradient", "first gradient", "first gradient, jax.grad", "jax.grad"),
        (f"first gradient{warm}", "first gradient, kept", "first gradient, jax.grad, kept", "jax.grad"),
        (f"experiments.mnist to its first step{warm}", "mnist, kept", "mnist", "with nothing kept"),
    ]
    for what, ours, theirs, peer in pairs:
        if ours not in taken:
            continue
        if theirs not in taken:
            made.append(Row(what, "time", peer, None, None, f"{np.median(taken[ours]):.2f} s", "", "not installed"))
            continue
        lower, ratio, upper = np.percentile(np.divide(taken[ours], taken[theirs]), (25, 50, 75)).tolist()
        mine, its = (f"{np.median(taken[way]):.2f} s" for way in (ours, theirs))
        made.append(Row(what, "time", peer, ratio, (lower, upper), mine, its))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    taken_by = measured(options)
    figures = {"seconds": taken_by, "target, s": TARGET}
    for way, taken in taken_by.items():
        lower, median, upper = np.percentile(taken, (25, 50, 75))
        print(f"{way:32}{median:7.2f} s ({lower:.2f}–{upper:.2f})", flush=True)
    out = results.folder(options.out, "benchmarks.startup")
    results.save(out, "benchmarks.startup", options, claims(figures), figures)


if __name__ == "__main__":
    main()
