"""Where a derivative jumps: kinks and ties, seen from neighbouring points.

At a kink every member of the generalised gradient is a right derivative, and autodiff's is one convention. A jump is
told from a slope by its persistence: it is as high between points a thousand times closer. A member is a mean of
derivatives beside the point, so that it has every sum of entries that all of these have.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify.oracle import is_floating

ULPS = {  # of the wide and the narrow moves, relative to each number, by the dtype in which the function computes;
    # enough that few of the numbers that tie move equally far
    "float64": (2**18, 2**8), "float32": (2**12, 2**5), "float16": (32, 2), "bfloat16": (16, 2)
}  # fmt: skip
OF_ZERO = (1e-15, 1e-18)  # absolute; in float32 their squares are still representable
ALONE_OF_ZERO = (1e-9, 1e-12)  # for numbers that meet no others: enough to move what is of size 1 at 0, as a sigmoid is
DRAWS = 8  # in which every entry moves up or down by itself
ALONE = 64  # as many entries at most are moved one by one besides, so that every one wins a tie of many
SMALLEST = 1e-6  # a jump, relative to the derivatives at its sides
CONSTANT = 1e-3  # a sum that varies less beside jumps of size 1 is the same everywhere
FRESH, ROUNDS = 32, 8  # further neighbours, and how often as many more are drawn, until all sums vary
MANY = 256  # among more entries that jump, only their plain sum is looked at


class Sides(NamedTuple):
    """An array's least and largest values around a point, and where it jumps there."""

    low: np.ndarray
    high: np.ndarray
    jumps: np.ndarray

    def size(self) -> np.ndarray:
        return np.maximum(np.abs(self.low), np.abs(self.high))


def moved(tree, wide: int, signs: Callable[[tuple], np.ndarray], precision: str = "float64", of_zero=OF_ZERO):
    """Every number of the floating leaves moved by a few units in the last place: ``signs(shape)`` of them, in −1…1.

    precision: the dtype whose units these are, or the leaf's own where that is coarser; of_zero: how far 0 is moved.
    """

    def move(leaf):
        if not is_floating(leaf):
            return leaf
        array = np.asarray(leaf)
        eps = max(float(jnp.finfo(array.dtype).eps), float(jnp.finfo(precision).eps))
        step = eps * ULPS[precision][wide] * np.abs(array.astype(np.float64))
        step = np.where(array == 0, of_zero[wide], step)
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


def jittered(random: np.random.Generator, shape: tuple) -> np.ndarray:
    """Random signs and sizes, none of them close to 0."""
    return random.choice([-1, 1], shape) * random.uniform(0.3, 1, shape)


