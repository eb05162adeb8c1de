"""Parameters in a safetensors file: the arrays, the architecture as JSON, and a SHA-256 for every array.

The layout, for other programs that read it: tensors are named ``{layer}.W``, ``{layer}.b`` and, with a batch norm,
``{layer}.norm.gamma`` and ``{layer}.norm.beta``, with layers counted from 0. W has one row per receiving neuron. Those
of a graph are ``weights``, ``biases`` and, with a batch norm, ``norm.gamma`` and ``norm.beta``. The file's metadata
holds three strings:

    format        "fnn 1"
    architecture  JSON: one object per layer, {"activation": {"name": ..., fields}, "norm": null or
                  {"eps": ..., "gradient": ...}, "stacked": true for a run of layers, whose tensors have a
                  leading axis of layers}; for a graph {"graph": {"neurons": names, or null for 0 … N−1,
                  "kinds": the different activations, "kind": the one of every neuron, "arrows": [[source, target],
                  ...], "inputs": [...], "outputs": [...], "normed": [...]}, "norm": as above}, with neurons by number
    sha256        JSON: tensor name → hex digest of its dtype, shape and bytes, and "architecture" → of that string;
                  a tensor's digest covers the text "{dtype} {shape}\\n", for example "float32 (10, 30)\\n", and
                  its entries row by row, little-endian

Nothing is pickled, so nothing in the file is ever executed.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Activation
from fnn.batchnorm import BatchNorm
from fnn.checkpoint.fingerprint import digest
from fnn.checks.arrays import native
from fnn.graph.graph import GraphParams
from fnn.kinds import AnyParams, kind
from fnn.layers import Dense, Stack
from fnn.runs import Run, network_of
from fnn.written import known, read, read_graph, written, written_graph

__all__ = ["export", "load"]

FORMAT = "fnn 1"


def export(path, params: AnyParams | Run) -> None:
    """Write ``params`` to the file ``path``, atomically.

    params: layers or a graph, with activations that are dataclasses, and neurons named by strings or integers; or a
    ``fnn.train.Run``, of which the ``network`` is meant. Raises TypeError for anything else, and OSError if the file
    cannot be written. An existing file is replaced only when the new one is complete.
    """
    safetensors, params = _safetensors(), native(network_of(params))
    kind(params).require(params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    tensors = {jax.tree_util.keystr(at, simple=True, separator="."): np.ascontiguousarray(leaf) for at, leaf in leaves}
    architecture = json.dumps(_architecture(params))
    metadata = {"format": FORMAT, "architecture": architecture, "sha256": json.dumps(_digests(tensors, architecture))}
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(safetensors.numpy.save(tensors, metadata))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path, activations: Iterable[type[Activation]] = ()) -> Any:
    """The parameters in the file ``path``, layers or a graph, with every array's digest verified.

    activations: custom activation classes that the network uses. Raises FileNotFoundError, or ValueError if the file is
    damaged, was not written by :func:`export`, or names an unknown activation.
    """
    classes = known(activations)
    metadata, tensors = contents(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected format {FORMAT!r}, got {metadata.get('format')!r}; write it with export, or read "
            "another program's file by fnn.convert.from_safetensors(path, layers)"
        )
    try:
        digests = json.loads(metadata["sha256"])
        for name, found in _digests(tensors, metadata["architecture"]).items():
            if digests.pop(name) != found:
                raise ValueError(f"{name} is damaged: its SHA-256 is not the one that was written")
        if digests:
            raise ValueError(f"{', '.join(digests)} is missing")
        params = _built(json.loads(metadata["architecture"]), tensors, classes)
        kind(params).require(params)
        return params
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def contents(path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and the tensors, by name, of any safetensors file; raises ValueError if it is not whole."""
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error


def _architecture(params) -> list | dict:
    def norm(norm: BatchNorm | None) -> dict | None:
        return None if norm is None else {"eps": norm.eps, "gradient": norm.gradient}

    if isinstance(params, GraphParams):
        return {"graph": written_graph(params.graph), "norm": norm(params.norm)}
    return [
        {"activation": written(layer.activation), "norm": norm(layer.norm), "stacked": layer.stacked}
        for layer in params
    ]


def _built(architecture: list | dict, tensors: dict[str, np.ndarray], classes: dict[str, type]):
    for name, tensor in tensors.items():
        if jax.dtypes.canonicalize_dtype(tensor.dtype) != tensor.dtype:
            raise ValueError(f"{name} is {tensor.dtype}; call jax.config.update('jax_enable_x64', True) first")
    leaves = {name: jnp.asarray(tensor) for name, tensor in tensors.items()}

    def norm(description: dict | None, prefix: str) -> BatchNorm | None:
        if description is None:
            return None
        return BatchNorm(leaves[f"{prefix}norm.gamma"], leaves[f"{prefix}norm.beta"], **description)

    def layer(i: int, description: dict) -> Dense:
        of = Stack if description.get("stacked", False) else Dense
        activation = read(description["activation"], classes)
        return of(leaves[f"{i}.W"], leaves[f"{i}.b"], activation, norm(description["norm"], f"{i}."))

    if isinstance(architecture, dict):
        graph = read_graph(architecture["graph"], classes)
        return GraphParams(leaves["weights"], leaves["biases"], graph, norm(architecture["norm"], ""))
    return tuple(layer(i, description) for i, description in enumerate(architecture))


def _digests(tensors: dict[str, np.ndarray], architecture: str) -> dict[str, str]:
    digests = {name: digest(tensor) for name, tensor in tensors.items()}
    return digests | {"architecture": hashlib.sha256(architecture.encode()).hexdigest()}


def _safetensors():
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("reading and writing safetensors files needs safetensors; install fnn[train]") from error
    return safetensors
