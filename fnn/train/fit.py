"""``fit``: epoch after epoch, with a record of each."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from fnn import checks, parallel
from fnn.data import for_network
from fnn.display import Bar
from fnn.dropout import DropConnect, Dropout
from fnn.kinds import AnyParams, kind
from fnn.losses import Loss
from fnn.numbers import whole
from fnn.train.evaluation import Record, evaluator, folded, require_network
from fnn.train.feed import InMemory
from fnn.train.loop import require_optimizer, run, shuffle, start
from fnn.train.spread import Spread

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
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[AnyParams, list[Record]]:
    """Train for ``epochs`` passes over ``data`` and return the new parameters and a record for each epoch.

    params: from ``fnn.init`` or ``graph.init``, which stay as they are. data, validation: a
    ``Dataset`` or a pair (x, y). optimizer: ``fnn.updates`` or any optax one. loss: see ``fnn.losses``. epochs ≥ 1.
    batch_size: 1 … N. key: ``jax.random.key(seed)``, the shuffles' seed. reduction: "mean" or "sum" over a
    mini-batch (N7). dropout: fresh masks for every step. callback: called after every epoch with a :class:`State`;
    returning True stops. progress: a bar per epoch, False for none, None for one in a terminal only (needs tqdm).
    mesh: ``fnn.parallel.data_mesh()`` spreads every mini-batch over its devices, whose number divides batch_size: the
    same training but for the order of sums. What it returns lies on the mesh's first device that is this process's own.

    A record holds "epoch", "loss" (the mean over the epoch's mini-batches, each before its step), "seconds"
    since the start and, with ``validation``, "validation_loss" and (for labels or one-hot rows)
    "validation_accuracy". With dropout or a batch norm, the held-out data are given to the network that
    ``fnn.fold`` makes, with statistics of mini-batches of at most 10,000 training examples, always the same ones.

    One program is compiled for all epochs, and none in a second ``fit`` with equal shapes, loss and
    optimizer. Raises TypeError or ValueError that names the argument before anything is trained.
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
    data = for_network(data, params, loss)
    batch_size = whole("batch_size", batch_size, len(data), "examples")
    epochs = whole("epochs", epochs)
    if validation is not None:
        validation = for_network(validation, params, loss, "validation")

    if mesh is not None:
        parallel.require_mesh(mesh, batch_size)
        given = {"params": params, "data": (data.x, data.y), "key": key, "dropout": dropout}
        parallel.require_equal(**given, batch_size=batch_size, epochs=epochs)

    feed: Any = InMemory(data)
    sample = None
    if kind(params).has_norm(params):
        sample = feed.inputs(shuffle(key, 0, len(data), batch_size)[: max(1, STATISTICS_EXAMPLES // batch_size)])
    held_out = evaluator(validation, loss, partial(folded, x=sample, dropout=dropout, scale=data.scale))
    params, optimizer_state = start(optimizer, params)
    if mesh is not None:
        feed, (params, optimizer_state) = Spread(feed, mesh), parallel.place((params, optimizer_state), mesh)
    history: list[Record] = []
    with Bar(epochs, progress) as bar:
        for epoch in range(1, epochs + 1):
            losses = []
            for first, batches in feed.chunks(shuffle(key, epoch, len(data), batch_size)):
                params, optimizer_state, of_chunk = run(
                    params, optimizer_state, batches, first, dropout, jax.random.fold_in(key, epoch),
                    optimizer=optimizer, loss=loss, reduction=reduction, scale=data.scale, mesh=mesh,
                )  # fmt: skip
                losses.append(of_chunk if mesh is None else np.asarray(of_chunk))  # CPU devices stall on two at once
            reached = params if mesh is None else parallel.here(params)
            record = {"epoch": epoch, "loss": float(np.mean(np.concatenate(losses)))} | held_out(reached)
            history.append(record | {"seconds": time.perf_counter() - started})
            bar.show(history[-1])
            if callback is not None and callback(State(epoch, reached, tuple(map(dict, history)))):
                break
    return reached, history
