"""Every line of the R-operator against autodiff, each judged alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.batchnorm import standardise
from fnn.checks import targets
from fnn.curvature.tangents import TANGENTS, TangentRules
from fnn.dropout import masked
from fnn.equations import INPUTS, UNITS, WEIGHTS
from fnn.layers import Params
from fnn.losses import Loss
from fnn.verify.blackbox import in_best_dtype
from fnn.verify.diagnose import explains, generic
from fnn.verify.equations import Case
from fnn.verify.network import SEED, data_or_probes
from fnn.verify.oracle import NORM_TOLERANCE, TOLERANCE, exactly, quantities
from fnn.verify.report import Finding, Report, compare, norm


def curvature(
    params: Params,
    x=None,
    y=None,
    *,
    loss: Loss,
    rules: TangentRules = TANGENTS,
    masks=None,
    dtype: str | None = None,
    tolerance: float | None = None,
) -> Report:
    """Compare every line of the R-operator at every layer with ``jax.jvp`` of ``jax.grad``, along a random direction.

    Each is fed autodiff's own values of what it reads, so that a mistake is named where it is made. All wrong lines are
    reported, each with the mistake that it looks like.

    params: tuple of ``Dense`` (a ``Stack`` is taken layer by layer); rules: a ``curvature.TangentRules``; the other
    arguments: as in :func:`network`. Without data, its probes are used, but for the one at the kinks, where σ'' is a
    convention. Raises TypeError or ValueError for arguments of the wrong kind; disagreement is in the report.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> curvature(params, jnp.ones((5, 3)), jnp.zeros((5, 2)), loss=fnn.SquaredError()).ok
    True
    """
    targets.loss_like(loss)
    if not isinstance(rules, TangentRules):
        raise TypeError(f"rules: expected curvature.TangentRules, got {rules!r}; write TANGENTS._replace(...)")
    cases = data_or_probes(params, x, y, loss, masks)
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(cases, loss, rules, chosen, tolerance))


class Line(NamedTuple):
    """One line at one layer: the rule with its arguments, autodiff's value, and the terms that the line adds."""

    rule: str
    part: int  # which result of the rule: only norm_pullback has several
    layer: int
    name: str
    axes: tuple[str, ...]
    args: tuple
    oracle: Any
    terms: dict[str, Any]
    rounding: float = 0.0  # of factors much larger than their products, added to the size of the terms


def _judge(cases: Callable, loss: Loss, rules: TangentRules, dtype: str, tolerance: float | None) -> Report:
    with exactly(dtype):
        judged = [case for case in cases(dtype) if case.name != "at the kinks"]
        normed = any(layer.norm is not None for layer in judged[0].params)
        limit = tolerance or (NORM_TOLERANCE if normed else TOLERANCE)[dtype]
        found: dict[tuple, list[Finding]] = {}
        for case in judged:
            for line in _lines(case, loss, limit):
                found.setdefault((line.layer, line.rule, line.part), []).append(_finding(line, rules, limit, case.name))
    findings = []
    for of_line in found.values():
        worst = max(of_line, key=lambda finding: (not finding.ok, finding.error))
        findings.append(replace(worst, vacuous=all(finding.vacuous for finding in of_line)))
    notes = ("cases: " + ", ".join(case.name for case in judged),) if len(judged) > 1 else ()
    return Report(tuple(findings), dtype, notes, "line", SEED)


def _finding(line: Line, rules: TangentRules, tolerance: float, case: str) -> Finding:
    known: dict[str, Any] = {"layer": line.layer, "kind": line.rule, "axes": line.axes, "case": case}
    try:
        hand = getattr(rules, line.rule)(*line.args)
        hand = hand[line.part] if line.rule == "norm_pullback" else hand
    except Exception as error:  # a rule is the user's: whatever it raises is a finding
        return Finding(
            line.name, float("inf"), tolerance, note=f"it raises {type(error).__name__}: {error}"[:200], **known
        )
    size = norm(sum(np.abs(np.asarray(term, np.float64)) for term in line.terms.values())) + line.rounding
    finding = compare(line.name, hand, line.oracle, tolerance, size, **known)
    if finding.ok or finding.note:
        return finding
    return replace(finding, note=next(_guesses(np.asarray(hand), np.asarray(line.oracle), line.terms, tolerance), ""))


