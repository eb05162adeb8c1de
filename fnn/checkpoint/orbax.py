"""The folders of a checkpoint directory, through orbax-checkpoint, which is imported on first read or write."""

import contextlib
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np


def folder(directory) -> Path:
    """``directory`` as an absolute path; raises TypeError unless it is a path."""
    if not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"checkpoint: expected the path of a directory, got {directory!r}; write checkpoint='run'")
    path = Path(directory).absolute()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"checkpoint: {directory} is a file; name a directory")
    return path


def epochs(directory) -> list[int]:
    """The epochs with a finished folder in ``directory``, damaged or not, in ascending order."""
    path = folder(directory)
    names = [entry.name for entry in path.iterdir() if entry.is_dir()] if path.exists() else []
    return sorted(int(name) for name in names if name.isdecimal())


def read(directory, epoch: int, item: str, like: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    """The item "meta" or "state" of a folder; like: arrays with the dtypes and shapes of those in "state".

    If the folder is damaged, raises whatever orbax raises, of any type.
    """
    ocp = _orbax()
    args = ocp.args.JsonRestore() if like is None else ocp.args.StandardRestore(like)
    with _silent(), _manager(folder(directory), read_only=True) as manager:
        return manager.restore(epoch, args=ocp.args.Composite(**{item: args}))[item]


class Writer:
    """Writes epochs in the background and keeps the newest ``keep``; any failure becomes an OSError at the next call.

    after: the newest intact epoch in the directory. Newer ones are damaged, and the first ``save`` removes them.
    """

    def __init__(self, directory, keep: int, after: int):
        self.directory, self.keep, self.whole, self.writing = folder(directory), keep, after, after
        self.manager: Any = None
        self.failed = False
        self.silence = contextlib.ExitStack()
        _orbax()
        with self._named("the directory cannot be used"):
            self.directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self.directory, os.W_OK | os.X_OK):
                raise PermissionError("it is read-only")

    def save(self, epoch: int, state: dict[str, np.ndarray], meta: dict[str, str]) -> None:
        """Start writing an epoch once the previous one is complete. The arrays must not change afterwards."""
        ocp = _orbax()
        if self.manager is None:
            self._open()
        self.finish()
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with self._named(f"epoch {epoch} cannot be written"):
            self.manager.save(epoch, args=items, force=True)
        self.writing = epoch

    def finish(self) -> None:
        """Wait until everything saved is complete."""
        epoch, self.writing = self.writing, self.whole  # an error is raised once
        if epoch > self.whole:
            with self._named(f"epoch {epoch} cannot be written"):
                self.manager.wait_until_finished()
            self.whole = self.writing = epoch

    def close(self) -> None:
        """Wait, then release the directory. Raises what ``finish`` raises."""
        with self.silence:
            try:
                self.finish()
            finally:
                if self.manager is not None:
                    self._let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(Exception):  # the error that ``finish`` raised already
            self.manager.close()
        for thread in threading.enumerate() if self.failed else ():  # orbax did not wait for the other item
            if type(thread).__module__.startswith("orbax."):
                with contextlib.suppress(Exception):
                    thread.join(timeout=10)

    def _open(self) -> None:
        with self._named("the directory cannot be used"):
            for epoch in epochs(self.directory):
                if epoch > self.whole:
                    shutil.rmtree(self.directory / str(epoch))
            self.silence.enter_context(_silent())
            self.manager = _manager(self.directory, max_to_keep=self.keep, cleanup_tmp_directories=True)

    @contextlib.contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # on a full disk tensorstore raises ValueError
            self.failed = True
            last = f"the last whole one is epoch {self.whole}" if self.whole else "there is no whole one yet"
            raise OSError(f"checkpoint: {self.directory}: {what}: {first_line(error)}; {last}") from error

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def first_line(error: Exception) -> str:
    """An error's message in short: orbax's can run to pages, and tensorstore's end with the cause."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 300 else f"{line[:120]} … {line[-170:]}"


def _manager(directory: Path, **options: Any) -> Any:
    """A manager that does not wait for other processes: one writes, all read."""
    ocp, process = _orbax(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"fnn_{process}"
    )
    settings = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone, **options)
    return ocp.CheckpointManager(directory, options=settings)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence the pages that orbax logs besides raising its error."""
    logger, tell = logging.getLogger("absl"), sys.unraisablehook

    def of_others(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    def unheard(unraisable: Any) -> None:  # a write that ends after another has failed has nowhere to report
        if not (unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed"):
            tell(unraisable)

    logger.addFilter(of_others)
    sys.unraisablehook = unheard
    try:
        yield
    finally:
        logger.removeFilter(of_others)
        if sys.unraisablehook is unheard:
            sys.unraisablehook = tell


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError("checkpoints need orbax-checkpoint; install fnn[train]") from error
    return orbax.checkpoint
