"""Every line of a network on one case of data: the hand-written value, autodiff's, and the size of its terms."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.backward import RULES, Rules
from fnn.checks.arrays import describe
from fnn.equations import Line, lines
from fnn.layers import Params
from fnn.losses import Loss
from fnn.masks import Mask
from fnn.verify.devices import as_called
from fnn.verify.differences import by_rows
from fnn.verify.interpret import Traced, Value, called, evaluate, is_array, trace
from fnn.verify.neighbours import ALONE_OF_ZERO, OF_ZERO, Neighbours
from fnn.verify.oracle import AUTODIFF, loss_gradient
from fnn.verify.sizes import DELTAS, size, upstream

FORWARD = ("affine", "normalise")
POLE = 1e-3  # a derivative of the loss beyond it / ε, next to a saturated output, is taken for that of a pole
TOO_LARGE = 1e15  # what is fed: squares and products of it are still finite in float32
NAMES: Any = Rules._make(Rules._fields)  # in place of the rules, so that ``lines`` tells which one it wants


class Case(NamedTuple):
    """Data on which equations are judged: a name, parameters, x (B, n_0), y, and a mask per layer."""

    name: str
    params: Params
    x: Any
    y: Any
    masks: tuple[Mask, ...]


class Derivation(NamedTuple):
    """A set of rules to be judged: ours, and autodiff's, of the derivation or of its change along a direction.

    z_at: by rule the place of z, in which it may have kinks, among its arguments. upstream: (rule, args) -> what is
    multiplied by σ' there. size: (rule, part, args, oracle, tolerance) -> that of the summed terms. rows: (rule, args,
    z) -> what a rule is the derivative of by z, for each example, if that is known.
    """

    ours: Any
    autodiff: Any
    z_at: dict[str, int]
    upstream: Callable
    size: Callable
    rows: Callable | None = None


class Failure(NamedTuple):
    """In place of a value: what a rule raised, or what is wrong with what it returned."""

    error: Exception
    raised: bool = True


@dataclass(frozen=True)
class Judged:
    """One line: its arguments, which are autodiff's values, what the rule makes of them, and what is right.

    hand: the rule's value, or a Failure; oracle: autodiff's, with the hand-written entries where those are right
    too; known: where there is anything to compare with; chained: by hand from hand-written arguments, or None;
    name: of the case; case, lines: the case
    itself and all of its lines, for guesses that look at other layers.
    """

    line: Line
    name: str
    hand: Any
    oracle: np.ndarray
    known: np.ndarray
    size: float
    kinks: int
    differences: int
    precision: str
    chained: Any = None
    case: Case | None = None
    lines: tuple[Line, ...] = ()

    @property
    def rule(self) -> str:
        return self.line.equation.rule

    @property
    def part(self) -> int:
        return self.line.equation.part

    @property
    def layer(self) -> int:
        return self.line.layer


def _rows(rule: str, args: tuple, z) -> np.ndarray:
    """What a δ is the derivative of by z: a number for each example, (B,)."""
    if rule == "output_delta":
        loss, activation, y = args[0], args[1], args[4]
        return evaluate(lambda z: loss.value(activation.value(z), y), z)
    g, activation = args[0], args[1]
    return (g * evaluate(activation.value, z)).sum(axis=1)


FIRST = Derivation(RULES, AUTODIFF, dict.fromkeys(DELTAS, 2), upstream, size, _rows)


def attempt(rule: Callable, *args) -> Value | Failure:
    """What a rule returns, or what it raises."""
    try:
        with as_called():
            return called(rule, *args)
    except Exception as error:  # a rule is the user's: whatever it raises is a finding
        return Failure(error)


def judged(
    case: Case, loss: Loss, rules: Rules, tolerance: float, rounded: Callable = lambda value: value
) -> Iterator[Judged]:
    """All lines of the case in the order of the computation, each fed autodiff's values and so judged alone.

    rounded: what autodiff's values are rounded to before they are fed, so that a rule can be judged on them in a
    coarser dtype too; not a = σ(z), which rules use beside z. Forward lines are judged where their rules are not ours.
    """
    found: list[Right] = []
    chained: list[Any] = []

    def right(rule: str, *args):
        found.append(Right(rule, args))
        return jax.tree.map(rounded, found[-1].value)

    def by_hand(rule, *args):
        if not isinstance(rule, str):
            return _unless_failed(rule, *args)
        chained.append(_unless_failed(getattr(rules, rule), *args))
        return chained[-1] if isinstance(chained[-1], Failure) else jax.tree.map(rounded, chained[-1])

    walked = fed(case, loss, right)
    with contextlib.suppress(Exception):  # a broken forward rule breaks the chain, and is reported where it is judged
        for _ in _walk(case, loss, by_hand):
            pass
    broken = Failure(RuntimeError("an earlier line is broken"))
    pairs = zip(found, [*chained, *(broken for _ in found[len(chained) :])])
    for line in walked:
        rule, part = line.equation.rule, line.equation.part
        if rule and part == 0:
            by_autodiff, own = next(pairs)
            hand = attempt(getattr(rules, rule), *line.arguments) if is_judged(rule, rules) else None
        if rule and hand is not None:
            yield judge(line, case.name, by_autodiff, hand, tolerance, (part_of(rule, part, own), case, walked))


def fed(case: Case, loss: Loss, right: Callable) -> tuple[Line, ...]:
    """All lines, each on the values ``right(rule, *args)`` of the ones before.

    A value that is not finite or is huge is replaced by a random one before it is fed.
    """
    random = np.random.default_rng(0)

    def usable(value) -> np.ndarray:
        value = np.asarray(value)
        known = np.abs(value) < TOO_LARGE
        return value if known.all() else np.where(known, value, random.normal(size=value.shape)).astype(value.dtype)

    def apply(rule, *args):
        return jax.tree.map(usable, right(rule, *args) if isinstance(rule, str) else evaluate(rule, *args))

    return tuple(_walk(case, loss, apply))


def _walk(case: Case, loss: Loss, apply: Callable) -> Iterator[Line]:
    return lines(case.params, case.x, case.y, loss=loss, masks=case.masks, rules=NAMES, apply=apply)


def is_judged(rule: str, rules: Rules) -> bool:
    """Whether there is anything to judge: autodiff's values come from our forward rules."""
    return rule not in FORWARD or getattr(rules, rule) is not getattr(RULES, rule)


