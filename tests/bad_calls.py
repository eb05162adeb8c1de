"""Calls of every public function in which one argument at a time has a value that is usually wrong, made by machine.

``GOOD`` holds a right call of each function. ``calls()`` replaces every argument, given or not, by every value of
``WRONG``. ``outcome(call)`` says what comes of it:

    refused   TypeError, ValueError or OSError whose message begins with the argument, or with one that it does not fit,
              and says what was expected
    right     it returns, and the value is one that the argument may have: see ``FITTING``
    cryptic   any other exception, or one whose message does not say what to correct
    silent    it returns though the value is wrong
"""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from errors import PARAMS, SGD, X, Y, full, layer
from fnn.graph import Graph

KEY = jax.random.key(0)
GRAPH = Graph([("x", "h"), ("h", "y")], {"h": fnn.Tanh(), "y": fnn.Identity()}, ["x"], ["y"])


class Odd:
    """An object that is nothing of what any argument may be."""

    def __repr__(self):
        return "<odd>"


WRONG: dict[str, Any] = {
    "None": None, "a string": "wrong", "an empty string": "", "an object": Odd(), "a class": Odd, "True": True,
    "0": 0, "-1": -1, "2.5": 2.5, "nan": float("nan"), "inf": float("inf"), "10**30": 10**30, "a complex": 1j,
    "an empty tuple": (), "an empty list": [], "an empty dict": {}, "a set": {1, 2}, "a list of strings": ["a", "b"],
    "a function": lambda *args: args, "an int array": np.arange(6).reshape(2, 3), "a scalar array": np.float32(0.5),
    "an empty array": np.zeros((0, 3), np.float32), "a 3-d array": np.zeros((2, 2, 2), np.float32),
    "a masked array": np.ma.masked_array(np.ones((5, 3), np.float32), mask=np.eye(5, 3) > 0),
    "a string array": np.array(["a", "b"]), "an object array": np.array([Odd(), None], object),
    "a transposed array": np.ones((3, 5), np.float32), "nan in an array": full(np.nan, 5, 3), "bytes": b"x",
}  # fmt: skip


class Good(NamedTuple):
    """A right call: the function and its arguments by name; positional: how many of them come first, unnamed."""

    function: Callable
    arguments: dict[str, Any]


def data(**more) -> dict[str, Any]:
    return {"params": PARAMS, "x": X, "y": Y, **more}


V = jax.tree.map(jnp.ones_like, PARAMS)
LINEAR = {"params": layer(), "x": X, "y": Y, "learning_rate": 0.1}

MANY = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
KEYS = jax.random.split(KEY, 2)
FIT = {"data": (X, Y), "optimizer": SGD, "epochs": 1, "batch_size": 5, "key": KEY, "progress": False}
MANY_FIT = {**{name: value for name, value in FIT.items() if name != "key"}, "keys": KEYS}
DOUBLE = fnn.verify.Stage("double", lambda params, x: 2 * x, lambda params, x, y, g: ((), 2 * g))
SQUARE = {"hand": lambda w: 2 * w, "objective": lambda w: (w * w).sum(), "params": jnp.ones(3)}
DESCENT = {"f": jax.value_and_grad(jnp.sum), "x0": jnp.ones(2), "learning_rate": 0.1, "steps": 2}


def hidden_delta(g, activation, z, a):
    return fnn.RULES.hidden_delta(g, activation, z, a)


