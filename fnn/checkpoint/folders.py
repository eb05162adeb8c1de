"""The entries of a checkpoint directory that are ours: only these are ever moved or removed.

An epoch's folder carries a mark, the file ``fnn.sha256``: the SHA-256 of every file of its arrays, as ``sha256sum -c``
reads it, and their number. A digest that differs is damage. What cannot be read for another reason, such as missing
permission, is an error and stays as it is, as does everything without a mark.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from fnn import files
from fnn.checkpoint.content import Damaged

MARK = "fnn.sha256"
META = Path("meta", "metadata")
ARRAYS = "state"
FORMAT = b"fnn run "  # in META of every epoch, so that one lost file does not hide that a folder is ours
HALF = re.compile(r"\d+\.(tmp|orbax-checkpoint-tmp)")  # how the names of what is half saved or half removed begin
OURS_ALONE = re.compile(r"\d+\.tmp-[0-9a-f]{16}")
COUNT = "# files of the arrays of an epoch that fnn.checkpoint saved: "
OURS = {MARK, META.parent.name, ARRAYS}  # what a folder of ours holds


def folder(directory) -> Path:
    """``directory`` as an absolute path; raises TypeError or ValueError unless it is a path."""
    path = files.path_of("checkpoint", directory, "the path of a directory", "run").absolute()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"checkpoint: {directory} is a file; name a directory")
    return path


def epochs(directory) -> list[int]:
    """The epochs with a finished folder in ``directory``, damaged or not, in ascending order."""
    return sorted(number for number, entry in _numbered(folder(directory)) if _is_ours(entry))


def identities(directory) -> dict[int, int]:
    """Epoch → what tells its folder from a later one of the same name."""
    found = {}
    for number, entry in _numbered(folder(directory)):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            found[number] = os.stat(entry).st_ino
    return found


def require_free(directory: Path, wanted: Iterable[int]) -> None:
    """Raise FileExistsError if an epoch's name is taken by something that is not ours."""
    for number, entry in _numbered(directory):
        if number in wanted and not _is_ours(entry):
            raise FileExistsError(
                f"checkpoint: {entry} was not written by fnn, but its name is needed for epoch {number}; "
                "move it away, or name another directory"
            )


def require_apart(directory: Path, path) -> None:
    """Raise ValueError if the log's path is that of an epoch's folder."""
    place = Path(os.path.realpath(path))
    if place.parent == Path(os.path.realpath(directory)) and _number(place.name) is not None:
        raise ValueError(
            f"log: {path} is where the checkpoint of epoch {place.name} is saved; "
            f"write log={os.path.join(os.path.dirname(path), 'log.jsonl')!r}"
        )


def temporary(directory: Path, epoch: int) -> Path:
    """A new folder, with a mark, for an epoch that is being saved or removed."""
    path = _beside(directory, epoch)
    path.mkdir()
    files.create(path / MARK, b"")
    return path


def sweep(directory: Path) -> None:
    """Remove what killed processes left half saved or half removed."""
    for entry in _directories(directory):
        if HALF.match(entry.name) and _removable(entry):
            remove(entry)
        elif OURS_ALONE.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                entry.rmdir()  # killed before it was marked: empty


def keep_newest(directory: Path, count: int) -> None:
    """Remove the folders of all but the newest epochs."""
    for epoch in epochs(directory)[:-count]:
        entry = directory / str(epoch)
        if _removable(entry):
            beside = _beside(directory, epoch)
            os.rename(entry, beside)  # at once: nobody sees half of it
            remove(beside)


def remove(entry: Path) -> None:
    """Remove a folder, its mark last, so that the rest is known to be ours if this is interrupted."""
    for name in set(os.listdir(entry)) - {MARK}:
        shutil.rmtree(entry / name)
    (entry / MARK).unlink(missing_ok=True)
    entry.rmdir()


def set_aside(directory: Path, epoch: int) -> None:
    """Rename the folder of a damaged epoch to ``damaged-EPOCH``, or ``damaged-EPOCH-2`` and so on."""
    aside, number = directory / f"damaged-{epoch}", 1
    while os.path.lexists(aside):
        number += 1
        aside = directory / f"damaged-{epoch}-{number}"
    os.rename(directory / str(epoch), aside)


def mark(path: Path) -> None:
    """Write the digests of the arrays' files into the folder's mark."""
    found = sorted(file for file in (path / ARRAYS).rglob("*") if file.is_file())
    lines = [f"{_digest(file)}  {file.relative_to(path).as_posix()}\n" for file in found]
    with open(path / MARK, "r+b") as file:
        file.write(f"{COUNT}{len(lines)}\n{''.join(lines)}".encode())
        file.flush()
        os.fsync(file.fileno())


def verify(path: Path) -> None:
    """Raise Damaged unless the files of the arrays are those that were written."""
    try:
        first, *lines = (path / MARK).read_text(encoding="ascii").splitlines()
        digests = [line.split("  ", 1) for line in lines]
        if first != f"{COUNT}{len(lines)}" or any(len(pair) != 2 for pair in digests):
            raise ValueError
    except (ValueError, FileNotFoundError) as error:
        raise Damaged(f"{MARK} is damaged: its content has changed") from error
    for digest, name in digests:
        try:
            found = _digest(path / name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
            raise Damaged(f"{name} is missing") from error
        if found != digest:
            raise Damaged(f"{name} is damaged: its SHA-256 does not match")


def _beside(directory: Path, epoch: int) -> Path:
    return directory / f"{epoch}.tmp-{secrets.token_hex(8)}"


def _number(name: str) -> int | None:
    """The epoch whose folder has this name: "7", but neither "07" nor "٧"."""
    return int(name) if name.isdecimal() and str(int(name)) == name else None


def _numbered(directory: Path) -> list[tuple[int, Path]]:
    if not directory.exists():
        return []
    found = ((_number(entry.name), entry) for entry in directory.iterdir())
    return [(number, entry) for number, entry in found if number is not None]


def _directories(directory: Path) -> list[Path]:
    return [entry for entry in directory.iterdir() if entry.is_dir() and not entry.is_symlink()]


def _is_ours(entry: Path) -> bool:
    """Whether a folder carries our mark, or its content says what it is; raises OSError where it cannot be read."""
    if entry.is_symlink() or not entry.is_dir():
        return False
    try:
        if MARK in os.listdir(entry):
            return True
        with files.opened(entry / META) as file:
            return FORMAT in file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return False


def _removable(entry: Path) -> bool:
    """Whether a folder carries our mark, and nothing is in it but what we write."""
    names = set(os.listdir(entry))
    return MARK in names and all(name in OURS or name.startswith(f"{ARRAYS}.orbax") for name in names)


def _digest(path: Path) -> str:
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
