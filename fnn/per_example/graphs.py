"""The factors of every example's gradient on a graph, λ and o of every neuron, and the sums formed from them.

For example i, the gradient with respect to the arrow l → k with mask R_kl is λ_ik R_kl o_il, and to the bias of k λ_ik:

    ‖g_i‖² over k's parameters  = λ_ik² (Σ_{l: l→k} R_kl² o_il² + 1)      the forward sum with R² for w, o² for o
    Σ_i c_i g_i                 : Σ_i (c_i λ_ik) o_il R_kl                 the weight gradient with c ⊙ λ for λ
    Σ_i g_i ⊙ g_i               : Σ_i λ_ik² o_il² R_kl²                    the weight gradient with squares
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.batchnorm import norm_pullback, standardise
from fnn.dropout import masked
from fnn.graph.graph import GraphParams
from fnn.graph.passes import Given, leaves, with_mask
from fnn.graph.recursion import backward_pass, by_neurons, sums_over_arrows, weight_gradients
from fnn.kinds import Outputs
from fnn.per_example.layers import require_fixed


class Factors(NamedTuple):
    """λ, 0 for inputs, and o times the unit mask; the gradients for a batch norm's γ and β, or None.

    All (B, rows), rows as in ``fnn.graph.plan``.
    """

    lam: Array
    o: Array
    by_gamma: Array | None
    by_beta: Array | None

    @property
    def by_norm(self) -> list[Array]:
        return [v for v in (self.by_gamma, self.by_beta) if v is not None]


def require_separable(params: GraphParams) -> None:
    """Raise ValueError unless per-example gradients exist."""
    require_fixed("params.norm", params.norm, "graph.init(key, batch_norm='fixed'), or fnn.fold it")


def factors(params: GraphParams, masks: Given, outputs: Outputs, delta_z: Array) -> Factors:
    """The factors of every neuron's parameters from a forward pass and a seed ∂/∂z of the outputs, (B, n_L)."""
    layout, mask, index = masks.layout(params), masks.mask, masks.tables
    parameters, units = with_mask(leaves(params), mask), None if mask.units is None else mask.units.T
    rules = RULES._replace(norm_pullback=_norm_pullback)
    found = backward_pass(layout, index, parameters, outputs.passed, units, delta_z.T, rules, by_example=True)
    lam = found.lam.at[index.inputs].set(0)  # an input that is also an output has a derivative but no parameters
    return Factors(lam.T, outputs.passed.o.T, *(None if v is None else v.T for v in (found.gamma, found.beta)))


def _norm_pullback(norm, psi: Array, delta_z: Array) -> tuple[Array, Array, Array]:
    """Like ``fnn.batchnorm.norm_pullback``, with per-example ∂/∂γ and ∂/∂β instead of their sums."""
    x_hat, _ = standardise(norm, psi)
    of_psi, *_ = norm_pullback(norm, psi, delta_z)
    return of_psi, delta_z * x_hat, delta_z


def squared_lengths(params: GraphParams, f: Factors, masks: Given) -> tuple[Array, Array]:
    """‖g_i‖² over all parameters, (B,), and over those of every neuron, (B, N)."""
    layout, mask, index = masks.layout(params), masks.mask, masks.tables
    squares = jnp.ones_like(params.weights) if mask.arrows is None else mask.arrows**2
    of_inputs = sums_over_arrows(layout, index, squares, f.o.T**2)
    by_row = sum((v.T**2 for v in f.by_norm), f.lam.T**2 * (of_inputs + 1))
    return jnp.sum(by_row, axis=0), by_neurons(layout, index, by_row).T


def weighted_sums(params: GraphParams, f: Factors, masks: Given, weights: Array, power: int = 1) -> GraphParams:
    """Σ_i w_i g_i, or with power 2 Σ_i w_i g_i ⊙ g_i: a pytree like ``params``; weights: (B,)."""
    layout, mask, index, norm = masks.layout(params), masks.mask, masks.tables, params.norm

    def weighted(values: Array) -> Array:
        return weights * values.T**power  # (rows, B)

    def by_neuron(values: Array) -> Array:
        return by_neurons(layout, index, jnp.sum(weighted(values), axis=1))

    by_arrow = weight_gradients(layout, index, weighted(f.lam), f.o.T**power, RULES)
    if mask.arrows is not None:
        by_arrow *= mask.arrows**power
    if norm is not None:
        gamma, beta = map(by_neuron, f.by_norm)
        norm = replace(norm, gamma=gamma, beta=beta)
    return replace(params, weights=by_arrow, biases=by_neuron(f.lam), norm=norm)


def outer_products(params: GraphParams, f: Factors, masks: Given) -> GraphParams:
    """Every full g_i: a pytree like ``params`` with a leading axis of examples."""
    layout, mask, index, norm = masks.layout(params), masks.mask, masks.tables, params.norm
    source, target = index.row[masks.arrows].T
    by_arrow = masked(f.lam[:, target] * f.o[:, source], mask.arrows)
    biases, *by_norm = (by_neurons(layout, index, v.T).T for v in (f.lam, *f.by_norm))
    if norm is not None:
        norm = replace(norm, gamma=by_norm[0], beta=by_norm[1])
    return replace(params, weights=by_arrow, biases=biases, norm=norm)
