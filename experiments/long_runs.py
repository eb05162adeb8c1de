"""Runs that take long, each kept as a file once it has finished.

A repeated command finds what has finished and resumes the rest, and several processes may share a folder: each takes
a run that no other process has, in the order of the runs.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fnn import files

Run = Callable[[Path | None], dict]


def finished(folder: Path | None, runs: Mapping[str, Run], *, settings: str, report: bool = False) -> dict[str, dict]:
    """What the runs leave, by name, each with its "seconds"; without those that another process is at.

    folder: None keeps nothing. runs: name → function of a folder for its checkpoints, or None; it returns what JSON
    can hold. settings: what else decides the results; the folder is for one of them. report: True runs none. Raises
    ValueError if the folder holds runs of other settings.
    """
    if folder is None:
        if report:
            raise ValueError("report: expected --checkpoint FOLDER with finished runs too, got none")
        return {name: _timed(run, None) for name, run in runs.items()}
    folder.mkdir(parents=True, exist_ok=True)
    _require_same(folder / "settings.txt", settings)
    left = {}
    for name, run in runs.items():
        kept = folder / f"{name}.json"
        if not kept.exists() and not report:
            _run_alone(folder / name, run, kept)
        if kept.exists():
            left[name] = json.loads(kept.read_text())
    return left


def complete(left: Mapping[str, dict], groups: Mapping[int, Sequence[str]]) -> list[int]:
    """The seeds of which every run has finished; groups: seed → names of its runs. Raises SystemExit if none has."""
    done = [seed for seed, names in groups.items() if all(name in left for name in names)]
    if not done:
        raise SystemExit(f"{len(left)} runs have finished, and no seed whole: nothing to report yet")
    return done


def count(done: int, seeds: int) -> str:
    """ "5 seeds", or "2 of 5 seeds"."""
    asked = "one seed" if seeds == 1 else f"{seeds} seeds"
    return asked if done == seeds else f"{done} of {asked}"


def seconds(left: Mapping[str, dict]) -> float:
    """The run time of all runs together."""
    return sum(run["seconds"] for run in left.values())


def _run_alone(checkpoints: Path, run: Run, kept: Path) -> None:
    """Run it and keep what it leaves, unless another process is at it."""
    lock = os.open(kept.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    try:
        if files.try_lock(lock) is False or kept.exists():
            return
        print(f"{kept.stem} …", flush=True)
        files.replace(kept, json.dumps(_timed(run, checkpoints)).encode())
        shutil.rmtree(checkpoints, ignore_errors=True)
    finally:
        files.release(lock)


def _timed(run: Run, checkpoints: Path | None) -> dict:
    started = time.perf_counter()
    left = run(checkpoints)
    return {"seconds": round(time.perf_counter() - started, 1)} | left


def _require_same(path: Path, settings: str) -> None:
    if not path.exists():
        files.replace(path, settings.encode())
    if path.read_text() != settings:
        raise ValueError(
            f"checkpoint: {path.parent} is of other settings; expected {settings!r}, got {path.read_text()!r}; "
            "give another folder"
        )
