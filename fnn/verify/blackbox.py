"""Comparing black-box functions: choosing the dtype, and telling rounding from mistakes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fnn.checks import arrays
from fnn.numbers import number
from fnn.verify.diagnose import generic
from fnn.verify.oracle import TOLERANCE, neighbours, one_ulp_away, to_numpy
from fnn.verify.report import Finding, Report, compare, norm

DRAWS = 3  # neighbouring inputs to draw: a kink flips in some of them, bad conditioning shows in all
EXCUSED = 1e-3  # at most, relative to the largest leaf: larger jumps of the oracle, at kinks, are not rounding


def in_best_dtype(dtype: str | None, tolerance: float | None, judge: Callable[[str], Report]) -> Report:
    """The report in ``dtype``; for None in float64, or, if the code cannot run in it, in float32 with the reason."""
    if tolerance is not None:
        number("verify", "tolerance", tolerance, above=0)
    if dtype is not None:
        arrays.one_of("dtype", dtype, tuple(TOLERANCE))
        return judge(dtype)
    try:
        return judge("float64")
    except Exception as error:  # user code may raise anything when given float64
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        report = judge("float32")
        return replace(report, notes=(f"judged in float32, because in float64 the code raises {reason}", *report.notes))


@dataclass(frozen=True)
class BlackBox:
    """Two functions of the same inputs that should return the same leaves.

    hand, oracle: inputs -> list of arrays; inputs: the pytree at which they are compared.
    """

    hand: Callable
    oracle: Callable
    inputs: object

    def findings(self, names, ours, theirs, tolerance: float, known=()) -> list[Finding]:
        """One finding per leaf; ``ours`` and ``theirs``: the leaves at the inputs; ``known``: further fields for each.

        The terms that a black box sums are unknown. So an error may also be up to a hundred times the change of either
        function when every input moves by one unit in the last place. Where the oracle jumps between slightly smaller
        and slightly larger inputs, an entry between its two values passes.
        """
        known = known or [{} for _ in names]
        findings = [compare(n, h, o, tolerance, **more) for n, h, o, more in zip(names, ours, theirs, known)]
        if all(finding.ok for finding in findings):
            return findings
        whole = max(finding.size for finding in findings)
        theirs = self._between_at_jumps(ours, theirs)
        changes = [max(pair) for pair in zip(self._change(self.oracle, theirs), self._change(self.hand, ours))]
        for i, change in enumerate(changes):
            if findings[i].ok or findings[i].index is None:
                continue
            size = max(findings[i].size, min(100 * change, EXCUSED * whole) / tolerance)
            findings[i] = compare(names[i], ours[i], theirs[i], tolerance, size, **known[i])
            if not findings[i].ok:
                guesses = generic(np.asarray(ours[i]), np.asarray(theirs[i]), tolerance)
                findings[i] = replace(findings[i], note=guesses[0] if guesses else "")
        return findings

    def _change(self, function, leaves) -> list[float]:
        """How much each leaf changes when the inputs move by one ulp: the minimum over a few draws."""
        draws = []
        with np.errstate(invalid="ignore"):
            for seed in range(DRAWS):
                moved = to_numpy(function(one_ulp_away(self.inputs, seed)))
                draws.append([norm(np.float64(m) - np.float64(o)) for m, o in zip(moved, leaves)])
        return [min(c if np.isfinite(c) else 0.0 for c in changes) for changes in zip(*draws)]

    def _between_at_jumps(self, ours, theirs) -> list[np.ndarray]:
        """The oracle's leaves, with our entries wherever the oracle jumps and ours lie between its two sides."""
        below, above = (to_numpy(self.oracle(inputs)) for inputs in neighbours(self.inputs))
        kept = []
        with np.errstate(invalid="ignore"):
            for hand, oracle, low, high in zip(map(np.asarray, ours), map(np.asarray, theirs), below, above):
                if hand.shape == oracle.shape:
                    jumps = np.abs(high - low) > EXCUSED * (np.abs(high) + np.abs(low))
                    between = (hand >= np.minimum(low, high)) & (hand <= np.maximum(low, high))
                    oracle = np.where(jumps & between, hand, oracle)
                kept.append(oracle)
        return kept
