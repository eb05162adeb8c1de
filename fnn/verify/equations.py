"""Every equation of a network on one case of data: the hand-written value, autodiff's, and the size of its terms."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnn.backward import Rules
from fnn.batchnorm import standardise
from fnn.dropout import Mask, masked
from fnn.layers import LayerTrace, Params
from fnn.losses import Loss, as_targets
from fnn.verify.oracle import Quantities, one_sided, quantities
from fnn.verify.report import norm


class Case(NamedTuple):
    """Data on which equations are judged: a name, parameters, x (B, n_0), y, and a mask per layer."""

    name: str
    params: Params
    x: Any
    y: Any
    masks: tuple[Mask, ...]


class Failure(NamedTuple):
    """In place of a value: what a rule raised."""

    error: Exception


@dataclass(frozen=True)
class Context:
    """What is known at layer ``i`` (from 0) of a case: for equations and for guesses at what is wrong with them."""

    case: Case
    loss: Loss
    traces: tuple[LayerTrace, ...]
    auto: Quantities
    i: int

    @property
    def layer(self):
        return self.case.params[self.i]

    @property
    def t(self) -> LayerTrace:
        return self.traces[self.i]

    @property
    def mask(self) -> Mask:
        return self.case.masks[self.i]

    @property
    def y(self):
        return as_targets(jnp.asarray(self.case.y), self.traces[-1].a)

    def weights(self):
        return masked(self.layer.W, self.mask.arrows)


class Equation(NamedTuple):
    """One equation at one layer: its value by hand from autodiff's upstream values, and autodiff's own."""

    rule: str
    part: int  # which result of the rule: only norm_pullback has several
    name: str
    axes: tuple[str, ...]
    hand: Any  # or Failure
    chained: Any  # by hand from hand-written upstream values, or Failure
    oracle: Any
    size: float
    at: Context
    kinks: int = 0


UNITS, WEIGHTS, INPUTS = ("example", "unit"), ("unit", "input"), ("example", "input")


def equations(case: Case, loss: Loss, rules: Rules, tolerance: float) -> Iterator[Equation]:
    """All equations of the case, from the output down, each fed autodiff's upstream value and so judged alone.

    Beside it runs the hand-written chain: each part below yields its equations and returns what it hands on.
    """
    auto, traces = quantities(case.params, case.x, case.y, case.masks, loss)
    g: Any = None
    for i in range(len(case.params) - 1, -1, -1):
        at = Context(case, loss, traces, auto, i)
        delta_z = yield from _delta(at, rules, g, tolerance)
        delta = delta_z if at.layer.norm is None else (yield from _norm(at, rules, delta_z))
        g = yield from _affine(at, rules, delta)


def _delta(at: Context, rules: Rules, g, tolerance: float) -> Generator[Equation, None, Any]:
    """(1) at the output, (2b) below: ∂/∂z."""
    layer, t, n = at.layer, at.t, at.i + 1
    upstream, activation = at.auto.a[at.i], layer.activation
    target = f"delta[{n}]" if layer.norm is None else f"d/dz[{n}]"
    if n == len(at.traces):
        rule, name = "output_delta", f"(1)  {target} = dL/da[{n}] * sigma'(z[{n}])"
        hand = chained = _attempt(rules.output_delta, at.loss, activation, t.z, t.a, at.case.y)
        factors = norm(upstream) + norm(t.a) + norm(at.y)
    else:
        rule, name = "hidden_delta", f"(2b) {target} = g[{n}] * sigma'(z[{n}])"
        hand, chained = (_attempt(rules.hidden_delta, value, activation, t.z, t.a) for value in (upstream, g))
        factors = norm(upstream)
    oracle, kinks = _one_sided_at_kinks(at, hand, tolerance)
    rounding = 16 * float(jnp.finfo(t.z.dtype).eps) / tolerance  # of factors much larger than their product
    size = norm(at.auto.z[at.i]) + rounding * factors
    yield Equation(rule, 0, name, UNITS, hand, chained, oracle, size, at, kinks)
    return chained


def _norm(at: Context, rules: Rules, delta_z) -> Generator[Equation, None, Any]:
    """The batch norm's pull-back: ∂/∂ψ, ∂/∂γ, ∂/∂β."""
    layer, t, n = at.layer, at.t, at.i + 1
    hand = _attempt(rules.norm_pullback, layer.norm, t.psi, at.auto.z[at.i])
    chained = _attempt(rules.norm_pullback, layer.norm, t.psi, delta_z)
    source = "S8" if layer.norm.gradient == "full" else "S7"
    own: Any = at.auto.params[at.i].norm
    parts = (
        (f"delta[{n}] = pull-back of d/dz[{n}] through the batch norm", UNITS, at.auto.psi[at.i]),
        (f"dC/dgamma[{n}] = sum over examples of d/dz[{n}] * x_hat[{n}]", UNITS[1:], own.gamma),
        (f"dC/dbeta[{n}] = sum over examples of d/dz[{n}]", UNITS[1:], own.beta),
    )
    for part, ((name, axes, oracle), size) in enumerate(zip(parts, _norm_sizes(at))):
        values = _part(hand, part), _part(chained, part)
        yield Equation("norm_pullback", part, f"({source}) {name}", axes, *values, oracle, size, at)
    return _part(chained, 0)


