"""Functions with custom derivatives (``jax.custom_vjp``, ``jax.custom_jvp``) against an oracle."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from fnn.checks.arrays import describe
from fnn.verify.arguments import Arguments
from fnn.verify.blackbox import NOT_DETERMINISTIC, BlackBox, differing_calls, in_best_dtype
from fnn.verify.devices import as_called
from fnn.verify.entries import by_values
from fnn.verify.interpret import custom_inside, evaluate, inlined
from fnn.verify.linearity import not_linear
from fnn.verify.oracle import TOLERANCE, exactly, is_inexact
from fnn.verify.report import Finding, Report, compare
from fnn.verify.slopes import Slopes
from fnn.verify.stages import like, random_like, without_float0
from fnn.verify.sweep import in_own_precision

SEED = 0
SIZES = (1.0, 1.0, 1e2, 1e-2)  # of the cotangents of a surrogate, in which the derivative may be not linear
COTANGENTS = 2  # random ones; two, in case one happens to be orthogonal to a mistake


def custom_vjp(
    f: Callable,
    *args,
    oracle: Callable | None = None,
    surrogate: Callable | None = None,
    sizes: dict[str, Any] | None = None,
    dtype: str | None = None,
    tolerance: float | None = None,
) -> Report:
    """Compare the custom derivative of ``f`` with autodiff of the undecorated function.

    f: decorated with ``jax.custom_vjp`` or ``jax.custom_jvp``, also under ``jax.jit`` or ``functools.partial``, or with
    Equinox's or Flax's versions of them. args: its arguments, pytrees; the derivative is taken with respect to their
    floating and complex arrays. oracle: a function of the same arguments that autodiff can differentiate, for an ``f``
    that it cannot (a kernel, a callback). surrogate: a function of the same arguments whose derivative ``f`` is to
    have, while its own value differs: ``lambda x: x`` for straight-through rounding, ``lambda x: -x`` for a reversed
    gradient, ``lambda x: jnp.clip(x, -1, 1)`` for one that is 0 outside. Its derivative may be custom too, as for a
    gradient that is clipped: cotangents of several sizes are tried. dtype, tolerance: as in :func:`gradient`.

    Without ``oracle``, the undecorated function is differentiated. Custom derivatives inside it, but for JAX's own, are
    judged too; a wrong one is named, and is not used to judge the outer one. If autodiff fails or is not finite,
    the undecorated function's values judge: by the complex step, which is exact, where every operation has a complex
    version, else by differences, extrapolated, whose estimated error is about 1e-9 in float64 and 1e-4 in float32.
    Where that is the weaker comparison, the verdict says so; give ``oracle``. Up to 1,000 entries are compared one by
    one, more along random directions. The value that ``f`` returns under differentiation is compared too. The rule must
    be linear in the cotangent: it is also called with zeros, and with 1,024 times the cotangent. Raises TypeError or
    ValueError if there is nothing to compare with.

    A kernel is judged in its own precision: with ``oracle``, and ``args`` in float32, bfloat16 or float16. Its value
    and its cotangents are compared with those of the oracle in float64. Their errors may be 3 times in bfloat16, 8
    times in float16 and 32 times in float32 those that rounding in this precision explains in the oracle: in the array
    as a whole, in every slice, every tile and, with an allowance for chance, every entry. The worst block is named.
    sizes: of the cases to try, a dict from names to a tile t, which stands for the sizes 1, t − 1, t, t + 1 and 2t + 1,
    or to a tuple of values; then the only one of ``args`` is a function that makes the arguments, by keyword:
    ``custom_vjp(kernel, make, oracle=reference, sizes={"rows": 128, "batch": (1, 2), "causal": (False, True)})``. All
    combinations are tried, or if there are more than 24 so many that every two values occur together. The report says
    in which cases an array is wrong.

    >>> import jax.numpy as jnp
    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x**2
    >>> square.defvjp(lambda x: (x**2, x), lambda x, y_bar: (x * y_bar,))
    >>> print(custom_vjp(square, jnp.arange(3.0)).wrong[0].note)
    a factor 1/2 too small
    >>> custom_vjp(lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x), jnp.ones(3), surrogate=lambda x: x).ok
    True
    """
    if not callable(f):
        raise TypeError(f"f: expected a function with a custom derivative, got {describe(f)}")
    role, given = _given(oracle=oracle, surrogate=surrogate)
    try:
        plain, fixed = undecorated(f)
    except TypeError:
        if given is None:
            raise
        plain, fixed = f, ()
    plain = plain if given is None else given
    if sizes is not None:
        _require_maker(args, role, dtype, tolerance)
    if sizes is not None or (role == "oracle" and dtype is None and tolerance is None and _has_own_precision(args)):
        return in_own_precision(f, plain, fixed, args, sizes)
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(f, plain, fixed, args, chosen, tolerance, role))


def _has_own_precision(args) -> bool:
    """Whether the arguments have a floating dtype coarser than float64: that in which a kernel is to be judged."""
    arrays = [leaf for leaf in jax.tree.leaves(args) if is_inexact(leaf) and hasattr(leaf, "dtype")]
    return any(leaf.dtype not in (np.float64, np.complex128) for leaf in arrays)


def _require_maker(args, role: str, dtype, tolerance) -> None:
    advice = "write verify.custom_vjp(f, make, oracle=reference, sizes=sizes) with make = lambda rows, batch: (x, w)"
    if role != "oracle" or dtype is not None or tolerance is not None:
        raise TypeError(f"sizes: they go with oracle=, and with neither dtype= nor tolerance=, because a kernel is "
                        f"judged in its own precision; {advice}")  # fmt: skip
    if len(args) != 1 or not callable(args[0]):
        given = ", ".join(map(describe, args))
        raise TypeError(f"args: with sizes= expected one function that makes the arguments, got {given}; {advice}")


def _given(**functions) -> tuple[str, Callable | None]:
    """The one that is given, and its name; "" and None if none is."""
    given = {name: function for name, function in functions.items() if function is not None}
    if len(given) > 1:
        raise ValueError(f"{', '.join(given)}: expected one of them; an oracle has the value of f, a surrogate another")
    for name, function in given.items():
        if not callable(function):
            raise TypeError(f"{name}: expected a function of the same arguments as f, got {describe(function)}")
        return name, function
    return "", None


def undecorated(f: Callable) -> tuple[Callable, tuple[int, ...]]:
    """The function under its custom derivative, and which of its arguments have no derivative."""
    inner: Any = f
    while not isinstance(inner, (jax.custom_vjp, jax.custom_jvp)):
        if isinstance(inner, functools.partial):
            plain, fixed = undecorated(inner.func)
            bound = functools.partial(plain, *inner.args, **inner.keywords)
            return bound, tuple(i - len(inner.args) for i in fixed if i >= len(inner.args))
        if type(inner).__name__ in ("filter_custom_vjp", "filter_custom_jvp"):  # Equinox; its first argument alone
            return inner.fn, tuple(range(1, 100)) if type(inner).__name__ == "filter_custom_vjp" else ()
        if type(inner).__name__ == "CustomVjp":  # Flax
            return inner.fun, tuple(inner.nondiff_argnums)
        if not hasattr(inner, "__wrapped__"):
            raise TypeError(f"f: expected a function with a custom derivative, got {f!r}; or give oracle=")
        inner = inner.__wrapped__
    return inner.__wrapped__, tuple(getattr(inner, "nondiff_argnums", ()) or ())  # type: ignore[union-attr]


def _judge(f, plain, fixed, args, dtype, tolerance, role) -> Report:
    with exactly(dtype):
        arguments = Arguments(args, fixed, dtype)
        at = _Judge(arguments, f, plain, role, dtype, tolerance)
        return at.report()


class _Judge:
    """One function with a custom derivative, at its arguments."""

    def __init__(self, arguments: Arguments, f, plain, role: str, dtype: str, tolerance: float | None):
        self.ours, self.theirs, self.inputs = arguments.of(f), arguments.of(plain), arguments.inputs
        self.names, self.role, self.dtype, self.tolerance = arguments.names, role, dtype, tolerance
        self.random = np.random.default_rng(SEED)
        with as_called():
            self.value = evaluate(self.ours, *self.inputs)
        self.notes: list[str] = []
        self.weak = ""

    def report(self) -> Report:
        if differing_calls(lambda inputs: self.ours(*inputs), self.inputs):
            note = f"f is {NOT_DETERMINISTIC}"
            return Report((Finding("f", float("inf"), 0.0, note=note),), self.dtype, what="cotangent")
        same = self._same_value()
        findings = self._carried()
        nested = [] if self.role else list(self._nested())
        findings += [finding for finding in nested if not finding.ok]
        judged: dict[str, list[Finding]] = {}
        for size in SIZES if self.role == "surrogate" else (1.0,) * COTANGENTS:
            y_bar = jax.tree.map(lambda leaf: leaf * size, random_like(self.value, self.random))  # noqa: B023
            for finding in self._cotangents(y_bar, same):
                judged.setdefault(finding.name, []).append(finding)
        findings += [_together(of) for of in judged.values()]
        if self.role != "surrogate" and all(finding.ok for finding in findings):
            findings += self._nonlinear(y_bar)
        return Report(tuple(findings), self.dtype, tuple(dict.fromkeys(self.notes)), "cotangent", SEED, self.weak)

    def _same_value(self) -> bool:
        """Whether the plain function has the same value; otherwise their derivatives are not comparable."""
        limit = 1e3 * (self.tolerance or TOLERANCE[self._box(None).precision])
        plain = evaluate(self.theirs, *self.inputs)
        same = str(jax.tree.structure(self.value)) == str(jax.tree.structure(plain))
        for a, b in zip(jax.tree.leaves(self.value), jax.tree.leaves(plain)):
            same = same and np.shape(a) == np.shape(b)
            if same and is_inexact(a) and self.role != "surrogate":
                same = compare("", *_where_finite(a, b), limit).error <= limit
        if not same and self.role == "surrogate":
            raise ValueError(f"surrogate: expected a value like that of f, {_shapes(self.value)}, got {_shapes(plain)}")
        if not same and self.role:
            raise ValueError("oracle: its value differs from that of f; write oracle=, a function of the same value")
        return same

    def _carried(self) -> list[Finding]:
        """What the forward rule returns may differ from the function's value."""
        limit = self.tolerance or TOLERANCE[self._box(None).precision]
        try:
            with as_called():
                carried = evaluate(lambda *given: jax.vjp(self.ours, *given)[0], *self.inputs)
        except Exception as error:  # a rule is the user's: whatever it raises is a finding
            return [Finding("value under differentiation", float("inf"), limit, note=_raised(error), kind="value")]
        found = []
        for (path, ruled), plainly in zip(jax.tree_util.tree_leaves_with_path(carried), jax.tree.leaves(self.value)):
            name = f"value under differentiation{jax.tree_util.keystr(path)}"
            found.append(compare(name, *_where_finite(ruled, plainly), limit, kind="value"))
        return found

    def _hand(self, y_bar) -> Callable:
        return lambda inputs: list(without_float0(jax.vjp(self.ours, *inputs)[1](like(self.value, y_bar))))

    def _oracle(self, y_bar) -> Callable:
        return lambda inputs: list(without_float0(jax.vjp(self.theirs, *inputs)[1](like(self.value, y_bar))))

    def _box(self, y_bar) -> BlackBox:
        if y_bar is None:
            call, plain = (lambda inputs: self.ours(*inputs)), (lambda inputs: self.theirs(*inputs))
            return BlackBox(call, plain, self.inputs, self.names, self.dtype)
        return BlackBox(self._hand(y_bar), self._oracle(y_bar), self.inputs, self.names, self.dtype, self.names)

    def _cotangents(self, y_bar, same: bool) -> list[Finding]:
        box = self._box(y_bar)
        try:
            mine = box.values(box.hand)
        except Exception as error:  # a rule is the user's
            return [Finding("the custom derivative", float("inf"), 0.0, note=_raised(error))]
        if differing_calls(box.hand, self.inputs):
            return [Finding("the custom derivative", float("inf"), 0.0, note=NOT_DETERMINISTIC)]
        right: Any
        right, doubt = self._automatic(box, mine, same)
        precision = box.precision
        limit = self.tolerance or TOLERANCE[precision]
        if precision != self.dtype:
            self.notes.append(f"judged at the tolerance of {precision}, in which the code computes")
        if doubt:
            slopes = Slopes(self.ours, [np.asarray(leaf) for leaf in self.inputs], precision)
            pairs = zip(jax.tree.leaves(self.value), jax.tree.leaves(y_bar))
            weights = slopes.outputs.vector([bar for y, bar in pairs if is_inexact(y)], dual=True)
            found, note, weak = by_values(slopes, self.names, weights, limit, mine, right)
            self.notes.append(f"{doubt}: {note}")
            self.weak = note if weak else self.weak
            return found
        found = box.findings(mine, right, limit)
        if all(finding.ok for finding in found):
            return found
        return [self._forgotten(finding, y_bar, mine[i], right[i], limit) for i, finding in enumerate(found)]

    def _nonlinear(self, y_bar) -> list[Finding]:
        """A finding if the rule is wrong at cotangents that no draw has."""
        note = not_linear(lambda bar: evaluate(self._hand(bar), self.inputs), y_bar)
        return [Finding("the custom derivative", float("inf"), 0.0, note=note)] if note else []

    def _forgotten(self, finding: Finding, y_bar, hand, right, limit: float) -> Finding:
        """The finding, with the note that the cotangent of one of several outputs is not used, if that explains it."""
        leaves, structure = jax.tree.flatten(y_bar)
        if finding.ok or len(leaves) < 2 or hand.shape != right.shape:
            return finding
        i = self.names.index(finding.name)
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(y_bar)]
        for k, path in enumerate(paths):
            without = jax.tree.unflatten(structure, [0 * leaf if j == k else leaf for j, leaf in enumerate(leaves)])
            box = self._box(without)
            if compare("", hand, box.values(box.oracle)[i], limit).ok:
                return replace(finding, note=f"the cotangent of the output {path} is not used")
        return finding

    def _automatic(self, box: BlackBox, mine, same: bool) -> tuple[list | None, str]:
        """Autodiff's cotangents, or None, and why they cannot be trusted, or "" if they can."""
        try:
            right = box.values(box.oracle)
        except Exception as error:  # autodiff may raise anything on a kernel, a callback or a loop
            if self.role:
                raise TypeError(f"{self.role}: autodiff cannot differentiate it: {error}") from error
            return None, f"autodiff cannot differentiate the undecorated function ({type(error).__name__})"
        if not same:
            return None, "f is not the function that it decorates"
        if any(np.isfinite(m).all() and not np.isfinite(r).all() for m, r in zip(mine, right)):
            return right, "autodiff of the undecorated function is not finite"
        return right, ""

    def _nested(self) -> Iterator[Finding]:
        """Findings on the custom derivatives inside the plain function; wrong ones are undone in it."""
        wrong = []
        for inner in custom_inside(self.theirs, *self.inputs):
            finding = _inner(inner, self.random, self.dtype, self.tolerance)
            if finding is not None and not finding.ok:
                wrong.append(inner.name)
                yield finding
        if wrong:
            self.theirs = inlined(self.theirs, wrong)


