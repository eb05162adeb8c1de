"""How the examples reach the compiled loop: chunks of an epoch's mini-batches."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.data import Dataset

Batches = tuple[Array, Array]  # x (steps, B, n) and y (steps, B) or (steps, B, m), as they are stored


@jax.jit
def _gather(x, y, order):
    return x[order], y[order]  # whole rows at once: faster than one gather in every step


class InMemory:
    """All examples on the device; an epoch is one chunk."""

    def __init__(self, data: Dataset):
        self.x, self.y = jnp.asarray(data.x), jnp.asarray(data.y)

    def batches(self, order: np.ndarray) -> Batches:
        """Those of the rows in ``order``, (steps, B)."""
        return _gather(self.x, self.y, order)

    def chunks(self, order: np.ndarray) -> Iterator[tuple[int, Batches]]:
        """Pairs of a chunk's first step and its mini-batches, in the order of ``order``."""
        yield 0, self.batches(order)
