"""Files that are read and written atomically, by one process at a time.

A file is written under a new name beside its place, synchronised, and renamed: a reader sees the old file or the new
one, whatever is interrupted and however many processes write. The new name is opened exclusively and follows no
symbolic link, so that nothing of anybody else's is overwritten.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a FIFO without a writer opens too
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

_held: set[int] = set()  # the descriptors of locks, which a forked child must not keep


def path_of(name: str, path, expected: str, example: str) -> Path:
    """``path`` as a Path; raises TypeError or ValueError, naming the argument, unless it is a path."""
    if isinstance(path, (str, os.PathLike)) and os.fspath(path):
        return Path(path)
    kind = ValueError if isinstance(path, str) else TypeError
    raise kind(f"{name}: expected {expected}, got {path!r}; write {name}={example!r}")


def replace(path: Path, data: bytes) -> None:
    """Write a file, or replace it by one with the same permissions; whatever goes wrong, the old one stays.

    Raises IsADirectoryError, or ValueError for a FIFO or a device, which is not to be replaced.
    """
    beside, permissions = path.with_name(f".fnn-{secrets.token_hex(8)}.tmp"), None
    if path.exists():
        mode = os.stat(path).st_mode
        _require_regular(path, mode)
        permissions = mode & 0o777
    try:
        create(beside, data, permissions)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    synchronise(path.parent)


def create(path: Path, data: bytes, permissions: int | None = None) -> None:
    """Write a new file and synchronise it; raises FileExistsError if there is anything of its name."""
    descriptor = os.open(path, NEW, 0o666 if permissions is None else 0o600)
    with open(descriptor, "wb") as file:
        if permissions is not None:
            os.chmod(descriptor if os.chmod in os.supports_fd else path, permissions)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def create_numbered(path: Path, data: bytes) -> Path:
    """Write a new file under ``path`` or, where that is taken, PATH-2, PATH-3, …; returns its path."""
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            create(candidate, data)
        except FileExistsError:
            number += 1
            continue
        synchronise(path.parent)
        return candidate


def synchronise(folder: Path) -> None:
    """Make the names in a folder last, where its file system can."""
    with contextlib.suppress(OSError):  # not on Windows, and on a few network file systems
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def opened(path) -> Iterator[BufferedReader]:
    """A regular file open for reading; raises ValueError for a FIFO or a device, which might never end."""
    descriptor = os.open(path, OPEN)
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    with open(descriptor, "rb") as file:
        yield file


def _require_regular(path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "expected a file, got a directory", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise ValueError(f"{os.fspath(path)}: expected a regular file, got a FIFO, a socket or a device")


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file: True, or False if another holds the lock, or None where the file system has no locks.

    The lock ends with ``os.close`` and with the process, however it ends. It holds between threads too. On NFS it is
    the server's, so that it holds between hosts, unless the mount says ``local_lock``.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    _held.add(descriptor)
    return True


def release(descriptor: int) -> None:
    """Close a file that :func:`try_lock` may have locked."""
    _held.discard(descriptor)
    os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has the name ``path``."""
    try:
        there = os.stat(path)
    except OSError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _close_in_child() -> None:
    """A forked child shares its parent's locks, and would keep them after the parent is gone."""
    for descriptor in list(_held):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
