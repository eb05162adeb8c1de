"""Every equation of a network against autodiff, each judged alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from fnn.backward import RULES, Rules
from fnn.checks import network as checks
from fnn.checks import targets
from fnn.data import for_network
from fnn.kinds import GRAPH, AnyParams, kind, require_rules
from fnn.losses import Loss, SquaredError
from fnn.stacking import unstack
from fnn.verify import graphs
from fnn.verify.blackbox import NOT_DETERMINISTIC, differing_calls, in_best_dtype
from fnn.verify.diagnose import explanations
from fnn.verify.equations import DELTAS, Case, Failure, Judged, attempt, is_judged, judged, part_of, single
from fnn.verify.interpret import Value, remembering, untraced
from fnn.verify.oracle import AUTODIFF, LARGEST, NORM_TOLERANCE, TOLERANCE, exactly, in_dtype
from fnn.verify.probes import probes as probe_cases
from fnn.verify.probes import round_array, rounded_to, single_rules
from fnn.verify.report import Finding, Report, compare, norm, norm_error
from fnn.verify.smallest import smallest

SEED = 0


def network(
    params: AnyParams,
    x=None,
    y=None,
    *,
    loss: Loss = SquaredError(),
    rules: Rules = RULES,
    masks=None,
    probes: bool = True,
    dtype: str | None = None,
    tolerance: float | None = None,
) -> Report:
    """Compare every equation at every layer with autodiff, each fed **autodiff's** upstream value.

    So a mistake is named where it is made, and not where it is felt: the error "end to end", of the hand-written
    chain, stands beside it. All wrong equations are reported, each with what is true of its mistake in every case that
    shows it, and with the smallest example found.

    params: tuple of ``Dense`` (a ``Stack`` is taken layer by layer), or the parameters of a graph, where every
    neuron's λ is an equation; x, y: data, (B, n_0) and (B, n_L) or labels, or one example. loss, rules, masks: as in
    ``fnn.backprop``. probes: whether the cases of :func:`probes` are judged too, and each rule at arguments that they
    do not reach (large values, batches of 1 to 33, …); for a graph random data, parameters and masks. dtype: "float64"
    or "float32"; None tries float64, and float32 where a rule, the loss or an activation cannot run in it. In float64,
    each rule is also called in the parameters' own dtype, where it must be finite and no less exact than autodiff.
    tolerance: of an error relative to the size of the terms that an equation sums; if not given, 1e-12 in
    float64, 1e-5 in float32, and 1e-4 there with a batch norm; for a rule that computes in bfloat16, 3e-2.

    A unit that sits exactly at a kink passes with any value between the one-sided derivatives; the report counts
    them. Where autodiff is not finite, differences stand in for it; what is finite in neither is not compared, and
    counted. Raises TypeError or ValueError for arguments of the wrong kind; disagreement is in the report.

    >>> import jax, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> network(params, loss=fnn.SquaredError()).ok
    True
    >>> wrong = fnn.RULES._replace(hidden_delta=lambda g, activation, z, a: g)
    >>> print(network(params, loss=fnn.SquaredError(), rules=wrong).wrong[0].note)
    sigma'(z[1]) is missing
    """
    targets.loss_like(loss)
    require_rules(rules)
    if (x is None) != (y is None):
        raise TypeError("x, y: expected both or neither; without data the probes are used")
    if x is None and not probes:
        raise ValueError("probes: without data nothing else is checked; write verify.network(params, loss=loss)")
    if x is None and masks is not None:
        raise TypeError("masks: they go with data; write verify.network(params, x, y, masks=masks, loss=loss)")
    if kind(params) is GRAPH:
        data: Any = graphs.data_or_random(params, x, y, loss, masks, probes)
        judge: Callable = lambda chosen: _graph(params, data, loss, rules, probes, tolerance, chosen)  # noqa: E731
    else:
        cases = data_or_probes(params, x, y, loss, masks, probes)
        judge = partial(_judge, cases, probes and params, loss, rules, tolerance, dtype is None)
    with remembering():
        return in_best_dtype(dtype, tolerance, judge)


def _graph(params, cases, loss, rules, probes: bool, tolerance, dtype: str) -> Report:
    """The report on a graph: its neurons' lines, and each rule alone."""
    report = graphs.judge(cases, loss, rules, tolerance, dtype)
    if not probes:
        return report
    layers, lines = graphs.as_layers(params), {finding.name: finding for finding in report.findings}
    alone = _judge(lambda dtype: (), layers, loss, rules, tolerance, False, dtype)
    for finding in alone.wrong:
        name = graphs.line_of(params, layers, finding)
        if name in lines and lines[name].ok:
            lines[name] = replace(finding, name=name, layer=lines[name].layer)
    return replace(report, findings=tuple(lines.values()), notes=(*report.notes, *alone.notes))


