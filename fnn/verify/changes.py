"""The lines of the R-operator on layers, judged like those of back-propagation: each alone, on autodiff's values."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.batchnorm import BatchNorm, standardise
from fnn.curvature.tangents import TANGENTS, TangentRules
from fnn.equations import Line, change_lines
from fnn.equations import changes as equations
from fnn.layers import Params
from fnn.losses import Loss, as_targets
from fnn.masks import masked
from fnn.verify.equations import Case, Derivation, Failure, Judged, Right, attempt, fed, judge, single
from fnn.verify.interpret import evaluate
from fnn.verify.oracle import AUTODIFF, AUTODIFF_TANGENTS, loss_gradient, loss_gradient_change
from fnn.verify.patterns import same, statements
from fnn.verify.probes import COTANGENTS, round_array, rounded_to, single_rules
from fnn.verify.properties import of_change
from fnn.verify.report import norm
from fnn.verify.sizes import BETWEEN

SEED = 0  # of the direction
NAMES: Any = TangentRules._make(TangentRules._fields)  # in place of the rules, to tell which one a line wants


def along(params):
    """A random direction, a pytree like ``params``."""
    random = np.random.default_rng(SEED)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), params)


def change_of_lines(given: Sequence[Case], loss: Loss, rules, limit: float, coarsest: str, alone) -> list[Judged]:
    """Every line of the cases, and of the rules of the layers ``alone`` at arguments that no small network reaches."""
    rounded = partial(round_array, coarsest)
    found = [one for case in given for one in _of_case(case, loss, rules, limit, rounded)]
    for name, line in _alone(alone, loss, coarsest) if alone else ():
        found.append(single(line, name, rules, limit, CHANGES))
    return found


def _of_case(case: Case, loss: Loss, rules, limit: float, rounded) -> Iterator[Judged]:
    def right(rule: str, *args):
        return jax.tree.map(rounded, evaluate(getattr(AUTODIFF, rule), *args))

    def change(rule, *args):
        found = evaluate(getattr(AUTODIFF_TANGENTS, rule) if isinstance(rule, str) else rule, *args)
        found = jax.tree.map(lambda value: np.where(np.isfinite(value), value, 1).astype(value.dtype), found)
        return found if rule == "activation" else jax.tree.map(rounded, found)  # as a = σ(z), which is not rounded

    passed = fed(case, loss, right)
    v = jax.tree.map(rounded, along(case.params))
    for line in change_lines(passed, case.params, v, case.masks, rules=NAMES, apply=change):
        rule = line.equation.rule
        hand = attempt(getattr(rules, rule), *line.arguments)
        yield judge(line, case.name, Right(rule, line.arguments, CHANGES), hand, limit)


def _alone(layers: Params, loss: Loss, coarsest: str) -> Iterator[tuple[str, Line]]:
    """The changes of the δ's, of a = σ(z) and of a batch norm at the arguments of the rules judged alone."""
    random = np.random.default_rng(2)
    for name, line in single_rules(layers, loss):
        rule, args = line.equation.rule, rounded_to(coarsest, line).arguments
        if rule == "hidden_delta":
            g, activation, z, a = args
            dg, dz = (random.permuted(np.resize(COTANGENTS, z.shape)) for _ in range(2))
            yield name, _line(equations.ACTIVATION_CHANGE, line.layer, dz, activation, z, a)
            yield name, _line(equations.HIDDEN_CHANGE, line.layer, g, dg, activation, z, a, dz)
        elif rule == "output_delta":
            z, a = args[2:4]
            dz = random.permuted(np.resize(COTANGENTS[1:], z.shape))  # not 0, where the loss may overflow unseen
            da = evaluate(AUTODIFF_TANGENTS.activation, dz, args[1], z, a)
            yield name, _line(equations.OUTPUT_CHANGE, line.layer, *args, dz, da)
        elif rule == "norm_pullback" and line.equation.part == 0:
            norm, psi, delta_z = args
            yield from ((name, changed) for changed in _of_norm(line.layer, norm, psi, delta_z, random))


