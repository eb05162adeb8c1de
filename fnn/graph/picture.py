"""A small graph as SVG, for notebooks: its neurons by generation, and its arrows."""

import html
from collections.abc import Hashable, Sequence

import numpy as np

MOST_NEURONS, MOST_ARROWS = 60, 400  # that are drawn
ACROSS, DOWN, RADIUS = 110, 46, 15
PLUS, MINUS = "#d9622b", "#3f7fd4"  # legible on light pages and on dark ones


def is_drawn(neurons: Sequence[Hashable], arrows: np.ndarray) -> bool:
    """Whether the graph is small enough for a picture."""
    return len(neurons) <= MOST_NEURONS and len(arrows) <= MOST_ARROWS


def picture(
    said: str, neurons: Sequence[Hashable], generation: np.ndarray, arrows: np.ndarray, weights: np.ndarray | None
) -> str:
    """The graph as HTML: ``said``, then the SVG, in which colour and width show the weights, if given.

    generation (N,); arrows (M, 2), numbers of neurons; weights (M,) or None.
    """
    counts = np.bincount(generation)
    width, height = ACROSS * len(counts), DOWN * (int(counts.max()) + 1)
    places = {}
    for column, count in enumerate(counts.tolist()):
        for i, k in enumerate(np.flatnonzero(generation == column).tolist()):
            shift = 8 * (-1) ** column if count < 3 else 0  # so that an arrow past a column can be seen
            places[k] = ACROSS * (column + 0.5), height / 2 + DOWN * (i - (count - 1) / 2) + shift
    lines = "".join(_arrows(places, generation, arrows, weights))
    circles = "".join(_neuron(str(neurons[k]), *place) for k, place in places.items())
    said = html.escape(said)
    return (
        f'<div>{said}<br><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'style="max-width:100%" role="img" aria-label="{said}">{lines}{circles}</svg></div>'
    )


def _arrows(places: dict, generation: np.ndarray, arrows: np.ndarray, weights: np.ndarray | None):
    largest = 0.0 if weights is None else float(np.max(np.abs(weights), initial=0, where=np.isfinite(weights)))
    for number, (j, k) in enumerate(arrows.tolist()):
        (x1, y1), (x2, y2) = places[j], places[k]
        bend = 40 if generation[k] - generation[j] > 1 else 0
        colour, wide, said = "currentColor", 1.0, ""
        if weights is not None:
            weight = float(weights[number])
            colour = MINUS if weight < 0 else PLUS
            wide = 0.6 + 3 * min(1.0, abs(weight) / largest) if largest and np.isfinite(weight) else 0.6
            said = f"<title>{weight:.4g}</title>"
        path = f"M{x1:g} {y1:g}Q{(x1 + x2) / 2:g} {(y1 + y2) / 2 - bend:g} {x2:g} {y2:g}"
        yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{wide:.2g}" opacity="0.75">{said}</path>'


def _neuron(name: str, x: float, y: float) -> str:
    short = name if len(name) <= 5 else f"{name[:4]}…"
    return (
        f'<g><title>{html.escape(name)}</title><circle cx="{x:g}" cy="{y:g}" r="{RADIUS}" fill="#f4f5f7" '
        f'stroke="#5b6575"/><text x="{x:g}" y="{y + 4:g}" font-size="11" text-anchor="middle" fill="#1d2430">'
        f"{html.escape(short)}</text></g>"
    )
