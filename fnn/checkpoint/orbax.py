"""Writing and reading the folders of a checkpoint directory.

orbax-checkpoint, which is imported on first read or write, has the arrays. It takes one save or restore at a time in a
process, and threads that have several wait for each other without end: all of them run in one thread here.
"""

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fnn import files
from fnn.checkpoint import folders
from fnn.checkpoint.content import Damaged
from fnn.checkpoint.folders import epochs, folder

__all__ = ["Writer", "epochs", "first_line", "folder", "read"]

_one_at_a_time = ThreadPoolExecutor(1, thread_name_prefix="fnn-checkpoint")


def read(directory, epoch: int, item: str, like: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    """The item "meta" or "state" of a folder; like: arrays with the dtypes and shapes of those in "state".

    Raises Damaged if a file is not as it was written, FileNotFoundError if the folder is gone, and OSError if it cannot
    be read now.
    """
    path = folder(directory) / str(epoch)
    try:
        if item == "meta":
            return _read_meta(path / folders.META)
        return _one_at_a_time.submit(_restore, path / folders.ARRAYS, like).result()
    except Exception as error:  # orbax may raise anything
        if not path.exists():
            raise FileNotFoundError(f"checkpoint: {path} was removed while it was read") from error
        if item == "meta" or isinstance(error, (ImportError, MemoryError)):
            raise
        folders.verify(path)
        raise OSError(f"checkpoint: {path} is intact, but cannot be read: {first_line(error)}") from error


class Writer:
    """Writes epochs in the background and keeps the newest ``keep``; any failure becomes an OSError at the next call.

    The directory is locked by the caller. after: the newest intact epoch in the directory. Newer ones are damaged, and
    the first ``save`` sets them aside.
    """

    def __init__(self, directory, keep: int, after: int):
        self.directory, self.keep, self.whole = folder(directory), keep, after
        self.writing: tuple[int, Future] | None = None
        self.begun = False
        _orbax()
        with self._named("the directory cannot be used"):
            self.directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self.directory, os.W_OK | os.X_OK):
                raise PermissionError("it is read-only")

    def save(self, epoch: int, state: dict[str, np.ndarray], meta: dict[str, str]) -> None:
        """Start writing an epoch once the previous one is complete. The arrays must not change afterwards."""
        self.finish()
        if not self.begun:
            with self._named("the directory cannot be used"):
                self._tidy()
            self.begun = True
        folders.require_free(self.directory, [epoch])
        self.writing = epoch, _one_at_a_time.submit(_write, self.directory, epoch, state, meta, self.keep)

    def finish(self) -> None:
        """Wait until everything saved is complete."""
        if self.writing is None:
            return
        epoch, future = self.writing
        try:
            with self._named(f"epoch {epoch} cannot be written"):
                future.result()
            self.whole = epoch
        finally:
            if future.done():  # an error is raised once, and Ctrl-C does not end the writing
                self.writing = None

    def _tidy(self) -> None:
        folders.sweep(self.directory)
        for epoch in epochs(self.directory):
            if epoch > self.whole:
                folders.set_aside(self.directory, epoch)

    @contextlib.contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # on a full disk tensorstore raises ValueError
            last = f"the last intact one is epoch {self.whole}" if self.whole else "there is no intact one yet"
            raise OSError(f"checkpoint: {self.directory}: {what}: {first_line(error)}; {last}") from error

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.finish()


def first_line(error: BaseException) -> str:
    """An error's message in short: orbax's can run to pages, and tensorstore's end with the cause."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 300 else f"{line[:120]} … {line[-170:]}"


def _write(directory: Path, epoch: int, state: dict[str, np.ndarray], meta: dict[str, str], keep: int) -> None:
    """Write a folder beside its place, move it there when it is whole, and remove what is old."""
    path = folders.temporary(directory, epoch)
    try:
        (path / folders.META).parent.mkdir()
        files.create(path / folders.META, json.dumps(meta).encode())
        with _silent():
            _checkpointer().save(path / folders.ARRAYS, args=_orbax().args.StandardSave(state))
        folders.mark(path)
        files.synchronise((path / folders.META).parent)
        files.synchronise(path)
        folders.require_free(directory, [epoch])
        os.rename(path, directory / str(epoch))
    except BaseException:
        with contextlib.suppress(OSError):
            folders.remove(path)
        raise
    files.synchronise(directory)
    folders.keep_newest(directory, keep)


def _read_meta(path: Path) -> dict[str, str]:
    try:
        with files.opened(path) as file:
            meta = json.loads(file.read())
        return {name: str(meta[name]) for name in ("content", "sha256")}
    except (FileNotFoundError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise Damaged(f"the content is damaged: {first_line(error)}") from error


def _restore(path: Path, like: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    with _silent():
        return _checkpointer().restore(path, args=_orbax().args.StandardRestore(like))


def _checkpointer() -> Any:
    """A checkpointer that does not wait for other processes: one writes, all read."""
    ocp, process = _orbax(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"fnn_{process}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


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
    except Exception:
        for thread in threading.enumerate():  # orbax did not wait for what else it was writing
            if type(thread).__module__.startswith("orbax."):
                with contextlib.suppress(Exception):
                    thread.join(timeout=10)
        time.sleep(0.1)  # for what has no thread of Python
        raise
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
