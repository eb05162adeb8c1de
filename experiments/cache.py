"""Compiled programs of the experiments are cached on disk, so that the next run starts faster."""

import contextlib
import os
import stat
import sys
from importlib.util import find_spec
from pathlib import Path

NO = ("0", "false", "f", "no", "n", "off")  # how JAX is told that something is not wanted
OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH
MOST = 2**28  # bytes of one program; what was used longest ago goes first


def keep_compiled() -> None:
    """Tell JAX, before it is imported, to keep what it compiles for this program, and say so if nothing is kept yet.

    JAX_COMPILATION_CACHE_DIR, if set, is JAX's affair alone: other programs may keep theirs there. With
    JAX_ENABLE_COMPILATION_CACHE=false, and for benchmarks, nothing is kept. Runs at the same time may share a folder:
    JAX locks it where its size is bounded (it has ``filelock`` do that, and nothing is kept where that is missing), or
    one could read what another has half written. JAX runs what it finds there: nothing is kept, and the reason said,
    where another user could have put it.
    """
    name = program()
    wanted = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() not in NO
    if name.startswith("benchmarks") or not wanted or find_spec("filelock") is None:
        return
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    path = folder() / name
    try:
        for private in (folder(), path):
            make_private(private)
    except OSError as error:
        print(f"Compiling: nothing is kept for the next run, because {error}", flush=True)
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(path)
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(MOST)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # many small ones take most of the time
    kept = list(path.glob("*-cache"))
    for entry in kept:
        if not entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists():
            entry.unlink(missing_ok=True)  # its writer was killed in the middle: JAX would stumble over it
    if not kept:
        print(f"Compiling: the next run starts faster, with what is kept in {path}.", flush=True)


def program() -> str:
    """mnist of ``python -m experiments.mnist``."""
    words = (word.removeprefix("-m") for word in sys.orig_argv)
    return next((word.removeprefix("experiments.") for word in words if word.startswith("experiments.")), "experiments")


def folder() -> Path:
    """Where programs keep what can be made again: $XDG_CACHE_HOME/fnn, or ~/.cache/fnn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fnn")


def make_private(path: Path) -> None:
    """Create the folder for this user alone; raises OSError, with the reason, if others may have written to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not hasattr(os, "getuid"):  # on Windows, a folder is as private as the profile that it is in
        return
    found, place = path.stat(), path.resolve()
    if found.st_uid != os.getuid():
        raise PermissionError(f"{path} is another user's; set XDG_CACHE_HOME to a folder of your own")
    if found.st_mode & OF_OTHERS:
        raise PermissionError(f"others may write to {path} ({stat.filemode(found.st_mode)}); remove it")
    if theirs := [entry for entry in path.iterdir() if entry.lstat().st_uid not in (os.getuid(), 0)]:
        raise PermissionError(f"{theirs[0]} is another user's; remove {path}")
    for above in place.parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(f"others may replace {path}: {above} is writable for all ({stat.filemode(mode)})")
    path.chmod(0o700)  # it may have been readable for others
