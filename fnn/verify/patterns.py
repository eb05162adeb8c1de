"""What is true of a wrong array beside the right one: where it differs, and how. Every statement is tested."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fnn.verify.report import norm, norm_error

BOUNDS = (1, 2, 5, 10, 20, 88)  # of magnitudes beyond which an array may be wrong


def statements(
    hand: np.ndarray,
    oracle: np.ndarray,
    tolerance: float,
    axes: Sequence[str] = (),
    beside: Mapping[str, np.ndarray] | None = None,
    factors: Sequence[tuple[str, float]] = (),
) -> list[str]:
    """Everything that holds, the most specific first.

    axes: what the indices count; beside: arrays like these from which the values come, as z; factors: those that have
    a meaning.
    """
    if hand.shape != oracle.shape:
        return list(_shapes(hand, oracle, tolerance))
    if hand.size == 0:
        return []
    with np.errstate(all="ignore"):
        size = max(np.abs(oracle).max(), np.abs(np.where(np.isfinite(hand), hand, 0)).max())
        wrong = ~(np.abs(hand - oracle) <= 1e3 * tolerance * np.abs(oracle) + 1e-2 * tolerance * size)
        if not wrong.any():
            wrong = ~(np.abs(hand - oracle) <= tolerance * np.abs(oracle))
        whole = list(_wholes(hand, oracle, tolerance, factors)) if wrong[oracle != 0].all() or not hand.any() else []
        only_first = hand.ndim == 2 and len(hand) > 1 and oracle[1:].any() and not hand[1:].any() and not wrong[0].any()
        places = list(_places(wrong, oracle, axes, beside or {}, bool(only_first)))
        what = list(_relations(hand[wrong], oracle[wrong], tolerance, factors))
        found = [
            *whole,
            *_orders(hand, oracle, tolerance, axes),
            *(f"{place}: {how}" for place in places for how in what),
        ]
        where_wrong = what if wrong.all() else [f"where it differs: {how}" for how in what]
        return list(dict.fromkeys([*found, *places, *where_wrong, *_along(hand, oracle, tolerance, axes)]))


def _shapes(hand, oracle, tolerance) -> Iterator[str]:
    if hand.shape == oracle.T.shape and same(hand, oracle.T, tolerance):
        yield "the transpose"
    yield f"shape {hand.shape}, expected {oracle.shape}"


def same(hand, value, tolerance: float) -> bool:
    """Whether the value is the hand-written one up to rounding."""
    value = np.asarray(value)
    if value.shape != hand.shape or not np.isfinite(value).all():
        return False
    return norm_error(hand, value, norm(value)) <= 100 * tolerance


def _wholes(hand, oracle, tolerance, factors) -> Iterator[str]:
    """What holds for the array as a whole."""
    if not np.isfinite(hand).any():
        yield "it is not finite"
    elif not hand.any():
        yield "it is zero"
    if np.isfinite(hand).all() and hand.any():
        yield from _orders(hand, oracle, tolerance, ())
        yield from _relations(hand.ravel(), oracle.ravel(), tolerance, factors)


def _relations(hand, oracle, tolerance, factors) -> Iterator[str]:
    """How the wrong entries follow from the right ones; a single entry shows nothing but NaN, zero and a sign."""
    if not np.isfinite(hand).any():
        yield "it is not finite"
        return
    if not hand.any():
        yield "it is zero"
        return
    if not oracle.any():
        yield "it is not zero"
        return
    square = float(np.sum(oracle * oracle)) or 1.0  # of denormal numbers it is 0
    c = float(np.sum(hand * oracle)) / square
    if abs(c + 1) <= 1e-4 and same(hand, -oracle, tolerance):
        yield "the sign"
    if hand.size == 1:
        return
    if c and same(hand, c * oracle, tolerance):
        yield from _factor(c, factors)
    shift = float(np.mean(hand - oracle))
    if same(hand - oracle, np.full_like(oracle, shift), tolerance * max(1, norm(oracle) / (norm(hand - oracle) or 1))):
        yield f"{shift:+.6g} is added"
    if same(hand, np.abs(oracle), tolerance) and (oracle < 0).any():
        yield "the absolute value"


def _factor(c: float, names: Sequence[tuple[str, float]]) -> Iterator[str]:
    """What a constant factor c may mean; ``names``: factors with a specific meaning."""
    known = [*names, ("a factor 2 too large", 2.0), ("a factor 1/2 too small", 0.5)]
    yield from (name for name, value in known if abs(c - value) <= 1e-4 * abs(value))
    yield from (f"the sign, and {name}" for name, value in known if abs(c + value) <= 1e-4 * abs(value))
    yield f"a constant factor {c:.9g}"


def _orders(hand, oracle, tolerance, axes) -> Iterator[str]:
    """Axes or entries in another order."""
    if hand.ndim == 2 and hand.shape[0] == hand.shape[1] and same(hand, oracle.T, tolerance):
        yield "the transpose"
    elif hand.ndim > 2:
        for i in range(hand.ndim):
            for j in range(i):
                swapped = oracle.swapaxes(i, j)
                if hand.shape == swapped.shape and same(hand, swapped, tolerance) and not same(hand, oracle, tolerance):
                    yield f"the axes {j} and {i} are exchanged"
    for axis in range(hand.ndim):
        if hand.shape[axis] > 1 and same(hand, np.flip(oracle, axis), tolerance):
            yield f"the order of the {_plural(axes, axis)} is reversed"
        for step in (1, -1):
            if hand.shape[axis] > 2 and same(hand, np.roll(oracle, step, axis), tolerance):
                yield f"the {_plural(axes, axis)} are shifted by one"


def _plural(axes, axis: int) -> str:
    return f"{axes[axis]}s" if axis < len(axes) else f"entries along axis {axis}"


def _places(wrong, oracle, axes, beside, only_first: bool) -> Iterator[str]:
    """Where it is wrong, if not everywhere."""
    if wrong.size > 1 and wrong.sum() == 1:
        yield "a single entry is wrong"
    if only_first:
        yield "only the first example is used"
    telling = wrong | (oracle != 0)  # elsewhere right and wrong may agree
    for name, array in beside.items():
        array = np.asarray(array)
        if array.shape != wrong.shape:
            continue
        for text, holds in _conditions(name, array):
            if holds.any() and not holds[telling].all() and (holds & telling == wrong).all():
                yield f"where {text}"
                break
    for axis in range(wrong.ndim):
        if wrong.shape[axis] < 2:
            continue
        hit = np.flatnonzero(wrong.any(axis=tuple(i for i in range(wrong.ndim) if i != axis)))
        name = axes[axis] if axis < len(axes) else f"index {axis}"
        if len(hit) == 1:
            yield f"{name} {hit[0]} only"
        elif len(hit) <= min(4, wrong.shape[axis] // 2):
            listed = ", ".join(map(str, hit[:-1]))
            yield f"{name}s {listed} and {hit[-1]} only"
        elif len(hit) < wrong.shape[axis] and (np.diff(hit) == 1).all():
            side = f"from {hit[0]} on" if hit[-1] == wrong.shape[axis] - 1 else f"{hit[0]} to {hit[-1]} only"
            yield f"{name}s {side}"


def _conditions(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{name} < 0", array < 0
    yield f"{name} > 0", array > 0
    yield f"{name} = 0", array == 0
    yield f"{name} <= 0", array <= 0
    yield f"{name} >= 0", array >= 0
    for bound in BOUNDS:
        yield f"|{name}| > {bound}", np.abs(array) > bound
        yield f"|{name}| < {bound}", np.abs(array) < bound
        yield f"{name} > {bound}", array > bound
        yield f"{name} < -{bound}", array < -bound
    values, counts = np.unique(array, return_counts=True)
    for value in values[: 100 if len(values) > 1 else 0]:
        yield f"{name} = {value:.6g}", array == value


def _along(hand, oracle, tolerance, axes) -> Iterator[str]:
    """A factor or a shift that is the same along an axis."""
    if hand.ndim != 2 or not np.isfinite(hand).all():
        return
    for axis in (0, 1):
        if hand.shape[axis] < 2 or hand.shape[1 - axis] < 2:
            continue
        other = axes[1 - axis] if len(axes) == 2 else f"index {1 - axis}"
        squares = (oracle * oracle).sum(axis=axis, keepdims=True)
        c = (hand * oracle).sum(axis=axis, keepdims=True) / np.where(squares == 0, 1, squares)
        differ = (squares > 0).any() and np.ptp(c[squares > 0]) > 1e-6 * np.abs(c).max()
        if differ and same(hand, c * oracle, tolerance):
            yield f"every {other} has a factor of its own"
        mean = (hand - oracle).mean(axis=axis, keepdims=True)
        if same(hand, oracle + mean, tolerance):
            yield f"every {other} has a number of its own added"
