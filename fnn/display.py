"""What people look at: tables, as text in a terminal and as HTML in a notebook, and a progress bar."""

import html
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fnn import checks
from fnn.markup import spread
from fnn.network import LayerTrace, Params

CELL = "text-align:left;vertical-align:top;padding:2px 10px"  # notebooks and sites differ in what they give a table


@dataclass(frozen=True)
class Table:
    """Rows of strings under a header; ``str`` aligns them, a notebook shows HTML."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    footer: str = ""

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join(part for part in (self.title, text[0], rule, *text[1:], self.footer) if part)

    def _repr_html_(self, colours: Sequence[str] = ()) -> str:
        """HTML; ``colours``, if any, are the rows' backgrounds."""

        def row(cells: Sequence[str], tag: str, colour: str = "") -> str:
            style = f' style="background:{colour};color:#111"' if colour else ""  # readable on a dark page as well
            inside = "".join(f'<{tag} style="{CELL}">{html.escape(cell)}</{tag}>' for cell in cells)
            return f"<tr{style}>{inside}</tr>"

        caption = f'<caption style="text-align:left">{html.escape(self.title)}</caption>' if self.title else ""
        footer = f"<p>{html.escape(self.footer)}</p>" if self.footer else ""
        colours = colours or [""] * len(self.rows)
        body = "".join(row(cells, "td", colour) for cells, colour in zip(self.rows, colours))
        head = row(self.header, "th")
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{footer}"

    __repr__ = __str__


def count(params) -> int:
    """The number of parameters: the sizes of all leaves of a pytree (B4).

    Of a neuron with n weights and a bias n + 1, so that its error is a surface in n + 2 dimensions (B11 corrected).
    """
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def summary(params: Params | Any) -> Table:
    """The layers, their shapes and their numbers of parameters, or what a ``trace`` holds, as text and as HTML.

    params: of layers, or of a graph; or what ``fnn.trace`` returned. Raises TypeError or ValueError for others.

    >>> import jax, fnn
    >>> fnn.summary(fnn.init(jax.random.key(0), (3, 4, 2)))
    layer  inputs  outputs  activation         norm  parameters
    -----  ------  -------  -----------------  ----  ----------
    1      3       4        Sigmoid(beta=1.0)  -     16
    2      4       2        Identity()         -     10
    26 parameters, float32

    Equation B4: a 3-4-2 network has 20 weights and 6 biases. Of a graph, its generations. Of a trace, the shape of
    every array and the mean, the standard deviation and the range of its numbers.
    """
    if isinstance(params, tuple) and params and isinstance(params[0], LayerTrace):
        return _of_trace(params)
    if hasattr(params, "table"):  # parameters that show themselves
        return params.table()
    checks.layers(params)
    rows, number = [], 1
    for layer in params:
        *run, n_out, n_in = layer.W.shape
        last = number + math.prod(run) - 1
        name = f"{number}–{last}" if run else str(number)  # of a stack, its first and last layer
        norm = "-" if layer.norm is None else layer.norm.gradient
        rows.append((name, f"{n_in:,}", f"{n_out:,}", str(layer.activation), norm, f"{count(layer):,}"))
        number = last + 1
    header = ("layer", "inputs", "outputs", "activation", "norm", "parameters")
    return Table(header, tuple(rows), footer=f"{count(params):,} parameters, {params[0].W.dtype}")


def _of_trace(passed: Sequence) -> Table:
    """A row for every array of a trace; a stack, which has an axis of layers in front, is one entry of it."""
    rows = [
        (str(number), name, str(value.shape), *spread(np.asarray(value)))
        for number, layer in enumerate(passed, 1)
        for name, value in zip(layer._fields, layer)
    ]
    header = ("entry", "array", "shape", "mean", "deviation", "least", "largest")
    return Table(header, tuple(rows), footer=f"{len(passed)} entries, {passed[0].a.dtype}")


class Bar:
    """A progress bar over the epochs, or nothing where tqdm is not installed.

    progress: True, False, or None for a bar in a terminal only; done: epochs that were trained before, if the run goes
    on from a checkpoint.
    """

    def __init__(self, epochs: int, progress: bool | None, done: int = 0):
        self.bar = None
        self.shown = time.perf_counter()
        if progress is None and not sys.stderr.isatty():
            return  # before tqdm.auto is imported, which in a notebook without widgets warns
        if progress is not False:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self.bar = tqdm(total=epochs, initial=done, unit="epoch")

    def show(self, record: dict[str, float], examples: int) -> None:
        """One more epoch, of so many examples: its loss, the held-out accuracy if it is known, and examples/s."""
        if self.bar is not None:
            before, self.shown = self.shown, time.perf_counter()
            known = {"loss": record["loss"], "accuracy": record.get("validation_accuracy")}
            shown = {name: f"{value:.4g}" for name, value in known.items() if value is not None}
            rate = f"{examples / (self.shown - before):,.0f}"
            self.bar.set_postfix(shown | {"examples/s": rate}, refresh=False)
            self.bar.update()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.bar is not None:
            self.bar.close()
