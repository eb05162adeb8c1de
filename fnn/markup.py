"""Arrays and formulas as plain text, LaTeX and HTML."""

import html
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
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
    with np.errstate(all="ignore"):  # what is not finite is shown as it is
        return tuple(f"{of(value):.4g}" for of in (np.mean, np.std, np.min, np.max))  # type: ignore[return-value]


def is_small(value: np.ndarray) -> bool:
    return max(value.shape, default=1) <= SMALL


def shape(value: np.ndarray) -> str:
    return "scalar" if value.ndim == 0 else str(value.shape)


def counted(number: int, thing: str, things: str = "") -> str:
    """A number with its noun: 1 row, 2 rows; ``things`` where the plural has more than an s.

    >>> counted(1, "entry", "entries"), counted(1200, "row")
    ('1 entry', '1,200 rows')
    """
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


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


def is_concrete(value: Any) -> bool:
    """Whether it is an array of numbers, and not what JAX puts in its place while it traces or describes."""
    is_array = isinstance(value, (np.ndarray, jax.Array)) and not isinstance(value, jax.core.Tracer)
    return is_array and jnp.issubdtype(value.dtype, jnp.number)


def arrays(named: Mapping[str, Any], title: str = "") -> str:
    """Arrays in HTML: the numbers of small ones, the mean ± deviation and range of larger ones."""
    rows = []
    for name, value in named.items():
        cells = (name, *_shape_and_numbers(value))
        rows.append("<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>")
    caption = f'<caption style="text-align:left">{html.escape(title)}</caption>' if title else ""
    return f"<table>{caption}{''.join(rows)}</table>"


def _shape_and_numbers(value: Any) -> tuple[str, str]:
    if not is_concrete(value):
        return "", html.escape(str(value))
    value = np.asarray(value)
    if value.size == 0:
        return shape(value), "empty"
    written = grid(value) if is_small(value) and value.ndim <= 2 else "{} ± {}, {} to {}".format(*spread(value))
    return shape(value), written


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
