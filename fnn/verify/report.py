"""Reports: what was compared, what is wrong, and where the worst entry is."""

import os
import re
import sys
import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fnn.display import Table
from fnn.markup import counted

GREEN, RED, YELLOW, PLAIN = "\033[32m", "\033[31m", "\033[33m", "\033[0m"


class DerivationError(AssertionError):
    """A hand-written derivative disagrees with its oracle; the message says which, where, and the likely mistake."""


class WeakComparison(UserWarning):
    """A check passed, and what it compared with was too inexact to reveal small mistakes; the message says how."""


@dataclass(frozen=True)
class Finding:
    """One comparison of a hand-written quantity with the oracle's.

    name: what was compared, with its formula; error: ‖hand − oracle‖ / size, where ``size`` is the norm of the summed
    terms if they are known, else of the oracle; tolerance: the largest allowed error; index, hand, oracle: the worst
    entry and both values there; axes: the names of the indices; layer: from 1, or 0 if there is none; kind: the name of
    the rule or leaf; end_to_end: the error when the preceding quantities are the hand-written ones instead of the
    oracle's; case: the data; note: the likely mistake; example: the smallest failing arguments found, with both values;
    vacuous: the oracle is zero, so the check shows little; sides: what the two values are called.
    """

    name: str
    error: float
    tolerance: float
    size: float = 0.0
    index: tuple[int, ...] | None = None
    hand: float | complex | None = None
    oracle: float | complex | None = None
    axes: tuple[str, ...] = ()
    layer: int = 0
    kind: str = ""
    end_to_end: float | None = None
    case: str = ""
    note: str = ""
    example: str = ""
    vacuous: bool = False
    sides: tuple[str, str] = ("hand", "autodiff")

    @property
    def ok(self) -> bool:
        return bool(self.error <= self.tolerance)  # False for NaN

    @property
    def status(self) -> str:
        return "WRONG" if not self.ok else "zero" if self.vacuous else "ok"

    def worst(self) -> str:
        """The location of the largest difference, with both values."""
        if self.index is None:
            return ""
        if not self.index:
            place = "worst"
        elif len(self.axes) == len(self.index):
            place = "worst at " + ", ".join(f"{axis} {i}" for axis, i in zip(self.axes, self.index))
        else:
            place = f"worst at {list(self.index)}"
        hand, oracle = apart(self.hand, self.oracle)
        return f"{place}: {self.sides[0]} {hand}, {self.sides[1]} {oracle}"

    def explanation(self) -> str:
        """Several lines on one wrong finding."""
        case = f", on {self.case}" if self.case else ""
        lines = [f"  {self.name}     local error {self.error:.1e}   (tolerance {self.tolerance:.0e}{case})"]
        lines += [f"      {self.worst()}"] if self.index is not None else []
        lines += [f"      looks like: {self.note}"] if self.note else []
        lines += [f"      smallest: {self.example}"] if self.example else []
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Report:
    """The findings of a check, in the order of the computation; ``str`` and notebooks show a table.

    findings: all comparisons; dtype: that of the comparison, at the highest matmul precision; seed: of the random data,
    if any; what: the word for one finding; notes: further remarks; weak: what a passing check rests on, where that is
    too inexact to reveal small mistakes.
    """

    findings: tuple[Finding, ...]
    dtype: str
    notes: tuple[str, ...] = ()
    what: str = "leaf"
    seed: int | None = None
    weak: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything agrees and something was checked."""
        return not self.wrong and not self.vacuous

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The findings that disagree, each judged in isolation."""
        return tuple(finding for finding in self.findings if not finding.ok)

    @property
    def vacuous(self) -> bool:
        """Whether the oracle is zero everywhere, so that nothing was checked."""
        return all(finding.vacuous for finding in self.findings)

    def check(self) -> "Report":
        """Return the report; raise :class:`DerivationError` unless ``ok``; warn where the comparison was weak."""
        __tracebackhide__ = True  # pytest shows the report, not the checker's internals
        if not self.ok:
            raise DerivationError(self.verdict() + "".join(f"\n{finding.explanation()}" for finding in self.wrong))
        if self.weak:
            warnings.warn(self.verdict(), WeakComparison, stacklevel=2)
        return self

    def verdict(self) -> str:
        """One line."""
        total, wrong = len(self.findings), len(self.wrong)
        things = {"leaf": "leaves", "quantity": "quantities"}.get(self.what, self.what + "s")
        if not wrong:
            if self.vacuous:
                return "nothing was checked: the oracle is zero everywhere"
            agree = f"all {total} {things} agree" if total > 1 else f"the only {self.what} agrees"
            return agree + (f", but only {self.weak}" if self.weak else "")
        if total == 1:
            return f"the only {self.what} is wrong"
        dragged = sum(f.ok and f.end_to_end is not None and f.end_to_end > 1e4 * f.tolerance for f in self.findings)
        verb, they = ("is", "it") if wrong == 1 else ("are", "them")
        use = "others differ only because they use" if dragged > 1 else "other differs only because it uses"
        others = f" ({dragged} {use} {they})" if dragged else ""
        return f"{wrong} of {total} {things} {verb} wrong{others}"

    def table(self) -> Table:
        chained = any(finding.end_to_end is not None for finding in self.findings)
        rows = []
        for f in self.findings:
            through = [f"{f.end_to_end:.1e}" if f.end_to_end is not None else ""] if chained else []
            note = f"looks like: {f.note}" if f.note and not f.ok else f.note
            detail = "; ".join(part for part in (note, f.worst() if not f.ok or not chained else "") if part)
            rows.append((f.name, f"{f.error:.1e}", *through, f"{f.tolerance:.0e}", f.status, detail))
        seed = "" if self.seed is None else f", seed {self.seed}"
        ours, theirs = self.findings[0].sides if self.findings else ("hand", "autodiff")
        compared = f"{'hand-written' if ours == 'hand' else ours} against {theirs}"
        title = f"{compared}, {self.dtype}, highest matmul precision{seed}: {self.verdict()}"
        header = (self.what, "error", *(["end to end"] if chained else []), "tolerance", "", "largest difference")
        return Table(header, tuple(rows), title, "\n".join(self.notes))

    def __str__(self) -> str:
        text = str(self.table())
        if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            for word, colour in (("ok", GREEN), ("WRONG", RED), ("zero", YELLOW)):
                text = re.sub(rf"(?m)(?<=  ){word}(?=  |$)", f"{colour}{word}{PLAIN}", text)
        return text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        colours = {"ok": "#e2f2e2", "WRONG": "#f8dada", "zero": "#f6efd2"}
        return self.table()._repr_html_([colours[finding.status] for finding in self.findings])


