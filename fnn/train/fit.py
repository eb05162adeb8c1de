"""``fit``: epoch after epoch, with a record of each."""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from fnn import checks
from fnn.data import for_network
from fnn.display import Bar
from fnn.dropout import DropConnect, Dropout
from fnn.kinds import AnyParams, kind
from fnn.losses import Loss
from fnn.numbers import whole
from fnn.train.evaluation import Record, evaluator, folded, require_network
from fnn.train.feed import feed_of
from fnn.train.loop import require_optimizer, run, start

STATISTICS_EXAMPLES = 10_000  # of a batch norm's statistics: enough for three digits of a variance


class State(NamedTuple):
    """What ``callback`` sees after an epoch: its number from 1, the parameters, and the records so far."""

    epoch: int
    params: Any  # of the kind that was given
    history: tuple[Record, ...]


def fit(
    params: AnyParams,
    data,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss,
    epochs: int,
    batch_size: int,
    key: Array,
    validation=None,
    dropout: Dropout | DropConnect | None = None,
    reduction: str = "mean",
    callback: Callable[[State], bool | None] | None = None,
    progress: bool | None = None,
) -> tuple[AnyParams, list[Record]]:
    """Train for ``epochs`` passes over ``data`` and return the new parameters and a record for each epoch.

    params: from ``fnn.init`` or ``graph.init``, which stay as they are. data, validation: a ``Dataset``, in memory or
    memory-mapped, or a pair (x, y); data also ``fnn.data.Batches``. optimizer: ``fnn.updates`` or any optax one. loss:
    see ``fnn.losses``. epochs ≥ 1. batch_size: 1 … N; that of ``Batches``. key: ``jax.random.key(seed)``, the shuffles'
    seed. reduction: "mean" or "sum" over a mini-batch (N7). dropout: fresh masks for every step. callback: called after
    every epoch with a :class:`State`; returning True stops. progress: a bar per epoch, False for none, None for one in
    a terminal only (needs tqdm).

    A record holds "epoch", "loss" (the mean over the epoch's mini-batches, each before its step), "seconds"
    since the start and, with ``validation``, "validation_loss" and (for labels or one-hot rows)
    "validation_accuracy". With dropout or a batch norm, the held-out data are given to the network that
    ``fnn.fold`` makes, with statistics of mini-batches of at most 10,000 training examples, always the same ones.

    One program is compiled for all epochs (two where the last chunk of streamed data is shorter), and none in a second
    ``fit`` with equal shapes, loss and optimizer. Raises TypeError or ValueError that names the argument before
    anything is trained.
    """
    started = time.perf_counter()
    params = require_network(params)
    checks.loss_like(loss)
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    checks.prng_key(key)
    require_optimizer(optimizer)
    if dropout is not None:
        kind(params).probabilities(dropout, params)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a function of a fnn.train.State, got {callback!r}")
    feed = feed_of(data, params, loss, batch_size)
    epochs = whole("epochs", epochs)
    if validation is not None:
        validation = for_network(validation, params, loss, "validation")

    sample = feed.sample(key, STATISTICS_EXAMPLES) if kind(params).has_norm(params) else None
    held_out = evaluator(validation, loss, partial(folded, x=sample, dropout=dropout, scale=feed.scale))
    params, optimizer_state = start(optimizer, params)
    history: list[Record] = []
    with Bar(epochs, progress) as bar, closing(feed):
        for epoch in range(1, epochs + 1):
            losses = []
            for first, batches in feed.chunks(key, epoch):
                params, optimizer_state, of_chunk = run(
                    params, optimizer_state, batches, first, dropout, jax.random.fold_in(key, epoch),
                    optimizer=optimizer, loss=loss, reduction=reduction, scale=feed.scale,
                )  # fmt: skip
                losses.append(of_chunk)
                jax.block_until_ready(losses[-2:-1])  # so that no more than one chunk waits on the device
            record = {"epoch": epoch, "loss": float(np.mean(np.concatenate(losses)))} | held_out(params)
            history.append(record | {"seconds": time.perf_counter() - started})
            bar.show(history[-1])
            if callback is not None and callback(State(epoch, params, tuple(map(dict, history)))):
                break
    return params, history
