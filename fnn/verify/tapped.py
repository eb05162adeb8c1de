"""The δ's of named quantities against autodiff, each judged alone.

The function is cut at its taps. Then the δ of a quantity follows from the δ's of those that use it by one step of
autodiff, so that the δ that is wrong is told from those that are wrong only because they use it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify.blackbox import BlackBox, not_compared
from fnn.verify.branches import SKIP, Wrong, computed_from, explained, lacking
from fnn.verify.devices import as_called
from fnn.verify.interpret import evaluate, is_array
from fnn.verify.oracle import TOLERANCE
from fnn.verify.report import Finding, Report, compare
from fnn.verify.taps import run_tapped, tapped


class Returned(NamedTuple):
    """What a hand-written function returned: its gradient, or None, and its δ's by the names of the taps."""

    gradient: Any
    deltas: dict[str, Any]


def returned(value, params, names: list[str]) -> Returned:
    """``(gradient, δ's)``, or a dict where the δ's stand beside the gradients by those names, or stand alone."""
    if str(jax.tree.structure(value)) == str(jax.tree.structure(params)):
        return Returned(value, {})
    own = set(params) if isinstance(params, dict) else set()
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
        gradient, deltas = value
    elif isinstance(value, dict):
        gradient = {name: leaf for name, leaf in value.items() if name in own} or None
        deltas = {name: leaf for name, leaf in value.items() if name not in own}
    else:
        return Returned(value, {})
    flat = {f"{name}{jax.tree_util.keystr(path)}": leaf for name, tree in deltas.items()
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}  # fmt: skip
    stacked = [name for name, leaf in flat.items() if name not in names and f"{name}[0]" in names and np.ndim(leaf)]
    for name in stacked:  # over the steps of a loop
        flat |= {f"{name}[{i}]": leaf for i, leaf in enumerate(flat.pop(name))}
    return Returned(gradient, flat)


def compare_tapped(hand: Callable, objective: Callable, inputs, dtype: str, tolerance: float | None) -> Report | None:
    """The report on every named quantity, or None where the hand-written function returns none.

    inputs: the parameters, and the tuple of the other arguments, in ``dtype``.
    """
    params, args = inputs
    try:
        names = tapped(objective, params, args)
    except NotImplementedError:
        if str(jax.tree.structure(evaluate(hand, params, *args))) == str(jax.tree.structure(params)):
            return None  # no δ is to be compared
        raise
    with as_called():
        found = returned(evaluate(hand, params, *args), params, names) if names else Returned(None, {})
    if not found.deltas:
        return None
    broken = _broken(found, params, names)
    if broken:
        return Report((Finding("the δ's", float("inf"), 0.0, note=broken),), dtype, what="quantity")
    return _Tapped(hand, objective, inputs, names, found, dtype).report(tolerance)


def _broken(found: Returned, params, names: list[str]) -> str:
    unknown = [name for name in found.deltas if name not in names]
    if unknown:
        tapped = ", ".join(names)
        return f"{unknown[0]!r} is not tapped; tapped: {tapped}; write tap({unknown[0]!r}, value) in the objective"
    expected, got = str(jax.tree.structure(params)), str(jax.tree.structure(found.gradient))
    if found.gradient is not None and expected != got:
        return f"the gradient has the structure {got}, expected {expected}"
    no_array = [name for name, leaf in found.deltas.items() if not is_array(leaf)]
    return f"{no_array[0]!r}: expected an array" if no_array else ""


