"""Data that are not held in memory: memory-mapped files, and mini-batches from a function."""

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fnn.checks.arrays import describe
from fnn.checks.numbers import number, whole

CHUNK_BYTES = 1 << 24  # of streamed mini-batches: the device computes with one while the next is gathered
BLOCK_BYTES = 1 << 24  # of rows whose values are checked together


@dataclass(frozen=True, eq=False)
class Batches:
    """Mini-batches from a function, for data that no array holds: from many files, a loader, or made as they are used.

    make:  epoch → an iterable of pairs (x, y) of NumPy arrays: x (B, n) uint8 or floating, y (B,) integer labels ≥ 0
           or (B, m) floating targets, in the parameters' dtype where floating. ``fit`` calls it once for every epoch,
           counted from 1 (a function, so that every epoch begins anew, in an order of your choice, and a run that goes
           on asks for the epoch it is at), and with a batch norm once more with 1, for its statistics. It runs in a
           thread beside the computation, and what it yields is copied at once, so that it may reuse its arrays.
    scale: what x is multiplied by: 1/255 for uint8 and 1 for floating x if it is not given.
    chunk_bytes: about so many bytes of mini-batches go to the device at a time, at least one mini-batch.

    What ``make`` does in Python takes its time beside the computation, and from it where no core is free. On 2 idle
    cores an epoch in mini-batches of 10 images of MNIST takes 1.07 of its time in memory, from arrays in files 0.95
    (``python -m experiments.benchmarks.streaming``).
    All mini-batches have ``fit``'s batch_size; a shorter last one is left out. Every epoch should have as many, for
    another number compiles another program. Raises TypeError or ValueError, at a wrong batch with its epoch, its number
    and the row, both counted from 0, before the device sees it.

    >>> def make(epoch):  # a loader of PyTorch: ((x.flatten(1).numpy(), y.numpy()) for x, y in loader)
    ...     random = np.random.default_rng(epoch)
    ...     for _ in range(20):
    ...         x = random.normal(size=(10, 3)).astype(np.float32)
    ...         yield x, x[:, :2]
    >>> Batches(make).chunk_bytes
    16777216
    """

    make: Callable[[int], Any]
    scale: float | None = None
    chunk_bytes: int = CHUNK_BYTES

    def __post_init__(self):
        if not callable(self.make):
            raise TypeError(
                f"make: expected a function epoch -> iterable of (x, y), got {describe(self.make)}; "
                "write Batches(lambda epoch: batches)"
            )
        if self.scale is not None:
            object.__setattr__(self, "scale", number("Batches", "scale", self.scale, above=0))
        object.__setattr__(self, "chunk_bytes", whole("chunk_bytes", self.chunk_bytes))


def blocks(array: np.ndarray, size: int) -> Iterator[slice]:
    """The rows of ``array`` in slices of about ``size`` bytes."""
    step = max(1, size // max(1, array[:1].nbytes))
    return (slice(first, first + step) for first in range(0, len(array), step))


def by_blocks(function: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """function(rows) for all rows, block by block: what it makes on its way is never as large as the array."""
    return np.concatenate([function(np.asarray(array[rows])) for rows in blocks(array, BLOCK_BYTES)])


def memory_mapped(array) -> bool:
    """Whether the array's values lie in a file; ``np.memmap`` is also the type of copies that do not."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)
