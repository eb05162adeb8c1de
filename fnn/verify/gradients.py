"""A gradient function against autodiff, leaf by leaf."""

from collections.abc import Callable

import jax
import numpy as np

from fnn.checks.arrays import describe
from fnn.verify.blackbox import BlackBox, in_best_dtype
from fnn.verify.oracle import TOLERANCE, exactly, fresh, in_dtype, is_floating, to_numpy
from fnn.verify.report import Report


def gradient(
    hand: Callable, objective: Callable, params, *args, dtype: str | None = None, tolerance: float | None = None
) -> Report:
    """Compare ``hand(params, *args)`` with ``jax.grad(objective)(params, *args)``, leaf by leaf.

    hand: returns a pytree like ``params``; objective: returns a scalar; params, args: pytrees of arrays.
    dtype: "float64" or "float32", the dtype of the comparison; None tries float64, then float32 if the functions cannot
    run in float64. tolerance: by default 1e-12 in float64 and 1e-5 in float32.

    A leaf passes if its error ‖hand − oracle‖ is at most tolerance · ‖oracle‖. It also passes if the error is at most
    100 times the leaf's change when every input moves by one unit in the last place, and at most a thousandth of the
    whole gradient: this allows for rounding in the unknown terms that a black box sums. Where the oracle jumps, at a
    kink, an entry between its two sides passes.

    Raises ValueError or TypeError for invalid arguments. A disagreement is reported, not raised; ``report.check()``
    raises it.

    >>> import jax.numpy as jnp
    >>> square = lambda w: (w**2).sum()
    >>> gradient(lambda w: 2 * w, square, jnp.arange(3.0)).ok
    True
    >>> gradient(lambda w: w, square, jnp.arange(3.0)).wrong[0].worst()
    'worst at [2]: hand 2, autodiff 4'
    """
    for name, function in (("hand", hand), ("objective", objective)):
        if not callable(function):
            raise TypeError(f"{name}: expected a function of (params, *args), got {function!r}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not is_floating(leaf):
            where = "params" + jax.tree_util.keystr(path)
            raise TypeError(f"{where}: expected a floating array, to differentiate by it, got {describe(leaf)}")
    return in_best_dtype(dtype, tolerance, lambda chosen: _compare(hand, objective, params, args, chosen, tolerance))


def _compare(hand, objective, params, args, dtype, tolerance) -> Report:
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    with exactly(dtype):
        inputs = in_dtype((params, args), dtype)
        value = jax.eval_shape(objective, inputs[0], *inputs[1])  # only its shape matters, so it is not compiled
        if np.shape(value) != ():
            raise ValueError(f"objective: expected a scalar, got {describe(value)}; write .mean() or .sum()")
        oracle, ours = jax.grad(objective)(inputs[0], *inputs[1]), hand(fresh(inputs[0]), *fresh(inputs[1]))
        expected, got = str(jax.tree.structure(oracle)), str(jax.tree.structure(ours))
        if got != expected:
            raise ValueError(f"hand: expected the structure of params, {expected}, got {got}")
        names = ["params" + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(oracle)]
        box = BlackBox(
            lambda given: jax.tree.leaves(hand(given[0], *given[1])),
            lambda given: jax.tree.leaves(jax.grad(objective)(given[0], *given[1])),
            inputs,
        )
        ours, oracle = (jax.tree.leaves(to_numpy(tree)) for tree in (ours, oracle))
        return Report(tuple(box.findings(names, ours, oracle, tolerance)), dtype)
