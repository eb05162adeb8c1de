"""A run's identity as text, so that a checkpoint of a different run is refused with the differences named."""

import dataclasses
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from fnn.backward import RULES, Rules
from fnn.checks.arrays import native, native_dtype
from fnn.graph.graph import Graph
from fnn.version import VERSION

SHOWN = 20  # maximum number of differences listed in a message
NO_IDENTITY = "Batches without identity"
PROGRAM = " program"  # how the names of entries end that are digests of programs
ALLOWED = (
    "data", "params", "optimizer", "loss", "validation", "key", "batch_size", "dropout", "reduction", "rules",
    "precision", "patience", "batches_per_epoch", "flags",
)  # fmt: skip
BELONGS = {"initial": "params", "params": "", "optimizer_state": "optimizer", "examples": "data", "network": "rules",
           "keep": ""}  # fmt: skip


def digest(array: np.ndarray) -> str:
    """The SHA-256 of an array's dtype, shape and entries, little-endian, row by row, in hexadecimal."""
    array = native(array)
    found = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def digest_of(tree) -> str:
    """One digest of all leaves of a pytree, in order; a PRNG key counts as its data."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        found.update(digest(np.asarray(jax.random.key_data(leaf) if key else leaf)).encode())
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


def argument(name: str) -> str:
    """The argument of ``fit`` by which an entry of a run's identity may be allowed to differ; "" if by none."""
    first = re.findall(r"\w+", name)[0]
    if first.startswith("jax_") or first.isupper():
        return "flags"
    return BELONGS.get(first, first)


def differences(
    saved: dict[str, str], given: dict[str, str], where: str = "in the checkpoint", *, allow=(), programs: bool = True
) -> list[str]:
    """One line for every entry that differs; where: what was saved is.

    allow: arguments of ``fit`` whose entries may differ. programs: whether to compare programs, which are named only
    where the texts do not show the difference.
    """
    names = [name for name in given | saved if saved.get(name) != given.get(name) and argument(name) not in allow]
    texts = [name for name in names if not name.endswith(PROGRAM)]
    names = texts or (names if programs else [])
    lines = [f"{name}: {saved.get(name, 'nothing')} {where}, {given.get(name, 'nothing')} given" for name in names]
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]


def require_same_run(directory, saved: dict, given: dict[str, str], allow=()) -> None:
    """Raise ValueError unless a checkpoint's content is of the run ``given``; warns if other versions wrote it."""
    ours, theirs = versions(), saved.get("versions", {})
    programs = all(ours[name] == theirs.get(name) for name in ("jax", "jaxlib")) and _platform(ours) == _platform(
        theirs
    )
    lines = differences(saved["run"], given, allow=allow, programs=programs)
    if lines:
        raise ValueError(
            f"checkpoint: {directory} holds another run:\n  " + "\n  ".join(lines) + "\n"
            "resume with the settings in the checkpoint, or name another directory for this run; in fit, if the "
            "change is intended, write allow=('optimizer',), with the arguments' names, or fresh=True to start over"
        )
    others = [
        f"{name} {theirs.get(name, 'unknown')}, now {text}" for name, text in ours.items() if theirs.get(name) != text
    ]
    if others:
        warnings.warn(
            f"checkpoint: {directory} was written by {'; '.join(others)}: results may differ in the last bits"
            + ("" if programs else ", and programs were not compared"),
            stacklevel=6,
        )


def _platform(of: dict[str, str]) -> str:
    """That of the device; a graph's program depends on it."""
    return of.get("device", "").split(" ")[0]


def versions() -> dict[str, str]:
    """What may change the last bits of a run, and is noted beside its identity."""
    device = jax.devices()[0]
    found = {"fnn": VERSION, "jax": jax.__version__, "jaxlib": jaxlib.__version__, "numpy": np.__version__}
    return found | {"device": f"{device.platform} {device.device_kind}"}


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
