"""The trace of the Hessian, estimated; see ``fnn.curvature``."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.checks import arrays
from fnn.checks.arrays import AnyArray
from fnn.curvature.products import given_direction, hessian_product, passes
from fnn.curvature.tangents import TANGENTS
from fnn.kinds import AnyParams
from fnn.losses import Loss, SquaredError
from fnn.numbers import whole


class Estimate(NamedTuple):
    """A mean over random directions, and its standard error; scalars, (D,) of a stack, (N,) of a graph's neurons."""

    value: Array
    standard_error: Array


class HessianTrace(NamedTuple):
    """The trace of the whole Hessian, and of the diagonal block of each entry of ``params``.

    For a graph, ``layers`` is one estimate, (N,), by neuron in the order of ``graph.neurons``: its bias, the weights of
    the arrows into it, γ and β; 0 for an input.
    """

    total: Estimate
    layers: tuple[Estimate, ...] | Estimate


def hessian_trace(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    *,
    key: Array,
    samples: int = 100,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks=None,
) -> HessianTrace:
    """Hutchinson's unbiased estimate of tr H: the mean of vᵀ H v over random v of ±1, with its standard error.

    key: draws the directions. samples: their number, ≥ 2; each takes one :func:`hvp`, in sequence, so memory does not
    grow. Other arguments and errors: see ``fnn.curvature``.
    Source: Hutchinson 1990, *A stochastic estimator of the trace of the influence matrix*.
    """
    params, x, y, _, masks = given_direction(params, x, y, params, loss, reduction, masks)
    arrays.prng_key(key)
    if (samples := whole("samples", samples)) < 2:
        raise ValueError(f"samples: expected at least 2, because one has no standard error, got {samples}")
    return _hessian_trace(params, x, y, masks, key, samples=samples, loss=loss, reduction=reduction)


@partial(jax.jit, static_argnames=("samples", "loss", "reduction"))
def _hessian_trace(params, x, y, masks, key, *, samples, loss, reduction):
    leaves, structure = jax.tree.flatten(params)

    def products(i):
        """vᵀ (H v) over each layer or neuron's own parameters, for one random v."""
        keys = jax.random.split(jax.random.fold_in(key, i), len(leaves))
        drawn = [jax.random.rademacher(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves)]
        v = jax.tree.unflatten(structure, drawn)
        Hv = hessian_product(params, x, y, v, masks, loss=loss, reduction=reduction, rules=TANGENTS)
        return passes(params).by_entry(jax.tree.map(jnp.multiply, v, Hv), masks)

    layers = jax.lax.map(products, jnp.arange(samples))
    total = sum(jnp.sum(of.reshape(samples, -1), axis=1) for of in jax.tree.leaves(layers))

    def estimate(values):
        return Estimate(values.mean(axis=0), values.std(axis=0, ddof=1) / samples**0.5)

    return HessianTrace(estimate(total), jax.tree.map(estimate, layers))
