"""Every line of the R-operator against autodiff, each judged alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fnn.checks import targets
from fnn.checks.arrays import describe
from fnn.curvature.graphs import require_sums
from fnn.curvature.tangents import TANGENTS, TangentRules
from fnn.kinds import GRAPH, AnyParams, kind
from fnn.losses import Loss, SquaredError
from fnn.verify import changes, graph_changes
from fnn.verify.blackbox import in_best_dtype
from fnn.verify.changes import Line
from fnn.verify.interpret import is_array
from fnn.verify.network import data_or_probes
from fnn.verify.oracle import NORM_TOLERANCE, TOLERANCE, exactly
from fnn.verify.patterns import same, statements
from fnn.verify.report import Compared, Finding, Report, compare, norm, worst


def curvature(
    params: AnyParams,
    x=None,
    y=None,
    *,
    loss: Loss = SquaredError(),
    rules: TangentRules = TANGENTS,
    masks=None,
    dtype: str | None = None,
    tolerance: float | None = None,
) -> Report:
    """Compare every line of the R-operator at every layer with ``jax.jvp`` of ``jax.grad``, along a random direction.

    Each is fed autodiff's own values of what it reads, so that a mistake is named where it is made. All wrong lines are
    reported, each with the mistake that it looks like.

    params: tuple of ``Dense`` (a ``Stack`` is taken layer by layer), or the parameters of a graph, whose lines are
    judged neuron by neuron, those of a large one by generations; rules: a ``curvature.TangentRules``, on a graph as
    ``curvature.hvp`` takes them; the other arguments: as in :func:`network`. Without data, its probes are used, but for
    the one at the kinks, where σ'' is a convention, and for a graph random data, parameters and masks. Raises TypeError
    or ValueError for arguments of the wrong kind; disagreement is in the report.

    >>> import jax, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> curvature(params, jax.numpy.ones((5, 3)), jax.numpy.zeros((5, 2)), loss=fnn.SquaredError()).ok
    True
    """
    targets.loss_like(loss)
    if not isinstance(rules, TangentRules):
        raise TypeError(f"rules: expected curvature.TangentRules, got {rules!r}; write TANGENTS._replace(...)")
    cases = (graph_changes.cases if kind(params) is GRAPH else data_or_probes)(params, x, y, loss, masks, x is None)
    if kind(params) is GRAPH:
        require_sums(rules)
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(cases, loss, rules, chosen, tolerance))


def _judge(cases: Callable, loss: Loss, rules: TangentRules, dtype: str, tolerance: float | None) -> Report:
    with exactly(dtype):
        judged = [case for case in cases(dtype) if not case.name.startswith("at the kinks")]
        params = judged[0].params
        limit = tolerance or (NORM_TOLERANCE if kind(params).has_norm(params) else TOLERANCE)[dtype]
        lines = graph_changes.lines if kind(params) is GRAPH else changes.lines
        found: dict[str, list[Compared]] = {}
        for case in judged:
            for line in lines(case, loss, limit):
                one = _compared(line, rules, limit, case.name)
                found.setdefault(line.name, []).append(one)
    findings = [replace(worst(of), vacuous=all(one.finding.vacuous for one in of)) for of in found.values()]
    notes = ("cases: " + ", ".join(case.name for case in judged),) if len(judged) > 1 else ()
    return Report(tuple(findings), dtype, notes, "line", changes.SEED)


def _compared(line: Line, rules: TangentRules, tolerance: float, case: str) -> Compared:
    equation = line.equation
    known: dict[str, Any] = {"layer": line.layer, "kind": equation.rule, "axes": equation.axes, "case": case}
    try:
        hand = line.hand(rules)
    except Exception as error:  # a rule is the user's: whatever it raises is a finding
        note = f"it raises {type(error).__name__}: {error}"[:200]
        return Compared(Finding(line.name, float("inf"), tolerance, note=note, **known), [])
    if not is_array(hand):
        note = f"expected an array, got {describe(hand)}"
        return Compared(Finding(line.name, float("inf"), tolerance, note=note, **known), [])
    hand, oracle = np.asarray(hand), np.asarray(line.oracle)
    size = norm(sum(np.abs(np.asarray(term, np.float64)) for term in line.terms.values())) + line.rounding
    finite = np.isfinite(oracle)
    if hand.shape == oracle.shape and not finite.all():
        hand, oracle = np.where(finite, hand, 0), np.where(finite, oracle, 0)
    finding = compare(line.name, hand, oracle, tolerance, size if np.isfinite(size) else norm(oracle), **known)
    if finding.index is not None and line.neurons is not None:
        finding = replace(finding, index=(*finding.index[:-1], int(line.neurons[finding.index[-1]])))
    explained = [] if finding.ok else list(_guesses(hand, oracle, line.terms, tolerance))
    several = max(np.count_nonzero(hand), np.count_nonzero(oracle)) > 1
    telling = bool(hand.shape != oracle.shape or several)
    return Compared(finding, explained, unknown=int((~finite).sum()), telling=telling)


def _guesses(hand: np.ndarray, oracle: np.ndarray, terms: dict[str, Any], tolerance: float) -> Iterator[str]:
    """What turns autodiff's value into the hand-written one."""
    for name, term in terms.items():
        if len(terms) > 1 and np.any(term):
            for what, times in (("is missing", 1), ("has the wrong sign", 2), ("stands twice", -1)):
                if same(hand, oracle - times * np.asarray(term), tolerance):
                    yield f"the term {name} {what}"
    yield from statements(hand, oracle, tolerance)
