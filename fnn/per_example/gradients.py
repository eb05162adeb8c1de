"""Norms, clipping, moments and noise of the examples' gradients; see ``fnn.per_example``."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn import checks
from fnn.losses import Loss, SquaredError
from fnn.network import Masks, Params
from fnn.numbers import number, whole
from fnn.per_example.factors import arguments, factors, outer_products, squared_norms, total, weighted_sums


class Norms(NamedTuple):
    """‖g_i‖ of every example: by all parameters, (B,), and by each entry of ``params``, (B,), or (D, B) of a stack."""

    total: Array
    layers: tuple[Array, ...]


class Moments(NamedTuple):
    """Mean and (biased) variance of the examples' gradients, entry by entry: pytrees like ``params``."""

    mean: Params
    variance: Params


class NoiseScale(NamedTuple):
    """tr Σ / ‖G‖², in examples, with its parts: tr Σ, the variance of one example's gradient, and ‖G‖²."""

    scale: Array
    trace: Array
    squared_norm: Array


def norms(params: Params, x: Array, y: Array, *, loss: Loss = SquaredError(), masks: Masks = None) -> Norms:
    """The length of every example's gradient, from δ and a alone: ‖g_i‖² = Σ_ℓ ‖δ_i‖² (‖a_i‖² + 1).

    Arguments and errors: see ``fnn.per_example``.
    Source: Goodfellow 2015, *Efficient per-example gradient computations*.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> x, y = jnp.ones((5, 3)), jnp.zeros((5, 2))
    >>> g = fnn.backprop(params, x[0], y[0])
    >>> length = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(g)))
    >>> bool(jnp.allclose(norms(params, x, y).total[0], length))
    True
    """
    return _norms(*arguments(params, x, y, loss, masks), loss=loss)


def gradients(
    params: Params, x: Array, y: Array, *, loss: Loss = SquaredError(), masks: Masks = None, chunk: int | None = None
) -> Params | Iterator[Params]:
    """Every example's gradient in full: a pytree like ``params`` whose leaves have an axis of examples in front.

    chunk: None, or a number of examples, for an iterator over the batch that holds so many at a time; the last may hold
    fewer. Other arguments and errors: see ``fnn.per_example``.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> gradients(params, jnp.ones((5, 3)), jnp.zeros((5, 2)))[0].W.shape
    (5, 4, 3)
    """
    params, x, y, masks = arguments(params, x, y, loss, masks)
    if chunk is None:
        return _gradients(params, x, y, masks, loss=loss)
    size = whole("chunk", chunk)
    return (
        _gradients(params, x[i : i + size], y[i : i + size], _rows(masks, slice(i, i + size)), loss=loss)
        for i in range(0, len(x), size)
    )


def clipped(
    params: Params,
    x: Array,
    y: Array,
    clip: float | Array,
    *,
    loss: Loss = SquaredError(),
    masks: Masks = None,
    noise: float = 0.0,
    key: Array | None = None,
) -> Params:
    """The mean of the examples' gradients, each shortened to length ``clip`` where it is longer: a pytree like params.

    clip: C > 0. noise: σ ≥ 0; where it is above 0, N(0, (σC/B)²) from ``key`` is added to every entry, which is the
    step of differentially private SGD. Other arguments and errors: see ``fnn.per_example``.
    Source: Abadi et al. 2016, *Deep learning with differential privacy*, algorithm 1.
    """
    params, x, y, masks = arguments(params, x, y, loss, masks)
    if not isinstance(clip, jax.core.Tracer):
        clip = number("per_example.clipped", "clip", clip, above=0)
    noise = number("per_example.clipped", "noise", noise, least=0)
    if (key is None) == (noise > 0):
        raise TypeError(f"key: expected one PRNG key with noise and none without, got noise={noise}, key={key}")
    mean = _clipped(params, x, y, masks, jnp.asarray(clip, x.dtype), loss=loss)
    if key is None:
        return mean
    checks.prng_key(key)
    return _noisy(mean, key, jnp.asarray(noise * clip / len(x), x.dtype))


