"""The register as a table: for a terminal, as Markdown, as HTML."""

from pathlib import Path

from experiments.equations import bhaip, forms, hedges, lopez_davila, notes, strabel, strabel_batchnorm, strabel_descent
from experiments.equations.pointers import POINTERS
from experiments.equations.register import ROWS, Finding, Row
from experiments.table import markdown_row
from fnn.display import Table

PATH = Path(__file__).parents[1] / "equations.md"
MODULES = (hedges, lopez_davila, strabel, strabel_batchnorm, strabel_descent, bhaip, notes)  # imported, they register
DOCUMENTS = {
    "H": "Hedges, *A brief introduction to neural networks and back propagation* (talk, 2022)",
    "L": "Lopez Davila, *Neural networks: the backpropagation algorithm* (2020)",
    "S": "Strabel, *The basics of neural networks* (2023)",
    "B": "Bhaip, *Neural networks III: backpropagation* (2021)",
    "N": "Handwritten notes, *Application: neural networks*",
}
HEADER = ("row", "as printed", "verdict", "off by", "against", "corrected", "off by", "measured")
INTRODUCTION = """# Every printed equation, run

Made by `python -m experiments.equations --save`. Each formula that the five documents print is run literally, in
float64, and compared with automatic differentiation or with the fact that is named. *Off by* is the relative
disagreement, norm-wise; *inf*: it cannot be computed as printed. An erratum comes with its corrected form. The rows are
functions in [`experiments/equations/`](equations), named by their identifiers; each has a test in `tests/equations/`.

"""


def cells(name: str, finding: Finding) -> tuple[str, ...]:
    wrong = finding.corrected_error is not None
    corrected = (finding.corrected, size(finding.corrected_error)) if wrong else ("", "")
    return (name, finding.printed, finding.verdict, size(finding.error), finding.against, *corrected, finding.note)


def size(error: float | None) -> str:
    """Two digits of what is more than rounding, and of rounding its bound, for that differs between machines."""
    assert error is not None
    return "≤ 1e-12" if error <= 1e-12 else f"{error:.2g}"


def rows_of(letter: str, only=()) -> list[Row]:
    """The rows of one document in the order of their numbers, all or ``only`` these."""
    rows = [row for name, row in ROWS.items() if name[0] == letter and (not only or name in only)]
    return sorted(rows, key=lambda row: int(row.id[1:]))


def table(letter: str, only=()) -> Table:
    """The findings of one document's rows."""
    rows = rows_of(letter, only)
    found = [(row, finding) for row in rows for finding in row.run()]
    errata = sum(finding.verdict == "erratum" for _, finding in found)
    return Table(
        HEADER,
        tuple(cells(row.id, finding) for row, finding in found),
        title=DOCUMENTS[letter],
        footer=f"{len(rows)} rows, {len(found) - errata} findings true as printed, {errata} errata",
    )


def tables(only=()) -> list[Table]:
    return [made for letter in DOCUMENTS if (made := table(letter, only)).rows]


def text(only=()) -> str:
    return "\n\n".join(map(str, tables(only)))


def html(only=()) -> str:
    return "\n".join(made._repr_html_() for made in tables(only))


def lines(made: Table) -> str:
    """A table as Markdown."""
    cells = (made.header, ("---",) * len(made.header), *made.rows)
    return "\n".join(map(markdown_row, cells))


def markdown(only=()) -> str:
    return "\n".join(f"## {made.title}\n\n{lines(made)}\n\n{made.footer}.\n" for made in tables(only))


def document() -> str:
    """The whole of equations.md."""
    same = forms.table()
    programs = [(name, what, f"`python -m {by}`") for name, (what, by) in POINTERS.items()]
    pointers = Table(("row", "what", "program"), tuple(programs))
    return (
        f"{INTRODUCTION}{markdown()}\n## {same.title}\n\n{lines(same)}\n\n{same.footer}\n\n"
        f"## Experiments that the documents point at\n\n{lines(pointers)}\n"
    )


TEXTS = {"text": text, "markdown": markdown, "html": html}
