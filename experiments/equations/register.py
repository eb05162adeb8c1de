"""A row of the register: what a document prints, run literally, and how far off it is.

    @row("fnn.backward.hidden_delta")
    def H9():
        \"\"\"δ^ℓ = (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ).\"\"\"
        return true("δ^ℓ = (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ)", relative(as_printed, oracle))

The function's name is the identifier, its docstring what is printed, in this project's words; ``row`` names the
functions that compute it. A row holds one finding, or several where it prints several things; the sentence that each is
about is in ``quotes``, in the same order. A finding has one of four verdicts, and a disagreement, relative and
norm-wise, with autodiff or with the fact that is named. ``RULE`` says which verdict is given when.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax

Verdict = Literal["erratum", "loose", "convention", "true"]
KINDS: dict[Verdict, str] = {
    "erratum": "False as printed",
    "loose": "Loosely worded",
    "convention": "By a convention",
    "true": "True as printed",
}
RULE = """\
An **erratum** is a formula or statement that is *false as printed*, read in its context. Anyone who computes or
believes it gets a wrong result, or none. A misprint counts even if another line is right, and so does a case that a
formula is meant to cover but omits. What a document says or assumes elsewhere is part of the context: it is not faulted
for what it does not claim.

Two other kinds are not errata. *Loosely worded*: the formula or fact is right, but a word or notation is inexact, such
as "mean" for a sum, or the entries of a diagonal for the matrix. *By a convention*: the document states or follows one
of two common conventions. For both, the error is that of the literal reading, or of the other convention; next to it is
the error of the intended meaning."""

ROWS: dict[str, "Row"] = {}


class Quote(NamedTuple):
    """What a finding is about, word for word, and how it should read, if it is not right; Markdown with $LaTeX$."""

    text: str
    correct: str = ""


class Finding(NamedTuple):
    """One thing that a row prints, run: ``error`` is that of the printed form, ``corrected_error`` of the right one."""

    printed: str
    error: float
    against: str = "autodiff"
    corrected: str = ""
    corrected_error: float | None = None
    note: str = ""
    verdict: Verdict = "true"


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
    """What is false as printed, with its relative disagreement, and the right form with its own.

    error: inf where the printed form cannot even be computed.
    """
    return Finding(printed, float(error), against, corrected, float(corrected_error), note, "erratum")


def loose(
    printed: str, error: float, meant: str, meant_error: float, against: str = "autodiff", note: str = ""
) -> Finding:
    """What is off if it is taken at its word, and right as it is meant."""
    return erratum(printed, error, meant, meant_error, against, note)._replace(verdict="loose")


def convention(
    printed: str, error: float, stated: str, stated_error: float, against: str = "autodiff", note: str = ""
) -> Finding:
    """What is off by another usage, and right by the one that the document states."""
    return erratum(printed, error, stated, stated_error, against, note)._replace(verdict="convention")
