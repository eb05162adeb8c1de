"""Norms, clipping, moments and noise of per-example gradients; see ``fnn.per_example``."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.checks import arrays, targets
from fnn.checks.arrays import AnyArray
from fnn.kinds import AnyParams, Outputs, either, given, kind
from fnn.losses import Loss, SquaredError
from fnn.numbers import number, whole
from fnn.per_example import graphs, layers


class Norms(NamedTuple):
    """‖g_i‖ of every example: over all parameters, (B,), and for each entry of ``params``, (B,), or (D, B) for a stack.

    For a graph, ``layers`` is one array (B, N), over the parameters of each neuron in the order of ``graph.neurons``:
    its bias, the weights of the arrows into it, and γ and β; 0 for an input.
    """

    total: Array
    layers: tuple[Array, ...] | Array


class GradientMoments(NamedTuple):
    """Elementwise mean and (biased) variance of the per-example gradients: pytrees like ``params``."""

    mean: Any
    variance: Any


class NoiseScale(NamedTuple):
    """tr Σ / ‖G‖², in examples, and its parts: tr Σ, the variance of one example's gradient, and ‖G‖²."""

    scale: Array
    trace: Array
    squared_norm: Array


def sums(params: AnyParams) -> Any:
    """The factors and their sums for these parameters: ``per_example.layers`` or ``per_example.graphs``."""
    return either(params, layers, graphs)


def given_examples(params, x, y, loss: Loss, masks) -> tuple:
    """(params, x, y, masks) in the form that the compiled functions take."""
    params, x, masks = given_inputs(params, x, masks)
    return params, x, targets.given_target(kind(params).ports(params), y, loss), masks


def given_inputs(params, x, masks) -> tuple:
    """(params, x, masks) in the form that the compiled functions take."""
    params, x, masks = given(params, x, masks, RULES)
    kind(params).require(params)
    if x.ndim != 2:
        raise ValueError(f"x: expected examples in rows, (B, n_0), got shape {x.shape}; write x[None], and y[None]")
    if len(x) == 0:
        raise ValueError(f"x: expected at least one example, got an empty batch of shape {x.shape}")
    sums(params).require_separable(params)
    return params, x, masks


def factors(params, x, y, masks, loss: Loss):
    """The factors of every example's gradient, from one forward and one backward pass."""
    outputs = outputs_of(params, x, masks)
    targets.target(y, outputs.a, loss)
    return sums(params).factors(params, masks, outputs, loss.delta(*outputs[:3], y))


def outputs_of(params, x, masks) -> Outputs:
    """The forward pass, after a check that the arguments fit together."""
    of = kind(params)
    of.check(params, x, masks)
    return of.forward(RULES, params, x, masks)


