"""``grade``: whether an answer is right, by a report of ``fnn.verify``."""

import functools
import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from fnn.backward import Rules
from fnn.checks.arrays import describe
from fnn.losses import SquaredError
from fnn.verify.grading.handin import parameters
from fnn.verify.grading.questions import judge_rule
from fnn.verify.report import Report

STYLES = {True: "background:#e2f2e2;color:#111", False: "background:#f8dada;color:#111", None: ""}  # as of a report
CHECK = "write check=lambda f: fnn.verify.gradient(f, objective, params)"
MARKS = {True: "✓ ", False: "✗ ", None: ""}


class Blank(BaseException):
    """The answer returned nothing; no exception of the answer's own, which a check would report as a mistake."""


@dataclass(frozen=True, repr=False)
class Graded:
    """A grade, which ``str`` and notebooks show with what is wrong.

    name: what was graded; ok: True, False, or None where nothing is filled in yet; said: the grade in words; report:
    that of ``fnn.verify``, if there is one.
    """

    name: str
    ok: bool | None
    said: str
    report: Report | None = None

    def __str__(self) -> str:
        wrong = self.report.wrong if self.report else ()
        return "\n".join([self._verdict(), *(finding.explanation() for finding in wrong)])

    __repr__ = __str__

    def _verdict(self) -> str:
        return f"{MARKS[self.ok]}{self.name}: {self.said}"

    def _repr_html_(self) -> str:
        verdict = f'<p style="padding:4px 10px;{STYLES[self.ok]}"><b>{html.escape(self._verdict())}</b></p>'
        if self.report is None:
            return verdict
        if self.report.wrong:
            return verdict + self.report._repr_html_()
        return f"{verdict}<details><summary>Report</summary>{self.report._repr_html_()}</details>"


def grade(answer: Callable, check: Callable[[Callable], Report] | None = None) -> Graded:
    """Whether the function is right; which equation is wrong if it is not; or that it is not filled in yet.

    answer: the function; it counts as not filled in if it returns nothing or ``...`` where it is called. check: takes
    the function and returns the report of ``fnn.verify`` on it. Without ``check``, the function has the name of a rule
    of ``fnn.Rules``, and is judged in a small network where all other rules are right, as by
    ``python -m fnn.verify grade``. Raises TypeError or ValueError if ``answer`` or ``check`` is no such function; what
    the answer itself raises is part of the grade.

    >>> def hidden_delta(g, activation, z, a):
    ...     ...
    >>> print(grade(hidden_delta))
    hidden_delta: not filled in yet
    >>> def hidden_delta(g, activation, z, a):
    ...     return g * activation.derivative(z, a)
    >>> grade(hidden_delta).ok
    True
    """
    if not callable(answer):
        raise TypeError(f"answer: expected a function, got {describe(answer)}; write grade(hidden_delta)")
    if check is not None and not callable(check):
        raise TypeError(f"check: expected a function, got {describe(check)}; {CHECK}")
    name = getattr(answer, "__name__", type(answer).__name__)
    judge = _rule_of(name, answer) if check is None else check
    try:
        report = judge(_watched(answer))
    except Blank:
        return Graded(name, None, "not filled in yet")
    except Exception as error:  # whatever an answer does
        return Graded(name, False, f"it raises {type(error).__name__}: {error}")
    if not isinstance(report, Report):
        raise TypeError(f"check: expected a function that returns a report, it returned {describe(report)}; {CHECK}")
    return Graded(name, report.ok, report.verdict(), report)


def _rule_of(name: str, answer: Callable) -> Callable[[Callable], Report]:
    """The check of a rule that is known by its name."""
    if name not in Rules._fields:
        expected = f"a function with the name of a rule ({', '.join(Rules._fields)}), or a check"
        raise ValueError(f"answer: expected {expected}, got {name!r}; write grade(answer, {CHECK[6:]})")
    return lambda function: judge_rule(name, None, SquaredError(), function, parameters(answer))


def _watched(answer: Callable) -> Callable:
    """The same function, which ends the check where it returns nothing."""

    @functools.wraps(answer)
    def called(*args: Any, **more: Any) -> Any:
        found = answer(*args, **more)
        if found is None or any(leaf is ... for leaf in jax.tree.leaves(found)):
            raise Blank
        return found

    return called
