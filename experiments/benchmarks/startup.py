"""Seconds from nothing to the first step: ``python -m experiments.benchmarks.startup``.

Every figure is of a fresh Python process, start of the interpreter included: importing fnn and its peers, the first
gradient of 784-512-10 on 32 examples, ``verify.network`` of 5-4-3 with its probes beside JAX's ``check_grads`` of the
same network, and ``python -m experiments.mnist`` until its first line, and until its first epoch is reported, one of a
single step (the digits are read, the gradient is checked in two precisions and 10,000 images are evaluated by then).
Programs that compile are run with nothing kept, and with what an earlier run left in the persistent compilation cache.

Beside the wall's time stands the CPU's, user and system, which other programs on the machine change less. Rounds are
interleaved, and a ratio is the median of the rounds' ratios. Where the time goes: the modules that take longest in
``python -X importtime -c "import fnn"``, and the first gradient's tracing, lowering, compiling and running.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

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
DEFINED = """
def cost(params, x, y):
    (V, b), (W, c) = params
    z = jax.nn.relu(x @ V + b) @ W + c
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()
def draw(key):
    first, last = jax.random.split(key)
    return ((0.05 * jax.random.normal(first, (784, 512)), jnp.zeros(512)),
            (0.05 * jax.random.normal(last, (512, 10)), jnp.zeros(10)))
"""
JAX = """
jax.block_until_ready(jax.jit(jax.grad(cost))(jax.jit(draw)(jax.random.key(0)), x, y))
"""
VERIFY = """
import jax, fnn
params = fnn.init(jax.random.key(0), (5, 4, 3), activation=fnn.Tanh())
fnn.verify.network(params, loss=fnn.SquaredError()).check()
"""
CHECK_GRADS = """
import jax, jax.numpy as jnp, numpy as np
from jax.test_util import check_grads
random = np.random.default_rng(0)
V, b, W, c, x, y = (jnp.asarray(random.normal(size=n), "float32") for n in ((5, 4), 4, (4, 3), 3, (7, 5), (7, 3)))
def cost(V, b, W, c):
    return 0.5 * jnp.sum((jnp.tanh(x @ V + b) @ W + c - y) ** 2, axis=1).mean()
check_grads(cost, (V, b, W, c), order=1, atol=1e-2, rtol=1e-2)
"""
STAGES = """
import json, time
started = time.process_time()
told = {}
def tell(name):
    global started
    now = time.process_time()
    told[name], started = round(now - started, 3), now
import jax, jax.numpy as jnp, numpy as np
tell("import jax")
"""
OF_OURS = """
import fnn
tell("import fnn")
params = jax.block_until_ready(fnn.init(jax.random.key(0), (784, 512, 10), activation=fnn.ReLU()))
tell("parameters")
from functools import partial
function = partial(fnn.backprop, loss=fnn.SoftmaxCrossEntropy())
"""
OF_JAX = """
tell("import fnn")
params = jax.block_until_ready(jax.jit(draw)(jax.random.key(0)))
tell("parameters")
function = jax.grad(cost)
"""
STAGED = """
x, y = jnp.asarray(np.ones((32, 784), np.float32)), jnp.asarray(np.zeros(32, np.int32))
tell("data")
traced = jax.jit(function).trace(params, x, y)
tell("trace")
lowered = traced.lower()
tell("lower")
program = lowered.compile()
tell("compile")
jax.block_until_ready(program(params, x, y))
tell("run")
print(json.dumps(told))
"""
MNIST = ("-m", "experiments.mnist", "--examples", "32", "--epochs", "1")
IMPORTS = ("fnn", "jax", "optax", "flax.nnx", "equinox", "torch")
PROGRAMS = {
    "first gradient": ("-c", GIVEN + OURS), "first gradient, jax.grad": ("-c", GIVEN + DEFINED + JAX),
    "verify.network": ("-c", VERIFY), "check_grads": ("-c", CHECK_GRADS),
    "mnist, first line": MNIST, "its imports": ("-c", "import jax, optax, tqdm, tyro"), "mnist": MNIST,
}  # fmt: skip
SAYS = {"mnist": "epoch  1", "mnist, first line": "Loaded"}  # the line that ends a program's time; else its end does
STAGES_OF = {"fnn": STAGES + OF_OURS + STAGED, "jax.grad": STAGES + DEFINED + OF_JAX + STAGED}
COMPILES_NOTHING = "its imports", "mnist, first line"
AIMS = {  # seconds; of an import, above the peer's
    "import fnn": ("import jax", 0.1), "verify.network": ("", 2.0), "mnist, first line": ("", 1.5),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Time to import, to the first gradient and to the first step of training."""

    imports: tuple[str, ...] = IMPORTS
    programs: tuple[str, ...] = tuple(PROGRAMS)
    rounds: int = 5
    out: Path | None = None


