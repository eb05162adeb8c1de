"""What a fresh machine with a GPU or a TPU does with fnn, in at most 8 minutes: ``python -m experiments.accelerator``.

Seven parts, each by itself, so that one that fails leaves the others: every public computation, lowered, run and
compared with the CPU (``experiments.programs``); ``verify`` of a Pallas kernel, right and wrong; checkpoint and resume;
an epoch of each benchmark, and of the small network also with a launch for each step, with several steps to one turn of
the loop, and in an ensemble; per-example clipping; and a gradient of 8 × 8192 in bfloat16 beside the rate of one large
product. What the time does not reach is named.

With ``--save`` the record goes into the gallery, and its claims into the tables. Where JAX finds no accelerator, all
parts run in small on the CPU, as a rehearsal that says so and that is never saved.
"""

import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import STARTED, results, row_softmax, table
from experiments.benchmarks import epochs, matmuls, per_example
from experiments.benchmarks.peers import Problem
from experiments.benchmarks.timing import interleaved
from experiments.programs import Program, programs
from fnn import train, verify
from fnn.data import as_floats
from fnn.functions import Objective
from fnn.optimizers import Optimizer
from fnn.train import loop

CLOSE = 1e-3  # a float32 result of the highest precision beside the CPU's: other roundings, and nothing more
UNROLLED = (1, 4, 16)  # steps to one turn of the loop
NO_ACCELERATOR = (
    "JAX finds no accelerator here ({kind}): this is a rehearsal on the CPU, in small, and no record of a GPU or a TPU."
)


@dataclass(frozen=True)
class Options:
    """Run and time fnn on an accelerator; on a CPU, a rehearsal."""

    minutes: float = 8.0
    """After which no further part or program is begun."""
    only: tuple[str, ...] = ()
    """Names of parts; all if empty."""
    programs: str = ""
    """How the names of the programs begin that are run and compared; all if empty."""
    save: bool = False
    """Keep the record in the gallery and write the tables. Refused without an accelerator."""
    out: Path | None = None

    @property
    def left(self) -> float:
        """Seconds."""
        return 60 * self.minutes - (time.perf_counter() - STARTED)


def small() -> bool:
    """Whether this is a rehearsal."""
    return jax.default_backend() == "cpu"


# -- every public computation ----------------------------------------------------------------------------------


def every_program(options: Options) -> dict:
    """Of each program: lowered for this platform, run, and its distance from what the CPU computes."""
    here = {name: program for name, program in programs().items() if name.startswith(options.programs)}
    with jax.default_device(verify.devices.cpu()):
        there = programs()
    found: dict = {"ran": 0, "largest distance": 0.0, "of": "", "failed": {}, "apart": {}, "not reached": []}
    for name, program in here.items():
        if options.left < 60 * options.minutes / 2:  # the other half is for the other parts
            found["not reached"].append(name)
            continue
        try:
            apart = compared(program, there[name])
        except Exception as error:  # whatever a new platform raises is what is to be found
            found["failed"][name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        found["ran"] += 1
        if apart > CLOSE or not np.isfinite(apart):
            found["apart"][name] = float(f"{apart:.1e}")
        if apart >= found["largest distance"]:
            found["largest distance"], found["of"] = float(f"{apart:.1e}"), name
    return found


def compared(here: Program, there: Program) -> float:
    """The largest distance of a leaf from the CPU's, relative to it, in the highest precision of products."""
    with jax.default_matmul_precision("highest"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "params: with a batch norm")  # outside of training, on purpose
        if here.traced:
            jax.jit(here.call).lower(*here.arguments)
        ours = jax.tree.map(np.asarray, here())
        with jax.default_device(verify.devices.cpu()):
            right = jax.tree.map(np.asarray, there())
    return max((distance(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(right), strict=True)), default=0)


def distance(ours, right) -> float:
    a, b = (np.asarray(leaf, np.float64) for leaf in (ours, right) if leaf.dtype.kind in "fiub")
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-6 * np.sqrt(b.size)))


# -- a kernel, and a run that is interrupted -------------------------------------------------------------------


