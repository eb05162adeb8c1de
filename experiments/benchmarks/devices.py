"""What training takes of each of several devices: ``python -m experiments.benchmarks.devices``.

One compiled step of ``fit``, 1024-1024-1024-1024-16 in mini-batches of 256 with momentum, on 1, 2, 4 and 8 devices, by
``shard``: the bytes that each device holds (arguments, results and temporaries, as the compiler plans them), the bytes
that it gets from the others in a step, as they stand in the compiled program, and the time. Without accelerators the
devices are parts of this machine's processor, which share its cores: their times say what splitting costs, and not what
it gains.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, interleaved
from fnn.functions import Objective
from fnn.optimizers import Optimizer
from fnn.train import loop
from fnn.train.shards import SHARDS, split_of

BATCH, CLASSES = 256, 16
LOSS, RULE = fnn.SoftmaxCrossEntropy(), Optimizer(fnn.updates.momentum(0.1, 0.9))
MESSAGE = re.compile(
    r"= (\(?[^(\n]*?) (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
ARRAY = re.compile(r"\bf32\[([\d,]*)\]")


@dataclass(frozen=True)
class Options:
    """Memory, messages and time of a step on several devices, by what each of them has a part of."""

    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of them; more than there are are left out."""
    width: int = 1024
    rounds: int = 9
    out: Path | None = None


def sizes(width: int) -> tuple[int, ...]:
    return (*[width] * 4, CLASSES)


def step(width: int, count: int, shard: str):
    """The compiled step on so many devices, and its arguments in their places."""
    params = fnn.init(jax.random.key(0), sizes(width), activation=fnn.Tanh())
    mesh = fnn.parallel.data_mesh(jax.devices()[:count])
    split = split_of(mesh, shard, params, BATCH)
    assert split is not None
    begun = split.place(loop.start(RULE, split.home(params), split))
    x, y = jnp.ones((1, BATCH, width)), jnp.zeros((1, BATCH), jnp.int32)
    batches = (*fnn.parallel.place((x, y), mesh, None, "data" if shard == "data" else None), None)
    given = begun, batches, 0, None, jax.random.key(0), RULE
    program = loop.take_steps.lower(*given, objective=Objective(LOSS, "mean"), scale=1.0, split=split).compile()
    return program, given


def received(text: str) -> int:
    """Bytes of the arrays that a device gets in a step, from the text of its compiled program."""
    shapes = (shape for message in MESSAGE.findall(text) for shape in ARRAY.findall(message))
    return 4 * sum(int(np.prod([int(n) for n in shape.split(",") if n], initial=1)) for shape in shapes)


def messages(program, count: int) -> float:
    """MiB that each of so many devices gets in a step; one alone sends itself none, whatever its program says."""
    return round(received(program.as_text()) / 2**20, 2) if count > 1 else 0.0


def measured(options: Options, counts: Sequence[int]) -> dict:
    """By shard and number of devices: MiB held and received by each, and ms."""
    steps = {(shard, count): step(options.width, count, shard) for shard in SHARDS for count in counts}
    ways = {
        f"{shard}, {count}": lambda program=program, given=given: program(*given)
        for (shard, count), (program, given) in steps.items()
    }
    seconds = interleaved(ways, options.rounds)
    found = {}
    for (shard, count), (program, _) in steps.items():
        name, memory = f"{shard}, {count}", program.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        found[name] = {
            "MiB held": round(held / 2**20, 2),
            "MiB received": messages(program, count),
            "ms": round(1e3 * float(np.median(seconds[name])), 3),
            "/ one device": np.percentile(seconds[name] / seconds["data, 1"], (50, 25, 75)).round(3).tolist(),
        }
    return found


def rows(figures: dict) -> list[Row]:
    """Of each number of devices, what one of them holds and the time, beside one device alone."""
    steps, made = figures["steps"], []
    alone = steps["data, 1"]
    for name, found in steps.items():
        shard, count = name.split(", ")
        if count != "1":
            what = f'a step of {figures["network"]}, shard="{shard}", {count} devices'
            note = f"receives {found['MiB received']:.3g} MiB a step"
            held, of_one = found["MiB held"], alone["MiB held"]
            made.append(Row(what, "memory of each", "one device", held / of_one, None, f"{held:.3g} MiB",
                            f"{of_one:.3g} MiB", note))  # fmt: skip
            median, *spread = found["/ one device"]
            made.append(Row(what, "time", "one device", median, (spread[0], spread[1]), f"{found['ms']:.3g} ms",
                            f"{alone['ms']:.3g} ms", figures["note"]))  # fmt: skip
    return made


def claims(figures: dict) -> list[results.Claim]:
    def each(key: str) -> str:
        return ", ".join(f"{name}: {found[key]:.3g}" for name, found in figures["steps"].items())

    network = figures["network"]
    return [
        results.Claim(f"MiB that each device holds for a step of {network}, by shard and devices", each("MiB held")),
        results.Claim("MiB that it receives in the step", each("MiB received")),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    with contextlib.suppress(RuntimeError):  # JAX has computed already: those that there are
        jax.config.update("jax_num_cpu_devices", max(options.devices))
    counts = [count for count in options.devices if count <= len(jax.devices())]
    parts = jax.default_backend() == "cpu"
    figures: dict = {
        "network": "-".join(map(str, sizes(options.width))) + f", batch {BATCH}, momentum",
        "note": "parts of one processor, which share its cores" if parts else "",
        "steps": measured(options, counts),
    }
    for name, found in figures["steps"].items():
        held = f"{found['MiB held']:10.2f} MiB held{found['MiB received']:10.2f} MiB received"
        ratio = "{:.2f} ({:.2f}–{:.2f})".format(*found["/ one device"])
        print(f"{name:12}{held}{found['ms']:10.2f} ms   / one device {ratio}", flush=True)
    out = results.folder(options.out, "benchmarks.devices")
    results.save(out, "benchmarks.devices", options, claims(figures), figures)


if __name__ == "__main__":
    main()
