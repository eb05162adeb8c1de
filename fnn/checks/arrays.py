"""Checks of arrays, keys and options; each message gives the argument, its value and the corrected call."""

from collections.abc import Sequence

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
    if value not in options:
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


def traced(tree) -> bool:
    """Whether a leaf is traced by a transformation, and so has no value yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def array(name: str, leaf) -> None:
    """Raise TypeError unless ``leaf`` is an array whose dtype is enabled."""
    if not isinstance(leaf, (jax.Array, np.ndarray)):
        raise TypeError(f"{name}: expected an array, got {describe(leaf)}; write jnp.asarray(...)")
    if isinstance(leaf, np.ndarray) and jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
        raise TypeError(
            f"{name}: expected {jax.dtypes.canonicalize_dtype(leaf.dtype)}, because x64 is off, got {describe(leaf)}; "
            "write .astype('float32'), or call jax.config.update('jax_enable_x64', True) first"
        )


def prng_key(key, name: str = "key") -> None:
    """Raise TypeError unless ``key`` is a single PRNG key, new-style or old-style."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    raw = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.ndim == 1
    if not (typed or raw):
        raise TypeError(f"{name}: expected one PRNG key, got {describe(key)}; write {name}=jax.random.key(0)")
