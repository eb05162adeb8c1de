"""Data not held in memory: memory-mapped files, and mini-batches from a function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fnn.checks.arrays import describe, file_size, map_of
from fnn.numbers import number, whole

CHUNK_BYTES = 1 << 24  # per chunk of streamed mini-batches; the device uses one while the next is gathered
LOADER = "Batches(lambda epoch: ((np.asarray(x), np.asarray(y)) for x, y in loader))"
GATHERED = "(np.concatenate([x for x, y in loader]), np.concatenate([y for x, y in loader]))"


@dataclass(frozen=True, eq=False)
class Batches:
    """Mini-batches from a function, for data not held in arrays: many files, a data loader, or data made on the fly.

    make:  epoch → an iterable of pairs (x, y) of NumPy arrays: x (B, n) uint8 or floating, y (B,) integer labels ≥ 0
           or (B, m) floating targets; or of (x, y, weights), with weights as in a ``Dataset``; floating arrays have the
           parameters' dtype. ``fit`` calls it once per epoch, counted from 1, so every epoch may have its own order,
           and a resumed run starts with its current epoch. With a batch norm it is called once more with 1, for the
           statistics. The first mini-batch is drawn before training, to see whether there are weights, even if a
           checkpoint then resumes at a later epoch. The rest is drawn in a background thread. Each mini-batch is
           copied before the next is drawn, so ``make`` may reuse its arrays.
    scale: the factor applied to x; by default 1/255 for uint8 and 1 for floating x.
    chunk_bytes: about this many bytes of mini-batches go to the device at a time, but at least one mini-batch.
    identity: a text that identifies the data, such as "imagenet, 2024-05, augmented". A checkpoint trained with a
           different identity is refused; without one, the data are not compared.

    Python work in ``make`` overlaps with the computation, but slows it if no core is free. On 2 idle cores, an epoch in
    mini-batches of 10 MNIST images takes 1.07 times as long as in memory, and 0.95 times from memory-mapped arrays
    (``python -m experiments.benchmarks.streaming``).
    All mini-batches have ``fit``'s batch_size; a shorter last one is dropped. Every epoch should have the same number
    of them, because a different number compiles another program; ``fit`` warns if an epoch differs. With ``fit(...,
    batches_per_epoch=)``, fewer are an error and any beyond are ignored, so the iterable may be endless. Raises
    TypeError or ValueError before the device sees a bad batch, naming its epoch, its number and the row, both counted
    from 0.

    >>> def make(epoch):  # for a PyTorch loader: ((x.flatten(1).numpy(), y.numpy()) for x, y in loader)
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
    identity: str | None = None

    def __post_init__(self):
        if not callable(self.make):
            advice = LOADER if hasattr(self.make, "__iter__") else "Batches(lambda epoch: batches)"
            raise TypeError(
                f"make: expected a function epoch -> iterable of (x, y), got {describe(self.make)}; write {advice}"
            )
        if self.scale is not None:
            object.__setattr__(self, "scale", number("Batches", "scale", self.scale, above=0))
        object.__setattr__(self, "chunk_bytes", whole("chunk_bytes", self.chunk_bytes))
        if not (self.identity is None or (isinstance(self.identity, str) and self.identity)):
            raise TypeError(
                f"identity: expected a text, not empty, got {describe(self.identity)}; write identity='name, version'"
            )


class Files:
    """The files of memory-mapped arrays, of which nothing may be cut off; those in memory have nothing to check.

    name: of the arrays, for the message.
    """

    def __init__(self, name: str, *arrays: np.ndarray):
        self.name, self.maps = name, [map_of(array) for array in arrays]
        self.sizes = [file_size(each) for each in self.maps]

    def require_whole(self) -> None:
        """Raise OSError if a file has become shorter: reading what is gone would end the process by SIGBUS."""
        for each, before in zip(self.maps, self.sizes):
            if (now := file_size(each)) < before:
                raise OSError(
                    f"{self.name}: the file of the memory map had {before:,} bytes, and has {now:,} now; restore the "
                    "file and start the run again"
                )
