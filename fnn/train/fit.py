"""``fit``: epoch after epoch, with a record of each."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from fnn import parallel
from fnn.backward import RULES, Rules
from fnn.checkpoint.directory import Checkpoint
from fnn.checkpoint.fingerprint import describe, differences, key_text
from fnn.checkpoint.resume import Resumable, settings
from fnn.checks import arrays
from fnn.data import for_network
from fnn.display import Bar
from fnn.dropout import DropConnect, Dropout
from fnn.functions import Objective
from fnn.kinds import GRAPH, AnyParams, kind, require_rules
from fnn.losses import Loss, SquaredError
from fnn.numbers import whole
from fnn.optimizers import Optimizer
from fnn.precision import BFLOAT16
from fnn.runs import Record, Run, State
from fnn.train.devices import Spread
from fnn.train.evaluation import evaluator, folded, require_network
from fnn.train.feed import feed_of
from fnn.train.log import Log
from fnn.train.loop import begin, for_evaluation, mean_loss, require_training, take_steps
from fnn.train.nonfinite import non_finite
from fnn.train.watch import Progress, Watch, require_watching

PRECISIONS = ("bfloat16", None)
STATISTICS_EXAMPLES = 10_000  # for batch-norm statistics: enough for three digits of a variance


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during ``fit``; ``run`` is the run as of the last whole epoch, which ``fit(run, ...)`` continues.

    Of ``fit_many``, ``run`` is the list of all members' runs.
    """

    def __init__(self, epoch: int, run: Run | list[Run]):
        super().__init__(epoch, run)  # all arguments, so that it can be pickled
        self.run = run

    def __str__(self) -> str:
        run = "error.run[i]" if isinstance(self.run, list) else "error.run"
        return f"stopped after epoch {self.args[0]}; write fit({run}, data, ...) to continue"


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
    mesh: jax.sharding.Mesh | None = None,
) -> Run:
    """Train for ``epochs`` passes over ``data`` and return a :class:`fnn.train.Run`.

    params: from ``fnn.init`` or ``graph.init``; not modified. Or the ``Run`` of an earlier call, which goes on.
    data, validation: a ``Dataset``, in memory or memory-mapped, or (x, y) or (x, y, weights); data may also be
    ``fnn.data.Batches``. optimizer: from ``fnn.updates`` or optax. loss: see ``fnn.losses``. epochs ≥ 1. batch_size:
    1 … N; for ``Batches``, the size of its mini-batches. key: ``jax.random.key(seed)``, for shuffles and masks; a run
    has its own. reduction: "mean" or "sum" over a mini-batch. dropout: draws fresh masks at every step. rules: the
    equations to train with. precision: None, or "bfloat16", which is ``rules=fnn.BFLOAT16``. keep: "best" keeps the
    network of the epoch with the lowest validation loss in ``Run.best``, "best_accuracy" that with the highest
    accuracy. patience: stops after so many epochs without a better one, by validation loss or what ``keep`` names.
    callback: called after every epoch with a :class:`Progress`; returning True stops, and a dict of numbers joins the
    record. progress: True shows a bar with loss, held-out accuracy and examples per second, False none, None one in a
    terminal or a notebook (needs tqdm). log: the path of a new file for the records, with one line of JSON written at
    the end of each epoch. checkpoint: a directory; the run resumes from the newest intact checkpoint in it, see below.
    every: epochs between checkpoints, ≥ 1. mesh: ``fnn.parallel.data_mesh()`` shards every mini-batch over its
    devices, whose number must divide batch_size; only the order of sums differs. The results are on this process's
    first device in the mesh.

    A record holds "epoch", "loss" (of one example, the mean over the epoch's mini-batches, each before its step),
    "seconds" since the start and, with ``validation``, "validation_loss" and (for labels or one-hot rows)
    "validation_accuracy". The held-out data are evaluated on ``Run.network``, the network folded by ``fnn.fold`` if
    there is dropout or a batch norm, with statistics from a fixed set of mini-batches of at most 10,000 training
    examples.

    ``fit(run, data, ...)`` trains ``epochs`` more: moments, epoch numbers and shuffles continue, so that with equal
    arguments the result is bitwise that of one longer call. Ctrl-C raises ``fnn.train.Interrupted``, a
    KeyboardInterrupt with the ``run`` as of the last whole epoch.

    With ``checkpoint``, the run is saved after every ``every`` epochs and after the last. Repeating the same call after
    any interruption, even a kill, resumes it with a bitwise identical result (except ``seconds``). A finished run
    returns its result at once; a larger ``epochs`` continues it. SIGTERM and Ctrl-C end it with SystemExit(143) and
    ``Interrupted`` once the current epoch is saved, a second Ctrl-C at once. Raises ValueError if the directory holds
    a different run, naming the differences, or no intact checkpoint, BlockingIOError if another run is writing to it,
    and OSError if it cannot be read or written; existing checkpoints stay intact. Needs orbax-checkpoint.

    One program is compiled for all epochs (two if the last chunk of streamed data is shorter), and none by a second
    ``fit`` with equal shapes, loss and optimizer, whose rates may differ (``fnn.optimizers``). Rules that train
    something else than the parameters are refused: ``optax.lookahead``, ``optax.contrib.sophia``, and
    ``optax.contrib.sam`` unless opaque. Raises TypeError or ValueError that names the argument, or OSError for
    ``log``, before training starts. Raises ``fnn.train.NonFinite`` at the end of an epoch in which the loss, the
    parameters or the optimizer's state became NaN or infinite, with the first equation that did and the parameters
    from before that epoch.
    """
    started = time.perf_counter()
    before = _before(params, key)
    key, params = before.state.key, before.params
    rules = _rules(rules, precision, params)
    require_training(params, optimizer, loss, reduction, dropout)
    feed: Any = feed_of(data, params, loss, batch_size, before.state.epoch + 1)
    objective = Objective(feed.loss, reduction, rules)
    epochs = whole("epochs", epochs)
    if validation is not None:
        validation = for_network(validation, kind(params).ports(params), loss, "validation")
    require_watching(callback, keep, patience, validation)
    fixed: dict[str, Any] = {"key": key, "dropout": dropout, "batch_size": batch_size}
    same = settings(objective, examples=feed.examples, keep=keep, **fixed)
    rule = Optimizer(optimizer)
    begun = _begun(before, rule)
    if mesh is not None:
        parallel.require_mesh(mesh, batch_size)
        parallel.require_equal(params=params, data=feed.arrays, epochs=epochs, **fixed)
        feed = Spread(feed, mesh)
    sample = feed.sample(key, STATISTICS_EXAMPLES) if kind(params).has_norm(params) else None
    work = _Work(
        partial(_epoch, feed, dropout, key, rule, objective=objective, mesh=mesh),
        partial(_network, x=sample, dropout=dropout, scale=feed.scale),
        evaluator(validation, kind(params).ports(params), loss),
        batch_size if reduction == "sum" else 1,
        key,
        same,
    )
    until, stops = begun.epoch + epochs, callback is not None or patience is not None
    kept = Resumable(checkpoint, every=every, epochs=until, same=same, stops=stops, log=log)
    watch = Watch(started, progress, log, callback, batch_size, keep, patience)
    with closing(feed), kept:
        return _trained(work, kept, begun, watch)


