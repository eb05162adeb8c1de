"""The complex step: f'(x) t = Im f(x + i h t) / h, without a difference and so without cancellation.

A traced function is evaluated in complex numbers. There is no rule of differentiation in it but for the few
functions of which NumPy has no complex version. Comparisons, and what is constant between jumps, read the real part, so
a function of several analytic pieces has the derivative of the piece at hand. Everything is computed in float64,
whatever the function's own precision.

Source: Squire and Trapp 1998, *Using complex variables to estimate derivatives of real functions*.
"""

from collections.abc import Callable
from math import pi
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fnn.verify.interpret import INLINED, apply_equation, bound, constant
from fnn.verify.primitives import ROUNDED, TABLE

STEP = 1e-40  # its square is representable, and far below any rounding


class NotAnalytic(Exception):
    """The function uses an operation of which there is no complex version here."""


def derivative(traced, arrays, tangents, noise: tuple | None = None) -> list[np.ndarray]:
    """f'(x) t, one array for each output; raises :class:`NotAnalytic`.

    arrays, tangents: x and t, real arrays of the same shapes. noise: a random generator and a relative size, if every
    operation should round in another way: the spread of a few calls shows the rounding error.
    """
    given = [_made(np.asarray(x, np.float64), STEP * np.asarray(t, np.float64)) for x, t in zip(arrays, tangents)]
    with np.errstate(all="ignore"):
        found = _run(traced.jaxpr.jaxpr, traced.jaxpr.consts, given, noise)
    return [np.imag(value).astype(np.float64) / STEP if np.iscomplexobj(value) else np.zeros(np.shape(value))
            for value in found]  # fmt: skip


def _run(jaxpr, consts, args, noise) -> list:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(constant, consts)))
    for var, arg in zip(jaxpr.invars, args):
        values[var] = arg if _is_active(arg) else np.asarray(arg, var.aval.dtype)
    if any(_is_complex(var.aval) for var in (*jaxpr.invars, *jaxpr.constvars, *jaxpr.outvars)):
        raise NotAnalytic("complex numbers")

    def read(var: Any):
        return np.asarray(var.val, var.aval.dtype) if isinstance(var, core.Literal) else values[var]  # type: ignore[attr-defined]

    for equation in jaxpr.eqns:
        found = _apply(equation, [read(var) for var in equation.invars], noise)
        if noise is not None and equation.primitive.name in ROUNDED:
            found = [_rounded(value, *noise) for value in found]
        values.update(zip(equation.outvars, found))
    return [read(var) for var in jaxpr.outvars]


def _apply(equation, inputs: list, noise) -> list:
    name, params = equation.primitive.name, equation.params
    if not any(map(_is_active, inputs)):
        return apply_equation(equation, inputs)
    if name in INLINED:
        inner = params[INLINED[name]]
        jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())
        return _run(jaxpr, consts, inputs, noise)
    if name in ("optimization_barrier", "split"):
        return apply_equation(equation, inputs)
    if name == "cond":
        branches = params["branches"]
        chosen = branches[int(np.clip(inputs[0].real, 0, len(branches) - 1))]
        return _run(chosen.jaxpr, chosen.consts, inputs[1:], noise)
    if name == "while":
        return _loop(params, inputs, noise)
    if any(_is_complex(var.aval) for var in equation.outvars):
        raise NotAnalytic(name)
    if name in OF_REAL_PART or not any(map(_is_floating, (var.aval for var in equation.outvars))):
        return apply_equation(equation, [value.real if _is_active(value) else value for value in inputs])
    if name == "sort":
        return _sort(params, inputs)
    if name in LINEAR:
        return _linear(equation, inputs)
    if name == "conv_general_dilated":
        return _bilinear(equation, inputs)
    wide = [value if _is_active(value) or not _is_floating(value) else value.astype(np.float64) for value in inputs]
    if name in BY_FORMULA:
        return [BY_FORMULA[name](*wide)]
    if name not in COMPLEX:
        raise NotAnalytic(name)
    aval = SimpleNamespace(shape=equation.outvars[0].aval.shape, dtype=np.dtype(np.complex128))
    result = np.asarray(COMPLEX[name](params, aval, *wide))
    if name in PARTIAL:  # not defined everywhere on the real axis, where its complex version may be
        real = TABLE[name](params, aval, *(value.real if _is_active(value) else value for value in wide))
        result = _made(np.real(real), result.imag)
    return [result]


def _loop(params, inputs: list, noise) -> list:
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_condition, of_body, carried = inputs[:first], inputs[first:second], inputs[second:]
    goes_on, body = params["cond_jaxpr"], params["body_jaxpr"]
    while np.real(_run(goes_on.jaxpr, goes_on.consts, [*of_condition, *carried], None)[0]):
        carried = _run(body.jaxpr, body.consts, [*of_body, *carried], noise)
    return carried


def _is_active(value) -> bool:
    return np.iscomplexobj(value)


def _is_complex(aval) -> bool:
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating)


def _is_floating(value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating)


def _made(real, imaginary) -> np.ndarray:
    """Put together by parts, because 0 · ∞ in 1j * imaginary would be NaN."""
    result = np.empty(np.broadcast(real, imaginary).shape, np.complex128)
    result.real, result.imag = real, imaginary
    return result


def _rounded(value, random, size: float):
    if not _is_active(value):
        return value
    moved = [part * (1 + size * random.uniform(-1, 1, value.shape)) for part in (value.real, value.imag)]
    return _made(*moved)


