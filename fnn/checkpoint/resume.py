"""Resuming an interrupted run: the argument ``checkpoint`` of ``fit`` and those related to it."""

import contextlib
import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from fnn import numbers
from fnn.checkpoint import folders, orbax
from fnn.checkpoint.directory import Checkpoint, packed, resume
from fnn.checkpoint.fingerprint import ALLOWED, NO_IDENTITY, digest_of
from fnn.checkpoint.lock import locked
from fnn.processes import Processes, require_alike

KEEP = 3  # epochs: the newest, and two in reserve in case it is damaged
STEPS = "steps"  # the folder, beside those of the epochs, of what is saved inside an epoch
GRACE = 5  # seconds after a signal in which a new chunk of data may still come
SAME = "every process must give fit the same arguments"


class Keeping(NamedTuple):
    """The arguments of ``fit`` that concern checkpoints, under the same names."""

    checkpoint: str | os.PathLike | None
    every: int
    every_steps: int | None
    allow: Sequence[str]
    fresh: bool

    def checked(self, log=None) -> "Keeping":
        """The same, with a path for the directory; log: of ``fit``; raises TypeError or ValueError for an argument."""
        several = isinstance(self.allow, (tuple, list, set, frozenset))
        if not several or not all(isinstance(name, str) for name in self.allow):
            raise TypeError(f"allow: expected names of arguments, got {self.allow!r}; write allow=('optimizer',)")
        for name in self.allow:
            if name not in ALLOWED:
                raise ValueError(f"allow: expected names among {', '.join(ALLOWED)}, got {name!r}")
        if not isinstance(self.fresh, bool):
            raise TypeError(f"fresh: expected True or False, got {self.fresh!r}")
        directory = None if self.checkpoint is None else orbax.folder(self.checkpoint)
        if directory is not None and isinstance(log, (str, os.PathLike)):
            folders.require_apart(directory, log)
        return self._replace(
            checkpoint=directory,
            every=numbers.whole("every", self.every),
            every_steps=None if self.every_steps is None else numbers.whole("every_steps", self.every_steps),
        )

    def told(self) -> dict[str, str]:
        """What must be the same in every process; the directory's path may be another."""
        given = "None" if self.checkpoint is None else "a directory"
        plain = {name: str(getattr(self, name)) for name in ("every", "every_steps", "fresh")}
        return {"checkpoint": given, "allow": ", ".join(sorted(self.allow)) or "None"} | plain


