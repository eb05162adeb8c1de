"""A run's identity as text, so that another run's checkpoint is refused with the differences named."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.backward import RULES, Rules
from fnn.checks.arrays import native, native_dtype
from fnn.graph.graph import Graph

SHOWN = 20  # maximum number of differences listed in a message


def digest(array: np.ndarray) -> str:
    """The SHA-256 of an array's dtype, shape and entries, little-endian, row by row, in hexadecimal."""
    array = native(array)
    found = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def form(leaf) -> str:
    """A leaf's dtype and shape: "float32 (10, 30)"."""
    return f"{native_dtype(leaf.dtype)} {leaf.shape}"


def content(leaf) -> str:
    """A number as text, an array as its digest."""
    return digest(np.asarray(leaf)) if hasattr(leaf, "shape") else repr(leaf)


def describe(name: str, tree, leaf: Callable[[Any], str] = form) -> dict[str, str]:
    """By path, the class and static fields of every node of a pytree, and the dtype and shape of every leaf.

    >>> import fnn
    >>> describe("params", fnn.init(jax.random.key(0), (3, 2)))  # doctest: +NORMALIZE_WHITESPACE
    {'params': 'tuple', 'params[0]': 'Dense Identity()', 'params[0].W': 'float32 (2, 3)',
     'params[0].b': 'float32 (2,)', 'params[0].norm': 'None'}
    """
    leaves = iter(jax.tree.leaves(tree))
    nodes = _walk(name, jax.tree.structure(tree))
    return {path: leaf(next(leaves)) if node is None else node for path, node in nodes}


def paths(name: str, tree) -> list[str]:
    """The leaves' paths, in order: ["params[0].W", …]."""
    return [path for path, node in _walk(name, jax.tree.structure(tree)) if node is None]


def static(value) -> str:
    """A static value as text that is the same for equal values in every process."""
    if isinstance(value, Graph):  # its repr shows counts only
        names = hashlib.sha256(repr((value.neurons, value.kinds)).encode() + value._digest)
        return f"{value} {names.hexdigest()}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def functions(rules: Rules) -> str:
    """The rules that differ from ours, each by its module and name."""
    changed = [name for name in rules._fields if getattr(rules, name) is not getattr(RULES, name)]
    return ", ".join(f"{name}={_named(getattr(rules, name))}" for name in changed) or "RULES"


def _named(function) -> str:
    """A function's module and name."""
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', static(function))}"


def differences(saved: dict[str, str], given: dict[str, str], where: str = "in the checkpoint") -> list[str]:
    """One line for every entry that differs; where: what was saved is."""
    lines = [
        f"{name}: {saved.get(name, 'nothing')} {where}, {given.get(name, 'nothing')} given"
        for name in given | saved
        if saved.get(name) != given.get(name)
    ]
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]


def key_text(key) -> str:
    """A PRNG key's implementation and data."""
    return f"{implementation(key)} {np.asarray(jax.random.key_data(key)).tolist()}"


def implementation(key) -> str:
    """The name of a typed key's implementation, or "raw" for an old-style key of plain integers."""
    return str(jax.random.key_impl(key)) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else "raw"


def _walk(path: str, structure) -> Iterator[tuple[str, str | None]]:
    """(path, class and static fields) of every node and (path, None) of every leaf, in the leaves' order."""
    node = structure.node_data()
    if node is None:
        yield path, None
        return
    kind, fields = node
    if kind is type(None):
        yield path, "None"
        return
    statics = map(static, fields) if dataclasses.is_dataclass(kind) and isinstance(fields, tuple) else ()
    yield path, " ".join([kind.__name__, *statics])
    children = structure.children()
    for ending, child in zip(_endings(kind, fields, len(children)), children):
        yield from _walk(path + ending, child)


def _endings(kind: type, fields, count: int) -> list[str]:
    """The path suffixes of a node's children: ".W", "[0]" or "['key']"."""
    names = getattr(kind, "_fields", ())
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind) if not field.metadata.get("static", False)]
    if len(names) == count:
        return [f".{name}" for name in names]
    return [f"[{key!r}]" for key in (fields if issubclass(kind, dict) else range(count))]
