"""The derivative of any function along any direction, from its values alone: the oracle where no second derivation is.

Leaves are taken together as one real vector, in which a complex number counts as two. The complex step gives the
derivative to rounding where the function is made of operations of which there is a complex version; otherwise central
differences, extrapolated (Ridders).
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fnn.verify import complexstep
from fnn.verify.complexstep import NotAnalytic
from fnn.verify.devices import on_cpu_if_possible
from fnn.verify.differences import extrapolated
from fnn.verify.interpret import Traced, called_directly, in_numpy_alone, is_array, trace
from fnn.verify.neighbours import Sides, jittered, persists
from fnn.verify.oracle import is_inexact

DRAWS = 4  # of other roundings
SAFETY = 10  # the error may be this many times the estimate
INFINITE = 1e15  # beyond it the complex step has met a singularity
UNSEEN = 1e4 * complexstep.STEP**2  # of the value: what the complex step leaves out
CLOSE = 1e-6  # relative: differences and the complex step that agree to this confirm each other


class Space:
    """The floating and complex leaves of a list as one real vector: all real parts, then imaginary ones, leaf by leaf.

    JAX's cotangents pair with tangents as Re Σ ȳ ẏ, without a conjugate: ``dual`` vectors have the sign of the
    imaginary parts reversed, so that the pairing is the dot product of the vectors.
    """

    def __init__(self, leaves):
        self.leaves = [np.asarray(leaf) for leaf in leaves]
        ends = np.cumsum([0, *(leaf.size * (1 + np.iscomplexobj(leaf)) for leaf in self.leaves)])
        self.parts = [slice(int(a), int(b)) for a, b in zip(ends, ends[1:])]
        self.size = int(ends[-1])

    def vector(self, leaves, dual: bool = False) -> np.ndarray:
        found = np.zeros(self.size)
        for part, leaf in zip(self.parts, leaves):
            leaf = np.ravel(np.asarray(leaf))
            if not np.iscomplexobj(leaf):
                found[part.start : part.start + leaf.size] = leaf  # of a complex leaf, too: the rest is 0
            else:
                found[part] = np.concatenate([leaf.real, -leaf.imag if dual else leaf.imag])
        return found

    def leaf(self, i: int, vector, dual: bool = False) -> np.ndarray:
        """The i-th leaf of a vector."""
        like, part = self.leaves[i], np.asarray(vector)[self.parts[i]]
        if not np.iscomplexobj(like):
            return part.reshape(like.shape)
        real, imaginary = part.reshape(2, *like.shape)
        return real - 1j * imaginary if dual else real + 1j * imaginary

    def unflattened(self, vector, dual: bool = False) -> list[np.ndarray]:
        """All leaves of a vector, in their dtypes."""
        return [self.leaf(i, vector, dual).astype(leaf.dtype) for i, leaf in enumerate(self.leaves)]


class Slopes:
    """A function of leaves at a point, as a function of real vectors, and its derivative there.

    function: takes the leaves ``inputs`` and returns any pytree; precision: the dtype in which it computes.
    """

    def __init__(self, function: Callable, inputs, precision: str = "float64"):
        self.inputs = Space(inputs)
        self.x = self.inputs.vector(self.inputs.leaves)
        self.eps = float(jnp.finfo(precision).eps)
        self.scale = np.where(np.isfinite(self.x), np.maximum(1.0, np.abs(self.x)), 1.0)
        self._traced: Traced | None = None
        self._call: Any = lambda *leaves: called_directly(function, *leaves)
        with contextlib.suppress(Exception):  # it may be written for NumPy, torch, …
            self._traced = trace(function, *self.inputs.leaves)[0]
            self._call = self._traced
        self.outputs = Space(self._floating(self._call(*self.inputs.leaves)))
        self.y = self.outputs.vector(self.outputs.leaves)
        self.exact = self._traced is not None and self._is_analytic()
        if not self.exact and self._traced is not None and not in_numpy_alone(self._traced.jaxpr.jaxpr):
            self._call = self._compiled(self._traced)

    @staticmethod
    def _compiled(traced) -> Callable:
        """The function compiled for the many calls of differences; the program is dropped with the check."""
        compiled = jax.jit(core.jaxpr_as_fun(traced.jaxpr))
        return lambda *leaves: jax.tree.unflatten(traced.structure, on_cpu_if_possible(lambda: compiled(*leaves)))

    @staticmethod
    def _floating(tree) -> list:
        return [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf) and is_inexact(leaf)]

    def _is_analytic(self) -> bool:
        try:
            self._complex_step(np.zeros_like(self.x))
        except NotAnalytic:
            return False
        return True

    def value(self, x) -> np.ndarray:
        return self.outputs.vector(self._floating(self._call(*self.inputs.unflattened(x))))

    def _complex_step(self, t, random=None, leaves=None) -> np.ndarray:
        traced: Any = self._traced
        if any(map(np.iscomplexobj, self.inputs.leaves)):
            raise NotAnalytic("complex arguments")
        tangents = [self.inputs.leaf(i, t) for i in range(len(self.inputs.leaves))]
        noise = None if random is None else (random, self.eps)
        found = complexstep.derivative(traced, leaves or self.inputs.leaves, tangents, noise)
        kept = [leaf for leaf, var in zip(found, traced.jaxpr.out_avals) if jnp.issubdtype(var.dtype, jnp.inexact)]
        return self.outputs.vector(kept)

    def along(self, t, weights=None) -> tuple[np.ndarray, np.ndarray]:
        """J t, or weights · J t, by the complex step or by differences; and its estimated error."""
        if not self.exact:
            return self.differences(t, weights)
        found = _weighed(self._complex_step(t), weights)
        largest = np.abs(self.y).max(initial=1.0, where=np.isfinite(self.y))
        return found, np.full_like(found, UNSEEN * largest)

    def spread(self, t, weights=None) -> np.ndarray:
        """How far the complex step moves if every operation rounds in another way."""
        draws = [_weighed(self._complex_step(t, np.random.default_rng(seed)), weights) for seed in range(DRAWS)]
        return np.abs(np.subtract(draws, _weighed(self._complex_step(t), weights))).max(axis=0)

    def terms(self, weights=None) -> np.ndarray:
        """The size of the values, whose last digits are no evidence where their changes cancel."""
        with np.errstate(invalid="ignore"):
            return np.abs(self.y) if weights is None else np.sqrt(np.square(weights * self.y).sum(axis=-1))

    def differences(self, t, weights=None) -> tuple[np.ndarray, np.ndarray]:
        """J t, or weights · J t, by central differences, and its estimated error."""

        def central(h):
            return _weighed((self.value(self.x + h * t) - self.value(self.x - h * t)) / (2 * h), weights)

        moving = (t != 0) & (self.x != 0) & np.isfinite(self.x)
        closer = np.abs(self.x[moving] / t[moving]).min(initial=1.0)
        return extrapolated(central, closer, self.eps * self.terms(weights))

    def sides(self, t, weights=None) -> Sides:
        """The derivatives on both sides of x along t; between them lies every generalised derivative."""
        narrow = self.eps**0.4
        found = []
        with np.errstate(all="ignore"):
            for h in (16 * narrow, narrow):
                forward = (self.value(self.x + h * t) - self.y) / h
                backward = (self.y - self.value(self.x - h * t)) / h
                found.append((np.minimum(forward, backward), np.maximum(forward, backward)))
            (low_wide, high_wide), (low, high) = found
            noise = 100 * self.eps * np.abs(self.y) / narrow
            jumps = persists(low, high, high_wide - low_wide) & (high - low > noise)
        if weights is None:
            return Sides(low, high, jumps)
        ends = weights * low, weights * high
        low, high = np.minimum(*ends).sum(axis=-1), np.maximum(*ends).sum(axis=-1)
        return Sides(low, high, np.broadcast_to((jumps & (weights != 0)).any(axis=-1), low.shape))

    def beside(self, random: np.random.Generator) -> Callable:
        """The derivative at a neighbouring point, off all kinks, as a function of the direction and the weights."""
        step = 1e-9 if self.exact else self.eps**0.25  # much farther than the differences there
        x = self.x + step * self.scale * jittered(random, self.x.shape)
        leaves = self.inputs.unflattened(x)

        def along(t, weights) -> np.ndarray:
            if self.exact:
                return _weighed(self._complex_step(t, leaves=leaves), weights)
            h = self.eps**0.4
            return _weighed((self.value(x + h * t) - self.value(x - h * t)) / (2 * h), weights)

        return along

    def column(self, j: int) -> np.ndarray:
        """The direction of the j-th number, as long as the number is large."""
        t = np.zeros_like(self.x)
        t[j] = self.scale[j]
        return t


def _weighed(values: np.ndarray, weights) -> np.ndarray:
    if weights is None:
        return values
    with np.errstate(invalid="ignore"):  # an infinite value
        return np.asarray((weights * values).sum(axis=-1))


class Settlement(NamedTuple):
    """Whether numbers that disagree with the oracle are right all the same; its doubt; how many cannot be judged.

    at_kink: some are right only as a value between two sides.
    """

    right: np.ndarray
    doubt: np.ndarray
    unknown: int
    at_kink: bool = False


def settled(slopes: Slopes, t, weights, hand, found, sides: Callable | None = None) -> Settlement:
    """A second opinion on derivatives along t that disagree, so that only what is certain is accused.

    hand, found: what is judged, and the oracle's value. What the complex step found stands where differences confirm
    it. Where the function has a kink, every value between the one-sided derivatives is right; ``sides()`` returns them
    if they are not those along t.
    """
    doubt = SAFETY * slopes.spread(t, weights) if slopes.exact else np.zeros_like(found)
    doubt = np.nan_to_num(doubt + 4 * slopes.eps * slopes.terms(weights), nan=0.0, posinf=0.0)
    if slopes.exact and (np.abs(hand - found) <= doubt).all():
        return Settlement(np.ones(np.shape(found), bool), doubt, 0)
    value, error = slopes.differences(t, weights)
    largest = np.abs(value).max(initial=0.0, where=np.isfinite(value))
    at = sides() if sides is not None else slopes.sides(t, weights)
    with np.errstate(all="ignore"):
        margin = SAFETY * error + (CLOSE * largest if slopes.exact else 0)
        confirmed = (np.abs(found - value) <= margin) & slopes.exact
        close = np.abs(hand - value) <= margin
        converged = np.isfinite(value) & (error <= 0.1 * np.fmax(largest, np.abs(found).max(initial=0.0)))
        slack = 1e-3 * np.maximum(np.abs(at.low), np.abs(at.high))
        between = at.jumps & (hand >= at.low - slack) & (hand <= at.high + slack)
        infinite = ~np.isfinite(hand) & ~(np.abs(found) < INFINITE)  # as the derivative of √x at 0
    undefined = ~np.isfinite(slopes.terms(weights))
    unknown = undefined | (~confirmed & ~converged & ~at.jumps & ~between & ~close & ~infinite)
    right = between | infinite | unknown | (close & ~confirmed)
    return Settlement(right, doubt, int(unknown.sum()), bool(between.any()))