class _Tapped:
    """A hand-written function with its δ's, and the function that names the quantities, at its arguments."""

    def __init__(self, hand, objective, inputs, names: list[str], found: Returned, dtype: str):
        self.function, self.objective, self.dtype = hand, objective, dtype
        self.left_out = [name for name in names if name not in found.deltas]
        self.names = [name for name in names if name in found.deltas]
        self.with_gradient = found.gradient is not None
        self.params, self.args = inputs
        paths = jax.tree_util.tree_leaves_with_path(self.params)
        self.leaves = [f"params{jax.tree_util.keystr(path)}" for path, _ in paths]
        self.values = evaluate(self.tapped, self.params, self.args)

    def report(self, tolerance: float | None) -> Report:
        inputs = self.consistent((self.params, self.args, None))
        backward = [*reversed(self.names), *(self.leaves if self.with_gradient else ())]
        labels = "params", "args", "delta"
        box = BlackBox(self.hand, self.local, inputs, backward, self.dtype, labels, self.consistent)
        limit = TOLERANCE[box.precision] if tolerance is None else tolerance
        ours, local, whole = (box.values(of) for of in (box.hand, box.oracle, self.whole))
        ends = [compare(name, a, b, limit) for name, a, b in zip(backward, ours, whole)]
        known: list[dict[str, Any]] = [{"kind": end.name, "end_to_end": end.error} for end in ends]
        found = box.findings(ours, local, limit, known)
        for i, finding in enumerate(found):
            if not finding.ok and ends[i].ok:  # it does not use the wrong ones
                found[i] = replace(ends[i], **known[i])
            elif not finding.ok and ours[i].shape == local[i].shape:
                note = self.missing(backward[i], inputs, ours[i], local[i])
                found[i] = replace(finding, note=note or finding.note)
        notes = not_compared(whole)
        notes += [f"tapped, and not returned: {', '.join(self.left_out)}"] if self.left_out else []
        wrong = [finding.name for finding in found if not finding.ok]
        notes += [f"the first wrong one in backward order: {wrong[0]}"] if len(wrong) > 1 else []
        return Report(tuple(found), self.dtype, tuple(notes), what="quantity")

    def hand(self, inputs) -> list:
        """The δ's in backward order, and the gradient's leaves."""
        params, args, _ = inputs
        found = returned(self.function(params, *args), params, self.names)
        deltas = [found.deltas[name] for name in reversed(self.names)]
        return deltas + (jax.tree.leaves(found.gradient) if self.with_gradient else [])

    def consistent(self, inputs):
        """The arguments with the δ's that the hand-written function has for them; NaN for those of another shape."""
        params, args, _ = inputs
        with as_called():
            deltas = evaluate(self.hand, (params, args, None))[: len(self.names)]
        pairs = zip(self.names, reversed(deltas), self.tapped_values(params, args))
        return params, args, {name: _like(value, delta) for name, delta, value in pairs}

    def tapped(self, params, args) -> list:
        """The quantities."""
        found: dict[str, Any] = {}
        run_tapped(self.objective, params, args, lambda name, value: found.setdefault(name, value))
        return [found[name] for name in self.names]

    def tapped_values(self, params, args) -> list:
        return self.values if params is self.params else evaluate(self.tapped, params, args)

    def cut(self, params, args, values: list):
        """The quantities and the objective, each computed from these values of the quantities before it."""
        given, found = dict(zip(self.names, values)), {}

        def at(name, value):
            found[name] = value
            return given.get(name, value)

        end = run_tapped(self.objective, params, args, at)
        return [found[name] for name in self.names], end

    def local(self, inputs) -> list:
        """As ``hand``: what follows from the hand-written δ's of the quantities that use each one."""
        params, args, deltas = inputs
        return self.pulled(params, args, ([deltas[name] for name in self.names], 1.0))

    def pulled(self, params, args, seeds) -> list:
        values = self.tapped(params, args)
        (_, end), pull = jax.vjp(lambda params, values: self.cut(params, args, values), params, values)
        deltas, last = seeds
        by_params, by_values = pull((list(deltas), jnp.asarray(last, end.dtype)))
        return [*reversed(by_values), *(jax.tree.leaves(by_params) if self.with_gradient else ())]

    def whole(self, inputs) -> list:
        """As ``hand``: autodiff of the whole function."""
        params, args, _ = inputs

        def moved(params, moves):
            by = dict(zip(self.names, moves))
            return run_tapped(
                self.objective, params, args, lambda name, value: value + by[name] if name in by else value
            )

        moves = [jnp.zeros_like(value) for value in self.tapped(params, args)]
        by_params, by_values = jax.grad(moved, argnums=(0, 1))(params, moves)
        return [*reversed(by_values), *(jax.tree.leaves(by_params) if self.with_gradient else ())]

    def missing(self, name: str, inputs, hand, right) -> str:
        """What a δ lacks: the term of another quantity or of one use of this one, or the derivative of a function."""
        params, args, by_name = inputs
        deltas = [by_name[name] for name in self.names]
        order = [*self.leaves, *self.names]
        array = Wrong(order.index(name), np.asarray(hand), np.asarray(right))

        def function(params, values):
            return self.cut(params, args, values)

        cut: tuple = (params, self.values)
        related = self.users(function, cut, array.place)
        note = lacking(function, cut, (deltas, 1.0), array, order, related)
        if SKIP in note:
            return note
        readers = sorted(computed_from(function, cut, array.place))
        reader = self.missing_reader(readers, (params, args, deltas), array)
        return f"the term through {reader} is missing" if reader else note

    def missing_reader(self, readers: list[int], inputs, array: Wrong) -> str:
        """The quantity among these, or the objective, that was forgotten as one that is computed from this one."""
        params, args, deltas = inputs
        place = [*reversed(self.names), *self.leaves].index([*self.leaves, *self.names][array.place])
        seeds = [*deltas, 1.0]
        terms = []
        for reader in readers if len(readers) > 1 else []:
            alone = [seed if i == reader else 0 * seed for i, seed in enumerate(seeds)]
            terms.append(evaluate(self.pulled, params, args, (alone[:-1], alone[-1]))[place])
        found = explained(terms, array)
        return "" if found is None else [*self.names, "the objective"][readers[found]]

    def users(self, function: Callable, inputs: tuple, place: int) -> set[int]:
        """The places of all quantities that are computed from that at a place, through others too."""
        found: set[int] = set()
        pending = [place]
        while pending:
            direct = computed_from(function, inputs, pending.pop())
            new = {len(self.leaves) + i for i in direct if i < len(self.names)} - found
            found |= new
            pending += new
        return found


def _like(value, delta):
    """The δ of a quantity; NaN if it has another shape."""
    value = np.asarray(value)
    return np.asarray(delta, value.dtype) if np.shape(delta) == value.shape else np.full_like(value, np.nan)