GOOD: dict[str, Good] = {
    "exercises.grade": Good(fnn.exercises.grade, {"answer": hidden_delta}),
    "exercises.puzzle": Good(fnn.exercises.puzzle, {"seed": 1}),
    "init": Good(fnn.init, {"key": KEY, "sizes": (3, 4, 2)}),
    "forward": Good(fnn.forward, {"params": PARAMS, "x": X}),
    "trace": Good(fnn.trace, {"params": PARAMS, "x": X}),
    "deltas": Good(fnn.deltas, data()),
    "backprop": Good(fnn.backprop, data()),
    "value_and_backprop": Good(fnn.value_and_backprop, data()),
    "input_gradient": Good(fnn.input_gradient, data()),
    "pullback": Good(fnn.pullback, {"params": PARAMS, "x": X, "g": Y}),
    "summary": Good(fnn.summary, {"params": PARAMS}),
    "explain": Good(fnn.explain, {"params": PARAMS, "x": X[0], "y": Y[0]}),
    "fold": Good(fnn.fold, {"params": PARAMS}),
    "statistics": Good(fnn.statistics, {"params": PARAMS, "batches": X[None]}),
    "sample_masks": Good(fnn.sample_masks, {"params": PARAMS, "dropout": fnn.Dropout(0.5), "batch": 5, "key": KEY}),
    "stack": Good(fnn.stack, {"params": PARAMS}),
    "unstack": Good(fnn.unstack, {"params": PARAMS}),
    "Dropout": Good(fnn.Dropout, {"keep": 0.5}),
    "DropConnect": Good(fnn.DropConnect, {"keep": 0.5}),
    "Sigmoid": Good(fnn.Sigmoid, {"beta": 1.0}),
    "LeakyReLU": Good(fnn.LeakyReLU, {"slope": 0.1}),
    "Gaussian": Good(fnn.Gaussian, {"mu": 0.0, "sigma": 1.0}),
    "GELU": Good(fnn.GELU, {"approximate": True}),
    "PiecewiseLinear": Good(fnn.PiecewiseLinear, {"m": 1.0, "b": 0.0, "x_min": -1.0, "x_max": 1.0}),
    "PerNeuron": Good(fnn.PerNeuron, {"activations": (fnn.Tanh(), fnn.ReLU())}),
    "SquaredError": Good(fnn.SquaredError, {"scale": 0.5}),
    "Huber": Good(fnn.Huber, {}),
    "CrossEntropy": Good(fnn.CrossEntropy, {"categorical": True}),
    "updates.sgd": Good(fnn.updates.sgd, {"learning_rate": 0.1}),
    "updates.momentum": Good(fnn.updates.momentum, {"learning_rate": 0.1, "alpha": 0.9}),
    "updates.nesterov": Good(fnn.updates.nesterov, {"learning_rate": 0.1, "alpha": 0.9}),
    "updates.max_norm": Good(fnn.updates.max_norm, {"limit": 1.0}),
    "updates.clip_by_global_norm": Good(fnn.updates.clip_by_global_norm, {"limit": 1.0}),
    "updates.descend": Good(fnn.updates.descend, DESCENT),
    "regression.least_squares": Good(fnn.regression.least_squares, {"A": X, "y": Y[:, 0]}),
    "implicit.step": Good(fnn.implicit.step, data(learning_rate=0.1)),
    "implicit.linear": Good(fnn.implicit.linear, LINEAR),
    "implicit.generalized_linear": Good(fnn.implicit.generalized_linear, LINEAR | {"loss": fnn.SigmoidCrossEntropy()}),
    "implicit.layerwise": Good(fnn.implicit.layerwise, data(learning_rate=0.1)),
    "per_example.norms": Good(fnn.per_example.norms, data()),
    "per_example.gradients": Good(fnn.per_example.gradients, data()),
    "per_example.clipped": Good(fnn.per_example.clipped, data(clip=1.0)),
    "per_example.moments": Good(fnn.per_example.moments, data()),
    "per_example.gram": Good(fnn.per_example.gram, data()),
    "per_example.ntk": Good(fnn.per_example.ntk, {"params": PARAMS, "x": X}),
    "per_example.noise_scale": Good(fnn.per_example.noise_scale, data()),
    "curvature.hvp": Good(fnn.curvature.hvp, data(v=V)),
    "curvature.gauss_newton_vp": Good(fnn.curvature.gauss_newton_vp, data(v=V)),
    "curvature.gauss_newton_diagonal": Good(fnn.curvature.gauss_newton_diagonal, data()),
    "curvature.fisher_diagonal": Good(fnn.curvature.fisher_diagonal, data()),
    "curvature.kfac_factors": Good(fnn.curvature.kfac_factors, data()),
    "curvature.hessian_trace": Good(fnn.curvature.hessian_trace, data(key=KEY)),
    "graph.Graph": Good(Graph, {"arrows": [("x", "h"), ("h", "y")],
                                "activations": {"h": fnn.Tanh(), "y": fnn.Identity()}, "inputs": ["x"],
                                "outputs": ["y"]}),
    "graph.Graph.init": Good(GRAPH.init, {"key": KEY}),
    "graph.Graph.layered": Good(Graph.layered, {"sizes": (3, 4, 2)}),
    "graph.Graph.random": Good(Graph.random, {"key": KEY, "neurons": 8, "arrows": 12}),
    "graph.tables": Good(fnn.graph.tables, {"params": GRAPH.init(jax.random.key(1))}),
    "train.fit": Good(fnn.train.fit, {"params": PARAMS, **FIT}),
    "train.evaluate": Good(fnn.train.evaluate, {"params": PARAMS, "data": (X, Y)}),
    "train.predict": Good(fnn.train.predict, {"params": PARAMS, "x": X}),
    "train.make_step": Good(fnn.train.make_step, {"optimizer": SGD}),
    "train.fit_many": Good(fnn.train.fit_many, {"params": MANY, **MANY_FIT}),
    "data.Dataset": Good(fnn.data.Dataset, {"x": X, "y": Y}),
    "data.Batches": Good(fnn.data.Batches, {"make": lambda epoch: []}),
    "checkpoint.save": Good(fnn.checkpoint.save, {"directory": "run", "params": PARAMS, "epoch": 1}),
    "checkpoint.export": Good(fnn.checkpoint.export, {"path": "network", "params": PARAMS}),
    "parallel.data_mesh": Good(fnn.parallel.data_mesh, {}),
    "verify.network": Good(fnn.verify.network, {"params": PARAMS, "loss": fnn.SquaredError()}),
    "verify.gradient": Good(fnn.verify.gradient, SQUARE),
    "verify.stages": Good(fnn.verify.stages, {"chain": [DOUBLE], "x": jnp.ones(3)}),
    "verify.curvature": Good(fnn.verify.curvature, {"params": PARAMS, "loss": fnn.SquaredError()}),
}  # fmt: skip


