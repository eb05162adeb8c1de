"""The R-operator on a graph, from neuron to neuron, and what of ``fnn.curvature`` else a graph has.

With v_kl and c_k the direction's entries for the weight w_kl and the bias β_k, the masks in w and v, and ψ = z where no
batch norm is:

    R{ψ_k} = Σ_{l: l→k} (w_kl R{o_l} + v_kl o_l) + c_k             0 for inputs
    R{o_k} = σ'_k(z_k) R{z_k}
    R{g_k} = Σ_{l: k→l} (R{λ_l} w_lk + λ_l v_lk)                   g_k = Σ_{l: k→l} λ_l w_lk = ∂L/∂o_k
    R{λ_k} = R{g_k} σ'_k(z_k) + g_k σ''_k(z_k) R{z_k}              + R{(1)} where k is an output
    R{∂C/∂w_kj} = Σ_n (R{λ_k} o_j + λ_k R{o_j}),   R{∂C/∂β_k} = Σ_n R{λ_k}

The sums over arrows are those of ``fnn.graph.recursion``, and all other lines those of ``curvature.tangents``. Arrays
are (rows, examples) as there.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.checks import targets
from fnn.curvature.tangents import TANGENTS, TangentRules
from fnn.dropout import Mask, masked
from fnn.functions import like_examples
from fnn.graph.graph import GraphParams
from fnn.graph.passes import Given, leaves, states_and_outputs, with_mask
from fnn.graph.plan import Index, Layout
from fnn.graph.recursion import Leaves, States, by_neurons, by_rows, each, norm_by_rows, sweep, weight_gradients
from fnn.graph.schedule import Run
from fnn.kinds import Outputs as PassedOutputs
from fnn.losses import Loss
from fnn.per_example.graphs import Factors

SUMS = ("psi", "input_gradient", "weight_gradient")  # the rules that take a layer's matrix


class Point(NamedTuple):
    """Where the changes are taken: parameters and direction, the masks in them, and what the forward pass computed."""

    leaves: Leaves
    along: Leaves
    units: Array | None  # (rows, B) or (rows, 1)
    states: States
    a: Array  # o without the mask of the units

    def masked(self, part: Callable, values: Array) -> Array:
        """The values of a part of the rows, times the mask of its units."""
        return masked(values, None if self.units is None else part(self.units))


class Outputs(NamedTuple):
    """z and a of the outputs with R{z} and R{a}, (B, n_L)."""

    z: Array
    a: Array
    dz: Array
    da: Array


class LambdaTangents(NamedTuple):
    """λ and R{λ}, (rows, B), and of a batch norm the sums R{∂/∂γ} and R{∂/∂β}, (rows, 1)."""

    lam: Array
    d_lam: Array
    gamma: Array | None
    beta: Array | None


def hvp(
    params: GraphParams, x: Array, y: Array, v: GraphParams, masks: Given, loss: Loss, reduction: str, rules
) -> GraphParams:
    """The Hessian times v: λ and o times the changes of the other, summed over the examples."""
    require_sums(rules)
    layout, index = masks.layout(params), masks.tables
    at, tangents, (z, a, dz, da) = _forward(params, jnp.atleast_2d(x), v, masks, rules)
    y = targets.target_rows(y, like_examples(a, x), loss)
    direct = RULES.output_delta(loss, layout.output, z, a, y).T
    d_direct = rules.output_delta(loss, layout.output, z, a, y, dz, da).T
    found = lambda_tangents(layout, index, at, tangents, direct, d_direct, rules)
    lam, o = jnp.concatenate([found.d_lam, found.lam], axis=1), jnp.concatenate([at.states.o, tangents.o], axis=1)
    by_arrow = weight_gradients(layout, index, lam, o, RULES)  # both of its terms in one sum
    return _like(params, masks, rules, _scale(a, reduction), by_arrow, found.d_lam, found.gamma, found.beta)


def require_sums(rules: TangentRules) -> None:
    """Raise if one of the rules that take a layer's matrix is another."""
    replaced = [name for name in SUMS if getattr(rules, name) is not getattr(TANGENTS, name)]
    if replaced:
        raise ValueError(
            f"rules.{replaced[0]}: expected that of curvature.TANGENTS, because the sums over a graph's arrows are no "
            f"products of matrices; write rules._replace({replaced[0]}=TANGENTS.{replaced[0]})"
        )


def output_tangent(params: GraphParams, v: GraphParams, x: Array, masks: Given) -> tuple[PassedOutputs, Array]:
    """The forward pass, and the change of the outputs along v."""
    at, _, (z, a, _, da) = _forward(params, x, v, masks, TANGENTS)
    return PassedOutputs(masks.layout(params).output, z, a, at.states), da


def squares(J: Factors, product: Callable[[Array], Array], masks: Given) -> tuple[Factors, Given]:
    """From the factors of every output's derivatives, in front, those of the Gauss–Newton diagonal, and their masks."""
    arrows = None if masks.mask.arrows is None else masks.mask.arrows**2
    by_gamma, by_beta = map(product, J.by_norm) if J.by_norm else (None, None)
    return Factors(product(J.lam), J.o[0] ** 2, by_gamma, by_beta), replace(masks, mask=Mask(arrows=arrows))


def by_neuron(masks: Given, products: GraphParams) -> Array:
    """The sum over what belongs to each neuron, its bias, the arrows into it, γ and β: (N,)."""
    own = products.biases if products.norm is None else products.biases + products.norm.gamma + products.norm.beta
    return own.at[masks.arrows[:, 1]].add(products.weights)


