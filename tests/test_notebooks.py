"""The notebooks: their pairs agree, the index names them, and every cell runs."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import nbformat
import pytest

import fnn
from experiments import find_the_mistake, inside
from experiments.notebooks import __main__ as program
from experiments.notebooks import pairs

pytestmark = pytest.mark.project
INDEX = (pairs.FOLDER / "README.md").read_text()


def test_there_are_six():
    assert [name[0] for name in pairs.names()] == list("123456")


@pytest.mark.parametrize("name", pairs.names())
def test_a_pair_agrees_and_holds_no_path_of_a_machine(name):
    assert pairs.disagreements(name) == []


@pytest.mark.parametrize("name", pairs.names())
def test_the_index_names_a_notebook_with_its_title_and_its_time(name):
    title = pairs.source(name).cells[0].source.splitlines()[0].removeprefix("# ")
    row = next(line for line in INDEX.splitlines() if f"({name}.ipynb)" in line)
    assert row.startswith(f"| [{title}](")
    assert row.endswith(" s |")


def test_all_outputs_together_are_small():
    assert sum((pairs.FOLDER / f"{name}.ipynb").stat().st_size for name in pairs.names()) < 1_500_000


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A pair in a folder of its own, to spoil."""
    name = pairs.names()[0]
    for suffix in (".md", ".ipynb"):
        (tmp_path / f"{name}{suffix}").write_text((pairs.FOLDER / f"{name}{suffix}").read_text())
    monkeypatch.setattr(pairs, "FOLDER", tmp_path)
    return SimpleNamespace(name=name, text=tmp_path / f"{name}.md", notebook=tmp_path / f"{name}.ipynb")


def spoil(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(next(cell for cell in notebook.cells if cell.cell_type == "code"))
    path.write_text(nbformat.writes(notebook))


def test_a_changed_text_is_noticed(copy):
    copy.text.write_text(copy.text.read_text().replace("# 1. Back", "# 1. Forth and back"))
    assert pairs.disagreements(copy.name) == [f"cell 0 of {copy.name}.ipynb is not that of {copy.name}.md"]


def test_a_missing_cell_is_noticed(copy):
    copy.text.write_text(f"{copy.text.read_text()}\n+++\n\nOne more.\n")
    assert "has" in pairs.disagreements(copy.name)[0]


def test_a_missing_notebook_is_noticed(copy):
    copy.notebook.unlink()
    assert pairs.disagreements(copy.name) == [f"{copy.name}.ipynb is missing"]


def test_a_notebook_without_outputs_is_noticed(copy):
    spoil(copy.notebook, lambda cell: cell.update(execution_count=None, outputs=[]))
    assert pairs.disagreements(copy.name) == [f"{copy.name}.ipynb was not executed"]


@pytest.mark.parametrize("text", ["File /home/ada/fnn/x.py", "'/tmp/v/lib/python3'", "<Figure at 0x7f0012ab34cd>"])
def test_what_belongs_to_one_machine_is_noticed(copy, text):
    spoil(copy.notebook, lambda cell: cell.outputs.append(nbformat.v4.new_output("stream", text=text)))
    (found,) = pairs.disagreements(copy.name)
    assert "a path of this machine" in found or "an address in memory" in found


@pytest.mark.parametrize("text", ["dL/da[2] * sigma'", "https://x.org/home/page", "∂C/∂W and/or a/tmp/b"])
def test_formulas_and_addresses_are_no_paths(copy, text):
    spoil(copy.notebook, lambda cell: cell.outputs.append(nbformat.v4.new_output("stream", text=text)))
    assert pairs.disagreements(copy.name) == []


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(SystemExit, match="no notebook 7_x; there are 1_"):
        program.main(["7_x"])


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", pairs.names())
def test_every_cell_runs(name):
    """In a process of its own: what Jupyter's libraries warn of is not fnn's."""
    environment = os.environ | {"PYTHONPATH": str(pairs.ROOT), "JAX_PLATFORMS": "cpu"}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # it is the user's
    command = [sys.executable, "-m", "experiments.notebooks", "--check", name]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=pairs.ROOT, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


# -- what the notebooks call -----------------------------------------------------------------------------------


def test_the_share_of_flat_neurons_is_counted_against_the_slope_at_zero():
    z = jnp.array([[0.0, 1.0, 10.0, -10.0]])
    for activation in (fnn.Sigmoid(), fnn.Tanh()):
        assert inside.share_flat(activation, z, activation.value(z)) == 0.5
    relu = fnn.ReLU()
    assert inside.share_flat(relu, z, relu.value(z)) == 0.5  # 0 and −10


def test_a_factor_two_in_the_output_delta_does_what_twice_the_learning_rate_does():
    params, x, y = find_the_mistake.problem()
    twice = find_the_mistake.training(params, x, y, fnn.RULES, learning_rate=1.0)
    wrong = find_the_mistake.training(params, x, y, find_the_mistake.broken("factor-two", 3))
    assert wrong == pytest.approx(twice, rel=1e-3)
