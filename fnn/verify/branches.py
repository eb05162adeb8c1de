"""What a wrong cotangent lacks: the term of one of several uses of a value, or the derivative of one function.

Each use gets a copy of the value, and the cotangent of a copy is the term that comes back through this use. What is
said is what explains the numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from fnn.verify.interpret import INLINED, Traced, bound, by_jax, evaluate, trace
from fnn.verify.oracle import is_inexact, like
from fnn.verify.report import norm

SKIP = "the skip connection"
VIEWS = ("transpose", "reshape", "broadcast_in_dim", "convert_element_type", "squeeze", "expand_dims", "copy")
ADDITIONS = ("add", "add_any")
WORDS = {
    "dot_general": "the matrix product", "mul": "the product", "div": "the quotient", "add": "the addition",
    "add_any": "the addition", "sub": "the difference", "reduce_sum": "the sum", "reduce_max": "the maximum",
    "integer_pow": "the power", "square": "the square", "neg": "the negative", "logistic": "sigmoid",
}  # fmt: skip
CURVED = {"tanh", "logistic", "exp", "log", "log1p", "sin", "cos", "erf", "sqrt", "rsqrt", "square", "integer_pow",
          "custom_jvp_call", "custom_vjp_call"}  # fmt: skip
MOST = 16  # functions of which each is tried
NOTICED = 1e3  # a term is missing if what remains of the error without it is this much smaller


class Uses(NamedTuple):
    """Where a traced function uses one of its arrays: equations, and outputs that are the array itself."""

    traced: Traced
    var: Any
    equations: list
    outputs: list[int]

    @property
    def number(self) -> int:
        return len(self.equations) + len(self.outputs)


class Wrong(NamedTuple):
    """A wrong cotangent of the array at a place among the floating ones, and the right one."""

    place: int
    hand: np.ndarray
    right: np.ndarray


def lacking(function: Callable, inputs: tuple, y_bar, array: Wrong, names=(), related=()) -> str:
    """What a hand-written cotangent lacks, as a note; "" if that is not what is wrong. Arguments as below."""
    if array.hand.shape != array.right.shape or not np.isfinite(array.hand).all():
        return ""
    term = missing_term(function, inputs, y_bar, array, names, related)
    if term:
        return f"the term through {term} is missing"
    flat = missing_derivative(function, inputs, y_bar, array)
    return f"the derivative of {flat} is missing" if flat else ""


def missing_term(function: Callable, inputs: tuple, y_bar, array: Wrong, names=(), related=()) -> str:
    """The use whose term is missing in a hand-written cotangent, in words; "" if that is not what is wrong with it.

    function: of ``inputs``; y_bar: the cotangent of its value; names: of the floating arrays of the inputs; related:
    the places of those that are themselves computed from this one.
    """
    try:
        traced, arrays = trace(function, *inputs)
        floating = [place for place, leaf in enumerate(arrays) if is_inexact(leaf)]
        variables = [traced.jaxpr.jaxpr.invars[place] for place in floating]
        uses = _uses(traced, variables[array.place])
        copies = [arrays[floating[array.place]]] * uses.number
        terms = evaluate(lambda arrays, copies: _terms(uses, arrays, copies, jax.tree.leaves(y_bar)), arrays, copies)
    except Exception:  # what JAX cannot trace or differentiate cannot be looked into
        return ""
    found = explained(terms, array)
    if found is None:
        return ""
    label = _labels(uses, dict(zip(variables, names)), {variables[i] for i in related})[found]
    return label if uses.number > 1 or label == SKIP else ""  # of a single one: it is zero, which is said anyway


def missing_derivative(function: Callable, inputs: tuple, y_bar, array: Wrong) -> str:
    """The function inside whose derivative counts as 1 in a hand-written cotangent, as "tanh"; "" if there is none.

    Arguments as in :func:`missing_term`.
    """
    try:
        traced, arrays = trace(function, *inputs)
        place = [i for i, leaf in enumerate(arrays) if is_inexact(leaf)][array.place]
        jaxpr, seed = traced.jaxpr.jaxpr, jax.tree.leaves(y_bar)
        moving = _computed_from(jaxpr, {jaxpr.invars[place]})
        curved = [one for one in jaxpr.eqns if _is_curved(one) and not moving.isdisjoint(_variables(one))][:MOST]
        found = evaluate(lambda arrays: [_flattened(traced, arrays, place, one, seed) for one in curved], arrays)
    except Exception:  # what JAX cannot trace or differentiate cannot be looked into
        return ""
    chosen = explained([array.right - cotangent for cotangent in found], array)
    return "" if chosen is None else _numbered([_called(equation) for equation in curved])[chosen]


def _is_curved(equation) -> bool:
    """Whether an equation is a function of one array that returns one of this shape, and that is not linear."""
    variables, name = _variables(equation), equation.primitive.name
    same = len(variables) == len(equation.outvars) == 1 and variables[0].aval.shape == equation.outvars[0].aval.shape
    return same and name in CURVED and jax.numpy.issubdtype(equation.outvars[0].aval.dtype, jax.numpy.floating)


def _called(equation) -> str:
    name = equation.primitive.name
    inner = equation.params.get("call_jaxpr") if name in INLINED else None
    return inner.jaxpr.debug_info.func_name if inner is not None else WORDS.get(name, name)


def _flattened(traced: Traced, arrays: list, place: int, flat, y_bar: list):
    """The cotangent of an array where the derivative of one equation is 1."""

    def of(array):
        def instead(equation, inputs: list) -> list | None:
            if equation is not flat:
                return None
            (moving,) = (value for var, value in zip(equation.invars, inputs) if not isinstance(var, core.Literal))
            return [jax.lax.stop_gradient(bound(equation, inputs)[0] - moving) + moving]

        return by_jax(traced.jaxpr, [*arrays[:place], array, *arrays[place + 1 :]], instead=instead)

    value, pulled = jax.vjp(of, arrays[place])
    return pulled(like(value, y_bar))[0]


def explained(terms: Sequence, array: Wrong) -> int | None:
    """Which of the terms alone is missing in the hand-written cotangent; None if it is not exactly one."""
    error = norm(array.hand - array.right)
    missing = [norm(array.hand - (array.right - term)) * NOTICED < error for term in terms]
    return missing.index(True) if sum(missing) == 1 else None


def computed_from(function: Callable, inputs: tuple, place: int) -> set[int]:
    """The places of the leaves of the function's value that are computed from this floating array of its inputs."""
    traced, arrays = trace(function, *inputs)
    floating = [i for i, leaf in enumerate(arrays) if is_inexact(leaf)]
    jaxpr = traced.jaxpr.jaxpr
    found = _computed_from(jaxpr, {jaxpr.invars[floating[place]]})
    return {i for i, out in enumerate(jaxpr.outvars) if not isinstance(out, core.Literal) and out in found}


