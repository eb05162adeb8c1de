"""The register as a table: for a terminal, as Markdown, as HTML."""

from pathlib import Path

from experiments.equations import bhaip, hedges, lopez_davila, notes, strabel
from experiments.equations.pointers import POINTERS
from experiments.equations.register import ROWS, Finding
from fnn.display import Table

PATH = Path(__file__).parents[1] / "equations.md"
DOCUMENTS = (hedges, lopez_davila, strabel, bhaip, notes)
HEADER = ("row", "as printed", "verdict", "off by", "against", "corrected", "off by", "measured")
INTRODUCTION = """# Every printed equation, run

Made by `python -m experiments.equations --save`. Each formula that the five documents print is run literally, in
float64, and compared with automatic differentiation or with the fact that is named. *Off by* is the relative disagreement,
norm-wise; *inf*: it cannot be computed as printed. An erratum comes with its corrected form. The rows are functions in
[`experiments/equations/`](equations), one module per document, and each has a test in `tests/equations/`.

"""


def cells(name: str, finding: Finding) -> tuple[str, ...]:
    wrong = finding.corrected_error is not None
    corrected = (finding.corrected, size(finding.corrected_error)) if wrong else ("", "")
    return (name, finding.printed, finding.verdict, size(finding.error), finding.against, *corrected, finding.note)


def size(error: float | None) -> str:
    """Two digits of what is more than rounding, and of rounding its bound."""
    assert error is not None
    return "0" if error == 0 else "≤ 1e-12" if error <= 1e-12 else f"{error:.2g}"


def table(document, only=()) -> Table:
    """The findings of one document's rows, of all or of ``only`` these."""
    rows = [row for row in ROWS.values() if row.run.__module__ == document.__name__ and (not only or row.id in only)]
    found = [(row, finding) for row in rows for finding in row.run()]
    errata = sum(finding.verdict == "erratum" for _, finding in found)
    return Table(
        HEADER,
        tuple(cells(row.id, finding) for row, finding in found),
        title=document.__doc__.strip(),
        footer=f"{len(rows)} rows, {len(found) - errata} findings true as printed, {errata} errata",
    )


def tables(only=()) -> list[Table]:
    return [made for document in DOCUMENTS if (made := table(document, only)).rows]


def text(only=()) -> str:
    return "\n\n".join(map(str, tables(only)))


def html(only=()) -> str:
    return "\n".join(made._repr_html_() for made in tables(only))


def markdown(only=()) -> str:
    parts = []
    for made in tables(only):
        lines = [made.header, ("---",) * len(made.header), *made.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts.append(f"## {made.title}\n\n{body}\n\n{made.footer}.\n")
    return "\n".join(parts)


def document() -> str:
    """The whole of equations.md."""
    pointers = "".join(f"| {name} | {what} | `python -m {by}` |\n" for name, (what, by) in POINTERS.items())
    ending = f"\n## Experiments that the documents point at\n\n| row | what | program |\n|---|---|---|\n{pointers}"
    return INTRODUCTION + markdown() + ending


TEXTS = {"text": text, "markdown": markdown, "html": html}
