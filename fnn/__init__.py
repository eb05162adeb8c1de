"""fnn: back-propagation that reads like its derivation, in JAX."""

import importlib as _importlib

from fnn.activations import (
    ELU,
    GELU,
    Activation,
    Gaussian,
    Identity,
    LeakyReLU,
    PiecewiseLinear,
    ReLU,
    ScaledTanh,
    Sigmoid,
    Sign,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
    Threshold,
)
from fnn.backward import RULES, Rules, backprop, deltas, input_gradient, value_and_backprop
from fnn.batchnorm import BatchNorm
from fnn.display import summary
from fnn.dropout import DropConnect, Dropout, Mask, sample_masks
from fnn.explanation import Explanation, explain
from fnn.fold import fold, statistics
from fnn.initializers import glorot_normal, glorot_uniform, he_normal, lecun_normal, standard_normal
from fnn.losses import CrossEntropy, Huber, Loss, Poisson, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError
from fnn.network import Dense, LayerTrace, Stack, forward, init, trace
from fnn.regression import least_squares
from fnn.stacking import stack, unstack

__all__ = [
    "Activation",
    "backprop",
    "BatchNorm",
    "CrossEntropy",
    "deltas",
    "DropConnect",
    "Dropout",
    "Dense",
    "ELU",
    "explain",
    "Explanation",
    "fold",
    "forward",
    "Gaussian",
    "GELU",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "Huber",
    "Identity",
    "init",
    "input_gradient",
    "LayerTrace",
    "LeakyReLU",
    "least_squares",
    "lecun_normal",
    "Loss",
    "Mask",
    "PiecewiseLinear",
    "Poisson",
    "ReLU",
    "Rules",
    "sample_masks",
    "statistics",
    "RULES",
    "ScaledTanh",
    "Sigmoid",
    "SigmoidCrossEntropy",
    "Sign",
    "SiLU",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Softsign",
    "SquaredError",
    "Stack",
    "stack",
    "standard_normal",
    "summary",
    "Tanh",
    "Threshold",
    "trace",
    "unstack",
    "value_and_backprop",
    "checkpoint",
    "curvature",
    "data",
    "graph",
    "implicit",
    "parallel",
    "per_example",
    "train",
    "updates",
    "verify",
]

__version__ = "0.1.0"


def __getattr__(name: str):
    if name in __all__:  # a module, loaded at first use: they need optax and others
        return _importlib.import_module(f"fnn.{name}")
    raise AttributeError(f"module 'fnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