# -- what comes of it --------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A function with one argument replaced by the value of this name."""

    function: str
    argument: str
    value: str

    def __call__(self):
        function, arguments = GOOD[self.function]
        return bound(function, arguments | {self.argument: WRONG[self.value]})


def bound(function: Callable, arguments: dict[str, Any]):
    """The function called with arguments by name; those that may come by position do."""
    parameters = inspect.signature(function).parameters
    arguments = {name: jax.random.clone(v) if v is KEY or v is KEYS else v for name, v in arguments.items()}
    first = [name for name, of in parameters.items() if of.kind in (of.POSITIONAL_ONLY, of.POSITIONAL_OR_KEYWORD)]
    while first and first[-1] not in arguments:
        first.pop()
    given = [arguments.get(name, parameters[name].default) for name in first]
    return function(*given, **{name: value for name, value in arguments.items() if name not in first})


def calls() -> Iterator[Call]:
    for name, (function, _) in GOOD.items():
        for argument, of in inspect.signature(function).parameters.items():
            if of.kind not in (of.VAR_POSITIONAL, of.VAR_KEYWORD):
                yield from (Call(name, argument, value) for value in WRONG)


def outcome(call: Call) -> tuple[str, str]:
    """ "refused", "cryptic" or "returned", and the message."""
    try:
        result = call()
    except (TypeError, ValueError, OSError) as error:
        text = str(error)
        known = "|".join(inspect.signature(GOOD[call.function].function).parameters)
        named = re.match(rf"(\[Errno \d+\] )?([\w.]+: )*({known})(\b|s\[)", text)
        clear = named and (isinstance(error, OSError) or re.search("expected|write|needs|give|takes", text))
        return ("refused" if clear else "cryptic"), f"{type(error).__name__}: {text}"
    except (fnn.implicit.NotConverged, UserWarning) as warning:  # they say what to do, and of which argument
        return "returned", str(warning)
    except Exception as error:
        return "cryptic", f"{type(error).__name__}: {error}"
    return "returned", repr(result)[:200]


