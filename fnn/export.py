"""Layers, masks and graph parameters in programs that ``jax.export`` serialises.

``jax.export.export(jax.jit(fnn.forward))(params, x).serialize()`` works once this module is loaded, which
``import fnn`` does; it needs flatbuffers. The static fields of parameters, activations and graphs are written as JSON.
"""

import json

import jax.export

from fnn.activations import Activation
from fnn.batchnorm import BatchNorm
from fnn.graph.graph import GraphParams
from fnn.graph.passes import Trace
from fnn.layers import Dense, LayerTrace, Stack
from fnn.masks import Mask
from fnn.written import read, read_graph, written, written_graph


def _classes() -> dict[str, type]:
    """Every loaded activation class, including custom ones, by name."""
    found: dict[str, type] = {}
    new: list[type] = [Activation]
    while new:
        cls = new.pop()
        found[cls.__name__] = cls
        new += cls.__subclasses__()
    return found


def _layer_to_bytes(static: tuple) -> bytes:
    (activation,) = static
    return json.dumps(written(activation)).encode()


def _layer_from_bytes(data: bytes) -> tuple:
    return (read(json.loads(data), _classes()),)


def _norm_to_bytes(static: tuple) -> bytes:
    return json.dumps(static).encode()


def _norm_from_bytes(data: bytes) -> tuple:
    return tuple(json.loads(data))


def _graph_to_bytes(static: tuple) -> bytes:
    (graph,) = static
    return json.dumps(written_graph(graph)).encode()


def _graph_from_bytes(data: bytes) -> tuple:
    return (read_graph(json.loads(data), _classes()),)


def _register() -> None:
    register = jax.export.register_pytree_node_serialization
    for cls, to_bytes, from_bytes in (
        (Dense, _layer_to_bytes, _layer_from_bytes),
        (Stack, _layer_to_bytes, _layer_from_bytes),
        (BatchNorm, _norm_to_bytes, _norm_from_bytes),
        (GraphParams, _graph_to_bytes, _graph_from_bytes),
    ):
        name = f"fnn.{cls.__name__}"
        register(cls, serialized_name=name, serialize_auxdata=to_bytes, deserialize_auxdata=from_bytes)
    for named, name in ((Mask, "fnn.Mask"), (LayerTrace, "fnn.LayerTrace"), (Trace, "fnn.graph.Trace")):
        jax.export.register_namedtuple_serialization(named, serialized_name=name)


_register()
