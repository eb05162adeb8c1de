"""A kernel in its own precision, judged by the rounding error of a reference in that precision.

The reference is computed in float64, which is taken for the truth; in the kernel's precision; and a few times in
float64 with a random rounding of that precision in every operation. The spread σ of these around the truth is what
rounding explains. A block of the kernel's array passes if its error is at most FACTOR σ there, and for a block of n
entries up to FACTOR (1 + 4/√n) σ, because of chance. Blocks are the whole array, the slices along every axis, tiles and
single entries: a mistake in one tile is not diluted by the others. The factor is small in bfloat16, where 1.5 % in one
tile is to be seen; in finer precisions it leaves room for sums in another order and for other terms that cancel.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify.arguments import Arguments
from fnn.verify.blackbox import NOT_DETERMINISTIC
from fnn.verify.devices import as_called
from fnn.verify.interpret import evaluate, precision_inside, trace
from fnn.verify.linearity import not_linear
from fnn.verify.neighbours import Neighbours
from fnn.verify.oracle import TOLERANCE, exactly, in_dtype, is_inexact
from fnn.verify.report import Finding, left_out, norm, widened
from fnn.verify.stages import like, random_like, without_float0

FACTOR = {"bfloat16": 3.0, "float16": 8.0, "float32": 32.0}
DRAWS = 4  # of random roundings
ROUNDING = 0.2  # the usual size of one rounding, in units of the last place
PARTS = 8  # into as many tiles an axis is divided, if no tile is given
MOST = 0.75  # of an axis: what is wrong along more of it is not said to be wrong there alone
SEED = 1729  # not 0, with which many users draw their arguments: a cotangent equal to x is special


class Named(NamedTuple):
    """A kernel's value or cotangent, and the names of its axes."""

    name: str
    array: np.ndarray
    axes: tuple[str, ...]


