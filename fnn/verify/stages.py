"""Any graph of functions: every stage's hand-written pull-back against autodiff, each judged in isolation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn.checks.arrays import describe, unmasked
from fnn.verify.blackbox import BlackBox, differing_calls, in_best_dtype, not_compared
from fnn.verify.branches import Wrong, lacking
from fnn.verify.devices import as_called
from fnn.verify.interpret import evaluate
from fnn.verify.linearity import not_linear
from fnn.verify.oracle import TOLERANCE, exactly, fresh, in_dtype, is_inexact, like, random_like, without_float0
from fnn.verify.report import Finding, Report, norm, norm_error
from fnn.verify.wiring import INPUT, Wired, wired

SEED = 0


class Stage(NamedTuple):
    """One function with its hand-written pull-back; x, y and params may be any pytrees.

    forward(params, x) -> y
    pullback(params, x, y, y_bar) -> (params_bar, x_bar)    the cotangents, like params and x

    of: what it reads: the name of another stage, or "x", the input of the whole; or a tuple of these, and then x is the
    tuple of their values, and x_bar that of the cotangents. None: the stage before it in the list.
    """

    name: str
    forward: Callable
    pullback: Callable
    params: Any = ()
    of: str | Sequence[str] | None = None


def stages(chain: Sequence[Stage], x, *, dtype: str | None = None, tolerance: float | None = None) -> Report:
    """Compare every cotangent of every stage with ``jax.vjp``, from random cotangents: in isolation and end to end.

    chain: a chain of stages, or a directed acyclic graph of them where ``of`` says what each reads, in any order; x:
    the input, any pytree of arrays. Each stage gets its own cotangent, so a mistake is reported where it is made,
    together with the end-to-end error of all pull-backs, where the cotangents from several readers are added. A
    pull-back must be linear in its cotangent: it is also called with zeros, and with 1,024 times the cotangent. dtype,
    tolerance, and how rounding is told from mistakes: as in :func:`gradient`. Cotangents of integers are not compared.

    Raises TypeError or ValueError for a chain that is none: a cycle, an unknown name, or one name twice where stages
    are read by name.

    >>> import jax.numpy as jnp
    >>> double = Stage("double", lambda w, x: w * x, lambda w, x, y, y_bar: ((y_bar * x).sum(), w * y_bar), 2.0)
    >>> square = Stage("square", lambda _, x: x**2, lambda _, x, y, y_bar: ((), x * y_bar))
    >>> report = stages([double, square], jnp.arange(3.0))
    >>> [(finding.name, finding.note) for finding in report.wrong]
    [('square: x_bar', 'a factor 1/2 too small')]

    A residual block, x + double(x), whose pull-back forgets the skip connection:

    >>> def forgetful(_, x, y, y_bar):
    ...     return (), (0 * y_bar, y_bar)
    >>> add = Stage("add", lambda _, x: x[0] + x[1], forgetful, of=("x", "double"))
    >>> print(stages([double, add], jnp.arange(3.0)).wrong[0].note)
    the term through the skip connection is missing
    """
    if not isinstance(chain, (list, tuple)) or not chain or not all(isinstance(stage, Stage) for stage in chain):
        raise TypeError(f"chain: expected a list of Stages, got {describe(chain)}; write [Stage(name, f, pullback)]")
    for i, stage in enumerate(chain):
        if not isinstance(stage.name, str):
            raise TypeError(f"chain[{i}].name: expected a string, got {describe(stage.name)}")
        for part in ("forward", "pullback"):
            if not callable(getattr(stage, part)):
                raise TypeError(
                    f"chain[{i}].{part}: expected a function, got {describe(getattr(stage, part))}; "
                    f"write Stage({stage.name!r}, forward, pullback)"
                )
    given = jax.tree.leaves((x, [stage.params for stage in chain]))
    for leaf in given:
        unmasked("x", leaf)
    if not any(is_inexact(leaf) and np.size(leaf) for leaf in given):
        raise TypeError(f"x: expected a floating array or a pytree of them, got {describe(x)}; write jnp.ones(3)")
    graph = wired([stage.name for stage in chain], [stage.of for stage in chain])
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(chain, graph, x, chosen, tolerance))


def _judge(chain: Sequence[Stage], graph: Wired, x, dtype, tolerance) -> Report:
    random = np.random.default_rng(SEED)
    with exactly(dtype):
        params = [in_dtype(stage.params, dtype) for stage in chain]
        outputs: dict[int, Any] = {INPUT: in_dtype(x, dtype)}
        inputs: dict[int, Any] = {}
        for i in graph.order:
            inputs[i] = graph.read(i, {of: fresh(value) for of, value in outputs.items()})
            outputs[i] = evaluate(chain[i].forward, params[i], inputs[i])
        cotangents = {i: random_like(outputs[i], random) for i in graph.order}
        arriving: dict[int, list] = {i: [] for i in outputs}  # from the readers: by hand, and by the oracle
        findings: list[Finding] = []
        notes: list[str] = []
        for i in reversed(graph.order):
            at = _Stage(chain[i], graph, i, (params[i], inputs[i], outputs[i]), dtype)
            both = arriving[i] or [(cotangents[i], cotangents[i])]
            by_hand, by_oracle = map(_summed, zip(*both))
            judged, by_hand, by_oracle = at.judge(cotangents[i], by_hand, by_oracle, tolerance)
            findings, notes = findings + judged, notes + at.notes
            for of, *parts in zip(graph.reads(i), graph.split(i, by_hand), graph.split(i, by_oracle)):
                arriving[of].append(parts)
    return Report(tuple(findings), dtype, tuple(notes), what="cotangent", seed=SEED)


def _summed(cotangents: Sequence):
    """The sum of what several readers send back; None if one of them is broken."""
    if any(bar is None for bar in cotangents):
        return None
    floating = [bar for bar in cotangents if any(map(is_inexact, jax.tree.leaves(bar)))]
    total, *others = floating or cotangents[:1]  # those of integers may be anything
    for other in others:
        total = jax.tree.map(lambda a, b: a + b if is_inexact(a) else b, total, other, is_leaf=_is_none)
    return total


class _Stage:
    """One stage at its inputs."""

    def __init__(self, stage: Stage, graph: Wired, i: int, given: tuple, dtype: str):
        self.stage, self.graph, self.i, self.given, self.dtype = stage, graph, i, given, dtype
        self.notes: list[str] = []
        self.known: dict[str, Any] = {"kind": stage.name, "layer": graph.order.index(i) + 1}

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
            with as_called():
                ours = evaluate(self.hand, given)
        except Exception as error:  # a stage is the user's: whatever it raises is a finding
            return [self.broken(f"it raises {type(error).__name__}: {error}"[:200])], None, through[1]
        if differing_calls(self.hand, given):
            return [self.broken("it is not deterministic: two calls with the same arguments differ")], None, through[1]
        wanted = _wanted(self.given[:2], ours, self.graph.sources(self.i))
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
        mine = box.values(box.hand)
        findings = box.findings(mine, right, limit, known)
        findings = [self.branch(i, finding, mine[i], right[i], y_bar) for i, finding in enumerate(findings)]
        if all(finding.ok for finding in findings):
            note = not_linear(lambda bar: kept(evaluate(self.hand, (*self.given, bar))), y_bar)
            findings += [self.broken(note)] if note else []
        return findings, None if chained is None else chained[1], through[1]

    def branch(self, i: int, finding: Finding, hand, right, y_bar) -> Finding:
        """The finding on the i-th cotangent, with the note that one of its terms is missing, if that explains it."""
        if finding.ok:
            return finding
        names, sources = self.origins()
        related = [j for j, source in enumerate(sources) if sources[i] in self.graph.above(source)]
        array = Wrong(i, hand, right)
        note = lacking(self.stage.forward, self.given[:2], y_bar, array, names, related) or finding.note
        if note == "it is zero" and len(self.graph.readers(sources[i])) > 1:
            note = f"it is zero: the term through {self.stage.name} is missing"
        return replace(finding, note=note)

    def origins(self) -> tuple[list[str], list[int]]:
        """The name of every floating array of params and x, and the stage that it comes from, or itself."""
        names, sources, tupled = [], [], self.graph.sources(self.i)
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.given[:2]):
            rest = jax.tree_util.keystr(path[1:])
            if not is_inexact(leaf):
                continue
            if path[0].idx == 0:
                names.append(f"params{rest}")
                sources.append(self.i)
            elif tupled:
                names.append(tupled[path[1].idx] + jax.tree_util.keystr(path[2:]))
                sources.append(self.graph.reads(self.i)[path[1].idx])
            else:
                names.append(f"x{rest}")
                sources.append(self.graph.reads(self.i)[0])
        return names, sources

    def chained(self, hand_bar, kept):
        """What the stage makes of the hand-written cotangent, or None where an earlier one is already broken."""
        if hand_bar is None:
            return None
        try:
            with as_called():
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


def _wanted(given, hand, sources: Sequence[str]) -> tuple[list[str], Callable] | str:
    """The names of the comparable cotangents and a function that extracts them, or what is wrong with the result.

    sources: the names of the parts of x, if it is a tuple of what several stages return.
    """
    if not isinstance(hand, tuple) or len(hand) != 2:
        return f"it must return (params_bar, x_bar), got {describe(hand)}"
    names: list[str] = []
    inexact: list[list[bool]] = []
    for part, expected, got in zip(("params_bar", "x_bar"), given, hand):
        paths = jax.tree_util.tree_leaves_with_path(expected, is_leaf=_is_none)
        inexact.append([is_inexact(leaf) for _, leaf in paths])
        of = sources if part == "x_bar" else ()
        names += [_name(part, path, of) for path, leaf in paths if is_inexact(leaf)]
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


def _name(part: str, path, sources: Sequence[str]) -> str:
    name = f"{part}{jax.tree_util.keystr(path)}"
    return f"{name} (of {sources[path[0].idx]})" if sources else name


def _is_none(leaf) -> bool:
    return leaf is None  # a pull-back may omit the cotangents of integers
