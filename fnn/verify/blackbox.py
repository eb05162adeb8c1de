"""Comparing functions that cannot be looked into: choosing the dtype, and telling rounding from mistakes."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks import arrays
from fnn.numbers import number
from fnn.verify.devices import as_called, note
from fnn.verify.interpret import Traced, evaluate, forgetting, is_array, precision_inside, trace
from fnn.verify.neighbours import Neighbours
from fnn.verify.oracle import LARGEST, TOLERANCE, exactly, is_floating, is_inexact
from fnn.verify.patterns import statements
from fnn.verify.report import Finding, Report, compare, left_out, norm
from fnn.verify.smallest import beside, shown, shrunk

DRAWS = 5  # of other roundings
BETWEEN = (0.6, 0.3, 0.1, 1e-3, -0.3, -1.0)  # multiples of the inputs, where the oracle shows its usual size
EXCUSED = 1e-3  # at most, relative to the largest leaf: larger changes of the oracle are not rounding


def in_best_dtype(dtype, tolerance: float | None, judge: Callable[[str], Report]) -> Report:
    """The report in ``dtype``; for None in float64, or, if the code cannot run in it, in float32 with the reason."""
    if tolerance is not None:
        number("verify", "tolerance", tolerance, above=0)
    if dtype is not None:
        if isinstance(dtype, (type, np.dtype)):  # as jnp.float32
            dtype = np.dtype(dtype).name
        arrays.one_of("dtype", dtype, ("float64", "float32"))
        return _noted(judge(dtype))
    try:
        return _noted(judge("float64"))
    except Exception as error:  # user code may raise anything when given float64
        try:
            report = judge("float32")
        except Exception:  # it is not float64 that it cannot take
            raise error from None
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        report = _noted(report)
        return replace(report, notes=(f"judged in float32, because in float64 the code raises {reason}", *report.notes))


def _noted(report: Report) -> Report:
    return replace(report, notes=(*report.notes, *note()))


NOT_DETERMINISTIC = "not deterministic: two calls with the same arguments return different numbers"


def _as_they_are(inputs):
    return inputs


@dataclass(frozen=True)
class BlackBox:
    """Two functions of the same inputs that should return the same list of arrays.

    hand, oracle: inputs → arrays; inputs: the tuple of pytrees at which they are compared; names: of the arrays;
    labels: of the inputs; consistent: puts inputs that were changed in order, where some follow from others.
    """

    hand: Callable
    oracle: Callable
    inputs: Any
    names: Sequence[str]
    dtype: str
    labels: Sequence[str] = ()
    consistent: Callable = _as_they_are

    def values(self, function: Callable, inputs=None) -> list[np.ndarray]:
        with as_called() if function is self.hand else contextlib.nullcontext():
            return [np.asarray(leaf) for leaf in evaluate(function, self.inputs if inputs is None else inputs)]

    @cached_property
    def _traced(self) -> tuple[Traced, list]:
        return trace(self.oracle, self.inputs)

    @cached_property
    def precision(self) -> str:
        """The coarsest dtype in which either function computes, or that of the comparison."""
        found = [self.dtype]
        for function in (self.hand, self.oracle):
            try:
                found.append(precision_inside(trace(function, self.inputs)[0].jaxpr.jaxpr))
            except Exception:  # written for NumPy; its value shows nothing of how it was computed
                continue
        return max(found, key=lambda name: TOLERANCE.get(name, 0.0))

    def findings(self, ours, theirs, tolerance: float, known=()) -> list[Finding]:
        """One finding per array; ``ours`` and ``theirs``: the arrays at the inputs; ``known``: further fields for each.

        The terms that a black box sums are unknown. So an error may also be up to a hundred times the **oracle's**
        change when every operation in it rounds differently, or the rounding of the oracle's usual size; and an entry
        may lie between the two sides of a jump of the oracle. What is not finite in the oracle is not compared.
        """
        known = known or [{} for _ in self.names]
        ours, theirs = zip(*(_where_known(np.asarray(h), np.asarray(o)) for h, o in zip(ours, theirs)))
        found = [compare(n, h, o, tolerance, **more) for n, h, o, more in zip(self.names, ours, theirs, known)]
        if all(finding.ok for finding in found):
            return found
        theirs, shrunk_already = self._beside_jumps(ours, theirs, tolerance), False
        whole, eps = max(finding.size for finding in found), float(jnp.finfo(self.precision).eps)
        for i, (change, usual) in enumerate(zip(self._changes(theirs), self._usual(theirs))):
            if found[i].ok or found[i].index is None:
                continue
            rounding = (16 if eps < 1e-4 else 4) * eps * usual
            size = max(found[i].size, max(min(100 * change, EXCUSED * whole), rounding) / tolerance)
            found[i] = compare(self.names[i], ours[i], theirs[i], tolerance, size, **known[i])
            if not found[i].ok:
                notes = self.notes(ours[i], theirs[i], tolerance)
                example = "" if shrunk_already else self.smallest(i, tolerance)  # of the first: that shows the mistake
                shrunk_already = True
                found[i] = replace(found[i], note=notes[0] if notes else "", example=example)
        return found

    def notes(self, hand: np.ndarray, oracle: np.ndarray, tolerance: float) -> list[str]:
        if np.iscomplexobj(hand) or np.iscomplexobj(oracle):
            return ["the complex conjugate"] if np.allclose(np.conj(oracle), hand, rtol=1e-6) else []
        return statements(np.asarray(hand, np.float64), np.asarray(oracle, np.float64), tolerance)

    def _changes(self, leaves) -> list[float]:
        """How much each of the oracle's arrays changes if all roundings are others: the median of a few draws."""
        traced, arrays = self._traced
        draws = []
        with np.errstate(invalid="ignore", over="ignore"):
            for seed in range(DRAWS):
                moved = traced.perturbed(np.random.default_rng(seed), *arrays)
                draws.append([norm(m - leaf) for m, leaf in zip(moved, leaves)])
        return [float(np.nan_to_num(np.median(of), posinf=0.0)) for of in zip(*draws)]

    def _usual(self, leaves) -> list[float]:
        """The largest size of each of the oracle's arrays between the inputs and 0.

        Where a function is saturated, its derivative is a small difference of terms of that size in one formula, and
        a small product in another.
        """
        traced, arrays = self._traced
        found = [[norm(leaf)] for leaf in leaves]
        for t in BETWEEN:
            for sizes, leaf in zip(found, traced(*(t * a if is_inexact(a) else a for a in arrays))):
                sizes.append(norm(leaf) if np.isfinite(leaf).all() else 0.0)
        return [max(sizes) for sizes in found]

    def _beside_jumps(self, ours, theirs, tolerance: float) -> list[np.ndarray]:
        """The oracle's arrays, with our entries wherever the oracle jumps and ours lie between its two sides."""
        if any(map(np.iscomplexobj, theirs)):
            return theirs
        traced, _ = self._traced

        def oracle(inputs) -> list:
            return traced(*(leaf for leaf in jax.tree.leaves(inputs) if is_array(leaf)))

        near = Neighbours(oracle, self.inputs, self.precision)
        return near.accept(ours, theirs, [100 * tolerance * at.size() for at in near.sides])[0]

    def smallest(self, i: int, tolerance: float) -> str:
        """The inputs cut and rounded while the i-th array is wrong, with both of its values."""
        leaves, structure = jax.tree.flatten(self.inputs)

        def values(leaves) -> tuple[np.ndarray, np.ndarray] | None:
            inputs = self.consistent(jax.tree.unflatten(structure, leaves))
            hand, oracle = (self.values(function, inputs)[i] for function in (self.hand, self.oracle))
            if hand.shape != oracle.shape or not hand.size or not np.isfinite(oracle).all():
                return None
            error = compare("", hand, oracle, tolerance).error
            return (hand, oracle) if error > 1e-3 or not np.isfinite(error) else None

        try:
            found = shrunk([np.asarray(leaf) if is_inexact(leaf) else leaf for leaf in leaves],
                           lambda leaves: values(leaves) is not None)  # fmt: skip
            both = values(found) if found is not None else None
        except Exception:  # the functions may raise anything at inputs that were cut
            return ""
        if found is None or both is None:
            return ""
        paths = jax.tree_util.tree_leaves_with_path(self.consistent(jax.tree.unflatten(structure, found)))
        given = (f"{self._label(path)} = {shown(leaf)}" for path, leaf in paths if is_inexact(leaf))
        return f"{', '.join(given)}: {beside(*both)}"

    def _label(self, path) -> str:
        """The name of a leaf of the inputs."""
        i = path[0].idx
        return (self.labels[i] if i < len(self.labels) else f"input {i}") + jax.tree_util.keystr(path[1:])

    def in_own_dtype(self, inputs, right) -> list[Finding]:
        """Findings where the hand-written function, called in float32, is not finite or loses what autodiff keeps.

        inputs: as the caller gave them, float32; right: the arrays in float64.
        """
        with exactly("float32"):
            try:
                hand, auto = (self.values(function, inputs) for function in (self.hand, self.oracle))
            except Exception:  # in float64 it runs, and that is what was judged
                return []
        found = []
        for name, ours, theirs, value in zip(self.names, hand, auto, right):
            if ours.shape != value.shape or np.iscomplexobj(value):
                continue
            known = np.isfinite(value) & (np.abs(value) < LARGEST["float32"])
            size = norm(np.where(known, value, 0)) or 1.0
            note = ""
            if not np.isfinite(ours[known]).all():
                place = tuple(int(i) for i in np.argwhere(known & ~np.isfinite(ours))[0])
                note = f"in float32 it is {ours[place]} at {list(place)}"
            else:
                lost, unavoidable = (norm(np.where(known, v - value, 0)) / size for v in (ours, theirs))
                if np.isfinite(unavoidable) and lost > max(1e-4, 100 * unavoidable):
                    note = f"in float32 it loses {7 + np.log10(lost):.0f} of its 7 digits"
            if note:
                finding = compare(name, ours, value, TOLERANCE["float32"], size, case="float32")
                found.append(replace(finding, note=note, error=max(finding.error, 1.0)))
        return found


def _where_known(hand: np.ndarray, oracle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, with zeros where the oracle is not finite."""
    known = np.isfinite(oracle)
    if known.all() or hand.shape != oracle.shape:
        return hand, oracle
    return np.where(known, hand, 0), np.where(known, oracle, 0)


def not_compared(leaves) -> list[str]:
    """A note on how many numbers of the oracle are not finite."""
    count = sum(int((~np.isfinite(leaf)).sum()) for leaf in leaves)
    return left_out(count, "autodiff is not finite there")


def differing_calls(function: Callable, *args) -> bool:
    """Whether two calls of a function with the same arguments return different numbers."""
    try:
        with forgetting(), as_called():
            first = evaluate(function, *args)
    except Exception:  # reported where its value is asked for
        return False
    return differs_again(function, args, first)


def differs_again(function: Callable, args, first) -> bool:
    """Whether another call of a function returns other numbers than the pytree ``first``."""
    try:
        with forgetting(), as_called():
            again = evaluate(function, *args)
    except Exception:
        return False
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(again))
    return any(not np.array_equal(a, b, equal_nan=is_floating(a)) for a, b in pairs if is_array(a) and is_array(b))
