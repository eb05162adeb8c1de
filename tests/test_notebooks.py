"""The notebooks: their pairs agree, the index names them, and every cell runs."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest

from experiments.notebooks import __main__ as program
from experiments.notebooks import pairs

pytestmark = pytest.mark.project
PRINTED = """def norm_pullback(norm, psi, delta_z):
    s = jnp.sqrt(psi.var(axis=0) + norm.eps)
    x_hat = (psi - psi.mean(axis=0)) / s
    return norm.gamma * delta_z / s, (delta_z * x_hat).sum(axis=0), delta_z.sum(axis=0)"""
AT_A = """def hidden_delta(g, activation, z, a):
    return g * activation.derivative(a, activation.value(a))"""
GRAPH = """def graph_gradient(w, x, t):
    h, y = graph_outputs(w, x)
    lam_y = (y - t) * (1 - y**2)
    lam_h = {}
    return {{"h,x": lam_h * x, "y,h": lam_y * h, "y,x": lam_y * x}}"""
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


def test_outputs_in_a_notebook_are_noticed(copy):
    spoil(copy.notebook, lambda cell: cell.outputs.append(nbformat.v4.new_output("stream", text="3")))
    assert pairs.disagreements(copy.name) == [f"{copy.name}.ipynb has outputs"]


@pytest.mark.parametrize("text", ["File /home/ada/fnn/x.py", "'/tmp/v/lib/python3'", "<Figure at 0x7f0012ab34cd>"])
def test_what_belongs_to_one_machine_is_noticed(copy, text):
    spoil(copy.notebook, lambda cell: cell.outputs.append(nbformat.v4.new_output("stream", text=text)))
    _, found = pairs.disagreements(copy.name)
    assert "a path of this machine" in found or "an address in memory" in found


@pytest.mark.parametrize("text", ["dL/da[2] * sigma'", "https://x.org/home/page", "∂C/∂W and/or a/tmp/b"])
def test_formulas_and_addresses_are_no_paths(copy, text):
    spoil(copy.notebook, lambda cell: cell.outputs.append(nbformat.v4.new_output("stream", text=text)))
    assert pairs.disagreements(copy.name) == [f"{copy.name}.ipynb has outputs"]


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(SystemExit, match="no notebook 7_x; there are 1_"):
        program.main(["7_x"])


# -- exercises -------------------------------------------------------------------------------------------------

Wrong = tuple[int, str, str]  # number of the exercise, an answer, and what the grade says of it
TYPICAL: dict[str, list[Wrong]] = {
    "1": [
        (0, "def output_delta(loss, activation, z, a, y):\n    return a - y", r"\(1\).*sigma'\(z\[3\]\) is missing"),
        (0, "def output_delta(loss, activation, z, a, y):\n    return (y - a) * activation.derivative(z, a)",
         r"\(1\).*looks like: on the network itself: the sign"),
        (1, "def input_gradient(delta, W):\n    return delta @ W.T", r"\(2a\)"),
        (2, "def hidden_delta(g, activation, z, a):\n    return g", r"\(2b\).*sigma'\(z\[1\]\) is missing"),
        (2, AT_A, r"\(2b\).*sigma'\(a\[1\]\) in place of sigma'\(z\[1\]\)"),
        (3, "def weight_gradient(delta, a_in):\n    return a_in.T @ delta", r"\(3\).*the transpose"),
        (3, "def weight_gradient(delta, a_in):\n    return delta.T @ a_in / len(delta)", r"\(3\).*a mean over the ex"),
        (4, "def bias_gradient(delta):\n    return delta.mean(axis=0)", r"\(4\).*a mean over the examples, not a sum"),
        (4, "def bias_gradient(delta):\n    return delta.sum(axis=1)", r"\(4\).*summed over the wrong axis"),
        (5, "number = 1", "number 1 is right, look for another"),
    ],
    "2": [
        (0, "def logit_delta(loss, activation, z, a, y):\n    return a - y", r"\(1\)"),
        (0, "def logit_delta(loss, activation, z, a, y):\n    return y - jax.nn.sigmoid(z)", r"\(1\).*the sign"),
        (1, "def tanh_delta(g, activation, z, a):\n    return g * (1 - z**2)", r"\(2b\)"),
        (2, "numbers = [1, 1, 2]", "number 1 is right, look for another"),
    ],
    "3": [
        (0, "def swish_slope(z):\n    return jax.nn.sigmoid(z)", r"Swish.*derivative\(z, a\) is not sigma'\(z\)"),
        (1, "def log_cosh_gradient(a, y):\n    return a - y", r"\(1\)"),
        (1, "def log_cosh_gradient(a, y):\n    return jnp.tanh(y - a)", r"\(1\).*the sign"),
        (2, 'layer, fault = 3, "large weights"', "wrong: look again"),
    ],
    "4": [
        (0, "def weight_gradient(delta, a_in, mask):\n    return delta.T @ a_in", r"\(3\).*mask"),
        (1, PRINTED, r"the statistics are taken as fixed"),
        (2, "number = int(planted == 0)", "wrong: look again"),
    ],
    "5": [
        (0, GRAPH.format("lam_y * w['y,h']"), r"h,x"),
        (0, GRAPH.format("lam_y * w['y,x'] * (1 - h**2)"), r"h,x"),
        (1, "neuron = 2 + int(planted == 2)", "wrong: look again"),
    ],
    "6": [
        (0, "def hessian_times(w, v, X):\n    return X.T @ (jnp.tanh(X @ w) * (X @ v))", "leaf is wrong"),
        (1, "def weighted_gradient(W, c, a_in, y):\n    return (a_in @ W.T - y).T @ a_in", "leaf is wrong"),
        (2, "example = 300", "wrong: look again"),
    ],
}  # fmt: skip


def answered(notebook, answers):
    """The notebook with answers below its exercises, each graded as the blank is; answers: of every exercise a list.

    Also where the grades are: (number of the exercise, answer, or "" for the blank; numbers of the cells).
    """
    cells, grades, before = [], [], 0
    for number, exercise in enumerate(pairs.exercises(notebook)):
        below = [notebook.cells[i] for i in exercise][1:]
        cells += notebook.cells[before : exercise.stop]
        before = exercise.stop
        grades.append((number, "", range(len(cells) - len(below), len(cells))))
        for answer in answers[number]:
            cells += [nbformat.v4.new_code_cell(text) for text in (answer, *(cell.source for cell in below))]
            grades.append((number, answer, range(len(cells) - len(below), len(cells))))
    notebook.cells = cells + notebook.cells[before:]
    return notebook, grades


def said(cells) -> str:
    """What the cells show as text."""
    outputs = [output for cell in cells for output in cell.outputs]
    return "\n".join(output.get("text", "") or output.data["text/plain"] for output in outputs)


@pytest.mark.parametrize("name", pairs.names())
def test_every_exercise_has_a_blank_a_grade_and_a_hidden_solution(name):
    notebook = pairs.source(name)
    exercises = pairs.exercises(notebook)
    assert len(exercises) == len(pairs.solutions(notebook)) >= 2
    for exercise in exercises:
        blank, *grades = (notebook.cells[i].source for i in exercise)
        assert "..." in blank
        assert all("grade(" in cell or "not filled in yet" in cell for cell in grades)
    assert {number for number, _, _ in TYPICAL[name[0]]} == set(range(len(exercises)))


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", pairs.names())
def test_every_cell_runs_blanks_are_no_mistake_solutions_are_right_and_wrong_answers_are_named(name):
    """In a process of its own: what Jupyter's libraries warn of is not fnn's."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(pairs.ROOT), str(pairs.ROOT / "tests")))}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}  # the cache is the user's
    command = [sys.executable, "-c", f"import test_notebooks; test_notebooks.check_answers({name!r})"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=pairs.ROOT, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def check_answers(name: str) -> None:
    """Run the notebook with its blanks, then with typical wrong answers, then with its solutions."""
    notebook = pairs.source(name)
    expected = {(number, answer): text for number, answer, text in TYPICAL[name[0]]}
    solutions = pairs.solutions(notebook)
    answers = [
        [*(answer for of, answer in expected if of == number), solutions[number]] for number in range(len(solutions))
    ]
    notebook, grades = answered(notebook, answers)
    cells = pairs.executed(notebook).cells
    for number, answer, where in grades:
        shown = said(cells[i] for i in where)
        print(f"exercise {number + 1}: {answer}\n{shown}\n")
        if not answer:
            assert shown.count("not filled in yet") == len(where), shown
        elif text := expected.get((number, answer)):
            assert re.search(text, shown, re.DOTALL), (answer, shown)
        else:
            assert all(re.match("✓|right", line) for line in shown.splitlines() if line[0] != " "), (answer, shown)
    assert not list(pairs.noise(notebook))