def _affine(at: Context, rules: Rules, delta) -> Generator[Equation, None, Any]:
    """(3), (4) and (2a), which all begin with δ."""
    t, mask, n, own, W = at.t, at.mask, at.i + 1, at.auto.params[at.i], at.weights()
    upstream = at.auto.psi[at.i]
    terms = _absolute(upstream)

    hand, chained = (_attempt(rules.weight_gradient, value, t.a_in, mask.arrows) for value in (upstream, delta))
    size = norm(masked(terms.T @ _absolute(t.a_in), mask.arrows))
    name = f"(3)  dC/dW[{n}] = delta[{n}]^T a[{n - 1}]"
    yield Equation("weight_gradient", 0, name, WEIGHTS, hand, chained, own.W, size, at)

    hand, chained = (_attempt(rules.bias_gradient, value) for value in (upstream, delta))
    name = f"(4)  dC/db[{n}] = sum over examples of delta[{n}]"
    yield Equation("bias_gradient", 0, name, UNITS[1:], hand, chained, own.b, norm(terms.sum(axis=0)), at)

    hand, chained = (_attempt(rules.input_gradient, value, W, mask.units) for value in (upstream, delta))
    size = norm(masked(terms @ _absolute(W), mask.units))
    oracle, target = (at.auto.a[at.i - 1], f"g[{n - 1}]") if at.i else (at.auto.x, "dC/dx")
    name = f"(2a) {target} = delta[{n}] W[{n}]"
    yield Equation("input_gradient", 0, name, INPUTS, hand, chained, oracle, size, at)
    return chained


def _absolute(array) -> np.ndarray:
    return np.abs(np.asarray(array, np.float64))


def _attempt(rule: Callable, *args):
    """The rule's value; a Failure if it raises, and the same Failure again where one is among its arguments."""
    for arg in args:
        if isinstance(arg, Failure):
            return arg
    try:
        return rule(*args)
    except Exception as error:  # a rule is the user's: whatever it raises is a finding
        return Failure(error)


def _part(value, part: int):
    if isinstance(value, Failure):
        return value
    try:
        return value[part]
    except (IndexError, TypeError) as error:
        return Failure(error)


def _norm_sizes(at: Context) -> tuple[float, float, float]:
    """The sizes of the terms that a batch norm's pull-back sums."""
    x_hat, s = map(_absolute, standardise(at.layer.norm, at.t.psi))
    delta_z = _absolute(at.auto.z[at.i])
    h = _absolute(at.layer.norm.gamma) * delta_z
    terms = (h + h.mean(axis=0) + x_hat * (h * x_hat).mean(axis=0)) / s
    return norm(terms), norm((delta_z * x_hat).sum(axis=0)), norm(delta_z.sum(axis=0))


def _one_sided_at_kinks(at: Context, hand, tolerance: float):
    """Autodiff's ∂/∂z, with the hand-written value where a unit sits at a kink and it lies between both sides.

    Returns it with the number of such units. At a kink every value between the one-sided derivatives is a
    derivative that descent may use, and autodiff's is one convention.
    """
    oracle, activation, z = np.asarray(at.auto.z[at.i]), at.layer.activation, at.t.z
    if isinstance(hand, Failure) or np.shape(hand) != oracle.shape or not is_elementwise(activation, z):
        return oracle, 0
    below, above = (np.asarray(slope) for slope in one_sided(activation, z))
    kink = np.abs(above - below) > 1e-3 * (np.abs(above) + np.abs(below))
    if not kink.any():
        return oracle, 0
    g, hand = np.asarray(at.auto.a[at.i]), np.asarray(hand)
    sides = np.stack([g * below, g * above])
    slack = tolerance * np.abs(g)
    between = (hand >= sides.min(axis=0) - slack) & (hand <= sides.max(axis=0) + slack)
    return np.where(kink & between, hand, oracle), int(kink.sum())


def is_elementwise(activation, z) -> bool:
    """Whether the activation has a derivative entry by entry; Softmax has not."""
    try:
        activation.derivative(z, activation.value(z))
    except (TypeError, NotImplementedError, AttributeError):
        return False
    return True
