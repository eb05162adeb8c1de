"""The two kinds of network, layers and graphs, behind one table: for training, which serves both."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from fnn import backward, checks, dropout, graph, network
from fnn.fold import batch_moments, fold, kept_weights
from fnn.graph import arguments, training

AnyParams = TypeVar("AnyParams", bound=network.Params | graph.Network)


class Kind(NamedTuple):
    """The functions of one kind of network; each takes its parameters as ``fnn.forward`` takes those of layers."""

    require: Callable  # (params), raises unless they are of this kind
    arguments: Callable  # (params, x, masks), as compiled functions take them
    forward: Callable
    value_and_backprop: Callable
    probabilities: Callable
    sample_masks: Callable
    kept_weights: Callable
    batch_moments: Callable
    fold: Callable
    has_norm: Callable


LAYERS = Kind(
    checks.layers,
    checks.network_arguments,
    network.forward,
    backward.value_and_backprop,
    dropout.probabilities,
    dropout.sample_masks,
    kept_weights,
    batch_moments,
    fold,
    lambda params: any(layer.norm is not None for layer in params),
)
GRAPH = Kind(
    arguments.network,
    arguments.forward,
    graph.forward,
    graph.value_and_backprop,
    training.probability,
    training.sample_masks,
    training.kept_weights,
    training.batch_moments,
    training.fold,
    lambda params: params.norm is not None,
)


def kind(params: Any) -> Kind:
    """The functions for these parameters."""
    return GRAPH if isinstance(params, graph.Network) else LAYERS