def _forward(params: GraphParams, x: Array, v: GraphParams, masks: Given, rules: TangentRules):
    """Where the changes are taken, R{states}, and what the outputs are."""
    layout, mask, index = masks.layout(params), masks.mask, masks.tables
    w, along = (with_mask(leaves(of), mask) for of in (params, v))
    states, z, a = states_and_outputs(layout, index, w, x, mask.units)
    units, every_a = None, states.o
    if mask.units is not None:
        units = by_rows(layout, index, mask.units.T)
        every_a = each(layout, range(len(layout.kinds)), index.kind, lambda activation: activation.value(states.z))
    at = Point(w, along, units, states, every_a)
    tangents = forward_tangents(layout, index, at, rules)
    dz = tangents.z[index.outputs].T
    return at, tangents, Outputs(z, a, dz, rules.activation(dz, layout.output, z, a))


def _like(
    params: GraphParams, masks: Given, rules, scale: float, by_arrow: Array, lam: Array, gamma, beta
) -> GraphParams:
    """A pytree like ``params``, times ``scale``: of sums over the examples, (M,) and (rows, 1), and of λ (rows, B)."""
    layout, mask, index, norm = masks.layout(params), masks.mask, masks.tables, params.norm
    if norm is not None:
        gamma, beta = (by_neurons(layout, index, of)[:, 0] * scale for of in (gamma, beta))
        norm = replace(norm, gamma=gamma, beta=beta)
    biases = jnp.where(index.computed, rules.bias_gradient(by_neurons(layout, index, lam).T) * scale, 0)
    return replace(params, weights=masked(by_arrow, mask.arrows) * scale, biases=biases, norm=norm)


def _scale(a: Array, reduction: str) -> float:
    return 1 / len(a) if reduction == "mean" else 1


def forward_tangents(layout: Layout, index: Index, at: Point, rules: TangentRules) -> States:
    """R{o}, R{z} and R{ψ} of every neuron, in the places of o, z and ψ; 0 for inputs."""
    states, c = at.states, by_rows(layout, index, at.along.biases)
    norms = [norm_by_rows(layout, index, of.norm) for of in (at.leaves, at.along)]
    zero = jnp.zeros_like(states.z)

    def finish(run: Run, part: Callable, sums: tuple[Array, Array], old: States) -> States:
        by_w, by_v = sums
        psi = z = by_w + by_v + part(c)[:, None]
        if states.psi is not None:
            normed = rules.normalise(*(jax.tree.map(part, norm) for norm in norms), part(states.psi).T, psi.T).T
            z = jnp.where(part(index.normed)[:, None], normed, psi)
        of_each = partial(each, layout, run.kinds, part(index.kind))
        o = of_each(lambda activation: rules.activation(z.T, activation, part(states.z).T, part(at.a).T).T)
        return States(at.masked(part, o), z, None if states.psi is None else psi)

    weights, start = (at.leaves.weights, at.along.weights), States(zero, zero, None if states.psi is None else zero)
    return sweep(layout.forward, index.forward, weights, lambda tangents: (tangents.o, states.o), start, finish)


def lambda_tangents(
    layout: Layout, index: Index, at: Point, tangents: States, direct: Array, d_direct: Array, rules: TangentRules
) -> LambdaTangents:
    """λ and R{λ} of every neuron; direct, d_direct: (n_L, B), (1) and its change."""
    states, norms = at.states, [norm_by_rows(layout, index, of.norm) for of in (at.leaves, at.along)]
    zero = jnp.zeros_like(states.z)
    none = None if states.psi is None else zero[:, :1]

    def finish(run: Run, part: Callable, sums: tuple[Array, Array, Array], old: LambdaTangents) -> LambdaTangents:
        of_each = partial(each, layout, run.kinds, part(index.kind))
        by_w, d_by_w, by_v = sums
        g, dg = at.masked(part, by_w).T, at.masked(part, d_by_w + by_v).T
        z, a, dz = part(states.z).T, part(at.a).T, part(tangents.z).T
        # an output has its own part, and may have outgoing arrows besides
        lam = old.lam + of_each(lambda activation: RULES.hidden_delta(g, activation, z, a).T)
        d_lam = old.d_lam + of_each(lambda activation: rules.hidden_delta(g, dg, activation, z, a, dz).T)
        if states.psi is None:
            return LambdaTangents(lam, d_lam, None, None)
        norm, along = (jax.tree.map(part, of) for of in norms)
        psi, normed = part(states.psi).T, part(index.normed)[:, None]
        by_psi, *_ = RULES.norm_pullback(norm, psi, lam.T)
        changes = rules.norm_pullback(norm, along, psi, part(tangents.psi).T, lam.T, d_lam.T)
        parts = (v.T.reshape(run.rows, -1) for v in (by_psi, *changes))
        plain: tuple = (lam, d_lam, 0, 0)
        return LambdaTangents(*(jnp.where(normed, value, other) for value, other in zip(parts, plain)))

    w, v = at.leaves.weights, at.along.weights
    start = LambdaTangents(zero.at[index.outputs].set(direct), zero.at[index.outputs].set(d_direct), none, none)

    def values(state: LambdaTangents) -> tuple[Array, Array, Array]:
        return state.lam, state.d_lam, state.lam

    return sweep(layout.backward, index.backward, (w, w, v), values, start, finish)
