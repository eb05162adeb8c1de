"""The tables of experiments, generated from their JSON records: ``python -m experiments.table [RUN …]``.

Each RUN is a folder that an experiment wrote; its figures.json and its picture go to experiments/gallery/ under the
experiment's name. Then two tables are rewritten: in experiments/README.md, between two comments, the first claim of
every experiment and all with a published figure; in experiments/gallery/README.md every claim, with pictures, and how
long a run at full length takes. Beside a published figure stands what differs: shortened, other data, another rate, one
seed, not reproduced.
"""

import ast
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

HERE = Path(__file__).parent
GALLERY, README = HERE / "gallery", HERE / "README.md"
BEGIN, END = "<!-- made by python -m experiments.table -->\n", "<!-- end -->\n"
USUAL = "AVX-512"  # the instruction set of the CPU that the tables are of, where a row does not say another
COLUMNS = ("claim", "published", "here", "differs")
HEADER = "| command | claim | published | here | differs | time |\n|---|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Options:
    """Store the records of some runs, and generate the tables from all stored records."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Output folders of experiments."""


def keep(run: Path) -> None:
    """Copy a run's figures.json and pictures into the gallery."""
    name = json.loads((run / "figures.json").read_text())["experiment"]
    shutil.copyfile(run / "figures.json", GALLERY / f"{name}.json")
    for picture in run.glob("*.png"):
        shutil.copyfile(picture, GALLERY / picture.name)


def kept() -> list[dict]:
    """The records of the gallery, by name; benchmarks last."""
    records = [json.loads(path.read_text()) for path in GALLERY.glob("*.json")]
    return sorted(records, key=lambda record: (record["experiment"].startswith("benchmarks"), record["experiment"]))


def markdown(records: Sequence[dict], claims: Callable[[dict], list[dict]]) -> str:
    """One line per claim; command, picture and run time stand beside the first of an experiment."""
    lines = []
    for record in records:
        picture = GALLERY / f"{record['experiment']}.png"
        command = f"`{record['command']}`{on(record)}"
        if picture.exists():
            command += f" ([picture]({picture.relative_to(HERE).as_posix()}))"
        for number, claim in enumerate(claims(record)):
            first = (command, duration(record)) if number == 0 else ("", "")
            cells = (first[0], *(claim[name] for name in COLUMNS), first[1])
            lines.append(markdown_row(cells) + "\n")
    return HEADER + "".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def duration(record: dict) -> str:
    seconds = record["seconds"]
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def on(record: dict) -> str:
    """The device of a record, if it is not the usual CPU; the oldest records are of that, and do not say so."""
    made = record["made with"]
    if made.get("platform", "cpu") != "cpu":
        return f" on {made['kind']}"
    instructions = made.get("instructions", USUAL)
    return "" if instructions == USUAL else f" on {instructions}"


def leading(record: dict) -> list[dict]:
    """An experiment's first claim, and those with a published figure."""
    first, *others = record["claims"]
    return [first, *(claim for claim in others if claim["published"])]


def page(records: Sequence[dict]) -> str:
    """The gallery's README: every claim, section by section."""
    sections = []
    for record in records:
        name, machine = record["experiment"], record["made with"]
        parts = [f"## {name}\n\n`{record['command']}`: {duration(record)}{on(record)}, jax {machine['jax']}."]
        if record["shortened"]:
            parts.append(f"Shortened: {record['shortened']}.")
        parts += at_length(HERE / f"{name}.py")
        rows = (markdown_row([claim[k] for k in COLUMNS]) for claim in record["claims"])
        parts.append("\n".join([markdown_row(COLUMNS), "|---|---|---|---|", *rows]))
        if (GALLERY / f"{name}.png").exists():
            parts.append(f"![{name}]({name}.png)")
        sections.append("\n\n".join(parts) + "\n")
    return "# Results in full: figures and tables\n\nMade by `python -m experiments.table`.\n\n" + "\n".join(sections)


def at_length(program: Path) -> list[str]:
    """What a program's docstring says of its ``--full`` run: the paragraph that begins with it, if there is one."""
    if not program.exists():  # a benchmark, or a package
        return []
    paragraphs = (ast.get_docstring(ast.parse(program.read_text())) or "").split("\n\n")
    full = [" ".join(part.split()) for part in paragraphs if part.startswith("``--full``")]
    return [f"`python -m experiments.{program.stem} --full`{part[10:].replace('``', '`')}" for part in full]


def between(readme: str, table: str) -> str:
    """The page with ``table`` between its two comments."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END, 1)[1]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    for run in options.runs:
        keep(run)
    README.write_text(between(README.read_text(), markdown(kept(), leading)))
    (GALLERY / "README.md").write_text(page(kept()))


if __name__ == "__main__":
    main()
