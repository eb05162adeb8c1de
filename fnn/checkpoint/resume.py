"""Resuming an interrupted run: the argument ``checkpoint`` of ``fit``."""

import contextlib
import os
import signal
import threading

import jax
import numpy as np

from fnn import parallel
from fnn.checkpoint import folders, orbax
from fnn.checkpoint.directory import Checkpoint, packed, resume
from fnn.checkpoint.fingerprint import content, describe, functions, key_text, static
from fnn.checkpoint.lock import locked
from fnn.functions import Objective
from fnn.numbers import whole

KEEP = 3  # epochs: the newest, and two in reserve in case it is damaged


def settings(objective: Objective, *, key, batch_size: int, examples: int | None, dropout, keep) -> dict[str, str]:
    """What must match for a run to resume, besides its parameters and optimizer."""
    plain = {"batch_size": batch_size, "examples": examples, "reduction": objective.reduction, "keep": keep}
    texts = {name: str(value) for name, value in plain.items()}
    texts |= {"key": key_text(key), "loss": static(objective.loss), "rules": functions(objective.rules)}
    return texts | describe("dropout", dropout, leaf=content)


class Resumable:
    """A context manager for the epochs of one run, with checkpoints in ``directory``, or none if that is None.

    resumed: whether the directory existed before. A run creates it before training, so this holds even for a run that
    was killed before its first checkpoint. Inside the context, SIGTERM and Ctrl-C let the current epoch finish, and
    :meth:`after` saves it and exits. A second Ctrl-C exits at once, with what was saved before.
    """

    def __init__(self, directory, *, every: int, epochs: int, same: dict[str, str], stops: bool, log=None):
        self.every, self.epochs = whole("every", every), epochs
        self.directory = None if directory is None else orbax.folder(directory)
        if self.directory is not None and isinstance(log, (str, os.PathLike)):
            folders.require_apart(self.directory, log)
        self.same, self.stops = same, stops
        self.writer: orbax.Writer | None = None
        self.resumed = False
        self.signal: int | None = None
        self.context = contextlib.ExitStack()

    def resume(self, begun: Checkpoint) -> tuple[Checkpoint, range]:
        """What is reached so far, and the remaining epochs; begun: what is reached without the directory."""
        if self.directory is None:
            return begun, range(begun.epoch + 1, self.epochs + 1)
        self.resumed, seen = self.directory.exists(), folders.identities(self.directory)
        found = self._newest(begun)
        if jax.process_index() == 0 and self._left(found):
            self.context.enter_context(locked(self.directory))
            if folders.identities(self.directory) != seen:  # another process has saved meanwhile
                found = self._newest(begun)
            folders.require_free(self.directory, self._left(found))
        if jax.process_count() > 1:  # a process that cannot read the newest must not train other epochs
            from jax.experimental import multihost_utils

            multihost_utils.assert_equal(np.int32(found.epoch), f"{self.directory}: not the same for all processes")
        left = self._left(found)
        if left and jax.process_index() == 0:
            self.writer = self.context.enter_context(orbax.Writer(self.directory, KEEP, found.epoch))
        return found, left

    def _newest(self, begun: Checkpoint) -> Checkpoint:
        """The newest intact checkpoint, or ``begun`` if there is none."""
        found = resume(self.directory, begun.params, begun.optimizer_state, self.same) or begun
        self._require_one_run(found, begun)
        return found

    def _left(self, found: Checkpoint) -> range:
        """The epochs that remain after a checkpoint."""
        return range(found.epoch + 1, found.epoch + 1 if found.stopped and self.stops else self.epochs + 1)

    def _require_one_run(self, found: Checkpoint, begun: Checkpoint) -> None:
        """Raise ValueError unless the directory's run is ``begun`` with further epochs, and no more than were asked."""
        if str([*found.history[: begun.epoch]]) != str([*begun.history]):  # NaN does not equal itself
            raise ValueError(
                f"checkpoint: {self.directory} does not hold the run that goes on, with its {begun.epoch} epochs; "
                "name another directory"
            )
        if found.epoch > self.epochs:
            raise ValueError(
                f"epochs: the run in {self.directory} has done {found.epoch}, got epochs={self.epochs}; "
                f"write epochs={found.epoch} or more, or name another directory"
            )

    def after(self, reached: Checkpoint) -> None:
        """Save what is reached after an epoch if that is due; exit if a signal was received."""
        epoch, leaves = reached.epoch, self.signal is not None
        if self.writer is not None and (epoch % self.every == 0 or epoch == self.epochs or reached.stopped or leaves):
            self.writer.save(epoch, *packed(reached, self.same))
        if leaves:
            self._leave()

    def _leave(self) -> None:
        if self.writer is not None:
            self.writer.finish()
        if jax.process_count() > 1:  # a normal exit waits for the other processes
            parallel.leave(128 + (self.signal or signal.SIGTERM))
        raise KeyboardInterrupt if self.signal == signal.SIGINT else SystemExit(128 + signal.SIGTERM)

    def _signalled(self, number: int, frame) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = self.signal or number

    def __enter__(self) -> "Resumable":
        if self.directory is not None and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before = signal.signal(number, self._signalled)
                self.context.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            self.context.close()
        except OSError as late:
            if error is None:
                raise
            error.add_note(str(late))  # the error that ended the run comes first
        if error is None and self.signal is not None:  # the signal came after the last epoch
            self._leave()
