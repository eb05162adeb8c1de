"""The lines of the R-operator on a graph, with autodiff's values of what they read and of what they compute.

Arrays here are (examples, neurons), in the order of ``graph.neurons``.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Activation
from fnn.backward import RULES
from fnn.curvature.tangents import TangentRules
from fnn.equations.changes import (
    ARROW_CHANGE,
    GRAPH_ACTIVATION_CHANGE,
    GRAPH_INPUT_CHANGE,
    GRAPH_NORM_CHANGE,
    GRAPH_NORMALISE_CHANGE,
    GRAPH_OUTPUT_CHANGE,
    GRAPH_PSI_CHANGE,
    LAMBDA_CHANGE,
    NEURON_CHANGE,
    Equation,
)
from fnn.graph.passes import leaves, states_and_outputs, with_mask
from fnn.graph.plan import plan
from fnn.graph.recursion import Leaves, by_neurons, by_rows, sums_against_arrows, sums_over_arrows, weight_gradients
from fnn.losses import Loss
from fnn.masks import masked
from fnn.verify.changes import Normed, along, rounding, slack
from fnn.verify.devices import as_called
from fnn.verify.equations import Case
from fnn.verify.graphs import data_or_random, groups
from fnn.verify.oracle import in_dtype, to_numpy


class Line(NamedTuple):
    """One line at some neurons: by hand as a function of the rules, autodiff's value, and its terms."""

    equation: Equation
    layer: int  # the generation
    name: str
    hand: Callable[[TangentRules], Any]
    oracle: Any
    terms: dict[str, Any]
    rounding: float = 0.0  # of factors much larger than their products, added to the size of the terms
    neurons: Any = None  # the numbers of those along the last axis, where it counts some


class Values(NamedTuple):
    """Autodiff's: of every neuron ψ, z, o, ∂/∂ψ = λ and ∂/∂z, (B, N), and of the outputs z, a and more, (B, n_L).

    direct, of_a: ∂L/∂o σ'(z) and ∂L/∂o of the outputs alone, without what passes through their arrows.
    """

    psi: Any
    z: Any
    o: Any
    lam: Any
    lam_z: Any
    outputs: Any
    a: Any
    direct: Any
    of_a: Any
    gradients: Leaves


class Sums(NamedTuple):
    """R{ψ}, g and R{g}, (B, N), and R{∂C/∂w}, (M,): the sums over arrows, by hand from autodiff's values."""

    dpsi: Any
    g: Any
    dg: Any
    weights: Any


def cases(params, x, y, loss: Loss, masks, probes: bool) -> Callable[[str], tuple[Case, ...]]:
    """The cases as a function of the dtype; the arguments are checked at once."""
    found: Any = data_or_random(params, x, y, loss, masks, probes)
    return lambda dtype: tuple(Case(name, *in_dtype(tuple(of), dtype)) for name, *of in found)


def lines(case: Case, loss: Loss, tolerance: float) -> Iterator[Line]:
    """All lines of the case, forward and then backward, with autodiff's values along a random direction."""
    at = _At(case, loss, tolerance)
    yield from sorted(at.forward(), key=lambda line: line.layer)
    yield from sorted(at.backward(), key=lambda line: -line.layer)
    yield from at.gradients()


@partial(jax.jit, static_argnames=("layout", "loss"))
def _autodiff(parameters, v, x, y, mask, index, *, layout, loss) -> tuple[Values, Values]:
    """The values and their changes; derivatives by zeros that are added to every ψ and z, and to the outputs' z and a.

    The zeros of z stand in the batch norm's β, one for each example.
    """

    def total(parameters: Leaves, psi, z, outputs, a, x):
        norm = parameters.norm and replace(parameters.norm, beta=parameters.norm.beta[:, None] + z)
        shifted = Leaves(parameters.weights, parameters.biases[:, None] + psi, norm)
        states, z_out, _ = states_and_outputs(layout, index, with_mask(shifted, mask), x, mask.units)
        a_out = layout.output.value(z_out + outputs) + a
        return jnp.sum(loss.value(a_out, y)), (states, z_out, a_out)

    def values(parameters: Leaves) -> Values:
        zeros = [jnp.zeros(shape, x.dtype) for shape in 2 * [(layout.neurons, len(x))] + 2 * [(len(x), n_out)]]
        by, (states, z_out, a_out) = jax.grad(total, argnums=range(6), has_aux=True)(parameters, *zeros, x)
        lam = by[1].at[index.neuron[index.inputs]].add(by[5].T)
        normed = by_neurons(layout, index, index.normed)[:, None] & (parameters.norm is not None)
        lam_z = jnp.where(normed, by[2], lam)
        psi = states.z if states.psi is None else states.psi
        psi, z, o = (by_neurons(layout, index, of).T for of in (psi, states.z, states.o))
        return Values(psi, z, o, lam.T, lam_z.T, z_out, a_out, by[3], by[4], by[0])

    n_out = len(index.outputs)
    return jax.jvp(values, (parameters,), (v,))