def _uses(traced: Traced, var) -> Uses:
    jaxpr = traced.jaxpr.jaxpr
    return Uses(traced, var, _users(jaxpr.eqns, var), [i for i, out in enumerate(jaxpr.outvars) if out is var])


def _users(equations: Sequence, var) -> list:
    return [equation for equation in equations if var in _variables(equation)]


def _variables(equation) -> list:
    return [var for var in equation.invars if not isinstance(var, core.Literal)]


def _terms(uses: Uses, arrays: list, copies: list, y_bar: list) -> list:
    """The cotangent of every copy, where each use has its own."""

    def of(copies):
        def with_copy(equation, inputs: list) -> list | None:
            found = [i for i, use in enumerate(uses.equations) if use is equation]
            if not found:
                return None
            at = [copies[found[0]] if var is uses.var else value for var, value in zip(equation.invars, inputs)]
            return bound(equation, at)

        outputs = by_jax(uses.traced.jaxpr, arrays, instead=with_copy)
        for i, copy in zip(uses.outputs, copies[len(uses.equations) :]):
            outputs[i] = copy
        return outputs

    value, pulled = jax.vjp(of, copies)
    return pulled(like(value, y_bar))[0]


def _labels(uses: Uses, names: Mapping[Any, str], related: set) -> list[str]:
    """What each use is, in words that tell them apart."""
    found = [_label(uses, equation, names, related) for equation in uses.equations]
    places = jax.tree.unflatten(uses.traced.structure, range(uses.traced.structure.num_leaves))
    outputs = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(places)]
    found += [f"the output {outputs[i]}".rstrip() for i in uses.outputs]
    return _numbered(found)


def _numbered(labels: list[str]) -> list[str]:
    """The labels, with the number of each that comes several times."""
    return [f"{label} ({labels[:i].count(label) + 1} of {labels.count(label)})" if labels.count(label) > 1 else label
            for i, label in enumerate(labels)]  # fmt: skip


def _label(uses: Uses, equation, names: Mapping[Any, str], related: set) -> str:
    jaxpr = uses.traced.jaxpr.jaxpr
    if _is_skip(jaxpr, uses.var, equation, related):
        return SKIP
    var, equation = _seen(jaxpr.eqns, uses.var, equation)
    name, others = equation.primitive.name, [other for other in _variables(equation) if other is not var]
    if name == "reduce_sum":
        after = [_seen(jaxpr.eqns, equation.outvars[0], user)[1] for user in _users(jaxpr.eqns, equation.outvars[0])]
        return "the mean" if [user.primitive.name for user in after] == ["div"] else WORDS[name]
    word = _called(equation)
    beside = [names[origin] for origin in (_origin(jaxpr.eqns, other) for other in others) if origin in names]
    return f"{word} with {beside[0]}" if beside and name in ("dot_general", "mul", *ADDITIONS) else word


def _is_skip(jaxpr, var, equation, related: set) -> bool:
    """Whether a use adds the value to something that is computed from it, after other additions perhaps."""
    moving = _computed_from(jaxpr, {var, *related})
    while equation.primitive.name in (*VIEWS, *ADDITIONS):
        others = [other for other in _variables(equation) if other is not var]
        if equation.primitive.name in ADDITIONS and not moving.isdisjoint(others):
            return True
        users = _users(jaxpr.eqns, equation.outvars[0])
        if len(users) != 1:
            return False
        var, equation = equation.outvars[0], users[0]
    return False


def _seen(equations: Sequence, var, equation):
    """The variable and the equation that uses it, past those that only show it in another shape."""
    while equation.primitive.name in VIEWS and len(users := _users(equations, equation.outvars[0])) == 1:
        var, equation = equation.outvars[0], users[0]
    return var, equation


def _computed_from(jaxpr, variables: set) -> set:
    """These variables, and all that are computed from them."""
    found = set(variables)
    for equation in jaxpr.eqns:
        if not found.isdisjoint(_variables(equation)):
            found.update(equation.outvars)
    return found


def _origin(equations: Sequence, var):
    """What is seen in another shape in ``var``."""
    for equation in reversed(equations):
        if var in equation.outvars and equation.primitive.name in VIEWS:
            var = next(iter(_variables(equation)), var)
    return var
