"""Dropout and DropConnect: masks as arrays, shared by the forward and the backward pass.

Randomness enters a network only as arrays, so the hand-written and the automatic gradient differentiate the same
deterministic function, ψ_k = Σ_l w_kl r_kl o_l + β_k, with r drawn beforehand. Its gradient contains r:
∂L/∂w_kj = λ_k o_j r_kj, and λ passes through w_lk r_lk.

There are two conventions; ``p`` is the probability to **keep**:

    printed (default)   r ∈ {0, 1} in training, w p instead of w r at test time
    inverted            r ∈ {0, 1/p} in training, w at test time

Both have the same mean over r; ``fnn.fold`` makes the test-time network for either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import GetAttrKey, register_pytree_with_keys

from fnn.checks.arrays import describe, one_of, unmasked
from fnn.masks import Mask


def _registered(cls):
    """The dataclass as a pytree with ``keep`` for its leaves; what JAX puts there instead is not checked."""
    others = [each.name for each in fields(cls) if each.name != "keep"]

    def flatten(dropout):
        return ((GetAttrKey("keep"), dropout.keep),), tuple(getattr(dropout, name) for name in others)

    def unflatten(static, children):
        made = object.__new__(cls)
        for name, value in zip((*others, "keep"), (*static, *children)):
            object.__setattr__(made, name, value)
        return made

    register_pytree_with_keys(cls, flatten, unflatten)
    return cls


@_registered
@dataclass(frozen=True, eq=False)
class Dropout:
    """Drops whole neurons: each of a layer's inputs is kept with probability ``keep``.

    keep: a number in [0, 1] for every hidden neuron (the network's input is not dropped); or a tuple with one entry per
    layer, the first for the network's input, each a number, an array (n_in,), or None to keep all; for a ``Stack`` an
    array is (D, n).
    inverted: scale by 1/keep in training instead of by keep at test time; requires keep > 0.
    per_example: True draws a fresh mask for every example, False one for the mini-batch.
    Raises TypeError or ValueError that names the argument.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014.
    """

    keep: Any
    inverted: bool = False
    per_example: bool = True

    def __post_init__(self):
        _require_values(self)
        one_of("per_example", self.per_example, (True, False))

    @staticmethod
    def every_layer(p, layers: int) -> tuple:
        """One ``p`` for the whole network, layer by layer: its input is kept."""
        return (None, *(p for _ in range(layers - 1)))

    def shapes(self, n_out: int, n_in: int, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of a layer's mask, and of its probabilities."""
        return (batch if self.per_example else 1, n_in), (n_in,)

    @staticmethod
    def mask(values: Array) -> Mask:
        return Mask(units=values)

    @staticmethod
    def of_weights(p, W: Array) -> Array:
        """The keep probability of every weight's input, broadcast against W."""
        p = jnp.asarray(p, W.dtype)
        return p[..., None, :] if p.ndim else p


@_registered
@dataclass(frozen=True, eq=False)
class DropConnect:
    """Drops arrows: each weight of a layer is kept with probability ``keep``, with one mask for the mini-batch.

    keep: a number in [0, 1] for every arrow of the network, those out of its input included; or a tuple with one entry
    per layer, as in :class:`Dropout`, where an array has the shape of W, (n_out, n_in), with a p_kl for every arrow.
    inverted: as in :class:`Dropout`.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> [mask.arrows.shape for mask in fnn.sample_masks(params, fnn.DropConnect(0.5), 10, key=jax.random.key(1))]
    [(4, 3), (2, 4)]
    >>> hidden = fnn.DropConnect((None, 0.5))  # the arrows out of the network's input are kept
    >>> [mask.arrows is None for mask in fnn.sample_masks(params, hidden, 10, key=jax.random.key(1))]
    [True, False]

    Source: Wan, Zeiler, Zhang, LeCun, Fergus 2013.
    """

    keep: Any
    inverted: bool = False

    def __post_init__(self):
        _require_values(self)

    @staticmethod
    def every_layer(p, layers: int) -> tuple:
        """One ``p`` for the whole network, layer by layer: every arrow has it."""
        return (p,) * layers

    def shapes(self, n_out: int, n_in: int, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of a layer's mask, and of its probabilities."""
        return (n_out, n_in), (n_out, n_in)

    @staticmethod
    def mask(values: Array) -> Mask:
        return Mask(arrows=values)

    @staticmethod
    def of_weights(p, W: Array) -> Array:
        """The keep probability of every weight."""
        return jnp.asarray(p, W.dtype)


def probabilities(dropout: Dropout | DropConnect, params: Sequence) -> tuple:
    """The keep probabilities, layer by layer: None, a number, or an array.

    Raises TypeError or ValueError, naming the entry, unless it is a probability or an array of the right shape.
    """
    require_dropout(dropout)
    keep = dropout.keep
    if not isinstance(keep, (tuple, list)):
        keep = dropout.every_layer(keep, len(params))
    if len(keep) != len(params):
        raise ValueError(f"keep: expected one entry per layer, {len(params)}, got {len(keep)}")
    for i, (p, layer) in enumerate(zip(keep, params)):
        *run, n_out, n_in = layer.W.shape  # run: (D,) of a stack
        shape = (*run, *dropout.shapes(n_out, n_in, 1)[1])
        require_probability(f"keep[{i}]" if isinstance(dropout.keep, (tuple, list)) else "keep", p, dropout, shape)
    return tuple(keep)


def _require_values(dropout: Dropout | DropConnect) -> None:
    """Raise TypeError or ValueError unless every number of ``keep`` is a probability; shapes are checked at use."""
    one_of("inverted", dropout.inverted, (False, True))
    several = isinstance(dropout.keep, (tuple, list))
    if dropout.keep is None:
        raise TypeError(f"keep: expected a probability to keep, got None; write {type(dropout).__name__}(0.5)")
    for i, p in enumerate(dropout.keep if several else [dropout.keep]):
        require_probability(f"keep[{i}]" if several else "keep", p, dropout, np.shape(p))


def require_dropout(dropout) -> None:
    """Raise TypeError unless ``dropout`` is a Dropout or a DropConnect."""
    if not isinstance(dropout, (Dropout, DropConnect)):
        raise TypeError(f"dropout: expected fnn.Dropout or fnn.DropConnect, got {dropout!r}; write fnn.Dropout(0.5)")


def require_probability(name: str, p, dropout, shape: tuple[int, ...]) -> None:
    """Raise TypeError or ValueError unless ``p`` is None, a keep probability, or an array of them with ``shape``."""
    if p is None or isinstance(p, jax.core.Tracer):
        return
    if isinstance(p, (str, bool)) or not isinstance(p, (int, float, np.number, np.ndarray, jax.Array)):
        raise TypeError(f"{name}: expected a probability to keep, got {p!r}; write {type(dropout).__name__}(0.5)")
    unmasked(name, p)
    dtype = getattr(p, "dtype", np.dtype(float))
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(
            f"{name}: expected probabilities to keep, got {describe(p)}; write {type(dropout).__name__}(0.5)"
        )
    values = np.asarray(p, np.float64)
    if values.shape not in ((), shape) or values.size == 0:
        raise ValueError(f"{name}: expected a number or shape {shape}, got {values.shape}")
    low = values.min()
    if not (low >= 0 and values.max() <= 1 and not (dropout.inverted and low == 0)):
        bounds = "0 < keep <= 1 where inverted" if dropout.inverted else "0 <= keep <= 1"
        raise ValueError(f"{name}: expected {bounds}, got {values[()] if values.ndim == 0 else values}")


def layer_masks(key: Array, params: Sequence, dropout: Dropout | DropConnect, batch: int) -> tuple[Mask, ...]:
    """One :class:`Mask` per layer, drawn from ``key``, which is split across layers."""
    masks, number = [], 0  # counts layers, including those in stacks
    for layer, p in zip(params, probabilities(dropout, params)):
        *run, n_out, n_in = layer.W.shape
        shape, _ = dropout.shapes(n_out, n_in, batch)
        draw = partial(kept, shape=shape, dtype=layer.W.dtype, inverted=dropout.inverted)
        if p is None:
            masks.append(Mask())
        elif not run:
            masks.append(dropout.mask(draw(jax.random.fold_in(key, number), p)))
        else:  # for a stack, the masks that its layers would have one by one
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number + jnp.arange(*run))
            masks.append(dropout.mask(jax.vmap(draw, (0, 0 if jnp.ndim(p) else None))(keys, p)))
        number += math.prod(run)
    return tuple(masks)


def kept(key: Array, p, shape: tuple[int, ...], dtype, inverted: bool) -> Array:
    """r: 1 with probability p, else 0; divided by p if inverted."""
    p = jnp.asarray(p, dtype)
    r = jax.random.bernoulli(key, p.astype(jnp.float32), shape).astype(dtype)
    return r / p if inverted else r


def expected_weights(params: Sequence, dropout: Dropout | DropConnect | None) -> list[Array]:
    """The test-time weights: W ⊙ p for every layer, or W if nothing is dropped or dropout is inverted."""
    if dropout is None:
        return [layer.W for layer in params]
    keeps = probabilities(dropout, params)
    if dropout.inverted:
        return [layer.W for layer in params]
    return [layer.W if p is None else layer.W * dropout.of_weights(p, layer.W) for layer, p in zip(params, keeps)]
