"""Naming quantities inside an ordinary function, and evaluating it with others in their place."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from fnn.verify.interpret import INLINED, by_jax, equations_inside, forgetting, trace

_WATCHED: ContextVar[bool] = ContextVar("watched", default=False)


def tap(name: str, value):
    """The value itself, named: where a check runs, its derivative is compared with the hand-written one of this name.

    name: of the quantity, as "z1"; in a loop the same name may come several times, and then stands for all of them, in
    their order. value: an array or a pytree of arrays. Outside a check this does nothing, whatever is traced, compiled,
    differentiated or mapped; under ``jax.vmap`` the quantity is that of all examples, with the batch as first axis.
    Raises TypeError for a name that is not a string.

    :func:`gradient` compares the δ's if the hand-written function returns ``(gradient, {"z1": δ, ...})``:

    >>> import jax.numpy as jnp
    >>> from fnn.verify import gradient, tap
    >>> def cost(w, x):
    ...     z1 = tap("z1", w * x)
    ...     z2 = tap("z2", jnp.tanh(z1))
    ...     return (z2**2).sum()
    >>> def hand(w, x):
    ...     z2 = jnp.tanh(w * x)
    ...     d2 = z2                              # 2 z2
    ...     d1 = d2 * (1 - z2**2)
    ...     return d1 * x, {"z2": d2, "z1": d1}
    >>> report = gradient(hand, cost, jnp.arange(3.0), jnp.ones(3))
    >>> print(report.verdict())
    1 of 3 quantities is wrong (2 others differ only because they use it)
    >>> report.wrong[0].name, report.wrong[0].note
    ('z2', 'a factor 1/2 too small')
    """
    if not isinstance(name, str):
        raise TypeError(f'name: expected a string, got {name!r}; write tap("z1", z1)')
    if not _WATCHED.get():
        return value
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: tap_p.bind(jnp.asarray(leaf), name=name + jax.tree_util.keystr(path)), value
    )


tap_p = core.Primitive("tap")  # the identity; what is traced in a check shows it
tap_p.def_impl(lambda value, *, name: value)
tap_p.def_abstract_eval(lambda aval, *, name: aval)
mlir.register_lowering(tap_p, mlir.lower_fun(lambda value, *, name: value, multiple_results=False))


def _jvp(primals, tangents, *, name):
    return tap_p.bind(*primals, name=name), tangents[0]


def _batched(values, axes, *, name):
    return tap_p.bind(jnp.moveaxis(values[0], axes[0], 0), name=name), 0


ad.primitive_jvps[tap_p] = _jvp
batching.primitive_batchers[tap_p] = _batched


@contextlib.contextmanager
def _watching():
    """Within it, taps are seen.

    The precision means the same as "highest", in which a check computes; another name makes JAX trace anew what it
    keeps of the user's functions, as under ``jax.checkpoint``, where there are no taps.
    """
    token = _WATCHED.set(True)
    try:
        with forgetting(), jax.default_matmul_precision("float32"):
            yield
    finally:
        _WATCHED.reset(token)


def _watched(objective: Callable, params, args):
    """The function as JAX traces it, its arrays, and the names of its taps in the order of the computation."""
    with _watching():
        traced, arrays = trace(lambda params, args: objective(params, *args), params, args)
    return traced.jaxpr, arrays, _named([equation.params["name"] for equation in _taps(traced.jaxpr.jaxpr)])


def run_tapped(objective: Callable, params, args, at: Callable[[str, Any], Any]):
    """The objective, where ``at(name, value)`` takes the place of every tapped value."""
    closed, arrays, names = _watched(objective, params, args)
    remaining = iter(names)

    def instead(equation, inputs: list) -> list | None:
        return [at(next(remaining), *inputs)] if equation.primitive is tap_p else None

    return by_jax(closed, arrays, _has_taps, instead)[0]


def tapped(objective: Callable, params, args) -> list[str]:
    """The names of what a function taps, in the order of the computation; none where JAX cannot trace it."""
    try:
        return _watched(objective, params, args)[2]
    except NotImplementedError:
        raise
    except Exception:  # it is written for NumPy, or raises what is reported where its value is asked for
        return []


def _taps(jaxpr) -> Iterator:
    """The taps in a traced function, in the order of the computation."""
    for equation in jaxpr.eqns:
        if equation.primitive is tap_p:
            yield equation
        elif _has_taps(equation):
            if equation.primitive.name not in INLINED:
                raise NotImplementedError(
                    f"tap: it is inside a {equation.primitive.name}, where a quantity has no single value; tap what "
                    f"goes in and what comes out, or write a loop in Python"
                )
            yield from _taps(_inner(equation))


def _has_taps(equation) -> bool:
    return any(inner.primitive is tap_p for jaxpr in core.jaxprs_in_params(equation.params)
               for inner in equations_inside(jaxpr))  # fmt: skip


def _inner(equation):
    inner = equation.params[INLINED[equation.primitive.name]]
    return inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner


def _named(names: list[str]) -> list[str]:
    """The names, with their number where one comes several times."""
    total, seen, found = Counter(names), Counter[str](), []
    for name in names:
        found.append(f"{name}[{seen[name]}]" if total[name] > 1 else name)
        seen[name] += 1
    return found
