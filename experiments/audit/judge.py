"""The verdict of the checker on a case at a point."""

import re
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments.audit.cases import Case
from fnn import verify
from fnn.verify.report import Finding, Report

RIGHT, WEAK, ZERO, DELIBERATE = "right", "right, weakly", "zero", "deliberate"
DIGITS, WRONG, NOT_FINITE, RAISES = "digits lost", "wrong", "not finite", "raises"
UNDEFINED, NONE = "undefined", "not compared"
SINGLE = "float32"  # the first point once more
SMALL = {"float64": 1e-6, SINGLE: 1e-3}  # a relative error up to here is an approximation's or rounding's


class Judged(NamedTuple):
    """A case at a point: the verdict, what the checker says, and the seconds that it took."""

    target: str
    rule: str
    point: str
    verdict: str
    said: str
    seconds: float


def judged(case: Case) -> Iterator[Judged]:
    """The verdicts at every point, in float64, and at the first one in float32 too."""
    first = next(iter(case.points))
    again = [(first, SINGLE)] if case.single else []
    for point, dtype in [*((point, "float64") for point in case.points), *again]:
        began = time.perf_counter()
        verdict, said = _verdict(case, point, dtype)
        name = f"{point} in float32" if dtype == SINGLE else point
        yield Judged(case.target, case.rule, name, verdict, said, round(time.perf_counter() - began, 2))


def _verdict(case: Case, point: str, dtype: str) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages
            report = verify.function(case.f, *case.points[point], dtype=dtype)
    except Exception as error:  # a package may raise anything
        line = [line for line in str(error).splitlines() if line.strip()][-1:]
        return NONE, _short(f"{type(error).__name__}: {''.join(line)}")
    verdict, said = _of_report(report, SMALL[dtype])
    if verdict in (WRONG, RAISES, NOT_FINITE) and case.deliberate:
        return DELIBERATE, case.deliberate
    return verdict, said


def _of_report(report: Report, small: float) -> tuple[str, str]:
    if report.wrong:
        finding = max(report.wrong, key=lambda of: (_kind(of, small) != UNDEFINED, np.nan_to_num(of.error, nan=np.inf)))
        said = ", ".join(dict.fromkeys(of.name for of in report.wrong))
        return _kind(finding, small), _short(f"{said}: {finding.worst() or finding.note}")
    if report.vacuous:
        return ZERO, "the derivative is zero, and JAX's is"
    if report.weak:
        return WEAK, _short(report.weak)
    return RIGHT, ""


def _kind(finding: Finding, small: float) -> str:
    """Where neither JAX nor the oracle is finite, as at a value of −inf, nothing is wrong."""
    if "raises" in finding.note:
        return RAISES
    finite = [value is None or bool(np.isfinite(value)) for value in (finding.hand, finding.oracle)]
    if not any(finite):
        return UNDEFINED
    if not all(finite):
        return NOT_FINITE
    return DIGITS if finding.error <= small else WRONG


def _short(text: str) -> str:
    """One line, with no path of this machine in it."""
    line = re.sub(r"\S*/site-packages/", "", " ".join(text.split()))
    return line if len(line) <= 160 else line[:157] + "…"
