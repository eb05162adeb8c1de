"""Evaluating functions with NumPy: they are traced by JAX and nothing is compiled.

A check computes many small values once each, where compilation would take a hundred times as long as the arithmetic.
Primitives that are not in the table of ``primitives`` run in JAX. What is traced is dropped with the check: JAX caches
what it traces, and a float64 trace of the user's function must not answer a float32 call later.
"""

import contextlib
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fnn.verify.devices import on_cpu_if_possible
from fnn.verify.primitives import ROUNDED, TABLE, nudged

INLINED = {
    "pjit": "jaxpr", "jit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat2": "jaxpr",
    "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
}  # fmt: skip


class Traced(NamedTuple):
    """A function as JAX traced it: call it with the leaves that are arrays."""

    jaxpr: core.ClosedJaxpr
    structure: Any

    def __call__(self, *leaves):
        return jax.tree.unflatten(self.structure, run(self.jaxpr.jaxpr, self.jaxpr.consts, leaves))

    def perturbed(self, random, *leaves, unit: float | None = None):
        """The value where every rounding is another one: each operation's result is moved by up to one unit of it.

        unit: the relative size of the moves, if it is not that of the dtype.
        """

        def perturb(equation, values: list) -> list:
            return [nudged(random, value, unit) for value in values] if equation.primitive.name in ROUNDED else values

        return jax.tree.unflatten(self.structure, run(self.jaxpr.jaxpr, self.jaxpr.consts, leaves, then=perturb))


def is_array(leaf) -> bool:
    """Whether a leaf of the arguments is a number or an array, and not part of the function, as a random key is."""
    if isinstance(leaf, jax.Array):
        return not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    return isinstance(leaf, (np.ndarray, np.generic, float, int, complex)) and not isinstance(leaf, bool)


def trace(function: Callable, *args) -> tuple[Traced, list]:
    """The function traced at the arguments, and their arrays, which are what it takes; other leaves are fixed."""
    leaves, structure = jax.tree.flatten(args)
    varying = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
    arrays = [leaves[i] for i in varying]
    fixed = tuple(None if is_array(leaf) else leaf for leaf in leaves)
    shapes = tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in arrays)
    key = function, structure, fixed, shapes, jnp.result_type(float)
    remembered = _KEPT if _is_ours(function, fixed) else _REMEMBERED.get()
    if remembered is not None and key in remembered:
        return remembered[key], arrays
    results = []

    def of(*arrays):
        filled = list(leaves)
        for i, value in zip(varying, arrays):
            filled[i] = value
        flat, found = jax.tree.flatten(function(*jax.tree.unflatten(structure, filled)))
        results.append(found)
        return flat

    with jax.disable_jit():  # a compiled function of the user's would keep the trace
        jaxpr = jax.make_jaxpr(of)(*arrays)
    traced = Traced(jaxpr, results[-1])
    if remembered is not None:
        if len(remembered) > MOST_KEPT:
            remembered.clear()
        remembered[key] = traced
    return traced, arrays


_REMEMBERED: ContextVar[dict | None] = ContextVar("remembered", default=None)
MOST_KEPT = 2000
_KEPT: dict = {}  # traces of fnn's own functions, which hold nothing of the user's


def _is_ours(function: Callable, fixed: tuple) -> bool:
    """Whether a function is of fnn, or of one of its activations or losses, and all that is fixed in its call."""
    owner = getattr(function, "__self__", None)
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "<")
    plain = "<" not in name and module.startswith("fnn.") and (owner is not None or module not in USERS)
    return plain and all(value is None or _is_part_of_fnn(value) for value in (owner, *fixed))


USERS = ("fnn.verify.blackbox", "fnn.verify.custom", "fnn.verify.gradients", "fnn.verify.stages")


def _is_part_of_fnn(value) -> bool:
    of = type(value)
    return of.__module__.startswith(("fnn.activations", "fnn.losses")) and not hasattr(value, "activations")


@contextlib.contextmanager
def remembering():
    """Within it, a function is traced once for all arguments of the same shapes; what is traced is then forgotten."""
    token = _REMEMBERED.set({})
    try:
        yield
    finally:
        _REMEMBERED.reset(token)


class Value(NamedTuple):
    """What a function returned, in NumPy arrays, and the coarsest floating dtype in which it computed it."""

    value: Any
    precision: str = "float64"


@contextlib.contextmanager
def forgetting():
    """Within it, every function is traced anew."""
    token = _REMEMBERED.set(None)
    try:
        yield
    finally:
        _REMEMBERED.reset(token)


_UNTRACED: ContextVar[bool] = ContextVar("untraced", default=False)


