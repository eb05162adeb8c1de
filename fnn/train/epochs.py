"""The epochs of a run, and its state after each."""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from fnn.checkpoint.directory import Checkpoint
from fnn.checkpoint.resume import Resumable
from fnn.display import Bar
from fnn.runs import Record, Run, State
from fnn.train.log import Log
from fnn.train.loop import mean_loss, take_steps
from fnn.train.nonfinite import non_finite
from fnn.train.watch import Watch


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during ``fit``; ``run`` is the run after the last complete epoch, which ``fit(run, ...)`` resumes.

    For ``fit_many``, ``run`` is the list of all members' runs.
    """

    def __init__(self, epoch: int, run: Run | list[Run]):
        super().__init__(epoch, run)  # all arguments, so that it can be pickled
        self.run = run

    def __str__(self) -> str:
        run = "error.run[i]" if isinstance(self.run, list) else "error.run"
        return f"stopped after epoch {self.args[0]}; write fit({run}, data, ...) to continue"


class Work(NamedTuple):
    """What a run is made of."""

    feed: Any
    given: tuple  # dropout, key, optimizer and tables, as ``loop.take_steps`` takes them
    options: dict[str, Any]  # its objective, and how several devices split the steps
    network: Callable  # (params, optimizer_state) -> the network for inference
    judge: Callable | None  # (network) -> its record on the held-out data, if there are any
    of_step: int  # the number of examples in a step's loss: 1, because it is a mean, or the size of its mini-batch
    same: dict[str, str]

    @property
    def key(self) -> Array:
        return self.given[1]

    def judged(self, trained) -> tuple[Any, Record]:
        """The network for inference and its record on the held-out data; None and no record without any."""
        if self.judge is None:
            return None, {}
        network = self.network(*trained)
        return network, self.judge(network)

    def run(self, reached: "Reached", network=None) -> Run:
        """What ``fit`` returns; network: for inference, if it is known."""
        state = State(reached.optimizer_state, reached.epoch, reached.step, self.key, reached.best_epoch, self.same)
        network = self.network(*reached[:2]) if network is None else network
        return Run(network, reached.params, reached.history, state, reached.best)


class Reached(NamedTuple):
    """What a run has reached: after its last whole epoch, or after the first steps of the next, with their losses.

    step: steps of whole epochs. best_epoch: 0 if there is no best network.
    """

    params: Any
    optimizer_state: Any
    history: list[Record]
    step: int = 0
    best: Any = None
    best_epoch: int = 0
    losses: Sequence[float] | np.ndarray = ()

    @property
    def epoch(self) -> int:
        return len(self.history)

    def saved(self, work: Work, keep: str | None, stopped: bool = False) -> Checkpoint:
        """For a checkpoint; the best network is beside the optimizer's state, if one is kept."""
        state, step = self.optimizer_state, self.step + len(self.losses)
        if keep is not None:
            best = work.network(*self[:2]) if self.best is None else self.best
            state = state, best, np.int32(self.best_epoch)
        losses = [float(loss) for loss in self.losses]
        return Checkpoint(self.params, state, work.key, self.epoch, step, self.history, stopped, losses)

    @classmethod
    def restored(cls, found: Checkpoint, keep: str | None) -> "Reached":
        """The inverse of :meth:`saved`."""
        state, best, best_epoch = found.optimizer_state, None, 0
        if keep is not None:
            state, best, best_epoch = state
        step, best = found.step - len(found.losses), best if best_epoch else None
        return cls(found.params, state, [*found.history], step, best, int(best_epoch), found.losses)


def trained(work: Work, kept: Resumable, begun: Reached, watch: Watch) -> Run:
    """Run the remaining epochs, until the callback or ``patience`` stops them."""
    found, left = kept.resume(begun.saved(work, watch.keep))
    reached = Reached.restored(found, watch.keep)
    started = watch.started - (reached.history[-1]["seconds"] if reached.history else 0)
    bar, network = Bar(kept.epochs, watch.progress, reached.epoch), None  # the network, as far as it is known
    whole = reached if not reached.losses else begun if kept.whole is None else Reached.restored(kept.whole, watch.keep)
    try:
        with bar, Log(watch.log, reached.history, kept.resumed or reached.epoch > 0) as log:
            for epoch in left:
                after, losses = _epoch(work, kept, reached, watch.keep)
                _say_unusual(work, reached, len(losses))
                network, of_held_out = work.judged(after)
                record = {"epoch": epoch, "loss": mean_loss(losses) / work.of_step} | of_held_out
                record["seconds"] = time.perf_counter() - started
                reached = watch.after(reached._replace(losses=()), after, len(losses), record, network)
                whole = reached
                bar.show(record, len(losses) * watch.batch_size)
                try:
                    stop = watch.told(reached)
                finally:
                    log.write(record)
                kept.after(reached.saved(work, watch.keep, stop))
                if stop:
                    break
    except KeyboardInterrupt as error:
        raise Interrupted(whole.epoch, work.run(whole)) from error
    return work.run(reached, network)


def _say_unusual(work: Work, reached: Reached, steps: int) -> None:
    """Warn of an epoch of ``Batches`` with another number of mini-batches than those before had on average."""
    usual = reached.step / max(1, reached.epoch)
    declared = work.same["batches_per_epoch"] != "None"
    if work.feed.examples is None and reached.epoch and steps != usual and not declared:
        warnings.warn(
            f"data: epoch {reached.epoch + 1} had {steps} mini-batches, those before {usual:g}; if all should have as "
            f"many, write batches_per_epoch={usual:.0f}, with which fewer are an error",
            stacklevel=5,
        )


def _epoch(work: Work, kept: Resumable, before: Reached, keep: str | None) -> tuple[tuple[Any, Any], np.ndarray]:
    """The parameters and the optimizer's state after an epoch, and the losses of its steps; raises NonFinite."""
    found: list[Any] = []
    epoch, done, split = before.epoch + 1, len(before.losses), work.options["split"]
    given = work.given[0], jax.random.fold_in(work.key, epoch), *work.given[2:]
    reached = before[:2] if split is None else split.place(before[:2])

    def at_hand() -> tuple[Any, Any]:
        return reached if split is None else split.at_hand(reached)

    for first, batches in work.feed.chunks(work.key, epoch, done, kept.overdue):
        if batches is None or (first > done and kept.due(first, epoch)):
            losses = _losses(work, before, found, given)
            found = [(losses[done:], True)]
            params, state = at_hand()
            kept.inside(before._replace(params=params, optimizer_state=state, losses=losses).saved(work, keep))
        reached, *of_chunk = take_steps(reached, batches, first, *given, scale=work.feed.scale, **work.options)
        found.append(of_chunk)
        # at most one chunk waits on the device, and none on several, because several CPU devices stall on two at once
        jax.block_until_ready(found[-2:-1] if split is None else found)
    return at_hand(), _losses(work, before, found, given)


def _losses(work: Work, before: Reached, found: list, given: tuple) -> np.ndarray:
    """The losses of the epoch's steps so far; found: those of its chunks, and whether all in them is finite."""
    if not found:
        return np.array(before.losses, np.float32)
    losses, finite = zip(*jax.device_get(found))
    if not all(finite):
        feed = work.feed if work.options["split"] is None else work.feed.feed
        again = feed.chunks(work.key, before.epoch + 1, len(before.losses))
        objective, scale = work.options["objective"], feed.scale
        raise non_finite(before[:2], again, before.epoch + 1, given, before.history, objective=objective, scale=scale)
    return np.concatenate([np.array(before.losses, losses[0].dtype), *losses])
