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
from fnn.graph.schedule import Run, Tables, schedule


class Layout(NamedTuple):
    """The static half of a plan: graphs with equal layouts share one compiled program."""

    forward: tuple[Run, ...]
    backward: tuple[Run, ...]  # down to generation 1
    to_inputs: tuple[Run, ...]  # the derivatives with respect to the inputs
    neurons: int
    arrows: int
    rows: int  # in the buffers: neurons, padding, and a last row of zeros
    kinds: tuple[Activation, ...]
    output: Activation
    sorted_arrows: bool  # the steps' gradients are in the order of the weights
    sorted_neurons: bool  # the rows are the neurons in order
    sorted_inputs: bool


class Index(NamedTuple):
    """The dynamic half: arrays, passed to the compiled program as arguments."""

    forward: tuple[Tables, ...]
    backward: tuple[Tables, ...]
    to_inputs: tuple[Tables, ...]
    row: Any  # (N,) the row of each neuron
    neuron: Any  # (rows,) the neuron of each row; N for padding
    kind: Any  # (rows,) the index of its activation
    normed: Any  # (rows,) bool: whether it may have a batch norm
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
    neurons, arrows = len(graph), len(graph.arrows)
    neuron = np.lexsort((np.arange(neurons), graph.kind, graph.generation)).astype(np.int32)
    row = np.empty(neurons, np.int32)
    row[neuron] = np.arange(neurons, dtype=np.int32)
    generation, kind = graph.generation[neuron], graph.kind[neuron]
    bounds = np.searchsorted(generation, np.arange(generation[-1] + 2))
    source, target = row[graph.arrows[:, 0]], row[graph.arrows[:, 1]]

    forward = schedule(target, source, kind, bounds, range(1, len(bounds) - 1), dense)
    backward = schedule(source, target, kind, bounds, range(len(bounds) - 2, 0, -1), dense)
    to_inputs = schedule(source, target, kind, bounds, [0], dense)
    directions: dict[str, Any] = {"forward": forward, "backward": backward, "to_inputs": to_inputs}

    loops = [run for runs in directions.values() for run, _ in runs if run.first is None]
    padding = 1 + max((max(run.rows, *(b.width for b in run.blocks), 0) for run in loops), default=0)
    rows = neurons + padding
    outputs = tuple(graph.kinds[k] for k in graph.kind[graph.outputs])
    place = _places(forward, arrows)
    static = {name: tuple(run for run, _ in runs) for name, runs in directions.items()}
    tables = {name: tuple(_lean(run, t, rows - 1) for run, t in runs) for name, runs in directions.items()}
    layout = Layout(
        **static,
        neurons=neurons,
        arrows=arrows,
        rows=rows,
        kinds=graph.kinds,
        output=outputs[0] if len(set(outputs)) == 1 else PerNeuron(outputs),
        sorted_arrows=bool((place == np.arange(arrows)).all()),
        sorted_neurons=bool((row == np.arange(neurons)).all()),
        sorted_inputs=bool((np.diff(row[graph.inputs]) > 0).all()),
    )
    index = Index(
        **tables,
        row=row,
        neuron=np.pad(neuron, (0, padding), constant_values=neurons),
        kind=np.pad(kind, (0, padding)),
        normed=np.pad(graph.hidden[neuron], (0, padding)),
        inputs=row[graph.inputs],
        input_order=np.argsort(row[graph.inputs]),
        outputs=row[graph.outputs],
        computed=graph.generation > 0,
        place=place,
    )
    with jax.ensure_compile_time_eval():  # concrete arrays, not constants of an ongoing trace
        return Plan(layout, jax.tree.map(_on_device, index))


def _on_device(leaf: np.ndarray) -> jax.Array:
    return jnp.asarray(leaf, bool if leaf.dtype == bool else "int32")  # 32 bits even under x64


def _places(runs, arrows: int) -> np.ndarray:
    """Where each arrow's gradient lies among those of all runs; in each run blocks come first, padding included."""
    pieces = [piece.ravel() for _, t in runs for piece in (*t.block_arrows, t.arrows)]
    position = np.concatenate([np.empty(0, np.int32), *pieces])
    place, real = np.empty(arrows, np.int32), position < arrows
    place[position[real]] = np.flatnonzero(real)
    return place


def _lean(run: Run, tables: Tables, zero: int) -> Tables:
    """The tables with padding reading row ``zero``, without what the run's static half already contains."""
    known: dict[str, Any] = {"reads": np.where(tables.reads < 0, zero, tables.reads)}
    known["block_arrows"] = tuple(
        None if b.offset is not None else arrows for b, arrows in zip(run.blocks, tables.block_arrows)
    )
    if run.exact:
        known["count"] = None
    if run.first is not None:
        known |= {"start": None, "block_starts": None}
    if not run.groups:
        known |= {"reads": None, "arrows": None, "receivers": None}
    return tables._replace(**known)
