"""How the examples reach the compiled loop: chunks of an epoch's mini-batches."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.data import Dataset

Batches = tuple[Array, Array, np.ndarray | None]  # x, y as they are stored, and the rows of mini-batches: see loop.run


class InMemory:
    """All examples on the device; an epoch is one chunk."""

    def __init__(self, data: Dataset):
        self.x, self.y = jnp.asarray(data.x), jnp.asarray(data.y)

    def inputs(self, order: np.ndarray) -> Array:
        """x of the mini-batches whose rows are in ``order``, (steps, B): (steps, B, n)."""
        return self.x[order]

    def chunks(self, order: np.ndarray) -> Iterator[tuple[int, Batches]]:
        """Pairs of a chunk's first step and its mini-batches, in the order of ``order``."""
        yield 0, (self.x, self.y, order)