def single(line: Line, name: str, rules, tolerance: float, of: Derivation = FIRST) -> Judged:
    """One line on arguments of its own."""
    right = Right(line.equation.rule, line.arguments, of)
    return judge(line, name, right, attempt(getattr(rules, right.rule), *line.arguments), tolerance)


def _unless_failed(rule, *args):
    """One line of the hand-written chain: its value, or the Failure that it or an earlier line is."""
    failed = next((arg for arg in args if isinstance(arg, Failure)), None)
    found = failed or attempt(rule, *args)
    return found.value if isinstance(found, Value) else found


class Right:
    """What is right for a rule at its arguments: autodiff's value, and differences where that is not finite."""

    def __init__(self, rule: str, args: tuple, of: Derivation = FIRST):
        self.rule, self.args, self.of = rule, args, of
        traced, leaves = trace(getattr(of.autodiff, rule), *args)
        self.value = traced(*leaves)
        self.near: Neighbours | None = None
        self.farther: Callable[[], Neighbours] | None = None
        self.doubt, self.differences = np.zeros(()), 0
        if rule in of.z_at:
            self.near = _near(traced, leaves, args[of.z_at[rule]])
            self.farther = partial(_near, traced, leaves, args[of.z_at[rule]], ALONE_OF_ZERO)
            if of.rows is not None and not np.isfinite(self.value).all():
                self._by_differences(of.rows)
        if rule == "output_delta":
            self.value = np.where(_indefinite(*args[:5])[:, None], np.nan, self.value)

    def beside_kinks(self, hand: np.ndarray, oracle: np.ndarray, slack: np.ndarray) -> tuple[np.ndarray, int]:
        """The oracle's array, with hand-written entries that are right at a kink, and how many values are at one."""
        if self.near is None or self.farther is None:
            return oracle, 0
        (found,), kinks = self.near.accept([hand], [oracle], [slack])
        if hand.shape == found.shape and (self.args[self.of.z_at[self.rule]] == 0).any():
            with np.errstate(invalid="ignore"):
                apart = np.abs(hand - found) > slack
            if apart.any():
                (found,), _ = self.farther().accept([hand], [found], [slack])
        return found, kinks

    def _by_differences(self, rows: Callable) -> None:
        unknown = ~np.isfinite(self.value)
        slopes, doubt = by_rows(partial(rows, self.rule, self.args), self.args[self.of.z_at[self.rule]])
        with np.errstate(invalid="ignore"):
            unknown &= doubt <= 1e-6 * np.maximum(np.abs(slopes), 1)
        self.value, self.doubt = np.where(unknown, slopes, self.value), np.where(unknown, doubt, 0)
        self.differences = int(unknown.sum())


