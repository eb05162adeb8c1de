"""Layers for inference: W p instead of W, and the batch-norm statistics folded into W and b."""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.batchnorm import NormStatistics, psi_statistics
from fnn.checks.arrays import describe
from fnn.dropout import DropConnect, Dropout, expected_weights
from fnn.layers import Params
from fnn.masks import Mask
from fnn.network import forward_pass


def norm_statistics(params: Params, x: Array, masks: Sequence[Mask]) -> tuple[NormStatistics | None, ...]:
    """The statistics of every layer with a batch norm, for one mini-batch x (m, n_0)."""
    _, passed = forward_pass(RULES, params, x, masks)
    return tuple(None if layer.norm is None else psi_statistics(t.psi) for layer, (_, t) in zip(params, passed))


def kept_weights(params: Params, dropout: Dropout | DropConnect | None) -> Params:
    """The same layers with W p instead of W, where the convention calls for it."""
    return tuple(replace(layer, W=W) for layer, W in zip(params, expected_weights(params, dropout)))


def fold_layers(
    params: Params, statistics: Sequence[NormStatistics | None] | None, dropout: Dropout | DropConnect | None
) -> Params:
    """W' = γ/√(ν + ε) W and b' = γ/√(ν + ε) (b − μ) + β for a batch norm, with W p instead of W."""
    if statistics is not None and not isinstance(statistics, (tuple, list)):
        raise TypeError(
            f"statistics: expected a tuple with one entry per layer, got {describe(statistics)}; write "
            "statistics=fnn.statistics(params, batches)"
        )
    if statistics is not None and len(statistics) != len(params):
        raise ValueError(f"statistics: expected one entry per layer, {len(params)}, got {len(statistics)}")
    layers = []
    for i, layer in enumerate(kept_weights(params, dropout)):
        W, b = layer.W, layer.b
        if layer.norm is not None:
            moments = None if statistics is None else statistics[i]
            if not isinstance(moments, NormStatistics):
                raise ValueError(
                    f"statistics: params[{i}] has a batch norm and needs its statistics; "
                    "write fnn.fold(params, statistics=fnn.statistics(params, batches))"
                )
            scale = layer.norm.gamma / jnp.sqrt(moments.variance + layer.norm.eps)
            W, b = scale[..., None] * W, scale * (b - moments.mean) + layer.norm.beta
        layers.append(replace(layer, W=W, b=b, norm=None))
    return tuple(layers)
