"""The register as a whole: its page is fresh, every row has a test, and names what implements it."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import fnn
from experiments.equations import __main__ as program
from experiments.equations import render
from experiments.equations.pointers import POINTERS
from experiments.equations.quotes import QUOTES
from experiments.equations.register import KINDS, ROWS, RULE, row, true

pytestmark = pytest.mark.project
IDENTIFIER = re.compile(r"\b[HLSBNE]\d{1,2}\b")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def test_the_page_is_what_the_rows_give_today():
    fresh, kept = render.document(), render.PATH.read_text()
    assert NUMBER.sub("#", fresh) == NUMBER.sub("#", kept), "write python -m experiments.equations --save"
    numbers = [[float(number) for number in NUMBER.findall(page)] for page in (fresh, kept)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05), "write python -m experiments.equations --save"


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_test_and_names_what_implements_it(name):
    document = ROWS[name].run.__module__.rsplit(".", 1)[1]
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert re.search(rf"def test_{name}_", source), f"{document}: no test of {name}"
    assert ROWS[name].by, f"{name} names nothing that implements it"
    for path in ROWS[name].by:
        assert render.named(path).__doc__, f"{path} is not documented"


@pytest.mark.parametrize("name", POINTERS)
def test_every_experiment_that_a_document_points_at_is_a_program_that_says_so(name):
    assert re.search(rf"\b{name}\b", render.named(POINTERS[name].by).__doc__)


def test_the_lines_of_the_derivation_name_rows_and_other_docstrings_name_none():
    sources = {name for line in fnn.equations.EQUATIONS for name in IDENTIFIER.findall(line.sources)}
    assert len(sources) > 10
    assert sources <= {*ROWS}
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(fnn.__path__, "fnn.")]
    documented = [value for module in modules for value in (module, *vars(module).values()) if inspect.getdoc(value)]
    others = [inspect.getdoc(value) for value in documented if value is not fnn.equations]
    assert not {name for docstring in others for name in IDENTIFIER.findall(docstring)}


def test_the_register_counts_its_rows_by_document():
    letters = [re.match(r"[A-Z]", name)[0] for name in ROWS]
    assert {letter: letters.count(letter) for letter in "HLSBN"} == {"H": 18, "L": 17, "S": 13, "B": 15, "N": 8}


def every_entry() -> list[render.Entry]:
    return [entry for letter in render.DOCUMENTS for entry in render.entries(letter)]


def test_every_finding_quotes_its_sentence_and_what_is_not_right_says_how_it_should_read():
    assert set(QUOTES) == set(ROWS)
    for row_, finding, quote in every_entry():
        assert quote.text, row_.id
        assert bool(quote.correct) == (finding.verdict != "true") == (finding.corrected_error is not None), row_.id
        for formula in (quote.text, quote.correct):
            assert formula.count("$") % 2 == 0, row_.id
            assert formula.count("{") == formula.count("}"), row_.id


def test_the_rule_stands_at_the_top_and_names_the_kinds():
    page = render.PATH.read_text()
    assert page.index(RULE) < page.index("## Hedges")
    assert "\n\nIn total, 71 rows, " in page
    assert all(f"### {name}\n" in page for name in KINDS.values())


def test_the_page_groups_by_document_and_kind_and_every_finding_stands_once_under_its_own():
    sections = re.split(r"(?m)^## ", render.PATH.read_text())[1:6]
    for letter, of_document in zip(render.DOCUMENTS, sections):
        kinds = re.split(r"(?m)^### (.+)\n", of_document)[1:]
        shown = {name: re.findall(r"(?m)^\| \[(\w+)\]", lines) for name, lines in zip(kinds[::2], kinds[1::2])}
        found = render.entries(letter)
        assert shown == {
            KINDS[kind]: names for kind in KINDS
            if (names := [entry.row.id for entry in found if entry.finding.verdict == kind])
        }  # fmt: skip


def test_every_row_of_the_page_names_what_implements_it_and_leads_there():
    shown = dict(re.findall(r"(?m)^\| \[(\w+)\]\(\S+\) \(\[test\]\(\S+\)\) (.+?) \|", render.PATH.read_text()))
    for name, links in shown.items():
        found = re.findall(r"\[(\w+)\]\((\S+)\)", links)
        assert [by for by, _ in found] == [path.rsplit(".", 1)[1] for path in ROWS[name].by]
        assert all((render.PATH.parent / target).exists() for _, target in found), name
    assert set(shown) == set(ROWS)


def test_every_row_of_the_page_leads_to_its_function_and_to_its_test():
    for name, function, test in re.findall(
        r"(?m)^\| \[(\w+)\]\((\S+)\) \(\[test\]\((\S+)\)\)", render.PATH.read_text()
    ):
        for target, begins in ((function, "@row("), (test, f"def test_{name}_")):
            path, line = target.split("#L")
            assert (render.PATH.parent / path).read_text().splitlines()[int(line) - 1].startswith(begins), target


def test_the_program_prints_some_rows_and_refuses_unknown_ones(capsys):
    program.main(["--only", "H9", "B4", "--format", "markdown"])
    said = capsys.readouterr().out
    assert "| [H9](equations/hedges_backward.py#L" in said
    assert "| [B4](" in said
    assert "| [H10](" not in said
    program.main(["--only", "H9", "--format", "html"])
    assert ">H9</td>" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no row X1"):
        program.main(["--only", "X1"])


def test_a_row_cannot_be_registered_twice():
    with pytest.raises(ValueError, match="H9 is registered twice"):

        @row("fnn.backprop")
        def H9():
            return true("nothing", 0)


def test_a_table_counts_in_the_singular_and_shows_no_markdown():
    (one,) = render.tables(("H5",))
    assert one.footer.startswith("1 row, ")
    assert "*" not in one.title
