"""A finished gradient function against autodiff, leaf by leaf."""

from collections.abc import Callable

import jax
import numpy as np

from fnn.verify.oracle import TOLERANCE, exactly, in_dtype, one_ulp_away, to_numpy
from fnn.verify.report import Report, compare

DRAWS = 3  # of neighbouring inputs; a kink flips in some of them, bad conditioning shows in all


def gradient(
    hand: Callable, objective: Callable, params, *args, dtype: str | None = None, tolerance: float | None = None
) -> Report:
    """Compare ``hand(params, *args)`` with ``jax.grad(objective)(params, *args)``, leaf by leaf.

    hand: returns a pytree like ``params``; objective: returns a scalar; params, args: pytrees of arrays.
    dtype: "float64" or "float32", in which floating leaves are compared; None tries float64, and float32 where
    the functions cannot run in it. tolerance: 1e-12 in float64 and 1e-5 in float32 if not given.

    A leaf passes if its error ‖hand − oracle‖ is at most tolerance · ‖oracle‖, or at most 100 times what the
    oracle's leaf itself changes when every input moves by one unit in the last place. Nothing is known about the
    terms that a black box sums, so that is how rounding is told from a mistake. A leaf is never excused for more
    than a thousandth of the whole gradient that way: at a kink, the oracle jumps.

    Raises ValueError or TypeError for arguments of the wrong kind; a disagreement is in the report, and
    ``report.check()`` raises.

    >>> import jax.numpy as jnp
    >>> square = lambda w: (w**2).sum()
    >>> gradient(lambda w: 2 * w, square, jnp.arange(3.0)).ok
    True
    >>> gradient(lambda w: w, square, jnp.arange(3.0)).wrong[0].worst()
    'worst at [2]: hand 2, autodiff 4'
    """
    if dtype not in (None, *TOLERANCE):
        raise ValueError(f"dtype: expected 'float64' or 'float32', got {dtype!r}; write dtype='float64'")
    for name, function in (("hand", hand), ("objective", objective)):
        if not callable(function):
            raise TypeError(f"{name}: expected a function of (params, *args), got {function!r}")
    if dtype is not None:
        return _compare(hand, objective, params, args, dtype, tolerance)
    try:
        return _compare(hand, objective, params, args, "float64", tolerance)
    except Exception as error:  # whatever user code raises when it is given float64
        reason = f"judged in float32; in float64: {type(error).__name__}: {error}".splitlines()[0]
        return _compare(hand, objective, params, args, "float32", tolerance, (reason,))


def _compare(hand, objective, params, args, dtype, tolerance, notes=()) -> Report:
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    with exactly(dtype):
        inputs = in_dtype((params, args), dtype)
        oracle = jax.grad(objective)(inputs[0], *inputs[1])
        ours = hand(inputs[0], *inputs[1])
        expected, got = str(jax.tree.structure(oracle)), str(jax.tree.structure(ours))
        if got != expected:
            raise ValueError(f"hand: expected the structure of params, {expected}, got {got}")
        paths = ["params" + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(oracle)]
        oracle, ours = (jax.tree.leaves(to_numpy(tree)) for tree in (oracle, ours))
        findings = [compare(*leaf, tolerance) for leaf in zip(paths, ours, oracle)]
        whole = max((finding.size for finding in findings), default=0.0)
        if not all(finding.ok for finding in findings):
            changes = _changes(objective, inputs, oracle)
            for i, change in enumerate(changes):
                allowed = 100 * change
                if findings[i].error > tolerance and allowed <= 1e-3 * whole:
                    size = max(findings[i].size, allowed / tolerance)
                    findings[i] = compare(paths[i], ours[i], oracle[i], tolerance, size)
    if whole == 0:
        notes = (*notes, "the oracle is zero everywhere: nothing was checked")
    return Report(tuple(findings), dtype, tuple(notes))


def _changes(objective, inputs, oracle) -> list[float]:
    """By how much each leaf of the oracle changes when the inputs move by one ulp: the least of a few draws."""
    draws = []
    for seed in range(DRAWS):
        params, args = one_ulp_away(inputs, seed)
        moved = jax.tree.leaves(to_numpy(jax.grad(objective)(params, *args)))
        draws.append([float(np.linalg.norm(np.float64(m) - np.float64(o))) for m, o in zip(moved, oracle)])
    return [min(changes) for changes in zip(*draws)]
