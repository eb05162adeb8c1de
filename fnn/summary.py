"""``fnn.summary``: a network or its trace as a table."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fnn.display import Table
from fnn.graph.graph import GraphParams
from fnn.kinds import either, kind
from fnn.layers import LayerTrace, Params
from fnn.markup import counted, is_concrete, spread

GENERATIONS_SHOWN = 10  # at either end


def count(params) -> int:
    """The number of parameters: the total size of all leaves of a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def summary(params: Params | Any) -> Table:
    """The layers with their shapes and parameter counts, or the contents of a ``trace``, as text and HTML.

    params: layers, a graph, or, for layers, the result of ``fnn.trace`` or ``fnn.deltas``. Raises TypeError or
    ValueError for anything else.

    >>> import jax, fnn
    >>> fnn.summary(fnn.init(jax.random.key(0), (3, 4, 2)))
    layer  inputs  outputs  activation         norm  parameters
    -----  ------  -------  -----------------  ----  ----------
    1      3       4        Sigmoid(beta=1.0)  -     16
    2      4       2        Identity()         -     10
    26 parameters, float32

    A 3-4-2 network has 20 weights and 6 biases. For a graph, the table lists its generations. For a trace and for
    deltas, it lists the shape of every array and the mean, standard deviation and range of its values.
    """
    if entries := _entries(params):
        return _of_arrays(entries)
    kind(params).require(params)
    return either(params, _of_layers, _of_graph)(params)


def _of_layers(params: Params) -> Table:
    rows, number = [], 1
    for layer in params:
        *run, n_out, n_in = layer.W.shape
        last = number + math.prod(run) - 1
        name = f"{number}–{last}" if run else str(number)  # for a stack, its first and last layer
        norm = "-" if layer.norm is None else layer.norm.gradient
        rows.append((name, f"{n_in:,}", f"{n_out:,}", str(layer.activation), norm, f"{count(layer):,}"))
        number = last + 1
    header = ("layer", "inputs", "outputs", "activation", "norm", "parameters")
    return Table(header, tuple(rows), footer=f"{count(params):,} parameters, {params[0].W.dtype}")


def _entries(found: Any) -> list[dict[str, Any]]:
    """The arrays of a trace or of deltas by name; nothing for parameters."""
    if not isinstance(found, tuple) or not found:
        return []
    if isinstance(found[0], LayerTrace):
        return [layer._asdict() for layer in found]
    return [{"delta": delta} for delta in found] if all(map(is_concrete, found)) else []


def _of_arrays(entries: Sequence[dict]) -> Table:
    """One row per array of a trace or of deltas; a stack, with its leading axis of layers, is one entry."""
    rows = [
        (str(number), name, str(value.shape), *spread(np.asarray(value)))
        for number, named in enumerate(entries, 1)
        for name, value in named.items()
    ]
    header = ("entry", "array", "shape", "mean", "deviation", "least", "largest")
    footer = f"{counted(len(entries), 'entry', 'entries')}, {[*entries[0].values()][-1].dtype}"
    return Table(header, tuple(rows), footer=footer)


def _of_graph(params: GraphParams) -> Table:
    """The generations, their neurons, and the arrows into them."""
    graph, rows = params.graph, []
    into = np.bincount(graph.generation[graph.arrows[:, 1]], minlength=graph.generation.max() + 1)
    for generation, arrows in enumerate(into.tolist()):
        neurons = np.flatnonzero(graph.generation == generation)
        kinds = [str(graph.kinds[k]) for k in np.unique(graph.kind[neurons])] if generation else ["-"]
        normed = params.norm is not None and graph.normed[neurons].any()
        norm = params.norm.gradient if params.norm is not None and normed else "-"
        rows.append((str(generation), f"{len(neurons):,}", f"{arrows:,}", ", ".join(kinds), norm))
    if len(rows) > 2 * GENERATIONS_SHOWN:
        rows[GENERATIONS_SHOWN:-GENERATIONS_SHOWN] = [("...",) * 5]
    norms = f", {2 * int(graph.normed.sum()):,} of batch norms" if params.norm is not None else ""
    biases = int((graph.generation > 0).sum())
    footer = (
        f"{counted(len(graph.arrows), 'weight')} and {counted(biases, 'bias', 'biases')}{norms}, {params.weights.dtype}"
    )
    return Table(("generation", "neurons", "arrows into", "activations", "norm"), tuple(rows), footer=footer)
