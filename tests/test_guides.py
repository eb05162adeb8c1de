"""The guides' examples give what the pages say."""

import doctest
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.verify.__main__ import main

pytestmark = pytest.mark.project
SITE = Path(__file__).parent.parent / "experiments" / "site"
GUIDES = [page for page in SITE.glob("*.md") if ">>> " in page.read_text()]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda page: page.stem)
def test_the_examples_of_a_guide_give_what_it_says(guide):
    with jax.numpy_dtype_promotion("standard"):
        failed, tried = doctest.testfile(
            str(guide), module_relative=False, encoding="utf-8", optionflags=doctest.ELLIPSIS
        )
    assert tried
    assert not failed


IMPORTS = {
    "PyTorch": ("torch", "import torch\nfrom torch import nn\nfrom torch.utils.data import DataLoader, TensorDataset"),
    "Flax": ("flax", "from flax import nnx"),
    "Equinox": ("equinox", "import equinox as eqx"),
    "scikit-learn": ("sklearn", "from sklearn.neural_network import MLPClassifier"),
}


@pytest.mark.filterwarnings("ignore")  # of the other library
@pytest.mark.parametrize("library", IMPORTS)
def test_the_same_network_learns_in_every_library(library):
    name, imports = IMPORTS[library]
    pytest.importorskip(name)
    section = (SITE / "coming.md").read_text().split(f"\n## {library}\n")[1].split("\n## ")[0]
    blocks = [block for block in re.findall(r"(?ms)^```python\n(.*?)^```", section) if not block.startswith(">>>")]
    x = np.random.default_rng(0).normal(size=(500, 2)).astype("float32")
    names = {"x": x, "labels": (x[:, 0] * x[:, 1] > 0).astype(int), "jax": jax, "jnp": jnp, "optax": optax, "fnn": fnn}
    with jax.numpy_dtype_promotion("standard"):
        exec("\n".join([imports, *blocks]), names)
    converted = {"PyTorch": fnn.convert.from_torch, "scikit-learn": fnn.convert.from_sklearn}
    if library == "Equinox":
        (line,) = re.findall(r"`(tuple\(.*?\))`\.", section)
        params = eval(line, names)
    else:
        params = names["params"] if library == "Flax" else converted[library](names["model"])
    found = fnn.forward(params, x)
    predicted = found.argmax(axis=1) if found.shape[1] == 2 else found[:, 0] > 0.5
    assert (np.asarray(predicted) == names["labels"]).mean() > 0.95


FILE = re.compile(r"(?ms)^`(\w+\.py)`:\n\n```python\n(.*?)^```")
COMMAND = re.compile(r"(?ms)^```console\n\$ python -m fnn\.verify (.*?)\n(.*?)^```")
CLAIM = re.compile(r"\d+ of \d+|.*looks like|    it |    and ")


@pytest.mark.process
def test_the_commands_of_the_page_for_teachers_print_what_it_says(tmp_path, monkeypatch, capsys):
    page = (SITE / "teaching.md").read_text()
    for name, text in FILE.findall(page):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    commands = COMMAND.findall(page)
    assert len(commands) == 2
    for command, said in commands:
        assert main(command.split()) == 0
        printed = capsys.readouterr().out.splitlines()
        assert [line for line in printed if CLAIM.match(line)] == [
            line for line in said.splitlines() if CLAIM.match(line)
        ]


def test_every_yes_of_the_table_of_checkers_is_a_test():
    page = (SITE / "checkers.md").read_text()
    rows = re.findall(r"(?m)^\| (\d+)\. [^|]+\| ([^|]+) \|", page)
    tests = dict(re.findall(r"(?ms)^(\d+)\. (`tests/.*?)(?=^\d+\. |^\n|\Z)", page))
    assert {number for number, ours in rows if ours.startswith("yes")} == set(tests)
    for named in tests.values():
        for file, name in re.findall(r"`(tests/\w+\.py)::(\w+)`", named):
            assert f"def {name}(" in (SITE.parent.parent / file).read_text(), name
