"""An optax optimizer as a pytree, so that optimizers that differ only in their rates share one compiled program.

An optimizer is a pair of functions, ``init`` and ``update``, with its numbers in their closures. :class:`Optimizer`
takes the closures of functions of optax and of ``fnn.updates`` apart, and the pytrees in them, such as masks: rates and
arrays become leaves, and the rest is static and compared by value. Inside a compiled program the functions are put
together again, with traced numbers. Any other function, such as a custom schedule, is compared by identity, because it
may read variables that change.
"""

import inspect
from collections.abc import Callable
from functools import cached_property, partial
from types import CellType, FunctionType, MethodType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import register_pytree_node_class

OURS = "fnn.updates"  # all numbers in the closures of these functions are leaves; of optax's, those with these names:
RATES = {
    *("learning_rate", "max_learning_rate", "step_size", "eta", "weight_decay", "max_norm", "max_delta"),
    *("value", "init_value", "peak_value", "end_value", "decay_rate"),  # of schedules
}
EMPTY = object()
PLAIN = (bool, int, float, str, bytes, type(None), type, np.dtype)  # compared by value


class _Parts(NamedTuple):
    """A value that is taken apart: how to make it again, what of it is static, and its parts by name."""

    make: Callable  # (static, parts) -> the value
    static: Any
    names: tuple[str, ...]
    parts: tuple


class _Form(NamedTuple):
    """The static form of a value; parts: of a value that was taken apart; leaf: the place of a leaf."""

    make: Callable | None
    static: Any = None
    parts: tuple["_Form", ...] = ()
    leaf: int | None = None


