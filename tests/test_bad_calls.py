"""No public function answers a wrong argument by a cryptic error or in silence: see ``bad_calls``."""

import inspect
import os
from collections import Counter

import pytest

import fnn
from bad_calls import GOOD, WRONG, bound, calls, fits, outcome

QUICK = ("init", "backprop", "sample_masks", "Dropout", "Sigmoid", "updates.momentum", "graph.Graph", "data.Dataset")
LONG = ("verify.network", "verify.curvature")  # a second for every right call
SLOW = [name for name in GOOD if name not in QUICK and name not in LONG]


@pytest.mark.parametrize("name", GOOD)
def test_what_is_replaced_is_a_right_call(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bound(*GOOD[name])


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_wrong_argument_is_refused_with_a_message_that_names_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Counter()
    for number, call in enumerate(call for call in calls() if call.function == name):
        os.makedirs(f"{number}")
        os.chdir(f"{number}")
        what, said = outcome(call)
        os.chdir("..")
        found[what] += 1
        assert what == "refused" or (what == "returned" and fits(call)), (call, what, said)
    assert found["refused"] > len(WRONG) / 2


def test_every_public_function_has_a_right_call():
    named = {name: getattr(fnn, name) for name in fnn.__all__}
    modules = {"": fnn} | {f"{name}.": module for name, module in named.items() if inspect.ismodule(module)}
    public = {
        prefix + name
        for prefix, module in modules.items()
        for name in getattr(module, "__all__", ())
        if inspect.isfunction(getattr(module, name))
    }
    elsewhere = ("checkpoint.", "convert.", "parallel.", "data.load", "verify.", "is_weight")  # with tests of their own
    assert {name for name in public if not name.startswith(elsewhere)} - set(GOOD) == set()
