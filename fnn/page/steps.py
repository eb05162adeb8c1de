"""The steps of the page: one for a line of layers, one for the equal lines of a generation of a graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnn.graph.graph import GraphParams
from fnn.markup import grid, is_small, marked_up, plain, shape, spread
from fnn.page.drawing import positions
from fnn.substitution import Equation, replaced

SHOWN = 3  # equal lines of a graph that are written out in a step
SAID = {
    "z": "the weighted sum", "a": "the activation", "loss": "the loss", "direct": "the loss by the output",
    "slope": "the slope of the activation", "g": "what comes back through the weights", "delta": "the error δ",
    "dw": "the gradient by the weights", "db": "the gradient by the biases",
}  # fmt: skip


def steps(params: Any, parts: Sequence[tuple[str, list[Equation]]], rate: float) -> list[dict[str, Any]]:
    """Every step with its formulas, its numbers, and the neurons that it is about; the last is the update."""
    generation = params.graph.generation if isinstance(params, GraphParams) else None
    groups: dict[tuple, list[Equation]] = {}
    for part, equations in parts:
        for equation in equations:
            at = equation.place[:1] if generation is None or not equation.place else generation[equation.place[0]]
            groups.setdefault((part, equation.quantity, str(at)), []).append(equation)
    found = [_step(params, part, quantity, group) for (part, quantity, _), group in groups.items()]
    return [*found, _update(params, rate)]


def _step(params: Any, part: str, quantity: str, group: list[Equation]) -> dict[str, Any]:
    place, first = positions(params), group[0]
    where = [np.ravel(place[equation.place[0]]).tolist() for equation in group if equation.place]
    wrong = list(dict.fromkeys(equation.wrong for equation in group if equation.wrong))
    shown = [{"html": marked_up(one.formula), "numbers": _numbers(one)} for one in group[:SHOWN]]
    more = f"and {len(group) - SHOWN} more" if len(group) > SHOWN else ""
    inputs = quantity == "a" and first.place == (0,)
    return {
        "part": part,
        "number": first.number,
        "said": "the input" if inputs else SAID[quantity],
        "text": plain(first.formula),
        "formulas": shown,
        "more": more,
        "quantity": quantity,
        "neurons": sorted({i for some in where for i in some}),
        "wrong": " ".join(wrong),
    }


def _update(params: Any, rate: float) -> dict[str, Any]:
    graph = isinstance(params, GraphParams)
    weight, bias = ("w<sub>k,j</sub>", "β<sub>k</sub>") if graph else ("W<sup>ℓ</sup>", "b<sup>ℓ</sup>")
    formulas = [
        {"html": f"{one} ← {one} − η ∂C/∂{one}", "numbers": f"η = {rate:g}" if one == weight else ""}
        for one in (weight, bias)
    ]
    place = positions(params)
    computed = np.flatnonzero(params.graph.generation > 0) if graph else range(1, len(place))
    neurons = sorted(i for k in computed for i in np.ravel(place[k]).tolist())
    return {
        "part": "update", "number": "", "said": "one step of gradient descent",
        "text": "every weight and bias moves against its gradient", "formulas": formulas, "more": "",
        "quantity": "new", "neurons": neurons, "wrong": "",
    }  # fmt: skip


def _numbers(equation: Equation) -> str:
    """The formula in numbers as HTML: small arrays written out, of larger ones the shape and the range."""
    value = equation.value
    if not is_small(value):
        mean, deviation, least, largest = spread(value)
        return f"{shape(value)}: mean {mean} ± {deviation}, from {least} to {largest}"
    if equation.substituted() is None:
        return f"= {_column(value)}"
    right = equation.right if value.ndim else equation.right.replace(r" \, ", " · ")
    cells: list[str] = []

    def written(name: str) -> str | None:
        if name not in equation.symbols:
            return None
        number = _column(equation.symbols[name])
        cells.append(f"({number})" if number.startswith("-") and "·" in right else number)
        return f"\ue000{len(cells) - 1}\ue001"  # a private character, so that the markup leaves it alone

    text = marked_up(replaced(right, written))
    for i, cell in enumerate(cells):
        text = text.replace(f"\ue000{i}\ue001", cell)
    return f"= {text} = {_column(value)}" if cells else f"= {_column(value)}"


def _column(value: np.ndarray) -> str:
    """Vectors are columns, as in the formulas."""
    return grid(value[:, None] if value.ndim == 1 else value)