def norms(params: AnyParams, x: AnyArray, y: AnyArray, *, loss: Loss = SquaredError(), masks=None) -> Norms:
    """The norm of every example's gradient, from δ and a alone: ‖g_i‖² = Σ_ℓ ‖δ_i‖² (‖a_i‖² + 1).

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
    return _norms(*given_examples(params, x, y, loss, masks), loss=loss)


def gradients(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    *,
    loss: Loss = SquaredError(),
    masks=None,
    chunk: int | None = None,
) -> AnyParams | Iterator[AnyParams]:
    """Every example's full gradient: a pytree like ``params`` whose leaves have a leading axis of examples.

    chunk: None, or a number of examples, which gives an iterator over the batch in chunks of that size; the last may be
    smaller. Batch-norm statistics are those of the whole batch. Other arguments and errors: see ``fnn.per_example``.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> gradients(params, jnp.ones((5, 3)), jnp.zeros((5, 2)))[0].W.shape
    (5, 4, 3)
    """
    params, x, y, masks = given_examples(params, x, y, loss, masks)
    size = len(x) if chunk is None else whole("chunk", chunk)
    found = _factors(params, x, y, masks, loss=loss)
    if chunk is None:
        return _outer_products(params, found, masks)
    return (_outer_products(params, _rows(found, slice(i, i + size)), masks) for i in range(0, len(x), size))


def clipped(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    clip: float | Array,
    *,
    loss: Loss = SquaredError(),
    masks=None,
    noise: float = 0.0,
    key: Array | None = None,
) -> AnyParams:
    """The mean of the per-example gradients, each clipped to norm ``clip``: a pytree like ``params``.

    clip: C > 0. noise: σ ≥ 0; if positive, N(0, (σC/B)²) drawn from ``key`` is added to every entry, as in
    differentially private SGD. Other arguments and errors: see ``fnn.per_example``.
    Source: Abadi et al. 2016, *Deep learning with differential privacy*, algorithm 1.
    """
    params, x, y, masks = given_examples(params, x, y, loss, masks)
    if not isinstance(clip, jax.core.Tracer):
        clip = number("per_example.clipped", "clip", clip, above=0)
    noise = number("per_example.clipped", "noise", noise, least=0)
    if (key is None) == (noise > 0):
        raise TypeError(f"key: expected one PRNG key with noise and none without, got noise={noise}, key={key}")
    mean = _clipped(params, x, y, masks, jnp.asarray(clip, x.dtype), loss=loss)
    if key is None:
        return mean
    arrays.prng_key(key)
    return _noisy(mean, key, jnp.asarray(noise * clip / len(x), x.dtype))


def moments(params: AnyParams, x: AnyArray, y: AnyArray, *, loss: Loss = SquaredError(), masks=None) -> GradientMoments:
    """The mean and variance over the batch of every entry of the gradient, from (δ ⊙ δ)ᵀ (a ⊙ a).

    Arguments and errors: see ``fnn.per_example``.
    """
    return _moments(*given_examples(params, x, y, loss, masks), loss=loss)


def noise_scale(params: AnyParams, x: AnyArray, y: AnyArray, *, loss: Loss = SquaredError(), masks=None) -> NoiseScale:
    """The simple gradient noise scale: the batch size at which the mean gradient's noise is as large as the gradient.

    Unbiased estimates: tr Σ = B/(B − 1) (mean ‖g_i‖² − ‖ḡ‖²) and ‖G‖² = ‖ḡ‖² − tr Σ/B, which can be negative if the
    batch is too small. B ≥ 2. Other arguments and errors: see ``fnn.per_example``.
    Source: McCandlish, Kaplan, Amodei et al. 2018, *An empirical model of large-batch training*, appendix A.
    """
    params, x, y, masks = given_examples(params, x, y, loss, masks)
    if len(x) < 2:
        raise ValueError("x: expected at least 2 examples, because one has no variance, got 1")
    return _noise_scale(params, x, y, masks, loss=loss)


@partial(jax.jit, static_argnames="loss")
def _norms(params, x, y, masks, *, loss):
    found = layers.scaled(factors(params, x, y, masks, loss))
    total, by_entry = sums(params).lengths(params, found.factors, masks)
    of = either(params, lambda v: v, lambda v: v.T)  # examples last
    return Norms(found.unscaled(total), jax.tree.map(lambda v: of(found.unscaled(of(v))), by_entry))


@partial(jax.jit, static_argnames="loss")
def _factors(params, x, y, masks, *, loss):
    return factors(params, x, y, masks, loss)


def _rows(found, rows: slice):
    """The factors of some examples."""
    return jax.tree.map(lambda leaf: leaf[..., rows, :], found)


@jax.jit
def _outer_products(params, found, masks):
    return sums(params).outer_products(params, found, masks)


@partial(jax.jit, static_argnames="loss")
def _clipped(params, x, y, masks, clip, *, loss):
    of = sums(params)
    found = layers.scaled(factors(params, x, y, masks, loss))
    length = of.lengths(params, found.factors, masks)[0]  # of g'_i
    longer = found.unscaled(length) > clip
    shortened = jnp.where(longer, clip / jnp.where(longer, length, 1), found.unscaled(jnp.ones_like(length)))
    return of.weighted_sums(params, found.factors, masks, shortened / len(x))


@jax.jit
def _noisy(mean, key, scale):
    leaves, structure = jax.tree.flatten(mean)
    drawn = zip(leaves, jax.random.split(key, len(leaves)))
    return jax.tree.unflatten(structure, [v + scale * jax.random.normal(k, v.shape, v.dtype) for v, k in drawn])


@partial(jax.jit, static_argnames="loss")
def _moments(params, x, y, masks, *, loss):
    of, weights = sums(params), layers.equal_weights(x)
    found = factors(params, x, y, masks, loss)
    mean, second = (of.weighted_sums(params, found, masks, weights, power) for power in (1, 2))
    # rounding can make a difference of nearly equal numbers negative
    return GradientMoments(mean, jax.tree.map(lambda s, m: jnp.maximum(s - m * m, 0), second, mean))


@partial(jax.jit, static_argnames="loss")
def _noise_scale(params, x, y, masks, *, loss):
    of, B = sums(params), len(x)
    found = layers.scaled(factors(params, x, y, masks, loss))
    length = found.unscaled(of.lengths(params, found.factors, masks)[0])
    scale = layers.power_of_two(jnp.max(length))  # one for all: what follows is of g_i/scale
    by = found.unscaled(jnp.ones_like(length)) / scale
    mean = of.weighted_sums(params, found.factors, masks, layers.equal_weights(x) * by)
    of_mean = sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(mean))
    variance = (jnp.mean((length / scale) ** 2) - of_mean) * (B / (B - 1))
    squared_norm = of_mean - variance / B
    return NoiseScale(variance / squared_norm, variance * scale * scale, squared_norm * scale * scale)
