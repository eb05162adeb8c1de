"""Print the register with verdicts and errors: ``python -m experiments.equations [--only H9 …]``.

``--save`` rewrites experiments/equations.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from experiments.equations import render


@dataclass(frozen=True)
class Options:
    """Run every equation as printed, and compare it with autodiff or the stated fact."""

    only: tuple[str, ...] = ()
    """Identifiers, such as H9; all by default."""
    format: Literal["text", "markdown", "html"] = "text"
    save: bool = False
    """Write experiments/equations.md."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if unknown := [name for name in options.only if name not in render.ROWS]:
        raise SystemExit(f"--only: no row {', '.join(unknown)}; there are {', '.join(render.ROWS)}")
    if options.save:
        render.PATH.write_text(render.document())
    else:
        print(render.TEXTS[options.format](options.only))


if __name__ == "__main__":
    main()
