"""Central differences, extrapolated: the oracle where automatic differentiation fails."""

from collections.abc import Callable

import numpy as np

LEVELS = 14  # step sizes, each half of the one before
LARGEST_STEPS = (0.1, 0.037)  # relative to max(1, |x|): two sequences, which must agree
SMALL = 0.05  # arguments below it are moved by steps relative to |x|, too, which see what happens between them and 0
TOLERANCE = 1e-7  # what differences reach in float64 on smooth functions, with a margin
SAFETY = 10  # the error may be this many times the estimate


def extrapolated(central: Callable, closer=1.0, rounding=0.0) -> tuple[np.ndarray, np.ndarray]:
    """The limit of ``central(h)`` for h → 0 and an estimate of its error, entry by entry (Ridders' method).

    Of two sequences of steps each gives a value and an estimate. Where a function varies faster than the steps, an
    estimate can be small by chance; then the two values differ, and that difference is the estimate.

    closer: the size of small arguments, one or one for each entry. Steps relative to it are tried besides; they win
    where their error is smaller or they contradict the others. rounding: of the function, by which their error is
    bounded below.

    Source: Ridders 1982, *Accurate computation of F'(x) and F'(x)F''(x)*.
    """
    with np.errstate(all="ignore"):
        value, error = _of_two(central, 1.0)
        if np.min(closer, initial=1.0) >= SMALL:
            return value, error
        near, doubt = _of_two(central, closer)
        doubt = np.fmax(doubt, rounding / (closer * LARGEST_STEPS[0]))
        contradicted = np.abs(near - value) > SAFETY * (doubt + error)
        better = ((doubt < error) | contradicted) & np.isfinite(doubt) & (np.asarray(closer) < SMALL)
        return np.where(better, near, value), np.where(better, doubt, error)


def _of_two(central: Callable, scale) -> tuple[np.ndarray, np.ndarray]:
    """The better one of two sequences, and its error: at least their difference."""
    (first, error), (second, other) = (_extrapolated(central, step * scale) for step in LARGEST_STEPS)
    best = np.where(error <= other, first, second)
    return best, np.fmax(np.fmin(error, other), np.abs(first - second))


def _extrapolated(central: Callable, largest) -> tuple[np.ndarray, np.ndarray]:
    """One tableau. Each of its columns removes one more power of h².

    An entry takes the value that differs least from its neighbours in the tableau, so that it stops by itself where
    rounding begins.
    """
    row = [np.asarray(central(largest), np.float64)]
    best, error = np.full_like(row[0], np.nan), np.full_like(row[0], np.inf)
    for level in range(1, LEVELS):
        above, row = row, [np.asarray(central(largest / 2**level), np.float64)]
        for k, older in enumerate(above, start=1):
            row.append((4**k * row[-1] - older) / (4**k - 1))
            doubt = np.fmax(np.abs(row[k] - row[k - 1]), np.abs(row[k] - older))
            better = np.isfinite(row[k]) & (doubt < error)
            best, error = np.where(better, row[k], best), np.where(better, doubt, error)
    return best, error


def by_rows(function: Callable, x) -> tuple[np.ndarray, np.ndarray]:
    """∂f_n/∂x_nj and estimated errors, (B, n), for a function of rows: (B, n) → (B,), each of its own row alone."""
    x = np.asarray(x, np.float64)
    scale = np.maximum(1, np.abs(x))

    def central(h):
        found = np.empty_like(x)
        for j in range(x.shape[1]):
            ends = []
            for sign in (1, -1):
                moved = x.copy()
                moved[:, j] += sign * (h * scale)[:, j]
                ends.append((np.asarray(function(moved), np.float64), moved[:, j]))
            found[:, j] = (ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])
        return found

    rounding = np.finfo(np.float64).eps * np.abs(np.asarray(function(x), np.float64))
    return extrapolated(central, _sizes(x), rounding[:, None])


def _sizes(x: np.ndarray) -> np.ndarray:
    """|x| where it is smaller than 1 and not 0, else 1."""
    size = np.abs(np.asarray(x, np.float64))
    return np.where((size > 0) & (size < 1), size, 1.0)