def _inner(inner, random, dtype: str, tolerance: float | None) -> Finding | None:
    """The finding on a custom derivative inside another function, at the values that it gets there."""
    try:
        value = evaluate(lambda inputs: inner.plain(*inputs), inner.inputs)
        y_bar = random_like(value, random)

        def pulled(function):
            return lambda inputs: list(without_float0(jax.vjp(function, *inputs)[1](like(value, y_bar))))

        names = [f"{inner.name}, a custom derivative inside: argument {i}" for i in range(len(inner.inputs))]
        box = BlackBox(pulled(inner.ruled), pulled(inner.plain), inner.inputs, names, dtype)
        hand, right = box.values(box.hand), box.values(box.oracle)
        if not all(np.isfinite(leaf).all() for leaf in right):
            return None
        found = box.findings(hand, right, tolerance or TOLERANCE[box.precision])
    except Exception:  # what autodiff cannot differentiate cannot judge
        return None
    return max(found, key=lambda finding: (not finding.ok, finding.error), default=None)


def _shapes(value) -> str:
    return ", ".join(describe(leaf) for leaf in jax.tree.leaves(value))


def _together(findings: list[Finding]) -> Finding:
    """One finding for an argument: the worst of the cotangents, with a note only if it holds for each that fails."""
    failing = [finding for finding in findings if not finding.ok]
    if not failing:
        return max(findings, key=lambda finding: finding.error)
    worst = failing[0]
    return worst if len({finding.note for finding in failing}) == 1 else replace(worst, note="")


def _raised(error: Exception) -> str:
    return f"it raises {type(error).__name__}: {error}"[:200]


def _where_finite(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Both values, with 0 where neither is finite."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return a, b
    infinite = ~np.isfinite(a) & ~np.isfinite(b)
    return np.where(infinite, 0, a), np.where(infinite, 0, b)
