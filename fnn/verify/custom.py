"""Functions with a derivative of their own, by ``jax.custom_vjp`` or ``jax.custom_jvp``, against an oracle."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks import describe
from fnn.verify.blackbox import black_box, in_best_dtype
from fnn.verify.oracle import TOLERANCE, exactly, in_dtype, is_floating, to_numpy
from fnn.verify.report import Finding, Report
from fnn.verify.stages import random_like

SEED = 0
COTANGENTS = 2  # drawn at random; two, so that one that happens to be orthogonal to a mistake is not the only one
DIFFERENCES = {"float64": (1e-6, 1e-7), "float32": (1e-2, 2e-2)}  # step, tolerance: measured 6e-11 and 2e-3
MOST_ENTRIES = 10_000  # two evaluations of the function for each


def custom_vjp(
    f: Callable, *args, oracle: Callable | None = None, dtype: str | None = None, tolerance: float | None = None
) -> Report:
    """Compare the derivative that ``f`` brings along with autodiff of the function underneath.

    f: decorated with ``jax.custom_vjp`` or ``jax.custom_jvp``, under ``jax.jit`` or not. args: its arguments,
    pytrees; the derivative is by their floating arrays, everything else is left as it is. oracle: a function of
    the same arguments that autodiff can differentiate, for an ``f`` that it cannot (a kernel, a callback).
    dtype, tolerance: as in :func:`gradient`.

    Without ``oracle``, the undecorated function is differentiated; where autodiff cannot, central differences
    are taken along **every** entry of the arguments, so that one wrong entry is seen as a wrong entry; a few random
    directions would dilute it among all others. They are judged at 1e-7 in float64, and at 2e-2 in float32,
    which sees gross mistakes only: give ``oracle`` there. Arguments of more than 10,000 entries are refused then.

    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x**2
    >>> square.defvjp(lambda x: (x**2, x), lambda x, y_bar: (x * y_bar,))
    >>> print(custom_vjp(square, jnp.arange(3.0)).wrong[0].note)
    a factor 1/2 too small
    """
    if not callable(f):
        raise TypeError(f"f: expected a function with a custom derivative, got {describe(f)}")
    plain = oracle if oracle is not None else undecorated(f)
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(f, plain, args, chosen, tolerance, oracle is not None))


def undecorated(f: Callable) -> Callable:
    """The function under ``jax.custom_vjp`` or ``jax.custom_jvp``; other decorators are passed through."""
    inner: Any = f
    while not isinstance(inner, (jax.custom_vjp, jax.custom_jvp)):
        if not hasattr(inner, "__wrapped__"):
            raise TypeError(f"f: expected a function with a custom derivative, got {f!r}; or give oracle=")
        inner = inner.__wrapped__
    return inner.__wrapped__  # type: ignore[union-attr]


def _judge(f, plain, args, dtype, tolerance, given) -> Report:
    random = np.random.default_rng(SEED)
    with exactly(dtype):
        args = in_dtype(args, dtype)
        leaves, structure = jax.tree.flatten(args)
        places = [i for i, leaf in enumerate(leaves) if is_floating(leaf)]
        if not places:
            raise TypeError("args: expected at least one floating array, to differentiate by it")

        def rebuilt(function):
            def call(*floats):
                changed = list(leaves)
                for i, value in zip(places, floats):
                    changed[i] = value
                return function(*jax.tree.unflatten(structure, changed))

            return call

        inputs = tuple(leaves[i] for i in places)
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(args)]
        names = [f"args[{paths[i][0].idx}]{jax.tree_util.keystr(paths[i][1:])}" for i in places]
        output = rebuilt(f)(*inputs)
        findings: list[Finding] = []
        notes: tuple[str, ...] = ()
        for draw in range(COTANGENTS):
            y_bar = random_like(output, random)
            hand = to_numpy(jax.vjp(rebuilt(f), *inputs)[1](y_bar))

            def again(inputs, y_bar=y_bar):
                return jax.vjp(rebuilt(plain), *inputs)[1](y_bar)

            try:
                theirs, allowed = to_numpy(again(inputs)), tolerance or TOLERANCE[dtype]
            except Exception as error:
                if given:
                    raise TypeError(f"oracle: autodiff cannot differentiate it: {error}") from error
                theirs, step = _differences(rebuilt(f), inputs, y_bar, dtype)
                allowed = tolerance or DIFFERENCES[dtype][1]
                count = sum(np.size(leaf) for leaf in inputs)
                notes = (
                    f"autodiff cannot differentiate the undecorated function ({type(error).__name__}): compared with "
                    f"central differences of step {step:g} along each of the {count} entries of its arguments",
                )
                again = None  # type: ignore[assignment]  # no oracle whose rounding could be measured
            labelled = [f"{name}, cotangent {draw + 1}" for name in names]
            findings += black_box(labelled, hand, theirs, allowed, again, inputs)
    return Report(tuple(findings), dtype, notes, "cotangent", SEED)


def _differences(f, inputs, y_bar, dtype):
    """Central differences of ⟨ȳ, f⟩ along every entry of the inputs, and the step relative to an entry."""
    count = sum(np.size(leaf) for leaf in inputs)
    if count > MOST_ENTRIES:
        raise ValueError(f"args: {count:,} entries are too many for differences along each; give oracle=, or fewer")
    step = DIFFERENCES[dtype][0]

    def contracted(values):
        products = jax.tree.map(
            lambda a, b: np.sum(np.asarray(a, np.float64) * np.asarray(b)) if is_floating(a) else 0.0,
            f(*(jnp.asarray(value, dtype) for value in values)), y_bar,
        )  # fmt: skip
        return sum(jax.tree.leaves(products))

    base = [np.array(leaf) for leaf in inputs]
    results = []
    for k, leaf in enumerate(base):
        result = np.zeros(leaf.shape)
        for index in np.ndindex(leaf.shape):
            h = leaf.dtype.type(step * max(1.0, abs(float(leaf[index]))))
            ends = []
            for sign in (1, -1):
                moved = [value.copy() if i == k else value for i, value in enumerate(base)]
                moved[k][index] = leaf[index] + sign * h
                ends.append((contracted(moved), float(moved[k][index])))
            result[index] = (ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])
        results.append(result)
    return results, step
