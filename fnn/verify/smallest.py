"""The smallest failing example: fewer examples and units, and rounder numbers, as long as the mistake shows."""

from collections.abc import Callable

import jax
import numpy as np

from fnn.backward import Rules
from fnn.verify.equations import Judged, Right, attempt, judge
from fnn.verify.interpret import Value, evaluate
from fnn.verify.properties import NAMES
from fnn.verify.report import apart, compare
from fnn.verify.sizes import DELTAS

TOO_SMALL = 1e-3  # a mistake counts in an example if it is this large beside the right value


def smallest(one: Judged, rules: Rules, tolerance: float) -> str:
    """The arguments of a rule, cut and rounded, with the hand-written and the right value; "" if nothing fails."""
    rule = one.rule

    def judged(leaves) -> tuple[np.ndarray, np.ndarray] | None:
        arguments = _consistent(rule, jax.tree.unflatten(structure, leaves))
        hand = attempt(getattr(rules, rule), *arguments)
        if not isinstance(hand, Value):
            return None
        found = judge(one.line._replace(arguments=arguments), "", Right(rule, arguments), hand, tolerance)
        ours, right = np.asarray(found.hand), found.oracle
        if ours.shape != right.shape or not right.size:
            return None
        error = compare("", ours, right, tolerance, found.size)
        return (ours, right) if error.error > max(tolerance, TOO_SMALL) or not np.isfinite(error.error) else None

    leaves, structure = jax.tree.flatten(one.line.arguments)
    try:
        found = shrunk([leaf if callable(leaf) else np.asarray(leaf) if _is_array(leaf) else leaf for leaf in leaves],
                       lambda leaves: judged(leaves) is not None)  # fmt: skip
        values = judged(found) if found is not None else None
    except Exception:  # a rule that raises where it is asked something small has been reported already
        return ""
    if found is None or values is None:
        return ""
    arguments = _consistent(rule, jax.tree.unflatten(structure, found))
    given = [f"{name} = {shown(arg)}" for name, arg in zip(NAMES[rule], arguments) if _is_array(arg)]
    return f"{', '.join(given)}: {beside(*values)}"


def beside(hand: np.ndarray, right: np.ndarray) -> str:
    """Both values, with as many digits as it takes to tell them apart."""
    if hand.size == 1:
        return "hand {}, right {}".format(*apart(hand.item(), right.item()))
    return f"hand {shown(hand)}, right {shown(right)}"


def shown(array) -> str:
    """The numbers of a small array on one line."""
    return np.array2string(np.asarray(array), separator=", ", precision=6, suppress_small=False).replace("\n", "")


def _is_array(leaf) -> bool:
    return isinstance(leaf, (np.ndarray, jax.Array, np.generic))


def _consistent(rule: str, arguments: tuple) -> tuple:
    """The arguments with a = σ(z)."""
    if rule not in DELTAS:
        return arguments
    activation, z = arguments[1:3]
    return (*arguments[:3], evaluate(activation.value, z), *arguments[4:])


def shrunk(leaves: list, fails: Callable[[list], bool]) -> list | None:
    """The leaves cut along their axes and rounded, while ``fails`` holds; None if it does not hold for them as given.

    Axes of equal length are taken to count the same thing, and are cut together.
    """
    if not fails(leaves):
        return None
    for size in sorted({n for leaf in leaves if _is_array(leaf) for n in leaf.shape if n > 1}, reverse=True):
        kept = list(range(size))
        for chosen in ([i] for i in dict.fromkeys((0, size // 2, size - 1))):
            cut = _cut(leaves, size, chosen)
            if _holds(fails, cut):
                leaves, kept = cut, chosen
                break
        if len(kept) > 2:
            for chosen in ([0, 1], list(range(size // 2))):
                cut = _cut(leaves, size, chosen)
                if _holds(fails, cut):
                    leaves = cut
                    break
    for digits in (0, 1, 2):
        rounded = [_rounded(leaf, digits) for leaf in leaves]
        if _holds(fails, rounded):
            return rounded
    for i, leaf in enumerate(leaves):
        for digits in (0, 1, 2):
            rounded = [*leaves[:i], _rounded(leaf, digits), *leaves[i + 1 :]]
            if _holds(fails, rounded):
                leaves = rounded
                break
    return leaves if sum(leaf.size for leaf in leaves if _is_array(leaf)) <= 9 else None


def _holds(fails: Callable, leaves: list) -> bool:
    try:
        return fails(leaves)
    except Exception:  # the shapes no longer fit together
        return False


def _cut(leaves: list, size: int, chosen: list[int]) -> list:
    def cut(leaf):
        for axis in range(leaf.ndim if _is_array(leaf) else 0):
            if leaf.shape[axis] == size:
                leaf = leaf.take(chosen, axis)
        return leaf

    return [cut(leaf) for leaf in leaves]


def _rounded(leaf, digits: int):
    if not _is_array(leaf) or not np.issubdtype(leaf.dtype, np.floating):
        return leaf
    return np.round(leaf, digits)
