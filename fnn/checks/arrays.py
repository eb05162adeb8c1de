"""Checks of arrays, keys and options; each message gives the argument, its value and the corrected call."""

import mmap
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

AnyArray = jax.Array | np.ndarray  # accepted by public functions, which return jax.Array


def describe(value) -> str:
    """The dtype and shape of an array, the type of anything else."""
    if isinstance(value, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        return f"{value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:80]


def one_of(name: str, value, options: Sequence) -> None:
    """Raise ValueError unless ``value`` is one of the options, of the same type: 1 is not True."""
    if not any(type(value) is type(option) and value == option for option in options):
        choices = " or ".join(repr(option) for option in options)
        raise ValueError(f"{name}: expected {choices}, got {value!r}; write {name}={options[0]!r}")


def same_shape(value, like, name: str):
    """``value``, if it has the shape and dtype of ``like``; a user's function may return anything."""
    if getattr(value, "shape", None) != like.shape or value.dtype != like.dtype:
        raise ValueError(f"{name}: expected {describe(like)}, got {describe(value)}")
    return value


def plain(tree) -> bool:
    """Whether every leaf is a JAX array, which jit takes unchanged."""
    return all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree))


def as_array(name: str, value, stacklevel: int):
    """``value`` as ``fit``, ``forward`` and ``predict`` take it, by one rule; anything else is left as it is.

    Tables with ``to_numpy``, as of pandas, become arrays. NumPy's float64 becomes float32 unless x64 is on, with a
    warning, because NumPy makes float64 unless it is told otherwise.
    """
    if not isinstance(value, (np.ndarray, jax.Array)) and hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if not isinstance(value, np.ndarray) or value.dtype != np.float64:
        return value
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        return value
    unmasked(name, value)
    if memory_mapped(value):
        raise TypeError(
            f"{name}: expected float32, because x64 is off, got a memory map of {describe(value)}; write the file "
            "in float32, or call jax.config.update('jax_enable_x64', True) first"
        )
    warnings.warn(
        f"{name}: float64 becomes float32, because x64 is off; write {name}.astype('float32')",
        stacklevel=stacklevel,
    )
    with np.errstate(over="ignore"):  # overflow is refused later as infinite
        return value.astype(np.float32)


def memory_mapped(array) -> bool:
    """Whether the array's values lie in a file; in-memory copies may have type ``np.memmap`` too."""
    return map_of(array) is not None


def map_of(array) -> mmap.mmap | None:
    """The memory map that holds the array's values, or None."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def file_size(found: mmap.mmap | None) -> int:
    """The size of a memory map's file in bytes, now; of a map without a file, its own; 0 without a map."""
    try:
        return 0 if found is None else found.size()
    except OSError:  # an anonymous map
        return len(found or b"")


def iterable(name: str, value, expected: str) -> None:
    """Raise TypeError unless ``value`` can be iterated over and is no text; expected: of what, and the call."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") or isinstance(value, type):
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")


def native(tree):
    """The tree with NumPy arrays in the machine's byte order, because JAX knows no other."""

    def of_leaf(leaf):
        foreign = isinstance(leaf, np.ndarray) and not leaf.dtype.isnative
        return leaf.astype(native_dtype(leaf.dtype)) if foreign else leaf

    return jax.tree.map(of_leaf, tree)


def native_dtype(dtype):
    """The dtype in the machine's byte order."""
    return dtype if getattr(dtype, "isnative", True) else dtype.newbyteorder("=")


def at_hand(value: Any) -> bool:
    """Whether the values of an array can be read without waiting for a device."""
    if not isinstance(value, jax.Array):
        return True
    if isinstance(value, jax.core.Tracer) or not value.is_fully_addressable:
        return False
    ready: Any = value  # mypy does not know of is_ready
    return ready.is_ready() and all(device.platform == "cpu" for device in value.devices())


def unmasked(name: str, value) -> None:
    """Raise TypeError for a masked array, because its mask would be lost."""
    if isinstance(value, np.ma.MaskedArray):
        advice = {
            "x": f"write {name}.filled(0.0), or leave the rows out",
            "y": f"write ({name}.filled(0.0), ~np.ma.getmaskarray({name})), a weight of 0 for what is missing",
        }
        raise TypeError(
            f"{name}: expected a plain array, got a masked one, {describe(value)}, whose masked values would be used; "
            + advice.get(name.split()[-1], f"write {name}.filled(0.0)")
        )


def array(name: str, leaf) -> None:
    """Raise TypeError unless ``leaf`` is an array whose dtype is enabled, without a mask."""
    if not isinstance(leaf, (jax.Array, np.ndarray)):
        raise TypeError(f"{name}: expected an array, got {describe(leaf)}; write jnp.asarray(...)")
    unmasked(name, leaf)
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSUMm":
        raise TypeError(f"{name}: expected an array of numbers, got {describe(leaf)}; write jnp.asarray(...)")
    dtype = native_dtype(leaf.dtype)
    if isinstance(leaf, np.ndarray) and jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise TypeError(
            f"{name}: expected {jax.dtypes.canonicalize_dtype(dtype)}, because x64 is off, got {describe(leaf)}; "
            "write .astype('float32'), or call jax.config.update('jax_enable_x64', True) first"
        )


def prng_key(key, name: str = "key") -> None:
    """Raise TypeError unless ``key`` is a single PRNG key, new-style or old-style."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    raw = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.ndim == 1
    if not (typed or raw):
        raise TypeError(f"{name}: expected one PRNG key, got {describe(key)}; write {name}=jax.random.key(0)")
