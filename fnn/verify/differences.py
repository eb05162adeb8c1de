"""Central differences, extrapolated: the oracle where automatic differentiation fails."""

from collections.abc import Callable

import jax
import numpy as np

from fnn.markup import counted
from fnn.verify.oracle import is_floating
from fnn.verify.report import Finding, compare, norm

LEVELS = 14  # step sizes, each half of the one before
LARGEST_STEPS = (0.1, 0.037)  # relative to max(1, |x|): two sequences, which must agree
MOST = 10_000  # entries; the function is evaluated 56 times for each
TOLERANCE = 1e-7  # what differences reach in float64 on smooth functions, with a margin
SAFETY = 10  # the error may be this many times the estimate


def extrapolated(central: Callable[[float], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The limit of ``central(h)`` for h → 0 and an estimate of its error, entry by entry (Ridders' method).

    Of two sequences of steps each gives a value and an estimate. Where a function varies faster than the steps, an
    estimate can be small by chance; then the two values differ, and that difference is the estimate.

    Source: Ridders 1982, *Accurate computation of F'(x) and F'(x)F''(x)*.
    """
    with np.errstate(all="ignore"):
        (first, error), (second, other) = (_extrapolated(central, step) for step in LARGEST_STEPS)
        best = np.where(error <= other, first, second)
        return best, np.fmax(np.fmin(error, other), np.abs(first - second))


def _extrapolated(central: Callable[[float], np.ndarray], largest: float) -> tuple[np.ndarray, np.ndarray]:
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
                moved[:, j] += sign * h * scale[:, j]
                ends.append((np.asarray(function(moved), np.float64), moved[:, j]))
            found[:, j] = (ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])
        return found

    return extrapolated(central)


def by_differences(contracted: Callable, inputs, names, hand, tolerance, known=None) -> tuple[list[Finding], str, bool]:
    """Findings on the cotangents ``hand`` of ``contracted`` for every floating input; a note; whether it is weak.

    contracted: the inputs → ⟨ȳ, f⟩ in float64. known: autodiff's cotangents, used where they are finite. An entry that
    is finite in neither is not compared. Where the differences did not converge, through rounding of large values or
    of a function in float32, the error may be as large as their estimated error.
    """
    count = sum(np.size(leaf) for leaf in inputs)
    if count > MOST:
        raise ValueError(f"args: {count:,} entries are too many for differences along each; give oracle=, or fewer")
    limit = tolerance or TOLERANCE
    findings, skipped, doubtful = [], 0, 0.0
    for k, (name, ours) in enumerate(zip(names, hand)):
        slope, doubt = _along_each(contracted, inputs, k)
        if known is not None:
            finite = np.isfinite(known[k])
            slope, doubt = np.where(finite, known[k], slope), np.where(finite, 0, doubt)
        with np.errstate(invalid="ignore"):
            unknown = ~np.isfinite(slope) | (doubt > 0.1 * np.abs(slope).max(initial=1.0))
        if np.shape(ours) == slope.shape:
            near = np.abs(ours - slope) <= SAFETY * doubt
            slope = np.where(unknown | near, ours, slope)
            skipped += int(unknown.sum())
        usable = np.where(unknown, 0, doubt)
        doubtful = max(doubtful, norm(usable) / (norm(slope) or 1.0))
        findings.append(compare(name, ours, slope, limit, max(norm(slope), SAFETY * norm(usable) / limit)))
    each = counted(count, "entry", "entries")
    note = f"compared with differences along each of {each}, of an estimated error of {doubtful:.0e}"
    if skipped:
        note += f"; {skipped} of them did not converge or are not finite and were not compared"
    return findings, note, doubtful > 1e-6 or skipped > 0


def _along_each(contracted: Callable, inputs, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The derivative along every entry of the k-th input, and estimated errors."""
    base = np.asarray(inputs[k])

    def central(h):
        found = np.empty(base.shape)
        for index in np.ndindex(base.shape):
            ends = []
            for sign in (1, -1):
                moved = base.copy()
                moved[index] = base[index] + sign * h * max(1.0, abs(float(base[index])))
                given = [*inputs[:k], moved, *inputs[k + 1 :]]
                ends.append((contracted(given), float(moved[index])))
            found[index] = (ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])
        return found

    return extrapolated(central)


def contracted(function: Callable, y_bar) -> Callable:
    """The inputs → ⟨ȳ, f⟩, summed in float64."""

    def of(values) -> float:
        pairs = zip(jax.tree.leaves(function(*values)), jax.tree.leaves(y_bar))
        return sum(float(np.sum(np.float64(a) * np.float64(b))) for a, b in pairs if is_floating(a))

    return of