class _Same:
    """A static value that is compared by identity."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _Hashed:
    """A form with its hash, which takes long."""

    def __init__(self, form: _Form):
        self.form, self.hash = form, hash(form)

    def __eq__(self, other) -> bool:
        return self is other or (isinstance(other, _Hashed) and self.form == other.form)

    def __hash__(self) -> int:
        return self.hash


@register_pytree_node_class
class Optimizer:
    """``init`` and ``update`` of an optax optimizer, as a pytree whose leaves are its rates."""

    def __init__(self, optimizer: Any):
        self.leaves: list[Any] = []
        self.form = _Hashed(_form("", (optimizer.init, optimizer.update), "", self.leaves, ()))

    @cached_property
    def _functions(self) -> tuple[Callable, Callable]:
        return _value(self.form.form, self.leaves)

    def init(self, params):
        """The initial state."""
        with jax.numpy_dtype_promotion("standard"):  # adam and most schedules mix dtypes
            return self._functions[0](params)

    def update(self, gradients, state, params, **known):
        """The steps and the new state; known: what some rules ask for besides."""
        update = self._functions[1]
        asked = inspect.signature(update).parameters.values()
        if not any(one.kind is one.VAR_KEYWORD for one in asked):
            known = {one.name: known[one.name] for one in asked if one.name in known}
        with jax.numpy_dtype_promotion("standard"):
            return update(gradients, state, params, **known)

    def __str__(self) -> str:
        return _text(self._functions[1], ())

    def tree_flatten(self):
        return tuple(self.leaves), self.form

    @classmethod
    def tree_unflatten(cls, form, leaves):
        made = object.__new__(cls)
        made.form, made.leaves = form, leaves
        return made


def _form(name: str, value: Any, module: str, leaves: list, inside: tuple[int, ...]) -> _Form:
    """The form of what a closure of ``module`` holds under ``name``; numbers join ``leaves``; inside: what holds it."""
    if isinstance(value, (jax.Array, np.ndarray)) or (_is_number(value) and (module == OURS or name in RATES)):
        leaves.append(value)
        return _Form(None, leaf=len(leaves) - 1)
    found = None if id(value) in inside else _taken_apart(name, value)
    if found is None:
        return _Form(None, (type(value), value) if isinstance(value, PLAIN) else _Same(value))
    module = value.__module__ if isinstance(value, FunctionType) else module
    parts = (_form(*part, module, leaves, (*inside, id(value))) for part in zip(found.names, found.parts))
    return _Form(found.make, found.static, tuple(parts))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _value(form: _Form, leaves) -> Any:
    """The value of a form, with these leaves."""
    if form.leaf is not None:
        return leaves[form.leaf]
    if form.make is None:
        return form.static.value if isinstance(form.static, _Same) else form.static[1]
    return form.make(form.static, [_value(part, leaves) for part in form.parts])


def _text(value: Any, inside: tuple[int, ...]) -> str:
    """A value for reading, a function as the call that made it: "chain(update_fns=(scale(step_size=0.5), …))"."""
    if isinstance(value, tuple) and hasattr(value, "update"):
        return _text(value.update, inside)
    found = None if id(value) in inside else _taken_apart("", value)
    if found is None:
        if isinstance(value, (jax.Array, np.ndarray)):
            return str(value) if value.ndim == 0 else f"{value.dtype} {value.shape}"
        return repr(value) if isinstance(value, PLAIN) else getattr(value, "__qualname__", type(value).__name__)
    parts = [_text(part, (*inside, id(value))) for part in found.parts]
    if not isinstance(value, FunctionType):
        named = isinstance(value, (dict, partial))
        return f"({', '.join(f'{name}={part}' if named else part for name, part in zip(found.names, parts))})"
    given = [f"{name}={part}" for name, part in zip(found.names[:-2], parts) if part not in ("None", "False")]
    return f"{value.__qualname__.split('.<locals>')[0].strip('_')}({', '.join(given)})"


def _taken_apart(name: str, value: Any) -> _Parts | None:
    """The parts of a pytree's node, or of a function whose code and globals do not change; None for anything else."""
    if isinstance(value, FunctionType) and value.__module__.startswith(("optax.", OURS)):
        cells = map(_content, value.__closure__ or ())
        static = value.__code__, _Same(value.__globals__), value.__name__
        names = (*value.__code__.co_freevars, "defaults", "kwdefaults")
        return _Parts(_function, static, names, (*cells, value.__defaults__, value.__kwdefaults__))
    if isinstance(value, MethodType):
        return _Parts(_method, None, ("function", "self"), (value.__func__, value.__self__))
    if isinstance(value, partial):
        return _Parts(_partial, None, ("func", "args", "keywords"), (value.func, value.args, value.keywords))
    try:
        found, structure = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda node: node is not value)
        hash(structure)
    except (TypeError, ValueError):  # a dictionary that cannot be sorted, or static fields that cannot be hashed
        return None
    if [path for path, _ in found] == [()]:  # a leaf
        return _object_apart(value)
    names = tuple(_name(path[0], name) for path, _ in found)
    return _Parts(jax.tree.unflatten, structure, names, tuple(part for _, part in found))


def _object_apart(value: Any) -> _Parts | None:
    """The attributes of an object of optax, such as ``MultiSteps``; None for anything else."""
    if not type(value).__module__.startswith("optax.") or not hasattr(value, "__dict__"):
        return None
    return _Parts(_object, (type(value), tuple(vars(value))), tuple(vars(value)), tuple(vars(value).values()))


def _content(cell: CellType) -> Any:
    """What a cell of a closure holds, EMPTY if nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


def _name(key, name: str) -> str:
    """The name of a container's part, that of the container if its parts have only numbers."""
    return str(getattr(key, "name", getattr(key, "key", name)))


def _function(static, parts):
    (code, module, name), (*cells, defaults, kwdefaults) = static, parts
    filled = tuple(CellType() if cell is EMPTY else CellType(cell) for cell in cells)
    made = FunctionType(code, module.value, name, defaults, filled)
    made.__kwdefaults__ = kwdefaults
    return made


def _method(_, parts):
    return MethodType(*parts)


def _object(static, parts):
    cls, names = static
    made = object.__new__(cls)
    vars(made).update(zip(names, parts))
    return made


def _partial(_, parts):
    func, args, keywords = parts
    return partial(func, *args, **keywords)