class _Work(NamedTuple):
    """What a run is made of."""

    train: Callable  # ((params, optimizer_state), epoch, history) -> the same after the epoch, and its steps' losses
    network: Callable  # (params, optimizer_state) -> the network for inference
    judge: Callable | None  # (network) -> its record on the held-out data, if there are any
    of_step: int  # the number of examples in a step's loss: 1, because it is a mean, or the size of its mini-batch
    key: Array
    same: dict[str, str]

    def judged(self, trained) -> tuple[Any, Record]:
        """The network for inference and its record on the held-out data; None and no record without any."""
        if self.judge is None:
            return None, {}
        network = self.network(*trained)
        return network, self.judge(network)

    def run(self, reached: "_Reached", network=None) -> Run:
        """What ``fit`` returns; network: for inference, if it is known."""
        state = State(reached.optimizer_state, reached.epoch, reached.step, self.key, reached.best_epoch, self.same)
        network = self.network(*reached[:2]) if network is None else network
        return Run(network, reached.params, reached.history, state, reached.best)


class _Reached(NamedTuple):
    """What a run has reached after its last whole epoch; best_epoch: 0 if there is no best network."""

    params: Any
    optimizer_state: Any
    history: list[Record]
    step: int = 0
    best: Any = None
    best_epoch: int = 0

    @property
    def epoch(self) -> int:
        return len(self.history)

    def saved(self, work: _Work, keep: str | None, stopped: bool = False) -> Checkpoint:
        """For a checkpoint; the best network is beside the optimizer's state, if one is kept."""
        state = self.optimizer_state
        if keep is not None:
            best = work.network(*self[:2]) if self.best is None else self.best
            state = state, best, np.int32(self.best_epoch)
        return Checkpoint(self.params, state, work.key, self.epoch, self.step, self.history, stopped)

    @classmethod
    def restored(cls, found: Checkpoint, keep: str | None) -> "_Reached":
        """The inverse of :meth:`saved`."""
        state, best, best_epoch = found.optimizer_state, None, 0
        if keep is not None:
            state, best, best_epoch = state
        return cls(found.params, state, [*found.history], found.step, best if best_epoch else None, int(best_epoch))


