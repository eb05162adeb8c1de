"""A gradient function against autodiff, leaf by leaf."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from fnn.checks.arrays import describe, unmasked
from fnn.verify.blackbox import NOT_DETERMINISTIC, BlackBox, differing_calls, in_best_dtype
from fnn.verify.branches import Wrong, lacking
from fnn.verify.devices import as_called
from fnn.verify.entries import by_values
from fnn.verify.interpret import called_directly, evaluate, is_array, of_other_libraries
from fnn.verify.oracle import TOLERANCE, exactly, in_dtype, is_inexact
from fnn.verify.report import Finding, Report
from fnn.verify.slopes import Slopes
from fnn.verify.tapped import compare_tapped

INSIDE = "in which the code computes"
CALLS = 8  # of an objective, which may draw the same mask twice by chance


def gradient(
    hand: Callable, objective: Callable, params, *args, dtype: str | None = None, tolerance: float | None = None
) -> Report:
    """Compare ``hand(params, *args)`` with ``jax.grad(objective)(params, *args)``, leaf by leaf.

    hand: returns a pytree like ``params``; objective: returns a real scalar; params, args: pytrees of arrays. Both may
    be written in NumPy, torch or anything else that JAX cannot trace: NumPy arrays are given as copies, which may be
    overwritten, and tensors as tensors. An objective that autodiff cannot differentiate is differentiated by
    differences, as in :func:`function`, to about 1e-9. dtype: "float64" or "float32", the dtype of the comparison; None
    tries float64, then float32 if the functions cannot run in float64. In float64, ``hand`` is also called with float32
    ``params`` as they were given, where it must be finite and no less exact than autodiff.
    tolerance: by default 1e-12 in float64 and 1e-5 in float32; where the functions compute in a coarser dtype inside,
    the tolerance of that.

    Where the objective names quantities by :func:`tap`, ``hand`` may return their δ's too, ``(gradient, {"z1": δ})``,
    or the δ's alone. Each is judged by the hand-written δ's of the quantities that use it, so the wrong one is named.

    A leaf passes if its error ‖hand − oracle‖ is at most tolerance · ‖oracle‖. It also passes if the error is at most
    100 times the **oracle's** change when every operation in it rounds differently, and at most a thousandth of the
    whole gradient: this allows for cancellation among the unknown terms that a black box sums. Where the oracle jumps,
    at a kink or a tie, an entry between its sides passes. Where autodiff is not finite, differences stand in for it.
    Complex leaves follow JAX's convention, ∂f/∂x − i ∂f/∂y. Functions whose value differs from call to call are
    findings.

    Raises ValueError or TypeError for invalid arguments, and what the functions themselves raise. A disagreement is
    reported, not raised; ``report.check()`` raises it.

    >>> import jax.numpy as jnp
    >>> square = lambda w: (w**2).sum()
    >>> gradient(lambda w: 2 * w, square, jnp.arange(3.0)).ok
    True
    >>> gradient(lambda w: w, square, jnp.arange(3.0)).wrong[0].worst()
    'worst at [2]: hand 2, autodiff 4'
    >>> import numpy as np
    >>> gradient(np.cos, lambda w: np.sin(w).sum(), np.arange(3.0)).ok
    True
    """
    for name, function in (("hand", hand), ("objective", objective)):
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"{name}: expected a function of (params, *args), got {function!r}")
    (params, *given), (hand, objective) = of_other_libraries((params, *args), (hand, objective))
    if not jax.tree.leaves(params):
        raise TypeError(f"params: expected a floating array or a pytree of them, got {describe(params)}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        unmasked("params", leaf)
        if not is_inexact(leaf):
            where = "params" + jax.tree_util.keystr(path)
            raise TypeError(f"{where}: expected a floating array, to differentiate by it, got {describe(leaf)}")
    return in_best_dtype(
        dtype, tolerance, lambda chosen: _compare(hand, objective, params, tuple(given), chosen, tolerance)
    )


def _compare(hand, objective, params, args, dtype, tolerance) -> Report:
    def call(inputs):
        return objective(inputs[0], *inputs[1])

    def by_hand(inputs):
        return hand(inputs[0], *inputs[1])

    with exactly(dtype):
        inputs = in_dtype((params, args), dtype)
        _require_scalar(evaluate(call, inputs))
        changing = [name for name, f in (("hand", by_hand), ("objective", call)) if differing_calls(f, inputs)]
        if changing:
            return Report(tuple(map(_not_deterministic, changing)), dtype)
        report = compare_tapped(hand, objective, inputs, dtype, tolerance)
        if report is not None:
            return report
        names = ["params" + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(inputs[0])]
        with as_called():
            returned = evaluate(by_hand, inputs)
        broken = _broken(inputs[0], returned, names)
        if broken:
            return Report(tuple(broken), dtype)
        box = BlackBox(lambda given: jax.tree.leaves(by_hand(given)), _by_autodiff(objective), inputs, names, dtype,
                       ("params", "args"))  # fmt: skip
        report, oracle = _judge(box, call, tolerance)
    if (
        report.ok
        and oracle is not None
        and dtype == box.precision == "float64"
        and all(map(_is_float32, jax.tree.leaves(params)))
    ):
        report = replace(report, findings=(*report.findings, *box.in_own_dtype((params, args), oracle)))
    return report


def _judge(box: BlackBox, call: Callable, tolerance: float | None) -> tuple[Report, list | None]:
    """The report on the leaves, and autodiff's, or None where there are none."""
    ours = box.values(box.hand)
    limit = TOLERANCE[box.precision] if tolerance is None else tolerance
    try:
        oracle = box.values(box.oracle)
    except Exception as error:  # it is written for NumPy, or uses what autodiff cannot differentiate
        reason = f"autodiff cannot differentiate the objective ({type(error).__name__})"
        return _by_values(box, call, ours, limit, reason), None
    notes = () if box.precision == box.dtype else (f"judged at the tolerance of {box.precision}, {INSIDE}",)
    if all(np.isfinite(leaf).all() for leaf in oracle):
        return Report(tuple(_noted(box, call, ours, oracle, limit)), box.dtype, notes), oracle
    return _by_values(box, call, ours, limit, "autodiff is not finite", oracle), oracle