class Resumable:
    """A context manager for the epochs of one run, with checkpoints if there is a directory.

    resumed: whether the directory existed before. A run creates it before training, so this holds even for a run that
    was killed before its first checkpoint. Inside the context, SIGTERM and Ctrl-C, unless whoever started the process
    has it ignore them, are noted, and :meth:`inside` or :meth:`after` saves what is reached and exits. A second Ctrl-C
    exits at once, with what was saved before. Processes that train together leave together, whichever was signalled.
    """

    def __init__(self, keeping: Keeping, epochs: int, same: dict[str, str], stops: bool, processes: Processes):
        self.keeping, self.epochs, self.same, self.stops = keeping, epochs, same, stops
        self.directory: Any = keeping.checkpoint
        self.processes = processes
        self.writer: orbax.Writer | None = None
        self.of_steps: orbax.Writer | None = None
        self.resumed = self.locked = False
        self.whole: Checkpoint | None = None  # the newest whole epoch in the directory
        self.saved = 0  # steps of the current epoch that are saved
        self.last_step = 0  # the newest that is saved inside an epoch
        self.signal: int | None = None  # to this process
        self.shared: int | None = None  # to any of several, as of their last exchange
        self.since = 0.0  # when it came
        self.context = contextlib.ExitStack()

    def resume(self, begun: Checkpoint) -> tuple[Checkpoint, range]:
        """What is reached so far, and the remaining epochs; begun: what is reached without the directory."""
        if self.directory is None:
            return begun, range(begun.epoch + 1, self.epochs + 1)
        self.resumed = self.directory.exists() and not self.keeping.fresh
        if self.keeping.fresh:
            self._set_aside()
        seen = self._seen()
        found = self._newest(begun)
        if self.processes.own == 0 and self._left(found):
            self._lock()
            if self._seen() != seen:  # another process has saved meanwhile
                found = self._newest(begun)
            folders.require_free(self.directory, self._left(found))
        reached = {"checkpoint": f"epoch {found.epoch}, step {found.step}"}  # else a process would train other epochs
        self.processes.require_same("where its checkpoint is read", reached, "name a directory that all processes see")
        left = self._left(found)
        if found is not begun:
            self._say_resumed(found, left)
        if left and self.processes.own == 0:
            after = 0 if self.whole is None else self.whole.epoch
            self.writer = self.context.enter_context(orbax.Writer(self.directory, KEEP, after))
        self.saved = len(found.losses)
        return found, left

    def _lock(self) -> None:
        if not self.locked:
            self.context.enter_context(locked(self.directory))
            self.locked = True

    def _seen(self) -> list:
        """What identifies the checkpoints that are there."""
        return [folders.identities(folder) for folder in (self.directory, self.directory / STEPS)]

    def _newest(self, begun: Checkpoint) -> Checkpoint:
        """The newest intact checkpoint, after an epoch or inside one, or ``begun`` if there is none."""
        given = begun.params, begun.optimizer_state, self.same
        self.whole = resume(self.directory, *given, self.keeping.allow)
        inside = self._inside(given)
        self.last_step = 0 if inside is None else inside.step
        found = max((one for one in (self.whole, inside) if one is not None), key=lambda one: one.step, default=begun)
        self._require_one_run(found, begun)
        return found

    def _left(self, found: Checkpoint) -> range:
        """The epochs that remain after a checkpoint."""
        finished = found.stopped and self.stops and "patience" not in self.keeping.allow
        return range(found.epoch + 1, found.epoch + 1 if finished else self.epochs + 1)

    def _inside(self, given: tuple[Any, Any, dict[str, str]]) -> Checkpoint | None:
        """What is saved inside an epoch, if it is intact; if not, the last whole epoch does, with a warning."""
        try:
            return resume(self.directory / STEPS, *given, self.keeping.allow)
        except ValueError as error:
            if self.whole is None:
                raise
            warnings.warn(f"resuming from the last complete epoch, because {error}", stacklevel=6)
            return None

    def _set_aside(self) -> None:
        """Move the checkpoints of an earlier run to a folder beside those of the new one."""
        names = [*map(str, orbax.epochs(self.directory)), *([STEPS] if orbax.epochs(self.directory / STEPS) else [])]
        if names and self.processes.own == 0:
            self._lock()
            places = (self.directory / f"before-{number}" for number in itertools.count(1))
            aside = next(place for place in places if not place.exists())
            aside.mkdir()
            for name in names:
                os.rename(self.directory / name, aside / name)
        self.processes.exchange("fit, before it starts over", {})

    def _require_one_run(self, found: Checkpoint, begun: Checkpoint) -> None:
        """Raise ValueError unless the directory's run is ``begun`` with further epochs, and no more than were asked."""
        if str([*found.history[: begun.epoch]]) != str([*begun.history]):  # NaN does not equal itself
            raise ValueError(
                f"checkpoint: {self.directory} does not hold the run to resume, which has {begun.epoch} epochs; "
                "name another directory"
            )
        if found.epoch > self.epochs:
            raise ValueError(
                f"epochs: the run in {self.directory} has done {found.epoch}, got epochs={self.epochs}; "
                f"write epochs={found.epoch} or more, or name another directory"
            )

    def _say_resumed(self, found: Checkpoint, left: range) -> None:
        """Warn that a result is not a new one, or of what is not known of the data."""
        if not left:
            how = "its callback or patience stopped it" if found.stopped else "it is finished"
            warnings.warn(
                f"checkpoint: {self.directory} holds this run, and {how} after epoch {found.epoch}: its result is "
                "returned and nothing is trained; to train, write a larger epochs, fresh=True, or another directory",
                stacklevel=6,
            )
        elif self.same.get("data") == NO_IDENTITY:
            warnings.warn(
                f"data: these Batches were not compared with those of the run in {self.directory}; write "
                "Batches(make, identity='name, version')",
                stacklevel=6,
            )

    @property
    def leaving(self) -> int | None:
        """The signal for which the run is to be left, now; for several processes one that all know of."""
        return self.shared if self.processes.count > 1 else self.signal

    def overdue(self) -> bool:
        """Whether a signal came so long ago that the run does not wait for data any more."""
        return self.signal is not None and time.monotonic() - self.since > GRACE

    def due(self, done: int, epoch: int) -> bool:
        """Whether to save inside the epoch, after ``done`` of its steps."""
        if self.directory is None:
            return False
        if self.processes.count > 1:
            self._share_signals(f"epoch {epoch}, step {done}", {"steps": str(done)})
        every = self.keeping.every_steps
        return self.leaving is not None or (every is not None and done - self.saved >= every)

    def inside(self, reached: Checkpoint) -> None:
        """Save what is reached inside an epoch; exit if a signal was received."""
        if self.overdue() and self.processes.count > 1:  # the others do not wait for data, and are told
            raise SystemExit(128 + (self.signal or signal.SIGTERM))
        self.saved = len(reached.losses)
        if self.writer is not None:
            if self.of_steps is None:
                self.of_steps = self.context.enter_context(orbax.Writer(self.directory / STEPS, 1, self.last_step))
            if reached.step > self.last_step:
                self.of_steps.save(reached.step, *packed(reached, self.same))
                self.last_step = reached.step
        if self.leaving is not None:
            self._leave()

    def after(self, reached: Checkpoint) -> None:
        """Save what is reached after an epoch if that is due; exit if a signal was received."""
        epoch, self.saved = reached.epoch, 0
        if self.processes.count > 1:
            # only what all have is compared; a stop in one process only would leave the others waiting
            ours = {"params": digest_of((reached.params, reached.optimizer_state)), "callback": _stops(reached)}
            self._share_signals(f"at the end of epoch {epoch}", ours)
        due = epoch % self.keeping.every == 0 or epoch == self.epochs or reached.stopped
        if self.writer is not None and (due or self.leaving is not None):
            self.writer.save(epoch, *packed(reached, self.same))
        if self.leaving is not None:
            self._leave()

    def _share_signals(self, what: str, same: dict[str, str]) -> None:
        """Raise ValueError unless all processes are at the same point; a signal to one is one to all."""
        told = self.processes.exchange(what, same | {"signal": str(self.signal or 0)})
        require_alike(what, [{name: of_one[name] for name in same} for of_one in told], SAME)
        self.shared = next((int(of_one["signal"]) for of_one in told if of_one["signal"] != "0"), None)

    def _leave(self, together: bool = True) -> None:
        for writer in (self.writer, self.of_steps):
            if writer is not None:
                writer.finish()
        if self.processes.count > 1:
            if together:
                self.processes.exchange("leaving after a signal", {})  # until the checkpoint is complete
                jax.distributed.shutdown()  # or those that leave last would miss those that leave first
            raise SystemExit(128 + (self.shared or self.signal or signal.SIGTERM))
        raise KeyboardInterrupt if self.signal == signal.SIGINT else SystemExit(128 + signal.SIGTERM)

    def _signalled(self, number: int, frame) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal, self.since = number, time.monotonic()

    def __enter__(self) -> "Resumable":
        if self.directory is not None and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is signal.SIG_IGN:  # by nohup, or for a job in the background
                    continue
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
            self._leave(together=False)


def _stops(reached: Checkpoint) -> str:
    return "a stop" if reached.stopped else "no stop"
