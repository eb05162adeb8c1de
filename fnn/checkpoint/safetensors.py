"""Parameters in a safetensors file: the arrays, the architecture as JSON, and a SHA-256 for every array.

The layout, for other programs that read it: tensors are named ``{layer}.W``, ``{layer}.b`` and, with a batch norm,
``{layer}.norm.gamma`` and ``{layer}.norm.beta``, with layers counted from 0. W has one row per receiving neuron. The
file's metadata holds three strings:

    format        "fnn 1"
    architecture  JSON: one object per layer, {"activation": {"name": ..., fields}, "norm": null or
                  {"eps": ..., "gradient": ...}, "stacked": true for a run of layers, whose tensors have a
                  leading axis of layers}
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

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Activation
from fnn.activations.written import known, read, written
from fnn.batchnorm import BatchNorm
from fnn.checkpoint.fingerprint import digest
from fnn.checks import network as checks
from fnn.layers import Dense, Params, Stack

__all__ = ["export", "load"]

FORMAT = "fnn 1"


def export(path, params: Params) -> None:
    """Write ``params`` to the file ``path``, atomically.

    params: a tuple of ``Dense`` whose activations are dataclasses. Raises TypeError for anything else, and OSError if
    the file cannot be written. An existing file is replaced only when the new one is complete.
    """
    safetensors = _safetensors()
    checks.layers(params)
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in _named_leaves(params)}
    architecture = json.dumps([_describe(layer) for layer in params])
    metadata = {"format": FORMAT, "architecture": architecture, "sha256": json.dumps(_digests(tensors, architecture))}
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(safetensors.numpy.save(tensors, metadata))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path, activations: Iterable[type[Activation]] = ()) -> Params:
    """The parameters in the file ``path``, with every array's digest verified.

    activations: custom activation classes that the network uses. Raises FileNotFoundError, or ValueError if the file is
    damaged, was not written by :func:`export`, or names an unknown activation.
    """
    safetensors = _safetensors()
    classes = known(activations)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT!r}, got {metadata.get('format')!r}; write it with export")
    try:
        digests = json.loads(metadata["sha256"])
        for name, found in _digests(tensors, metadata["architecture"]).items():
            if digests.pop(name) != found:
                raise ValueError(f"{name} is damaged: its SHA-256 is not the one that was written")
        if digests:
            raise ValueError(f"{', '.join(digests)} is missing")
        layers = json.loads(metadata["architecture"])
        return tuple(_build(layer, f"{i}.", tensors, classes) for i, layer in enumerate(layers))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _named_leaves(params: Params):
    for i, layer in enumerate(params):
        yield f"{i}.W", layer.W
        yield f"{i}.b", layer.b
        if layer.norm is not None:
            yield f"{i}.norm.gamma", layer.norm.gamma
            yield f"{i}.norm.beta", layer.norm.beta


def _describe(layer: Dense) -> dict:
    norm = layer.norm
    return {
        "activation": written(layer.activation),
        "norm": None if norm is None else {"eps": norm.eps, "gradient": norm.gradient},
        "stacked": layer.stacked,
    }


def _build(description: dict, prefix: str, tensors: dict, classes: dict) -> Dense:
    activation, norm = read(description["activation"], classes), None
    for key, leaf in tensors.items():
        if jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
            raise ValueError(f"{key} is {leaf.dtype}; call jax.config.update('jax_enable_x64', True) first")
    if description["norm"] is not None:
        gamma, beta = (jnp.asarray(tensors[f"{prefix}norm.{leaf}"]) for leaf in ("gamma", "beta"))
        norm = BatchNorm(gamma, beta, **description["norm"])
    layer = Stack if description.get("stacked", False) else Dense
    return layer(jnp.asarray(tensors[f"{prefix}W"]), jnp.asarray(tensors[f"{prefix}b"]), activation, norm)


def _digests(tensors: dict[str, np.ndarray], architecture: str) -> dict[str, str]:
    digests = {name: digest(tensor) for name, tensor in tensors.items()}
    return digests | {"architecture": hashlib.sha256(architecture.encode()).hexdigest()}


def _safetensors():
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("fnn.checkpoint.export and load need safetensors; install fnn[train]") from error
    return safetensors
