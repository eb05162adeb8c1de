"""JAX's primitives in NumPy, and which of them round."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def _plain(function: Callable) -> Callable:
    return lambda params, aval, *inputs: function(*inputs)


def _each(function: Callable) -> Callable:
    return lambda params, aval, x: np.vectorize(function, otypes=[np.float64])(x.astype(np.float64))


def _logistic(params, aval, x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def _reduction(function: Callable) -> Callable:
    return lambda params, aval, x: function(x, axis=tuple(params["axes"]))


def _sum(params, aval, x):
    wide = np.float32 if x.dtype.itemsize < 4 and jnp.issubdtype(x.dtype, jnp.floating) else None
    return np.sum(x, axis=tuple(params["axes"]), dtype=wide or x.dtype)


def _dot(params, aval, a, b):
    (of_a, of_b), (batch_a, batch_b) = params["dimension_numbers"]
    free_a = [i for i in range(a.ndim) if i not in (*of_a, *batch_a)]
    free_b = [i for i in range(b.ndim) if i not in (*of_b, *batch_b)]
    wide = np.result_type(aval.dtype, np.float32) if aval.dtype.itemsize < 4 else aval.dtype
    left = a.transpose(*batch_a, *free_a, *of_a).astype(wide)
    right = b.transpose(*batch_b, *of_b, *free_b).astype(wide)
    batch, summed = left.shape[: len(batch_a)], int(np.prod([a.shape[i] for i in of_a], dtype=int))
    sizes = [int(np.prod([v.shape[i] for i in free], dtype=int)) for v, free in ((a, free_a), (b, free_b))]
    return (left.reshape(*batch, sizes[0], summed) @ right.reshape(*batch, summed, sizes[1])).reshape(aval.shape)


def _broadcast(params, aval, x, *_):
    shape = [1] * len(aval.shape)
    for dimension, size in zip(params["broadcast_dimensions"], x.shape):
        shape[dimension] = size
    return np.broadcast_to(x.reshape(shape), aval.shape)


def _reshape(params, aval, x, *_):
    order = params.get("dimensions")  # that in which batched convolutions read the axes
    return (x if order is None else x.transpose(order)).reshape(aval.shape)


def _select(params, aval, which, *cases):
    return np.choose(which.astype(int), cases) if len(cases) > 2 else np.where(which, cases[1], cases[0])


def _slice(params, aval, x):
    strides = params["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


def _pad(params, aval, x, value):
    found = np.full(aval.shape, value, np.result_type(x, value))
    reached = [low + (1 + inside) * np.arange(n) for n, (low, _, inside) in zip(x.shape, params["padding_config"])]
    kept = [np.flatnonzero((at >= 0) & (at < size)) for at, size in zip(reached, aval.shape)]  # it may be cropped
    found[np.ix_(*(at[k] for at, k in zip(reached, kept)))] = x[np.ix_(*kept)]
    return found


def _window(shape, sizes, starts) -> tuple[slice, ...]:
    """The part that begins at ``starts``, moved to lie inside, as JAX does."""
    begins = [int(np.clip(start, 0, n - size)) for start, n, size in zip(starts, shape, sizes)]
    return tuple(slice(begin, begin + size) for begin, size in zip(begins, sizes))


def _dynamic_slice(params, aval, x, *starts):
    return x[_window(x.shape, params["slice_sizes"], starts)]


def _dynamic_update_slice(params, aval, x, update, *starts):
    found = x.astype(np.result_type(x, update))
    found[_window(x.shape, update.shape, starts)] = update
    return found


def _divide(params, aval, a, b):
    if np.issubdtype(aval.dtype, np.integer):
        return np.asarray(jax.lax.div(a, b))
    return a / b


def _integer_pow(params, aval, x):
    return x ** params["y"] if params["y"] >= 0 else 1 / x ** -params["y"]


def _iota(params, aval):
    shape = [1] * len(aval.shape)
    shape[params["dimension"]] = -1
    return np.broadcast_to(np.arange(aval.shape[params["dimension"]]).reshape(shape), aval.shape)


def _cumulative(function: Callable) -> Callable:
    def of(params, aval, x):
        turned = np.flip(x, params["axis"]) if params["reverse"] else x
        found = function(turned, axis=params["axis"])
        return np.flip(found, params["axis"]) if params["reverse"] else found

    return of


def _argument(function: Callable) -> Callable:
    return lambda params, aval, x: function(x, axis=params["axes"][0])


TABLE: dict[str, Callable] = {
    **{name: _plain(getattr(np, of)) for name, of in {
        "add": "add", "add_any": "add", "sub": "subtract", "mul": "multiply", "neg": "negative", "sign": "sign",
        "abs": "abs", "exp": "exp", "exp2": "exp2", "log": "log", "log1p": "log1p", "expm1": "expm1", "tanh": "tanh",
        "sin": "sin", "cos": "cos", "tan": "tan", "sinh": "sinh", "cosh": "cosh", "asin": "arcsin", "acos": "arccos",
        "atan": "arctan", "atan2": "arctan2", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
        "sqrt": "sqrt", "cbrt": "cbrt", "square": "square", "max": "maximum", "min": "minimum", "floor": "floor",
        "ceil": "ceil", "is_finite": "isfinite", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal",
        "gt": "greater", "ge": "greater_equal", "real": "real", "imag": "imag", "conj": "conj", "pow": "power",
    }.items()},
    **{name: _plain(lambda x: x) for name in ("copy", "copy_p", "convert_element_type", "stop_gradient")},
    "and": _plain(np.bitwise_and), "or": _plain(np.bitwise_or), "not": _plain(np.invert), "xor": _plain(np.bitwise_xor),
    "rsqrt": _plain(lambda x: 1 / np.sqrt(x)), "complex": _plain(lambda a, b: a + 1j * b), "div": _divide,
    "logistic": _logistic, "erf": _each(math.erf), "erfc": _each(math.erfc),
    "integer_pow": _integer_pow, "iota": _iota, "dot_general": _dot, "broadcast_in_dim": _broadcast,
    "select_n": _select, "slice": _slice, "pad": _pad, "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "clamp": _plain(lambda low, x, high: np.minimum(np.maximum(x, low), high)),
    "reshape": _reshape,
    "squeeze": lambda params, aval, x: x.reshape(aval.shape),
    "expand_dims": lambda params, aval, x: x.reshape(aval.shape),
    "transpose": lambda params, aval, x: x.transpose(params["permutation"]),
    "rev": lambda params, aval, x: np.flip(x, params["dimensions"]),
    "concatenate": lambda params, aval, *parts: np.concatenate(parts, params["dimension"]),
    "reduce_sum": _sum, "reduce_max": _reduction(np.max), "reduce_min": _reduction(np.min),
    "reduce_prod": _reduction(np.prod), "reduce_and": _reduction(np.all), "reduce_or": _reduction(np.any),
    "argmax": _argument(np.argmax), "argmin": _argument(np.argmin), "cumsum": _cumulative(np.cumsum),
    "cumprod": _cumulative(np.cumprod),
}  # fmt: skip


ROUNDED = {
    "add", "add_any", "sub", "mul", "div", "exp", "exp2", "log", "log1p", "expm1", "tanh", "sin", "cos", "tan", "sinh",
    "cosh", "sqrt", "rsqrt", "cbrt", "pow", "integer_pow", "square", "logistic", "erf", "erfc", "dot_general",
    "reduce_sum", "cumsum",
}  # fmt: skip


def nudged(random, value: np.ndarray, unit: float | None = None) -> np.ndarray:
    """Every number moved by up to one unit in its last place, or by ``unit`` of itself, at random."""
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return value
    eps = float(jnp.finfo(value.dtype).eps) if unit is None else unit
    return np.asarray(value * (1 + eps * random.uniform(-1, 1, value.shape)), value.dtype)
