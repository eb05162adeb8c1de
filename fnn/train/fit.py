"""``fit``: epoch after epoch, with a record of each."""

import os
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from fnn import parallel
from fnn.backward import RULES
from fnn.checkpoint.resume import Resumable, settings
from fnn.checks import arrays
from fnn.data import for_network
from fnn.display import Bar
from fnn.dropout import DropConnect, Dropout
from fnn.functions import Objective
from fnn.kinds import GRAPH, AnyParams, kind
from fnn.losses import Loss
from fnn.numbers import whole
from fnn.precision import BFLOAT16
from fnn.train.devices import Spread
from fnn.train.evaluation import Record, evaluator, folded, require_network
from fnn.train.feed import feed_of
from fnn.train.loop import mean_loss, require_training, start, take_steps
from fnn.train.metrics import Metrics
from fnn.train.nonfinite import non_finite

PRECISIONS = ("bfloat16", None)
STATISTICS_EXAMPLES = 10_000  # for batch-norm statistics: enough for three digits of a variance


class Progress(NamedTuple):
    """The argument of ``callback`` after an epoch: its number from 1, the parameters, and the records so far.

    Early stopping is a plain function of it. This one stops after twenty epochs without a better held-out loss and
    keeps the best parameters.

    >>> import fnn
    >>> key, best = jax.random.key(0), {"validation_loss": float("inf")}
    >>> def patience(state):
    ...     record = state.history[-1]
    ...     if record["validation_loss"] < best["validation_loss"]:
    ...         best.update(record, params=state.params)
    ...     return state.epoch >= best["epoch"] + 20
    >>> x = np.linspace(-1, 1, 24, dtype=np.float32)[:, None]
    >>> noisy = np.sin(9 * x) + np.float32(0.5) * np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    >>> params, optimizer = fnn.init(key, (1, 64, 1), activation=fnn.Tanh()), optax.adam(0.03)
    >>> _, history = fit(
    ...     params, (x[::2], noisy[::2]), optimizer, loss=fnn.SquaredError(), epochs=500, batch_size=12, key=key,
    ...     validation=(x[1::2], noisy[1::2]), callback=patience, progress=False)
    >>> len(history) < 500, len(history) - best["epoch"]
    (True, 20)
    >>> held_out = fnn.train.evaluate(best["params"], (x[1::2], noisy[1::2]), loss=fnn.SquaredError())
    >>> held_out["loss"] == min(record["validation_loss"] for record in history)
    True
    """

    epoch: int
    params: Any  # of the kind given to ``fit``
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
    callback: Callable[[Progress], bool | None] | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 1,
    metrics: str | os.PathLike | None = None,
    precision: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[AnyParams, list[Record]]:
    """Train for ``epochs`` passes over ``data`` and return the new parameters and one record per epoch.

    params: from ``fnn.init`` or ``graph.init``; not modified. data, validation: a ``Dataset``, in memory or
    memory-mapped, or a pair (x, y); data may also be ``fnn.data.Batches``. optimizer: from ``fnn.updates`` or optax.
    loss: see ``fnn.losses``. epochs ≥ 1. batch_size: 1 … N; for ``Batches``, the size of its mini-batches.
    key: ``jax.random.key(seed)``, for shuffles and masks. reduction: "mean" or "sum" over a mini-batch. dropout: draws
    fresh masks at every step. callback: called after every epoch with a :class:`Progress`; returning True stops.
    progress: True shows a bar with loss, held-out accuracy and examples per second, False none, None one only in a
    terminal (needs tqdm). checkpoint: a directory; the run resumes from the newest intact checkpoint in it, see below.
    every: epochs between checkpoints, ≥ 1. metrics: the path of a new file for the records, with one line of JSON
    written at the end of each epoch. precision: None, or "bfloat16" for the factors of a step's matrix products, with
    float32 for the rest. mesh: ``fnn.parallel.data_mesh()`` shards every mini-batch over its devices, whose number must
    divide batch_size; only the order of sums differs. The results are on this process's first device in the mesh.

    A record holds "epoch", "loss" (the mean over the epoch's mini-batches, each before its step), "seconds" since the
    start and, with ``validation``, "validation_loss" and (for labels or one-hot rows) "validation_accuracy". With
    dropout or a batch norm, the held-out data are evaluated on the network folded by ``fnn.fold``, with statistics from
    a fixed set of mini-batches of at most 10,000 training examples.

    With ``checkpoint``, the run is saved after every ``every`` epochs and after the last. Repeating the same call after
    any interruption, even a kill, resumes it with a bitwise identical result (except ``seconds``). A finished run
    returns its result at once; a larger ``epochs`` continues it. SIGTERM and Ctrl-C end it with SystemExit(143) and
    KeyboardInterrupt once the current epoch is saved, a second Ctrl-C at once. Raises ValueError if the directory holds
    a different run, naming the differences, or no intact checkpoint, and OSError if it cannot be written; existing
    checkpoints stay intact. Needs orbax-checkpoint.

    One program is compiled for all epochs (two if the last chunk of streamed data is shorter), and none by a second
    ``fit`` with equal shapes, loss and optimizer. Raises TypeError or ValueError that names the argument, or OSError
    for ``metrics``, before training starts. Raises ``fnn.train.NonFinite`` at the end of an epoch in which the loss,
    the parameters or the optimizer's state became NaN or infinite, with the first equation that did and the parameters
    from before that epoch.
    """
    started = time.perf_counter()
    params = _checked(params, optimizer, loss, reduction, precision, dropout, key, callback)
    feed: Any = feed_of(data, params, loss, batch_size)
    epochs = whole("epochs", epochs)
    if validation is not None:
        validation = for_network(validation, kind(params).ports(params), loss, "validation")
    fixed: dict[str, Any] = {"key": key, "dropout": dropout, "batch_size": batch_size}
    same = settings(**fixed, loss=loss, reduction=reduction, examples=feed.examples, precision=precision)
    if mesh is not None:
        parallel.require_mesh(mesh, batch_size)
        parallel.require_equal(params=params, data=feed.arrays, epochs=epochs, **fixed)
        feed = Spread(feed, mesh)
    kept = Resumable(checkpoint, every=every, epochs=epochs, key=key, same=same, stops=callback is not None)
    sample = feed.sample(key, STATISTICS_EXAMPLES) if kind(params).has_norm(params) else None
    held_out = evaluator(validation, loss, partial(folded, x=sample, dropout=dropout, scale=feed.scale))
    objective = Objective(loss, reduction, RULES if precision is None else BFLOAT16)
    one_epoch = partial(_epoch, feed, dropout, key, optimizer=optimizer, objective=objective, mesh=mesh)
    with closing(feed), kept:
        told = _Told(started, progress, metrics, callback, batch_size)
        return _trained(kept, start(optimizer, params), one_epoch, held_out, told)


