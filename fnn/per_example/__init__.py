"""What one backward pass says of every example: norms, clipping, variances and inner products of their gradients.

The gradient of one example's loss L_i by a layer's weights is the outer product δ_i a_iᵀ, by its biases δ_i, and with a
batch norm whose statistics are fixed (S7) δ_z,i x̂_i by γ and δ_z,i by β. ``fnn.deltas`` and ``fnn.trace`` hold these
factors of all examples, so that what follows needs no array of size batch × parameters:

    ‖g_i‖²        = Σ_ℓ ‖δ_i‖² (‖a_i‖² + 1)            with arrow masks R: Σ_jk δ_ij² R_jk² a_ik² + ‖δ_i‖²
    Σ_i c_i g_i   : (c ⊙ δ)ᵀ a and Σ_i c_i δ_i         clipped: c_i = min(1, C/‖g_i‖)/B
    Σ_i g_i ⊙ g_i : (δ ⊙ δ)ᵀ (a ⊙ a) and Σ_i δ_i ⊙ δ_i the second moment of every entry
    ⟨g_i, g_j⟩    = Σ_ℓ (a_iᵀ a_j + 1) (δ_iᵀ δ_j)      the Gram matrix; the tangent kernel with ∂a^L_o/∂ψ for δ

On a graph (``fnn.graph``), where the arrow l → k has the gradient λ_ik o_il and the bias λ_ik, the first three hold

    ‖g_i‖²        = Σ_k λ_ik² (Σ_{l: l→k} R_kl² o_il² + 1)

with a sum over all arrows for ‖a_i‖² and for each of the products: ``norms``, ``clipped``, ``moments``, ``noise_scale``
and ``gradients`` take ``fnn.graph.GraphParams``. The fourth does not hold: every neuron has its own inputs, the sum
over the arrows is no product of two sums, and with them in full it costs as much as with the gradients themselves:
``gram`` and ``ntk`` raise TypeError.

Everywhere: params, a tuple of ``Dense`` and ``Stack``, or ``GraphParams``; x: (B, n_0) in the parameters' dtype; y,
loss, masks: as in ``fnn.backprop``. A batch norm with ``gradient="full"`` ties the examples
together, and none has a gradient of its own: ValueError; with "fixed" its γ and β count, in graphs too. What belongs to
a ``Stack`` has an axis of layers, as its trace has. All may be called under jit and vmap.
"""

from fnn.per_example.gradients import (
    GradientMoments,
    NoiseScale,
    Norms,
    clipped,
    gradients,
    moments,
    noise_scale,
    norms,
)
from fnn.per_example.kernels import gram, ntk

__all__ = [
    "GradientMoments",
    "NoiseScale",
    "Norms",
    "clipped",
    "gradients",
    "gram",
    "moments",
    "noise_scale",
    "norms",
    "ntk",
]