POSITIVE = {"2.5", "10**30", "a scalar array"}
NUMBERS = POSITIVE | {"0", "-1"}
FITTING: dict[str, set[str]] = {  # of an argument, the values above that it may have
    "learning_rate": POSITIVE | {"a function"},
    **dict.fromkeys(("scale", "gain", "sigma", "delta", "beta", "limit", "clip"), POSITIVE),
    **dict.fromkeys(("m", "b", "mu", "x_min", "x_max"), NUMBERS),
    "slope": POSITIVE | {"0"}, "alpha": {"0", "a scalar array"}, "rcond": POSITIVE | {"0"}, "noise": {"0"},
    "tolerance": POSITIVE, "keep": {"0", "a scalar array"},
    **{name: {"True"} for name in ("approximate", "traced", "stack", "inverted", "categorical", "per_example",
                                   "progress", "probes", "fresh")},
    **{name: {"nan in an array"} for name in ("x", "x2", "A", "batches", "g")},  # values are checked where data come in
    "y": {"nan in an array"}, "skips": {"an empty tuple", "an empty list", "an empty dict", "an empty array"},
    "callback": {"a function"}, "make": {"a function", "a class"}, "log": {"a string"}, "checkpoint": {"a string"},
    "identity": {"a string"}, "check": {"a class"},  # that a check raises is part of the grade
    "allow": {"an empty tuple", "an empty list"},
    "x0": {"2.5", "nan", "inf", "an empty array", "a 3-d array", "a transposed array", "nan in an array"},
    "arrows": {"an empty string", "an empty tuple", "an empty list", "an empty dict"},  # with a warning
}  # fmt: skip
ARRAYS = {
    "2.5",
    "nan",
    "inf",
    "a scalar array",
    "an empty array",
    "a 3-d array",
    "a transposed array",
    "nan in an array",
}
CHECKED_AT_USE = {  # the shape of what is given, for which there is no network yet, or what is not read here
    "Dropout": {"keep": {"an empty tuple", "an empty list", "a 3-d array", "a transposed array"}},
    "DropConnect": {"keep": {"an empty tuple", "an empty list", "a 3-d array", "a transposed array"}},
    "fold": {"statistics": {"a list of strings"}},
    "unstack": {"entries": {"a list of strings"}},
    "checkpoint.save": {
        "params": ARRAYS | {"an int array"},
        "optimizer_state": ARRAYS | {"an int array", "an empty dict", "an empty list", "an empty tuple", "None"},
        "directory": {"a string"},
        "step": {"0", "10**30"},
        "history": {"an empty tuple", "an empty list"},
        "run": {"an empty dict"},
    },
    "checkpoint.export": {"path": {"a string"}},
    "verify.gradient": {"hand": {"a function"}, "params": ARRAYS | {"a complex"}},
    "verify.stages": {"x": ARRAYS | {"a complex"}},
}


def fits(call: Call) -> bool:
    """Whether the argument may have the value."""
    default = inspect.signature(GOOD[call.function].function).parameters[call.argument].default
    allowed = FITTING.get(call.argument, set()) | CHECKED_AT_USE.get(call.function, {}).get(call.argument, set())
    return call.value in allowed or (call.value == "None" and default is None)
