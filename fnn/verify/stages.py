"""Any chain of functions: every stage's hand-written pull-back against autodiff, each judged in isolation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks.arrays import describe
from fnn.verify.blackbox import BlackBox, in_best_dtype
from fnn.verify.oracle import TOLERANCE, exactly, fresh, in_dtype, is_floating, to_numpy
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
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    random = np.random.default_rng(SEED)
    with exactly(dtype):
        params, inputs, outputs = [in_dtype(stage.params, dtype) for stage in chain], [in_dtype(x, dtype)], []
        for stage, p in zip(chain, params):
            outputs.append(stage.forward(*fresh((p, inputs[-1]))))
            inputs.append(fresh(outputs[-1]))
        cotangents = [random_like(y, random) for y in outputs]
        hand_bar = oracle_bar = cotangents[-1]
        findings: list[Finding] = []
        for i in range(len(chain) - 1, -1, -1):
            judged, hand_bar, oracle_bar = _stage(
                chain[i], i + 1, params[i], inputs[i], outputs[i], cotangents[i], hand_bar, oracle_bar, tolerance
            )
            findings += judged
    return Report(tuple(findings), dtype, what="cotangent", seed=SEED)


def _stage(stage: Stage, number: int, p, x, y, y_bar, hand_bar, oracle_bar, tolerance):
    """The findings on one stage, and the end-to-end cotangents of its input by hand and by the oracle."""

    def hand(given):
        return stage.pullback(*fresh(given))

    def oracle(given):
        p, x, _, y_bar = fresh(given)
        return jax.vjp(stage.forward, p, x)[1](y_bar)

    given = (p, x, y, y_bar)
    ours, through = hand(given), oracle((p, x, y, oracle_bar))
    names, kept = _leaves(stage.name, (p, x), ours)
    try:
        chained = None if hand_bar is None else hand((p, x, y, hand_bar))
    except Exception:  # an earlier cotangent has a wrong shape or structure, already reported
        chained = None
    ends = [float("inf")] * len(names)
    if chained is not None:
        ends = [norm_error(a, b, norm(b) or 1.0) for a, b in zip(kept(chained), kept(through))]
    known = [{"end_to_end": end, "kind": stage.name, "layer": number} for end in ends]
    box = BlackBox(lambda given: kept(hand(given)), lambda given: kept(oracle(given)), given)
    findings = box.findings(names, kept(ours), kept(oracle(given)), tolerance, known)
    return findings, None if chained is None else chained[1], through[1]


def random_like(tree, random):
    """A random cotangent for every leaf; for leaves without a derivative, the empty one that jax.vjp expects."""

    def draw(leaf):
        if is_floating(leaf):
            return jnp.asarray(random.normal(size=np.shape(leaf)), jnp.result_type(leaf))
        return np.zeros(np.shape(leaf), jax.dtypes.float0)

    return jax.tree.map(draw, tree)


def _leaves(name: str, given, hand) -> tuple[list[str], Callable]:
    """The names of the comparable cotangents, and a function that extracts them from a pair of pytrees."""
    if not isinstance(hand, tuple) or len(hand) != 2:
        raise ValueError(f"{name}: pullback must return (params_bar, x_bar), got {describe(hand)}")
    names: list[str] = []
    floating: list[list[bool]] = []
    for part, expected, got in zip(("params_bar", "x_bar"), given, hand):
        paths = jax.tree_util.tree_leaves_with_path(expected, is_leaf=_is_none)
        floating.append([is_floating(leaf) for _, leaf in paths])
        names += [f"{name}: {part}{jax.tree_util.keystr(path)}" for path, leaf in paths if is_floating(leaf)]
        wanted, came = (str(jax.tree.structure(tree, is_leaf=_is_none)) for tree in (expected, got))
        if any(floating[-1]) and wanted != came:
            raise ValueError(f"{name}: {part} must have the structure {wanted}, got {came}")

    def kept(pair):
        leaves = []
        for tree, keep in zip(pair, floating):
            if any(keep):
                leaves += [leaf for leaf, k in zip(jax.tree.leaves(tree, is_leaf=_is_none), keep) if k]
        return to_numpy([np.nan if leaf is None else leaf for leaf in leaves])

    return names, kept


def _is_none(leaf) -> bool:
    return leaf is None  # a pull-back may omit the cotangents of integers
