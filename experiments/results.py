"""What every experiment leaves: a folder with a JSON of its figures."""

import json
import platform
from datetime import datetime
from pathlib import Path

import jax


def folder(out: Path | None, name: str) -> Path:
    """``out``, or runs/NAME-… with the time; it is made."""
    chosen = out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def save(out: Path, figures: dict) -> None:
    """Write figures.json, with the versions that made it."""
    versions = {"jax": jax.__version__, "python": platform.python_version(), "device": str(jax.devices()[0])}
    (out / "figures.json").write_text(json.dumps(figures | {"made with": versions}, indent=2) + "\n")
    print(f"Results in {out}/")
