"""What is true of a rule itself, where no statement is true of its values: which method is wrong, or what is not read.

Every statement is tested by calling the rule, or the method of an activation or a loss that it uses, once more.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.backward import Rules
from fnn.batchnorm import standardise
from fnn.curvature.tangents import TangentRules
from fnn.losses import Loss
from fnn.verify.equations import Failure, Judged, attempt, is_elementwise, part_of
from fnn.verify.interpret import Value, evaluate, is_array
from fnn.verify.oracle import AUTODIFF, AUTODIFF_TANGENTS, loss_gradient, loss_gradient_change, slope
from fnn.verify.patterns import same

CLOSE = 1e-7
NAMES = {  # of the arguments of every rule
    "affine": ("a_in", "W", "b"),
    "normalise": ("norm", "psi"),
    "output_delta": ("loss", "activation", "z", "a", "y"),
    "input_gradient": ("delta", "W", "mask"),
    "hidden_delta": ("g", "activation", "z", "a"),
    "norm_pullback": ("norm", "psi", "delta_z"),
    "weight_gradient": ("delta", "a_in", "mask"),
    "bias_gradient": ("delta",),
}
NAMES_OF_CHANGES = {
    "psi": ("a_in", "R{a_in}", "W", "V", "c"),
    "normalise": ("norm", "R{norm}", "psi", "R{psi}"),
    "activation": ("R{z}", "activation", "z", "a"),
    "output_delta": ("loss", "activation", "z", "a", "y", "R{z}", "R{a}"),
    "hidden_delta": ("g", "R{g}", "activation", "z", "a", "R{z}"),
    "norm_pullback": ("norm", "R{norm}", "psi", "R{psi}", "delta_z", "R{delta_z}"),
    "weight_gradient": ("delta", "R{delta}", "a_in", "R{a_in}", "mask"),
    "bias_gradient": ("R{delta}",),
    "input_gradient": ("delta", "R{delta}", "W", "V", "mask"),
}
DIRECTIONS = ("R{a_in}", "V", "c", "R{norm}", "R{psi}", "R{z}", "R{a}", "R{g}", "R{delta_z}", "R{delta}")
LINEAR = ("g", "delta", "delta_z")  # arguments in which a rule of back-propagation is linear


def of_rule(one: Judged, rules: Rules) -> Iterator[str]:
    """What is true of a rule of back-propagation."""
    args = one.line.arguments
    if one.rule == "hidden_delta":
        yield from _of_activation(*args[1:4])
    elif one.rule == "output_delta":
        loss, activation, z, a, y = args
        yield from _of_loss(loss, activation, z, a, y)
        yield from _of_activation(activation, z, a)
    yield from _reads(one, getattr(rules, one.rule), getattr(AUTODIFF, one.rule), NAMES[one.rule])
    if one.rule == "norm_pullback" and one.part == 0:
        yield from _components(one, rules.norm_pullback)


def of_change(one: Judged, rules: TangentRules) -> Iterator[str]:
    """What is true of a line of the R-operator."""
    args = one.line.arguments
    if one.rule == "hidden_delta":
        yield from _of_activation(*args[2:5])
        yield from _of_second_derivative(*args[2:5])
    elif one.rule == "activation":
        yield from _of_activation(*args[1:4])
    elif one.rule == "output_delta":
        loss, activation, z, a, y, _, da = args
        yield from _of_hessian(loss, a, y, da)
        yield from _of_loss(loss, activation, z, a, y)
        yield from _of_activation(activation, z, a)
        yield from _of_second_derivative(activation, z, a)
    rule, right, names = getattr(rules, one.rule), getattr(AUTODIFF_TANGENTS, one.rule), NAMES_OF_CHANGES[one.rule]
    yield from _reads(one, rule, right, names)
    yield from _contributions(one, rule, right, names)


def _components(one: Judged, rule: Callable) -> Iterator[str]:
    """For which part of ∂/∂z a batch norm's pull-back is wrong: its mean, what lies along x̂, or the rest."""
    norm, psi, delta_z = one.line.arguments
    x_hat, _ = evaluate(standardise, norm, psi)
    gamma = np.asarray(norm.gamma)
    if not gamma.all() or not np.any(x_hat):
        return
    h = gamma * np.asarray(delta_z)
    mean = np.broadcast_to(h.mean(axis=0), h.shape)
    along = x_hat * (h * x_hat).sum(axis=0) / np.maximum((x_hat * x_hat).sum(axis=0), 1e-30)
    parts = {"its mean over the examples": mean, "what lies along x_hat": along, "the rest of it": h - mean - along}
    wrong = []
    for name, part in parts.items():
        found = _both(one, rule, AUTODIFF.norm_pullback, (norm, psi, part / gamma))
        if found is None:
            return
        if not same(*found, CLOSE):
            wrong.append(name)
    if 0 < len(wrong) < len(parts):
        yield f"wrong for {' and '.join(wrong)}, of d/dz"


def _contributions(one: Judged, rule: Callable, right: Callable, names: tuple[str, ...]) -> Iterator[str]:
    """Which part of the direction makes the line wrong; it is linear in all of them."""
    args = one.line.arguments
    directions = [i for i, name in enumerate(names) if name in DIRECTIONS and args[i] is not None]

    def only(kept: int) -> tuple:
        others = [
            jax.tree.map(np.zeros_like, arg) if i in directions and i != kept else arg for i, arg in enumerate(args)
        ]
        return tuple(others)

    found = {names[i]: _both(one, rule, right, only(i)) for i in directions}
    wrong = [name for name, values in found.items() if values is not None and not same(*values, CLOSE)]
    if 0 < len(wrong) < len(directions) and None not in found.values():
        yield f"wrong in what {' and '.join(wrong)} contributes"
    elif len(directions) > 1:
        nothing = _both(one, rule, right, only(-1))
        if nothing is not None and np.any(nothing[0]) and not np.any(nothing[1]):
            yield "it is not 0 where the direction is"


