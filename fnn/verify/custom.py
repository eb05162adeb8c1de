"""Functions with custom derivatives (``jax.custom_vjp``, ``jax.custom_jvp``) against an oracle."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fnn.checks.arrays import describe
from fnn.verify.blackbox import BlackBox, in_best_dtype
from fnn.verify.differences import by_differences
from fnn.verify.oracle import TOLERANCE, exactly, in_dtype, is_floating, to_numpy
from fnn.verify.report import Report, compare
from fnn.verify.stages import random_like

SEED = 0
COTANGENTS = 2  # random ones; two, in case one happens to be orthogonal to a mistake


def custom_vjp(
    f: Callable, *args, oracle: Callable | None = None, dtype: str | None = None, tolerance: float | None = None
) -> Report:
    """Compare the custom derivative of ``f`` with autodiff of the undecorated function.

    f: decorated with ``jax.custom_vjp`` or ``jax.custom_jvp``, optionally under ``jax.jit``. args: its arguments,
    pytrees; the derivative is taken with respect to their floating arrays. oracle: a function of the same arguments
    that autodiff can differentiate, for an ``f`` that it cannot (a kernel, a callback). dtype, tolerance: as in
    :func:`gradient`.

    Without ``oracle``, the undecorated function is differentiated; custom derivatives inside it are trusted. If
    autodiff fails or is not finite, central differences are taken along **every** entry of the arguments, so that a
    single wrong entry shows; a few random directions would dilute it. Their tolerance is 1e-7 in float64 and 2e-2 in
    float32, which reveals only gross mistakes: give ``oracle`` there. At most 10,000 entries are accepted in this case.
    The value that ``f`` returns under differentiation is compared too. Raises TypeError or ValueError if there is
    nothing to compare with.

    >>> import jax.numpy as jnp
    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x**2
    >>> square.defvjp(lambda x: (x**2, x), lambda x, y_bar: (x * y_bar,))
    >>> print(custom_vjp(square, jnp.arange(3.0)).wrong[0].note)
    a factor 1/2 too small
    """
    if not callable(f):
        raise TypeError(f"f: expected a function with a custom derivative, got {describe(f)}")
    given = oracle is not None
    try:
        plain, fixed = undecorated(f)
    except TypeError:
        if not given:
            raise
        plain, fixed = f, ()
    plain = oracle if oracle is not None else plain
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(f, plain, fixed, args, chosen, tolerance, given))


def undecorated(f: Callable) -> tuple[Callable, tuple[int, ...]]:
    """The function under ``jax.custom_vjp`` or ``jax.custom_jvp``, and its ``nondiff_argnums``."""
    inner: Any = f
    while not isinstance(inner, (jax.custom_vjp, jax.custom_jvp)):
        if not hasattr(inner, "__wrapped__"):
            raise TypeError(f"f: expected a function with a custom derivative, got {f!r}; or give oracle=")
        inner = inner.__wrapped__
    return inner.__wrapped__, tuple(getattr(inner, "nondiff_argnums", ()) or ())  # type: ignore[union-attr]


class _Arguments:
    """The floating leaves of the arguments, and functions of only these."""

    def __init__(self, args, fixed: Sequence[int], dtype: str):
        self.fixed = {i: args[i] for i in fixed if i < len(args)}
        given = tuple(None if i in self.fixed else in_dtype(arg, dtype) for i, arg in enumerate(args))
        paths = jax.tree_util.tree_leaves_with_path(given)
        self.leaves, self.structure = jax.tree.flatten(given)
        self.places = [i for i, leaf in enumerate(self.leaves) if is_floating(leaf)]
        self.names = [f"args[{paths[i][0][0].idx}]{jax.tree_util.keystr(paths[i][0][1:])}" for i in self.places]
        self.inputs = tuple(self.leaves[i] for i in self.places)
        if not self.inputs:
            raise TypeError("args: expected at least one floating array, to differentiate by it")

    def of(self, function: Callable) -> Callable:
        """``function`` as a function of the floating leaves."""

        def call(*floats):
            leaves = list(self.leaves)
            for i, value in zip(self.places, floats):
                leaves[i] = value
            args = list(jax.tree.unflatten(self.structure, leaves))
            for i, value in self.fixed.items():
                args[i] = value
            return function(*args)

        return call


def _judge(f, plain, fixed, args, dtype, tolerance, given) -> Report:
    random = np.random.default_rng(SEED)
    with exactly(dtype):
        arguments = _Arguments(args, fixed, dtype)
        ours, theirs, inputs = arguments.of(f), arguments.of(plain), arguments.inputs
        value = ours(*inputs)
        limit = tolerance or TOLERANCE[dtype]
        same = _same(value, theirs(*inputs), limit)
        carried = jax.vjp(ours, *inputs)[0]  # what the forward rule returns may differ from the function's value
        findings = [
            compare(
                f"value under differentiation{jax.tree_util.keystr(path)}",
                *_where_finite(ruled, plainly),
                limit,
                kind="value",
            )
            for (path, ruled), plainly in zip(jax.tree_util.tree_leaves_with_path(carried), jax.tree.leaves(value))
        ]
        notes: tuple[str, ...] = ()
        for draw in range(COTANGENTS):
            y_bar = random_like(value, random)

            def hand(given, y_bar=y_bar):
                return jax.vjp(ours, *given)[1](y_bar)

            def oracle(given, y_bar=y_bar):
                return jax.vjp(theirs, *given)[1](y_bar)

            names = [f"{name}, cotangent {draw + 1}" for name in arguments.names]
            mine = to_numpy(hand(inputs))
            right, doubt = _automatic(oracle, inputs, mine, same, given)
            if not doubt:
                findings += BlackBox(hand, oracle, inputs).findings(names, mine, right, limit)
            else:
                judged, note = by_differences(ours, inputs, y_bar, dtype, names, mine, tolerance, right)
                findings, notes = findings + judged, (f"{doubt}: {note}",)
    return Report(tuple(findings), dtype, notes, "cotangent", SEED)


def _automatic(oracle, inputs, mine, same: bool, given: bool) -> tuple[list | None, str]:
    """Autodiff's cotangents, or None, and why they cannot be trusted, or "" if they can."""
    try:
        right = to_numpy(oracle(inputs))
    except Exception as error:  # autodiff may raise anything on a kernel, a callback or a loop
        if given:
            raise TypeError(f"oracle: autodiff cannot differentiate it: {error}") from error
        return None, f"autodiff cannot differentiate the undecorated function ({type(error).__name__})"
    if not same and given:
        raise ValueError("oracle: its value differs from that of f; write oracle=, a function of the same value")
    if not same:
        return None, "f is not the function that it decorates"
    if any(np.isfinite(m).all() and not np.isfinite(r).all() for m, r in zip(mine, right)):
        return right, "autodiff of the undecorated function is not finite"
    return right, ""


def _same(value, plain_value, tolerance: float) -> bool:
    """Whether both functions have the same value; otherwise their derivatives are not comparable."""
    if str(jax.tree.structure(value)) != str(jax.tree.structure(plain_value)):
        return False
    for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(plain_value)):
        if np.shape(a) != np.shape(b):
            return False
        if is_floating(a) and not compare("", *_where_finite(a, b), tolerance).error <= 1e3 * tolerance:
            return False
    return True


def _where_finite(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Both values, with 0 where neither is finite."""
    a, b = (np.asarray(value, np.float64) for value in (a, b))
    if a.shape != b.shape:
        return a, b
    infinite = ~np.isfinite(a) & ~np.isfinite(b)
    return np.where(infinite, 0, a), np.where(infinite, 0, b)