def kernel(options: Options) -> dict:
    """``verify.custom_vjp`` of a Pallas kernel in float32: the right one, and one that forgets a term."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2 * row_softmax.TILE, 128)), jnp.float32)
    reports = [verify.custom_vjp(row_softmax.row_softmax(wrong), x, oracle=row_softmax.reference)
               for wrong in (False, True)]  # fmt: skip
    wrong = [finding.name for finding in reports[1].wrong]
    return {"interpreted": small(), "right passes": reports[0].ok, "wrong found": wrong, "dtype": reports[0].dtype}


def resumed(options: Options) -> dict:
    """Four epochs at once, and two and two from a checkpoint: how many of the parameters differ in a bit."""
    sizes, batch = ((20, 16, 4), 10) if small() else ((784, 512, 512, 10), 128)
    random = np.random.default_rng(0)
    x = random.normal(size=(40 * batch, sizes[0])).astype(np.float32)
    data = x, random.integers(0, sizes[-1], len(x)).astype(np.int32)
    params = fnn.init(jax.random.key(0), sizes, activation=fnn.ReLU())
    fit = partial(train.fit, params, data, fnn.updates.momentum(0.01), loss=fnn.SoftmaxCrossEntropy(),
                  batch_size=batch, key=jax.random.key(1), progress=False)  # fmt: skip
    whole = fit(epochs=4).params
    with tempfile.TemporaryDirectory() as folder:
        fit(epochs=2, checkpoint=folder)
        parts = fit(epochs=4, checkpoint=folder).params
    pairs = [tuple(map(np.asarray, pair)) for pair in zip(jax.tree.leaves(whole), jax.tree.leaves(parts))]
    differing = sum(int((a != b).sum()) for a, b in pairs)
    return {"numbers": sum(a.size for a, _ in pairs), "differ in a bit": differing,
            "largest distance": max(distance(b, a) for a, b in pairs)}  # fmt: skip


# -- time ------------------------------------------------------------------------------------------------------


def an_epoch_of_each(options: Options) -> dict:
    """Seconds of an epoch of ``fit``, the second of two."""
    chosen = epochs.problems(epochs.Options(examples=600 if small() else 60_000))
    return {str(problem): round(epochs.seconds_of_fit(problem)[0], 4) for problem in chosen.values()}


def launches(options: Options) -> dict:
    """Microseconds of a step of 784-30-10 at batch 10: a launch each, in loops, and 16 networks at once."""
    problem = epochs.problems(epochs.Options(workloads=("small",), examples=200 if small() else 10_000))["small"]
    order = jnp.asarray(loop.shuffle(jax.random.key(0), 1, len(problem.data), problem.batch))
    x, y = jnp.asarray(problem.data.x), jnp.asarray(problem.data.y)
    optimizer = Optimizer(problem.optimizer)
    begun = loop.start(optimizer, problem.params)
    step = train.make_step(problem.optimizer, loss=problem.loss)
    rows = [(as_floats(x[each], jnp.dtype("float32"), problem.data.scale), y[each]) for each in order]

    def one_by_one():
        params, state = begun
        for of_step in rows:
            params, state, _ = step(params, state, *of_step)
        return params

    ways: dict[str, Callable] = {"a launch for each step": one_by_one}
    for unroll in UNROLLED:
        epoch = jax.jit(partial(steps, Objective(problem.loss, "mean"), problem.data.scale, unroll))
        ways[f"a loop, {unroll} to a turn"] = partial(epoch, optimizer, begun, x[order], y[order])
    seconds = interleaved(ways, 3)
    found = {way: round(1e6 * float(np.median(taken)) / len(order), 2) for way, taken in seconds.items()}
    return found | {"an ensemble of 16, for each network": ensemble(problem, len(order))}


def steps(objective, scale, unroll: int, optimizer, begun, x, y):
    """The steps of an epoch, ``unroll`` of them in each turn of the loop; x as bytes, (steps, B, n)."""
    key = jax.random.key(0)  # of no dropout

    def step(carry, batch):
        (params, state), (images, targets) = carry, batch
        x, masks = loop.inputs(loop.ALL_ROWS, params, images, 0, None, key, None, scale, objective.rules)
        params, state, value = loop.take_step(
            params, state, x, targets, masks, optimizer=optimizer, objective=objective
        )
        return (params, state), value

    return jax.lax.scan(step, begun, (x, y), unroll=unroll)[0]


def ensemble(problem: Problem, count: int) -> float:
    """Microseconds for a step of one of 16 networks that ``fit_many`` trains at once."""
    members = jax.tree.map(lambda leaf: jnp.stack([leaf] * 16), problem.params)
    runs = train.fit_many(members, problem.data, problem.optimizer, loss=problem.loss, epochs=2,
                          batch_size=problem.batch, keys=jax.random.split(jax.random.key(0), 16),
                          progress=False)  # fmt: skip
    first, second = runs[0].history
    return round(1e6 * (second["seconds"] - first["seconds"]) / count / 16, 2)


def clipping(options: Options) -> dict:
    """Clipped gradients of 784-512-512-10: time as a multiple of one gradient, and distance from ``vmap(grad)``."""
    random, batch = np.random.default_rng(0), 16 if small() else 1024
    params = fnn.init(jax.random.key(0), (*per_example.SIZES, 10), activation=fnn.ReLU())
    x = jnp.asarray(random.normal(size=(batch, 784)), jnp.float32)
    y = jnp.asarray(random.integers(0, 10, batch), jnp.int32)
    ways: dict[str, Callable] = {
        "gradient": partial(fnn.backprop, loss=per_example.LOSS),
        "clipped": partial(fnn.per_example.clipped, clip=per_example.CLIP, loss=per_example.LOSS),
    }
    seconds = interleaved({name: compiled(way, params, x, y) for name, way in ways.items()}, 5)
    with jax.default_matmul_precision("highest"):
        pair = ways["clipped"](params, x[:8], y[:8]), jax.jit(per_example.vmap_clipped)(params, x[:8], y[:8])
    leaves = zip(*(map(np.asarray, jax.tree.leaves(each)) for each in pair))
    ratio = float(np.median(seconds["clipped"] / seconds["gradient"]))
    return {"batch": batch, "clipped / gradient": round(ratio, 3),
            "distance from vmap(grad)": float(f"{max(distance(a, b) for a, b in leaves):.1e}")}  # fmt: skip


def compiled(function: Callable, *arguments) -> Callable:
    """The function of no arguments, compiled once, because a GPU's autotuning takes its time."""
    return partial(jax.jit(function).lower(*arguments).compile(), *arguments)