def _guesses(hand: np.ndarray, oracle: np.ndarray, terms: dict[str, Any], tolerance: float) -> Iterator[str]:
    """What turns autodiff's value into the hand-written one."""
    for name, term in terms.items():
        if len(terms) > 1 and np.any(term):
            for what, times in (("is missing", 1), ("has the wrong sign", 2), ("stands twice", -1)):
                if explains(hand, oracle - times * np.asarray(term), tolerance):
                    yield f"the term {name} {what}"
    yield from generic(hand, oracle, tolerance)


def _lines(case: Case, loss: Loss, tolerance: float) -> Iterator[Line]:
    """All lines of the case, forward and then backward, with autodiff's values along a random direction."""
    random = np.random.default_rng(SEED)
    params = jax.tree.map(jnp.asarray, case.params)
    v = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), params)

    def of(params):
        return quantities(params, case.x, case.y, case.masks, loss)

    values, tangents = jax.jvp(of, (params,), (v,))
    at = [_Layer(case, loss, v, values, tangents, i, tolerance) for i in range(len(params))]
    for layer in at:
        yield from layer.forward()
    for layer in reversed(at):
        yield from layer.backward()


class _Layer:
    """The lines of one layer."""

    def __init__(self, case: Case, loss: Loss, v: Params, values, tangents, i: int, tolerance: float):
        self.auto: Any
        self.d_auto: Any
        (self.auto, traces), (self.d_auto, d_traces) = values, tangents
        self.case, self.loss, self.i, self.n, self.tolerance = case, loss, i, i + 1, tolerance
        self.layer: Any = case.params[i]
        self.along: Any = v[i]
        self.mask = case.masks[i]
        self.t, self.dt = traces[i], d_traces[i]
        self.da_in = d_traces[i].a_in if i else None  # as the loop has it: the input does not change
        self.W, self.V = (masked(of.W, self.mask.arrows) for of in (self.layer, self.along))

    def forward(self) -> Iterator[Line]:
        n, t, dt, norm_, along = self.n, self.t, self.dt, self.layer.norm, self.along
        target = f"R{{psi[{n}]}}" if norm_ is not None else f"R{{z[{n}]}}"
        terms = {"a V^T": t.a_in @ self.V.T, "c": jnp.broadcast_to(along.b, t.psi.shape)}
        if self.da_in is not None:
            terms["R{a} W^T"] = self.da_in @ self.W.T
        name = f"{target} = R{{a[{n - 1}]}} W[{n}]^T + a[{n - 1}] V[{n}]^T + c[{n}]"
        yield Line("psi", 0, n, name, UNITS, (t.a_in, self.da_in, self.W, self.V, along.b), dt.psi, terms)
        if norm_ is not None:
            (x_hat, _), (dx_hat, _) = self.standardised()
            terms = {"R{gamma} x_hat": along.norm.gamma * x_hat, "gamma R{x_hat}": norm_.gamma * dx_hat}
            terms["R{beta}"] = jnp.broadcast_to(along.norm.beta, t.z.shape)
            of_norm = (norm_, along.norm, t.psi, dt.psi)
            yield Line("normalise", 0, n, f"R{{z[{n}]}}, of the batch norm", UNITS, of_norm, dt.z, terms)
        name = f"R{{a[{n}]}} = sigma'(z[{n}]) * R{{z[{n}]}}"
        args = (dt.z, self.layer.activation, t.z, t.a)
        yield Line("activation", 0, n, name, UNITS, args, dt.a, {"": dt.a}, self.rounding(dt.z))

    def backward(self) -> Iterator[Line]:
        n, t, dt, auto, d_auto, activation = self.n, self.t, self.dt, self.auto, self.d_auto, self.layer.activation
        delta, d_delta = auto.psi[self.i], d_auto.psi[self.i]
        target = f"R{{delta[{n}]}}" if self.layer.norm is None else f"R{{d/dz[{n}]}}"
        oracle, g, dg = d_auto.z[self.i], auto.a[self.i], d_auto.a[self.i]
        args: tuple
        terms = {"R{g} sigma'": activation.pullback(dg, t.z, t.a)}
        terms["g sigma'' R{z}"] = oracle - terms["R{g} sigma'"]
        if n == len(auto.z):
            name = f"{target} = d2L/da2 R{{a[{n}]}} * sigma'(z[{n}]) + dL/da[{n}] * sigma''(z[{n}]) * R{{z[{n}]}}"
            args = (self.loss, activation, t.z, t.a, self.case.y, dt.z, dt.a)
            yield Line("output_delta", 0, n, name, UNITS, args, oracle, terms, self.rounding(g, dt.a, dt.z))
        else:
            name = f"{target} = R{{g[{n}]}} * sigma'(z[{n}]) + g[{n}] * sigma''(z[{n}]) * R{{z[{n}]}}"
            yield Line(
                "hidden_delta",
                0,
                n,
                name,
                UNITS,
                (g, dg, activation, t.z, t.a, dt.z),
                oracle,
                terms,
                self.rounding(g, dg),
            )
        through = 0.0  # a batch norm's R{δ} is a small difference of large terms
        if self.layer.norm is not None:
            yield from self.norm_pullback(delta, d_delta)
            through = self.rounding(d_auto.z[self.i])
        terms = {"R{delta}^T a": masked(d_delta.T @ t.a_in, self.mask.arrows)}
        if self.da_in is not None:
            terms["delta^T R{a}"] = masked(delta.T @ self.da_in, self.mask.arrows)
        args = (delta, d_delta, t.a_in, self.da_in, self.mask.arrows)
        name = f"R{{dC/dW[{n}]}} = R{{delta[{n}]}}^T a[{n - 1}] + delta[{n}]^T R{{a[{n - 1}]}}"
        yield Line("weight_gradient", 0, n, name, WEIGHTS, args, d_auto.params[self.i].W, terms, through)
        name = f"R{{dC/db[{n}]}} = sum over examples of R{{delta[{n}]}}"
        summed = {"": jnp.abs(d_delta).sum(axis=0)}
        yield Line("bias_gradient", 0, n, name, UNITS[1:], (d_delta,), d_auto.params[self.i].b, summed, through)
        oracle, target = (d_auto.a[self.i - 1], f"R{{g[{n - 1}]}}") if self.i else (d_auto.x, "R{dC/dx}")
        terms = {"R{delta} W": masked(d_delta @ self.W, self.mask.units)}
        terms["delta V"] = masked(delta @ self.V, self.mask.units)
        args = (delta, d_delta, self.W, self.V, self.mask.units)
        name = f"{target} = R{{delta[{n}]}} W[{n}] + delta[{n}] V[{n}]"
        yield Line("input_gradient", 0, n, name, INPUTS, args, oracle, terms)

    def rounding(self, *factors) -> float:
        """That of factors which may be much larger than their products, where p (1 − p) or σ' is small."""
        return 16 * float(jnp.finfo(self.t.z.dtype).eps) / self.tolerance * sum(map(norm, factors))

    def standardised(self):
        """(x̂, s) and their changes."""
        return jax.jvp(partial(standardise, self.layer.norm), (self.t.psi,), (self.dt.psi,))

    def norm_pullback(self, delta, d_delta) -> Iterator[Line]:
        n, norm_, along, own = self.n, self.layer.norm, self.along.norm, self.d_auto.params[self.i].norm
        delta_z, d_delta_z = self.auto.z[self.i], self.d_auto.z[self.i]
        (x_hat, s), (dx_hat, ds) = (tuple(map(abs, pair)) for pair in self.standardised())
        h, dh = abs(norm_.gamma * delta_z), abs(along.gamma * delta_z) + abs(norm_.gamma * d_delta_z)
        mixed = dx_hat * (h * x_hat).mean(axis=0) + x_hat * (h * dx_hat).mean(axis=0)
        of_psi = (dh + dh.mean(axis=0) + x_hat * (dh * x_hat).mean(axis=0) + mixed + h * ds / s) / s
        of_gamma = (abs(d_delta_z) * x_hat + abs(delta_z) * dx_hat).sum(axis=0)
        parts = (
            (f"R{{delta[{n}]}} of the batch norm", UNITS, d_delta, of_psi),
            (f"R{{dC/dgamma[{n}]}}", UNITS[1:], own.gamma, of_gamma),
            (
                f"R{{dC/dbeta[{n}]}} = sum over examples of R{{d/dz[{n}]}}",
                UNITS[1:],
                own.beta,
                abs(d_delta_z).sum(axis=0),
            ),
        )
        args = (norm_, along, self.t.psi, self.dt.psi, delta_z, d_delta_z)
        for part, (name, axes, oracle, size) in enumerate(parts):
            yield Line("norm_pullback", part, n, name, axes, args, oracle, {"": size})
