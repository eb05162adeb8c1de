"""Central differences: the oracle where automatic differentiation fails."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify.oracle import is_floating
from fnn.verify.report import Finding, compare, norm

STEP = {"float64": 1e-5, "float32": 2e-2}  # h of a Richardson step, which combines differences with h and h/2
TOLERANCE = {"float64": 1e-7, "float32": 2e-2}  # measured on smooth functions: 1e-10 and 2e-3
MOST = 10_000  # entries; four evaluations of the function for each
EXCUSED = 1e-3  # relative to the largest leaf, the most that a disagreement of the two steps can excuse


def by_differences(f, inputs, y_bar, dtype, names, hand, tolerance, known=None) -> tuple[list[Finding], str]:
    """Findings on the cotangents ``hand`` of ⟨ȳ, f⟩ for every floating input, and a note on the method.

    known: autodiff's cotangents, used where they are finite. An entry finite in neither is not compared. Where the two
    step sizes disagree, through rounding of large values or curvature, the error may be as large as the disagreement.
    """
    count = sum(np.size(leaf) for leaf in inputs)
    if count > MOST:
        raise ValueError(f"args: {count:,} entries are too many for differences along each; give oracle=, or fewer")
    limit = tolerance or TOLERANCE[dtype]
    slopes, doubts = _slopes(_contracted(f, inputs, y_bar, dtype), inputs, STEP[dtype])
    if known is not None:
        slopes = [np.where(np.isfinite(k), k, slope) for k, slope in zip(known, slopes)]
        doubts = [np.where(np.isfinite(k), 0, doubt) for k, doubt in zip(known, doubts)]
    whole = max(norm(np.where(np.isfinite(slope), slope, 0)) for slope in slopes)
    findings, skipped = [], 0
    for name, ours, slope, doubt in zip(names, hand, slopes, doubts):
        unknown = ~np.isfinite(slope)
        if np.shape(ours) == slope.shape:
            slope, doubt, skipped = np.where(unknown, ours, slope), np.where(unknown, 0, doubt), skipped + unknown.sum()
        size = max(norm(slope), min(4 * norm(doubt), EXCUSED * whole) / limit)
        findings.append(compare(name, ours, slope, limit, size))
    note = (
        f"compared with central differences of step {STEP[dtype]:g} along each of the {count} entries, at {limit:.0e}"
    )
    return findings, note + (f"; {skipped} of them are not finite and were not compared" if skipped else "")


def _contracted(f, inputs, y_bar, dtype) -> Callable:
    """⟨ȳ, f(values)⟩ in float64, compiled if possible."""
    compiled = jax.jit(f)
    try:
        jax.block_until_ready(compiled(*inputs))
    except Exception:  # it cannot be traced, so it runs uncompiled
        compiled = f

    def contracted(values):
        outputs = compiled(*(jnp.asarray(value, dtype) for value in values))
        pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(y_bar))
        return sum(float(np.sum(np.float64(a) * np.float64(b))) for a, b in pairs if is_floating(a))

    return contracted


def _slopes(contracted, inputs, step) -> tuple[list, list]:
    """The derivative along every entry, by Richardson extrapolation from steps h and h/2, and their difference."""
    base = [np.array(leaf) for leaf in inputs]
    slopes, doubts = [np.zeros(leaf.shape) for leaf in base], [np.zeros(leaf.shape) for leaf in base]

    def difference(k, index, h):
        ends = []
        for sign in (1, -1):
            moved = [value.copy() if i == k else value for i, value in enumerate(base)]
            moved[k][index] = base[k][index] + base[k].dtype.type(sign * h)
            ends.append((contracted(moved), float(moved[k][index])))
        with np.errstate(invalid="ignore"):
            return np.float64(ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])

    for k, leaf in enumerate(base):
        for index in np.ndindex(leaf.shape):
            h = step * max(1.0, abs(float(leaf[index])))
            wide, narrow = difference(k, index, h), difference(k, index, h / 2)
            while not np.isfinite(wide + narrow) and h > 1e-3 * step * abs(float(leaf[index])) > 0:
                h /= 10  # the step left the function's domain
                wide, narrow = difference(k, index, h), difference(k, index, h / 2)
            slopes[k][index], doubts[k][index] = (4 * narrow - wide) / 3, narrow - wide
    return slopes, doubts