class Kernel:
    """A kernel at arguments in their own dtypes, beside a reference."""

    def __init__(self, f: Callable, reference: Callable, fixed: Sequence[int], args, case: dict[str, Any]):
        with exactly("float32"):
            args = jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_inexact(leaf) else leaf, tuple(args))
            self.arguments = Arguments(args, fixed, None)
            self.inputs = tuple(jnp.asarray(leaf) for leaf in self.arguments.inputs)
            self.f, self.reference = self.arguments.of(f), self.arguments.of(reference)
            self.precision = self._precision()
        self.case = case

    def axes(self, array) -> tuple[str, ...]:
        """The name of each axis: that of the size in the case which alone has its length."""
        names = []
        for n in np.shape(array):
            same = [name for name, value in self.case.items() if value == n and not isinstance(value, bool)]
            names.append(same[0] if len(same) == 1 and n > 1 else "")
        return tuple(names)

    def judge(self, parameters: Sequence[str], tiles: dict[str, int]) -> tuple[list[Finding], list[str]]:
        """The findings on the value and the cotangents, and notes; the names of f's parameters name the cotangents."""
        with exactly("float32"):
            value = jax.eval_shape(self.reference, *self.inputs)
            zeros = jax.tree.map(lambda of: np.zeros(of.shape, of.dtype), value)
            y_bar = random_like(zeros, np.random.default_rng(SEED))
            try:
                other = _other_shapes(jax.eval_shape(self.f, *self.inputs), value)
                if other:
                    return [Finding("value", float("inf"), 0.0, note=other)], []
                call = self._compiled()
                ours, again = call(y_bar), call(y_bar)
            except Exception as error:  # a kernel is the user's
                text = f"it raises {type(error).__name__}: {error}".splitlines()[0][:200]
                return [Finding("the kernel", float("inf"), 0.0, note=text)], []
            coarse = _coarser(y_bar, self.precision), _coarser(self.inputs, self.precision)
            low = jax.tree.leaves(evaluate(self._pulled(self.reference, coarse[0]), *coarse[1]))
        with exactly("float64"):
            truth = _Truth(self._pulled(self.reference, in_dtype(y_bar, "float64")), in_dtype(self.inputs, "float64"))
            draws = list(zip(*truth.rounded(float(jnp.finfo(self.precision).eps) / 2)))
            findings = []
            for i, (name, hand, second) in enumerate(zip(self._labels(parameters, value), ours, again)):
                if not np.array_equal(hand, second, equal_nan=True):
                    findings.append(Finding(name, float("inf"), 0.0, note=NOT_DETERMINISTIC))
                    continue
                right = truth.arrays[i]
                if np.shape(hand) == np.shape(right):  # what overflows in the reference, too, is not compared
                    right = np.where(np.isfinite(low[i]) | np.isfinite(hand), right, np.nan)
                named, spread = Named(name, hand, self.axes(hand)), [low[i], *draws[i]]
                finding = Blocks(named, right, spread, self.precision, tiles).finding()
                if not finding.ok and np.shape(hand) == np.shape(right):
                    right = np.where(np.isnan(right), np.nan, truth.beside_jumps(i, ours))
                    finding = Blocks(named, right, spread, self.precision, tiles).finding()
                findings.append(finding)
            if all(finding.ok for finding in findings):
                with exactly("float32"):
                    values = len(ours) - len(self.inputs)
                    note = not_linear(lambda bar: call(bar)[values:], y_bar)
                findings += [Finding("the cotangents", float("inf"), 0.0, note=note)] if note else []
        notes = [f"errors are those of the worst block, in units of the reference's rounding error in {self.precision}"]
        unknown = sum(int((~np.isfinite(leaf)).sum()) for leaf in truth.arrays)
        notes += left_out(unknown, "the reference is not finite there")
        return findings, notes

    @staticmethod
    def _pulled(function: Callable, y_bar) -> Callable:
        """The floating leaves of the value, then the cotangents of the inputs, of the inputs."""

        def of(*inputs):
            y, pull = jax.vjp(function, *inputs)
            kept = [leaf for leaf in jax.tree.leaves(y) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
            return kept, list(
                without_float0(pull(like(y, jax.tree.unflatten(jax.tree.structure(y), _matched(y, y_bar)))))
            )

        return of

    def _compiled(self) -> Callable:
        """The kernel as its users compile it, a function of the cotangents."""
        program = jax.jit(lambda y_bar, *inputs: self._pulled(self.f, y_bar)(*inputs))

        def call(y_bar) -> list[np.ndarray]:
            with as_called():
                return [np.asarray(leaf) for leaf in jax.tree.leaves(program(y_bar, *self.inputs))]

        return call

    def _precision(self) -> str:
        """The coarsest dtype of the arguments and of what the kernel computes in."""
        found = [str(jnp.finfo(leaf.dtype).dtype) for leaf in self.inputs]  # of complex64, float32
        with contextlib.suppress(Exception):  # what it raises is a finding of its own
            found.append(precision_inside(jax.make_jaxpr(lambda *given: self.f(*given))(*self.inputs).jaxpr))
        return max(found, key=lambda name: TOLERANCE.get(name, 0.0))

    def _labels(self, parameters: Sequence[str], value) -> list[str]:
        paths = [
            path for path, leaf in jax.tree_util.tree_leaves_with_path(value) if jnp.issubdtype(leaf.dtype, jnp.inexact)
        ]
        names = []
        for name in self.arguments.names:
            i, rest = name.removeprefix("args[").split("]", 1)
            names.append(f"d{parameters[int(i)]}{rest}" if int(i) < len(parameters) else name)
        return [f"value{jax.tree_util.keystr(path)}" for path in paths] + names


class _Truth:
    """The reference's value and cotangents in float64."""

    def __init__(self, function: Callable, inputs):
        self.inputs = inputs
        self.traced, self.given = trace(function, *inputs)
        self.arrays = self._leaves(*self.given)

    def _leaves(self, *given) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(self.traced(*given))]

    def rounded(self, unit: float) -> list[list]:
        """All arrays, a few times with a random rounding in every operation."""
        draws = (self.traced.perturbed(np.random.default_rng(seed), *self.given, unit=unit) for seed in range(DRAWS))
        return [jax.tree.leaves(draw) for draw in draws]

    def beside_jumps(self, i: int, hands: list) -> np.ndarray:
        """The i-th array, with the kernel's entries where the reference jumps and they are right there, too."""
        if any(map(np.iscomplexobj, self.arrays)):
            return self.arrays[i]
        near = Neighbours(lambda inputs: self._leaves(*inputs), self.inputs)
        wide = [np.asarray(hand, np.float64) for hand in hands]
        return near.accept(wide, self.arrays, [1e-2 * at.size() for at in near.sides])[0][i]


