"""Every equation of a network against autodiff, each judged alone."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fnn.backward import RULES, Rules
from fnn.checks import network as checks
from fnn.checks import targets
from fnn.checks.arrays import one_of, unmasked
from fnn.data import for_network
from fnn.kinds import GRAPH, AnyParams, kind, require_rules
from fnn.losses import Loss, SquaredError
from fnn.stacking import unstack
from fnn.verify import graphs
from fnn.verify.blackbox import in_best_dtype
from fnn.verify.diagnose import explanations
from fnn.verify.equations import FIRST, Case, Judged, is_judged, judged, single
from fnn.verify.interpret import remembering
from fnn.verify.judging import SEED, Checked, judge_lines
from fnn.verify.oracle import in_dtype
from fnn.verify.probes import probes as probe_cases
from fnn.verify.probes import round_array, rounded_to, single_rules
from fnn.verify.report import Report
from fnn.verify.smallest import smallest


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
    one_of("probes", probes, (True, False))
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
        judge = partial(judge_lines, cases, probes and params, loss, _checked(rules), tolerance, dtype is None)
    with remembering():
        return in_best_dtype(dtype, tolerance, judge)


def _graph(params, cases, loss, rules, probes: bool, tolerance, dtype: str) -> Report:
    """The report on a graph: its neurons' lines, and each rule alone."""
    report = graphs.judge(cases, loss, rules, tolerance, dtype)
    if not probes:
        return report
    layers, lines = graphs.as_layers(params), {finding.name: finding for finding in report.findings}
    alone = judge_lines(lambda dtype: (), layers, loss, _checked(rules), tolerance, False, dtype)
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
        unmasked("y", y)
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


def _lines(given, loss, rules, limit: float, coarsest: str, alone) -> list[Judged]:
    """Every line of the cases, and of the rules judged alone, on numbers of the dtype ``coarsest``."""
    rounded = partial(round_array, coarsest)
    found = [one for case in given for one in judged(case, loss, rules, limit, rounded)]
    lines = found[0].lines if found else ()
    for name, line in single_rules(alone, loss) if alone else ():
        if is_judged(line.equation.rule, rules):
            line = rounded_to(coarsest, line)
            found.append(replace(single(line, name, rules, limit), lines=lines))
    return found


def _checked(rules: Rules) -> Checked:
    return Checked(rules, FIRST, _lines, explanations, smallest, "equation")
