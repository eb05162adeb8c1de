"""The register as tables: for a terminal, as HTML, and as the page, grouped by document and by kind."""

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from experiments.equations import (
    bhaip,
    forms,
    hedges,
    hedges_backward,
    lopez_davila,
    lopez_davila_backward,
    notes,
    strabel,
    strabel_batchnorm,
    strabel_descent,
    strabel_dropout,
)
from experiments.equations.common import size
from experiments.equations.pointers import POINTERS
from experiments.equations.quotes import QUOTES
from experiments.equations.register import KINDS, ROWS, RULE, Finding, Quote, Row, Verdict
from experiments.table import markdown_row
from fnn.display import Table
from fnn.markup import counted

ROOT = Path(__file__).parents[2]
PATH = ROOT / "experiments" / "equations.md"
MODULES = (  # imported, they register
    hedges, hedges_backward, lopez_davila, lopez_davila_backward, strabel, strabel_dropout, strabel_batchnorm,
    strabel_descent, bhaip, notes,
)  # fmt: skip
DOCUMENTS = {
    "H": "Hedges, *A brief introduction to neural networks and back propagation* (talk, 2022)",
    "L": "Lopez Davila, *Neural networks: the backpropagation algorithm* (2020)",
    "S": "Strabel, *The basics of neural networks* (2023)",
    "B": "Bhaip, *Neural networks III: backpropagation* (2021)",
    "N": "Handwritten notes, *Application: neural networks*",
}
HEADER = ("row", "as printed", "verdict", "off by", "against", "corrected", "off by", "measured")
BESIDE: dict[Verdict, str] = {"erratum": "correct", "loose": "what is meant", "convention": "the convention"}
INTRODUCTION = """# Every printed equation, run

Made by `python -m experiments.equations --save`. Each formula and each statement that the five documents print is run
literally, in float64, and compared with automatic differentiation or with the fact that is named. *Off by* is the
relative disagreement, norm-wise; *inf*: it cannot be computed as printed; after the arrow, that of the form beside it.
Every row quotes the sentence that it is about, with the document's own formula, and links the function that runs it and
its test; behind these stands what implements it.

"""


class Entry(NamedTuple):
    """A finding with its row, and the sentence that it is about."""

    row: Row
    finding: Finding
    quote: Quote


def entries(letter: str, only=()) -> list[Entry]:
    """The findings of one document, in the order of its rows' numbers: all, or of ``only`` these rows."""
    rows = [row for name, row in ROWS.items() if name[0] == letter and (not only or name in only)]
    return [
        Entry(row, finding, quote)
        for row in sorted(rows, key=lambda row: int(row.id[1:]))
        for finding, quote in zip(row.run(), QUOTES[row.id], strict=True)
    ]


def count(found: list[Entry]) -> str:
    """How many findings there are of each kind, in words."""
    verdicts = [entry.finding.verdict for entry in found]
    kinds = [f"{verdicts.count(kind)} {name.lower()}" for kind, name in KINDS.items() if kind in verdicts]
    rows = counted(len({entry.row.id for entry in found}), "row")
    return f"{rows}, {counted(len(found), 'finding')}: {', '.join(kinds)}"


# -- in a terminal and as HTML -----------------------------------------------------------------------------------


def cells(row: Row, finding: Finding) -> tuple[str, ...]:
    corrected = ("", "")
    if finding.corrected_error is not None:
        corrected = (finding.corrected, size(finding.corrected_error))
    return (row.id, finding.printed, finding.verdict, size(finding.error), finding.against, *corrected, finding.note)


def tables(only=()) -> list[Table]:
    made = []
    for letter, title in DOCUMENTS.items():
        if found := entries(letter, only):
            rows = tuple(cells(entry.row, entry.finding) for entry in found)
            made.append(Table(HEADER, rows, title=title.replace("*", ""), footer=count(found)))
    return made


def text(only=()) -> str:
    return "\n\n".join(map(str, tables(only)))


def html(only=()) -> str:
    return "\n".join(made._repr_html_() for made in tables(only))


# -- the page ----------------------------------------------------------------------------------------------------


def lines(header, rows) -> str:
    """A table as Markdown."""
    return "\n".join(map(markdown_row, (header, ("---",) * len(header), *rows)))


def link(entry: Entry) -> str:
    """The row's identifier, which leads to its function, a link to its test, and what implements what it prints."""
    function = inspect.unwrap(entry.row.run)
    source, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
    test, test_line = tests()[entry.row.id]
    program = Path(str(source)).relative_to(ROOT / "experiments").as_posix()
    by = " ".join(map(implementation, entry.row.by))
    return f"[{entry.row.id}]({program}#L{line}) ([test](../{test}#L{test_line})) {by}"


@cache
def implementation(path: str) -> str:
    """A link from a function's or an experiment's name to its file; without a line, because that moves."""
    value = named(path)
    file = Path(str(inspect.getsourcefile(inspect.unwrap(value)))).relative_to(ROOT)
    return f"[{path.rsplit('.', 1)[1]}](../{file.as_posix()})"


def named(path: str):
    """The module, class or function with this dotted path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        parent, name = path.rsplit(".", 1)
        return getattr(named(parent), name)


@cache
def tests() -> dict[str, tuple[str, int]]:
    """Of every row its first test: the file, from the repository's root, and the line."""
    found: dict[str, tuple[str, int]] = {}
    for path in sorted((ROOT / "tests" / "equations").glob("test_*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := re.match(r"def test_([A-Z]\d+)_", line):
                found.setdefault(match[1], (path.relative_to(ROOT).as_posix(), number))
    return found


def section(kind: Verdict, found: list[Entry]) -> str:
    """The findings of one kind: what is printed, beside it what is right, how far off each is, and how it was run."""
    beside = [BESIDE[kind]] if kind in BESIDE else []
    rows = []
    for entry in found:
        finding, off = entry.finding, size(entry.finding.error)
        if finding.corrected_error is not None:
            off += f" → {size(finding.corrected_error)}"
        how = f"`{finding.printed}` against {finding.against}" + (f"; {finding.note}" if finding.note else "")
        rows.append((link(entry), entry.quote.text, *([entry.quote.correct] if beside else []), off, how))
    return f"### {KINDS[kind]}\n\n{lines(('row', 'printed', *beside, 'off by', 'run as'), rows)}\n"


def markdown(only=()) -> str:
    parts = []
    for letter, title in DOCUMENTS.items():
        if not (found := entries(letter, only)):
            continue
        parts.append(f"## {title}\n\n{count(found)}.\n")
        for kind in KINDS:
            if of_kind := [entry for entry in found if entry.finding.verdict == kind]:
                parts.append(section(kind, of_kind))
    return "\n".join(parts)


def document() -> str:
    """The whole of equations.md."""
    same, every = forms.table(), [entry for letter in DOCUMENTS for entry in entries(letter)]
    programs = [(name, what, f"`python -m {by}`") for name, (what, by) in POINTERS.items()]
    return (
        f"{INTRODUCTION}{RULE}\n\nIn all {count(every)}.\n\n{markdown()}\n## {same.title}\n\n"
        f"{lines(same.header, same.rows)}\n\n{same.footer}\n\n"
        f"## Experiments that the documents point at\n\n{lines(('row', 'what', 'program'), programs)}\n"
    )


TEXTS = {"text": text, "markdown": markdown, "html": html}
