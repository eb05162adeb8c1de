"""Activations and graphs to and from JSON-compatible data, for files and exported programs."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from fnn.activations import Activation
from fnn.graph.graph import Graph


def written(activation) -> dict[str, Any]:
    """{"name": class name, **fields}; raises TypeError unless it is a dataclass."""
    if not dataclasses.is_dataclass(activation) or isinstance(activation, type):
        raise TypeError(f"params: expected activations that are dataclasses, got {activation!r}")
    fields = {field.name: _field(getattr(activation, field.name)) for field in dataclasses.fields(activation)}
    return {"name": type(activation).__name__, **fields}


def _field(value):
    if isinstance(value, tuple):
        return [_field(entry) for entry in value]
    return written(value) if dataclasses.is_dataclass(value) else value


def read(data: dict[str, Any], classes: dict[str, type]):
    """The activation described by ``written``'s result; raises ValueError if its class is not in ``classes``."""
    fields = dict(data)
    name = fields.pop("name")
    if name not in classes:
        raise ValueError(f"activation {name!r} is not known; write load(path, activations=({name},))")
    return classes[name](**{key: _read_field(value, classes) for key, value in fields.items()})


def _read_field(value, classes: dict[str, type]):
    if isinstance(value, list):
        return tuple(_read_field(entry, classes) for entry in value)
    return read(value, classes) if isinstance(value, dict) else value


def known(custom: Iterable[type] = ()) -> dict[str, type]:
    """The built-in and ``custom`` activations by class name."""
    ours = (cls for cls in Activation.__subclasses__() if cls.__module__.startswith("fnn."))
    return {cls.__name__: cls for cls in (*ours, *custom)}


def written_graph(graph: Graph) -> dict[str, Any]:
    """A graph's neurons, activations and arrows; raises TypeError unless its names are strings or integers."""
    neurons = None if isinstance(graph.neurons, range) else list(graph.neurons)
    if neurons is not None and not all(isinstance(name, (str, int)) for name in neurons):
        raise TypeError("params.graph: expected neurons named by strings or integers, which JSON can hold")
    return {
        "neurons": neurons,
        "kinds": [written(kind) for kind in graph.kinds],
        **{name: getattr(graph, name).tolist() for name in ("kind", "arrows", "inputs", "outputs")},
        "normed": np.flatnonzero(graph.normed).tolist(),
    }


def read_graph(data: dict[str, Any], classes: dict[str, type]) -> Graph:
    """The graph described by ``written_graph``'s result."""
    kinds = [read(kind, classes) for kind in data["kinds"]]
    names = data["neurons"] or range(len(data["kind"]))
    activations: Any = [kinds[k] for k in data["kind"]]
    if data["neurons"] is not None:
        activations = dict(zip(names, activations, strict=True))
    arrows = np.array(data["arrows"], int).reshape(-1, 2)
    pairs = [(names[source], names[target]) for source, target in arrows.tolist()]
    inputs, outputs, normed = ([names[i] for i in data[part]] for part in ("inputs", "outputs", "normed"))
    return Graph(arrows if isinstance(names, range) else pairs, activations, inputs, outputs, normed or None)
