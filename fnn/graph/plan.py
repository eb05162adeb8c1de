"""Precomputed once per graph: the neurons' rows by generation, the schedules, and their lookup tables.

Neurons are renumbered so that a generation is a range of *rows*, within which equal activations are contiguous. Arrays
are (rows, examples), which is twice as fast as (examples, rows).
"""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Activation, PerNeuron
from fnn.graph.graph import Graph
from fnn.graph.schedule import Leg, Tables, most_groups, schedule


class Layout(NamedTuple):
    """The static half of a plan."""

    forward: tuple[Leg, ...]
    backward: tuple[Leg, ...]  # down to generation 1
    to_inputs: tuple[Leg, ...]  # the derivatives with respect to the inputs
    neurons: int
    arrows: int
    rows: int  # in the buffers: neurons, padding, and a last row of zeros
    kinds: tuple[Activation, ...]
    output: Activation
    sorted_arrows: bool  # the steps' gradients are in the order of the weights
    sorted_neurons: bool  # the rows are the neurons in order
    sorted_inputs: bool
    first_output: int | None  # the first row of the outputs, if they are a range of rows in order
    most_groups: int  # of arrows, computed together


class Index(NamedTuple):
    """The dynamic half: arrays, passed to the compiled program as arguments."""

    forward: tuple[Tables, ...]
    backward: tuple[Tables, ...]
    to_inputs: tuple[Tables, ...]
    row: Any  # (N,) the row of each neuron
    neuron: Any  # (rows,) the neuron of each row; N for padding
    kind: Any  # (rows,) the index of its activation
    normed: Any  # (rows,) bool: whether a batch norm is for its neuron
    inputs: Any  # (n_0,) rows
    input_order: Any  # (n_0,) the inputs in the order of their rows
    outputs: Any  # (n_L,) rows
    computed: Any  # (N,) bool: the neurons that are not inputs
    place: Any  # (M,) the place of each arrow among the gradients of all steps


class Plan(NamedTuple):
    layout: Layout
    tables: Index


@lru_cache(maxsize=32)
def plan(graph: Graph, dense: bool = False) -> Plan:
    """The plan of a graph, cached; ``dense``: every arrow in a matrix, for rules that take matrices."""
    at = _numbered(graph)
    legs = _legs(at, dense)
    loops = [leg for direction in legs.values() for leg, _ in direction if leg.first is None]
    padding = 1 + max((max(leg.rows, *(b.width for b in leg.blocks), 0) for leg in loops), default=0)
    rows, place = len(graph) + padding, _places(legs["forward"], len(graph.arrows))
    outputs = tuple(graph.kinds[k] for k in graph.kind[graph.outputs])
    layout = Layout(
        **{name: tuple(leg for leg, _ in direction) for name, direction in legs.items()},
        neurons=len(graph),
        arrows=len(graph.arrows),
        rows=rows,
        kinds=graph.kinds,
        output=outputs[0] if len(set(outputs)) == 1 else PerNeuron(outputs),
        sorted_arrows=np.array_equal(place, np.arange(len(place))),
        sorted_neurons=np.array_equal(at.row, np.arange(len(graph))),
        first_output=int(at.row[graph.outputs[0]]) if (np.diff(at.row[graph.outputs]) == 1).all() else None,
        sorted_inputs=bool((np.diff(at.row[graph.inputs]) > 0).all()),
        most_groups=most_groups(),
    )
    index = Index(
        **{name: tuple(_lean(leg, t, rows - 1) for leg, t in direction) for name, direction in legs.items()},
        row=at.row,
        neuron=np.pad(at.neuron, (0, padding), constant_values=len(graph)),
        kind=np.pad(at.kind, (0, padding)),
        normed=np.pad(graph.normed[at.neuron], (0, padding)),
        inputs=at.row[graph.inputs],
        input_order=np.argsort(at.row[graph.inputs]),
        outputs=at.row[graph.outputs],
        computed=graph.generation > 0,
        place=place,
    )
    with jax.ensure_compile_time_eval():  # concrete arrays, not constants of an ongoing trace
        return Plan(layout, jax.tree.map(_on_device, index))


class _Rows(NamedTuple):
    """The neurons by generation and then by activation, one to a row, and the rows that the arrows connect."""

    neuron: np.ndarray  # (N,) of each row
    row: np.ndarray  # (N,) of each neuron
    kind: np.ndarray  # (N,) of each row
    bounds: np.ndarray  # generation i has rows bounds[i] to bounds[i + 1]
    source: np.ndarray  # (M,)
    target: np.ndarray  # (M,)


def _numbered(graph: Graph) -> _Rows:
    neuron = np.lexsort((np.arange(len(graph)), graph.kind, graph.generation)).astype(np.int32)
    row = np.empty_like(neuron)
    row[neuron] = np.arange(len(graph), dtype=np.int32)
    generation = graph.generation[neuron]
    bounds = np.searchsorted(generation, np.arange(generation[-1] + 2))
    return _Rows(neuron, row, graph.kind[neuron], bounds, *row[graph.arrows.T])


def _legs(at: _Rows, dense: bool) -> dict[str, Any]:
    """Each direction's legs, with their tables."""
    last, rows = len(at.bounds) - 2, (at.kind, at.bounds, most_groups())
    return {
        "forward": schedule(at.target, at.source, *rows, range(1, last + 1), dense),
        "backward": schedule(at.source, at.target, *rows, range(last, 0, -1), dense),
        "to_inputs": schedule(at.source, at.target, *rows, [0], dense),
    }


def _on_device(leaf: np.ndarray) -> jax.Array:
    return jnp.asarray(leaf, bool if leaf.dtype == bool else "int32")  # 32 bits even under x64


def _places(legs, arrows: int) -> np.ndarray:
    """Where each arrow's gradient lies among those of all legs; in each leg blocks come first, padding included."""
    pieces = [piece.ravel() for _, t in legs for piece in (*t.block_arrows, t.arrows)]
    position = np.concatenate([np.empty(0, np.int32), *pieces])
    place, real = np.empty(arrows, np.int32), position < arrows
    place[position[real]] = np.flatnonzero(real)
    return place


def _lean(leg: Leg, tables: Tables, zero: int) -> Tables:
    """The tables with padding reading row ``zero``, without what the leg's static half already contains."""
    known: dict[str, Any] = {"reads": np.where(tables.reads < 0, zero, tables.reads)}
    known["block_arrows"] = tuple(
        None if b.offset is not None else arrows for b, arrows in zip(leg.blocks, tables.block_arrows)
    )
    if leg.exact:
        known["count"] = None
    if leg.first is not None:
        known |= {"start": None, "block_starts": None}
    if not leg.groups:
        known |= {"reads": None, "arrows": None, "receivers": None}
    return tables._replace(**known)
