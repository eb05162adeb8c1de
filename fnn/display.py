"""Tables, as text in a terminal and as HTML in a notebook, and a progress bar."""

import html
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fnn.checks.arrays import one_of

CELL = "text-align:left;vertical-align:top;padding:2px 10px"  # notebooks and sites style tables differently


@dataclass(frozen=True)
class Table:
    """Rows of strings under a header: aligned text for ``str``, HTML in a notebook."""

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
        """HTML; ``colours``, if given, are the rows' backgrounds."""

        def row(cells: Sequence[str], tag: str, colour: str = "") -> str:
            style = f' style="background:{colour};color:#111"' if colour else ""  # readable on dark pages too
            inside = "".join(f'<{tag} style="{CELL}">{html.escape(cell)}</{tag}>' for cell in cells)
            return f"<tr{style}>{inside}</tr>"

        caption = f'<caption style="text-align:left">{html.escape(self.title)}</caption>' if self.title else ""
        lines = "<br>".join(map(html.escape, self.footer.splitlines()))
        footer = f"<p>{lines}</p>" if lines else ""
        colours = colours or [""] * len(self.rows)
        body = "".join(row(cells, "td", colour) for cells, colour in zip(self.rows, colours))
        head = row(self.header, "th")
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{footer}"

    __repr__ = __str__


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None in a program without a console


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this program."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


class Bar:
    """A progress bar over the epochs.

    progress: True, False, or None for a bar in a terminal or a notebook if tqdm is installed; done: epochs already
    trained, if a run is resumed. Raises ImportError for True without tqdm.
    """

    def __init__(self, epochs: int, progress: bool | None, done: int = 0):
        self.bar = None
        self.shown = time.perf_counter()
        one_of("progress", progress, (None, True, False))
        if progress is False or (progress is None and not (_is_terminal() or _in_notebook())):
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a notebook without widgets gets text, with a warning
                from tqdm.auto import tqdm
        except ImportError as error:
            if progress is None:
                return
            raise ImportError("progress: True needs tqdm; install fnn[train], or write progress=False") from error
        self.bar = tqdm(total=epochs, initial=done, unit="epoch")

    def show(self, record: dict[str, float], examples: int) -> None:
        """Advance by one epoch of ``examples`` examples; show its loss, held-out accuracy if known, and examples/s."""
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
