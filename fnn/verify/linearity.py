"""Whether a pull-back is linear in its cotangents, as that of every function is.

Cotangents drawn at random are neither 0 nor large, so that a rule that is wrong only there agrees with the oracle.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify.devices import as_called
from fnn.verify.oracle import is_inexact
from fnn.verify.report import norm

LARGE = 1024.0  # a power of two, so that a linear rule's rounding is the same
IN_HALF = 16.0  # the same in float16, whose largest number is 65504
CLOSE = 1e-3  # of norms; a rule that is not linear is off by more somewhere


def not_linear(pull: Callable, y_bar, tolerance: float) -> str:
    """What a pull-back does that nothing linear does, or "".

    pull: cotangents like the pytree ``y_bar`` → a list of arrays. tolerance: that of the dtype in which it computes.
    """
    large = IN_HALF if any(leaf.dtype == np.float16 for leaf in jax.tree.leaves(y_bar)) else LARGE
    random = np.random.default_rng(0)
    kept = jax.tree.map(lambda leaf: random.integers(0, 2, np.shape(leaf)), y_bar)

    def at(change: Callable) -> list[np.ndarray]:
        def of(leaf, keep):
            if not is_inexact(leaf):
                return leaf
            return jnp.asarray(change(np.asarray(leaf), keep).astype(leaf.dtype), jnp.result_type(leaf))

        with as_called(), np.errstate(all="ignore"):
            return [np.asarray(array) for array in pull(jax.tree.map(of, y_bar, kept))]

    once, none = at(lambda leaf, keep: leaf), at(lambda leaf, keep: np.zeros_like(leaf))
    if any(np.where(np.isfinite(a), b, 0).any() for a, b in zip(once, none)):
        return "it is not 0 where the cotangent is 0"
    if _differ(at(lambda leaf, keep: large * leaf), [(large * a,) for a in once], tolerance):
        return f"it is not linear in the cotangent: {large:.0f} times of it does not give {large:.0f} times as much"
    parts = zip(at(lambda leaf, keep: leaf * keep), at(lambda leaf, keep: leaf * (1 - keep)))
    if _differ(once, list(parts), tolerance):
        return "it is not linear in the cotangent: a sum of cotangents does not give the sum"
    return ""


def _differ(found: Sequence[np.ndarray], terms: Sequence[tuple[np.ndarray, ...]], tolerance: float) -> bool:
    """Whether an array is far, beside the size of its terms, from their sum; only finite entries count."""
    for array, parts in zip(found, terms):
        with np.errstate(invalid="ignore"):
            known = np.isfinite(array) & np.isfinite(sum(parts))
            apart, *sizes = (norm(np.where(known, of, 0)) for of in (array - sum(parts), *parts))
        if apart > max(CLOSE, 10 * tolerance) * sum(sizes):
            return True
    return False
