"""One convention for the arguments of every public function."""

from importlib import import_module
from inspect import Parameter, isclass, signature
from pkgutil import iter_modules

import pytest

import fnn

BY_KEYWORD = "loss", "key", "masks", "rules", "reduction", "dropout"
PRIVATE = {"display", "export", "markup", "numbers", "checks", "written", "kinds", "streams", "optimizers"}
AT_THE_START = {"init"}  # draws from its first argument, as the functions of jax.random do
OF_DROPOUT = {"sample_masks"}  # is about it


def public_functions():
    """Every function that a user calls, by name."""
    modules = [fnn, fnn.equations]
    modules += [
        import_module(f"fnn.{found.name}")
        for found in iter_modules(fnn.__path__)
        if found.name not in PRIVATE and found.name != "sklearn"
    ]
    found = {}
    for module in modules:
        for name in getattr(module, "__all__", ("lines", "graph_lines") if module is fnn.equations else ()):
            value = getattr(module, name)
            if callable(value) and not isclass(value):
                found[f"{module.__name__}.{name}"] = value
    return found


FUNCTIONS = public_functions()


def parameters(function):
    try:
        return signature(function).parameters
    except ValueError:
        return {}


def test_there_are_many():
    assert {"fnn.backprop", "fnn.train.fit", "fnn.verify.network", "fnn.equations.lines"} < set(FUNCTIONS)
    assert len(FUNCTIONS) > 60


@pytest.mark.parametrize("name", FUNCTIONS)
def test_settings_are_given_by_keyword_and_the_loss_is_squared_error_by_default(name):
    given = parameters(FUNCTIONS[name])
    short = name.rpartition(".")[2]
    for argument in BY_KEYWORD:
        exempt = (argument == "key" and short in AT_THE_START) or (argument == "dropout" and short in OF_DROPOUT)
        if argument in given and not exempt:
            assert given[argument].kind is Parameter.KEYWORD_ONLY, argument
    if "loss" in given:
        assert given["loss"].default == fnn.SquaredError()
    if "rules" in given:
        assert given["rules"].default is not Parameter.empty


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_network_comes_first_and_then_x_and_y(name):
    names = list(parameters(FUNCTIONS[name]))
    if {"params", "y"} <= set(names):
        assert names[:3] == ["params", "x", "y"]
    elif {"params", "x"} <= set(names):
        assert names[:2] == ["params", "x"]


def test_a_custom_step_takes_masks_by_keyword():
    step = fnn.train.make_step(fnn.updates.sgd(0.1))
    assert list(signature(step).parameters) == ["params", "state", "x", "y", "masks"]
    assert signature(step).parameters["masks"].kind is Parameter.KEYWORD_ONLY