class _Told(NamedTuple):
    """How a run reports its epochs."""

    started: float
    progress: bool | None
    metrics: str | os.PathLike | None
    callback: Callable | None
    batch_size: int


def _trained(kept: Resumable, begun, one_epoch: Callable, held_out: Callable, told: _Told):
    """Run the remaining epochs, until the callback stops them; the parameters and the history."""
    reached, history, left = kept.resume(begun)
    started = told.started - (history[-1]["seconds"] if history else 0)
    bar = Bar(kept.epochs, told.progress, len(history))
    with bar, Metrics(told.metrics, history, kept.resumed) as written:
        for epoch in left:
            reached, losses = one_epoch(reached, epoch, history)
            record = {"epoch": epoch, "loss": mean_loss(losses)} | held_out(reached[0])
            history.append(record | {"seconds": time.perf_counter() - started})
            written.write(history[-1])
            bar.show(history[-1], len(losses) * told.batch_size)
            stop = False
            if told.callback is not None:
                stop = bool(told.callback(Progress(epoch, reached[0], tuple(map(dict, history)))))
            kept.after(reached, history, len(losses), stop)
            if stop:
                break
    return reached[0], history


def _checked(params, optimizer, loss, reduction, precision, dropout, key, callback):
    """The parameters, with layers as a tuple; raises unless all arguments are valid."""
    params = require_network(params)
    require_training(params, optimizer, loss, reduction, dropout)
    arrays.prng_key(key)
    _require_precision(precision, params)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a function of a fnn.train.Progress, got {callback!r}")
    return params


def _require_precision(precision, params) -> None:
    """Raise ValueError for a name other than "bfloat16", and TypeError if that is used without float32 layers."""
    arrays.one_of("precision", precision, PRECISIONS)
    if precision is None:
        return
    if kind(params) is GRAPH:
        raise TypeError(
            "precision: 'bfloat16' is for the matrix products of layers, and a graph sums arrow by arrow; "
            f"expected None, got {precision!r}; write precision=None, or use layers from fnn.init"
        )
    dtype = kind(params).ports(params).dtype
    if dtype != np.float32:
        raise TypeError(
            "precision: 'bfloat16' rounds the factors of products to 8 bits and keeps the rest in float32; expected "
            f"float32 parameters, got {dtype}, which it would not keep; write precision=None, or fnn.init(..., "
            "dtype='float32')"
        )


def _epoch(feed, dropout, key, begun: tuple[Any, Any], epoch: int, history, mesh, **options):
    """The parameters and the optimizer's state after an epoch, and the losses of its steps; raises NonFinite."""
    found: list[Any] = []
    epoch_key = jax.random.fold_in(key, epoch)
    reached = begun if mesh is None else parallel.place(begun, mesh)
    for first, batches in feed.chunks(key, epoch):
        reached, *of_chunk = take_steps(
            reached, batches, first, dropout, epoch_key, scale=feed.scale, mesh=mesh, **options
        )
        found.append(of_chunk)
        # at most one chunk waits on the device, and none on a mesh, because several CPU devices stall on two at once
        jax.block_until_ready(found[-2:-1] if mesh is None else found)
    losses, finite = zip(*jax.device_get(found))
    if not all(finite):
        alone = feed if mesh is None else feed.feed
        again = alone.chunks(key, epoch)
        raise non_finite(begun, again, epoch, dropout, epoch_key, history, scale=feed.scale, **options)
    return reached if mesh is None else parallel.here(reached), np.concatenate(losses)
