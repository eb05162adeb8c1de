"""Curvature from the δ's: Hessian-vector products, and matrices that approximate the Hessian.

    hvp                    H v, by Pearlmutter's R-operator: the change of every line of back-propagation along v
    gauss_newton_vp        G v, with G = Σ_n Jᵀ (∂²L/∂a²) J
    gauss_newton_diagonal  diag G, exactly: Σ_n (Σ_op H_op J_o ⊙ J_p)
    fisher_diagonal        E[g ⊙ g] over the examples, with the targets given or drawn from the network's own p(y | x)
    kfac_factors           per layer A = E[ā āᵀ] and G = E[δ δᵀ], whose Kronecker product approximates the Fisher matrix
    hessian_trace          tr H by Hutchinson's random ±1 directions, with the standard error

Everywhere: params, a tuple of ``Dense`` and ``Stack``, or a ``fnn.graph.GraphParams``; x: (B, n_0) in the parameters'
dtype; y, loss, masks: as in ``fnn.backprop``; reduction: "mean" or "sum" over the examples.
Results are pytrees like ``params``, or have one entry for each of theirs; what belongs to a ``Stack`` has an axis of
layers. All may be called under jit and vmap. A custom activation or loss needs ``second_derivative`` and
``hessian``. At a kink, σ'' has its value on either side.

On a graph, every line of the R-operator applies to each neuron, with sums over its arrows instead of products with W
and V; ``hessian_trace`` returns an estimate for every neuron. Only ``kfac_factors`` does not accept a graph and raises
TypeError, because A = E[ā āᵀ] requires neurons that share their inputs.

Functions of per-example gradients (the diagonals and the factors) refuse a batch norm with ``gradient="full"``. Raises
TypeError or ValueError that names the argument.
"""

from fnn.curvature.factors import KroneckerFactors, fisher_diagonal, gauss_newton_diagonal, kfac_factors
from fnn.curvature.hutchinson import Estimate, HessianTrace, hessian_trace
from fnn.curvature.products import gauss_newton_vp, hvp
from fnn.curvature.tangents import TANGENTS, TangentRules

__all__ = [  # as the site lists them
    "hvp",
    "gauss_newton_vp",
    "kfac_factors",
    "KroneckerFactors",
    "fisher_diagonal",
    "gauss_newton_diagonal",
    "hessian_trace",
    "HessianTrace",
    "Estimate",
    "TangentRules",
    "TANGENTS",
]
