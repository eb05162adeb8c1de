"""Any chain of functions: every stage's hand-written pull-back against autodiff, each judged in isolation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks.arrays import describe
from fnn.verify.blackbox import BlackBox, differing_calls, in_best_dtype, not_compared
from fnn.verify.interpret import evaluate
from fnn.verify.oracle import TOLERANCE, exactly, fresh, has_derivatives, in_dtype, is_inexact
from fnn.verify.report import Finding, Report, norm, norm_error

SEED = 0


class Stage(NamedTuple):
    """One function of a chain with its hand-written pull-back; x, y and params may be any pytrees.

    forward(params, x) -> y
    pullback(params, x, y, y_bar) -> (params_bar, x_bar)    the cotangents, like params and x
    """

    name: str
    forward: Callable
    pullback: Callable
    params: Any = ()


def stages(chain: Sequence[Stage], x, *, dtype: str | None = None, tolerance: float | None = None) -> Report:
    """Compare every cotangent of every stage with ``jax.vjp``, from random cotangents: in isolation and end to end.

    chain: the stages in the order of the computation; x: the first stage's input, any pytree of arrays. Each stage gets
    its own cotangent, so a mistake is reported where it is made, together with the end-to-end error of the whole chain
    of pull-backs. dtype, tolerance, and how rounding is told from mistakes: as in :func:`gradient`. Cotangents of
    integers are not compared.

    >>> double = Stage("double", lambda w, x: w * x, lambda w, x, y, y_bar: ((y_bar * x).sum(), w * y_bar), 2.0)
    >>> square = Stage("square", lambda _, x: x**2, lambda _, x, y, y_bar: ((), x * y_bar))
    >>> report = stages([double, square], jnp.arange(3.0))
    >>> [(finding.name, finding.note) for finding in report.wrong]
    [('square: x_bar', 'a factor 1/2 too small')]
    """
    if not isinstance(chain, (list, tuple)) or not chain or not all(isinstance(stage, Stage) for stage in chain):
        raise TypeError(f"chain: expected a list of Stages, got {describe(chain)}; write [Stage(name, f, pullback)]")
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(chain, x, chosen, tolerance))


def _judge(chain, x, dtype, tolerance) -> Report:
    random = np.random.default_rng(SEED)
    with exactly(dtype):
        params, inputs, outputs = [in_dtype(stage.params, dtype) for stage in chain], [in_dtype(x, dtype)], []
        for stage, p in zip(chain, params):
            outputs.append(evaluate(stage.forward, p, inputs[-1]))
            inputs.append(fresh(outputs[-1]))
        cotangents = [random_like(y, random) for y in outputs]
        hand_bar = oracle_bar = cotangents[-1]
        findings: list[Finding] = []
        notes: list[str] = []
        for i in range(len(chain) - 1, -1, -1):
            at = _Stage(chain[i], i + 1, params[i], inputs[i], outputs[i], dtype)
            judged, hand_bar, oracle_bar = at.judge(cotangents[i], hand_bar, oracle_bar, tolerance)
            findings, notes = findings + judged, notes + at.notes
    return Report(tuple(findings), dtype, tuple(notes), what="cotangent", seed=SEED)


class _Stage:
    """One stage at its inputs."""

    def __init__(self, stage: Stage, number: int, p, x, y, dtype: str):
        self.stage, self.number, self.dtype = stage, number, dtype
        self.given = (p, x, y)
        self.notes: list[str] = []
        self.known: dict[str, Any] = {"kind": stage.name, "layer": number}

    def hand(self, given):
        return self.stage.pullback(*fresh(given))

    def oracle(self, given):
        p, x, y, y_bar = fresh(given)
        return without_float0(jax.vjp(self.stage.forward, p, x)[1](like(y, y_bar)))

    def judge(self, y_bar, hand_bar, oracle_bar, tolerance):
        """The findings, and the end-to-end cotangents of the input by hand and by the oracle."""
        given = (*self.given, y_bar)
        through = evaluate(self.oracle, (*self.given, oracle_bar))
        try:
            ours = evaluate(self.hand, given)
        except Exception as error:  # a stage is the user's: whatever it raises is a finding
            return [self.broken(f"it raises {type(error).__name__}: {error}"[:200])], None, through[1]
        if differing_calls(self.hand, given):
            return [self.broken("it is not deterministic: two calls with the same arguments differ")], None, through[1]
        wanted = _wanted(self.given[:2], ours)
        if isinstance(wanted, str):
            return [self.broken(wanted)], None, through[1]
        names, kept = wanted
        names = [f"{self.stage.name}: {name}" for name in names]
        chained = self.chained(hand_bar, kept)
        ends = [float("inf")] * len(names)
        if chained is not None:
            ends = [norm_error(a, b, norm(b) or 1.0) for a, b in zip(kept(chained), kept(through))]
        box = BlackBox(lambda given: kept(self.hand(given)), lambda given: kept(self.oracle(given)), given, names,
                       self.dtype, ("params", "x", "y", "y_bar"), self.consistent)  # fmt: skip
        limit = tolerance or TOLERANCE[box.precision]
        known = [{"end_to_end": end, **self.known} for end in ends]
        right = box.values(box.oracle)
        self.notes += [f"{self.stage.name}: {note}" for note in not_compared(right)]
        findings = box.findings(box.values(box.hand), right, limit, known)
        return findings, None if chained is None else chained[1], through[1]

    def chained(self, hand_bar, kept):
        """What the stage makes of the hand-written cotangent, or None where an earlier one is already broken."""
        if hand_bar is None:
            return None
        try:
            found = evaluate(self.hand, (*self.given, hand_bar))
            kept(found)
        except Exception:
            return None
        return found

    def consistent(self, given):
        """The arguments with y = forward(params, x)."""
        p, x, _, y_bar = given
        return p, x, evaluate(self.stage.forward, p, x), y_bar

    def broken(self, note: str) -> Finding:
        return Finding(f"{self.stage.name}: pullback", float("inf"), 0.0, note=note, **self.known)


def without_float0(tree):
    """Zeros in place of the empty cotangents that JAX has for integers, which cannot be computed with."""
    return jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)) if leaf.dtype == jax.dtypes.float0 else leaf, tree)


def like(values, cotangents):
    """The cotangents with the empty ones that jax.vjp expects for values without a derivative."""

    def of(value, bar):
        return bar if has_derivatives(value) else np.zeros(np.shape(value), jax.dtypes.float0)

    return jax.tree.map(of, values, cotangents)


def random_like(tree, random):
    """A random cotangent for every leaf; zeros for those without a derivative."""

    def draw(leaf):
        if not is_inexact(leaf):
            return np.zeros(np.shape(leaf))
        drawn = random.normal(size=np.shape(leaf))
        if np.iscomplexobj(leaf):
            drawn = drawn + 1j * random.normal(size=np.shape(leaf))
        return jnp.asarray(drawn, jnp.result_type(leaf))

    return jax.tree.map(draw, tree)


def _wanted(given, hand) -> tuple[list[str], Callable] | str:
    """The names of the comparable cotangents and a function that extracts them, or what is wrong with the result."""
    if not isinstance(hand, tuple) or len(hand) != 2:
        return f"it must return (params_bar, x_bar), got {describe(hand)}"
    names: list[str] = []
    inexact: list[list[bool]] = []
    for part, expected, got in zip(("params_bar", "x_bar"), given, hand):
        paths = jax.tree_util.tree_leaves_with_path(expected, is_leaf=_is_none)
        inexact.append([is_inexact(leaf) for _, leaf in paths])
        names += [f"{part}{jax.tree_util.keystr(path)}" for path, leaf in paths if is_inexact(leaf)]
        wanted, came = (str(jax.tree.structure(tree, is_leaf=_is_none)) for tree in (expected, got))
        if any(inexact[-1]) and wanted != came:
            return f"{part} must have the structure {wanted}, got {came}"

    def kept(pair) -> list:
        leaves: list = []
        for tree, keep in zip(pair, inexact):
            if any(keep):
                leaves += [leaf for leaf, k in zip(jax.tree.leaves(tree, is_leaf=_is_none), keep) if k]
        return [np.asarray(np.nan) if leaf is None else leaf for leaf in leaves]

    return names, kept


def _is_none(leaf) -> bool:
    return leaf is None  # a pull-back may omit the cotangents of integers
