"""The network for inference: dropout's W p and the batch norms' statistics folded into plain layers.

Dropout and batch norm exist in training only. A network with batch norms computes with its mini-batch's own
statistics; for single examples, :func:`statistics` measures those of the population and :func:`fold` gives an
ordinary network of plain ``Dense`` layers, for which ``forward`` needs no mode.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn import checks
from fnn.dropout import DropConnect, Dropout, expected_weights
from fnn.network import Params, trace


class Moments(NamedTuple):
    """Mean and unbiased variance of a layer's ψ over the population, (n,) each; (D, n) of a ``Stack``."""

    mean: Array
    variance: Array


def statistics(
    params: Params, batches: Iterable[Array], dropout: Dropout | DropConnect | None = None
) -> tuple[Moments | None, ...]:
    """Population statistics of ψ for every layer with a batch norm, None for the others, in one pass.

    The mean of the mini-batches' means, and m/(m − 1) times the mean of their biased variances (Ioffe and
    Szegedy 2015, algorithm 2), of the network that is used at test time: with W p for W where there was dropout
    (the statistics of the raw W are others), and every layer in training mode.

    batches: mini-batches x (m, n_0), m ≥ 2, at least one. Raises TypeError or ValueError that names the argument.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), batch_norm="full")
    >>> batches = jax.random.normal(jax.random.key(1), (10, 8, 3))
    >>> fnn.forward(fnn.fold(params, fnn.statistics(params, batches)), jnp.ones(3)).shape
    (2,)
    """
    checks.layers(params)
    kept = kept_weights(params, dropout)
    return mean_over(batches, lambda x: batch_moments(kept, checks.network_arguments(kept, x, None)[1]))


def mean_over(batches: Iterable[Array], function: Callable):
    """The mean of a function's pytrees over the mini-batches, of which there must be one."""
    total, count = None, 0
    for x in batches:
        result = function(x)
        total, count = result if total is None else jax.tree.map(jnp.add, total, result), count + 1
    if total is None:
        raise ValueError("batches: expected at least one mini-batch x of shape (m, n_0), got none")
    return jax.tree.map(lambda leaf: leaf / count, total)


@jax.jit
def batch_moments(params: Params, x: Array) -> tuple[Moments | None, ...]:
    """The mean and the unbiased variance of ψ over one mini-batch, two-pass, for the layers with a batch norm."""
    moments: list[Moments | None] = []
    for layer, t in zip(params, trace(params, x)):
        if layer.norm is None:
            moments.append(None)
            continue
        mean = jnp.mean(t.psi, axis=-2, keepdims=True)
        moments.append(Moments(mean[..., 0, :], jnp.sum((t.psi - mean) ** 2, axis=-2) / (len(x) - 1)))
    return tuple(moments)


def fold(
    params: Params,
    statistics: Sequence[Moments | None] | None = None,
    dropout: Dropout | DropConnect | None = None,
) -> Params:
    """An ordinary network that computes what ``params`` computes at test time.

    dropout: what the network was trained with; W p takes the place of W (S5), or W stays where it was inverted. This
    is the mean over the masks for one layer, and an approximation for several. statistics: of
    :func:`statistics`, needed where there is a batch norm: W' = γ/√(ν + ε) W and b' = γ/√(ν + ε) (b − μ) + β.
    Raises TypeError or ValueError that names the argument.
    """
    checks.layers(params)
    if statistics is not None and len(statistics) != len(params):
        raise ValueError(f"statistics: expected one entry per layer, {len(params)}, got {len(statistics)}")
    layers = []
    for i, layer in enumerate(kept_weights(params, dropout)):
        W, b = layer.W, layer.b
        if layer.norm is not None:
            moments = None if statistics is None else statistics[i]
            if moments is None:
                raise ValueError(
                    f"statistics: params[{i}] has a batch norm and needs its statistics; "
                    "write fold(params, fnn.statistics(params, batches))"
                )
            scale = layer.norm.gamma / jnp.sqrt(moments.variance + layer.norm.eps)
            W, b = scale[..., None] * W, scale * (b - moments.mean) + layer.norm.beta
        layers.append(replace(layer, W=W, b=b, norm=None))
    return tuple(layers)


def kept_weights(params: Params, dropout: Dropout | DropConnect | None) -> Params:
    """The same layers with W p for W, where that is the convention."""
    return tuple(replace(layer, W=W) for layer, W in zip(params, expected_weights(params, dropout)))