def _of_norm(n: int, norm: BatchNorm, psi, delta_z, random) -> Iterator[Line]:
    v = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), norm)
    dpsi, d_delta_z = random.normal(size=(2, *psi.shape))
    yield _line(equations.NORMALISE_CHANGE, n, norm, v, psi, dpsi)
    for equation in equations.NORM_CHANGE:
        yield _line(equation, n, norm, v, psi, dpsi, delta_z, d_delta_z)


def _line(equation, n: int, *arguments) -> Line:
    left = f"R{{delta[{n}]}}" if equation in (equations.OUTPUT_CHANGE, equations.HIDDEN_CHANGE) else ""
    return Line(equation, n, equation.at(n, left), arguments, None)


# -- the terms of every line -----------------------------------------------------------------------------------


class Normed(NamedTuple):
    """A batch norm and its ψ, (B, n), with their changes: what the first arguments of both of its rules are."""

    norm: BatchNorm
    along: BatchNorm
    psi: Any
    dpsi: Any

    def terms(self) -> dict[str, Any]:
        """Those of R{z}, (B, n) each."""
        (x_hat, _), (dx_hat, _) = self.standardised()
        return {
            "R{gamma} x_hat": self.along.gamma * x_hat,
            "gamma R{x_hat}": self.norm.gamma * dx_hat,
            "R{beta}": np.broadcast_to(self.along.beta, self.psi.shape),
        }

    def differenced(self):
        """What R{x̂}, times γ, is a difference of, and much larger where ψ hardly varies: γ R{ψ} / s, (B, n)."""
        (_, s), _ = self.standardised()
        return self.norm.gamma * self.dpsi / s

    def sizes(self, delta_z, d_delta_z, slack: float) -> tuple:
        """Of what is summed in the three results of the pull-back's change: (B, n), (n,), (n,)."""
        (x_hat, s), (dx_hat, ds) = (tuple(map(abs, pair)) for pair in self.standardised())
        x_hat, dx_hat = x_hat + slack * abs(self.psi) / s, dx_hat + slack * abs(self.dpsi) / s
        gamma, dgamma = abs(self.norm.gamma), abs(self.along.gamma)
        delta_z, d_delta_z = abs(delta_z), abs(d_delta_z)
        h, dh = gamma * delta_z, dgamma * delta_z + gamma * d_delta_z
        mixed = dx_hat * (h * x_hat).mean(axis=0) + x_hat * (h * dx_hat).mean(axis=0)
        of_psi = (dh + dh.mean(axis=0) + x_hat * (dh * x_hat).mean(axis=0) + mixed + h * ds / s) / s
        return of_psi, (d_delta_z * x_hat + delta_z * dx_hat).sum(axis=0), d_delta_z.sum(axis=0)

    def standardised(self):
        """(x̂, s) and their changes."""
        of = partial(standardise, self.norm)
        return evaluate(lambda psi, dpsi: jax.jvp(of, (psi,), (dpsi,)), self.psi, self.dpsi)


def slack(tolerance: float, dtype) -> float:
    """How much of a factor counts as a term, because it may be much larger than its product, as where σ' is small."""
    return 16 * float(jnp.finfo(dtype).eps) / tolerance


def rounding(tolerance: float, *factors) -> float:
    """That of such factors, to be added to the size of the terms."""
    return slack(tolerance, factors[0].dtype) * sum(map(norm, factors))


def terms_of(rule: str, args: tuple, oracle: np.ndarray) -> dict[str, Any]:
    """The terms that a line sums, by their formulas."""
    if rule == "psi":
        a_in, da_in, W, V, c = args
        found = {"a V^T": a_in @ V.T, "c": np.broadcast_to(c, oracle.shape)}
        return found if da_in is None else found | {"R{a} W^T": da_in @ W.T}
    if rule == "normalise":
        return Normed(*args).terms()
    if rule in ("output_delta", "hidden_delta"):
        dg = args[1] if rule == "hidden_delta" else _changed_gradient(args)
        activation, z, a = args[2:5] if rule == "hidden_delta" else args[1:4]
        through = evaluate(AUTODIFF.hidden_delta, dg, activation, z, a)
        return {"R{g} sigma'": through, "g sigma'' R{z}": oracle - through}
    if rule == "weight_gradient":
        delta, d_delta, a_in, da_in, mask = args
        found = {"R{delta}^T a": masked(d_delta.T @ a_in, mask)}
        return found if da_in is None else found | {"delta^T R{a}": masked(delta.T @ da_in, mask)}
    if rule == "input_gradient":
        delta, d_delta, W, V, mask = args
        return {"R{delta} W": masked(d_delta @ W, mask), "delta V": masked(delta @ V, mask)}
    return {}


