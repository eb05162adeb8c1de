"""The table and the plot of what the benchmarks left on every device."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten

from experiments import table
from experiments.benchmarks import aims
from experiments.benchmarks.timing import Row

MARKERS = {"time": ("o", "#1f5fa8"), "temporary memory": ("s", "#b5402a"), "compile time": ("^", "#777777")}
OTHER = ("D", "#5b8c3a")
BUSY = 3  # a load that a workload before this one does not leave on two cores
HEADER = ("workload", "measure", "peer", "ours / peer's (quartiles)", "ours", "peer's", "note")
AIMS = ("workload", "measure", "peer", "aim", "here", "")
GPU = """## GPU

Not measured: no part of fnn was ever run on one, only lowered for it (`tests/test_lowering.py`). Where JAX finds one,
the first of these tries everything there in at most 8 minutes, and the second adds its section here:

    python -m experiments.accelerator --save
    python -m experiments.benchmarks
"""


SAID = {  # of a module, above its table
    "variants": """None of these is adopted. The width belongs to the network: choose 32 units, not 30, for whole
vectors. δᵀ as an array is faster at some sizes, because XLA then calls another routine, and slower at others; choosing
by size would put a condition inside an equation. If it is faster for you, pass
`fit(..., rules=fnn.RULES._replace(weight_gradient=...))`. The products of several mini-batches at once also need x xᵀ
of all their examples, which costs about what they save. The step is bound by two products with W¹, which XLA computes
at this size at less than half the rate of large products, by the pass over W¹ that updates it, and by some fifteen
operations on arrays so small that starting one takes most of its time.""",
}


def page(kept: Mapping[str, dict], titles: Mapping[str, str], pictures: Mapping[str, str]) -> str:
    """kept: {device: {workload: record}}; pictures: file names by device."""
    parts = [
        "# Benchmarks",
        "Made by `python -m experiments.benchmarks`. Every ratio is ours as a multiple of the peer's, lower is better: "
        "the median of the rounds' ratios, with their quartiles in brackets, the two timed in turn in one process; "
        "compile time and temporary memory (what a compiled program asks for beside its arguments and results) are "
        "single figures.",
    ]
    parts.append(
        markdown(
            "Which aims hold on which processors",
            ("workload", "measure", "peer", "aim", *(cpus := cpu_rows(kept))),
            aims.by_processor(cpus),
            "A ratio in brackets is above the aim.",
            level=2,
        )
    )
    for device, records in in_order(kept):
        parts.append(f"## {device}")
        ((usual, _),) = Counter(map(made_with, records.values())).most_common(1)  # a section with others says so
        parts.append(usual)
        if device in pictures:
            parts.append(f"![Ratios on {device}]({pictures[device]})")
            parts.append("The first workload of each table below. Bars are the quartiles.")
        if reached := aims.reached({name: rows(record) for name, record in records.items()}):
            parts.append(markdown("What is aimed at", AIMS, reached))
        for name, record in chosen(records, titles):
            parts.append(section(name, titles[name], record, usual))
    if all(platform(records) == "cpu" for records in kept.values()):
        parts.append(GPU.rstrip())
    return "\n\n".join(parts) + "\n"


def cpu_rows(kept: Mapping[str, dict]) -> dict[str, dict[str, list[Row]]]:
    """The rows of every processor, by module."""
    return {
        device: {name: rows(record) for name, record in records.items()}
        for device, records in in_order(kept) if platform(records) == "cpu"
    }  # fmt: skip


def section(name: str, title: str, record: dict, usual: str) -> str:
    here = made_with(record)
    when = f"`{record['command']}`, {record['date']}, {table.duration(record)}." + ("" if here == usual else f" {here}")
    if record.get("load", 0) > BUSY:
        when += f" Other programs ran: a load of {record['load']} when it began."
    above = "\n\n".join(filter(None, (when, SAID.get(name, "").replace("\n", " "))))
    return markdown(title, HEADER, [cells(row) for row in rows(record)], above)


def markdown(
    title: str, header: tuple[str, ...], lines: Iterable[tuple[str, ...]], above: str = "", level: int = 3
) -> str:
    """A heading, a line if there is one, and a table."""
    begin = [
        f"{'#' * level} {title}",
        "",
        *((above, "") if above else ()),
        table.markdown_row(header),
        "|" + "---|" * len(header),
    ]
    return "\n".join(begin + [table.markdown_row(line) for line in lines])


def rows(record: dict) -> list[Row]:
    return [Row(**row) for row in record["rows"]]


def cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else number(row.ratio)
    if row.spread is not None:
        ratio += f" ({number(row.spread[0])}–{number(row.spread[1])})"
    return row.workload, row.measure, row.peer, ratio, row.ours, row.theirs, row.note


def number(ratio: float) -> str:
    """Two decimals, or two digits where that leaves too few."""
    return f"{ratio:.2f}" if ratio >= 0.1 or ratio == 0 else f"{ratio:.2g}"


def made_with(record: dict) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{record['machine']}; {packages}."


def platform(records: dict) -> str:
    return next(iter(records.values()))["platform"]


def in_order(kept: Mapping[str, dict]) -> list[tuple[str, dict]]:
    """CPUs first."""
    return sorted(kept.items(), key=lambda item: (platform(item[1]) != "cpu", item[0]))


def chosen(records: dict, titles: Mapping[str, str]) -> list[tuple[str, dict]]:
    return [(name, records[name]) for name in titles if name in records]


def draw(folder: Path, kept: Mapping[str, dict], titles: Mapping[str, str]) -> dict[str, str]:
    """A picture of every device; their names: ratios.png of the first."""
    names: dict[str, str] = {}
    for device, records in in_order(kept):
        slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
        names[device] = f"ratios-{slug}.png" if names else "ratios.png"
        plot(folder / names[device], device, records, titles)
    return names


def plot(path: Path, device: str, records: dict, titles: Mapping[str, str]) -> None:
    """The first workload of every module against each peer, narrow enough for a phone; the tables have the rest."""
    from matplotlib.figure import Figure  # slow to import

    groups = [(titles[name], first(rows(record))) for name, record in chosen(records, titles)]
    groups = [(title, found) for title, found in groups if found]
    figure = Figure(figsize=(4.8, 1.0 + sum(0.42 + 0.25 * len(found) for _, found in groups)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color="black", linewidth=0.8)
    across, y = axes.get_yaxis_transform(), 0.0
    for title, found in groups:
        axes.axhspan(y - 0.6, y + 1.4, color="#dde4ec", zorder=1.5)
        axes.text(0.01, y, title, transform=across, va="center", fontsize=9, weight="bold")
        axes.text(0.01, y + 0.9, shorten(found[0].workload, 64), transform=across, va="center", fontsize=7.5)
        y += 2.1
        for row in found:
            assert row.ratio is not None
            marker, color = MARKERS.get(row.measure, OTHER)
            measure = "" if row.measure == "time" else f", {row.measure}"
            axes.text(0.01, y, f"{row.peer}{measure}", transform=across, va="center", fontsize=8)
            axes.text(0.99, y, number(row.ratio), transform=across, va="center", ha="right", fontsize=8)
            axes.plot(row.spread or (row.ratio,) * 2, [y + 0.55] * 2, color=color, linewidth=2, alpha=0.6)
            axes.plot(row.ratio, y + 0.55, marker, color=color, markersize=5)
            y += 1.4
    axes.set(xscale="log", ylim=(y - 0.4, -0.6), xlabel="ours / peer's: lower is better", yticks=[])
    axes.set_xlim(*limits(groups))
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"Ours as a multiple of its peers'\n{device}", fontsize=10)
    figure.savefig(path, dpi=170)


def first(found: list[Row]) -> list[Row]:
    """The measured rows of the first workload: its times, or where there are none its first measure."""
    measured = [row for row in found if row.ratio]
    times = [row for row in measured if row.measure == "time"] or measured
    return [row for row in times if row[:2] == times[0][:2]]


def limits(groups: list[tuple[str, list[Row]]]) -> tuple[float, float]:
    """From decade to decade, 1 among them."""
    ratios = [row.ratio for _, group in groups for row in group if row.ratio] + [1.0]
    return 10.0 ** math.floor(math.log10(min(ratios) / 1.2)), 10.0 ** math.ceil(math.log10(max(ratios) * 1.2))
