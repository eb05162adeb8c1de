"""Chunks of mini-batches that a thread prepares while the device computes."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax import Array

AHEAD = 2  # chunks that are prepared before they are asked for

Chunk = tuple[Array, Array, np.ndarray | None]  # x, y as they are stored, and the rows of mini-batches: see loop.run
Packed = tuple[int, np.ndarray, np.ndarray]  # the first step, x (steps, B, n) and y (steps, B, …)


class Prefetched:
    """Chunks that a thread prepares while the device computes; what is raised there is raised here.

    The thread works with NumPy alone: it does not know of settings that hold in one thread, such as the default device.
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
        """End the thread, after the mini-batch or the chunk that it is at."""
        self.closed = True
        self.thread.shutdown(cancel_futures=True)
