"""Every equation of a network against autodiff, each judged alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fnn.backward import RULES, Rules
from fnn.checks import network as checks
from fnn.checks import targets
from fnn.data import for_network
from fnn.kinds import GRAPH, AnyParams, kind, require_rules
from fnn.losses import Loss
from fnn.stacking import unstack
from fnn.verify import graphs
from fnn.verify.blackbox import in_best_dtype
from fnn.verify.diagnose import explanations
from fnn.verify.equations import Case, Equation, Failure, equations
from fnn.verify.oracle import NORM_TOLERANCE, TOLERANCE, exactly, in_dtype
from fnn.verify.probes import probes
from fnn.verify.report import Finding, Report, compare, norm_error

SEED = 0


def network(
    params: AnyParams,
    x=None,
    y=None,
    *,
    loss: Loss,
    rules: Rules = RULES,
    masks=None,
    dtype: str | None = None,
    tolerance: float | None = None,
) -> Report:
    """Compare every equation at every layer with autodiff, each fed **autodiff's** upstream value.

    So a mistake is named where it is made, and not where it is felt: the error "end to end", of the hand-written
    chain, stands beside it. All wrong equations are reported, each with the mistake that it looks like.

    params: tuple of ``Dense`` (a ``Stack`` is taken layer by layer), or the parameters of a graph, where every
    neuron's λ is an equation; x, y: data, (B, n_0) and (B, n_L) or labels, or one example; without data, the cases
    of :func:`probes` are used, and for a graph random data, parameters and masks. loss, rules, masks: as in
    ``fnn.backprop``. dtype: "float64" or "float32"; None tries float64, and float32 where a rule, the loss or an
    activation cannot run in it.
    tolerance: of an error relative to the size of the terms that an equation sums; if not given, 1e-12 in
    float64, 1e-5 in float32, and 1e-4 there with a batch norm.

    A unit that sits exactly at a kink passes with any value between the one-sided derivatives; the report counts
    them. Raises TypeError or ValueError for arguments of the wrong kind; disagreement is in the report.

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
    if x is None and masks is not None:
        raise TypeError("masks: they go with data; write verify.network(params, x, y, masks=masks, loss=loss)")
    if kind(params) is GRAPH:
        return graphs.network(params, x, y, loss, rules, masks, dtype, tolerance)
    cases = data_or_probes(params, x, y, loss, masks)
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(cases, loss, rules, chosen, tolerance, dtype is None))


def data_or_probes(params, x, y, loss, masks) -> Callable[[str], tuple[Case, ...]]:
    """The cases as a function of the dtype; the arguments are checked at once."""
    checks.layers(params)
    if x is None:
        spared = {"huge logits"} if getattr(loss, "overflows", False) else set()
        return lambda dtype: tuple(case for case in probes(in_dtype(params, dtype), SEED) if case.name not in spared)
    params, x, masks = checks.careful_arguments(params, x, masks)
    x, y = (np.asarray(value) for value in (x, y))
    if x.ndim == 1:
        x, y = x[None], y[None]
    checks.network(params, x, masks)
    params, masks = unstack(params), unstack(params, masks)  # the equations of every layer
    data = for_network((x, y), checks.ports(params), loss, "x, y")
    return lambda dtype: (Case("the data given", *in_dtype((params, data.x, data.y, masks), dtype)),)


class _CannotRunInFloat64(Exception):
    pass


def _judge(cases, loss, rules, dtype, tolerance, may_fall_back) -> Report:
    with exactly(dtype):
        found: dict[tuple, list[tuple[Equation, Finding]]] = {}
        judged = cases(dtype)
        normed = any(layer.norm is not None for layer in judged[0].params)
        tolerance = tolerance or (NORM_TOLERANCE if normed else TOLERANCE)[dtype]
        for case in judged:
            for equation in equations(case, loss, rules, tolerance):
                if may_fall_back and dtype == "float64" and isinstance(equation.hand, Failure):
                    _rerun_in_float32(cases, loss, rules, tolerance, equation)
                key = (-equation.at.i, equation.rule, equation.part)
                found.setdefault(key, []).append((equation, _finding(equation, tolerance)))
        findings = tuple(_summary(pairs, tolerance) for pairs in found.values())
    kinks = sum(equation.kinks for pairs in found.values() for equation, _ in pairs)
    notes = [f"{kinks} values at a kink were compared with both one-sided derivatives"] if kinks else []
    if len(judged) > 1:
        notes.append("cases: " + ", ".join(case.name for case in judged))
    return Report(findings, dtype, tuple(notes), "equation", SEED if len(judged) > 1 else None)


def _rerun_in_float32(cases, loss, rules, tolerance, equation: Equation) -> None:
    """Raise, to fall back to float32, if a rule that fails in float64 runs there; else its failure is a finding."""
    error = equation.hand.error
    with exactly("float32"):
        again = [e for case in cases("float32") for e in equations(case, loss, rules, 1e-5) if e.rule == equation.rule]
    if not any(isinstance(e.hand, Failure) for e in again):
        raise _CannotRunInFloat64(f"{type(error).__name__} in {equation.rule}: {error}")


def _finding(equation: Equation, tolerance: float) -> Finding:
    layer, case = equation.at.i + 1, equation.at.case.name
    known: dict[str, Any] = {"layer": layer, "kind": equation.rule, "axes": equation.line.equation.axes, "case": case}
    if isinstance(equation.hand, Failure):
        return Finding(equation.line.name, float("inf"), tolerance, **known)
    through = None
    if not isinstance(equation.chained, Failure):
        through = norm_error(np.asarray(equation.chained), np.asarray(equation.oracle), equation.size)
    return compare(
        equation.line.name, equation.hand, equation.oracle, tolerance, equation.size, end_to_end=through, **known
    )


def _summary(pairs: list[tuple[Equation, Finding]], tolerance: float) -> Finding:
    """One finding for an equation over all cases: the worst, with the mistake that explains every failing case."""
    failing = [(equation, finding) for equation, finding in pairs if not finding.ok]
    vacuous = all(finding.vacuous for _, finding in pairs)
    if not failing:
        worst = max((finding for _, finding in pairs), key=lambda f: (f.error, not f.vacuous))
        ends = [finding.end_to_end for _, finding in pairs if finding.end_to_end is not None]
        return replace(worst, end_to_end=max(ends, default=None), case="", vacuous=vacuous)
    guesses = [explanations(equation, tolerance) for equation, _ in failing]
    shared = [guess for guess in guesses[0] if all(guess in others for others in guesses)]
    # where no guess explains every case, the one that explains most
    common = max((g for gs in guesses for g in gs), key=lambda g: sum(g in gs for gs in guesses), default="")
    worst = failing[0][1]
    return replace(worst, note=(shared or [common])[0], vacuous=False)
