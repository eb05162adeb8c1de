"""Cotangents against slopes: along every entry where there are few, else along enough directions to see a single one.

With more than EACH entries, a leaf's cotangent x̄ is compared along DIRECTIONS random directions of signs, ⟨x̄, t⟩ with
⟨ȳ, J t⟩. Every entry has weight ±1 in each of them, so a single wrong entry shows in every one.
Several wrong entries may cancel in one direction, with a probability of at most 1/2 whatever they are; in all ten, of
at most 1/1000. A direction that disagrees is halved until one entry is left: that names it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fnn.markup import counted
from fnn.verify.differences import TOLERANCE as BY_DIFFERENCES
from fnn.verify.neighbours import FRESH, breaks_a_sum
from fnn.verify.patterns import statements
from fnn.verify.report import Finding, compare, norm
from fnn.verify.slopes import SAFETY, Slopes, settled

EACH = 1000  # entries at most that are moved one by one; by differences, of 56 evaluations each, fewer
EACH_BY_DIFFERENCES = 300
DIRECTIONS = 10
SETTLED = 16  # entries at a time that get a second opinion, until one of them is certainly wrong
TOGETHER = 64  # of more entries at kinks only the sum is looked at
SEED = 0


def by_values(
    slopes: Slopes, names: Sequence[str], weights: np.ndarray, limit: float, hand: list, known: list | None = None
) -> tuple[list[Finding], str, bool]:
    """Findings on the cotangents ``hand`` of a function of which there are values only; a note; whether it is weak.

    weights: (m,), of the outputs; known: autodiff's cotangents, which stand where they are finite.
    """
    space = slopes.inputs
    other = [np.shape(ours) != leaf.shape for ours, leaf in zip(hand, space.leaves)]
    filled = [np.zeros_like(leaf) if wrong else ours for ours, leaf, wrong in zip(hand, space.leaves, other)]
    given = None if known is None else space.vector(known, dual=True)[None]
    judge = Cotangents(slopes, names, weights[None], limit, "hand", given)
    found = judge.findings(space.vector(filled, dual=True)[None])
    for i, (ours, leaf) in enumerate(zip(hand, space.leaves)):
        found[i] = compare(names[i], ours, leaf, limit) if other[i] else found[i]
    return found, judge.note(), judge.weak


class Cotangents:
    """The judgement of cotangents of a function's inputs.

    slopes: the function; names: of its inputs; weights: (K, m), K cotangents of its outputs as rows; limit: the
    tolerance; known: the right cotangents, (K, n), where they are finite.
    """

    def __init__(self, slopes: Slopes, names: Sequence[str], weights: np.ndarray, limit: float, ours: str, known=None):
        self.slopes, self.names, self.weights, self.known = slopes, names, weights, known
        self.limit = limit if slopes.exact else max(limit, BY_DIFFERENCES)
        self.sides = ours, "the complex step" if slopes.exact else "differences"
        self.random = np.random.default_rng(SEED)
        self.unknown, self.doubtful = 0, 0.0
        self.at_kinks: set[int] = set()  # cotangents of which entries are right only as values between two sides
        self.every = slopes.inputs.size <= (EACH if slopes.exact else EACH_BY_DIFFERENCES)

    def note(self) -> str:
        """How it was compared."""
        count = counted(self.slopes.inputs.size, "entry", "entries")
        by = "the complex step" if self.slopes.exact else "differences"
        error = "" if self.slopes.exact else f", of an estimated error of {self.doubtful:.0e}"
        if self.every:
            text = f"compared with {by} along each of {count}{error}"
        else:
            text = (
                f"compared with {by} along {DIRECTIONS} directions of signs for each leaf, {count} in all"
                f"{error}: each shows a single wrong entry; others escape with a chance below 1/1000"
            )
        if self.unknown:
            text += f"; {self.unknown} of them did not converge or are not finite and were not compared"
        return text

    @property
    def weak(self) -> bool:
        """Whether the comparison is too inexact to reveal small mistakes."""
        return (self.doubtful > 1e-6 and not self.slopes.exact) or self.unknown > 0

    def findings(self, hand: np.ndarray) -> list[Finding]:
        """One finding per input; ``hand``: the cotangents, (K, n)."""
        if not self.every:
            return [self._by_directions(i, hand) for i in range(len(self.names))]
        slope, doubt = np.full_like(hand, np.nan) if self.known is None else self.known.copy(), np.zeros_like(hand)
        for j in map(int, np.flatnonzero(~np.isfinite(slope).all(axis=0))):
            scale = self.slopes.scale[j]
            found, error = self.slopes.along(self.slopes.column(j), self.weights)
            slope[:, j], doubt[:, j] = found / scale, error / scale
        every = [[self._entries(i, k, hand, slope, doubt) for i in range(len(self.names))] for k in range(len(hand))]
        for k in sorted(self.at_kinks):
            right = np.where(self._broken(k, hand[k]), slope[k], hand[k])
            every[k] = [
                self._without(i, hand[k], right) if finding.ok else finding for i, finding in enumerate(every[k])
            ]
        return [self.worst(list(of)) for of in zip(*every)]

    def _without(self, i: int, hand: np.ndarray, right: np.ndarray) -> Finding:
        """The finding on one input where entries at kinks are held against the slope after all."""
        finding = self._compare(i, hand, right, np.zeros_like(right))
        return finding if finding.ok else self._noted(finding, i, hand, right)

    def _broken(self, k: int, hand: np.ndarray) -> np.ndarray:
        """The entries between the sides of kinks that break a sum which all neighbours keep: a mask."""
        slopes, weights, random = self.slopes, self.weights[k], np.random.default_rng(SEED)
        ends = [slopes.sides(slopes.column(j), weights) for j in range(hand.size)]
        low, high, jumps = (np.array(of) for of in zip(*ends))
        sizes = 1e-3 * np.maximum(np.abs(low), np.abs(high))
        scaled = hand * slopes.scale
        (places,) = np.nonzero(jumps & (scaled >= low - sizes) & (scaled <= high + sizes))
        directions = [np.where(np.arange(hand.size) == j, 1.0, 0.0) for j in places]
        entries, slack = hand[places], (sizes / slopes.scale)[places]
        if len(places) > TOGETHER:
            directions, entries, slack = (
                [np.sum(directions, axis=0)],
                entries.sum(keepdims=True),
                slack.sum(keepdims=True),
            )

        def draw() -> np.ndarray:
            beside = [slopes.beside(random) for _ in range(FRESH)]
            return np.array([[along(t, weights) for t in directions] for along in beside])

        broken = np.zeros(hand.shape, bool)
        if directions:
            broken[places] = breaks_a_sum(entries, draw(), draw, slack)
        return broken

    @staticmethod
    def worst(found: list[Finding]) -> Finding:
        failing = [finding for finding in found if not finding.ok]
        if not failing:
            return max(found, key=lambda finding: (not finding.vacuous, finding.error))
        same = len({finding.note for finding in failing}) == 1
        return failing[0] if same else replace(failing[0], note="")

    def _compare(self, i: int, hand, slope, doubt) -> Finding:
        leaf = self.slopes.inputs
        part = leaf.parts[i]
        size = max(norm(slope[part]), SAFETY * norm(doubt[part]) / self.limit)
        infinite = ~np.isfinite(hand) & (hand == slope)
        ours, right = (leaf.leaf(i, np.where(infinite, 0, of), dual=True) for of in (hand, slope))
        return compare(self.names[i], ours, right, self.limit, size, sides=self.sides)

    def _entries(self, i: int, k: int, hand, slope, doubt) -> Finding:
        """The finding on one input and one cotangent; entries that disagree are settled, the worst first."""
        ours, right, doubt = hand[k], slope[k].copy(), np.where(np.isfinite(doubt[k]), doubt[k], 0.0)
        finding = self._compare(i, ours, right, doubt)
        part = self.slopes.inputs.parts[i]
        self.doubtful = max(self.doubtful, norm(doubt[part]) / (norm(slope[k][part]) or 1.0))
        if finding.ok:
            return finding
        with np.errstate(invalid="ignore"):
            apart = np.nan_to_num(np.abs(ours - right)[part], nan=np.inf)
        order = part.start + np.argsort(-apart, kind="stable")
        for count, j in enumerate(order, 1):
            t, scale = self.slopes.column(j), self.slopes.scale[j]
            settlement = settled(self.slopes, t, self.weights[k], ours[j] * scale, right[j] * scale)
            rounding = abs(ours[j] - right[j]) * scale <= settlement.doubt
            accused = not (settlement.right or rounding)
            right[j] = right[j] if accused else ours[j]
            self.unknown += settlement.unknown
            self.at_kinks |= {k} if settlement.at_kink else set()
            if accused or count % SETTLED == 0 or count == len(order):
                finding = self._compare(i, ours, right, doubt)
                if finding.ok or accused:
                    break
        return finding if finding.ok else self._noted(finding, i, ours, right)

    def _noted(self, finding: Finding, i: int, hand, right) -> Finding:
        leaf = self.slopes.inputs
        ours, theirs = leaf.leaf(i, hand, dual=True), leaf.leaf(i, right, dual=True)
        if np.iscomplexobj(ours):
            return replace(finding, note="the complex conjugate" if np.allclose(ours, theirs.conj()) else "")
        notes = statements(ours, theirs, self.limit)
        return replace(finding, note=notes[0] if notes else "")

    # -- along directions --------------------------------------------------------------------------------------

    def _by_directions(self, i: int, hand: np.ndarray) -> Finding:
        part, finite = self.slopes.inputs.parts[i], np.isfinite(hand).all(axis=0)
        found = []
        for j in part.start + np.flatnonzero(~finite[part])[:SETTLED]:  # these are judged one by one
            t = np.where(np.arange(len(finite)) == j, self.slopes.scale, 0.0)
            found.append(self._narrowed(i, hand[0], self.weights[0], t))
        for d in range(DIRECTIONS):
            k = d % len(hand)
            t = np.zeros(self.slopes.inputs.size)
            t[part] = self.random.choice([-1.0, 1.0], part.stop - part.start) * self.slopes.scale[part]
            finding = self._along(i, hand[k], self.weights[k], np.where(finite, t, 0.0))
            found.append(
                finding if finding.ok else self._narrowed(i, hand[k], self.weights[k], np.where(finite, t, 0.0))
            )
            if not finding.ok:
                break
        return max(found, key=lambda finding: (not finding.ok, not finding.vacuous, finding.error))

    def _along(self, i: int, hand, weights, t, settle: bool = True) -> Finding:
        """⟨x̄, t⟩ beside ⟨ȳ, J t⟩; the size is that of the terms, which for signs is about that of the sum."""
        found, doubt = self.slopes.along(t, weights)
        with np.errstate(invalid="ignore"):
            terms = np.where(t == 0, 0.0, hand * t)
            ours, size = terms.sum(), max(norm(terms), abs(float(found)))
        known: Any = {"sides": self.sides}
        self.doubtful = max(self.doubtful, float(doubt) / (size or 1.0))
        finding = compare(
            self.names[i], ours, found, self.limit, max(size, SAFETY * float(doubt) / self.limit), **known
        )
        if finding.ok or not settle:
            return finding
        settlement = settled(self.slopes, t, weights, ours, found)
        self.unknown += settlement.unknown
        ours, found = (np.nan_to_num(ours, posinf=0.0, neginf=0.0),) * 2 if settlement.right else (ours, found)
        return compare(self.names[i], ours, found, self.limit, max(size, float(settlement.doubt) / self.limit), **known)

    def _narrowed(self, i: int, hand, weights, t) -> Finding:
        """A wrong entry, or the smallest part of the direction that shows the mistake."""
        finding, places = self._along(i, hand, weights, t), np.flatnonzero(t)
        while len(places) > 1:
            tried = []
            for half in np.array_split(places, 2):
                part = np.zeros_like(t)
                part[half] = t[half]
                tried.append((self._along(i, hand, weights, part, settle=False), half))
            worst, half = max(tried, key=lambda pair: pair[0].error)
            if worst.ok:
                break
            finding, places = worst, half
        start, leaf = self.slopes.inputs.parts[i].start, self.slopes.inputs.leaves[i]
        first, last = ([int(n) for n in np.unravel_index((j - start) % leaf.size, leaf.shape)] for j in places[[0, -1]])
        if len(places) > 1:
            return replace(finding, index=None, note=f"seen along the entries {first} to {last} together")
        c = float(t[places[0]])
        ours, right = (None if value is None else value / c for value in (finding.hand, finding.oracle))
        return replace(finding, index=tuple(first), hand=ours, oracle=right)
