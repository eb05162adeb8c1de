"""What a hand-in is asked: a function for each rule of ``fnn.Rules``, or for each stage of a task file."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Sigmoid, Tanh
from fnn.backward import RULES, Rules
from fnn.batchnorm import BatchNorm
from fnn.checks.arrays import describe
from fnn.layers import Dense
from fnn.losses import SquaredError
from fnn.masks import masked
from fnn.verify.network import network
from fnn.verify.report import Report
from fnn.verify.stages import Stage, stages

ASKED = ("output_delta", "hidden_delta", "input_gradient", "weight_gradient", "bias_gradient")
MASKED = {"input_gradient": 2, "weight_gradient": 2}  # how many arguments come before the mask


class Question(NamedTuple):
    """An equation: the name of its function, and the report on a function in its place.

    judge: takes the function, and how many arguments it takes by position, or None.
    """

    name: str
    judge: Callable[[Callable, int | None], Report]


def questions(task: ModuleType | None = None) -> list[Question]:
    """Those of a task, or the rules of a network.

    task: has ``chain`` and ``x``, the arguments of :func:`fnn.verify.stages`, whose pull-backs are asked for and may
    be None; or any of ``params``, ``loss`` and ``rules``, the network and the names of the rules. Raises TypeError or
    ValueError for a task that has none of them.
    """
    if task is None:
        return [Question(name, partial(judge_rule, name, None, SquaredError())) for name in ASKED]
    if hasattr(task, "chain"):
        return _of_stages(task)
    if not any(hasattr(task, name) for name in ("params", "loss", "rules")):
        raise ValueError(f"{task.__name__}: expected chain and x, or params, loss or rules; write chain = [Stage(...)]")
    names = getattr(task, "rules", ASKED)
    unknown = [name for name in names if name not in Rules._fields]
    if unknown:
        raise ValueError(f"rules: {unknown[0]!r} is no rule; write one of {', '.join(Rules._fields)}")
    params, loss = getattr(task, "params", None), getattr(task, "loss", SquaredError())
    return [Question(name, partial(judge_rule, name, params, loss)) for name in names]


def judge_rule(name: str, params, loss, function: Callable, parameters: int | None) -> Report:
    """The report on a network with this rule, where all other rules are ours.

    params: None for a small network; parameters: how many arguments the function takes by position, or None.
    """
    if params is None:
        params = _network(normed=name in ("normalise", "norm_pullback"))
    if parameters is not None and parameters == MASKED.get(name):
        function = with_mask(function)
    return network(params, loss=loss, rules=RULES._replace(**{name: function}))


def _network(normed: bool) -> tuple[Dense, ...]:
    """Layers of different sizes and activations, with random parameters; nothing is compiled to draw them."""
    random, layers = np.random.default_rng(0), []

    def array(values):
        return jnp.asarray(values, jnp.float32)

    for n_in, n_out, activation in ((4, 5, Tanh()), (5, 6, Sigmoid()), (6, 3, Sigmoid())):
        W, b = array(random.normal(size=(n_out, n_in)) / 2), array(random.normal(size=n_out) / 2)
        norm = BatchNorm(array(np.ones(n_out)), array(np.zeros(n_out))) if normed and n_out != 3 else None
        layers.append(Dense(W, b, activation, norm))
    return tuple(layers)


def with_mask(function: Callable) -> Callable:
    """The rule of two arguments with a third, the mask, which multiplies what it returns."""
    return lambda a, b, mask=None: masked(function(a, b), mask)


def _of_stages(task: ModuleType) -> list[Question]:
    chain = task.chain
    if not isinstance(chain, (list, tuple)) or not chain or not all(isinstance(stage, Stage) for stage in chain):
        raise TypeError(
            f"chain: expected a list of Stages, got {describe(chain)}; write chain = [Stage(name, f, None)]"
        )
    if not hasattr(task, "x"):
        raise ValueError(f"{task.__name__}: x, the input of the chain, is missing; write x = ...")
    return [Question(stage.name, partial(_stage, chain, task.x, i)) for i, stage in enumerate(chain)]


def _stage(chain, x, asked: int, function: Callable, parameters: int | None) -> Report:
    """The report on this pull-back, where autodiff stands for all others."""
    others = [stage._replace(pullback=_by_autodiff(stage.forward)) for stage in chain]
    others[asked] = chain[asked]._replace(pullback=function)
    report = stages(others, x)
    return replace(report, findings=tuple(one for one in report.findings if one.kind == chain[asked].name))


def _by_autodiff(forward: Callable) -> Callable:
    return lambda params, x, y, y_bar: jax.vjp(forward, params, x)[1](y_bar)
