"""implicit: implicit SGD, θ' = θ − η ∇L(θ'), with the gradient taken at the end of the step.

θ' minimises η L(θ') + ½‖θ' − θ‖², hence "proximal": a large η cannot throw it past the minimum of L. For one layer with
examples x̃ = (x, 1), bias included, and outputs ψ = θᵀx̃, the gradient is a multiple of x̃, so θ' = θ + α x̃ with only
one unknown number α per output and example:

    ``linear``              squared error: a linear system, solved for the whole batch
    ``generalized_linear``  cross-entropies and Poisson: one scalar equation per example
    ``layerwise``           a network: a proximal step for every unit, with ∂L/∂a held fixed (Fagan and Iyengar 2018)
    ``step``                a smooth network: θ' for all layers at once, by Newton–CG; may raise ``NotConverged``

>>> import jax, jax.numpy as jnp, fnn
>>> params = fnn.init(jax.random.key(0), (3, 1))
>>> x, y = jnp.array([1.0, 2.0, 3.0]), jnp.array([5.0])
>>> [round(fnn.forward(fnn.implicit.linear(params, x, y, rate), x).item(), 3) for rate in (1e2, 1e4, 1e6)]
[4.997, 5.0, 5.0]
"""

from fnn.implicit.generalized import generalized_linear
from fnn.implicit.layerwise import layerwise
from fnn.implicit.linear import linear
from fnn.implicit.step import NotConverged, step

__all__ = ["step", "layerwise", "linear", "generalized_linear", "NotConverged"]  # as the site lists them
