"""fnn: back-propagation that reads like its derivation, in JAX."""

import importlib as _importlib
import typing as _typing

from fnn import export as _export  # noqa: F401, registers the parameters
from fnn.activations import (
    ELU,
    GELU,
    Activation,
    Gaussian,
    Identity,
    LeakyReLU,
    PerNeuron,
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
from fnn.backward import RULES, Rules
from fnn.batchnorm import BatchNorm
from fnn.dropout import DropConnect, Dropout
from fnn.explanation import Explanation, explain
from fnn.functions import (
    backprop,
    deltas,
    forward,
    input_gradient,
    pullback,
    sample_masks,
    trace,
    value_and_backprop,
)
from fnn.inference import fold, statistics
from fnn.initializers import init
from fnn.kinds import is_weight
from fnn.layers import Dense, LayerTrace, Stack
from fnn.losses import (
    CrossEntropy,
    Huber,
    Loss,
    Poisson,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
    SquaredError,
    Weighted,
)
from fnn.masks import Mask
from fnn.precision import BFLOAT16
from fnn.stacking import stack, unstack
from fnn.summary import summary
from fnn.version import VERSION as __version__  # noqa: F401

if _typing.TYPE_CHECKING:  # loaded at first use
    from fnn import (
        checkpoint,
        convert,
        curvature,
        data,
        exercises,
        graph,
        implicit,
        initializers,
        parallel,
        per_example,
        regression,
        sklearn,
        train,
        updates,
        verify,
    )

__all__ = [
    "Activation",
    "backprop",
    "BFLOAT16",
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
    "Huber",
    "Identity",
    "init",
    "input_gradient",
    "is_weight",
    "LayerTrace",
    "LeakyReLU",
    "Loss",
    "Mask",
    "PerNeuron",
    "PiecewiseLinear",
    "Poisson",
    "ReLU",
    "pullback",
    "Rules",
    "RULES",
    "sample_masks",
    "statistics",
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
    "summary",
    "Tanh",
    "Threshold",
    "trace",
    "unstack",
    "value_and_backprop",
    "Weighted",
    "checkpoint",
    "convert",
    "curvature",
    "data",
    "exercises",
    "graph",
    "initializers",
    "implicit",
    "parallel",
    "per_example",
    "regression",
    "sklearn",
    "train",
    "updates",
    "verify",
]


if not _typing.TYPE_CHECKING:

    def __getattr__(name: str):
        if name in __all__:  # modules are loaded at first use, because some need optax and others
            return _importlib.import_module(f"fnn.{name}")
        raise AttributeError(f"module 'fnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