def _by_values(
    box: BlackBox, call: Callable, ours: list, limit: float, reason: str, known: list | None = None
) -> Report:
    """The report where autodiff has no answer, or some of its entries are not finite."""
    leaves, structure = jax.tree.flatten(box.inputs[0])

    def cost(*values):
        given = jax.tree.unflatten(structure, values), box.inputs[1]
        return call(given) if any(isinstance(v, jax.core.Tracer) for v in values) else called_directly(call, given)

    slopes = Slopes(cost, leaves, box.precision)
    if any(slopes.value(slopes.x) != slopes.y for _ in range(CALLS)):
        return Report((_not_deterministic("objective"),), box.dtype)
    found, note, weak = by_values(slopes, box.names, np.ones(1), limit, ours, known)
    return Report(tuple(found), box.dtype, (f"{reason}: {note}",), weak=note if weak else "")


def _require_scalar(value) -> None:
    if np.shape(value) != ():
        raise ValueError(f"objective: expected a scalar, got {describe(value)}; write .mean() or .sum()")
    if np.iscomplexobj(value):
        raise TypeError(f"objective: expected a real scalar, got {describe(value)}; write .real or jnp.abs(...)")


def _by_autodiff(objective: Callable) -> Callable:
    return lambda given: jax.tree.leaves(jax.grad(objective)(given[0], *given[1]))


def _noted(box: BlackBox, call: Callable, ours: list, oracle: list, limit: float) -> list[Finding]:
    """The findings, with the note that a term or a derivative is missing where that explains a wrong one."""
    found = box.findings(ours, oracle, limit)
    paths = jax.tree_util.tree_leaves_with_path(box.inputs)
    names = [box.labels[path[0].idx] + jax.tree_util.keystr(path[1:]) for path, leaf in paths if is_inexact(leaf)]
    for i, finding in enumerate(found):
        if not finding.ok:
            array = Wrong(i, ours[i], oracle[i])
            note = lacking(lambda *inputs: call(inputs), box.inputs, 1.0, array, names)
            found[i] = replace(finding, note=note or finding.note)
    return found


def _is_float32(leaf) -> bool:
    return getattr(leaf, "dtype", None) == np.float32


def _not_deterministic(name: str) -> Finding:
    return Finding(name, float("inf"), 0.0, note=f"{name} is {NOT_DETERMINISTIC}")


def _broken(params, ours, names: list[str]) -> list[Finding]:
    """Findings where what the hand-written function returned is no pytree of arrays like the parameters."""
    expected, got = str(jax.tree.structure(params)), str(jax.tree.structure(ours))
    if expected != got:
        return [Finding("the gradient", float("inf"), 0.0, note=f"it has the structure {got}, expected {expected}")]
    return [
        Finding(name, float("inf"), 0.0, note=f"expected an array, got {describe(leaf)}")
        for name, leaf in zip(names, jax.tree.leaves(ours))
        if not is_array(leaf)
    ]
