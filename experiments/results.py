"""The output of every experiment: a folder with pictures and a JSON of its figures, claims and provenance."""

import dataclasses
import json
import platform
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import STARTED, machine

LOCAL = ("out", "checkpoint", "report")  # options that change no figure
LINE = 300  # characters of a line of JSON; a claim or a curve may be longer


class Claim(NamedTuple):
    """One line of the table of experiments: what is claimed, what this run reached, and the published figure, if any.

    differs: beside a published figure, what this run has otherwise (shortened, other data, another rate, one seed), and
    whether the figure was reproduced.
    """

    claim: str
    here: str
    published: str = ""
    differs: str = ""


def folder(out: Path | None, name: str) -> Path:
    """``out``, or runs/NAME-… with the time; it is made."""
    chosen = out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def save(
    out: Path, name: str, options, claims: Sequence[Claim], figures: dict, *, shortened: str = "", seconds: float = 0
) -> None:
    """Write figures.json: the command, claims, run time, options, figures, and the versions that made them.

    name: of the program, experiments.NAME; options: its dataclass; shortened: what the published run has more of;
    seconds: the run time of what several processes, or earlier ones, have finished; else it is that of this process.
    ``python -m experiments.table FOLDER`` keeps it for the tables. Raises ValueError if a claim beside a published
    figure does not say what differs.
    """
    for claim in claims:
        if claim.published and not claim.differs:
            raise ValueError(f"claims: expected what differs from the published figure, got none: {claim.claim}")
    device = jax.devices()[0]
    record = {
        "experiment": name,
        "command": command(name, options),
        "claims": [claim._asdict() for claim in claims],
        "seconds": round(seconds or time.perf_counter() - STARTED, 1),
        "shortened": shortened,
        "options": {key: str(value) for key, value in vars(options).items() if key not in LOCAL},
        "made with": {
            "jax": jax.__version__,
            "python": platform.python_version(),
            "device": str(device),
            "platform": device.platform,
            "kind": device.device_kind,
            "instructions": machine.instructions(),
        },
        "figures": figures,
    }
    (out / "figures.json").write_text(compact(record))
    print(f"Results in {out}/ after {record['seconds']} s.")


def compact(record: dict | list) -> str:
    """The record as JSON that reads as a table: a claim, a curve, and whatever else is short, each on one line.

    A curve is a list of numbers, or of rows of numbers. Raises ValueError for NaN and infinity, which JSON lacks.
    """
    plain = json.loads(json.dumps(record, allow_nan=False))  # tuples become lists, and keys text
    return _lines(plain, "") + "\n"


def _lines(value, indent: str) -> str:
    """The value on one line if that reads well, else one line for each of its items, ``indent`` and a space deep."""
    whole = json.dumps(value, ensure_ascii=False)
    listed = isinstance(value, list) and any(isinstance(item, dict) for item in value)  # claims, rows of a table
    if not listed and (len(whole) <= LINE or _reads_as_a_row(value)):
        return whole
    deeper = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(item, deeper)}" for key, item in value.items()]
    else:
        items = [_lines(item, deeper) for item in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{last}"


def _reads_as_a_row(value) -> bool:
    """Whether it is a number, a text, a dict of them, or a curve."""
    if isinstance(value, dict):
        return all(_is_scalar(item) for item in value.values())
    rows = [row if isinstance(row, list) else [row] for row in value] if isinstance(value, list) else []
    return all(_is_scalar(item) for row in rows for item in row)


def _is_scalar(value) -> bool:
    return not isinstance(value, (dict, list))


def command(name: str, options) -> str:
    """What to type for these options: those that differ from their defaults."""
    words = ["python -m", f"experiments.{name}"]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name not in LOCAL and value != field.default:
            several = isinstance(value, (tuple, list))
            words += [f"--{field.name.replace('_', '-')}", *map(str, value if several else [value])]
    return " ".join(words).replace(" True", "")


def spread(values: Sequence[float], digits: int = 2, factor: float = 1, unit: str = "") -> str:
    """Mean ± standard deviation over the seeds, or the one value."""
    scaled = factor * np.asarray(values, float)
    text = f"{scaled.mean():.{digits}f}" + (f" ± {scaled.std(ddof=1):.{digits}f}" if len(scaled) > 1 else "")
    return text + (f" {unit}" if unit else "")
