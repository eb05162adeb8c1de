"""Checks of numbers, sizes and dtypes, which are brought into one form so that equal values hash alike."""

import itertools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np


def number(call: str, name: str, value, above: float = -math.inf, least: float = -math.inf) -> float:
    """``value`` as a float, for the argument ``name`` of ``call``: finite, > ``above`` and ≥ ``least``.

    Raises TypeError unless it is a number, ValueError if it is out of range.

    >>> number("Sigmoid", "beta", 2, above=0)
    2.0
    """
    bounds = "" if above == -math.inf else f" > {above:g}"
    bounds += "" if least == -math.inf else f" >= {least:g}"
    advice = f"write {call}({name}={max(1.0, above, least):g})"
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError("neither a string nor True is a number")
        result = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name}: expected a number{bounds}, got {value!r}; {advice}") from error
    if not (math.isfinite(result) and result > above and result >= least):
        raise ValueError(f"{name}: expected a finite number{bounds}, got {result}; {advice}")
    return result


def whole(name: str, value, most: int | None = None, what: str = "") -> int:
    """``value`` as an integer ≥ 1 and at most ``most``, the number of ``what``, or what an int32 counts.

    Raises TypeError or ValueError.

    >>> whole("epochs", 3)
    3
    """
    try:
        result = integer(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected an integer, got {value!r}; write {name}=10") from error
    largest = np.iinfo(np.int32).max if most is None else most
    if not 1 <= result <= largest:
        bound = f" and at most the {most} {what}" if most is not None else f", at most {largest}" if result > 1 else ""
        raise ValueError(f"{name}: expected at least 1{bound}, got {result}; write {name}={max(1, min(10, largest))}")
    return result


def integer(value) -> int:
    """``value`` as a Python integer; raises TypeError for anything else, and for True, which is no number."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError("True is not a number")
    return operator.index(value)


def layer_sizes(sizes) -> tuple[int, ...]:
    """``sizes`` as Python integers; raises unless there are at least two, each ≥ 1."""
    try:
        if not isinstance(sizes, (tuple, list, range, np.ndarray, jax.Array)):  # a set has no order
            raise TypeError("not a sequence")
        sizes = tuple(map(integer, sizes))
    except TypeError as error:
        raise TypeError(f"sizes: expected a tuple of integers, got {sizes!r}; write sizes=(784, 30, 10)") from error
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: expected two or more sizes, each >= 1, got {sizes}; write sizes=(784, 30, 10)")
    if max(a * b for a, b in itertools.pairwise(sizes)) > LARGEST:
        raise ValueError(f"sizes: expected at most {LARGEST} weights a layer, got {sizes}; write sizes=(784, 30, 10)")
    return sizes


LARGEST = 2**40  # entries of an array: 4 TiB in float32, beyond which XLA aborts the process


def floating_dtype(dtype) -> np.dtype:
    """``dtype`` as a NumPy dtype; raises unless it is floating and enabled."""
    try:
        if isinstance(dtype, (np.ndarray, np.generic, jax.Array)):
            raise TypeError("an array is not a dtype")
        wanted = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype: expected a floating dtype, got {dtype!r}; write dtype=jnp.float32") from error
    if not jnp.issubdtype(wanted, jnp.floating):
        raise TypeError(f"dtype: expected a floating dtype, got {wanted}; write dtype=jnp.float32")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(f"dtype: {wanted} needs x64; call jax.config.update('jax_enable_x64', True) first")
    return wanted
