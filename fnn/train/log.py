"""The records of a run as lines of JSON, for other programs to read during training."""

import contextlib
import json
import math
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax

from fnn import files
from fnn.runs import Record


class Log:
    """A file of JSON lines, one per record, written and flushed at the end of its epoch; does nothing without a path.

    path: the file, in an existing folder; history: the records that the run starts with; resumed: whether it resumes
    from a checkpoint, by default if there are records. A resumed run truncates the file to these records, removing
    whatever was written after the checkpoint. Records written before the first checkpoint are kept in PATH.before, or
    PATH.before-2 and so on. A new run needs a new or empty file. Only the first of several processes writes, and one
    run at a time.

    Numbers that are not finite, for instance a diverging held-out loss, are written as null, because JSON cannot
    represent them. Raises OSError if the path cannot be written, FileExistsError for the records of another run,
    BlockingIOError if another run is writing to the file, and ValueError for a file with other content, which is left
    unchanged. If writing fails later, for instance on a full disk, training continues with a warning.
    """

    def __init__(self, path: str | os.PathLike | None, history: Sequence[Record] = (), resumed: bool | None = None):
        self.file: TextIO | None = None
        self.context = contextlib.ExitStack()
        if path is None:
            return
        self.path = files.path_of("log", path, "a path", "log.jsonl")
        if jax.process_index() != 0:
            return
        lines = [line(record) for record in history]
        try:
            self._open(lines, bool(lines) if resumed is None else resumed)
        except (FileExistsError, BlockingIOError):
            self.give_up()
            raise
        except OSError as error:
            self.give_up()
            raise type(error)(error.errno, f"log: cannot be written: {error.strerror}", str(self.path)) from error
        except BaseException:
            self.give_up()
            raise

    def _open(self, lines: Sequence[str], resumed: bool) -> None:
        """Open the file with these lines in it, and lock it if it is a regular one."""
        text, kept = "".join(lines), b""
        place = Path(os.path.realpath(self.path)) if self.path.is_file() else self.path  # a link stays
        if place.is_file():
            with locked(place):
                kept = place.read_bytes()
                if kept:
                    require_beginning(self.path, kept.decode(errors="replace"), lines, resumed)
                    if not lines:  # kept, whether from this run before its first checkpoint or from another
                        files.create_numbered(place.with_name(f"{place.name}.before"), kept)
                    files.replace(place, text.encode())
        self.file = open(place, "a", encoding="utf-8")  # noqa: SIM115, closed by give_up
        if stat.S_ISREG(os.fstat(self.file.fileno()).st_mode):
            self.context.enter_context(locked(place))
            if place.stat().st_size != (len(text.encode()) if kept else 0):
                raise FileExistsError(f"log: {self.path} was written by another run in the meantime; name another file")
            files.synchronise(place.parent)
        if not kept:
            self.file.write(text)
            self.file.flush()

    def write(self, record: Record) -> None:
        """Add a record; after a failure, warn once and write nothing more."""
        if self.file is None:
            return
        try:
            self.file.write(line(record))
            self.file.flush()
        except OSError as error:
            self.give_up()
            warnings.warn(f"log: {self.path}: {error.strerror}; no further records are written to it", stacklevel=3)

    def give_up(self) -> None:
        """Close the file; flushing the rest may fail again."""
        file, self.file = self.file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
        self.context.close()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception: Any) -> None:
        with self.context:
            if self.file is not None:
                with contextlib.suppress(OSError):  # of what is no regular file
                    os.fsync(self.file.fileno())
                self.file.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; raises BlockingIOError if another run does."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if files.try_lock(descriptor) is False:
            raise BlockingIOError(f"log: {path} is being written by another run; name another file")
        yield
    finally:
        files.release(descriptor)


def line(record: Record) -> str:
    """A record as a line of JSON."""
    finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def require_beginning(path: Path, kept: str, lines: Sequence[str], resumed: bool) -> None:
    """Raise unless the file's text ``kept`` is from a run that started with ``lines`` and is being resumed."""
    found = [parsed(text) for text in kept.split("\n")[:-1]]  # after the last newline: nothing, or a partial record
    if not found or None in found:
        raise ValueError(
            f"log: expected a new file or one of records as lines of JSON, got {path}, which holds something else "
            "and is left unchanged; name another file"
        )
    if not resumed:
        raise FileExistsError(
            f"log: {path} holds {len(found)} records of another run, but this one starts from scratch; name another "
            "file, or delete this one"
        )
    for i, (old, new) in enumerate(zip(found, map(parsed, lines))):
        if old != new:
            raise FileExistsError(
                f"log: {path} holds the records of another run: of epoch {i + 1}, {old}, and this one resumes "
                f"after {new}; name another file"
            )


def parsed(text: str) -> dict | None:
    """The record in a line of JSON, or None."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "epoch" in record else None
