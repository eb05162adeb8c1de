"""The lock of a checkpoint directory, the file ``fnn.lock``: only one run at a time writes to it.

The system releases the lock when its process ends, even by a kill; the file that a killed process leaves says who it
was, and locks nothing. See ``fnn.files.try_lock`` for network file systems. Where a file system has no locks, the file
alone is the lock: that of a process that has ended on this host is taken over, and that of another host is refused
until someone deletes the file.
"""

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from fnn import files

NAME = "fnn.lock"
BEGINS = '{"fnn": "lock"'  # no other file is written to
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
PATIENCE = 1.0  # seconds, for an owner that has not yet written who it is


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Own the directory, which is created if necessary; raises BlockingIOError with its owner if it has one.

    Other OSErrors mean that the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    descriptor = _acquired(path)
    try:
        yield
    finally:
        if files.is_at(descriptor, path):
            path.unlink()
        files.release(descriptor)


def _acquired(path: Path) -> int:
    """A descriptor of the lock, locked, with this process as its owner."""
    until = time.monotonic() + PATIENCE
    while True:
        descriptor = os.open(path, FLAGS, 0o666)
        try:
            mine, written = files.try_lock(descriptor), _content(descriptor)
            if not (written.startswith(BEGINS) or BEGINS.startswith(written)):  # it may be cut short
                raise FileExistsError(
                    f"checkpoint: {path} is not a lock of fnn; move it away, or name another directory"
                )
            alone = mine is None  # the file is all there is
            if alone:
                mine = not _may_live(written)
            if mine and files.is_at(descriptor, path):  # otherwise its last owner has removed it meanwhile
                owner = _write(descriptor)
                if not alone or _stays(descriptor, owner):
                    return descriptor
            if not mine and (written or time.monotonic() > until):
                raise BlockingIOError(_refusal(path, written, alone))
        except BaseException:
            files.release(descriptor)
            raise
        files.release(descriptor)
        time.sleep(0.01)


def _content(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, 4096).decode(errors="replace")


def _write(descriptor: int) -> str:
    owner = {"fnn": "lock", "host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T")}
    written = json.dumps(owner | {"lock": secrets.token_hex(4)})
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, written.encode())
    return written


def _stays(descriptor: int, written: str) -> bool:
    """Whether nobody has written to the file at the same time."""
    time.sleep(0.1)
    return _content(descriptor) == written


def _refusal(path: Path, written: str, alone: bool) -> str:
    owner = _owner(written)
    who = f"process {owner.get('process', '?')} on {owner.get('host', '?')}, since {owner.get('since', '?')}"
    advice = f"; if it has ended, which this file system cannot tell, delete {path}" if alone else ""
    return (
        f"checkpoint: {path.parent} is in use by another run ({who}); wait until it ends, or name another directory"
        + advice
    )


def _may_live(written: str) -> bool:
    """Whether the owner may be alive, where the file is all there is to know."""
    owner = _owner(written)
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("process"), int):
        return bool(written)
    try:
        os.kill(owner["process"], 0)
    except ProcessLookupError:
        return False
    except OSError:  # alive, and another user's
        return True
    return True


def _owner(written: str) -> dict:
    """What the file says of its owner, or nothing if it was not written to its end."""
    try:
        owner = json.loads(written)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