def _indefinite(loss, activation, z, a, y) -> np.ndarray:
    """The examples, (B,), whose δ is 0 · ∞: σ is so saturated that a no longer depends on z, where the loss has a pole.

    A probability that is exactly 0 or 1 has lost what its logarithm needs. Only a fused δ, from z, is right there.
    """
    z, a = np.asarray(z), np.asarray(a)
    eps = float(jnp.finfo(a.dtype).eps)
    with np.errstate(all="ignore"):
        smallest = 4 * float(jnp.finfo(a.dtype).tiny)
        saturated = (np.abs(evaluate(activation.value, 2 * z) - a) <= smallest) & (z != 0)
        inside = a + 16 * eps * (evaluate(activation.value, 0 * z) - a)
        steep = ~(np.abs(evaluate(loss_gradient, loss, inside, y)) < POLE / eps)
    return (saturated & steep).any(axis=1)


def _near(traced: Traced, leaves: list, z, of_zero=OF_ZERO) -> Neighbours:
    """The value beside z, from moves of z alone."""
    place = next(i for i, leaf in enumerate(leaves) if leaf is z)

    def at(z):
        return [traced(*leaves[:place], z, *leaves[place + 1 :])]

    return Neighbours(at, np.asarray(z), alone=0, of_zero=of_zero)


def judge(line, name: str, right: Right, hand, tolerance: float, around: tuple = ()) -> Judged:
    """One line, by hand and by autodiff."""
    rule, part, args = line.equation.rule, line.equation.part, line.arguments
    oracle = np.asarray(right.value[part] if rule == "norm_pullback" else right.value)
    precision, ours = "float64", hand
    if isinstance(hand, Value):
        precision, ours = hand.precision, part_of(rule, part, hand.value)
        if not isinstance(ours, Failure) and not is_array(ours):
            ours = Failure(TypeError(f"expected an array, got {describe(ours)}"), raised=False)
    known, kinks = np.isfinite(oracle), 0
    if not isinstance(ours, Failure):
        ours = np.asarray(ours)
        if right.near is not None:
            slack = tolerance * np.abs(right.of.upstream(rule, args))
            oracle, kinks = right.beside_kinks(ours, oracle, np.broadcast_to(slack, oracle.shape))
        if ours.shape == oracle.shape:
            with np.errstate(invalid="ignore"):
                near = (np.abs(ours - oracle) <= 10 * right.doubt) & (right.doubt > 0)
            ours, oracle = np.where(known, ours, 0), np.where(known, np.where(near, ours, oracle), 0)
    size = right.of.size(rule, part, args, np.where(np.isfinite(oracle), oracle, 0), tolerance)
    return Judged(line, name, ours, oracle, known, size, kinks, right.differences, precision, *around)


def part_of(rule: str, part: int, value):
    """One of the results of a rule."""
    if rule != "norm_pullback" or isinstance(value, Failure):
        return value
    if not isinstance(value, tuple) or len(value) != 3:
        return Failure(ValueError(f"expected (d/dpsi, d/dgamma, d/dbeta), got {describe(value)}"), raised=False)
    return value[part]


def is_elementwise(activation, z) -> bool:
    """Whether the activation has a derivative entry by entry; Softmax has not."""
    try:
        evaluate(lambda z: activation.derivative(z, activation.value(z)), z)
    except Exception:  # not defined, or whatever a user's own raises
        return False
    return True
