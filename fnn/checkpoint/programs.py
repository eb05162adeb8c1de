"""A traced program as text, with every constant in it; equal programs give equal text.

A function's name or repr may hide what it computes: a rate in a closure, a field that the repr leaves out, a global
variable. The program that JAX traces hides nothing.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from fnn.checkpoint.fingerprint import digest, static


def program(function: Callable, *args) -> str:
    """The SHA-256 of the program that ``function(*args)`` traces, constants included; args: arrays or their shapes.

    Programs are printed alike in every process with the same version of JAX; another version may print another text.

    >>> one, other = (program(lambda x, rate=rate: rate * x, 1.0) for rate in (0.1, 0.2))
    >>> one == other
    False
    """
    traced = jax.make_jaxpr(function)(*args)
    found = hashlib.sha256()
    for line in _lines(traced.jaxpr, traced.consts):
        found.update(line.encode())
    return found.hexdigest()


def _lines(program, constants) -> Iterator[str]:
    """The equations with variables numbered in order of appearance, for JAX names them by what else it traced."""
    numbers: dict[Any, int] = {}

    def name(variable) -> str:
        if hasattr(variable, "val"):
            return f"{_constant(variable.val)}:{variable.aval.str_short()}"
        return f"{numbers.setdefault(variable, len(numbers))}:{variable.aval.str_short()}"

    yield f"{[*map(name, program.constvars)]} = {[*map(_constant, constants)]}; {[*map(name, program.invars)]}\n"
    for equation in program.eqns:
        inputs, outputs = [*map(name, equation.invars)], [*map(name, equation.outvars)]
        yield f"{outputs} = {equation.primitive.name} {inputs}\n"
        for key in sorted(equation.params):
            yield f"{key}="
            yield from _parameter(equation.params[key])
            yield "\n"
    yield f"-> {[*map(name, program.outvars)]}\n"


def _parameter(value) -> Iterator[str]:
    """A parameter of an equation: a program in it line by line, an array by its digest, anything else by its repr."""
    if hasattr(value, "jaxpr") and hasattr(value, "consts"):
        yield from _lines(value.jaxpr, value.consts)
    elif hasattr(value, "eqns"):
        yield from _lines(value, ())
    elif isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        for part in value:
            yield from _parameter(part)
            yield ", "
    elif isinstance(value, (set, frozenset)):  # whose order is another in every process
        yield str(sorted(map(static, value)))
    elif isinstance(value, (np.ndarray, jax.Array)):
        yield _constant(value)
    else:
        yield getattr(value, "__qualname__", None) or static(value)


def _constant(value) -> str:
    """A number as text, an array as its digest, a PRNG key as its data's."""
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if np.ndim(value) == 0:
        return repr(np.asarray(value).item()) if hasattr(value, "dtype") else repr(value)
    return digest(np.asarray(value))
