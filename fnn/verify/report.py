"""Reports: what was compared, what is wrong, and where the worst entry is."""

from dataclasses import dataclass, replace

import numpy as np

from fnn.display import Table


class DerivationError(AssertionError):
    """A hand-written derivative disagrees with its oracle; the message is the report."""


@dataclass(frozen=True)
class Finding:
    """One comparison of a hand-written quantity with the oracle's.

    name: what was compared; error: norm-wise, relative to ``size``; tolerance: what it may be; index, hand,
    oracle: the worst entry and both values there; note: what is known about the difference.
    """

    name: str
    error: float
    tolerance: float
    size: float = 0.0
    index: tuple[int, ...] | None = None
    hand: float | None = None
    oracle: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        return bool(self.error <= self.tolerance)  # False for NaN

    def worst(self) -> str:
        """Where the largest difference is, with both values."""
        if self.index is None:
            return ""
        return f"worst at {list(self.index)}: hand {self.hand:.6g}, autodiff {self.oracle:.6g}"


@dataclass(frozen=True, repr=False)
class Report:
    """The findings of a check, in the order of the computation; ``str`` and notebooks show a table."""

    findings: tuple[Finding, ...]
    dtype: str
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)

    @property
    def wrong(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.ok)

    def check(self) -> "Report":
        """The report itself; raises :class:`DerivationError` if anything is wrong."""
        if not self.ok:
            raise DerivationError(str(self))
        return self

    def table(self) -> Table:
        rows = tuple(
            (f.name, f"{f.error:.1e}", f"{f.tolerance:.0e}", "ok" if f.ok else "WRONG", f.worst())
            for f in self.findings
        )
        verdict = "all agree" if self.ok else f"{len(self.wrong)} of {len(self.findings)} are wrong"
        title = f"hand-written against autodiff, {self.dtype}, highest matmul precision: {verdict}"
        notes = [f"{f.name}: {f.note}" for f in self.findings if f.note] + list(self.notes)
        return Table(("leaf", "error", "tolerance", "", "largest difference"), rows, title, "\n".join(notes))

    def __str__(self) -> str:
        return str(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def compare(name: str, hand, oracle, tolerance: float, size: float | None = None, note: str = "") -> Finding:
    """The finding on one array: ‖hand − oracle‖ / size, where size is ‖oracle‖ unless more is known."""
    hand, oracle = np.asarray(hand), np.asarray(oracle)
    if hand.shape != oracle.shape:
        note = f"shape {hand.shape}, expected {oracle.shape}"
        return Finding(name, float("inf"), tolerance, note=note)
    hand, oracle = (np.asarray(value, np.float64) for value in (hand, oracle))
    difference = np.abs(hand - oracle)
    size = float(np.linalg.norm(oracle)) if size is None else size
    total = float(np.linalg.norm(difference))
    error = 0.0 if total == 0 else (total / size if size else float("inf"))
    finding = Finding(name, error, tolerance, size, note=note)
    if difference.size == 0:
        return finding
    worst = np.unravel_index(np.argmax(np.where(np.isnan(difference), np.inf, difference)), difference.shape)
    index = tuple(int(i) for i in worst)
    return replace(finding, index=index, hand=float(hand[worst]), oracle=float(oracle[worst]))
