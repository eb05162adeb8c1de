"""What stages read: from the names that a user gives to an order in which they can be computed."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from fnn.checks.arrays import describe

INPUT = -1  # the input of the whole, which is read as "x"


class Wired(NamedTuple):
    """A directed acyclic graph of stages, which are their places in the list.

    order: of the computation; of: what each reads, a place, or a tuple of them; names: of the stages.
    """

    order: tuple[int, ...]
    of: tuple[int | tuple[int, ...], ...]
    names: tuple[str, ...]

    def reads(self, i: int) -> tuple[int, ...]:
        of = self.of[i]
        return of if isinstance(of, tuple) else (of,)

    def sources(self, i: int) -> tuple[str, ...]:
        """The names of what a stage reads, if that is a tuple; else ()."""
        return tuple(self.name(of) for of in self.reads(i)) if isinstance(self.of[i], tuple) else ()

    def name(self, i: int) -> str:
        return "x" if i == INPUT else self.names[i]

    def read(self, i: int, values: Mapping[int, Any]):
        """The x of a stage."""
        of = self.of[i]
        return tuple(values[source] for source in of) if isinstance(of, tuple) else values[of]

    def split(self, i: int, x_bar) -> tuple:
        """A cotangent of the x of a stage, one for each that it reads; each None if it has no such parts."""
        if not isinstance(self.of[i], tuple):
            return (x_bar,)
        parts = len(self.reads(i))
        return tuple(x_bar) if isinstance(x_bar, tuple) and len(x_bar) == parts else (None,) * parts

    def readers(self, source: int) -> list[int]:
        return [i for i in self.order if source in self.reads(i)]

    def above(self, i: int) -> set[int]:
        """Everything from which a stage is computed."""
        found: set[int] = set()
        pending = [] if i == INPUT else list(self.reads(i))
        while pending:
            source = pending.pop()
            if source not in found:
                found.add(source)
                pending += [] if source == INPUT else self.reads(source)
        return found


def wired(names: Sequence[str], of: Sequence) -> Wired:
    """The graph of stages with these names that read these; raises where it is none."""
    if any(reading is not None for reading in of):
        _require_distinct(names)
    places = {"x": INPUT, **{name: i for i, name in enumerate(names)}}
    found: list[int | tuple[int, ...]] = []
    for i, (name, reading) in enumerate(zip(names, of)):
        if reading is None:
            found.append(i - 1)
        elif isinstance(reading, str):
            found.append(_place(places, name, reading))
        elif isinstance(reading, (tuple, list)) and reading:
            found.append(tuple(_place(places, name, source) for source in reading))
        else:
            raise TypeError(
                f"chain: stage {name!r} reads of={describe(reading)}, expected the name of a stage or a tuple of them; "
                f'write of="x" or of=("x", {names[i - 1]!r})'
            )
    graph = Wired(tuple(range(len(names))), tuple(found), tuple(names))
    if all(source < i for i in graph.order for source in graph.reads(i)):
        return graph
    return graph._replace(order=_sorted(graph))


def _require_distinct(names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name == "x":
            raise ValueError("chain: a stage is named 'x', which is the input of the whole; write Stage('x1', ...)")
        if name in names[:i]:
            raise ValueError(f"chain: two stages are named {name!r}; write Stage({f'{name} {i + 1}'!r}, ...)")


def _place(places: Mapping[str, int], name: str, source) -> int:
    if source not in places:
        known = ", ".join(repr(known) for known in places if known != name)
        raise ValueError(f"chain: stage {name!r} reads of={source!r}, which is no stage; write one of {known}")
    return places[source]


def _sorted(graph: Wired) -> tuple[int, ...]:
    reads = {i: [source for source in graph.reads(i) if source != INPUT] for i in graph.order}
    try:
        return tuple(TopologicalSorter(reads).static_order())
    except CycleError as error:
        cycle = [graph.name(i) for i in error.args[1]]
        path = ", which reads ".join(repr(name) for name in reversed(cycle))
        raise ValueError(
            f"chain: the stages form a cycle: {path}; write of= such that each reads only what comes before it, "
            f'as Stage({cycle[-1]!r}, ..., of="x")'
        ) from None
