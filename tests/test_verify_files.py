"""python -m fnn.verify FILE.py: every check in a file, its exit code, and its JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fnn
from fnn.verify.__main__ import main

BEGIN = """
import jax, jax.numpy as jnp, fnn
from fnn.verify import gradient

W = jnp.arange(3.0)

def cost(w):
    return (w**2).sum()

def right(w):
    return 2 * w

def wrong(w):
    return w
"""
FILES = {  # what stands in a file, its exit code, and the lines that begin so
    "a report": ("REPORT = gradient(right, cost, W)", 0, ["ok     REPORT: the only leaf agrees", "1 check, all right"]),
    "a wrong report": ("REPORT = gradient(wrong, cost, W)", 1, ["WRONG  REPORT: the only leaf is wrong", "  params"]),
    "functions": (
        "def check_a():\n    return gradient(right, cost, W)\ndef check_b():\n    return gradient(wrong, cost, W)",
        1,
        ["ok     check_a: the only leaf agrees", "WRONG  check_b: the only leaf is wrong", "2 checks, 1 wrong"],
    ),
    "a test that raises": (
        "def test_a():\n    gradient(wrong, cost, W).check()",
        1,
        ["WRONG  test_a", "  the only leaf is wrong", "        looks like: a factor 1/2 too small"],
    ),
    "a test that passes": ("def test_a():\n    gradient(right, cost, W).check()", 0, ["ok     test_a"]),
    "an error": ("def check_a():\n    return 1 / 0", 1, ["WRONG  check_a", "  ZeroDivisionError"]),
    "an exit": ("def check_a():\n    raise SystemExit(0)", 1, ["WRONG  check_a", "  SystemExit"]),
    "several": (
        "def check_a():\n    return [gradient(f, cost, W) for f in (right, wrong)]",
        1,
        ["ok     check_a[0]", "WRONG  check_a[1]"],
    ),
    "no report": ("def check_a():\n    return 5", 1, ["WRONG  check_a", "  expected a report, got int"]),
    "a check at the top": ("gradient(wrong, cost, W).check()", 1, ["WRONG  ", "  the only leaf is wrong"]),
    "helpers": (
        "def check_with(w):\n    return 1\ncheck_no = 5\ndef check_a():\n    return None",
        0,
        ["ok     check_a", "1 check"],
    ),
}  # fmt: skip


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def of(text, *options, name=""):
        (tmp_path / "some_checks.py").write_text(text)
        code = main([f"{tmp_path}/some_checks.py{name}", *options])
        sys.modules.pop("some_checks", None)
        return code, *capsys.readouterr()

    return of


@pytest.mark.parametrize("case", FILES)
def test_every_check_in_a_file_is_run_and_the_exit_code_says_whether_one_fails(run, case):
    text, expected, lines = FILES[case]
    code, out, _ = run(BEGIN + text)
    assert code == expected
    found = out.splitlines()
    for line in lines:
        assert any(one.startswith(line) for one in found), out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has no checks"),
        ("def f(:", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_a_file_without_checks_or_one_that_cannot_be_loaded_is_told_from_a_wrong_one(run, text, said):
    code, _, error = run(text)
    assert code == 2
    assert said in error


def test_one_check_is_run_by_its_name(run):
    text = (
        BEGIN + "def check_a():\n    return gradient(wrong, cost, W)\ndef other():\n    return gradient(right, cost, W)"
    )
    assert run(text, name=":other")[0] == 0
    assert run(text, name=":check_a")[0] == 1
    assert run(text, name=":nothing")[0] == 2


def test_json_is_all_that_is_printed_and_is_strict(run):
    report = "print('hello')\nREPORT = gradient(lambda w: w * jnp.nan, cost, W)\n"
    text = BEGIN + report + "def check_a():\n    raise ValueError('no')"
    code, out, error = run(text, "--json")
    assert code == 1
    assert error == "hello\n"

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(out, parse_constant=refuse)
    report, raised = found["checks"]
    assert not found["ok"]
    assert report["findings"][0]["error"] == "nan"
    assert report["findings"][0]["name"] == "params"
    assert raised["error"].startswith("ValueError: no")


@pytest.mark.process
def test_as_a_command_on_a_module_of_the_working_directory(tmp_path):
    (tmp_path / "mine.py").write_text(BEGIN + "REPORT = gradient(wrong, cost, W)")
    run = in_folder(tmp_path, "fnn.verify", "mine:REPORT")
    assert run.returncode == 1
    assert run.stdout.startswith("WRONG  REPORT: the only leaf is wrong\n  params")


def in_folder(folder, *command):
    """A command in another folder, with the fnn that is tested here."""
    environment = {**os.environ, "PYTHONPATH": str(Path(fnn.__file__).parent.parent)}
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True)


PYTEST = """
import jax.numpy as jnp, fnn

def test_square():
    fnn.verify.gradient(lambda w: w, lambda w: (w**2).sum(), jnp.arange(3.0)).check()
"""


@pytest.mark.process
def test_pytest_shows_the_report_and_nothing_of_the_checker(tmp_path):
    (tmp_path / "test_mine.py").write_text(PYTEST)
    run = in_folder(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")
    assert run.returncode == 1
    lines = [line for line in run.stdout.splitlines() if line.startswith("E ")]
    assert lines[0] == "E       fnn.verify.report.DerivationError: the only leaf is wrong"
    assert any("looks like: a factor 1/2 too small" in line for line in lines)
    assert "report.py" not in run.stdout
    assert "def check" not in run.stdout
