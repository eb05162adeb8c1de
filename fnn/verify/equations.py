"""Every equation of a network on one case of data: the hand-written value, autodiff's, and the size of its terms."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np

from fnn.backward import RULES, Rules
from fnn.batchnorm import standardise
from fnn.dropout import Mask, masked
from fnn.equations.walk import Line, lines, same
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
    """One line at one layer: its value by hand from autodiff's upstream values, and autodiff's own."""

    line: Line  # fed with autodiff's values; its value may be a Failure
    chained: Any  # by hand from hand-written upstream values, or a Failure
    oracle: Any
    size: float
    at: Context
    kinks: int = 0

    @property
    def rule(self) -> str:
        return self.line.equation.rule

    @property
    def part(self) -> int:
        """Which result of the rule: only norm_pullback has several."""
        return self.line.equation.part

    @property
    def hand(self) -> Any:
        return self.line.value


def equations(case: Case, loss: Loss, rules: Rules, tolerance: float) -> Iterator[Equation]:
    """All equations of the case, from the output down, each fed autodiff's upstream value and so judged alone.

    The forward lines come first, where their rules are not ours, from which autodiff's values come.
    """
    auto, traces = quantities(case.params, case.x, case.y, case.masks, loss)
    before = (case.x, *(t.a for t in traces))
    upstream: dict[str, Callable[[int], Any]] = {
        "a": before.__getitem__, "psi": lambda n: traces[n - 1].psi, "z": lambda n: traces[n - 1].z,
        "g": lambda n: auto.a[n - 1], "delta_z": lambda n: auto.z[n - 1], "delta": lambda n: auto.psi[n - 1],
    }  # fmt: skip

    def read(quantity: str, n: int, value):
        return upstream[quantity](n)

    given: dict[str, Any] = {"loss": loss, "masks": case.masks, "rules": rules, "apply": _attempt}
    fed, own = (lines(case.params, case.x, case.y, read=reads, **given) for reads in (read, same))
    for line, through in zip(fed, own):
        rule = line.equation.rule
        if not rule or (rule in ("affine", "normalise") and getattr(rules, rule) is getattr(RULES, rule)):
            continue
        at = Context(case, loss, traces, auto, line.layer - 1)
        oracle, kinks = _oracle(line, at, tolerance)
        yield Equation(line, through.value, oracle, _size(line, at, tolerance), at, kinks)


def _oracle(line: Line, at: Context, tolerance: float) -> tuple[Any, int]:
    """Autodiff's value of a line, and the number of units at a kink where it was compared with both sides."""
    auto, i, own = at.auto, at.i, cast(Any, at.auto.params[at.i])
    rule, part = line.equation.rule, line.equation.part
    if rule in ("output_delta", "hidden_delta"):
        return _one_sided_at_kinks(at, line.value, tolerance)
    values: dict[str, Callable[[], Any]] = {
        "affine": lambda: at.t.psi,
        "normalise": lambda: at.t.z,
        "norm_pullback": lambda: (auto.psi[i], own.norm.gamma, own.norm.beta)[part],
        "weight_gradient": lambda: own.W,
        "bias_gradient": lambda: own.b,
        "input_gradient": lambda: auto.a[i - 1] if i else auto.x,
    }
    return values[rule](), 0


def _size(line: Line, at: Context, tolerance: float) -> float:
    """The size of the terms that a line sums."""
    rule, part, t, mask = line.equation.rule, line.equation.part, at.t, at.mask
    if rule in ("output_delta", "hidden_delta"):
        factors = norm(at.auto.a[at.i]) + (norm(t.a) + norm(at.y) if rule == "output_delta" else 0)
        rounding = 16 * float(jnp.finfo(t.z.dtype).eps) / tolerance  # of factors much larger than their product
        return norm(at.auto.z[at.i]) + rounding * factors
    terms = _absolute(at.auto.psi[at.i])
    sizes: dict[str, Callable[[], float]] = {
        "affine": lambda: norm(_absolute(t.a_in) @ _absolute(at.weights()).T + _absolute(at.layer.b)),
        "normalise": lambda: norm(t.z) + norm(at.layer.norm.beta) + norm(at.layer.norm.gamma),
        "norm_pullback": lambda: _norm_sizes(at)[part],
        "weight_gradient": lambda: norm(masked(terms.T @ _absolute(t.a_in), mask.arrows)),
        "bias_gradient": lambda: norm(terms.sum(axis=0)),
        "input_gradient": lambda: norm(masked(terms @ _absolute(at.weights()), mask.units)),
    }
    return sizes[rule]()


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
