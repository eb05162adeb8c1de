"""The forward pass of a network of layers.

x = a⁰          (n_0,) or (B, n_0)    input; B examples in rows
W^ℓ             (n_ℓ, n_{ℓ−1})        weights, one row per receiving neuron
b^ℓ             (n_ℓ,)                bias
ψ^ℓ = W^ℓ a^{ℓ−1} + b^ℓ   (B, n_ℓ)    weighted input, before batch norm
z^ℓ             (B, n_ℓ)              what σ receives: ψ, or ψ̂ where the layer has a batch norm
a^ℓ = σ(z^ℓ)    (B, n_ℓ)              activation
δ^ℓ = ∂(Σ_n L_n)/∂ψ^ℓ     (B, n_ℓ)    for the sum over the examples; see ``backward``

These are pure passes over checked arguments. The public functions ``fnn.forward`` and ``fnn.trace``, in ``functions``,
check them and call these.
"""

from collections.abc import Sequence

from jax import Array

from fnn.layers import Dense, LayerTrace, Params, each
from fnn.masks import Mask, masked


def affine(a_in: Array, W: Array, b: Array) -> Array:
    """ψ = a_in Wᵀ + b, (B, n_out); a_in and W include their masks. Only b broadcasts."""
    return a_in @ W.T + b


def layer_forward(rules, a: Array, layer: Dense, mask: Mask) -> tuple[Array, tuple[Array, LayerTrace]]:
    """a^ℓ from a^{ℓ−1} and, for the backward pass, a^{ℓ−1} with the layer's trace."""
    a_in = masked(a, mask.units)
    psi = rules.affine(a_in, masked(layer.W, mask.arrows), layer.b)
    z = psi if layer.norm is None else rules.normalise(layer.norm, psi)
    out = layer.activation.value(z)
    return out, (a, LayerTrace(a_in, psi, z, out))


def forward_pass(rules, params: Params, x: Array, masks: Sequence[Mask]) -> tuple[Array, list]:
    """a^L (B, n_L) from x (B, n_0), and a^{ℓ−1} with the trace for every entry of ``params``."""
    a, passed = x, []
    for layer, mask in zip(params, masks):
        a, here = each(lambda a, *at: layer_forward(rules, a, *at), a, layer, mask)
        passed.append(here)
    return a, passed
