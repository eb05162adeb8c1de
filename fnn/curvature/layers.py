"""The R-operator on layers: both passes of ``fnn.backward``, and after each of their lines the change of that line."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.batchnorm import norm_like
from fnn.curvature.tangents import TangentRules, Tangents
from fnn.kinds import Outputs
from fnn.layers import Dense, Params, each
from fnn.masks import Mask, masked
from fnn.network import layer_forward


def forward_tangents(rules: TangentRules, params: Params, v: Params, x: Array, masks: Sequence[Mask]) -> Tangents:
    """The forward pass and its change; passed: for every entry of ``params`` R{a^{ℓ−1}}, R{ψ} and R{z}."""

    def layer_tangent(carry, layer: Dense, v: Dense, mask: Mask):
        a, da = carry
        out, (_, t) = here = layer_forward(RULES, a, layer, mask)
        weights, along = masked(layer.W, mask.arrows), masked(v.W, mask.arrows)
        dpsi = rules.psi(t.a_in, None if da is None else masked(da, mask.units), weights, along, v.b)
        dz = dpsi if layer.norm is None else rules.normalise(layer.norm, v.norm, t.psi, dpsi)
        return (out, rules.activation(dz, layer.activation, t.z, t.a)), (here[1], (da, dpsi, dz))

    carry: Any = (x, None)  # R{a⁰} = 0
    passed, changes = [], []
    for layer, along, mask in zip(params, v, masks):
        carry, (here, change) = each(layer_tangent, carry, layer, along, mask)
        passed.append(here)
        changes.append(change)
    a, da = carry
    return Tangents(Outputs(params[-1].activation, passed[-1][1].z, a, passed), changes[-1][2], da, changes)


def layer_pullback_tangent(rules: TangentRules, seeds, layer: Dense, v: Dense, mask: Mask, here, change):
    """g and R{g} of the layer below from ∂/∂z and R{∂/∂z}, with the change of the gradients."""
    (delta, d_delta), (a_before, t), (da_before, dpsi, _) = seeds, here, change
    by_norm = ()
    if layer.norm is not None:
        d_delta, *by_norm = rules.norm_pullback(layer.norm, v.norm, t.psi, dpsi, delta, d_delta)
        delta, _, _ = RULES.norm_pullback(layer.norm, t.psi, delta)
    da_in = None if da_before is None else masked(da_before, mask.units)
    W = rules.weight_gradient(delta, d_delta, masked(a_before, mask.units), da_in, mask.arrows)  # (3)
    b = rules.bias_gradient(d_delta)  # (4)
    weights, along = masked(layer.W, mask.arrows), masked(v.W, mask.arrows)
    g = RULES.input_gradient(delta, weights, mask.units)  # (2a)
    dg = rules.input_gradient(delta, d_delta, weights, along, mask.units)
    return (g, dg), replace(layer, W=W, b=b, norm=norm_like(layer.norm, by_norm))


def backward_tangents(rules: TangentRules, params: Params, v: Params, masks, tangents: Tangents, seeds) -> Params:
    """The change of the gradients, from ∂/∂z^L and R{∂/∂z^L}."""

    def hidden(above, layer: Dense, v: Dense, mask: Mask, here, change):
        # a comes from above, as in ``backward``
        ((g, dg), a), (a_before, t), (_, _, dz) = above, here, change
        delta = RULES.hidden_delta(g, layer.activation, t.z, a)  # (2b)
        d_delta = rules.hidden_delta(g, dg, layer.activation, t.z, a, dz)
        below, product = layer_pullback_tangent(rules, (delta, d_delta), layer, v, mask, here, change)
        return (below, a_before), product

    *lower, last = zip(params, v, masks, tangents.outputs.passed, tangents.passed)
    below, product = layer_pullback_tangent(rules, seeds, *last)
    above, found = (below, last[3][0]), [product]
    for layer, *rest in reversed(lower):
        above, product = each(hidden, above, layer, *rest, reverse=True)
        found.append(product)
    return tuple(reversed(found))


def by_entry(products: Params, masks) -> tuple[Array, ...]:
    """The sum over each layer's parameters; of a stack, over those of each of its layers."""

    def in_all(layer: Dense) -> Any:
        leaves = jax.tree.leaves(layer)
        return sum(jnp.sum(leaf, axis=tuple(range(layer.stacked, leaf.ndim))) for leaf in leaves)

    return tuple(map(in_all, products))