@partial(jax.jit, static_argnames="layout")
def _sums(parameters, v, mask, lam, d_lam, o, do, index, *, layout) -> Sums:
    (w, _, _), (along, c, _) = with_mask(parameters, mask), with_mask(v, mask)
    lam, d_lam, o, do = (by_rows(layout, index, of.T) for of in (lam, d_lam, o, do))
    over, against = (partial(sums, layout, index) for sums in (sums_over_arrows, sums_against_arrows))
    dpsi, g, dg = (
        by_neurons(layout, index, of).T
        for of in (over(w, do) + over(along, o), against(w, lam), against(w, d_lam) + against(along, lam))
    )
    pairs = jnp.concatenate([d_lam, lam], axis=1), jnp.concatenate([o, do], axis=1)
    by_arrow = masked(weight_gradients(layout, index, *pairs, RULES), mask.arrows)
    return Sums(dpsi + c, masked(g, mask.units), masked(dg, mask.units), by_arrow)


class _At:
    """What is known of a case, and its lines: each computed for all neurons at once and then cut into groups."""

    def __init__(self, case: Case, loss: Loss, tolerance: float):
        params: Any = case.params
        mask: Any = case.masks
        graph, v = params.graph, along(params)
        layout, index = plan(graph)
        given = leaves(params), leaves(v)
        # cut as NumPy's arrays, because jax would compile every shape of a slice
        self.at, self.d = to_numpy(_autodiff(*given, case.x, case.y, mask, index, layout=layout, loss=loss))
        values = self.at.lam, self.d.lam, self.at.o, self.d.o
        signless = jax.tree.map(np.abs, (*given, mask, *values))
        self.sums, self.sizes = (
            to_numpy(_sums(*of, index, layout=layout)) for of in ((*given, mask, *values), signless)
        )
        self.case, self.loss, self.graph, self.layout = case, loss, graph, layout
        self.params, self.v, self.units, self.tolerance = params, v, mask.units, tolerance
        self.computed, self.sends = graph.generation > 0, np.isin(np.arange(len(graph)), graph.arrows[:, 0])
        self.normed = graph.normed if params.norm is not None else np.zeros(len(graph), bool)

    def forward(self) -> Iterator[Line]:
        """R{ψ}, R{z} and R{o} of the neurons that are no inputs."""
        neurons, normed = np.flatnonzero(self.computed), np.flatnonzero(self.normed)
        dpsi, oracle, size = (of[:, neurons] for of in (self.sums.dpsi, self.d.psi, self.sizes.dpsi))
        yield from self.cut(GRAPH_PSI_CHANGE, neurons, lambda rules: dpsi, oracle, {"": size})
        if len(normed):
            at = self.of_norm(normed)
            oracle = self.d.z[:, normed]
            yield from self.cut(
                GRAPH_NORMALISE_CHANGE,
                normed,
                lambda rules: rules.normalise(*at),
                oracle,
                at.terms(),
                (at.differenced(),),
            )
        for alike in self.by_kind(neurons):
            yield from self.activation(alike)

    def activation(self, neurons: np.ndarray) -> Iterator[Line]:
        """R{o} of neurons with one activation."""
        activation, z, a, dz = self.inside(neurons)
        oracle = self.d.o[:, neurons]
        units = None if self.units is None else _columns(np.asarray(self.units), neurons)

        def hand(rules: TangentRules):
            return masked(rules.activation(dz, activation, z, a), units)

        yield from self.cut(GRAPH_ACTIVATION_CHANGE, neurons, hand, oracle, {"": oracle}, (dz,))

    def backward(self) -> Iterator[Line]:
        """R{λ}: of the outputs, from the arrows, and behind the batch norm."""
        yield from self.outputs()
        for alike in self.by_kind(np.flatnonzero(self.sends & self.computed)):
            yield from self.hidden(alike)
        inputs = np.flatnonzero(self.sends & ~self.computed)
        dg, size = self.sums.dg[:, inputs], self.sizes.dg[:, inputs]
        oracle, direct = self.from_arrows(inputs)
        yield from self.cut(GRAPH_INPUT_CHANGE, inputs, lambda rules: dg, oracle, {"": size}, (direct,))
        if self.normed.any():
            yield from self.norm_pullback(np.flatnonzero(self.normed))

    def outputs(self) -> Iterator[Line]:
        at, d, activation = self.at, self.d, self.layout.output
        z, a, of_a, dz, da = map(jnp.asarray, (at.outputs, at.a, d.of_a, d.outputs, d.a))
        arguments = self.loss, activation, z, a, self.case.y, dz, da
        terms = {"R{g} sigma'": activation.pullback(of_a, z, a)}
        terms["g sigma'' R{z}"] = d.direct - terms["R{g} sigma'"]
        factors = at.of_a, d.a, d.outputs
        yield from self.cut(GRAPH_OUTPUT_CHANGE, self.graph.outputs, lambda rules: rules.output_delta(*arguments),
                            d.direct, terms, factors)  # fmt: skip

    def hidden(self, neurons: np.ndarray) -> Iterator[Line]:
        """What neurons with one activation get from their arrows: R{λ}, before a batch norm R{∂/∂z}."""
        activation, z, a, dz = self.inside(neurons)
        g, dg = _columns(self.sums.g, neurons), _columns(self.sums.dg, neurons)
        oracle, direct = self.from_arrows(neurons)
        factors = self.sizes.g[:, neurons], self.sizes.dg[:, neurons], direct
        terms = {"R{g} sigma'": activation.pullback(dg, z, a)}
        terms["g sigma'' R{z}"] = oracle - terms["R{g} sigma'"]

        def hand(rules: TangentRules):
            return rules.hidden_delta(g, dg, activation, z, a, dz)

        yield from self.cut(LAMBDA_CHANGE, neurons, hand, oracle, terms, factors)

    def norm_pullback(self, neurons: np.ndarray) -> Iterator[Line]:
        at, own = self.of_norm(neurons), self.d.gradients.norm
        deltas = _columns(self.at.lam_z, neurons), _columns(self.d.lam_z, neurons)
        oracles = self.d.lam[:, neurons], own.gamma[neurons], own.beta[neurons]
        sizes = at.sizes(*deltas, slack(self.tolerance, self.at.z.dtype))
        for equation, oracle, size in zip(GRAPH_NORM_CHANGE, oracles, sizes):

            def hand(rules: TangentRules, part: int = equation.part):
                return rules.norm_pullback(*at, *deltas)[part]

            yield from self.cut(equation, neurons, hand, oracle, {"": size})

    def gradients(self) -> Iterator[Line]:
        """Those by the weights and by the biases; a batch norm's R{λ} is a small difference of large terms."""
        through = rounding(self.tolerance, self.d.lam_z[:, self.normed])
        weights, computed = self.sums.weights, np.flatnonzero(self.computed)
        d_lam = _columns(self.d.lam, computed)
        summed = {"": abs(self.d.lam[:, computed]).sum(axis=0)}
        yield Line(ARROW_CHANGE, 0, ARROW_CHANGE.of(), lambda rules: weights, self.d.gradients.weights,
                   {"": self.sizes.weights}, through)  # fmt: skip
        yield Line(NEURON_CHANGE, 0, NEURON_CHANGE.of(), lambda rules: rules.bias_gradient(d_lam),
                   self.d.gradients.biases[computed], summed, through, computed)  # fmt: skip

    def cut(self, equation: Equation, neurons, hand: Callable, oracle, terms, factors=()) -> Iterator[Line]:
        """The line of each group from that of many neurons, which are the last axis of its arrays.

        factors: those that may be much larger than their products, see ``rounding``.
        """

        @lru_cache(maxsize=1)  # one call serves all groups
        def whole(rules: TangentRules) -> np.ndarray:
            with as_called():
                return np.asarray(hand(rules))

        oracle, terms, factors = to_numpy((oracle, terms, tuple(factors)))

        def part(places: np.ndarray, rules: TangentRules):
            value = whole(rules)
            return value[..., places] if value.shape == oracle.shape else value  # of a wrong shape, which is then named

        for group in groups(self.graph):
            places = np.flatnonzero(np.isin(neurons, group.neurons))
            if not len(places):
                continue
            its_terms = {name: term[..., places] for name, term in terms.items()}
            extra = rounding(self.tolerance, *(factor[..., places] for factor in factors)) if factors else 0.0
            generation = int(self.graph.generation[group.neurons[0]])
            of = "d/dz" if self.normed[neurons[places[0]]] else "lambda"  # before its batch norm, if there is one
            name = equation.of(at=group.at, k=group.k, of=of)
            yield Line(equation, generation, name, partial(part, places), oracle[..., places], its_terms, extra,
                       neurons[places])  # fmt: skip

    def inside(self, neurons: np.ndarray) -> tuple[Activation, Any, Any, Any]:
        """σ, which the neurons share, z, a and R{z}."""
        activation, z = self.graph.activations[neurons[0]], _columns(self.at.z, neurons)
        return activation, z, activation.value(z), _columns(self.d.z, neurons)

    def of_norm(self, neurons: np.ndarray) -> Normed:
        norm, v = (
            jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[neurons]), of.norm) for of in (self.params, self.v)
        )
        return Normed(norm, v, _columns(self.at.psi, neurons), _columns(self.d.psi, neurons))

    def from_arrows(self, neurons: np.ndarray) -> tuple[Any, Any]:
        """Autodiff's R{∂/∂z} without what an output has directly, and that."""
        direct = np.zeros_like(self.d.lam_z)
        direct[:, self.graph.outputs] = self.d.direct
        return self.d.lam_z[:, neurons] - direct[:, neurons], direct[:, neurons]

    def by_kind(self, neurons: np.ndarray) -> list[np.ndarray]:
        """The neurons with one activation each, and with a batch norm or without."""
        keys = 2 * self.graph.kind[neurons] + self.normed[neurons]
        return [neurons[keys == key] for key in np.unique(keys)]


def _columns(values: np.ndarray, neurons: np.ndarray) -> jax.Array:
    """Those of the neurons, as the rules want them."""
    return jnp.asarray(values[:, neurons])
