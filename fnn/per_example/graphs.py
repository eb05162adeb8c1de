"""The factors of every example's gradient on a graph, λ and o of every neuron, and the sums formed from them.

For example i, the gradient with respect to the arrow l → k with mask R_kl is λ_ik R_kl o_il, and to the bias of k λ_ik:

    ‖g_i‖² over k's parameters  = λ_ik² (Σ_{l: l→k} R_kl² o_il² + 1)      the forward sum with R² for w, o² for o
    Σ_i c_i g_i                 : Σ_i (c_i λ_ik) o_il R_kl                 the weight gradient with c ⊙ λ for λ
    Σ_i g_i ⊙ g_i               : Σ_i λ_ik² o_il² R_kl²                    the weight gradient with squares
"""

from dataclasses import replace
from functools import reduce

import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.batchnorm import norm_like, standardise
from fnn.graph.given import Given
from fnn.graph.graph import GraphParams
from fnn.graph.passes import leaves, like, with_mask
from fnn.graph.recursion import backward_pass, by_neurons, by_rows, sums_over_arrows, weight_gradients
from fnn.kinds import Outputs
from fnn.masks import masked
from fnn.per_example.layers import Factors, length, require_fixed


def require_separable(params: GraphParams) -> None:
    """Raise ValueError unless per-example gradients exist."""
    require_fixed("params.norm", params.norm, "graph.init(key, batch_norm='fixed'), or fnn.fold it")


def factors(params: GraphParams, masks: Given, outputs: Outputs, delta_z: Array) -> Factors:
    """The factors of all neurons' parameters, o for a_in and λ for δ, from a seed ∂/∂z of the outputs, (B, n_L).

    All are (B, rows), rows as in ``fnn.graph.plan``.
    """
    layout, mask, index, states = masks.layout(params), masks.mask, masks.tables, outputs.passed
    weights, by_norm = with_mask(leaves(params), mask), []
    found = backward_pass(layout, index, weights, states, masks.units, delta_z.T, RULES)
    if params.norm is not None:
        x_hat, _ = standardise(by_rows(layout, index, params.norm), states.psi.T)
        by_beta = jnp.where(index.normed, found.delta_z.T, 0)
        by_norm = [by_beta * x_hat, by_beta]
    lam = found.lam.at[index.inputs].set(0)  # an input that is also an output has a derivative but no parameters
    return Factors(states.o.T, lam.T, *by_norm)


def lengths(params: GraphParams, f: Factors, masks: Given) -> tuple[Array, Array]:
    """‖g_i‖ over all parameters, (B,), and over those of every neuron, (B, N)."""
    layout, index = masks.layout(params), masks.tables
    by_arrow = jnp.abs(f.delta.T) * _input_lengths(params, f.a_in.T, masks)
    by_row = reduce(jnp.hypot, (v.T for v in (f.by_bias, *f.by_norm)), by_arrow)  # (rows, B)
    return length(by_row.T), by_neurons(layout, index, by_row).T


def _input_lengths(params: GraphParams, a: Array, masks: Given) -> Array:
    """√(Σ_{l: l→k} R_kl² o_il²) for every row k, of scaled o (rows, B): the large and the small ones apart."""
    squares = jnp.ones_like(params.weights) if masks.mask.arrows is None else masks.mask.arrows**2
    most = jnp.finfo(a.dtype).maxexp
    large, up = jnp.abs(a) > 2.0 ** (-most // 4), 2.0 ** (most // 2 - 4)
    parts = jnp.where(large, a, 0), jnp.where(large, 0, a) * jnp.asarray(up, a.dtype)
    layout, index = masks.layout(params), masks.tables
    of_large, of_small = (jnp.sqrt(sums_over_arrows(layout, index, squares, part**2)) for part in parts)
    return jnp.hypot(of_large, of_small / up)


def weighted_sums(params: GraphParams, f: Factors, masks: Given, weights: Array, power: int = 1) -> GraphParams:
    """Σ_i w_i g_i, or with power 2 Σ_i w_i g_i ⊙ g_i: a pytree like ``params``; weights: (B,)."""

    def weighted(values: Array) -> Array:
        return weights * values.T**power  # (rows, B)

    layout, arrows = masks.layout(params), masks.mask.arrows
    by_arrow = weight_gradients(layout, masks.tables, weighted(f.delta), f.a_in.T**power, RULES)
    by_arrow = by_arrow if arrows is None else by_arrow * arrows ** (power - 1)  # ``like`` multiplies once more
    by_norm = [jnp.sum(weighted(v), axis=1, keepdims=True) for v in f.by_norm]
    return like(params, masks, RULES, by_arrow, weighted(f.by_bias), by_norm)


def outer_products(params: GraphParams, f: Factors, masks: Given) -> GraphParams:
    """Every full g_i: a pytree like ``params`` with a leading axis of examples."""
    layout, mask, index = masks.layout(params), masks.mask, masks.tables
    source, target = index.row[masks.arrows].T
    by_arrow = masked(f.delta[:, target] * f.a_in[:, source], mask.arrows)
    biases, *by_norm = (by_neurons(layout, index, v.T).T for v in (f.delta, *f.by_norm))
    return replace(params, weights=by_arrow, biases=biases, norm=norm_like(params.norm, by_norm))
