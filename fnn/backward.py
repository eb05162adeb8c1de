"""Back-propagation: the δ equations as named functions, and a loop that reads like the derivation.

With a batch in rows, ψ = z where there is no batch norm, and C the mean (N = B) or the sum (N = 1) of the examples'
losses:

    (1)  δ^L = ∂L/∂a ⊙ σ'(z^L)
    (2)  δ^ℓ = (δ^{ℓ+1} W^{ℓ+1}) ⊙ σ'(z^ℓ)      (2a) g = δ^{ℓ+1} W^{ℓ+1}   (2b) δ^ℓ = g ⊙ σ'(z^ℓ)
    (3)  ∂C/∂W^ℓ = (δ^ℓ)ᵀ a^{ℓ−1} / N
    (4)  ∂C/∂b^ℓ = Σ_rows δ^ℓ / N

The notation is that of ``network``. Nothing here uses automatic differentiation; ``fnn.verify`` compares each equation
with it. See ``fnn.equations`` for where the source documents print each one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from fnn.activations import Activation
from fnn.batchnorm import norm_pullback, normalise
from fnn.layers import Dense, Params, each
from fnn.losses import Loss
from fnn.masks import Mask, masked
from fnn.network import affine


def output_delta(loss: Loss, activation: Activation, z: Array, a: Array, y: Array) -> Array:
    """(1) δ^L = ∂L/∂a ⊙ σ'(z^L), (B, n_L); fused if the loss matches the output activation."""
    return loss.delta(activation, z, a, y)


def input_gradient(delta: Array, W: Array, mask: Array | None = None) -> Array:
    """(2a) g = ∂/∂a^{ℓ−1} = δ^ℓ W^ℓ, (B, n_in), times the mask of the input units; W includes its arrow mask."""
    return masked(delta @ W, mask)


def hidden_delta(g: Array, activation: Activation, z: Array, a: Array) -> Array:
    """(2b) ∂/∂z^ℓ = g ⊙ σ'(z^ℓ), (B, n_ℓ); where σ is not elementwise, g times its Jacobian."""
    return activation.pullback(g, z, a)


def weight_gradient(delta: Array, a_in: Array, mask: Array | None = None) -> Array:
    """(3) Σ_rows δ ⊗ a_in = δᵀ a_in, (n_out, n_in), times the arrow mask; a_in includes the mask of its units."""
    return masked(delta.T @ a_in, mask)


def bias_gradient(delta: Array) -> Array:
    """(4) Σ_rows δ, (n_out,), because ∂ψ/∂b is the identity."""
    return jnp.sum(delta, axis=0)


class Rules(NamedTuple):
    """The equations as values: examples in rows, sums over the batch, no mean inside a rule.

    ``backprop(..., rules=RULES._replace(hidden_delta=mine))`` runs a custom equation, and ``fnn.verify`` checks it.
    Pass module-level functions: a fresh lambda recompiles.
    """

    affine: Callable = affine  # (a_in, W, b) -> psi
    normalise: Callable = normalise  # (norm, psi) -> z, where the layer has a batch norm
    output_delta: Callable = output_delta  # (loss, activation, z, a, y) -> ∂/∂z^L
    input_gradient: Callable = input_gradient  # (delta, W, mask=None) -> ∂/∂a^{ℓ−1}
    hidden_delta: Callable = hidden_delta  # (g, activation, z, a) -> ∂/∂z^ℓ
    norm_pullback: Callable = norm_pullback  # (norm, psi, delta_z) -> (∂/∂psi, ∂/∂gamma, ∂/∂beta)
    weight_gradient: Callable = weight_gradient  # (delta, a_in, mask=None) -> (n_out, n_in)
    bias_gradient: Callable = bias_gradient  # (delta) -> (n_out,)

    def __repr__(self) -> str:
        changed = [name for name, rule, ours in zip(self._fields, self, RULES) if rule is not ours]
        listed = ", ".join(f"{name}={getattr(getattr(self, name), '__name__', '...')}" for name in changed)
        return f"RULES._replace({listed})" if listed else "RULES"


RULES = Rules()


class Pulled(NamedTuple):
    """The backward pass's results at one layer: δ, ∂/∂z (δ where there is no batch norm), and the gradients."""

    delta: Array
    delta_z: Array
    gradient: Dense


def layer_pullback(rules: Rules, delta_z: Array, layer: Dense, mask: Mask, a_before: Array, psi: Array):
    """From ∂/∂z^ℓ of one layer to ∂/∂a^{ℓ−1}, with the layer's δ and gradients."""
    delta, norm = delta_z, None
    if layer.norm is not None:
        delta, gamma, beta = rules.norm_pullback(layer.norm, psi, delta_z)
        norm = replace(layer.norm, gamma=gamma, beta=beta)
    W = rules.weight_gradient(delta, masked(a_before, mask.units), mask.arrows)  # (3)
    b = rules.bias_gradient(delta)  # (4)
    g = rules.input_gradient(delta, masked(layer.W, mask.arrows), mask.units)  # (2a)
    return g, Pulled(delta, delta_z, replace(layer, W=W, b=b, norm=norm))


def backward_pass(rules: Rules, params: Params, masks: Sequence[Mask], passed: list, delta_z: Array):
    """∂/∂x, and a :class:`Pulled` for every entry of ``params``, from any seed ∂/∂z^L, such as (1).

    passed: returned by ``forward_pass``. All derivatives are of the sum over the examples.
    """

    def hidden(above, layer: Dense, mask: Mask, here):
        # a^ℓ comes from above, not from ``here``, so that a scan keeps one array per layer
        (g, a), (a_before, t) = above, here
        delta_z = rules.hidden_delta(g, layer.activation, t.z, a)  # (2b)
        g, pulled = layer_pullback(rules, delta_z, layer, mask, a_before, t.psi)
        return (g, a_before), pulled

    *below, (layer, mask, (a_before, t)) = zip(params, masks, passed)
    g, pulled = layer_pullback(rules, delta_z, layer, mask, a_before, t.psi)
    above, found = (g, a_before), [pulled]
    for layer, mask, here in reversed(below):
        above, pulled = each(hidden, above, layer, mask, here, reverse=True)
        found.append(pulled)
    return above[0], tuple(reversed(found))
