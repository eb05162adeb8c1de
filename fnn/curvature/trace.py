"""The trace of the Hessian, estimated; see ``fnn.curvature``."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn import checks
from fnn.curvature.products import arguments, hvp
from fnn.losses import Loss, SquaredError
from fnn.network import Masks, Params
from fnn.numbers import whole


class Estimate(NamedTuple):
    """A mean over random directions, and its standard error; scalars, or (D,) of a stack."""

    value: Array
    standard_error: Array


class HessianTrace(NamedTuple):
    """The trace of the whole Hessian, and of each entry's own block on its diagonal."""

    total: Estimate
    layers: tuple[Estimate, ...]


def hessian_trace(
    params: Params,
    x: Array,
    y: Array,
    key: Array,
    *,
    samples: int = 100,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Masks = None,
) -> HessianTrace:
    """tr H of the loss by Hutchinson: the mean of vᵀ H v over random v of ±1, without bias, and its standard error.

    key: for the directions; samples: how many, ≥ 2; one :func:`hvp` each, one after the other, so that memory does not
    grow with them. Other arguments and errors: see ``fnn.curvature``.
    Source: Hutchinson 1990, *A stochastic estimator of the trace of the influence matrix*.
    """
    params, x, y, _, masks = arguments(params, x, y, params, loss, reduction, masks)
    checks.prng_key(key)
    if (samples := whole("samples", samples)) < 2:
        raise ValueError(f"samples: expected at least 2, for one has no standard error, got {samples}")
    return _hessian_trace(params, x, y, masks, key, samples=samples, loss=loss, reduction=reduction)


@partial(jax.jit, static_argnames=("samples", "loss", "reduction"))
def _hessian_trace(params, x, y, masks, key, *, samples, loss, reduction):
    leaves, structure = jax.tree.flatten(params)

    def products(i):
        """vᵀ (H v) over each layer's own parameters, for one random v."""
        keys = jax.random.split(jax.random.fold_in(key, i), len(leaves))
        drawn = [jax.random.rademacher(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves)]
        v = jax.tree.unflatten(structure, drawn)
        Hv = hvp(params, x, y, v, loss=loss, reduction=reduction, masks=masks)

        def of_layer(layer, of_v, of_Hv):
            pairs = zip(jax.tree.leaves(of_v), jax.tree.leaves(of_Hv))
            return sum(jnp.sum(a * b, axis=tuple(range(layer.stacked, a.ndim))) for a, b in pairs)

        return tuple(map(of_layer, params, v, Hv))

    layers = jax.lax.map(products, jnp.arange(samples))
    total = sum(jnp.sum(of.reshape(samples, -1), axis=1) for of in layers)

    def estimate(values):
        return Estimate(values.mean(axis=0), values.std(axis=0, ddof=1) / samples**0.5)

    return HessianTrace(estimate(total), tuple(map(estimate, layers)))
