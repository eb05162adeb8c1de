"""Whether a pull-back is linear in its cotangents, as that of every function is.

Cotangents drawn at random are neither 0 nor large, so that a rule that is wrong only there agrees with the oracle.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify.devices import as_called
from fnn.verify.oracle import is_inexact
from fnn.verify.report import norm

LARGE = 1024.0  # a power of two, so that a linear rule returns the same digits
IN_HALF = 16.0  # the same in float16, whose largest number is 65504
CLOSE = 1e-3  # of norms: a rule that is not linear is off by more somewhere


def not_linear(pull: Callable, y_bar) -> str:
    """What a pull-back does that nothing linear does, or ""; pull: cotangents like ``y_bar`` → a list of arrays."""
    large = IN_HALF if any(leaf.dtype == np.float16 for leaf in jax.tree.leaves(y_bar)) else LARGE

    def times(factor: float) -> list[np.ndarray]:
        def scaled(leaf):
            return jnp.asarray(leaf * factor, jnp.result_type(leaf)) if is_inexact(leaf) else leaf

        with as_called(), np.errstate(all="ignore"):
            return [np.asarray(array) for array in pull(jax.tree.map(scaled, y_bar))]

    at_once = times(1.0)  # which has not raised before
    try:
        at_zero, at_large = times(0.0), times(large)
    except Exception as error:  # a rule is the user's: whatever it raises is a finding
        return f"where the cotangent is 0 or {large:.0f} times as large it raises {type(error).__name__}: {error}"[:200]
    for once, none, more in zip(at_once, at_zero, at_large):
        if np.where(np.isfinite(once), none, 0).any():
            return "it is not 0 where the cotangent is 0"
        with np.errstate(invalid="ignore", over="ignore"):
            wanted = once * large
            known = np.isfinite(wanted) & np.isfinite(more)
            apart, size = (norm(np.where(known, of, 0)) for of in (more - wanted, wanted))
        if apart > CLOSE * size:
            return f"it is not linear in the cotangent: {large:.0f} times of it does not give {large:.0f} times as much"
    return ""