class Taken(NamedTuple):
    """Seconds of a process: by the wall's clock, and of the CPU."""

    wall: float
    cpu: float


def seconds(arguments: Sequence[str], until: str = "", cache: str = "") -> Taken:
    """Until a fresh Python has printed a line that begins so, or has ended; cache: folder of compiled programs."""
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": str(bool(cache)).lower()}
    if cache:  # as the experiments use it
        environment |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    started, before = time.perf_counter(), of_children()
    with subprocess.Popen(
        [sys.executable, "-u", *arguments], env=environment, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said, taken = [], None
        for line in process.stdout:
            said.append(line)
            if until and taken is None and line.startswith(until):
                taken = Taken(time.perf_counter() - started, of_process(process.pid))
    if process.returncode or (until and taken is None):
        raise RuntimeError(f"python {' '.join(arguments)} did not come so far:\n{''.join(said[-20:])}")
    return taken or Taken(time.perf_counter() - started, of_children() - before)


def of_children() -> float:
    """The CPU's seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def of_process(pid: int) -> float:
    """The CPU's seconds of a process that runs; NaN where the system does not tell."""
    told = Path(f"/proc/{pid}/stat")
    if not told.exists():
        return float("nan")
    fields = told.read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def run_program(name: str, cache: str = "") -> Taken:
    with tempfile.TemporaryDirectory() as out:
        arguments = PROGRAMS[name] + (("--out", out) if name.startswith("mnist") else ())
        return seconds(arguments, SAYS.get(name, ""), cache)


def stages() -> dict[str, dict[str, float]]:
    """The CPU's seconds of every stage of a first gradient, ours and JAX's."""
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return {
        way: json.loads(subprocess.run([sys.executable, "-c", program], env=environment, check=True,
                                       capture_output=True, text=True).stdout)
        for way, program in STAGES_OF.items()
    }  # fmt: skip


def modules(most: int = 8) -> dict[str, float]:
    """Milliseconds of the modules of fnn that take longest to import, each without what it imports; and of all."""
    told = subprocess.run([sys.executable, "-X", "importtime", "-c", "import fnn"], check=True, capture_output=True,
                          text=True).stderr  # fmt: skip
    lines = (line.removeprefix("import time:").split("|") for line in told.splitlines() if "us]" not in line)
    found = {name.strip(): int(own) / 1e3 for own, _, name in lines if name.strip().partition(".")[0] == "fnn"}
    longest = sorted(found, key=lambda name: -found[name])[:most]
    return {"all of fnn": round(sum(found.values()), 1)} | {name: round(found[name], 1) for name in longest}


def measured(options: Options) -> dict[str, dict[str, list[float]]]:
    """Seconds of every round, by the wall and of the CPU; each round runs every way once, one after the other."""
    known = (name for name in options.imports if find_spec(name.split(".")[0]) is not None)
    ways = {f"import {name}": lambda _, name=name: seconds(("-c", f"import {name}")) for name in known}
    for name in options.programs:
        ways[name] = lambda _, name=name: run_program(name)
        if name not in COMPILES_NOTHING:
            ways[f"{name}, kept"] = lambda kept, name=name: run_program(name, kept)
    taken: dict[str, dict[str, list[float]]] = {clock: {way: [] for way in ways} for clock in Taken._fields}
    with tempfile.TemporaryDirectory() as kept:
        for way in ways:
            ways[way](kept)  # reads the files into memory, and fills the cache
        for _ in range(options.rounds):
            for way, run in ways.items():
                for clock, of in run(kept)._asdict().items():
                    taken[clock][way].append(round(of, 3))
    taken["cpu"] = {way: of for way, of in taken["cpu"].items() if np.isfinite(of).all()}
    return taken


def claims(figures: dict) -> list[results.Claim]:
    def median(way: str) -> str:
        return f"{np.median(figures['seconds'][way]):.1f}" if way in figures["seconds"] else "not measured"

    made = [
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
    return made + [claim_of(way, figures["cpu seconds"]) for way in AIMS if way in figures.get("cpu seconds", {})]


def claim_of(way: str, taken: dict[str, list[float]]) -> results.Claim:
    """An aim, and what the CPU took."""
    above, most = AIMS[way]
    less = np.array(taken.get(above, 0.0))
    what = f"`{way}` above `{above}`" if above else f"`{way}`"
    return results.Claim(f"{what}: seconds of the CPU; aimed at {most:g}", f"{np.median(taken[way] - less):.2f}")


def rows(figures: dict) -> list[Row]:
    """Of the wall's time, and of the CPU's where it was measured."""
    kept, warm = ", kept", ", warm compilation cache"
    pairs = [("import fnn", "import fnn", f"import {name}", f"import {name}") for name in IMPORTS if name != "fnn"]
    for end, words in (("", ""), (kept, warm)):
        pairs.append((f"first gradient{words}", f"first gradient{end}", f"first gradient, jax.grad{end}", "jax.grad"))
        pairs.append((f"verify.network{words}", f"verify.network{end}", f"check_grads{end}", "JAX's check_grads"))
    pairs += [
        ("experiments.mnist to its first line", "mnist, first line", "its imports", "import jax, optax, tqdm, tyro"),
        (f"experiments.mnist to its first step{warm}", "mnist, kept", "mnist", "with nothing kept"),
    ]
    return [
        row
        for measure, name in (("time", "seconds"), ("CPU time", "cpu seconds"))
        for row in _rows(measure, pairs, figures.get(name, {}))
    ]


def _rows(measure: str, pairs, taken: dict) -> Iterator[Row]:
    for what, ours, theirs, peer in pairs:
        if ours not in taken:
            continue
        if theirs not in taken:
            yield Row(what, measure, peer, None, None, f"{np.median(taken[ours]):.2f} s", "", "not installed")
            continue
        lower, ratio, upper = np.percentile(np.divide(taken[ours], taken[theirs]), (25, 50, 75)).tolist()
        mine, its = (f"{np.median(taken[way]):.2f} s" for way in (ours, theirs))
        yield Row(what, measure, peer, ratio, (lower, upper), mine, its)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    taken_by = measured(options)
    figures = {
        "seconds": taken_by["wall"], "cpu seconds": taken_by["cpu"], "target, s": TARGET,
        "stages, CPU s": stages(), "import fnn, ms": modules(),
    }  # fmt: skip
    for way, taken in taken_by["cpu"].items():
        lower, median, upper = np.percentile(taken, (25, 50, 75))
        wall = np.median(taken_by["wall"][way])
        print(f"{way:32}{median:7.2f} s of the CPU ({lower:.2f}–{upper:.2f}){wall:8.2f} s by the wall", flush=True)
    for name in ("stages, CPU s", "import fnn, ms"):
        print(f"{name}: {figures[name]}", flush=True)
    out = results.folder(options.out, "benchmarks.startup")
    results.save(out, "benchmarks.startup", options, claims(figures), figures)


if __name__ == "__main__":
    main()
