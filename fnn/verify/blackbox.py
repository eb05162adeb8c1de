"""Comparing functions of which nothing is known: the dtype in which they run, and rounding told from mistakes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fnn import checks
from fnn.numbers import number
from fnn.verify.diagnose import generic
from fnn.verify.oracle import TOLERANCE, one_ulp_away, to_numpy
from fnn.verify.report import Finding, Report, compare, norm

DRAWS = 3  # of neighbouring inputs: a kink flips in some of them, bad conditioning shows in all


def in_best_dtype(dtype: str | None, tolerance: float | None, judge: Callable[[str], Report]) -> Report:
    """The report in ``dtype``; for None in float64, and in float32 with the reason where that cannot run."""
    if tolerance is not None:
        number("verify", "tolerance", tolerance, above=0)
    if dtype is not None:
        checks.one_of("dtype", dtype, tuple(TOLERANCE))
        return judge(dtype)
    try:
        return judge("float64")
    except Exception as error:  # whatever user code raises when it is given float64
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        report = judge("float32")
        return replace(report, notes=(f"judged in float32, for in float64 the code raises {reason}", *report.notes))


def black_box(names, ours, oracle, tolerance, again, inputs, known=()) -> list[Finding]:
    """Findings where the summed terms are not known: an error may also be a hundred times the oracle's own rounding.

    again(inputs) -> the oracle's leaves, called at neighbouring inputs, and only if something differs; None to
    excuse nothing. A leaf is never excused for more than a thousandth of the largest one: at a kink, the oracle jumps.
    """
    known = known or [{} for _ in names]
    findings = [compare(n, h, o, tolerance, **more) for n, h, o, more in zip(names, ours, oracle, known)]
    if all(finding.ok for finding in findings):
        return findings
    whole = max(finding.size for finding in findings)
    for i, change in enumerate([0.0] * len(names) if again is None else _changes(again, inputs, oracle)):
        if not findings[i].ok and 0 < 100 * change <= 1e-3 * whole:
            size = max(findings[i].size, 100 * change / tolerance)
            findings[i] = compare(names[i], ours[i], oracle[i], tolerance, size, **known[i])
        if not findings[i].ok and not findings[i].note and findings[i].index is not None:
            guesses = generic(np.asarray(ours[i]), np.asarray(oracle[i]), tolerance)
            findings[i] = replace(findings[i], note=guesses[0] if guesses else "")
    return findings


def _changes(again, inputs, oracle) -> list[float]:
    """By how much each leaf of the oracle changes when the inputs move by one ulp: the least of a few draws."""
    draws = []
    for seed in range(DRAWS):
        moved = to_numpy(again(one_ulp_away(inputs, seed)))
        draws.append([norm(np.float64(m) - np.float64(o)) for m, o in zip(moved, oracle)])
    return [min(changes) for changes in zip(*draws)]