@contextlib.contextmanager
def untraced():
    """Within it, functions are called and not traced: for those that keep what they computed for the next call."""
    token = _UNTRACED.set(True)
    try:
        yield
    finally:
        _UNTRACED.reset(token)


def called(function: Callable, *args) -> Value:
    """The function's value; one that JAX cannot trace, as code written for NumPy, is called with copies in NumPy."""
    if _UNTRACED.get():
        arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, args)
        return Value(jax.tree.map(lambda leaf: np.asarray(leaf) if is_array(leaf) else leaf, function(*arrays)))
    try:
        traced, arrays = trace(function, *args)
        return Value(traced(*arrays), precision_inside(traced.jaxpr.jaxpr))
    except Exception as error:
        try:
            return Value(called_directly(function, *args))
        except Exception as own:
            raise own if isinstance(error, jax.errors.JAXTypeError) else error from None


def called_directly(function: Callable, *args):
    """The value of a function that JAX cannot trace, of copies in NumPy, which it may overwrite."""
    copies = jax.tree.map(lambda leaf: np.array(leaf) if hasattr(leaf, "shape") and is_array(leaf) else leaf, args)
    return jax.tree.map(_in_numpy, function(*copies))


def _in_numpy(leaf):
    """An array or number of any library in NumPy; a tensor of torch without its graph."""
    if hasattr(leaf, "detach"):
        leaf = leaf.detach()
    foreign = hasattr(leaf, "__array__") and not isinstance(leaf, jax.Array)
    return np.asarray(leaf) if foreign or is_array(leaf) else leaf


def of_other_libraries(given: Sequence, functions: Sequence[Callable]) -> tuple[list, list[Callable]]:
    """The arguments in NumPy, and the functions, which still get torch's tensors where tensors were given."""
    leaves, structure = jax.tree.flatten(tuple(given))
    tensors = [hasattr(leaf, "detach") for leaf in leaves]
    if not any(tensors):
        return list(given), list(functions)
    torch = sys.modules["torch"]

    def with_tensors(function: Callable) -> Callable:
        def call(*args):
            pairs = zip(jax.tree.leaves(args), tensors)
            return function(*jax.tree.unflatten(structure, [torch.tensor(np.asarray(a)) if t else a for a, t in pairs]))

        return call

    return list(jax.tree.unflatten(structure, map(_in_numpy, leaves))), [with_tensors(f) for f in functions]


def evaluate(function: Callable, *args):
    """The function's value in NumPy arrays, see :func:`called`."""
    return called(function, *args).value


def run(jaxpr, consts, args, see: Callable | None = None, then: Callable | None = None) -> list[np.ndarray]:
    """The outputs of a traced function; for each equation, ``see(equation, inputs)`` is called before it.

    ``then(equation, values)``, if given, returns what takes the place of its values.
    """
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(constant, consts)))
    inputs: Any = jaxpr.invars
    values.update((var, np.asarray(arg, var.aval.dtype)) for arg, var in zip(args, inputs))

    def read(var: Any):
        return np.asarray(var.val, var.aval.dtype) if isinstance(var, core.Literal) else values[var]  # type: ignore[attr-defined]

    with np.errstate(all="ignore"):
        for equation in jaxpr.eqns:
            found = apply_equation(equation, [read(var) for var in equation.invars], see, then)
            values.update(zip(equation.outvars, found if then is None else then(equation, found)))
    return [read(var) for var in jaxpr.outvars]


def constant(value):
    """A constant of a traced function in NumPy; a random key as it is."""
    return value if jnp.issubdtype(jnp.result_type(value), jax.dtypes.extended) else np.asarray(value)


def apply_equation(equation, inputs: list, see: Callable | None = None, then: Callable | None = None) -> list:
    """The values of one equation at its inputs."""
    if see is not None:
        see(equation, inputs)
    name, params = equation.primitive.name, equation.params
    if name in INLINED:
        inner = params[INLINED[name]]
        jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())
        return run(jaxpr, consts, inputs, see, then)
    if name == "optimization_barrier":
        return inputs
    if name == "split":
        return np.split(inputs[0], np.cumsum(params["sizes"])[:-1], params["axis"])
    out: Any = equation.outvars
    if name in TABLE and all(np.issubdtype(var.aval.dtype, np.generic) for var in out):
        result = TABLE[name](params, out[0].aval, *inputs)
        real = np.iscomplexobj(result) and not np.issubdtype(out[0].aval.dtype, np.complexfloating)
        return [np.asarray(result.real if real else result).astype(out[0].aval.dtype, copy=False)]
    return [value if jnp.issubdtype(value.dtype, jax.dtypes.extended) else np.asarray(value)
            for value in bound(equation, inputs)]  # fmt: skip


