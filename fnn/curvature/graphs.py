"""The R-operator on a graph, from neuron to neuron.

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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.curvature.tangents import TANGENTS, TangentRules, Tangents
from fnn.graph.given import Given
from fnn.graph.graph import GraphParams
from fnn.graph.passes import forward, like
from fnn.graph.recursion import States, Step, by_rows, sweep, weight_gradients
from fnn.kinds import Outputs
from fnn.masks import masked

SUMS = ("psi", "input_gradient", "weight_gradient")  # the rules that take a layer's matrix


class Point(NamedTuple):
    """Where the changes are taken, parameters and direction: the weights with their mask, batch norms, and the rest."""

    weights: tuple[Array, ...]
    norms: Any  # pairs, of (rows,), or (None, None)
    c: Array  # (rows,)
    units: Array | None  # (rows, B) or (rows, 1)


class LambdaTangents(NamedTuple):
    """λ and R{λ}, (rows, B), and of a batch norm the sums R{∂/∂γ} and R{∂/∂β}, (rows, 1)."""

    lam: Array
    d_lam: Array
    gamma: Array | None
    beta: Array | None


def require_sums(rules: TangentRules) -> None:
    """Raise if one of the rules that take a layer's matrix is another."""
    replaced = [name for name in SUMS if getattr(rules, name) is not getattr(TANGENTS, name)]
    if replaced:
        raise ValueError(
            f"rules.{replaced[0]}: expected that of curvature.TANGENTS, because the sums over a graph's arrows are not "
            f"matrix products; write rules._replace({replaced[0]}=TANGENTS.{replaced[0]})"
        )


def forward_tangents(rules: TangentRules, params: GraphParams, v: GraphParams, x: Array, masks: Given) -> Tangents:
    """The forward pass and its change; passed: R{o}, R{z} and R{ψ} of every neuron, 0 for inputs, as ``States``."""
    require_sums(rules)
    layout, index, at = masks.layout(params), masks.tables, _point(params, v, masks)
    outputs = Outputs(*forward(RULES, params, x, masks))
    states: States = outputs.passed

    def finish(step: Step, sums: tuple[Array, Array], old: States) -> States:
        psi = dz = sum(sums, step(at.c))
        if params.norm is not None:
            dz = step.where_normed(rules.normalise(*step(at.norms), step(states.psi), psi), psi)
        z, a = step(states.z), step.unmasked(states, at.units)
        o = step.each(lambda activation: rules.activation(dz, activation, z, a))
        return States(masked(o, step(at.units)), dz, None if params.norm is None else psi)

    start = jax.tree.map(jnp.zeros_like, states)
    changes = sweep(layout, index, "forward", at.weights, lambda tangents: (tangents.o, states.o), start, finish)
    dz = changes.z[index.outputs].T
    return Tangents(outputs, dz, rules.activation(dz, *outputs[:3]), changes)


def backward_tangents(
    rules: TangentRules, params: GraphParams, v: GraphParams, masks: Given, tangents: Tangents, seeds
) -> GraphParams:
    """The change of the gradients, from ∂/∂z of the outputs and its change: λ and o times the changes of the other."""
    layout, index, at = masks.layout(params), masks.tables, _point(params, v, masks)
    states, changes = tangents.outputs.passed, tangents.passed

    def finish(step: Step, sums: tuple[Array, Array, Array], old: LambdaTangents) -> LambdaTangents:
        by_w, d_by_w, by_v = sums
        g, dg = masked(by_w, step(at.units)), masked(d_by_w + by_v, step(at.units))
        z, a, dz = step(states.z), step.unmasked(states, at.units), step(changes.z)
        lam = old.lam + step.each(lambda activation: RULES.hidden_delta(g, activation, z, a))
        d_lam = old.d_lam + step.each(lambda activation: rules.hidden_delta(g, dg, activation, z, a, dz))
        if params.norm is None:
            return LambdaTangents(lam, d_lam, None, None)
        (norm, along), psi = step(at.norms), step(states.psi)
        by_psi, *_ = RULES.norm_pullback(norm, psi, lam)
        changed = rules.norm_pullback(norm, along, psi, step(changes.psi), lam, d_lam)
        return LambdaTangents(*step.where_normed((by_psi, *map(jnp.atleast_2d, changed)), (lam, d_lam, 0, 0)))

    def values(state: LambdaTangents) -> tuple[Array, Array, Array]:
        return state.lam, state.d_lam, state.lam

    lam, d_lam = (jnp.zeros_like(states.z).at[index.outputs].set(seed.T) for seed in seeds)
    none = None if params.norm is None else jnp.zeros_like(lam[:, :1])
    (w, along), start = at.weights, LambdaTangents(lam, d_lam, none, none)
    found = sweep(layout, index, "backward", (w, w, along), values, start, finish)
    lam, o = jnp.concatenate([found.d_lam, found.lam], axis=1), jnp.concatenate([states.o, changes.o], axis=1)
    by_arrow = weight_gradients(layout, index, lam, o, RULES)  # both of its terms in one sum
    return like(params, masks, rules, by_arrow, found.d_lam, (found.gamma, found.beta))


def _point(params: GraphParams, v: GraphParams, masks: Given) -> Point:
    weights = tuple(masked(of.weights, masks.mask.arrows) for of in (params, v))
    return Point(weights, *by_rows(masks.layout(params), masks.tables, ((params.norm, v.norm), v.biases, masks.units)))


def by_entry(products: GraphParams, masks: Given) -> Array:
    """The sum over what belongs to each neuron, its bias, the arrows into it, γ and β: (N,)."""
    own = products.biases if products.norm is None else products.biases + products.norm.gamma + products.norm.beta
    return own.at[masks.arrows[:, 1]].add(products.weights)
