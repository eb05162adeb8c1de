"""Dropout and batch norm of a graph: masks in training, and the network for inference. By the rules of layers."""

from collections.abc import Iterable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from fnn.checks import describe, prng_key
from fnn.dropout import DropConnect, Dropout, Mask, kept, require_dropout, require_probability
from fnn.fold import Moments, mean_over
from fnn.graph import arguments
from fnn.graph.graph import Network
from fnn.graph.passes import trace
from fnn.numbers import whole


def probability(dropout: Dropout | DropConnect, params: Network) -> Array:
    """The probability to keep, one per arrow (DropConnect) or per neuron (Dropout).

    As in layers, a single number leaves the network's own inputs and the arrows out of them whole.
    """
    arguments.network(params)
    require_dropout(dropout)
    neurons = isinstance(dropout, Dropout)
    shape = (len(params.graph),) if neurons else params.weights.shape
    if isinstance(dropout.keep, (tuple, list)) or dropout.keep is None:
        what = "neuron" if neurons else "arrow"
        raise TypeError(f"keep: expected a number or an array {shape}, one per {what}, got {dropout.keep!r:.60}")
    require_probability("keep", dropout.keep, dropout, shape)
    keep = jnp.asarray(dropout.keep, params.weights.dtype)
    of_input = params.graph.generation == 0
    of_input = of_input if neurons else of_input[params.graph.arrows[:, 0]]
    return jnp.where(of_input, 1, keep) if keep.ndim == 0 else keep


def sample_masks(key: Array, params: Network, dropout: Dropout | DropConnect, batch: int) -> Mask:
    """A ``fnn.Mask`` for the network: of the arrows (S4), r_kl with a p_kl of its own for every arrow; or of units.

    dropout: ``fnn.DropConnect(keep)``, keep an array (M,) in the order of ``graph.arrows``, or a number, for every
    arrow that does not leave an input; or ``fnn.Dropout(keep)``, keep an array (N,), or a number, for every neuron
    that is no input. What is dropped of a neuron is what its receivers see, not the network's output. The same
    key gives the same mask.
    """
    prng_key(key)
    batch = whole("batch", batch)
    keep, dtype = probability(dropout, params), params.weights.dtype
    if isinstance(dropout, DropConnect):
        return Mask(arrows=kept(key, keep, params.weights.shape, dtype, dropout.inverted))
    shape = (batch if dropout.per_example else 1, len(params.graph))
    return Mask(units=kept(key, keep, shape, dtype, dropout.inverted))


def kept_weights(params: Network, dropout: Dropout | DropConnect | None) -> Network:
    """The same network with w p for w (S5, 14), p of the arrow or of its source; w where it is inverted."""
    if dropout is None:
        return params
    keep = probability(dropout, params)
    if dropout.inverted:
        return params
    of_arrow = keep[params.graph.arrows[:, 0]] if isinstance(dropout, Dropout) else keep
    return replace(params, weights=params.weights * of_arrow)


def statistics(params: Network, batches: Iterable[Array], dropout: Dropout | DropConnect | None = None) -> Moments:
    """Population statistics of every neuron's ψ, (N,), as ``fnn.statistics`` measures those of layers.

    batches: mini-batches x (m, n_0), m ≥ 2, at least one.
    """
    arguments.network(params)
    params = kept_weights(params, dropout)
    return mean_over(batches, lambda x: batch_moments(params, arguments.forward(params, x, None)[1]))


@jax.jit
def batch_moments(params: Network, x: Array) -> Moments:
    """The mean and the unbiased variance of every neuron's ψ over one mini-batch, two-pass."""
    psi = trace(params, x).psi
    mean = jnp.mean(psi, axis=0)
    return Moments(mean, jnp.sum((psi - mean) ** 2, axis=0) / (len(x) - 1))


def fold(params: Network, statistics: Moments | None = None, dropout: Dropout | DropConnect | None = None) -> Network:
    """The network for inference, without dropout and batch norm; as ``fnn.fold`` for layers.

    w p takes the place of w (S5), or w stays where dropout was inverted; with s_k = γ_k/√(ν_k + ε) of the
    receiving neuron, w' = s_k w and b' = s_k (b − μ_k) + β_k. statistics: of :func:`statistics`, needed
    where there is a batch norm.
    """
    arguments.network(params)
    graph, norm = params.graph, params.norm
    params = kept_weights(params, dropout)
    if norm is None:
        return params
    if statistics is None:
        raise ValueError(
            "statistics: params has a batch norm and needs its statistics; "
            "write fold(params, fnn.graph.statistics(params, batches))"
        )
    if not isinstance(statistics, Moments) or statistics.mean.shape != params.biases.shape:
        raise TypeError(
            f"statistics: expected a mean and a variance ({len(graph)},) per neuron, got {describe(statistics)}; "
            "write fnn.graph.statistics(params, batches)"
        )
    normed = graph.hidden
    scale = jnp.where(normed, norm.gamma / jnp.sqrt(statistics.variance + norm.eps), 1)
    biases = jnp.where(normed, scale * (params.biases - statistics.mean) + norm.beta, params.biases)
    return Network(params.weights * scale[graph.arrows[:, 1]], biases, graph)