def _of_activation(activation, z, a) -> Iterator[str]:
    """Whether the derivative or the pull-back of the activation is wrong by itself."""
    name, ones = type(activation).__name__, np.ones_like(np.asarray(z))
    if is_elementwise(activation, z):
        right = evaluate(slope, activation, z)
        if _differs(attempt(activation.derivative, z, a), right):
            yield f"{name}.derivative(z, a) is not sigma'(z)"
        elif _differs(attempt(activation.pullback, ones, z, a), right):
            yield f"{name}.pullback(g, z, a) is not g * sigma'(z)"
        return
    g = np.random.default_rng(0).normal(size=ones.shape).astype(ones.dtype)
    if _differs(attempt(activation.pullback, g, z, a), evaluate(AUTODIFF.hidden_delta, g, activation, z, None)):
        yield f"{name}.pullback(g, z, a) is not g times the Jacobian of sigma"


def _of_second_derivative(activation, z, a) -> Iterator[str]:
    name, (g, dz) = type(activation).__name__, np.random.default_rng(0).normal(size=(2, *np.shape(z)))
    found = attempt(activation.pullback_tangent, g, z, a, dz)
    if _differs(found, evaluate(AUTODIFF_TANGENTS.hidden_delta, g, np.zeros_like(g), activation, z, None, dz)):
        method = "second_derivative(z, a) is not sigma''(z)" if is_elementwise(activation, z) else (
            "pullback_tangent(g, z, a, dz) is not the change of its pull-back"
        )  # fmt: skip
        yield f"{name}.{method}"


def _of_loss(loss, activation, z, a, y) -> Iterator[str]:
    name = type(loss).__name__
    if hasattr(loss, "gradient") and _differs(attempt(loss.gradient, a, y), evaluate(loss_gradient, loss, a, y)):
        yield f"{name}.gradient(a, y) is not dL/da"
    elif type(loss).delta is not Loss.delta:
        right = evaluate(AUTODIFF.output_delta, loss, activation, z, a, y)
        if _differs(attempt(loss.delta, activation, z, a, y), right):
            yield f"{name}.delta(activation, z, a, y) is not dL/dz"


def _of_hessian(loss, a, y, da) -> Iterator[str]:
    if not hasattr(loss, "hessian"):
        return
    if _differs(attempt(loss.hessian, a, y, da), evaluate(loss_gradient_change, loss, a, y, da)):
        yield f"{type(loss).__name__}.hessian(a, y, da) is not the change of dL/da"


def _differs(found: Value | Failure, right) -> bool:
    """Whether a method raised, or is wrong in most of what can be compared, and so not at kinks alone."""
    if isinstance(found, Failure):
        return True
    value, right = np.asarray(found.value), np.asarray(right)
    if value.shape != right.shape:
        return True
    known = np.isfinite(right)
    with np.errstate(all="ignore"):
        wrong = known & ~(np.abs(value - right) <= CLOSE * (np.abs(right) + 1e-30))
    return bool(wrong.sum() * 4 > known.sum() > 0)


def _both(one: Judged, rule: Callable, right: Callable, arguments: tuple) -> tuple[np.ndarray, np.ndarray] | None:
    """The rule's value and autodiff's at other arguments; None if the rule has none, or none of that shape."""
    hand = attempt(rule, *arguments)
    hand = part_of(one.rule, one.part, hand.value) if isinstance(hand, Value) else hand
    if isinstance(hand, Failure) or not is_array(hand):
        return None
    by_autodiff = evaluate(right, *arguments)
    return np.asarray(hand), np.asarray(by_autodiff[one.part] if one.rule == "norm_pullback" else by_autodiff)


def _reads(one: Judged, rule: Callable, right: Callable, names: tuple[str, ...]) -> Iterator[str]:
    """What the rule does not read though it should, and in what it is not linear though it should be."""
    args, random = one.line.arguments, np.random.default_rng(0)

    def values(changed: tuple) -> tuple | None:
        return _both(one, rule, right, changed)

    here = values(args)
    for i, (name, arg) in enumerate(zip(names, args)):
        if here is None or not is_array(arg) or not jnp.issubdtype(np.asarray(arg).dtype, jnp.floating) or name == "a":
            continue
        array: Any = np.asarray(arg)
        drawn = (array * random.uniform(0.5, 1.5, array.shape) + random.normal(size=array.shape)).astype(array.dtype)
        other = [*args[:i], drawn, *args[i + 1 :]]
        if name == "z" and "a" in names:  # σ'(z) may be computed from it
            other[names.index("a")] = evaluate(args[names.index("activation")].value, drawn)
        moved = values(tuple(other))
        if moved is None:
            continue
        stays = [same(before, after, CLOSE) for before, after in zip(here, moved)]
        if stays == [True, False]:
            yield f"it does not depend on {name}"
        if name in LINEAR:
            twice = values((*args[:i], 2 * array, *args[i + 1 :]))
            if twice is not None and not same(twice[0], 2 * here[0], CLOSE) and same(twice[1], 2 * here[1], CLOSE):
                yield f"it is not linear in {name}"
