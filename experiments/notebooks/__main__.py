"""Write the notebooks' .ipynb from their .md: ``python -m experiments.notebooks [NAME ...]``.

``--check`` writes nothing; it executes them, and fails if a pair disagrees, a cell raises, or an output holds a path of
this machine.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.notebooks import pairs


@dataclass(frozen=True)
class Options:
    """Write the notebooks' .ipynb from their .md, or execute them."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Such as 1_backpropagation_step_by_step; all of them if none is given."""
    check: bool = False
    """Execute them and compare the pairs, without writing."""
    installed: bool = False
    """Check them with the fnn that is installed in the kernel's environment, instead of this repository's."""


def errors(name: str, installed: bool) -> list[str]:
    """What is wrong with a pair, and with what its cells print now."""
    return [*pairs.disagreements(name), *pairs.noise(pairs.executed(pairs.source(name), installed))]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    known = pairs.names()
    if unknown := [name for name in options.names if name not in known]:
        raise SystemExit(f"names: no notebook {', '.join(unknown)}; there are {', '.join(known)}")
    wrong = []
    for name in options.names or known:
        started = time.perf_counter()
        if options.check:
            wrong += [f"{name}: {what}" for what in errors(name, options.installed)]
            print(f"{name}: ran in {time.perf_counter() - started:.0f} s", flush=True)
        else:
            print(pairs.write(name).name)
    if wrong:
        raise SystemExit("\n".join([*wrong, "write python -m experiments.notebooks"]))


if __name__ == "__main__":
    main()