def _other_shapes(value, expected) -> str:
    """What is wrong with the shapes of a value, or ""."""
    found, wanted = ([tuple(leaf.shape) for leaf in jax.tree.leaves(of)] for of in (value, expected))
    return "" if found == wanted else f"of shape {', '.join(map(str, found))}, expected {', '.join(map(str, wanted))}"


def _coarser(tree, precision: str):
    """The real leaves in a precision, if it is the coarser one."""

    def of(leaf):
        finer = jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).eps < jnp.finfo(precision).eps
        return jnp.asarray(leaf, precision) if finer else leaf

    return jax.tree.map(of, tree)


def _matched(y, y_bar) -> list:
    """The cotangents in the dtypes of the values."""
    pairs = zip(jax.tree.leaves(y), jax.tree.leaves(y_bar))
    return [jnp.asarray(bar, leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else bar for leaf, bar in pairs]


class Blocks:
    """The errors of one array beside those that rounding explains."""

    def __init__(self, hand: Named, truth, draws, precision: str, tiles: dict[str, int]):
        self.name, self.axes, self.tiles, self.factor = hand.name, hand.axes, tiles, FACTOR[precision]
        self.hand, self.truth = widened(hand.array), widened(truth)
        if self.hand.shape != self.truth.shape:
            return
        known = np.isfinite(self.truth)
        with np.errstate(invalid="ignore"):
            self.error = np.where(known, np.abs(np.where(known, self.hand - self.truth, 0)), 0.0)
            spread = [np.where(known, np.abs(widened(draw) - self.truth), 0.0) for draw in draws]
            squares = np.nan_to_num(np.mean(np.square(spread), axis=0), nan=0.0, posinf=0.0)
        floor = np.square(ROUNDING * float(jnp.finfo(precision).eps) * np.abs(np.where(known, self.truth, 0)))
        self.squares = np.maximum(np.maximum(squares, floor), _smoothed(squares))
        self.error = np.where(np.isfinite(self.error), self.error, np.inf)

    def finding(self) -> Finding:
        """The worst block, with its error as a multiple of the reference's."""
        sides = ("kernel", "reference")
        if self.hand.shape != self.truth.shape:
            note = f"shape {self.hand.shape}, expected {self.truth.shape}"
            return Finding(self.name, float("inf"), self.factor, note=note, sides=sides)
        finding = Finding(
            self.name, self._worst(), self.factor, norm(self.truth), vacuous=not self.truth.any(), sides=sides
        )
        if not self.error.size:
            return finding
        ratio = self.error / np.sqrt(np.where(self.squares > 0, self.squares, 1e-300))
        index = worst = tuple(map(int, np.unravel_index(np.argmax(ratio), ratio.shape)))
        finding = replace(finding, index=index, hand=self.hand[worst].item(), oracle=self.truth[worst].item())
        return finding if finding.ok else replace(finding, note=self._note())

    def _worst(self) -> float:
        """The largest ratio of a block's error to what is explained, less the allowance for its size."""
        worst = 0.0
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for error, square, count in self._levels():
                ratio = np.sqrt(error / np.where(square > 0, square, 1.0))
                ratio = np.where(error == 0, 0.0, np.where(square > 0, ratio, np.inf))
                worst = max(worst, float((ratio / (1 + 4 / np.sqrt(count))).max(initial=0.0)))
        return worst

    def _levels(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Sums of the squared errors and of the squares that are explained, over all blocks of one kind."""
        with np.errstate(over="ignore"):
            squared = np.square(self.error)
        yield squared, self.squares, 1
        yield squared.sum(), self.squares.sum(), max(1, squared.size)
        for axis in range(squared.ndim):
            others = tuple(i for i in range(squared.ndim) if i != axis)
            yield squared.sum(others), self.squares.sum(others), max(1, squared.size // max(1, squared.shape[axis]))
        tiled = squared, self.squares
        count = 1
        for axis in range(max(0, squared.ndim - 2), squared.ndim):
            length = self._length(axis)
            starts = np.arange(0, squared.shape[axis], length)
            if not len(starts):
                return
            tiled = tuple(np.add.reduceat(of, starts, axis) for of in tiled)  # type: ignore[assignment]
            count *= min(length, squared.shape[axis])
        yield *tiled, count

    def _length(self, axis: int) -> int:
        """How long a tile is along an axis."""
        n = self.error.shape[axis]
        return self.tiles.get(self.axes[axis]) or max(1, -(-n // PARTS))

    def _note(self) -> str:
        """Where it is wrong, and how."""
        with np.errstate(over="ignore", invalid="ignore"):
            ratio = np.minimum(np.square(self.error) / np.where(self.squares > 0, self.squares, 1e-300), 1e12)
        place, box = [], []
        for axis in range(ratio.ndim):
            profile = ratio.mean(axis=tuple(i for i in range(ratio.ndim) if i != axis))
            hit = np.flatnonzero(profile > 0.1 * profile.max(initial=0.0))
            first, last = (int(hit[0]), int(hit[-1])) if len(hit) else (0, len(profile) - 1)
            box.append(slice(first, last + 1))
            if last + 1 - first <= MOST * len(profile):
                place.append(_range(self.axes[axis], axis, first, last))
        where = f"{', '.join(reversed(place))} of {self.name}" if place else ""
        how = self._how(tuple(box))
        return ": ".join(part for part in (where, how) if part)

    def _how(self, box: tuple[slice, ...]) -> str:
        hand, truth = self.hand[box], np.where(np.isfinite(self.truth[box]), self.truth[box], 0)
        if not np.isfinite(hand).all():
            return f"{int((~np.isfinite(hand)).sum())} of {hand.size} values are not finite"
        if not hand.any():
            return "it is zero"
        c = float(np.real(np.vdot(truth, hand))) / (norm(truth) ** 2 or 1.0)
        explained = 2 * self.factor * float(np.sqrt(self.squares[box].sum()))
        if hand.size == 1 or norm(hand - c * truth) > explained or abs(c - 1) * norm(truth) < explained:
            return ""
        return "the sign" if abs(c + 1) < 1e-2 else f"a constant factor {c:.3f}"


def _smoothed(squares: np.ndarray) -> np.ndarray:
    """The smaller of the means along the last two axes, because a few draws are no estimate of a single entry."""
    if squares.ndim == 0 or not squares.size:
        return squares
    if squares.ndim == 1:
        return np.full_like(squares, squares.mean())
    means = (squares.mean(axis=axis, keepdims=True) for axis in (-1, -2))
    return np.minimum(*np.broadcast_arrays(*means))


def _range(name: str, axis: int, first: int, last: int) -> str:
    if first == last:
        return f"{name.removesuffix('s')} {first}" if name else f"index {first} of axis {axis}"
    return f"{name} {first} to {last}" if name else f"indices {first} to {last} of axis {axis}"