class Neighbours:
    """The arrays of the list ``function(point)`` beside the point, and where they jump there.

    precision: in which the function computes; alone: as many numbers at most are moved one by one, too; of_zero: as
    for :func:`moved`.
    """

    def __init__(self, function: Callable, point, precision: str = "float64", alone: int = ALONE, of_zero=OF_ZERO):
        self._function, self._point, self._alone = function, point, alone
        self._moved = partial(moved, precision=precision, of_zero=of_zero)
        self._seed = 0
        sizes = [np.size(leaf) for leaf in jax.tree.leaves(point) if is_floating(leaf)]
        places = range(sum(sizes) if sum(sizes) <= alone else 0)
        self._wide, self._near = (
            self._at([*self._together(wide), *self._points(wide, places, DRAWS)]) for wide in (0, 1)
        )
        self.sides = self._seen()

    def _seen(self) -> list[Sides]:
        with np.errstate(invalid="ignore", over="ignore"):
            ends = [(of.min(axis=0), of.max(axis=0)) for of in self._near]
            return [Sides(*pair, persists(*pair, np.ptp(of, axis=0))) for pair, of in zip(ends, self._wide)]

    def _together(self, wide: int) -> Iterator:
        """All numbers moved down, and all up."""
        for sign in (-1.0, 1.0):
            yield self._moved(self._point, wide, partial(np.full, fill_value=sign))

    def _points(self, wide: int, places: Sequence[int], draws: int) -> Iterator:
        """All numbers moved at random, ``draws`` times; then those at some places one by one."""
        random = np.random.default_rng(self._seed)
        for _ in range(draws):
            yield self._moved(self._point, wide, lambda shape: jittered(random, shape))
        for place in places:
            for sign in (-1.0, 1.0):
                yield self._moved(self._point, wide, _One(place, sign))

    def _at(self, points: Iterable) -> list[np.ndarray]:
        """Every array at all points, stacked."""
        values = [[np.asarray(array, np.float64) for array in self._function(point)] for point in points]
        return [np.stack(of) for of in zip(*values)]

    def _look_again(self, apart: list[np.ndarray]) -> None:
        """More neighbours, because among many numbers a few draws show few of the winners of a tie.

        apart: how much each hand-written entry is from the oracle's. Where the last arrays have the shapes of the
        numbers that move, as gradients have, the numbers of the entries farthest apart are moved one by one, too.
        """
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(self._point) if is_floating(leaf)]
        places: list[int] = []
        if [of.shape for of in apart[-len(shapes) :]] == shapes:
            flat = np.concatenate([of.ravel() for of in apart[-len(shapes) :]])
            places = [int(j) for j in np.argsort(-flat, kind="stable")[: self._alone] if flat[j] > 0]
        self._seed += 1
        for of, wide in ((self._wide, 0), (self._near, 1)):
            of[:] = [np.concatenate(pair) for pair in zip(of, self._at(self._points(wide, places, FRESH)))]
        self.sides = self._seen()

    def accept(self, hand: list, oracle: list, slack: list) -> tuple[list[np.ndarray], int]:
        """The oracle's arrays, with hand-written entries where these can be a generalised derivative; how many jump.

        Each lies between its sides, give or take its slack; and a sum of entries that is the same at every neighbour,
        as that of the shares at a tie, is theirs, too.
        """
        kept, jumps = self._between(hand, oracle, slack)
        with np.errstate(invalid="ignore"):
            apart = [np.abs(h - k) if h.shape == k.shape else np.zeros(k.shape) for h, k in zip(hand, kept)]
        if jumps and self._alone and any((of > far).any() for of, far in zip(apart, slack)):
            self._look_again([np.nan_to_num(of) for of in apart])
            kept, jumps = self._between(hand, oracle, slack)
        free = [_free(h, k, at) for h, k, at in zip(hand, kept, self.sides)]
        if all((k[of] == o[of]).all() for k, o, of in zip(kept, oracle, free)):
            return kept, jumps  # nothing rests on a jump

        def joined(arrays) -> np.ndarray:
            return np.concatenate([array[..., of] for array, of in zip(arrays, free)], axis=-1)

        def draw() -> np.ndarray:
            self._seed += 1
            return joined(self._at(self._points(1, (), FRESH)))

        refused = breaks_a_sum(joined(hand), joined(self._near), draw, joined(slack))
        ends = np.cumsum([of.sum() for of in free])[:-1]
        for right, theirs, of, here in zip(kept, oracle, free, np.split(refused, ends)):
            right[of] = np.where(here, theirs[of], right[of])
        return kept, jumps

    def _between(self, hand, oracle, slack) -> tuple[list[np.ndarray], int]:
        found = [accept(*of) for of in zip(hand, oracle, self.sides, slack)]
        return [array for array, _ in found], sum(count for _, count in found)


def _free(hand: np.ndarray, kept: np.ndarray, at: Sides) -> np.ndarray:
    """Where a hand-written entry lies between two sides."""
    if hand.shape != kept.shape:
        return np.zeros(kept.shape, bool)
    return at.jumps & (kept == hand) & np.isfinite(at.size())


def breaks_a_sum(hand: np.ndarray, near: np.ndarray, draw: Callable[[], np.ndarray], slack) -> np.ndarray:
    """Which entries of ``hand`` break a weighted sum that is the same at all neighbours: a mask.

    A generalised derivative is a mean of derivatives at neighbouring points, so that it keeps such a sum.

    hand: entries that jump, (n,); near: the same at neighbours, (m, n); draw: the same at further ones.
    """
    low, width = near.min(axis=0), np.ptp(near, axis=0)
    width = np.where(width > 0, width, np.abs(low))
    width = np.where(width > 0, width, 1.0)
    of_hand, seen, slack = (hand - low) / width, (near - low) / width, slack / width
    for _ in range(1 if len(hand) > MANY else ROUNDS):
        fresh = (draw() - low) / width
        if not np.isfinite(fresh).all():
            break
        outside = _beyond(of_hand, seen)
        for weights in (width / np.linalg.norm(width), outside):
            values = np.concatenate([seen, fresh]) @ weights
            apart = abs(of_hand @ weights - values.mean())
            if np.ptp(values) < CONSTANT and apart > 10 * np.ptp(values) + np.abs(weights) @ slack:
                return np.abs(weights) > CONSTANT * np.abs(weights).max()
        if not outside.any():
            break
        seen = np.concatenate([seen, fresh])
    return np.zeros(hand.shape, bool)


def _beyond(point: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The direction, of length 1, in which a point lies beyond the plane through the others; 0 where it lies in it."""
    _, sizes, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    axes = axes[sizes > CONSTANT * np.sqrt(len(points))]
    apart = point - points.mean(axis=0)
    apart = apart - axes.T @ (axes @ apart)
    length = np.linalg.norm(apart)
    return apart / length if length > 1e-9 else np.zeros_like(apart)


def persists(low: np.ndarray, high: np.ndarray, wider: np.ndarray) -> np.ndarray:
    """Where values differ about as much as their difference ``wider`` between points much farther apart: a jump."""
    return (high - low > 0.25 * wider) & (high - low > SMALLEST * np.maximum(np.abs(low), np.abs(high)))


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
