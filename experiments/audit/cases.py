"""What a case of the audit is: a derivative that a package ships, and hand-made arguments."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A function that uses a derivative, and where to judge it.

    target: the function as users call it; rule: the object with the custom derivative, as the walk names it, or "" for
    one that is made when it is called, and for JAX's own operations; f: the function; points: arguments by name;
    deliberate: what the package says if its derivative differs from that of the value on purpose, else ""; single:
    whether it is judged in float32 too, which iterations to a small tolerance do not reach.
    """

    target: str
    rule: str
    f: Callable
    points: dict[str, tuple]
    deliberate: str = ""
    single: bool = True


def at(**points) -> dict[str, tuple]:
    """Points of one array each."""
    return {name.replace("_", " "): (np.array(values, float),) for name, values in points.items()}


def pairs(**points) -> dict[str, tuple]:
    """Points of several arrays each."""
    named = {name.replace("_", " "): of for name, of in points.items()}
    return {name: tuple(np.array(values, float) for values in of) for name, of in named.items()}


def matrices(n: int, m: int | None = None, seed: int = 0) -> np.ndarray:
    """A random matrix of full rank, (n, m)."""
    return np.random.default_rng(seed).normal(size=(n, m or n))


def positive(n: int, seed: int = 0) -> np.ndarray:
    """A symmetric matrix with eigenvalues from 1, (n, n)."""
    a = matrices(n, seed=seed)
    return a @ a.T + np.eye(n)


def module(name: str) -> Any:
    """A module of a package that may not be installed."""
    return importlib.import_module(name)


INF = np.inf
ORDINARY = (-2.3, -0.7, 0.4, 1.9)
SIMPLEX = at(ordinary=(0.6, 0.3, -0.4, 0.5), ties=(0.4, 0.4, -2.0), outside=(5.0, -1.0, 0.0), one=(0.7,))
