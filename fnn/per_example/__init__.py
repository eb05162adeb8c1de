"""Per-example gradients from one backward pass: norms, clipping, variances and inner products.

The gradient of one example's loss L_i is the outer product δ_i a_iᵀ with respect to a layer's weights and δ_i with
respect to its biases. For a batch norm with fixed statistics it is δ_z,i x̂_i for γ and δ_z,i for β. ``fnn.deltas`` and
``fnn.trace`` hold these factors for all examples, so that the following needs no array of size batch × parameters:

    ‖g_i‖²        = Σ_ℓ ‖δ_i‖² (‖a_i‖² + 1)            with arrow masks R: Σ_jk δ_ij² R_jk² a_ik² + ‖δ_i‖²
    Σ_i c_i g_i   : (c ⊙ δ)ᵀ a and Σ_i c_i δ_i         clipped: c_i = min(1, C/‖g_i‖)/B
    Σ_i g_i ⊙ g_i : (δ ⊙ δ)ᵀ (a ⊙ a) and Σ_i δ_i ⊙ δ_i the second moment of every entry
    ⟨g_i, g_j⟩    = Σ_ℓ (a_iᵀ a_j + 1) (δ_iᵀ δ_j)      the Gram matrix; the tangent kernel with ∂a^L_o/∂ψ for δ

On a graph (``fnn.graph``), where the arrow l → k has the gradient λ_ik o_il and the bias λ_ik, the first three hold

    ‖g_i‖²        = Σ_k λ_ik² (Σ_{l: l→k} R_kl² o_il² + 1)

with a sum over all arrows for ‖a_i‖² and for each of the products: ``norms``, ``clipped``, ``moments``, ``noise_scale``
and ``gradients`` accept ``fnn.graph.GraphParams``. The fourth does not hold: every neuron has its own inputs, so the
sum over the arrows does not factor, and inner products cost as much as from the full gradients. ``gram`` and ``ntk``
raise TypeError.

Common arguments: params, a tuple of ``Dense`` and ``Stack``, or ``GraphParams``; x: (B, n_0) in the parameters' dtype;
y, loss, masks: as in ``fnn.backprop``. A batch norm with ``gradient="full"`` couples the examples, so that there are no
per-example gradients: ValueError. With "fixed", its γ and β are included, for graphs too. Results for a ``Stack`` have
an axis of layers, like its trace. All functions may be called under jit and vmap.
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

__all__ = [  # as the site lists them
    "norms",
    "Norms",
    "clipped",
    "gradients",
    "moments",
    "GradientMoments",
    "noise_scale",
    "NoiseScale",
    "gram",
    "ntk",
]