def moments(params: Params, x: Array, y: Array, *, loss: Loss = SquaredError(), masks: Masks = None) -> Moments:
    """The mean and the variance over the batch of every entry of the gradient, by (δ ⊙ δ)ᵀ (a ⊙ a).

    Arguments and errors: see ``fnn.per_example``.
    """
    return _moments(*arguments(params, x, y, loss, masks), loss=loss)


def noise_scale(params: Params, x: Array, y: Array, *, loss: Loss = SquaredError(), masks: Masks = None) -> NoiseScale:
    """The simple gradient noise scale: the batch at which a mean gradient's noise is as long as the gradient.

    Unbiased estimates: tr Σ = B/(B − 1) (mean ‖g_i‖² − ‖ḡ‖²), and ‖G‖² = ‖ḡ‖² − tr Σ/B, which can come out negative
    where the batch is too small to tell. B ≥ 2. Other arguments and errors: see ``fnn.per_example``.
    Source: McCandlish, Kaplan, Amodei et al. 2018, *An empirical model of large-batch training*, appendix A.
    """
    params, x, y, masks = arguments(params, x, y, loss, masks)
    if len(x) < 2:
        raise ValueError("x: expected at least 2 examples, for one has no variance, got 1")
    return _noise_scale(params, x, y, masks, loss=loss)


def _rows(masks, rows: slice) -> tuple:
    """The masks of some of the examples; one that is for all of them stays."""

    def of_rows(units):
        return units if units is None or units.shape[-2] == 1 else units[..., rows, :]

    return tuple(mask._replace(units=of_rows(mask.units)) for mask in masks)


def _equal_weights(x: Array) -> Array:
    return jnp.full(len(x), 1 / len(x), x.dtype)


def _squared_lengths(of_layers, masks) -> list[Array]:
    return list(map(squared_norms, of_layers, masks))


@partial(jax.jit, static_argnames="loss")
def _norms(params, x, y, masks, *, loss):
    lengths = _squared_lengths(factors(params, x, y, masks, loss), masks)
    return Norms(jnp.sqrt(total(lengths)), tuple(map(jnp.sqrt, lengths)))


@partial(jax.jit, static_argnames="loss")
def _gradients(params, x, y, masks, *, loss):
    return outer_products(params, factors(params, x, y, masks, loss), masks)


@partial(jax.jit, static_argnames="loss")
def _clipped(params, x, y, masks, clip, *, loss):
    of_layers = factors(params, x, y, masks, loss)
    length = jnp.sqrt(total(_squared_lengths(of_layers, masks)))
    shortened = jnp.where(length > clip, clip / jnp.where(length > clip, length, 1), 1)
    return weighted_sums(params, of_layers, masks, shortened / len(x))


@jax.jit
def _noisy(mean, key, scale):
    leaves, structure = jax.tree.flatten(mean)
    drawn = zip(leaves, jax.random.split(key, len(leaves)))
    return jax.tree.unflatten(structure, [v + scale * jax.random.normal(k, v.shape, v.dtype) for v, k in drawn])


@partial(jax.jit, static_argnames="loss")
def _moments(params, x, y, masks, *, loss):
    of_layers = factors(params, x, y, masks, loss)
    mean, second = (weighted_sums(params, of_layers, masks, _equal_weights(x), power) for power in (1, 2))
    # rounding can put a difference of nearly equal numbers below 0
    return Moments(mean, jax.tree.map(lambda s, m: jnp.maximum(s - m * m, 0), second, mean))


@partial(jax.jit, static_argnames="loss")
def _noise_scale(params, x, y, masks, *, loss):
    B, of_layers = len(x), factors(params, x, y, masks, loss)
    mean = weighted_sums(params, of_layers, masks, _equal_weights(x))
    of_mean = sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(mean))
    variance = (jnp.mean(total(_squared_lengths(of_layers, masks))) - of_mean) * (B / (B - 1))
    squared_norm = of_mean - variance / B
    return NoiseScale(variance / squared_norm, variance, squared_norm)