def data_or_probes(params, x, y, loss, masks, probes: bool = True) -> Callable[[str], tuple[Case, ...]]:
    """The cases as a function of the dtype; the arguments are checked at once."""
    checks.layers(params)
    given: tuple = ()
    if x is not None:
        params, x, masks = checks.careful_arguments(params, x, masks)
        x, y = (np.asarray(value) for value in (x, y))
        if x.ndim == 1:
            x, y = x[None], y[None]
        checks.network(params, x, masks)
        layers, masks = unstack(params), unstack(params, masks)  # the equations of every layer
        data = for_network((x, y), checks.ports(layers), loss, "x, y")
        given = (("the data given", layers, data.x, data.y, masks),)

    def of(dtype: str) -> tuple[Case, ...]:
        drawn = probe_cases(in_dtype(params, dtype), SEED) if probes else ()
        return *(Case(name, *in_dtype(tuple(of), dtype)) for name, *of in given), *drawn

    return of


def _judge(cases, alone, loss, rules, tolerance, may_fall_back, dtype) -> Report:
    """The report on the cases, and on each rule of the layers ``alone``."""
    with exactly(dtype):
        given = cases(dtype)
    layers = alone or given[0].params
    own_dtype = str(jax.tree.leaves(layers)[0].dtype)
    coarser = dtype == "float64" and own_dtype == "float32"
    limits = NORM_TOLERANCE if any(layer.norm is not None for layer in layers) else TOLERANCE
    collect = partial(_collect, given, loss, rules, tolerance or limits[dtype], coarser, dtype)
    with exactly(dtype):
        found = collect(alone)
        if any(isinstance(one.hand, Failure) and "Tracer" in str(one.hand.error) for one in found):
            with untraced():  # a rule keeps what it computed for another, and so cannot be called alone
                found = collect(())
    failed = next((one for one in found if isinstance(one.hand, Failure)), None)
    if failed is not None and may_fall_back and dtype == "float64" and _runs_in_float32(failed, rules):
        raise type(failed.hand.error)(f"{failed.hand.error}")
    with exactly(dtype):
        pairs = [(one, _finding(one, limits, tolerance, dtype)) for one in found]
        pairs += _not_deterministic(found, rules)
    if coarser:
        right = [one for one, finding in pairs if finding.ok]
        with exactly("float32"):
            pairs += [pair for one in right if (pair := _in_float32(one, rules, limits["float32"]))]
    grouped: dict[tuple, list] = {}
    for one, finding in pairs:
        grouped.setdefault((one.layer, one.rule, one.part), []).append((one, finding))
    with exactly(dtype):
        findings = tuple(_summary(of, rules, tolerance or limits[dtype]) for of in grouped.values())
    names = list(dict.fromkeys(one.name for one in found))
    notes = tuple(_notes(found, given, names, dtype))
    return Report(findings, dtype, notes, "equation", SEED if len(names) > 1 else None)


def _collect(given, loss, rules, limit: float, coarser: bool, dtype: str, alone) -> list[Judged]:
    """Every line of the cases, and of the rules judged alone."""
    rounded = partial(round_array, "float32") if coarser else lambda value: value
    found = [one for case in given for one in judged(case, loss, rules, limit, rounded)]
    lines = found[0].lines if found else ()
    for name, line in single_rules(alone, loss) if alone else ():
        if is_judged(line.equation.rule, rules):
            line = rounded_to("float32" if coarser else dtype, line)
            found.append(replace(single(line, name, rules, limit), lines=lines))
    return found


def _not_deterministic(found: list[Judged], rules: Rules) -> Iterator[tuple[Judged, Finding]]:
    """A finding for every rule of which two calls with the same arguments return different numbers."""
    replaced = [one for one in found if getattr(rules, one.rule) is not getattr(RULES, one.rule)]
    for (rule, _), one in {(one.rule, one.layer): one for one in reversed(replaced)}.items():
        if not isinstance(one.hand, Failure) and differing_calls(getattr(rules, rule), *one.line.arguments):
            yield one, Finding(one.line.name, float("inf"), 0.0, layer=one.layer, kind=rule, note=NOT_DETERMINISTIC)


