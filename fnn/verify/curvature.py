"""Every line of the R-operator against autodiff, each judged alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fnn.checks import targets
from fnn.checks.arrays import describe
from fnn.curvature.graphs import require_sums
from fnn.curvature.tangents import TANGENTS, TangentRules
from fnn.graph.graph import Graph
from fnn.kinds import GRAPH, AnyParams, kind
from fnn.losses import Loss, SquaredError
from fnn.verify import graph_changes
from fnn.verify.blackbox import in_best_dtype
from fnn.verify.changes import CHANGES, SEED, change_of_lines, explanations
from fnn.verify.graph_changes import Line
from fnn.verify.graphs import as_layers
from fnn.verify.interpret import is_array, remembering
from fnn.verify.judging import Checked, judge_lines
from fnn.verify.network import data_or_probes
from fnn.verify.oracle import NORM_TOLERANCE, TOLERANCE, exactly
from fnn.verify.patterns import same, statements
from fnn.verify.report import Compared, Finding, Report, compare, norm, worst

SUMS = ("gamma", "beta")  # in the names of what a batch norm sums


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
    """Compare every line of the R-operator at every layer with autodiff's change of it along a random direction.

    Each is fed autodiff's own values of what it reads, so that a mistake is named where it is made. All wrong lines are
    reported, each with the mistake that it looks like.

    params: tuple of ``Dense`` (a ``Stack`` is taken layer by layer), or the parameters of a graph, whose lines are
    judged neuron by neuron, those of a large one by generations; rules: a ``curvature.TangentRules``, on a graph as
    ``curvature.hvp`` takes them; the other arguments: as in :func:`network`. Without data, its probes are used, and
    each rule is judged alone at the arguments that they do not reach; for a graph random data, parameters and masks. At
    a kink, any value between those of its two sides is right. Raises TypeError or ValueError for arguments of the wrong
    kind; disagreement is in the report.

    >>> import jax, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> curvature(params, jax.numpy.ones((5, 3)), jax.numpy.zeros((5, 2)), loss=fnn.SquaredError()).ok
    True
    """
    targets.loss_like(loss)
    if not isinstance(rules, TangentRules):
        raise TypeError(f"rules: expected curvature.TangentRules, got {rules!r}; write TANGENTS._replace(...)")
    checked = Checked(rules, CHANGES, change_of_lines, explanations, lambda *given: "", "line")
    if kind(params) is GRAPH:
        require_sums(rules)
        cases = graph_changes.cases(params, x, y, loss, masks, x is None)
        judge: Callable = partial(_graph, params, cases, checked, loss, x is None, tolerance)
    else:
        cases = data_or_probes(params, x, y, loss, masks, x is None)
        judge = partial(judge_lines, cases, x is None and params, loss, checked, tolerance, dtype is None)
    with remembering():
        return in_best_dtype(dtype, tolerance, judge)


def _graph(params: Any, cases: Callable, checked: Checked, loss: Loss, probes: bool, tolerance, dtype: str) -> Report:
    """The report on a graph: its neurons' lines, and each rule alone."""
    with exactly(dtype):
        limit = tolerance or (TOLERANCE if params.norm is None else NORM_TOLERANCE)[dtype]
        judged = [case for case in cases(dtype) if not case.name.startswith("at the kinks")]
        found: dict[str, list[Compared]] = {}
        lines = [(case.name, line) for case in judged for line in graph_changes.lines(case, loss, limit)]
        for name, line in lines:
            found.setdefault(line.name, []).append(_compared(line, checked.rules, limit, name))
    findings = {name: replace(worst(of), vacuous=all(one.finding.vacuous for one in of)) for name, of in found.items()}
    notes: tuple[str, ...] = ("cases: " + ", ".join(case.name for case in judged),) if len(judged) > 1 else ()
    if probes:
        layers = as_layers(params)
        alone = judge_lines(lambda dtype: (), layers, loss, checked, tolerance, False, dtype)
        notes += alone.notes
        for finding in alone.wrong:
            name = _line_of(finding, layers[finding.layer - 1].activation, params.graph, [line for _, line in lines])
            if name and findings[name].ok:
                findings[name] = replace(finding, name=name, layer=findings[name].layer)
    return Report(tuple(findings.values()), dtype, notes, "line", SEED)


def _line_of(finding: Finding, activation, graph: Graph, lines: list[Line]) -> str:
    """The name of the line that a rule judged alone, with this activation, computes in the graph, or ""."""
    own = [line for line in lines if line.equation.rule == finding.kind]
    if finding.kind == "norm_pullback":
        own = [line for line in own if [part in line.name for part in SUMS] == [part in finding.name for part in SUMS]]
    elif finding.kind in ("activation", "hidden_delta"):
        own = [line for line in own if activation in [graph.activations[k] for k in line.neurons]]
    return own[0].name if own else ""


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
