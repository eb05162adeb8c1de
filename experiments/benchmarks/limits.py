"""What the machine itself allows: an epoch's operations at the rate of large products, and its bytes.

Both are measured, not taken from a data sheet: as many multiplications and additions as the epoch's products have, in
products of large matrices; and as many bytes as its parameters need, in passes over an array of their size, which fits
in the same cache. No way to train needs less of the first, and none that keeps its parameters in memory between steps
needs less of the second. If both overlap, the larger of the two is the limit.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers import Peer, Problem

SIDE = 1024  # of the matrices: large enough for the full rate, small enough for a cache
FLOAT = 4  # bytes


def operations(problem: Problem) -> int:
    """Of a step: forward, (2a) for all layers but the first, and (3), a multiplication and an addition each."""
    sizes = [W.size for W, _ in problem.weights]
    return 2 * problem.batch * (3 * sum(sizes) - sizes[0])


def moved(problem: Problem) -> int:
    """Bytes of a step: W is read forward, for (2a), and for its step, and written; so is a velocity; x is read."""
    sizes = [W.size for W, _ in problem.weights]
    uses = 4 if problem.alpha is None else 6
    return FLOAT * (uses * sum(sizes) - sizes[0]) + problem.batch * problem.sizes[0]


class Limit(Peer):
    """As many operations and bytes as an epoch needs, one after the other."""

    same = False

    def __init__(self, problem: Problem):
        super().__init__(problem)
        steps = len(problem.data) // problem.batch
        flops, size = steps * operations(problem), sum(W.size for W, _ in problem.weights)
        products = -(-flops // (2 * SIDE**3))
        rows = round(flops / products / (2 * SIDE**2))
        passes = round(steps * moved(problem) / (2 * FLOAT * size))

        @jax.jit
        def multiply(a, b):
            return jax.lax.scan(lambda a, _: ((a @ b) * (1 / SIDE), None), a, None, length=products)[0]

        @jax.jit
        def move(w):
            return jax.lax.scan(lambda w, _: (w * 1.0001, None), w, None, length=passes)[0]

        self.parts = partial(multiply, jnp.ones((rows, SIDE)), jnp.ones((SIDE, SIDE))), partial(move, jnp.ones(size))
        for part in self.parts:
            jax.block_until_ready(part())  # compiles
        arithmetic, bytes_ = (min(self.seconds(part) for _ in range(3)) for part in self.parts)
        self.note = (
            f"{1e3 * arithmetic:.3g} ms for {flops / 1e9:.3g} GFLOP at {flops / arithmetic / 1e9:.0f} GFLOP/s, "
            f"{1e3 * bytes_:.3g} ms for {steps * moved(problem) / 1e9:.3g} GB at "
            f"{steps * moved(problem) / bytes_ / 1e9:.0f} GB/s, at best"
        )

    @staticmethod
    def seconds(part) -> float:
        started = time.perf_counter()
        jax.block_until_ready(part())
        return time.perf_counter() - started

    def train(self, order) -> None:
        for part in self.parts:
            jax.block_until_ready(part())
