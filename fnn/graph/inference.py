"""Dropout and batch norm for graphs, as for layers: masks in training, and the network for inference."""

from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.batchnorm import NormStatistics, psi_statistics
from fnn.checks.arrays import describe
from fnn.dropout import DropConnect, Dropout, kept, require_dropout, require_probability
from fnn.graph.given import Given
from fnn.graph.graph import GraphParams
from fnn.graph.passes import trace
from fnn.masks import Mask


def probability(dropout: Dropout | DropConnect, params: GraphParams) -> Array:
    """The keep probabilities, one per arrow (DropConnect) or per neuron (Dropout).

    A single number is for every arrow, or for every neuron but the network's inputs.
    """
    require_dropout(dropout)
    neurons = isinstance(dropout, Dropout)
    shape = (len(params.graph),) if neurons else params.weights.shape
    if isinstance(dropout.keep, (tuple, list)) or dropout.keep is None:
        what = "neuron" if neurons else "arrow"
        raise TypeError(f"keep: expected a number or an array {shape}, one per {what}, got {dropout.keep!r:.60}")
    require_probability("keep", dropout.keep, dropout, shape)
    keep = jnp.asarray(dropout.keep, params.weights.dtype)
    if keep.ndim == 1:
        return keep
    return jnp.where(params.graph.generation == 0, 1, keep) if neurons else jnp.broadcast_to(keep, shape)


def sample_masks(key: Array, params: GraphParams, dropout: Dropout | DropConnect, batch: int) -> Mask:
    """A ``fnn.Mask`` of the arrows, r_kl with its own p_kl for every arrow, or of the units."""
    keep, dtype = probability(dropout, params), params.weights.dtype
    if isinstance(dropout, DropConnect):
        return Mask(arrows=kept(key, keep, params.weights.shape, dtype, dropout.inverted))
    shape = (batch if dropout.per_example else 1, len(params.graph))
    return Mask(units=kept(key, keep, shape, dtype, dropout.inverted))


def kept_weights(params: GraphParams, dropout: Dropout | DropConnect | None) -> GraphParams:
    """The same network with w p instead of w, where p belongs to the arrow or its source; unchanged if inverted."""
    if dropout is None:
        return params
    keep = probability(dropout, params)
    if dropout.inverted:
        return params
    of_arrow = keep[params.graph.arrows[:, 0]] if isinstance(dropout, Dropout) else keep
    return replace(params, weights=params.weights * of_arrow)


def norm_statistics(params: GraphParams, x: Array, masks: Given) -> NormStatistics:
    """The mean and the unbiased variance of every neuron's ψ over one mini-batch."""
    return psi_statistics(trace(RULES, params, x, masks).psi)


def fold(
    params: GraphParams, statistics: NormStatistics | None = None, dropout: Dropout | DropConnect | None = None
) -> GraphParams:
    """The network for inference, without dropout and batch norm, like ``fnn.fold`` for layers.

    w p replaces w, unless dropout was inverted. With s_k = γ_k/√(ν_k + ε) of the receiving neuron, w' = s_k w and
    b' = s_k (b − μ_k) + β_k. statistics: from :func:`fnn.statistics`, required if there is a batch norm.
    """
    graph, norm = params.graph, params.norm
    params = kept_weights(params, dropout)
    if norm is None:
        return params
    if statistics is None:
        raise ValueError(
            "statistics: params has a batch norm and needs its statistics; "
            "write fnn.fold(params, statistics=fnn.statistics(params, batches))"
        )
    if not isinstance(statistics, NormStatistics) or statistics.mean.shape != params.biases.shape:
        raise TypeError(
            f"statistics: expected a mean and a variance ({len(graph)},) per neuron, got {describe(statistics)}; "
            "write fnn.statistics(params, batches)"
        )
    normed = graph.normed
    scale = jnp.where(normed, norm.gamma / jnp.sqrt(statistics.variance + norm.eps), 1)
    biases = jnp.where(normed, scale * (params.biases - statistics.mean) + norm.beta, params.biases)
    return GraphParams(params.weights * scale[graph.arrows[:, 1]], biases, graph)
