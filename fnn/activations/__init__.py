"""Activations: a = σ(z), its derivatives written by hand, and the pull-back g ⊙ σ'(z).

An activation is a frozen dataclass, compared and hashed by value: a function compiled for ``Sigmoid(beta=1.0)`` serves
every ``Sigmoid(beta=1.0)``. Its methods take and return arrays of one shape ``(..., n)`` and one floating dtype:

    value(z) -> a                       the activation
    derivative(z, a) -> σ'(z)           by hand; a is passed because it is often all that is needed
    pullback(g, z, a) -> g ⊙ σ'(z)
    second_derivative(z, a) -> σ''(z)   used only by ``fnn.curvature``

``z`` is the weighted input, ``a = value(z)`` and ``g = ∂L/∂a``. Values and derivatives are finite for |z| up to 1e4.
``value`` propagates NaN.
"""

from fnn.activations.base import Activation
from fnn.activations.kinked import LeakyReLU, PiecewiseLinear, ReLU, Sign, Threshold
from fnn.activations.per_neuron import PerNeuron
from fnn.activations.smooth import (
    ELU,
    GELU,
    Gaussian,
    Identity,
    ScaledTanh,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)

__all__ = [
    "Activation",
    "Identity",
    "Sigmoid",
    "Tanh",
    "ScaledTanh",
    "Softsign",
    "ELU",
    "Softplus",
    "SiLU",
    "GELU",
    "Gaussian",
    "Softmax",
    "PerNeuron",
    "ReLU",
    "LeakyReLU",
    "PiecewiseLinear",
    "Threshold",
    "Sign",
]
