"""The register as a whole: its page is fresh, every row has a test, and rows and docstrings name each other."""

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
from experiments.equations.register import ROWS, row, true

pytestmark = pytest.mark.project
IDENTIFIER = re.compile(r"\b[HLSBNE]\d{1,2}\b")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def named(path: str):
    """The module, class or function with this dotted path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        parent, name = path.rsplit(".", 1)
        return getattr(named(parent), name)


def test_the_page_is_what_the_rows_give_today():
    fresh, kept = render.document(), render.PATH.read_text()
    assert NUMBER.sub("#", fresh) == NUMBER.sub("#", kept), "write python -m experiments.equations --save"
    numbers = [[float(number) for number in NUMBER.findall(page)] for page in (fresh, kept)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05), "write python -m experiments.equations --save"


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_test_and_is_named_by_what_implements_it(name):
    document = ROWS[name].run.__module__.rsplit(".", 1)[1]
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert re.search(rf"def test_{name}_", source), f"{document}: no test of {name}"
    assert ROWS[name].by, f"{name} names nothing that implements it"
    for path in ROWS[name].by:
        assert re.search(rf"\b{name}\b", named(path).__doc__ or ""), f"the docstring of {path} does not name {name}"


@pytest.mark.parametrize("name", POINTERS)
def test_every_experiment_that_a_document_points_at_is_a_program_that_says_so(name):
    assert re.search(rf"\b{name}\b", named(POINTERS[name].by).__doc__)


def test_every_identifier_in_a_docstring_is_a_row():
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(fnn.__path__, "fnn.")]
    documented = [value for module in modules for value in (module, *vars(module).values()) if inspect.getdoc(value)]
    claimed = {name for value in documented for name in IDENTIFIER.findall(inspect.getdoc(value))}
    assert len(claimed) > 30
    assert claimed <= {*ROWS, *POINTERS}


def test_the_register_counts_its_rows_by_document():
    letters = [re.match(r"[A-Z]", name)[0] for name in ROWS]
    assert {letter: letters.count(letter) for letter in "HLSBN"} == {"H": 16, "L": 13, "S": 13, "B": 15, "N": 8}


def test_the_program_prints_some_rows_and_refuses_unknown_ones(capsys):
    program.main(["--only", "H9", "B4", "--format", "markdown"])
    said = capsys.readouterr().out
    assert "| H9 |" in said
    assert "| B4 |" in said
    assert "| H10 |" not in said
    program.main(["--only", "H9", "--format", "html"])
    assert ">H9</td>" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no row X1"):
        program.main(["--only", "X1"])


def test_a_row_cannot_be_registered_twice():
    with pytest.raises(ValueError, match="H9 is registered twice"):

        @row("fnn.backprop")
        def H9():
            return true("nothing", 0)
