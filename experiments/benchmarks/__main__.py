"""All benchmarks and the table made of them: ``python -m experiments.benchmarks [--only NAME …]``.

Every workload is run by a fresh process of this interpreter, one after the other, so that none finds the caches as
another left them. What they left is kept in figures.json by device, so that a run on an accelerator joins the one on
the CPU, and a run of some workloads joins the others; README.md and the pictures are made from that, beside it.
"""

import importlib
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

import tyro

from experiments import machine, results, table
from experiments.benchmarks.report import draw, page

HERE = Path(__file__).parent
WORKLOADS = {  # by the order; each is a module of this folder
    "epochs": "Epochs of MNIST", "variants": "A small epoch: what was tried, and what bounds it",
    "streaming": "Data in a file", "ensembles": "Many networks at once",
    "matmuls": "Bound by computing", "stack": "Deep and narrow",
    "per_example": "Per-example quantities and the tangent kernel", "curvature": "Curvature", "graph": "Graphs",
    "implicit": "Implicit steps", "memory": "Memory of every activation", "growth": "Growth with the problem's size",
    "devices": "Several devices", "costs": "What parts of training cost",
    "startup": "Starting", "calls": "Single calls", "chain_rule": "Reverse order and the naive chain rule",
}  # fmt: skip
PACKAGES = (
    "jax", "jaxlib", "numpy", "optax", "equinox", "flax", "jax-privacy", "scikit-learn", "scipy", "torch",
    "connex", "mlx",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Run the benchmarks, and make the table and the plot of their ratios."""

    only: tuple[str, ...] = ()
    """Names of workloads; all if empty."""
    rounds: int | None = None
    """Of every workload; its own number if not given."""
    json: Path = HERE / "figures.json"
    """What all runs left, added to; README.md and ratios.png are written beside it.

    Claims go into the repository's README only with the default, and from a CPU.
    """
    plot: bool = True


def run(name: str, rounds: int | None, out: Path) -> list[str] | None:
    """Run a workload into ``out``, its lines on the screen; the last of them if it failed."""
    arguments = [] if rounds is None else ["--rounds", str(rounds)]
    command = [sys.executable, "-u", "-m", f"experiments.benchmarks.{name}", *arguments, "--out", str(out)]
    last: deque[str] = deque(maxlen=20)
    with subprocess.Popen(
        command, text=True, encoding="utf-8", errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last.append(line.rstrip())
    return [*last, f"exit status {process.returncode}"] if process.returncode else None


def read(name: str, folder: Path) -> tuple[str, dict]:
    """The device of a run, and what is kept of it."""
    record = json.loads((folder / "figures.json").read_text())
    made = record["made with"]
    model = f"{machine.processor()}, {machine.instructions()}"
    device = model if made["platform"] == "cpu" else made["kind"]
    rows = importlib.import_module(f"experiments.benchmarks.{name}").rows(record["figures"])
    return device, {
        "platform": made["platform"], "command": record["command"], "seconds": record["seconds"],
        "date": f"{date.today()}", "machine": f"{model}, {os.cpu_count()} cores, {machine.memory()}",
        "versions": {"python": made["python"]} | versions(), "rows": [row._asdict() for row in rows],
        "figures": record["figures"],
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of what is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    unknown = set(options.only) - set(WORKLOADS)
    if unknown:
        sys.exit(f"--only: expected some of {', '.join(WORKLOADS)}, got {', '.join(sorted(unknown))}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(options.json.read_text()) if options.json.exists() else {}
    out, failed = results.folder(None, "benchmarks"), {}
    for name in options.only or WORKLOADS:
        print(f"\n== {name}", flush=True)
        load = machine.load()
        (out / name).mkdir()
        last = run(name, options.rounds, out / name)
        if last is not None:
            failed[name] = last
            continue
        device, record = read(name, out / name)
        kept.setdefault(device, {})[name] = record | {"load": load}
        options.json.write_text(results.compact(kept))
        if options.json == HERE / "figures.json" and record["platform"] == "cpu":
            table.main([str(out / name)])
    pictures = draw(options.json.parent, kept, WORKLOADS) if options.plot else {}
    (options.json.parent / "README.md").write_text(page(kept, WORKLOADS, pictures))
    for name, last in failed.items():
        print(f"\n{name} failed:\n  " + "\n  ".join(last), flush=True)
    print(f"\nTable in {options.json.parent / 'README.md'}.")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
