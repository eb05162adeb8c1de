"""The derivatives that JAX makes of a function at a point, judged by the function's values and by each other."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks.arrays import describe
from fnn.verify.blackbox import NOT_DETERMINISTIC, differs_again
from fnn.verify.devices import as_called
from fnn.verify.differences import TOLERANCE as BY_DIFFERENCES
from fnn.verify.entries import EACH, Cotangents
from fnn.verify.interpret import equations_inside, evaluate, precision_inside, trace
from fnn.verify.linearity import not_linear
from fnn.verify.neighbours import Sides
from fnn.verify.oracle import TOLERANCE, is_inexact
from fnn.verify.patterns import statements
from fnn.verify.report import Finding, compare, norm
from fnn.verify.slopes import SAFETY, Slopes, settled
from fnn.verify.stages import like, random_like, without_float0

SEED = 1729  # not 0, with which many users draw their arguments: a cotangent equal to x is special
COTANGENTS, TANGENTS = 2, 2
UNSUPPORTED = ("forward-mode", "Reverse-mode", "do not support JVP", "does not support JVP")  # in JAX's messages


class NoDerivative(TypeError):
    """JAX can differentiate the function in neither direction."""


class Derivatives:
    """A function of floating leaves at a point: what JAX's derivatives of it are, and what they should be."""

    def __init__(self, f: Callable, inputs, names, dtype: str, tolerance: float | None, prefix: str = ""):
        self.f, self.inputs, self.names, self.dtype, self.prefix = f, inputs, names, dtype, prefix
        with as_called():
            self.y = evaluate(f, *inputs)
        self.precision = self._precision()
        self.limit = tolerance or TOLERANCE[self.precision]
        self.slopes = Slopes(lambda *given: f(*given), [np.asarray(leaf) for leaf in inputs], self.precision)
        random = np.random.default_rng(SEED)
        self.y_bars = [random_like(self.y, random) for _ in range(COTANGENTS)]
        self.weights = np.array([self.flat(y_bar, dual=True) for y_bar in self.y_bars])
        space = self.slopes.inputs
        signs = random.choice([-1.0, 1.0], (TANGENTS, space.size)) * random.uniform(0.5, 1, (TANGENTS, space.size))
        self.tangents = list(signs * self.slopes.scale)  # of no exact cancellation
        self.notes: list[str] = []
        self.weak = ""
        self.backward: Any = None  # the VJP of every cotangent
        self.forward: Any = None  # the JVP of every tangent
        if any(is_inexact(leaf) for leaf in jax.tree.leaves(self.y)):
            return
        raise TypeError(f"f: expected a floating value, to differentiate, got {describe(self.y)}")

    def _precision(self) -> str:
        """The coarsest dtype in which the function computes."""
        found = precision_inside(trace(self.f, *self.inputs)[0].jaxpr.jaxpr)
        return max(found, self.dtype, key=lambda name: TOLERANCE.get(name, 0.0))

    def flat(self, tree, dual: bool = False) -> np.ndarray:
        """The outputs' leaves that have derivatives as a vector."""
        pairs = zip(jax.tree.leaves(self.y), jax.tree.leaves(tree))
        return self.slopes.outputs.vector([leaf for value, leaf in pairs if is_inexact(value)], dual)

    # -- what JAX makes of it ----------------------------------------------------------------------------------

    def vjp(self, *given, y_bar):
        return without_float0(jax.vjp(self.f, *given)[1](like(self.y, y_bar)))

    def jvp(self, *given, t):
        return jax.jvp(self.f, given, tuple(t))[1]

    def _all_backward(self, *given):
        """The value, and the VJP of every cotangent."""
        value, pull = jax.vjp(self.f, *given)
        return value, [without_float0(pull(like(self.y, y_bar))) for y_bar in self.y_bars]

    def _all_forward(self, *given):
        """The value, and the JVP of every tangent."""
        both = [jax.jvp(self.f, given, tuple(self.tangent(t))) for t in self.tangents]
        return both[0][0], [tangent for _, tangent in both]

    def as_function(self) -> Callable:
        """The VJP, or where there is none the JVP, as a function of the same inputs."""
        if self.backward is not None:
            return lambda *given: self.vjp(*given, y_bar=self.y_bars[0])
        return lambda *given: self.jvp(*given, t=self.tangent(self.tangents[0]))

    def tangent(self, t) -> list:
        leaves = self.slopes.inputs.unflattened(t)
        return [jnp.asarray(leaf, jnp.result_type(given)) for leaf, given in zip(leaves, self.inputs)]

    def _attempt(self, name: str, function: Callable) -> tuple[Any, list[Finding]]:
        """JAX's derivatives, or None, with a note where JAX has none, and findings where a rule of the user's is wrong.

        A rule may raise, return another value than the function, or differ from call to call.
        """
        try:
            with as_called():
                value, derivatives = evaluate(function, *self.inputs)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            if any(word in str(error) for word in UNSUPPORTED):
                self.notes.append(f"no {name}, because JAX has none of this function ({text[:120]})")
                return None, []
            return None, [Finding(self._name(name), float("inf"), self.limit, note=f"it raises {text}"[:200])]
        if differs_again(function, self.inputs, (value, derivatives)):
            return None, [Finding(self._name(name), float("inf"), 0.0, note=NOT_DETERMINISTIC)]
        ours, right = self.flat(value), self.flat(self.y)
        known = np.isfinite(ours) | np.isfinite(right)
        finding = compare(self._name(f"value under the {name}"), np.where(known, ours, 0), np.where(known, right, 0),
                          self.limit, kind="value", sides=("JAX", "f"))  # fmt: skip
        return derivatives, [] if finding.ok else [finding]

    # -- the findings ------------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        if differs_again(self.f, self.inputs, self.y):
            return [Finding(self._name("f"), float("inf"), 0.0, note=f"f is {NOT_DETERMINISTIC}")]
        self.backward, found = self._attempt("VJP", self._all_backward)
        self.forward, more = self._attempt("JVP", self._all_forward)
        found += more
        if self.backward is None and self.forward is None and not found:
            raise NoDerivative(f"f: JAX can differentiate it in neither direction: {self.notes[-1]}")
        found += [] if self.backward is None else self._backward()
        found += [] if self.forward is None else self._forward()
        if self.backward is not None and self.forward is not None:
            found += self._dot_product()
        return [*found, *self._batched()]

    def _name(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def _backward(self) -> list[Finding]:
        hand = np.array([self.slopes.inputs.vector(of, dual=True) for of in self.backward])
        names = [self._name(f"{name}, VJP") for name in self.names]
        judge = Cotangents(self.slopes, names, self.weights, self.limit, "JAX")
        found = judge.findings(hand)
        self._noted(judge.note(), judge.note() if judge.weak else "")
        if all(finding.ok for finding in found):
            pull = lambda y_bar: evaluate(partial(self.vjp, y_bar=y_bar), *self.inputs)  # noqa: E731
            note = not_linear(pull, self.y_bars[0])
            found += [Finding(self._name("VJP"), float("inf"), 0.0, note=note)] if note else []
        return [replace(finding, note=self._why(finding)) for finding in found]

    def _noted(self, note: str, weak: str) -> None:
        self.notes.insert(0, note)
        self.weak = self.weak or weak

    def _why(self, finding: Finding) -> str:
        """The note on a finding; a stopped gradient may be wrong on purpose."""
        if finding.ok or not self._stops():
            return finding.note
        stops = (
            "f contains lax.stop_gradient: if its derivative is deliberate, write verify.custom_vjp(f, x, surrogate=g)"
        )
        return "; ".join(note for note in (finding.note, stops) if note)

    def _stops(self) -> bool:
        traced = trace(self.f, *self.inputs)[0]
        return any(eqn.primitive.name == "stop_gradient" for eqn in equations_inside(traced.jaxpr.jaxpr))

    def _forward(self) -> list[Finding]:
        paths = [path for path, leaf in jax.tree_util.tree_leaves_with_path(self.y) if is_inexact(leaf)]
        names = [self._name(f"output{jax.tree_util.keystr(path)}, JVP") for path in paths]
        by = "the complex step" if self.slopes.exact else "differences"
        if self.backward is None:
            self._noted(f"compared with {by} along {TANGENTS} directions", "")
        sides = ("JAX", by)
        limit = self.limit if self.slopes.exact else max(self.limit, BY_DIFFERENCES)
        judged: list[list[Finding]] = [[] for _ in names]
        for t, of in zip(self.tangents, self.forward):
            ours = self.flat(of)
            right, doubt = self.slopes.along(t)
            for i, finding in enumerate(self._outputs(names, ours, right, doubt, limit, sides)):
                judged[i].append(finding)
            if all(of[-1].ok for of in judged):
                continue
            settlement = settled(self.slopes, t, None, ours, right, lambda: self._sides(t))  # noqa: B023
            right, doubt = np.where(settlement.right, ours, right), np.maximum(doubt, settlement.doubt)
            for i, finding in enumerate(self._outputs(names, ours, right, doubt, limit, sides)):
                judged[i][-1] = finding
        return [replace(one, note=self._why(one)) for one in map(Cotangents.worst, judged)]

    def _outputs(self, names, ours, right, doubt, limit, sides) -> Iterator[Finding]:
        space = self.slopes.outputs
        known = np.isfinite(right)
        ours, right, doubt = (np.where(known & np.isfinite(doubt), of, 0) for of in (ours, right, doubt))
        for i, name in enumerate(names):
            size = max(norm(right[space.parts[i]]), SAFETY * norm(doubt[space.parts[i]]) / limit)
            hand, oracle = space.leaf(i, ours), space.leaf(i, right)
            finding = compare(name, hand, oracle, limit, size, sides=sides)
            if not finding.ok and not np.iscomplexobj(hand):
                finding = replace(finding, note=next(iter(statements(hand, oracle, limit)), ""))
            yield finding

    def _sides(self, t) -> Sides:
        """The one-sided derivatives along t; where there are few entries the sums of theirs, which enclose more."""
        whole_way = self.slopes.sides(t)
        if self.slopes.inputs.size > EACH:
            return whole_way
        low, high, jumps = np.zeros_like(whole_way.low), np.zeros_like(whole_way.low), whole_way.jumps
        for j in range(t.size):
            one = self.slopes.sides(self.slopes.column(j))
            sign = t[j] / self.slopes.scale[j]
            low, high = (
                low + np.minimum(sign * one.low, sign * one.high),
                high + np.maximum(sign * one.low, sign * one.high),
            )
            jumps = jumps | one.jumps
        return Sides(low, high, jumps)

    def _dot_product(self) -> Iterator[Finding]:
        found = []
        for t, of in zip(self.tangents, self.forward):
            for weights, back in zip(self.weights, self.backward):
                with np.errstate(invalid="ignore"):
                    forward, backward = weights * self.flat(of), self.slopes.inputs.vector(back, dual=True) * t
                if np.isfinite(forward).all() or np.isfinite(backward).all():
                    found.append(self._pairing(forward, backward, t, weights))
        yield from sorted(found, key=lambda finding: finding.error)[-1:]

    def _pairing(self, forward, backward, t, weights) -> Finding:
        name, size = self._name("⟨ȳ, J t⟩ = ⟨Jᵀ ȳ, t⟩"), max(norm(forward), norm(backward))
        known: Any = {"sides": ("JVP", "VJP")}
        finding = compare(name, forward.sum(), backward.sum(), self.limit, 10 * size, **known)
        if finding.ok:
            return finding
        slopes = self.slopes  # terms may cancel
        doubt = float(slopes.spread(t, weights) if slopes.exact else slopes.differences(t, weights)[1])
        size = max(10 * size, SAFETY * doubt / self.limit)
        return compare(name, forward.sum(), backward.sum(), self.limit, size, **known)

    def _batched(self) -> Iterator[Finding]:
        """``vmap`` of the derivative at two points, beside both one by one."""
        if self.backward is None and self.forward is None:
            return
        way, seeds, call, names = self._one_way()
        points = [self.inputs, tuple(leaf * (1 - 2.0**-7) for leaf in self.inputs)]
        given, seed = (jax.tree.map(lambda *of: jnp.stack(of), *pair) for pair in (points, seeds))
        try:
            evaluate(jax.vmap(lambda *given: self.f(*given)), *given)
        except Exception as error:
            self.notes.append(f"no vmap, because f has none ({type(error).__name__})")
            return
        try:
            together = jax.tree.leaves(evaluate(jax.vmap(call), given, seed))
        except Exception as error:
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Finding(self._name(f"{way} under vmap"), float("inf"), self.limit, note=f"it raises {text}"[:200])
            return
        singly = zip(*(jax.tree.leaves(evaluate(call, *pair)) for pair in zip(points, seeds)))
        for name, batch, alone in zip(names, together, singly):
            right = np.stack(alone)
            known = np.isfinite(batch) | np.isfinite(right)
            batch, right = np.where(known, batch, 0), np.where(known, right, 0)
            limit, sides = 10 * self.limit, ("vmap", "one by one")
            yield compare(self._name(f"{name}, {way} under vmap"), batch, right, limit, sides=sides)

    def _one_way(self) -> tuple[str, list, Callable, list[str]]:
        """The VJP, or where there is none the JVP: its name, its seeds, the call, and the names of what it returns."""
        if self.backward is not None:
            return "VJP", self.y_bars, lambda given, y_bar: self.vjp(*given, y_bar=y_bar), self.names
        names = [f"output {i}" for i in range(len(self.slopes.outputs.leaves))]
        return "JVP", [self.tangent(t) for t in self.tangents], lambda given, t: self.jvp(*given, t=t), names
