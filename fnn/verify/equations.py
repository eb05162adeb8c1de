"""Every equation of a network on one case of data: the hand-written value, autodiff's, and the size of its terms."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnn.backward import Rules
from fnn.batchnorm import standardise
from fnn.dropout import Mask, masked
from fnn.losses import Loss, as_targets
from fnn.network import LayerTrace, Params
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


def equations(case: Case, loss: Loss, rules: Rules, tolerance: float) -> Iterator[Equation]:
    """All equations of the case, from the output down, each fed autodiff's upstream value and so judged alone."""
    auto, traces = quantities(case.params, case.x, case.y, case.masks, loss)
    top = len(case.params) - 1
    eps = float(jnp.finfo(case.x.dtype).eps)
    floor = 16 * eps / tolerance  # rounding of the factors, where their product is much smaller than they are
    g: Any = None  # the hand-written chain
    for i in range(top, -1, -1):
        at = Context(case, loss, traces, auto, i)
        layer, t, mask, n = at.layer, at.t, at.mask, i + 1
        unit, weight = ("example", "unit"), ("unit", "input")
        target = f"delta[{n}]" if layer.norm is None else f"d/dz[{n}]"

        if i == top:
            args: tuple = (loss, layer.activation, t.z, t.a, at.case.y)
            hand = _attempt(rules.output_delta, *args)
            delta_z, scale = hand, norm(auto.a[i]) + norm(t.a) + norm(at.y)
            rule, name = "output_delta", f"(1)  {target} = dL/da[{n}] * sigma'(z[{n}])"
        else:
            hand = _attempt(rules.hidden_delta, auto.a[i], layer.activation, t.z, t.a)
            delta_z, scale = _attempt(rules.hidden_delta, g, layer.activation, t.z, t.a), norm(auto.a[i])
            rule, name = "hidden_delta", f"(2b) {target} = g[{n}] * sigma'(z[{n}])"
        oracle, kinks = _one_sided_at_kinks(at, hand, tolerance)
        size = norm(auto.z[i]) + floor * scale
        yield Equation(rule, 0, name, unit, hand, delta_z, oracle, size, at, kinks)

        delta = delta_z
        if layer.norm is not None:
            hand = _attempt(rules.norm_pullback, layer.norm, t.psi, auto.z[i])
            chained = _attempt(rules.norm_pullback, layer.norm, t.psi, delta_z)
            source = "S8" if layer.norm.gradient == "full" else "S7"
            names = (f"delta[{n}] = pull-back of d/dz[{n}] through the batch norm",
                     f"dC/dgamma[{n}] = sum over examples of d/dz[{n}] * x_hat[{n}]",
                     f"dC/dbeta[{n}] = sum over examples of d/dz[{n}]")  # fmt: skip
            own = auto.params[i].norm
            oracles, sizes = (auto.psi[i], own.gamma, own.beta), _norm_sizes(at)
            for part in range(3):
                values = (_part(hand, part), _part(chained, part))
                axes = unit if part == 0 else ("unit",)
                name = f"({source}) {names[part]}"
                yield Equation("norm_pullback", part, name, axes, *values, oracles[part], sizes[part], at)
            delta = _part(chained, 0)

        hand = _attempt(rules.weight_gradient, auto.psi[i], t.a_in, mask.arrows)
        chained = _attempt(rules.weight_gradient, delta, t.a_in, mask.arrows)
        delta_size, W_size = _absolute(auto.psi[i]), _absolute(at.weights())
        size = norm(masked(delta_size.T @ _absolute(t.a_in), mask.arrows))
        name = f"(3)  dC/dW[{n}] = delta[{n}]^T a[{n - 1}]"
        yield Equation("weight_gradient", 0, name, weight, hand, chained, auto.params[i].W, size, at)

        hand, chained = _attempt(rules.bias_gradient, auto.psi[i]), _attempt(rules.bias_gradient, delta)
        size = norm(delta_size.sum(axis=0))
        name = f"(4)  dC/db[{n}] = sum over examples of delta[{n}]"
        yield Equation("bias_gradient", 0, name, ("unit",), hand, chained, auto.params[i].b, size, at)

        hand = _attempt(rules.input_gradient, auto.psi[i], at.weights(), mask.units)
        g = _attempt(rules.input_gradient, delta, at.weights(), mask.units)
        size = norm(masked(delta_size @ W_size, mask.units))
        oracle, target = (auto.a[i - 1], f"g[{i}]") if i else (auto.x, "dC/dx")
        name = f"(2a) {target} = delta[{n}] W[{n}]"
        yield Equation("input_gradient", 0, name, ("example", "input"), hand, g, oracle, size, at)


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
