"""Chunks of mini-batches, prepared by a thread while the device computes."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax import Array

AHEAD = 2  # chunks prepared ahead of time

Chunk = tuple[Array, Array, np.ndarray | None]  # x, y as stored, and the rows of mini-batches; see loop.take_steps
Packed = tuple[int, np.ndarray, np.ndarray]  # the first step, x (steps, B, n) and y (steps, B, …)


class Prefetched:
    """Chunks prepared by a thread while the device computes; exceptions in the thread are raised here.

    The thread uses only NumPy, because thread-local settings, such as the default device, do not apply in it.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "fnn-feed")
        self.closed = False

    def prepared(self, key: Array, epoch: int) -> Iterator[Packed]:
        raise NotImplementedError

    def chunks(self, key: Array, epoch: int) -> Iterator[tuple[int, Chunk]]:
        """Pairs of a chunk's first step and its mini-batches."""
        prepared = self.prepared(key, epoch)
        waiting = deque(self.thread.submit(next, prepared, None) for _ in range(AHEAD))
        while (chunk := waiting.popleft().result()) is not None:
            waiting.append(self.thread.submit(next, prepared, None))
            first, x, y = chunk
            yield first, (jax.device_put(x), jax.device_put(y), None)

    def close(self) -> None:
        """Stop the thread after its current mini-batch or chunk."""
        self.closed = True
        self.thread.shutdown(cancel_futures=True)
