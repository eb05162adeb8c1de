"""The network for inference: dropout's W p and the batch-norm statistics folded into a plain network.

Dropout and batch norm exist only in training. A network with batch norms uses the statistics of its mini-batch. For
inference, :func:`statistics` measures those of the population and :func:`fold` gives a plain network, so that
``forward`` needs no training or inference mode.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.backward import RULES
from fnn.checks.arrays import AnyArray, iterable, native
from fnn.dropout import DropConnect, Dropout
from fnn.kinds import AnyParams, kind


def statistics(params: AnyParams, batches: Iterable[AnyArray], *, dropout: Dropout | DropConnect | None = None) -> Any:
    """Population statistics of ψ: per layer, None without a batch norm; for a graph (N,), by neuron.

    The mean of the mini-batches' means, and m/(m − 1) times the mean of their biased variances (Ioffe and Szegedy 2015,
    algorithm 2). They are those of the test-time network, with W p instead of W after dropout (the raw W has different
    statistics). All layers are measured in one pass, each normalising by its mini-batch.

    params: layers or a graph; batches: at least one mini-batch x (m, n_0), m ≥ 2. Raises TypeError or ValueError that
    names the argument.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), batch_norm="full")
    >>> batches = jax.random.normal(jax.random.key(1), (10, 8, 3))
    >>> fnn.forward(fnn.fold(params, statistics=fnn.statistics(params, batches)), jnp.ones(3)).shape
    (2,)
    """
    of = kind(params)
    of.require(params)
    params = native(params)
    if dropout is not None:
        of.probabilities(dropout, params)
    kept = of.kept_weights(params, dropout)
    iterable("batches", batches, "mini-batches x of shape (m, n_0), m >= 2; write [x]")
    total, count = None, 0
    for x in batches:
        try:
            result = _norm_statistics(*of.given(kept, x, None, RULES))
        except (TypeError, ValueError) as error:
            raise type(error)(f"batches: mini-batch {count}: {error}") from error
        total, count = result if total is None else jax.tree.map(jnp.add, total, result), count + 1
    if total is None:
        raise ValueError("batches: expected at least one mini-batch x of shape (m, n_0), got none")
    return jax.tree.map(lambda leaf: leaf / count, total)


@jax.jit
def _norm_statistics(params, x, masks):
    of = kind(params)
    of.check(params, x, masks)
    return of.norm_statistics(params, x, masks)


def fold(params: AnyParams, *, statistics: Any = None, dropout: Dropout | DropConnect | None = None) -> AnyParams:
    """A plain network that computes what ``params`` computes at test time.

    params: layers or a graph. statistics: from :func:`statistics`, required if there is a batch norm:
    W' = γ/√(ν + ε) W and b' = γ/√(ν + ε) (b − μ) + β. dropout: the one used in training; W p replaces W, unless dropout
    was inverted. This is the mean over the masks for one layer, and an approximation for several.
    Raises TypeError or ValueError that names the argument.
    """
    of = kind(params)
    of.require(params)
    params = native(params)
    if dropout is not None:
        of.probabilities(dropout, params)
    return of.fold(params, statistics, dropout)
