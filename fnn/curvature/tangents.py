"""Pearlmutter's R-operator: the change of every equation along a direction in the parameters.

R{f} is the derivative of f along v = (V, c) at the parameters (W, b), of every quantity of both passes. With ψ = z
where no batch norm is:

    forward                                      backward
    R{a⁰} = 0                                    R{δ^L} = (∂²L/∂a² R{a}) ⊙ σ'(z) + ∂L/∂a ⊙ σ''(z) ⊙ R{z}
    R{ψ^ℓ} = R{a^{ℓ−1}} Wᵀ + a^{ℓ−1} Vᵀ + c      R{g} = R{δ^{ℓ+1}} W + δ^{ℓ+1} V
    R{a^ℓ} = σ'(z^ℓ) ⊙ R{z^ℓ}                    R{δ^ℓ} = R{g} ⊙ σ'(z^ℓ) + g ⊙ σ''(z^ℓ) ⊙ R{z^ℓ}
                                                 R{∂C/∂W} = R{δ}ᵀ a + δᵀ R{a},   R{∂C/∂b} = Σ_rows R{δ}

R{∂C/∂θ} is the Hessian times v. Each line on the right is the change of one of the equations (1) to (4).
Source: Pearlmutter 1994, *Fast exact multiplication by the Hessian*. No automatic differentiation here either:
``verify.curvature`` compares each line with it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from fnn.activations import Activation
from fnn.backward import bias_gradient
from fnn.batchnorm import norm_pullback_tangent, normalise_tangent
from fnn.kinds import Outputs
from fnn.losses import Loss
from fnn.masks import masked


def psi_tangent(a_in: Array, da_in: Array | None, W: Array, V: Array, c: Array) -> Array:
    """R{ψ} = R{a_in} Wᵀ + a_in Vᵀ + c, (B, n_out); the masks are in a_in, R{a_in}, W and V.

    R{a_in} is None in the first layer, where it is 0: this saves a product, as automatic differentiation does.
    """
    by_own = a_in @ V.T + c
    return by_own if da_in is None else da_in @ W.T + by_own


def activation_tangent(dz: Array, activation: Activation, z: Array, a: Array) -> Array:
    """R{a} = σ'(z) ⊙ R{z}, (B, n)."""
    return activation.pushforward(dz, z, a)


def output_delta_tangent(
    loss: Loss, activation: Activation, z: Array, a: Array, y: Array, dz: Array, da: Array
) -> Array:
    """Of (1): R{δ^L} = (∂²L/∂a² R{a}) ⊙ σ'(z) + ∂L/∂a ⊙ σ''(z) ⊙ R{z}, (B, n_L)."""
    return loss.delta_tangent(activation, z, a, y, dz, da)


def input_gradient_tangent(delta: Array, d_delta: Array, W: Array, V: Array, mask: Array | None = None) -> Array:
    """Of (2a): R{g} = R{δ} W + δ V, (B, n_in); arrow masks are in W and V, ``mask`` is the input units'."""
    return masked(d_delta @ W + delta @ V, mask)


def hidden_delta_tangent(g: Array, dg: Array, activation: Activation, z: Array, a: Array, dz: Array) -> Array:
    """Of (2b): R{δ} = R{g} ⊙ σ'(z) + g ⊙ σ''(z) ⊙ R{z}, (B, n)."""
    return activation.pullback(dg, z, a) + activation.pullback_tangent(g, z, a, dz)


def weight_gradient_tangent(
    delta: Array, d_delta: Array, a_in: Array, da_in: Array | None, mask: Array | None = None
) -> Array:
    """Of (3): R{δ}ᵀ a_in + δᵀ R{a_in}, (n_out, n_in), times the arrow mask; R{a_in} is None in the first layer."""
    by_delta = d_delta.T @ a_in
    return masked(by_delta if da_in is None else by_delta + delta.T @ da_in, mask)


class TangentRules(NamedTuple):
    """The lines of the R-operator as values, as ``fnn.Rules`` holds those of back-propagation."""

    psi: Callable = psi_tangent  # (a_in, da_in, W, V, c) -> R{psi}
    normalise: Callable = normalise_tangent  # (norm, along, psi, dpsi) -> R{z}
    activation: Callable = activation_tangent  # (dz, activation, z, a) -> R{a}
    output_delta: Callable = output_delta_tangent  # (loss, activation, z, a, y, dz, da) -> R{∂/∂z^L}
    hidden_delta: Callable = hidden_delta_tangent  # (g, dg, activation, z, a, dz) -> R{∂/∂z}
    norm_pullback: Callable = norm_pullback_tangent  # (norm, along, psi, dpsi, delta_z, d_delta_z) -> three
    weight_gradient: Callable = weight_gradient_tangent  # (delta, d_delta, a_in, da_in, mask=None) -> (n_out, n_in)
    bias_gradient: Callable = bias_gradient  # (d_delta) -> (n_out,); linear, and so its own tangent
    input_gradient: Callable = input_gradient_tangent  # (delta, d_delta, W, V, mask=None) -> R{g}


TANGENTS = TangentRules()


class Tangents(NamedTuple):
    """The forward pass and its change along v, for either kind of network."""

    outputs: Outputs
    dz: Array  # R{z} and R{a} of the outputs, (B, n_L)
    da: Array
    passed: Any  # the changes that the backward pass reads
