"""The page experiments/audit.md, made from the kept record."""

import json
from collections import Counter
from pathlib import Path

from experiments import table
from experiments.audit.findings import FINDINGS
from experiments.audit.judge import NONE

PATH = Path(__file__).parent.parent / "audit.md"
RECORD = table.GALLERY / "audit.json"
WORDS = {
    "right": "the derivative agrees with the values of the function",
    "right, weakly": "it agrees, but the comparison was inexact, or entries were not compared",
    "zero": "the derivative is zero, and so is the given one",
    "deliberate": "it differs from that of the value on purpose; the package says so",
    "digits lost": "it differs by a relative error below 1e-6, in float32 1e-3: an approximation, or rounding",
    "undefined": "neither the given derivative nor the oracle is finite, as at a value of −inf",
    "wrong": "it disagrees, and the disagreement was confirmed by differences",
    "not finite": "it is NaN or infinite where the oracle is finite, or the reverse",
    "raises": "it raises",
    "not compared": "the function itself refuses the arguments, or the checker cannot take them",
}


def kept() -> dict:
    """The record of the run that is kept."""
    return json.loads(RECORD.read_text())


def document(record: dict) -> str:
    """The page: the versions, what is wrong, every verdict, and what was not judged."""
    figures = record["figures"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    parts = [
        "# Derivatives that others ship",
        "Made by `python -m experiments.audit --save` (extra `audit`). `verify.function` compares each derivative with "
        "differences or the complex step of the function itself, at ordinary and at awkward points. "
        f"{summary(figures)}",
        f"Versions: {versions}.",
        *absent(figures),
        "## What is wrong",
        "Each line was checked by a second oracle: mpmath in 50 digits, or NumPy.",
        *(finding(number, *pair) for number, pair in enumerate(shown(figures), 1)),
        "## Every verdict",
        "\n".join(f"- **{word}**: {meaning}." for word, meaning in WORDS.items()),
        verdicts(figures),
        "## Found but not judged",
        "Objects with custom derivatives that the walk found and for which there are no arguments: kernels for other "
        "devices, control flow inside a package, and the like.",
        "\n".join(
            f"- {package}: {', '.join(f'`{name}`' for name in names)}" for package, names in figures["left"].items()
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(figures: dict) -> str:
    derivatives, packages = counted(figures)
    custom = len({row["rule"] for row in judged_rows(figures)} - {""})
    counts = Counter(verdict for row in figures["verdicts"] for verdict, _ in row["points"].values())
    listed = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    return (
        f"{derivatives} derivatives of {packages} packages, {custom} of them custom objects that the walk found, the "
        f"others of operations or made when they are called, at {sum(counts.values())} points: {listed}."
    )


def counted(figures: dict) -> tuple[int, int]:
    """How many derivatives were judged, and of how many packages."""
    rows = judged_rows(figures)
    return len({row["rule"] or row["target"] for row in rows}), len({row["package"] for row in rows})


def judged_rows(figures: dict) -> list[dict]:
    """The functions that were judged at one point at least."""
    return [row for row in figures["verdicts"] if any(verdict != NONE for verdict, _ in row["points"].values())]


def absent(figures: dict) -> list[str]:
    """What could not be judged, because it is not installed or fails on import."""
    if not figures["absent"]:
        return []
    return ["Skipped: " + "; ".join(f"{name} ({why})" for name, why in figures["absent"].items()) + "."]


def shown(figures: dict) -> list[tuple]:
    """The findings that were confirmed, with the values of the run."""
    values = figures["findings"]
    return [(found, *values[found.gives.__name__]) for found in FINDINGS if found.gives.__name__ in values]


def finding(number: int, found, given: str, right: str) -> str:
    return (
        f"### {number}. {found.package}: {found.sentence}\n\n"
        f"```python\n{found.lines()}\n```\n\nGiven: {given}. Right: {right}."
    )


def verdicts(figures: dict) -> str:
    """One line for each function; points with the same verdict and remark stand together."""
    lines = [
        table.markdown_row(("package", "function", "custom derivative", "verdicts", "remark")),
        "|---|---|---|---|---|",
    ]
    for row in figures["verdicts"]:
        points: dict[str, list[str]] = {}
        for point, (verdict, _) in row["points"].items():
            points.setdefault(verdict, []).append(point)
        said: dict[str, list[str]] = {}
        for point, (_, remark) in row["points"].items():
            said.setdefault(remark, []).append(point)
        cells = "; ".join(f"**{verdict}**: {', '.join(of)}" for verdict, of in points.items())
        remarks = "; ".join(f"{', '.join(of)}: {remark}" for remark, of in said.items() if remark)
        rule = f"`{row['rule']}`" if row["rule"] else ""
        lines.append(table.markdown_row((row["package"], f"`{row['target']}`", rule, cells, remarks)))
    return "\n".join(lines)
