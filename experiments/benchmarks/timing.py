"""Interleaved timing of several ways to do one thing, and what compiling one takes."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

jax.config.update("jax_enable_compilation_cache", False)  # what is compiled here is compiled from nothing


class Program(NamedTuple):
    """A compiled program without arguments, seconds to trace and compile it, and its temporary memory in MiB."""

    run: Callable
    seconds: float
    temporary: float


class Row(NamedTuple):
    """One line of the suite's table: ours against a peer's, lower is better.

    ratio: ours as a multiple of the peer's, None where that was not measured; spread: its quartiles over the rounds.
    """

    workload: str
    measure: str
    peer: str
    ratio: float | None
    spread: tuple[float, float] | None
    ours: str
    theirs: str
    note: str = ""


def compiled(function: Callable, *arguments) -> Program:
    """Compile for these arguments; the median of three times, each with nothing kept from before."""
    taken = []
    for _ in range(3):
        jax.clear_caches()
        started = time.perf_counter()
        program = jax.jit(function).lower(*arguments).compile()
        taken.append(time.perf_counter() - started)
    memory: Any = program.memory_analysis()
    seconds, temporary = float(np.median(taken)), memory.temp_size_in_bytes / 2**20
    return Program(partial(program, *arguments), round(seconds, 2), round(temporary, 2))


def interleaved(
    ways: Mapping[str, Callable], rounds: int, least: float = 0.02, clock: Callable[[], float] = time.perf_counter
) -> dict[str, np.ndarray]:
    """Seconds per call of every way, (rounds,) each: every round calls each way in turn, for ``least`` seconds.

    So a machine that slows down slows all of them, and the ratio of a round is of neighbours in time. clock: what is
    read before and after; ``time.process_time`` for this process's share of the processor.
    """

    def taken(way: Callable, repeats: int = 1) -> float:
        started = clock()
        for _ in range(repeats):
            jax.block_until_ready(way())
        return (clock() - started) / repeats

    repeats = {}
    for name, way in ways.items():
        taken(way)  # compiles
        repeats[name] = max(1, int(least / min(taken(way) for _ in range(3))))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(taken(way, repeats[name]))
    return {name: np.array(values) for name, values in seconds.items()}


def measured(
    ways: dict[str, tuple[Callable, tuple]], rounds: int, base: str, others: dict[str, Callable] | None = None
) -> dict[str, dict]:
    """Of every way, a function with its arguments: ms, compile s, temporary MiB, and its ratio to the base's time.

    The ratio is the time as a multiple of the base's, [median, lower, upper quartile] over the rounds; others: ways
    without arguments that are not JAX's to compile, of which there is the time alone.
    """
    programs = {way: compiled(function, *arguments) for way, (function, arguments) in ways.items()}
    seconds = interleaved({way: program.run for way, program in programs.items()} | (others or {}), rounds)
    rows: dict[str, dict] = {}
    for way, taken in seconds.items():
        rows[way] = {
            "ms": round(1e3 * float(np.median(taken)), 3),
            f"/ {base}": np.percentile(taken / seconds[base], (50, 25, 75)).round(3).tolist(),
            "rounds, ms": " ".join(f"{1e3 * each:.4g}" for each in taken),
        }
        if way in programs:
            rows[way] |= {"temporary MiB": programs[way].temporary, "compile s": programs[way].seconds}
    return rows


def against(workload: str, peer: str, ours: dict, theirs: dict | None) -> list[Row]:
    """The suite's rows of two ways of ``measured``: time, temporary memory and compile time where both have them.

    theirs: None if the peer is not installed.
    """
    if theirs is None:
        return [Row(workload, "time", peer, None, None, f"{ours['ms']:.3g} ms", "", "not installed")]
    one, other = (np.array(way["rounds, ms"].split(), float) for way in (ours, theirs))
    rows = [timed(workload, peer, np.percentile(one / other, (50, 25, 75)), ours["ms"], theirs["ms"])]
    for measure, key, unit in (
        ("temporary memory", "temporary MiB", "MiB"), ("compile time", "compile s", "s")
    ):  # fmt: skip
        if key in ours and key in theirs:
            rows.append(single(workload, measure, peer, ours[key], theirs[key], unit))
    return rows


def single(workload: str, measure: str, peer: str, ours: float, theirs: float, unit: str) -> Row:
    """A row of what is measured once."""
    ratio = ours / theirs if theirs > 0 else None
    return Row(workload, measure, peer, ratio, None, f"{ours:.3g} {unit}", f"{theirs:.3g} {unit}")


def timed(workload: str, peer: str, ratio: Sequence[float] | np.ndarray, ours: float, theirs: float) -> Row:
    """A row of times; ratio: [median, lower, upper quartile]; ours, theirs: ms."""
    median, lower, upper = map(float, ratio)
    return Row(workload, "time", peer, median, (lower, upper), f"{ours:.3g} ms", f"{theirs:.3g} ms")


def table(rows: dict[str, dict], base: str) -> str:
    """The rows as aligned text."""
    lines = [f"{'':24}{'ms':>10}  {f'/ {base} (quartiles)':>36}   temporary MiB   compile s"]
    for way, row in rows.items():
        ratio = "{:.3f} ({:.3f}–{:.3f})".format(*row[f"/ {base}"])
        line = f"{way:24}{row['ms']:10.3f}  {ratio:>36}"
        lines.append(line + (f"{row['temporary MiB']:16.2f}{row['compile s']:12.2f}" if "compile s" in row else ""))
    return "\n".join(lines)
