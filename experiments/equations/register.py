"""A row of the register: what a document prints, run literally, and by how much it disagrees.

    @row("fnn.backward.hidden_delta")
    def H9():
        \"\"\"δ^ℓ = (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ).\"\"\"
        return true("δ^ℓ = (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ)", relative(as_printed, oracle))

The function's name is the identifier, its docstring what is printed, in this project's words; ``row`` names the
functions that compute it. A row holds one finding, or several where it prints several things. A finding is *true as
printed*, or an *erratum*, which comes with its corrected form; either has a disagreement, relative and norm-wise, with
autodiff or with the fact that is named.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

ROWS: dict[str, "Row"] = {}


class Finding(NamedTuple):
    """One thing that a row prints, run: ``error`` is that of the printed form, ``corrected_error`` of the right one."""

    printed: str
    error: float
    against: str = "autodiff"
    corrected: str = ""
    corrected_error: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        return "true" if self.corrected_error is None else "erratum"


class Row(NamedTuple):
    """A row: its identifier, what it is about, who computes it, and the function that runs it."""

    id: str
    title: str
    by: tuple[str, ...]
    run: Callable[[], tuple[Finding, ...]]


def row(*by: str):
    """Register a function without arguments, named by its identifier, that returns one finding or a tuple of them.

    by: the functions, as ``fnn.…``, or the experiments, as ``experiments.…``, that implement what is printed.
    The function runs in float64 with the highest matmul precision, and always returns a tuple.
    """

    def register(function: Callable) -> Callable[[], tuple[Finding, ...]]:
        @functools.wraps(function)
        @functools.cache  # a row is a constant: the tests and the table share it
        def run() -> tuple[Finding, ...]:
            with jax.enable_x64(True), jax.default_matmul_precision("highest"):
                found = function()
            return (found,) if isinstance(found, Finding) else tuple(found)

        name, title = function.__name__, (function.__doc__ or "").strip()
        if name in ROWS:
            raise ValueError(f"{name} is registered twice")
        ROWS[name] = Row(name, title, by, run)
        return run

    return register


def true(printed: str, error: float, against: str = "autodiff", note: str = "") -> Finding:
    """What is right as printed; error: its relative disagreement with ``against``, within rounding."""
    return Finding(printed, float(error), against, note=note)


def erratum(
    printed: str, error: float, corrected: str, corrected_error: float, against: str = "autodiff", note: str = ""
) -> Finding:
    """What is wrong as printed, with its relative disagreement, and the right form with its own.

    error: inf where the printed form cannot even be computed.
    """
    return Finding(printed, float(error), against, corrected, float(corrected_error), note)
