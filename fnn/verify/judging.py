"""From judged lines to a report, for the derivation and for its change along a direction."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn.markup import counted
from fnn.verify.blackbox import NOT_DETERMINISTIC, differing_calls
from fnn.verify.equations import Case, Derivation, Failure, Judged, attempt, part_of
from fnn.verify.interpret import Value, untraced
from fnn.verify.oracle import LARGEST, NORM_TOLERANCE, TOLERANCE, exactly, in_dtype
from fnn.verify.report import Finding, Report, at_kinks, compare, left_out, norm, norm_error

SEED = 0


class Checked(NamedTuple):
    """What is checked: the user's rules, to which derivation they belong, and how their mistakes are described.

    lines: (cases, alone, rounded_to, limit, dtype) -> the judged lines of the cases, and of the rules of the layers
    ``alone``. explain: (judged, rules, tolerance) -> what is true of a mistake. example: the same -> the smallest one,
    or "". what: the word for a line.
    """

    rules: Any
    of: Derivation
    lines: Callable
    explain: Callable
    example: Callable
    what: str


def judge_lines(cases: Callable, alone, loss, checked: Checked, tolerance, may_fall_back: bool, dtype: str) -> Report:
    """The report on the cases, and on each rule of the layers ``alone``.

    cases: dtype -> cases. may_fall_back: whether the caller tries float32 after an error of a rule that needs it.
    """
    with exactly(dtype):
        given = cases(dtype)
    layers = alone or given[0].params
    own_dtype = str(jax.tree.leaves(layers)[0].dtype)
    coarser = dtype == "float64" and own_dtype == "float32"
    limits = NORM_TOLERANCE if any(layer.norm is not None for layer in layers) else TOLERANCE
    collect = partial(checked.lines, given, loss, checked.rules, tolerance or limits[dtype],
                      "float32" if coarser else dtype)  # fmt: skip
    with exactly(dtype):
        found = collect(alone)
        if any(isinstance(one.hand, Failure) and "Tracer" in str(one.hand.error) for one in found):
            with untraced():  # a rule keeps what it computed for another, and so cannot be called alone
                found = collect(())
    failed = next((one for one in found if isinstance(one.hand, Failure)), None)
    if failed is not None and may_fall_back and dtype == "float64" and _runs_in_float32(failed, checked.rules):
        raise type(failed.hand.error)(f"{failed.hand.error}")
    with exactly(dtype):
        pairs = [(one, _finding(one, limits, tolerance, dtype)) for one in found]
        pairs += _not_deterministic(found, checked)
    if coarser:
        right = [one for one, finding in pairs if finding.ok]
        with exactly("float32"):
            pairs += [pair for one in right if (pair := _in_float32(one, checked, limits["float32"]))]
    grouped: dict[tuple, list] = {}
    for one, finding in pairs:
        grouped.setdefault((one.layer, one.rule, one.part), []).append((one, finding))
    with exactly(dtype):
        findings = tuple(_summary(of, checked, tolerance or limits[dtype]) for of in grouped.values())
    names = list(dict.fromkeys(one.name for one in found))
    notes = tuple(_notes(found, given, names, dtype))
    return Report(findings, dtype, notes, checked.what, SEED if len(names) > 1 else None)


def _not_deterministic(found: list[Judged], checked: Checked) -> Iterator[tuple[Judged, Finding]]:
    """A finding for every rule of which two calls with the same arguments return different numbers."""
    rules = checked.rules
    replaced = [one for one in found if getattr(rules, one.rule) is not getattr(checked.of.ours, one.rule)]
    for (rule, _), one in {(one.rule, one.layer): one for one in reversed(replaced)}.items():
        if not isinstance(one.hand, Failure) and differing_calls(getattr(rules, rule), *one.line.arguments):
            yield one, Finding(one.line.name, float("inf"), 0.0, layer=one.layer, kind=rule, note=NOT_DETERMINISTIC)


def _runs_in_float32(failed: Judged, rules) -> bool:
    """Whether a rule that fails in float64 runs in float32; else its failure is a finding."""
    with exactly("float32"):
        return isinstance(attempt(getattr(rules, failed.rule), *in_dtype(failed.line.arguments, "float32")), Value)


def _finding(one: Judged, limits: dict[str, float], tolerance: float | None, dtype: str) -> Finding:
    equation = one.line.equation
    known: dict[str, Any] = {"layer": one.layer, "kind": one.rule, "axes": equation.axes, "case": one.name}
    limit = tolerance or max(limits[dtype], limits.get(one.precision, 0.0))
    if isinstance(one.hand, Failure):
        return Finding(one.line.name, float("inf"), limit, **known)
    through = None
    if one.case is not None and not isinstance(one.chained, Failure) and one.known.all():
        through = norm_error(np.asarray(one.chained), one.oracle, one.size)
    return compare(one.line.name, one.hand, one.oracle, limit, one.size, end_to_end=through, **known)


def _in_float32(one: Judged, checked: Checked, limit: float) -> tuple[Judged, Finding] | None:
    """A finding where the rule, called in float32, is not finite, or is less exact than autodiff in float32 is."""
    with np.errstate(over="ignore"):
        arguments = in_dtype(one.line.arguments, "float32")

    def called(of):
        value = attempt(getattr(of, one.rule), *arguments)
        return part_of(one.rule, one.part, value.value) if isinstance(value, Value) else value

    hand = called(checked.rules)
    if isinstance(hand, Failure) or np.shape(hand) != one.oracle.shape:
        return None
    hand, known = np.asarray(hand), one.known & (np.abs(one.oracle) < LARGEST["float32"]) & _fits(arguments, one.oracle)
    oracle = np.where(known, one.oracle, 0)
    note = ""
    if not np.isfinite(hand[known]).all():
        place = tuple(int(i) for i in np.argwhere(known & ~np.isfinite(hand))[0])
        note = f"in float32 it is {hand[place]} at {list(place)}{_at_z(one, place, checked.of)}"
    else:
        lost = norm(np.where(known, hand, 0) - oracle) / (one.size or 1.0)
        if lost > limit and lost > 100 * norm(np.where(known, called(checked.of.autodiff), 0) - oracle) / (
            one.size or 1.0
        ):
            note = f"in float32 it loses {7 + np.log10(lost):.0f} of its 7 digits"
    if not note:
        return None
    known_fields: dict[str, Any] = {"layer": one.layer, "kind": one.rule, "axes": one.line.equation.axes}
    finding = compare(one.line.name, np.where(known, hand, 0), oracle, limit, one.size, case=f"{one.name}, in float32",
                      **known_fields)  # fmt: skip
    return one, replace(finding, note=note, error=max(finding.error, 2 * limit))


def _fits(arguments: tuple, oracle: np.ndarray) -> np.ndarray:
    """Where the arguments with an entry for each of the oracle's are finite: a = σ(z) may not be, in float32."""
    own = [np.isfinite(leaf) for leaf in jax.tree.leaves(arguments) if np.shape(leaf) == oracle.shape]
    return np.all([np.ones(oracle.shape, bool), *own], axis=0)