def large_products(options: Options) -> dict:
    """A gradient in bfloat16 beside the measured rate of one large product of its kind."""
    shape = matmuls.Shape(3, 64, 64) if small() else matmuls.Shape(8, 8192, 8192)
    given: Any = matmuls.problem(fnn.ReLU(), shape.depth - 1, shape.width, shape.batch, outputs=shape.width)
    given = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), given)
    ways: dict[str, tuple[Callable, tuple]] = {
        "gradient": (fnn.backprop, given),
        "products alone": (matmuls.products, given),
        "one product": (lambda x, W: x @ W, (given[1], given[0][0].W)),
    }
    seconds = interleaved({way: compiled(call, *args) for way, (call, args) in ways.items()}, 3)
    seconds["one product"] = seconds["one product"] * (3 * shape.depth - 1)
    rates = {way: round(matmuls.operations(shape) / float(np.median(of)) / 1e12, 3) for way, of in seconds.items()}
    return {"network": f"{shape}, bfloat16", "TFLOP/s": rates}


# -- the record ------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Options], dict]] = {
    "every program": every_program, "kernel": kernel, "resumed": resumed, "epochs": an_epoch_of_each,
    "launches": launches, "clipping": clipping, "large products": large_products,
}  # fmt: skip
CLAIMS: dict[str, tuple[str, Callable[[dict], str]]] = {
    "every program": (
        "every public computation, run and compared with the CPU",
        lambda found: f"{found['ran']} ran, {len(found['failed'])} failed, {len(found['apart'])} farther apart than "
        f"{CLOSE:g}, {len(found['not reached'])} not reached; largest distance {found['largest distance']:g}",
    ),
    "kernel": (
        "`verify.custom_vjp` of a Pallas kernel: the right one passes, the wrong one is found",
        lambda found: f"{found['right passes']}, {bool(found['wrong found'])}",
    ),
    "resumed": (
        "two epochs and two from a checkpoint beside four: numbers that differ in a bit",
        lambda found: f"{found['differ in a bit']:,} of {found['numbers']:,}",
    ),
    "epochs": (
        "an epoch of MNIST", lambda found: "; ".join(f"{name} {taken:.3g} s" for name, taken in found.items()),
    ),
    "launches": (
        "784-30-10, batch 10: µs of a step",
        lambda found: "; ".join(f"{way} {taken:.3g}" for way, taken in found.items()),
    ),
    "clipping": (
        "clipped per-example gradients of 784-512-512-10: time as a multiple of one gradient",
        lambda found: f"{found['clipped / gradient']:.2f} at batch {found['batch']}",
    ),
    "large products": (
        "a gradient in bfloat16, its products alone, and one product: TFLOP/s",
        lambda found: f"{found['network']}: " + ", ".join(f"{rate:.3g}" for rate in found["TFLOP/s"].values()),
    ),
}  # fmt: skip


def measured(options: Options) -> dict:
    """What every part found, or why it found nothing."""
    figures: dict = {}
    for name in options.only or PARTS:
        if options.left <= 0:
            figures[name] = {"left out": f"after {options.minutes:g} minutes"}
            continue
        started = time.perf_counter()
        try:
            figures[name] = PARTS[name](options)
        except Exception as error:  # the other parts are to be seen all the same
            traceback.print_exc()
            figures[name] = {"left out": f"it failed: {type(error).__name__}: {error}".splitlines()[0][:300]}
        seconds = time.perf_counter() - started
        print(f"{name} ({seconds:.0f} s): {figures[name]}", flush=True)
        figures[name]["seconds"] = round(seconds, 1)
    return figures


def claims(figures: dict) -> list[results.Claim]:
    made = []
    for name, found in figures.items():
        what, told = CLAIMS[name]
        plain = {key: value for key, value in found.items() if key != "seconds"}
        made.append(results.Claim(what, found["left out"] if "left out" in found else told(plain)))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    device = jax.devices()[0]
    if unknown := set(options.only) - set(PARTS):
        raise SystemExit(f"--only: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if small():
        print(NO_ACCELERATOR.format(kind=device.device_kind), flush=True)
        if options.save:
            raise SystemExit("--save: there is nothing to save without an accelerator")
    else:
        print(f"{len(jax.devices())} × {device.device_kind} ({device.platform})", flush=True)
    figures = measured(options)
    out = results.folder(options.out, "accelerator")
    name = "accelerator, rehearsed on a CPU" if small() else "accelerator"
    results.save(out, name, options, claims(figures), figures)
    if options.save:
        table.main([str(out)])


if __name__ == "__main__":
    main()
