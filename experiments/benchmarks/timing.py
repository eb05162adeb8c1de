"""Interleaved timing of several ways to do one thing."""

import time
from collections.abc import Callable

import jax
import numpy as np


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
