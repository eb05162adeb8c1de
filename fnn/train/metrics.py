"""The records of a run as lines of JSON, for other programs to read while it trains."""

import contextlib
import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import jax

Record = dict[str, float]


class Metrics:
    """A file of JSON lines, one for each record, written and flushed as its epoch ends; of no path, nothing.

    path: of the file, its folder exists; history: the records that the run begins with; resumed: whether it goes on
    from a checkpoint, by default if there are such records. The file then holds these and no others: a resumed run
    takes back what its predecessor wrote after the checkpoint; what was written before there was one is kept in
    PATH.before. Another one wants a new or an empty file. Of several
    processes the first one writes.

    A number that is not finite, as the loss of held-out data may be, is null: JSON has no other name for it.
    Raises OSError where the path cannot be written, FileExistsError for the records of another run, and ValueError for
    a file of anything else, which stays as it is. If writing fails later, on a full disk for instance, training goes
    on, with a warning.
    """

    def __init__(self, path: str | os.PathLike | None, history: Sequence[Record] = (), resumed: bool | None = None):
        self.file: TextIO | None = None
        if path is None:
            return
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"metrics: expected a path, got {path!r}; write metrics='metrics.jsonl'")
        self.path = Path(path)
        if jax.process_index() != 0:
            return
        lines = [line(record) for record in history]
        try:
            kept = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
            if kept:
                require_beginning(self.path, kept, lines, bool(lines) if resumed is None else resumed)
                if not lines:  # of this run before its first checkpoint, or of another one: nothing is lost
                    os.replace(self.path, self.path.with_name(f"{self.path.name}.before"))
                replace(self.path, "".join(lines))
            self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115, closed by __exit__
            if not kept:
                self.file.write("".join(lines))
                self.file.flush()
        except FileExistsError:
            raise
        except OSError as error:
            self.give_up()
            raise type(error)(error.errno, f"metrics: cannot be written: {error.strerror}", str(self.path)) from error

    def write(self, record: Record) -> None:
        """Add a record; a failure is told once, and nothing is written from then on."""
        if self.file is None:
            return
        try:
            self.file.write(line(record))
            self.file.flush()
        except OSError as error:
            self.give_up()
            warnings.warn(f"metrics: {self.path}: {error.strerror}; no further records are written to it", stacklevel=3)

    def give_up(self) -> None:
        """Close the file, which may fail once more, to write what is left."""
        file, self.file = self.file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.file is not None:
            self.file.close()


def line(record: Record) -> str:
    """A record as a line of JSON."""
    finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def require_beginning(path: Path, kept: str, lines: Sequence[str], resumed: bool) -> None:
    """Raise unless the file's text ``kept`` is of a run that began with ``lines`` and is resumed."""
    found = [parsed(text) for text in kept.split("\n")[:-1]]  # after the last line end: nothing, or a torn record
    if not found or None in found:
        raise ValueError(
            f"metrics: expected a new file or one of records as lines of JSON, got {path}, which holds something else "
            "and stays as it is; name another file"
        )
    if not resumed:
        raise FileExistsError(
            f"metrics: {path} holds {len(found)} records of another run, and this one begins anew; name another file, "
            "or delete this one if nobody wants it"
        )
    for i, (old, new) in enumerate(zip(found, map(parsed, lines))):
        if old != new:
            raise FileExistsError(
                f"metrics: {path} holds the records of another run: of epoch {i + 1}, {old}, and this one goes on "
                f"after {new}; name another file"
            )


def parsed(text: str) -> dict | None:
    """A record in a line of JSON, or None."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "epoch" in record else None


def replace(path: Path, text: str) -> None:
    """Put ``text`` in the place of a file's, all or nothing."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