def _at_z(one: Judged, place: tuple[int, ...], of: Derivation) -> str:
    return f", where z = {one.line.arguments[of.z_at[one.rule]][place]:g}" if one.rule in of.z_at else ""


def _notes(found: list[Judged], given: tuple[Case, ...], names: list[str], dtype: str) -> Iterator[str]:
    kinks, replaced, unknown = (sum(counts) for counts in zip(*(
        (one.kinks, one.differences, int((~one.known).sum())) for one in found
    )))  # fmt: skip
    yield from at_kinks(kinks)
    if replaced:
        yield f"compared with differences where autodiff is not finite: {counted(replaced, 'value')}"
    yield from left_out(unknown, "neither autodiff nor differences are finite there")
    coarse = sorted({f"{one.rule} in {one.precision}" for one in found if TOLERANCE[one.precision] > TOLERANCE[dtype]})
    if coarse:
        yield "judged at the tolerance of the dtype in which they compute: " + ", ".join(coarse)
    others = len(names) - len(given)
    if len(given) > 1:
        yield "cases: " + ", ".join(case.name for case in given)
    if others:
        yield f"each rule alone at {counted(others, 'set')} of arguments"


def _summary(pairs: list[tuple[Judged, Finding]], checked: Checked, tolerance: float) -> Finding:
    """One finding for an equation over all cases: the worst, with what is true of the mistake in every failing case."""
    failing = [(one, finding) for one, finding in pairs if not finding.ok]
    vacuous = all(finding.vacuous for _, finding in pairs)
    name = pairs[0][1].name
    if not failing:
        worst = max((finding for _, finding in pairs), key=lambda f: (f.error, not f.vacuous))
        ends = [finding.end_to_end for _, finding in pairs if finding.end_to_end is not None]
        return replace(worst, name=name, end_to_end=max(ends, default=None), case="", vacuous=vacuous)
    one, worst = failing[0]
    changing = next((finding for _, finding in failing if finding.note == NOT_DETERMINISTIC), None)
    if changing is not None:
        return replace(worst, name=name, note=changing.note, vacuous=False)
    note = worst.note if "in float32" in worst.case else _shared(failing, checked, tolerance) or worst.note
    example = "" if "in float32" in worst.case else checked.example(one, checked.rules, tolerance)
    return replace(worst, name=name, note=note, example=example, vacuous=False)


def _shared(failing: list[tuple[Judged, Finding]], checked: Checked, tolerance: float) -> str:
    """The first explanation that holds in every failing case, or that of one case with the case's name.

    A case where one number differs explains nothing.
    """
    every = [one for one, finding in failing if "in float32" not in finding.case]
    telling = [one for one in every if _is_telling(one)] or every[:1]
    shared: list[str] = []
    first: list[str] = []
    for i, one in enumerate(telling):
        found = checked.explain(one, checked.rules, tolerance)
        first = found if i == 0 else first
        shared = found if i == 0 else [text for text in shared if text in found]
        if not shared:
            return f"on {telling[0].name}: {first[0]}" if first else ""
    return next(iter(shared), "")


def _is_telling(one: Judged) -> bool:
    if isinstance(one.hand, Failure) or np.shape(one.hand) != one.oracle.shape:
        return True
    return bool(max(np.count_nonzero(one.oracle), np.count_nonzero(one.hand)) > 1)
