"""One line of an explained computation, and its formula with numbers for symbols."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fnn.markup import is_small, matrix

LETTER = r"(?:\\(?:beta|delta|lambda)|[A-Za-z])(?:[_^]\{[^}]*\})?"
SYMBOL = re.compile(  # a transpose, a slope, a derivative, or a letter with its index
    rf"\({LETTER}\)\^\\mathsf{{T}}|\\sigma(?:_\{{[^}}]*\}})?'\({LETTER}\)|\\partial [CL]/\\partial {LETTER}"
    rf"|(?<![A-Za-z\\{{,])(?<!\\partial ){LETTER}(?![A-Za-z])"
)


class Equation(NamedTuple):
    """One line of the computation.

    part: "forward", "loss", "backward" or "gradients"; number, sources: as in ``fnn.equations``; formula: in LaTeX;
    value: that of its left side; symbols: the values of the symbols on its right side. quantity: what it computes, such
    as "z" or "delta"; place: the layer (from 1; 0 is the input), the neuron k, or the arrow (k, j). wrong: what
    ``fnn.verify`` says of it if it is wrong, otherwise "".
    """

    part: str
    number: str
    sources: str
    formula: str
    value: np.ndarray
    symbols: dict[str, np.ndarray] = {}
    quantity: str = ""
    place: tuple[int, ...] = ()
    wrong: str = ""

    @property
    def left(self) -> str:
        """The computed symbol in LaTeX; the whole formula if it has one side."""
        return self.formula.split(" = ")[0]

    @property
    def right(self) -> str:
        """What it is computed from, in LaTeX; the whole formula if it has one side."""
        return self.formula.split(" = ")[-1]

    def substituted(self) -> str | None:
        """The right side with numbers for symbols; None without any, with a sum, or above 8 rows or columns."""
        if not self.symbols or "\\sum" in self.right or not all(map(is_small, (*self.symbols.values(), self.value))):
            return None
        right = self.right if self.value.ndim else self.right.replace(r" \, ", r" \cdot ")  # a product of numbers

        def written(name: str) -> str | None:
            if name not in self.symbols:
                return None
            value = self.symbols[name]
            return f"({matrix(value)})" if value.ndim == 0 and value < 0 and r"\cdot" in right else matrix(value)

        return replaced(right, written)


def replaced(latex: str, written: Callable[[str], str | None]) -> str:
    """The formula with ``written(symbol)`` for every symbol; where that is None, for the symbols inside it."""

    def at(found: re.Match) -> str:
        symbol = found[0]
        return symbol[0] + replaced(symbol[1:], written) if (text := written(symbol)) is None else text

    return SYMBOL.sub(at, latex)
