"""The drawing on the page: columns of neurons, the arrows between them, and the values of the lines at each."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fnn.graph.graph import GraphParams

MOST_WEIGHTS = 200_000  # of which the page holds every number


def drawn(explanation: Any, rate: float) -> dict[str, Any]:
    """The network as plain values for JSON: neurons are numbered column by column, from the input."""
    params, equations = explanation.params, explanation.equations
    graph = isinstance(params, GraphParams)
    kind, columns, names, blocks = ("graph", *_of_graph(params)) if graph else ("layers", *_of_layers(params))
    values: dict[str, list] = {}
    place = positions(params)

    def note(quantity: str, where, value) -> None:
        row = values.setdefault(quantity, [None] * len(names))
        for i, entry in zip(np.ravel(where).tolist(), numbers(value)):
            row[i] = entry

    by_arrow = {}
    for equation in equations:
        if equation.quantity == "dw":
            by_arrow[equation.place] = equation.value
        elif equation.quantity and equation.quantity != "loss":
            note(equation.quantity, place[equation.place[0]], equation.value)
    for (where, biases), change in zip(_biases(params), _changes(params, equations)):
        note("b", where, biases)
        note("new", where, _updated(biases, change, rate))
    if graph:
        note("a", place[params.graph.inputs], explanation.x)
    outputs = place[params.graph.outputs] if graph else place[-1]
    if explanation.y.shape == (len(outputs),):  # a label is no value of a neuron
        note("y", outputs, explanation.y)
    return {
        "kind": kind,
        "columns": columns,
        "names": names,
        "values": values,
        "blocks": [_block(block, by_arrow, rate) for block in blocks],
        "target": numbers(explanation.y),
        "rate": rate,
    }


def positions(params: Any) -> Any:
    """The numbers on the page: for layers, a range by layer from 0; for a graph, one by neuron."""
    if isinstance(params, GraphParams):
        return np.argsort(np.argsort(params.graph.generation, kind="stable"))
    sizes = [params[0].W.shape[1], *(len(layer.W) for layer in params)]
    ends = np.cumsum([0, *sizes]).tolist()
    return [range(*ends[i : i + 2]) for i in range(len(sizes))]


def numbers(value: Any) -> list:
    """Five digits are enough to read; JSON has no infinities."""
    entries = (float(f"{entry:.5g}") for entry in np.ravel(value).tolist())
    return [entry if np.isfinite(entry) else str(entry) for entry in entries]


def _of_layers(params: Any) -> tuple[list, list, Iterator]:
    counts = [len(units) for units in positions(params)]
    columns = [{"label": f"layer {n}" if n else "input", "count": count} for n, count in enumerate(counts)]
    names = [str(i + 1) for count in counts for i in range(count)]
    return columns, names, ((n, "dense", layer.W) for n, layer in enumerate(params, 1))


def _of_graph(params: GraphParams) -> tuple[list, list, Iterator]:
    graph, place = params.graph, positions(params)
    counts = np.bincount(graph.generation).tolist()
    columns = [{"label": f"generation {n}" if n else "inputs", "count": count} for n, count in enumerate(counts)]
    names = [str(graph.neurons[k]) for k in np.argsort(graph.generation, kind="stable")]
    pairs = [(k, j) for j, k in graph.arrows.tolist()]
    return columns, names, iter([(pairs, place[graph.arrows].tolist(), params.weights)])


def _block(block: tuple, by_arrow: dict, rate: float) -> dict[str, Any]:
    """The weights between two columns, row by row, or those of a graph with the ends of each."""
    where, ends, weights = block
    weights = np.asarray(weights)
    found: dict[str, Any] = {"to": where} if ends == "dense" else {"ends": ends}
    if weights.size > MOST_WEIGHTS:
        return {**found, "ends": []} if "ends" in found else found
    change = by_arrow[(where,)] if ends == "dense" else np.array([by_arrow[pair] for pair in where])
    return {**found, "w": numbers(weights), "dw": numbers(change), "new": numbers(_updated(weights, change, rate))}


def _biases(params: Any) -> list[tuple[Any, np.ndarray]]:
    if isinstance(params, GraphParams):
        computed = np.flatnonzero(params.graph.generation > 0)
        return [(positions(params)[computed], np.asarray(params.biases)[computed])]
    return [(where, np.asarray(layer.b)) for where, layer in zip(positions(params)[1:], params)]


def _changes(params: Any, equations: Any) -> list[np.ndarray]:
    """The gradients by the biases, in the order of :func:`_biases`."""
    found = {equation.place[0]: equation.value for equation in equations if equation.quantity == "db"}
    if isinstance(params, GraphParams):
        return [np.array([found[k] for k in sorted(found)])]
    return [found[n] for n in sorted(found)]


def _updated(weights: np.ndarray, change: np.ndarray, rate: float) -> np.ndarray:
    with np.errstate(all="ignore"):  # what is infinite is shown as it is
        return weights - rate * change