def _trained(work: _Work, kept: Resumable, begun: _Reached, watch: Watch) -> Run:
    """Run the remaining epochs, until the callback or impatience stops them."""
    found, left = kept.resume(begun.saved(work, watch.keep))
    reached = _Reached.restored(found, watch.keep)
    started = watch.started - (reached.history[-1]["seconds"] if reached.history else 0)
    bar, network = Bar(kept.epochs, watch.progress, reached.epoch), None  # the network, as far as it is known
    try:
        with bar, Log(watch.log, reached.history, kept.resumed or reached.epoch > 0) as log:
            for epoch in left:
                trained, losses = work.train(reached[:2], epoch, reached.history)
                network, of_held_out = work.judged(trained)
                record = {"epoch": epoch, "loss": mean_loss(losses) / work.of_step} | of_held_out
                record["seconds"] = time.perf_counter() - started
                reached = watch.after(reached, trained, len(losses), record, network)
                bar.show(record, len(losses) * watch.batch_size)
                try:
                    stop = watch.told(reached)
                finally:
                    log.write(record)
                kept.after(reached.saved(work, watch.keep, stop))
                if stop:
                    break
    except KeyboardInterrupt as error:
        raise Interrupted(reached.epoch, work.run(reached)) from error
    return work.run(reached, network)


def _before(params, key) -> Run:
    """The run that goes on: the one given, or one of no epochs. Raises TypeError or ValueError for its key."""
    if not isinstance(params, Run):
        arrays.prng_key(key)
        return Run(None, require_network(params), [], State(None, 0, 0, key))
    own = params.state.key
    if key is not None:
        arrays.prng_key(key)
        if key_text(key) != key_text(own):
            raise ValueError("key: expected that of the run, which draws its shuffles and masks; leave key out")
    return params


def _begun(before: Run, optimizer: Optimizer) -> _Reached:
    """What is reached before the first epoch; raises ValueError if the optimizer is not the run's."""
    params, state = begin(optimizer, before.params)
    if not before.history:
        return _Reached(params, state, [])
    lines = differences(describe("state", before.state.optimizer_state), describe("state", state), "of the run")
    if lines:
        raise ValueError(
            "optimizer: its state is not like that of the run:\n  " + "\n  ".join(lines) + "\n"
            "go on with the optimizer that the run had, or write fit(run.params, ...) to begin with this one"
        )
    held = before.state
    history = [dict(record) for record in before.history]
    return _Reached(params, held.optimizer_state, history, held.step, before.best, held.best_epoch)


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
            f"precision: 'bfloat16' is rules=fnn.BFLOAT16, got other rules too, {rules}; write precision=None"
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


def _epoch(feed, dropout, key, optimizer, begun: tuple[Any, Any], epoch: int, history, *, mesh, **options):
    """The parameters and the optimizer's state after an epoch, and the losses of its steps; raises NonFinite."""
    found: list[Any] = []
    given = dropout, jax.random.fold_in(key, epoch), optimizer
    reached = begun if mesh is None else parallel.place(begun, mesh)
    for first, batches in feed.chunks(key, epoch):
        reached, *of_chunk = take_steps(reached, batches, first, *given, scale=feed.scale, mesh=mesh, **options)
        found.append(of_chunk)
        # at most one chunk waits on the device, and none on a mesh, because several CPU devices stall on two at once
        jax.block_until_ready(found[-2:-1] if mesh is None else found)
    losses, finite = zip(*jax.device_get(found))
    if not all(finite):
        alone = feed if mesh is None else feed.feed
        again = alone.chunks(key, epoch)
        raise non_finite(begun, again, epoch, given, history, scale=feed.scale, **options)
    return reached if mesh is None else parallel.here(reached), np.concatenate(losses)
