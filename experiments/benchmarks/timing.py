"""Interleaved timing of several ways to do one thing, and what compiling one takes."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np


class Program(NamedTuple):
    """A compiled program without arguments, seconds to trace and compile it, and its temporary memory in MiB."""

    run: Callable
    seconds: float
    temporary: float


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


def interleaved(ways: dict[str, Callable], rounds: int, least: float = 0.02) -> dict[str, np.ndarray]:
    """Seconds per call of every way, (rounds,) each: every round calls each way in turn, for ``least`` seconds.

    So a machine that slows down slows all of them, and the ratio of a round is of neighbours in time.
    """
    repeats = {}
    for name, way in ways.items():
        jax.block_until_ready(way())  # compiles
        started = time.perf_counter()
        jax.block_until_ready(way())
        repeats[name] = max(1, int(least / (time.perf_counter() - started)))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            for _ in range(repeats[name]):
                jax.block_until_ready(way())
            seconds[name].append((time.perf_counter() - started) / repeats[name])
    return {name: np.array(values) for name, values in seconds.items()}


def measured(ways: dict[str, tuple[Callable, tuple]], rounds: int, base: str) -> dict[str, dict]:
    """Of every way, a function with its arguments: ms, compile s, temporary MiB, and the quartiles of its ratio to base.

    The ratio is the time as a multiple of the base's, [median, lower, upper quartile] over the rounds.
    """
    programs = {way: compiled(function, *arguments) for way, (function, arguments) in ways.items()}
    seconds = interleaved({way: program.run for way, program in programs.items()}, rounds)
    return {
        way: {
            "ms": round(1e3 * float(np.median(seconds[way])), 3),
            f"/ {base}": np.percentile(seconds[way] / seconds[base], (50, 25, 75)).round(3).tolist(),
            "temporary MiB": program.temporary,
            "compile s": program.seconds,
        }
        for way, program in programs.items()
    }


def table(rows: dict[str, dict], base: str) -> str:
    """The rows as aligned text."""
    lines = [f"{'':24}{'ms':>10}  {f'/ {base} (quartiles)':>36}   temporary MiB   compile s"]
    for way, row in rows.items():
        ratio = "{:.3f} ({:.3f}–{:.3f})".format(*row[f"/ {base}"])
        lines.append(f"{way:24}{row['ms']:10.3f}  {ratio:>36}{row['temporary MiB']:16.2f}{row['compile s']:12.2f}")
    return "\n".join(lines)