def in_numpy_alone(jaxpr) -> bool:
    """Whether every primitive of a traced function is evaluated by NumPy, and none by JAX, where a call costs more."""
    ours = {*TABLE, *INLINED, "split", "optimization_barrier"}
    return all(equation.primitive.name in ours for equation in equations_inside(jaxpr))


# -- the precision that a function has inside ------------------------------------------------------------------

PRECISIONS = ("float8", "bfloat16", "float16", "float32", "float64")  # from the coarsest to the finest


def precision_inside(jaxpr) -> str:
    """The coarsest floating dtype in which a traced function computes, or of a constant in it."""
    variables = [var for equation in equations_inside(jaxpr) for var in equation.outvars]
    found = {str(var.aval.dtype) for var in (*jaxpr.constvars, *variables) if _floating(var)}
    return next((name for name in PRECISIONS if any(dtype.startswith(name) for dtype in found)), "float64")


def _floating(var) -> bool:
    dtype = getattr(var.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def equations_inside(jaxpr):
    """Every equation of a traced function, and of the functions within it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations_inside(inner)


# -- custom derivatives inside a function ----------------------------------------------------------------------

CUSTOM = ("custom_jvp_call", "custom_vjp_call")


class Custom(NamedTuple):
    """A custom derivative inside a function: its name, what it gets there, and the function with and without it."""

    name: str
    inputs: tuple
    ruled: Callable
    plain: Callable


def custom_inside(function: Callable, *args) -> list[Custom]:
    """The custom derivatives that a function uses at its arguments, but for those of JAX itself."""
    found: list[Custom] = []

    def see(equation, inputs: list) -> None:
        name = _name_of(equation)
        if name is None or any(custom.name == name for custom in found):
            return
        inner = equation.params[INLINED[equation.primitive.name]]
        found.append(
            Custom(name, tuple(inputs), lambda *xs: bound(equation, xs), lambda *xs: by_jax(inner, xs, _is_custom))
        )

    try:
        traced, arrays = trace(function, *args)
        run(traced.jaxpr.jaxpr, traced.jaxpr.consts, arrays, see)
    except Exception:  # a function for NumPy has none, and one that raises is reported elsewhere
        return []
    return found


def inlined(function: Callable, names: list[str]) -> Callable:
    """The function without the custom derivatives of these names."""

    def call(*args):
        traced, arrays = trace(function, *args)
        values = by_jax(traced.jaxpr, arrays, lambda equation: _is_custom(equation) and _name_of(equation) in names)
        return jax.tree.unflatten(traced.structure, values)

    return call


def _name_of(equation) -> str | None:
    """The name of a function with a custom derivative, if the equation calls one that is not JAX's own."""
    if equation.primitive.name not in CUSTOM:
        return None
    info = equation.params[INLINED[equation.primitive.name]].jaxpr.debug_info
    return None if "/jax/_src/" in info.func_src_info else info.func_name


def _is_custom(equation) -> bool:
    return _name_of(equation) is not None


def by_jax(closed, args, inline: Callable | None = None, instead: Callable | None = None) -> list:
    """A traced function evaluated by JAX, so that autodiff goes through.

    inline: whether the function inside an equation is evaluated instead, so that its custom derivative is not used;
    ``instead(equation, inputs)`` returns its values, or None for those that it has.
    """
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts))
    values.update(zip(closed.jaxpr.invars, args))

    def read(var):
        return var.val if isinstance(var, core.Literal) else values[var]

    for equation in closed.jaxpr.eqns:
        inputs = [read(var) for var in equation.invars]
        found = None if instead is None else instead(equation, inputs)
        if found is None and inline is not None and inline(equation):
            found = by_jax(_inside(equation), inputs, inline, instead)
        elif found is None:
            found = bound(equation, inputs)
        for var, value in zip(equation.outvars, found):
            values[var] = value
    return [read(var) for var in closed.jaxpr.outvars]


def _inside(equation) -> core.ClosedJaxpr:
    inner = equation.params[INLINED[equation.primitive.name]]
    return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def bound(equation, inputs) -> list:
    """The equation's values by JAX."""
    params = equation.primitive.get_bind_params(equation.params)
    functions, params = ((), params) if isinstance(params, dict) else params  # the second in older versions of JAX
    found = on_cpu_if_possible(lambda: equation.primitive.bind(*functions, *inputs, **params))
    return found if equation.primitive.multiple_results else [found]
