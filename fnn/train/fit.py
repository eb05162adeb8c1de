"""``fit``: train for some epochs, with a record of each."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax import Array

from fnn.backward import RULES, Rules
from fnn.checkpoint.fingerprint import describe, differences, key_text
from fnn.checkpoint.resume import SAME, Keeping, Resumable
from fnn.checks import arrays
from fnn.data import for_network
from fnn.dropout import DropConnect, Dropout
from fnn.functions import Objective
from fnn.kinds import GRAPH, AnyParams, kind, require_rules
from fnn.losses import Loss, SquaredError
from fnn.numbers import whole
from fnn.optimizers import Optimizer
from fnn.precision import BFLOAT16
from fnn.processes import Processes
from fnn.runs import Run, State
from fnn.train.epochs import Reached, Work, trained
from fnn.train.evaluation import evaluator, folded, require_network
from fnn.train.feed import Pace, feed_of
from fnn.train.identity import Given, identity, settings
from fnn.train.loop import begin, for_evaluation, require_training
from fnn.train.shards import split_of
from fnn.train.watch import Progress, Watch, require_watching

PRECISIONS = ("bfloat16", None)
STATISTICS_EXAMPLES = 10_000  # for batch-norm statistics: enough for three digits of a variance


def fit(
    params: AnyParams | Run,
    data,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss = SquaredError(),
    epochs: int,
    batch_size: int,
    key: Array | None = None,
    validation=None,
    dropout: Dropout | DropConnect | None = None,
    reduction: str = "mean",
    rules: Rules = RULES,
    precision: str | None = None,
    keep: str | None = None,
    patience: int | None = None,
    callback: Callable[[Progress], bool | Mapping[str, float] | None] | None = None,
    progress: bool | None = None,
    log: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 1,
    every_steps: int | None = None,
    allow: Sequence[str] = (),
    fresh: bool = False,
    batches_per_epoch: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    shard: str = "data",
) -> Run:
    """Train for ``epochs`` passes over ``data`` and return a :class:`fnn.train.Run`.

    params: from ``fnn.init`` or ``graph.init``; not modified. Or the ``Run`` of an earlier call, to resume it.
    data, validation: a ``Dataset``, in memory or memory-mapped, or (x, y) or (x, y, weights); data may also be
    ``fnn.data.Batches``. optimizer: from ``fnn.updates`` or optax. loss: see ``fnn.losses``. epochs ≥ 1. batch_size:
    1 … N; for ``Batches``, the size of its mini-batches. key: ``jax.random.key(seed)``, for shuffles and masks; a run
    brings its own. reduction: "mean" or "sum" over a mini-batch. dropout: draws fresh masks at every step. rules: the
    equations to train with. precision: None, or "bfloat16", which is ``rules=fnn.BFLOAT16``. keep: "best" keeps the
    network from the epoch with the lowest validation loss in ``Run.best``, "best_accuracy" the one with the highest
    accuracy. patience: stop after this many epochs without improvement in the validation loss, or in what ``keep``
    names. callback: called after every epoch with a :class:`Progress`; returning True stops, and a dict of numbers
    joins the record. progress: True shows a bar with loss, held-out accuracy and examples per second, False none, None
    one in a terminal or a notebook (needs tqdm). log: the path of a new file for the records, with one line of JSON
    written at the end of each epoch. checkpoint: a directory; the run resumes from the newest intact checkpoint in it,
    see below. every: epochs between checkpoints, ≥ 1. every_steps: steps between additional checkpoints within an
    epoch, ≥ 1, or None. allow: names of the arguments that may differ from those of the run in the directory. fresh:
    True starts over and moves its checkpoints aside. batches_per_epoch: the number of mini-batches in an epoch of
    ``Batches``; fewer are an error, and the rest is not drawn. mesh: ``fnn.parallel.data_mesh()``, the devices that
    share the work; only the order of summation differs. shard: "data" or "layers", what is split over them, see below.

    A record holds "epoch", "loss" (per example, averaged over the epoch's mini-batches, each before its step),
    "seconds" since the start and, with ``validation``, "validation_loss" and (for labels or one-hot rows)
    "validation_accuracy". The held-out data are evaluated on ``Run.network``, the network folded by ``fnn.fold`` if
    there is dropout or a batch norm, with statistics from a fixed set of mini-batches of at most 10,000 training
    examples.

    ``fit(run, data, ...)`` trains for ``epochs`` more. The optimizer state, epoch numbers and shuffles carry over, so
    with equal arguments the result is bitwise that of one longer call. (Bitwise, here and below, means on a CPU, or on
    a GPU with ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``; otherwise a GPU may round sums differently in every run.)
    Ctrl-C raises ``fnn.train.Interrupted``, a KeyboardInterrupt with the ``run`` after the last complete epoch.

    With ``checkpoint``, the run is saved after every ``every`` epochs and after the last. Repeating the same call after
    any interruption, even a kill, resumes it with a bitwise identical result (except ``seconds``). If the run is
    finished, its result is returned at once with a UserWarning; a larger ``epochs`` continues it. Everything that
    affects the result is compared (``fnn.train.identity``): data, initial parameters, optimizer with its rates, loss,
    validation, key and so on. A difference raises a ValueError that names it, unless ``allow`` names the argument, as
    in ``allow=("optimizer",)``. A different version of JAX or different devices give a warning. ``fresh=True`` moves
    the old checkpoints to the subfolder "before-1" and starts over.

    SIGTERM and Ctrl-C end the run with SystemExit(143) and ``Interrupted`` once its state is saved: after the current
    epoch, or for streamed data after the current chunk, waiting 5 s at most. A second Ctrl-C ends it at once. A signal
    that the process was started to ignore stays ignored. With ``every_steps``, and after a signal, the state within an
    epoch is saved at the end of a chunk, with the position in the data; on resuming, the mini-batches of ``Batches`` up
    to it are drawn and skipped. Raises ValueError if no checkpoint is intact, BlockingIOError if another run is writing
    to the directory, and OSError if it cannot be read or written; existing checkpoints stay intact. Needs
    orbax-checkpoint.

    With ``mesh`` and ``shard="data"``, every device holds all parameters and its rows of every mini-batch; the number
    of devices must divide batch_size, and the results are on this process's first device in the mesh. With
    ``shard="layers"``, for layers too large for one device, every device holds its rows of every W, of b and of the
    optimizer's state, and the whole mini-batch; the number of devices must divide the hidden widths, and an output
    layer that it does not divide is replicated. The results stay in these shards, which ``evaluate``, ``predict``,
    ``fit(run, ...)`` and checkpoints accept; a checkpoint may resume on other devices, or with the other ``shard``. For
    networks of layers, in one process.

    With ``mesh`` and several processes, all compare this identity before the first step, and their parameters at the
    end of every epoch. If they differ, or if a process has ended or does not respond, all others raise an error that
    names it. A signal to one ends all, with the checkpoint saved.

    One program is compiled for all epochs (two if the last chunk of streamed data is shorter). A second ``fit`` with
    equal shapes, loss and optimizer compiles nothing, even if its rates differ (``fnn.optimizers``). Optimizers that
    train something other than the parameters are refused: ``optax.lookahead``, ``optax.contrib.sophia``, and
    ``optax.contrib.sam`` unless opaque. Raises TypeError or ValueError that names the argument, or OSError for ``log``,
    before training starts. Raises ``fnn.train.NonFinite`` at the end of an epoch in which the loss, the parameters or
    the optimizer's state became NaN or infinite, with the first equation that did and the parameters from before that
    epoch.
    """
    started = time.perf_counter()
    before = _before(params, key)
    key, params = before.state.key, before.params
    rules = _rules(rules, precision, params)
    require_training(params, optimizer, loss, reduction, dropout)
    feed: Any = feed_of(data, params, loss, Pace(batch_size, batches_per_epoch, every_steps), before.state.epoch + 1)
    objective = Objective(feed.loss, reduction, rules)
    epochs = whole("epochs", epochs)
    if validation is not None:
        validation = for_network(validation, kind(params).ports(params), loss, "validation")
    require_watching(callback, keep, patience, validation)
    keeping = Keeping(checkpoint, every, every_steps, allow, fresh).checked(log)
    split = split_of(mesh, shard, params, feed.batch_size)
    watch = Watch(started, progress, log, callback, batch_size, keep, patience)
    own = {"batch_size": batch_size, "keep": keep, "patience": patience, "batches_per_epoch": batches_per_epoch}
    plain = settings(objective, key=key, dropout=dropout, examples=feed.examples, **own)
    given = Given(before, feed.data, validation, Optimizer(optimizer), objective, plain)
    begun = _begun(before, given.optimizer, split)
    work = _work(given, feed if split is None else split.feed(feed), dropout, split, loss)
    return _run(work, begun, watch, keeping, given, begun.epoch + epochs)


def _work(given: Given, feed, dropout, split, loss: Loss) -> Work:
    """What the run is made of; loss: as it was given, without the weights of the training data."""
    params, key = given.before.params, given.before.state.key
    of = kind(params)
    sample = feed.sample(key, STATISTICS_EXAMPLES) if of.has_norm(params) else None
    return Work(
        feed,
        (dropout, key, given.optimizer, of.tables(params, given.objective.rules)),
        {"objective": given.objective, "split": split},
        partial(_network, x=sample, dropout=dropout, tables=of.tables(params, RULES), scale=feed.scale),
        evaluator(given.validation, of.ports(params), loss),
        feed.batch_size if given.objective.reduction == "sum" else 1,
        given.settings,
    )


def _run(work: Work, begun: Reached, watch: Watch, keeping: Keeping, given: Given, epochs: int) -> Run:
    """Train until ``epochs`` are done, after the processes have agreed on what, if there are several."""
    processes = Processes(work.options["split"] is not None)
    with closing(work.feed), processes:
        if keeping.checkpoint is not None or processes.count > 1:
            work = work._replace(same=identity(given))
            told = work.same | {"epochs": str(epochs)} | keeping.told()
            processes.require_same("at the start of fit", told, SAME)
        stops = watch.callback is not None or watch.patience is not None
        with Resumable(keeping, epochs, work.same, stops, processes) as kept:
            return trained(work, kept, begun, watch)


def _before(params, key) -> Run:
    """The run to resume: the one given, or one of no epochs. Raises TypeError or ValueError for its key."""
    if not isinstance(params, Run):
        arrays.prng_key(key)
        return Run(None, require_network(params), [], State(None, 0, 0, key))
    own = params.state.key
    if key is not None:
        arrays.prng_key(key)
        if key_text(key) != key_text(own):
            raise ValueError("key: expected the run's own key, which draws its shuffles and masks; leave key out")
    return params


def _begun(before: Run, optimizer: Optimizer, split) -> Reached:
    """What is reached before the first epoch; raises ValueError if the optimizer is not the run's."""
    params, state = begin(optimizer, before.params if split is None else split.home(before.params), split)
    if not before.history:
        return Reached(params, state, [])
    lines = differences(describe("state", before.state.optimizer_state), describe("state", state), "of the run")
    if lines:
        raise ValueError(
            "optimizer: its state does not match that of the run:\n  " + "\n  ".join(lines) + "\n"
            "resume with the run's optimizer, or write fit(run.params, ...) to start with this one"
        )
    held = before.state
    history = [dict(record) for record in before.history]
    return Reached(params, held.optimizer_state, history, held.step, before.best, held.best_epoch)


def _network(params, optimizer_state, **options):
    """The network for inference."""
    return folded(for_evaluation(params, optimizer_state), **options)


def _rules(rules: Rules, precision: str | None, params) -> Rules:
    """The equations to train with; raises TypeError or ValueError."""
    require_rules(rules)
    _require_precision(precision, params)
    if precision is None:
        return rules
    if rules != RULES:
        raise ValueError(
            f"precision: 'bfloat16' means rules=fnn.BFLOAT16, but got other rules too, {rules}; write precision=None"
        )
    return BFLOAT16


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
