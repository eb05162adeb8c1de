"""Arrays and formulas as plain text, LaTeX and HTML."""

import html
import re
from typing import Any

import numpy as np

SMALL = 8  # the most rows or columns of an array whose numbers are written out
PLAIN = {
    r"\beta": "β", r"\delta": "δ", r"\lambda": "λ", r"\sigma": "σ", r"\odot": "⊙", r"\partial ": "∂", r"\sum": "Σ",
    r"\to": "→", r" \, ": " ", r",\,": ",", r"\_": "_",
}  # fmt: skip
NUMBER = "text-align:right;padding:0 6px;border:0;white-space:nowrap"
MATRIX = (
    "margin:0;width:auto;border-collapse:separate;border-spacing:0;border:solid;border-width:0 1px;border-radius:6px"
)
INDEX = re.compile(r"_\{([^}]*)\}")
EXPONENT = re.compile(r"\^(?:\{(\w+)\}|\\mathsf\{(T)\})")
RAISED = str.maketrans("0123456789T", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵀ")


def spread(value: np.ndarray) -> tuple[str, str, str, str]:
    """Mean, standard deviation, minimum and maximum of an array, to four digits."""
    return tuple(f"{of(value):.4g}" for of in (np.mean, np.std, np.min, np.max))  # type: ignore[return-value]


def is_small(value: np.ndarray) -> bool:
    return max(value.shape, default=1) <= SMALL


def shape(value: np.ndarray) -> str:
    return "scalar" if value.ndim == 0 else str(value.shape)


def four_digits(number) -> str:
    return f"{number:.4g}"


def numbers(value: np.ndarray) -> str:
    return np.array2string(value, precision=4, floatmode="maxprec", suppress_small=False, max_line_width=110)


def matrix(value: np.ndarray) -> str:
    """An array in LaTeX: a vector as a column, a scalar as a number."""
    if value.ndim == 0:
        return four_digits(value)
    rows = (" & ".join(map(four_digits, row)) for row in (value if value.ndim == 2 else value[:, None]))
    return r"\begin{pmatrix} " + r" \\ ".join(rows) + r" \end{pmatrix}"


def grid(value: np.ndarray) -> str:
    """An array in HTML: a vector as a row, because a column would be tall."""
    if value.ndim == 0:
        return four_digits(value)
    rows = ("".join(f'<td style="{NUMBER}">{four_digits(entry)}</td>' for entry in row) for row in np.atleast_2d(value))
    body = "".join(f'<tr style="background:none">{row}</tr>' for row in rows)
    return f'<table style="{MATRIX}">{body}</table>'


def traced(layer: Any) -> str:
    """A ``LayerTrace`` in HTML: the numbers of small arrays, the mean ± deviation and range of larger ones."""
    rows = []
    for name, value in zip(layer._fields, map(np.asarray, layer)):
        written = grid(value) if is_small(value) and value.ndim <= 2 else "{} ± {}, {} to {}".format(*spread(value))
        cells = (name, shape(value), written)
        rows.append("<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def plain(latex: str) -> str:
    """The LaTeX used here as plain text, with superscript digits and indices in brackets."""
    raised = EXPONENT.sub(lambda found: (found[1] or found[2]).translate(RAISED), latex)
    return _in_characters(INDEX.sub(r"[\1]", raised))


def marked_up(latex: str) -> str:
    """The LaTeX used here as HTML."""
    raised = EXPONENT.sub(lambda found: f"<sup>{found[1] or found[2]}</sup>", html.escape(latex))
    return _in_characters(INDEX.sub(r"<sub>\1</sub>", raised))


def _in_characters(latex: str) -> str:
    for command, character in PLAIN.items():
        latex = latex.replace(command, character)
    return latex