def _parts(value) -> tuple[np.ndarray, np.ndarray]:
    """x and t."""
    if _is_active(value):
        return value.real, value.imag / STEP
    return value, np.zeros_like(value) if _is_floating(value) else value


def _linear(equation, inputs: list) -> list:
    """A function that is linear in all of its floating inputs together, by JAX."""
    at, along = zip(*map(_parts, inputs))
    cast = [[np.asarray(value, var.aval.dtype) for value, var in zip(of, equation.invars)] for of in (at, along)]
    return [_made(np.asarray(x, np.float64), STEP * np.asarray(t, np.float64))
            for x, t in zip(bound(equation, cast[0]), bound(equation, cast[1]))]  # fmt: skip


def _bilinear(equation, inputs: list) -> list:
    (a, da), (b, db) = ([np.asarray(part, var.aval.dtype) for part in _parts(value)]
                        for value, var in zip(inputs, equation.invars))  # fmt: skip
    value, first, second = (np.asarray(bound(equation, list(of))[0], np.float64) for of in ((a, b), (da, b), (a, db)))
    return [_made(value, STEP * (first + second))]


def _sort(params, inputs: list) -> list:
    if params["num_keys"] != 1:
        raise NotAnalytic("sort by several keys")
    order = np.argsort(inputs[0].real, axis=params["dimension"], kind="stable")
    return [np.take_along_axis(value, order, params["dimension"]) for value in inputs]


def _logistic(params, aval, x):
    negative = x.real < 0
    e = np.exp(np.where(negative, x, -x))
    return np.where(negative, e, 1) / (1 + e)


def _abs(params, aval, x):
    return np.where(x.real < 0, -x, x)


def _extreme(sign: int) -> Callable:
    """max or min of two; at a tie the mean of both tangents, which is linear in them, as a larger tangent is not."""

    def of(params, aval, a, b):
        apart = sign * (a.real - b.real)
        tangent = np.where(apart > 0, a.imag, np.where(apart < 0, b.imag, (a.imag + b.imag) / 2))
        return _made((np.maximum if sign > 0 else np.minimum)(a.real, b.real), tangent)

    return of


def _reduced_extreme(sign: int) -> Callable:
    """The extreme over some axes; at a tie the mean of the tied tangents."""

    def of(params, aval, x):
        axes = tuple(params["axes"])
        value = sign * np.max(sign * x.real, axis=axes, keepdims=True)
        tied = (x.real == value) | np.isnan(value)
        tangent = np.sum(np.where(tied, x.imag, 0), axis=axes) / tied.sum(axis=axes)
        return _made(np.squeeze(value, axes), tangent)

    return of


def _clamp(params, aval, low, x, high):
    return np.where(x.real < low.real, low, np.where(x.real > high.real, high, x))


def _identity(params, aval, x):
    return x


def _power(x, y):
    """By its formula, because the complex logarithm of a negative number is on a branch."""
    (x, dx), (y, dy) = _parts(x), _parts(y)
    value = np.power(x, y)
    by_x = np.where(dx == 0, 0, y * np.power(x, y - 1) * dx)
    by_y = np.where(dy == 0, 0, np.log(x) * value * dy)
    return _made(value, STEP * (by_x + by_y))


def _by_slope(name: str, slope: Callable) -> Callable:
    """A function of which NumPy has no complex version, with its derivative."""

    def of(x):
        x, dx = _parts(x)
        return _made(TABLE[name]({}, None, x), STEP * slope(x) * dx)

    return of


def _atan2(y, x):
    (y, dy), (x, dx) = _parts(y), _parts(x)
    return _made(np.arctan2(y, x), STEP * (x * dy - y * dx) / (x * x + y * y))


BY_FORMULA: dict[str, Callable] = {
    "pow": _power,
    "atan2": _atan2,
    "erf": _by_slope("erf", lambda x: 2 / np.sqrt(pi) * np.exp(-x * x)),
    "erfc": _by_slope("erfc", lambda x: -2 / np.sqrt(pi) * np.exp(-x * x)),
    "cbrt": _by_slope("cbrt", lambda x: 1 / (3 * np.cbrt(x) ** 2)),
}
SAME = {  # of the table for real numbers, right for complex ones
    "add", "add_any", "sub", "mul", "neg", "exp", "exp2", "log", "log1p", "expm1", "tanh", "sin", "cos", "tan", "sinh",
    "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "sqrt", "square", "rsqrt", "integer_pow",
    "div", "dot_general", "broadcast_in_dim", "select_n", "slice", "reshape", "squeeze", "expand_dims",
    "transpose", "rev", "concatenate", "reduce_sum", "reduce_prod", "cumsum", "cumprod",
    "copy", "copy_p", "stop_gradient", "pad", "dynamic_slice", "dynamic_update_slice",
}  # fmt: skip
COMPLEX = {name: TABLE[name] for name in SAME} | {
    "max": _extreme(1), "min": _extreme(-1), "reduce_max": _reduced_extreme(1), "reduce_min": _reduced_extreme(-1),
    "clamp": _clamp, "abs": _abs, "logistic": _logistic, "convert_element_type": _identity,
    "reduce_precision": _identity,
}  # fmt: skip
PARTIAL = {"sqrt", "rsqrt", "log", "log1p", "asin", "acos", "acosh", "atanh"}
OF_REAL_PART = {"sign", "floor", "ceil", "round", "argmax", "argmin", "is_finite", "eq", "ne", "lt", "le", "gt", "ge"}
LINEAR = {"gather", "scatter", "scatter-add", "scatter_add", "reduce_window_sum"}
