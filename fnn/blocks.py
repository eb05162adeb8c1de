"""Large arrays processed in blocks of rows, which limits the size of intermediate results."""

from collections.abc import Callable, Iterator

import numpy as np

BLOCK_BYTES = 1 << 24  # per block of rows whose values are checked together


def blocks(array: np.ndarray, size: int) -> Iterator[slice]:
    """The rows of ``array`` in slices of about ``size`` bytes."""
    step = max(1, size // max(1, array[:1].nbytes))
    return (slice(first, first + step) for first in range(0, len(array), step))


def by_blocks(function: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """function(rows) for all rows, block by block, so that its intermediate arrays stay small."""
    return np.concatenate([function(np.asarray(array[rows])) for rows in blocks(array, BLOCK_BYTES)])
