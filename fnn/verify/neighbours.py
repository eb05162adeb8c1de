"""Where a derivative jumps: kinks and ties, seen from neighbouring points.

At a kink every member of the generalised gradient is a right derivative, and autodiff's is one convention. A jump is
told from a slope by its persistence: it is as high between points a thousand times closer.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify.oracle import is_floating

ULPS = {  # of the wide and the narrow moves, relative to each number, by the dtype in which the function computes
    "float64": (4096, 4), "float32": (4096, 4), "float16": (32, 2), "bfloat16": (16, 2)
}  # fmt: skip
OF_ZERO = (1e-15, 1e-18)  # absolute; in float32 their squares are still representable
DRAWS = 8  # in which every entry moves up or down by itself
ALONE = 64  # as many entries at most are moved one by one besides, so that every one wins a tie of many
SMALLEST = 1e-6  # a jump, relative to the derivatives at its sides


class Sides(NamedTuple):
    """An array's least and largest values around a point, and where it jumps there."""

    low: np.ndarray
    high: np.ndarray
    jumps: np.ndarray


def moved(tree, wide: int, signs: Callable[[tuple], np.ndarray], precision: str = "float64"):
    """Every number of the floating leaves moved by a few units in the last place: ``signs(shape)`` of them, in −1…1.

    precision: the dtype whose units these are, or the leaf's own where that is coarser.
    """

    def move(leaf):
        if not is_floating(leaf):
            return leaf
        array = np.asarray(leaf)
        eps = max(float(jnp.finfo(array.dtype).eps), float(jnp.finfo(precision).eps))
        step = eps * ULPS[precision][wide] * np.abs(array.astype(np.float64))
        step = np.where(array == 0, OF_ZERO[wide], step)
        with np.errstate(invalid="ignore", over="ignore"):  # an infinity has no neighbours
            return (array + signs(array.shape) * step).astype(array.dtype)

    return jax.tree.map(move, tree)


class _One:
    """Signs that move one number alone: the ``place``-th of all leaves, which are asked for in their order."""

    def __init__(self, place: int, sign: float):
        self.place, self.sign = place, sign

    def __call__(self, shape: tuple) -> np.ndarray:
        signs = np.zeros(shape)
        if 0 <= self.place < signs.size:
            signs.reshape(-1)[self.place] = self.sign
        self.place -= signs.size
        return signs


def around(tree, wide: int, precision: str, alone: int) -> Iterator:
    """Neighbouring points: all numbers moved down, all up, each at random, and a few numbers one by one."""
    random = np.random.default_rng(0)
    yield moved(tree, wide, lambda shape: np.full(shape, -1.0), precision)
    yield moved(tree, wide, lambda shape: np.full(shape, 1.0), precision)
    for _ in range(DRAWS):
        yield moved(tree, wide, lambda shape: random.choice([-1, 1], shape) * random.uniform(0.3, 1, shape), precision)
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(tree) if is_floating(leaf))
    for place in range(2 * count if count <= alone else 0):
        yield moved(tree, wide, _One(place // 2, (-1.0, 1.0)[place % 2]), precision)


def sides(function: Callable, point, precision: str = "float64", alone: int = ALONE) -> list[Sides]:
    """The sides of every array of the list ``function(point)``.

    precision: in which the function computes; alone: as many numbers at most are moved one by one, too.
    """
    (low_wide, high_wide), (low, high) = (_extremes(function, around(point, wide, precision, alone)) for wide in (0, 1))
    found = []
    with np.errstate(invalid="ignore", over="ignore"):
        for a, b, c, d in zip(low, high, low_wide, high_wide):
            found.append(Sides(a, b, persists(a, b, d - c)))
    return found


def persists(low: np.ndarray, high: np.ndarray, wider: np.ndarray) -> np.ndarray:
    """Where values differ about as much as their difference ``wider`` between points much farther apart: a jump."""
    return (high - low > 0.5 * wider) & (high - low > SMALLEST * np.maximum(np.abs(low), np.abs(high)))


def _extremes(function: Callable, points: Iterator) -> tuple[list, list]:
    values = [[np.asarray(array, np.float64) for array in function(point)] for point in points]
    with np.errstate(invalid="ignore"):
        return [np.min(of, axis=0) for of in zip(*values)], [np.max(of, axis=0) for of in zip(*values)]


def accept(hand: np.ndarray, oracle: np.ndarray, at: Sides, slack) -> tuple[np.ndarray, int]:
    """The oracle's array, with the hand-written entry where it lies between the sides of a jump; and how many jump.

    Where autodiff's value is that of neither side, as when it differentiates the wrong branch at a single point, the
    value between the sides is right, too.
    """
    low, high = np.minimum(at.low, oracle), np.maximum(at.high, oracle)
    with np.errstate(invalid="ignore"):
        alone = (high - low) > SMALLEST * np.maximum(np.abs(low), np.abs(high)) + (at.high - at.low)
        jumps = at.jumps | alone
        if hand.shape != oracle.shape:
            return oracle, int(jumps.sum())
        between = (hand >= at.low - slack) & (hand <= at.high + slack)
    return np.where(jumps & between, hand, oracle), int(jumps.sum())