def _runs_in_float32(failed: Judged, rules: Rules) -> bool:
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


def _in_float32(one: Judged, rules: Rules, limit: float) -> tuple[Judged, Finding] | None:
    """A finding where the rule, called in float32, is not finite, or is less exact than autodiff in float32 is."""
    arguments = in_dtype(one.line.arguments, "float32")

    def called(of: Rules):
        value = attempt(getattr(of, one.rule), *arguments)
        return part_of(one.rule, one.part, value.value) if isinstance(value, Value) else value

    hand = called(rules)
    if isinstance(hand, Failure) or np.shape(hand) != one.oracle.shape:
        return None
    hand, known = np.asarray(hand), one.known & (np.abs(one.oracle) < LARGEST["float32"])
    oracle = np.where(known, one.oracle, 0)
    note = ""
    if not np.isfinite(hand[known]).all():
        place = tuple(int(i) for i in np.argwhere(known & ~np.isfinite(hand))[0])
        note = f"in float32 it is {hand[place]} at {list(place)}{_at_z(one, place)}"
    else:
        lost = norm(np.where(known, hand, 0) - oracle) / (one.size or 1.0)
        if lost > limit and lost > 100 * norm(np.where(known, called(AUTODIFF), 0) - oracle) / (one.size or 1.0):
            note = f"in float32 it loses {7 + np.log10(lost):.0f} of its 7 digits"
    if not note:
        return None
    known_fields: dict[str, Any] = {"layer": one.layer, "kind": one.rule, "axes": one.line.equation.axes}
    finding = compare(one.line.name, np.where(known, hand, 0), oracle, limit, one.size, case=f"{one.name}, in float32",
                      **known_fields)  # fmt: skip
    return one, replace(finding, note=note, error=max(finding.error, 2 * limit))


def _at_z(one: Judged, place: tuple[int, ...]) -> str:
    return f", where z = {one.line.arguments[2][place]:g}" if one.rule in DELTAS else ""


def _notes(found: list[Judged], given: tuple[Case, ...], names: list[str], dtype: str) -> Iterator[str]:
    kinks, replaced, unknown = (sum(counts) for counts in zip(*(
        (one.kinks, one.differences, int((~one.known).sum())) for one in found
    )))  # fmt: skip
    if kinks:
        yield f"{kinks} values at a kink were compared with both one-sided derivatives"
    if replaced:
        yield f"{replaced} values where autodiff is not finite were compared with differences"
    if unknown:
        yield f"{unknown} values were not compared, because neither autodiff nor differences are finite there"
    coarse = sorted({f"{one.rule} in {one.precision}" for one in found if TOLERANCE[one.precision] > TOLERANCE[dtype]})
    if coarse:
        yield "judged at the tolerance of the dtype in which they compute: " + ", ".join(coarse)
    others = len(names) - len(given)
    if len(given) > 1:
        yield "cases: " + ", ".join(case.name for case in given)
    if others:
        yield f"each rule alone at {others} sets of arguments"


def _summary(pairs: list[tuple[Judged, Finding]], rules: Rules, tolerance: float) -> Finding:
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
    note = worst.note if "in float32" in worst.case else _shared(failing, tolerance) or worst.note
    example = "" if "in float32" in worst.case else smallest(one, rules, tolerance)
    return replace(worst, name=name, note=note, example=example, vacuous=False)


def _shared(failing: list[tuple[Judged, Finding]], tolerance: float) -> str:
    """The first explanation that holds in every failing case; a case where one number differs explains nothing."""
    every = [one for one, finding in failing if "in float32" not in finding.case]
    shared: list[str] = []
    for i, one in enumerate([one for one in every if _is_telling(one)] or every[:1]):
        found = explanations(one, tolerance)
        shared = found if i == 0 else [text for text in shared if text in found]
        if not shared:
            break
    return next(iter(shared), "")


def _is_telling(one: Judged) -> bool:
    if isinstance(one.hand, Failure) or np.shape(one.hand) != one.oracle.shape:
        return True
    return bool(max(np.count_nonzero(one.oracle), np.count_nonzero(one.hand)) > 1)