class Compared(NamedTuple):
    """A finding on one case; what explains it; how many of its values lie at a kink or could not be compared.

    telling: whether more than one number could differ; a single one explains nothing.
    """

    finding: Finding
    explanations: list[str]
    kinks: int = 0
    unknown: int = 0
    telling: bool = True


def worst(found: list[Compared]) -> Finding:
    """The worst finding on an equation, with what explains it in every failing case."""
    finding = max((one.finding for one in found), key=lambda f: (not f.ok, f.error, not f.vacuous))
    failing = [one for one in found if not one.finding.ok and not one.finding.note]
    failing = [one for one in failing if one.telling] or failing
    if finding.note or not failing:
        return finding
    shared = (text for text in failing[0].explanations if all(text in one.explanations for one in failing))
    return replace(finding, note=next(shared, ""))


def left_out(count: int, reason: str) -> list[str]:
    """The note on values that were left out."""
    were = counted(count, "value was", "values were")
    return [f"{were} not compared, because {reason}"] if count else []


def at_kinks(count: int) -> list[str]:
    """The note on values at kinks."""
    were = counted(count, "value at a kink was", "values at a kink were")
    return [f"{were} compared with both one-sided derivatives"] if count else []


def apart(a, b) -> tuple[str, str]:
    """Both numbers with as many digits as it takes to tell them apart, at least six."""
    for digits in range(6, 18):
        shown = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if shown[0] != shown[1]:
            break
    return shown


def compare(name: str, hand, oracle, tolerance: float, size: float | None = None, **known) -> Finding:
    """The finding on one array, with error ‖hand − oracle‖ / size; size is ‖oracle‖ by default."""
    hand, oracle = np.asarray(hand), np.asarray(oracle)
    vacuous = not np.any(oracle)
    if hand.shape != oracle.shape:
        note = f"shape {hand.shape}, expected {oracle.shape}"
        return Finding(name, float("inf"), tolerance, **{"note": note, **known})
    hand, oracle = map(widened, (hand, oracle))
    size = norm(oracle) if size is None else float(size)
    finding = Finding(name, norm_error(hand, oracle, size), tolerance, size, vacuous=vacuous, **known)
    if hand.size == 0:
        return finding
    difference = _difference(hand, oracle)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(difference), np.inf, difference)), difference.shape)
    index = tuple(int(i) for i in worst)
    return replace(finding, index=index, hand=hand[worst].item(), oracle=oracle[worst].item())


def _difference(hand: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # the difference of two infinities is NaN, which never passes
        return np.abs(hand - oracle)


def widened(array) -> np.ndarray:
    """The array in float64, or in complex128 if it is complex."""
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def norm(array) -> float:
    """The Euclidean norm of all entries (NumPy's own would start threads that cost more than the sum)."""
    entries = np.abs(widened(array))
    largest = float(entries.max(initial=0.0))
    if largest == 0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.square(entries / largest).sum()))


def norm_error(hand: np.ndarray, oracle: np.ndarray, size: float) -> float:
    """‖hand − oracle‖ / size; infinite for another shape."""
    if hand.shape != oracle.shape:
        return float("inf")
    total = norm(_difference(widened(hand), widened(oracle)))
    return 0.0 if total == 0 else (total / size if size else float("inf"))