def _changed_gradient(args: tuple) -> np.ndarray:
    """R{∂L/∂a}, (B, n_L)."""
    loss, _, _, a, y, _, da = args
    return evaluate(loss_gradient_change, loss, a, y, da)


def _upstream(rule: str, args: tuple) -> np.ndarray:
    """What σ' and σ'' are factors of."""
    if rule == "activation":
        return np.asarray(args[0])
    if rule == "hidden_delta":
        g, dg, dz = args[0], args[1], args[5]
    else:
        loss, _, _, a, y, dz, _ = args
        g, dg = evaluate(loss_gradient, loss, a, y), _changed_gradient(args)
    with np.errstate(all="ignore"):
        found = np.abs(dg) + np.abs(g) * (1 + np.abs(dz))
    return np.where(np.isfinite(found), found, 0)


def _size(rule: str, part: int, args: tuple, oracle: np.ndarray, tolerance: float) -> float:
    """The size of the terms, and a share of factors that may be much larger than their products."""
    share = slack(tolerance, oracle.dtype)
    if rule == "bias_gradient":
        return norm(np.abs(args[0]).sum(axis=0))
    if rule == "norm_pullback":
        return norm(Normed(*args[:4]).sizes(args[4], args[5], share)[part])
    if rule == "normalise":
        at = Normed(*args)
        return _total(at.terms()) + share * norm(at.differenced())
    if rule not in CHANGES.z_at:
        return _total(terms_of(rule, args, oracle))
    z_at, factors = CHANGES.z_at[rule], norm(_upstream(rule, args))
    if rule != "output_delta":  # the largest size between 0 and z: what a formula for a small σ' may be a difference of
        between = (
            evaluate(getattr(AUTODIFF_TANGENTS, rule), *args[:z_at], t * np.asarray(args[z_at]), *args[z_at + 1 :])
            for t in BETWEEN
        )
        factors += max(norm(np.where(np.isfinite(value), value, 0)) for value in between)
    else:
        factors += norm(args[3]) + norm(args[6]) + norm(evaluate(as_targets, np.asarray(args[4]), args[3]))
    return _total({"": oracle} if rule == "activation" else terms_of(rule, args, oracle)) + share * factors


def _total(terms: dict[str, Any]) -> float:
    with np.errstate(invalid="ignore"):
        total = sum(np.abs(np.asarray(term, np.float64)) for term in terms.values())
    return norm(np.where(np.isfinite(total), total, 0))


def explanations(one: Judged, rules: TangentRules, tolerance: float) -> list[str]:
    """What turns autodiff's value into the hand-written one."""
    if isinstance(one.hand, Failure):
        raised = f"it raises {type(one.hand.error).__name__}: " if one.hand.raised else ""
        return [f"{raised}{one.hand.error}"[:200]]
    hand, oracle, found = np.asarray(one.hand), one.oracle, []
    terms = terms_of(one.rule, one.line.arguments, oracle)
    for name, term in terms.items():
        if len(terms) > 1 and np.any(term):
            for what, times in (("is missing", 1), ("has the wrong sign", 2), ("stands twice", -1)):
                if same(hand, oracle - times * np.asarray(term), tolerance):
                    found.append(f"the term {name} {what}")
    beside = {"z": one.line.arguments[CHANGES.z_at[one.rule]]} if one.rule in CHANGES.z_at else {}
    with np.errstate(all="ignore"):
        return [*found, *statements(hand, oracle, tolerance, one.line.equation.axes, beside), *of_change(one, rules)]


CHANGES = Derivation(
    TANGENTS, AUTODIFF_TANGENTS, {"activation": 2, "output_delta": 2, "hidden_delta": 3}, _upstream, _size
)
