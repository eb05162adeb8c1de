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
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import files
from fnn.activations import Activation
from fnn.batchnorm import BatchNorm
from fnn.checkpoint.fingerprint import digest
from fnn.checks import network as checks
from fnn.checks.arrays import native
from fnn.graph.graph import GraphParams
from fnn.kinds import AnyParams, kind
from fnn.layers import Dense, Stack
from fnn.runs import Run, network_of
from fnn.written import known, read, read_graph, written, written_graph

__all__ = ["export", "load"]

FORMAT = "fnn 1"
DTYPES = {  # as the file names them, and as NumPy and JAX do
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


def export(path, params: AnyParams | Run) -> None:
    """Write ``params`` to the file ``path``, atomically.

    params: layers or a graph, with activations that are dataclasses, and neurons named by strings or integers; or a
    ``fnn.train.Run``, whose ``network`` is written. Raises TypeError or ValueError for anything else, and OSError if
    the file cannot be written. An existing file is replaced only when the new one is complete, so a reader sees one or
    the other, however many processes write. Equal parameters give equal bytes.
    """
    path = files.path_of("path", path, "the path of a file", "network.safetensors")
    safetensors, params = _safetensors(), native(network_of(params))
    _require_whole(params)
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in _named_leaves(params).items()}
    architecture = json.dumps(_architecture(params))
    metadata = {"format": FORMAT, "architecture": architecture, "sha256": json.dumps(_digests(tensors, architecture))}
    try:
        written = safetensors.numpy.save(tensors, metadata)
    except safetensors.SafetensorError as error:
        raise TypeError(f"params: expected a dtype that safetensors files have: {error}") from error
    files.replace(path, _in_order(written))


def load(path, activations: Iterable[type[Activation]] = ()) -> Any:
    """The parameters in the file ``path``, layers or a graph, with every array's digest verified.

    activations: custom activation classes that the network uses. Raises FileNotFoundError, IsADirectoryError, or
    ValueError if the file is damaged, was not written by :func:`export`, or names an unknown activation.
    """
    classes = known(activations)
    metadata, tensors = contents(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected format {FORMAT!r}, got {metadata.get('format')!r}; write it with export, or read "
            "another program's file with fnn.convert.from_safetensors(path, layers)"
        )
    try:
        digests = json.loads(metadata["sha256"])
        for name, found in _digests(tensors, metadata["architecture"]).items():
            if digests.pop(name) != found:
                raise ValueError(f"{name} is damaged: its SHA-256 does not match")
        if digests:
            raise ValueError(f"{', '.join(digests)} is missing")
        return _built(json.loads(metadata["architecture"]), tensors, classes)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def contents(path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and the tensors, by name, of any safetensors file; raises ValueError if it is not whole.

    The file is read, and not mapped into memory, where another program that shortens it would end this one.
    """
    safetensors = _safetensors()
    with files.opened(path) as file:
        data = file.read()
    try:
        tensors = {name: _array(name, tensor) for name, tensor in sorted(safetensors.deserialize(data))}
        return json.loads(data[8 : _header_end(data)]).get("__metadata__") or {}, tensors
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def _array(name: str, tensor: dict[str, Any]) -> np.ndarray:
    if tensor["dtype"] not in DTYPES:
        raise ValueError(f"{name}: expected a dtype among {', '.join(DTYPES)}, got {tensor['dtype']}")
    return np.frombuffer(tensor["data"], np.dtype(DTYPES[tensor["dtype"]])).reshape(tensor["shape"])


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _in_order(data: bytes) -> bytes:
    """The content of a file with its metadata in alphabetical order, which safetensors writes in any."""
    end = _header_end(data)
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays are aligned
    return len(text).to_bytes(8, "little") + text + data[end:]


def _named_leaves(params) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(at, simple=True, separator="."): leaf for at, leaf in leaves}


def _require_whole(params) -> None:
    """Raise TypeError or ValueError unless the layers fit together; a graph is checked by its kind."""
    kind(params).require(params)
    if not isinstance(params, GraphParams):
        of = checks.ports(params)
        x = jax.ShapeDtypeStruct((2, of.n_in), of.dtype)
        jax.eval_shape(lambda params, x: checks.network(*checks.network_arguments(params, x, None)), params, x)


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
        of = Stack if description["stacked"] else Dense
        activation = read(description["activation"], classes)
        return of(leaves[f"{i}.W"], leaves[f"{i}.b"], activation, norm(description["norm"], f"{i}."))

    if isinstance(architecture, dict):
        graph = read_graph(architecture["graph"], classes)
        params: Any = GraphParams(leaves["weights"], leaves["biases"], graph, norm(architecture["norm"], ""))
    else:
        params = tuple(layer(i, description) for i, description in enumerate(architecture))
    _require_whole(params)
    if unused := tensors.keys() - _named_leaves(params).keys():
        raise ValueError(f"{', '.join(sorted(unused))}: expected a place in the architecture, which has none")
    if _text(_architecture(params)) != _text(architecture):
        raise ValueError(f"expected the architecture of {params}, got {_text(architecture)[:200]}")
    return params


def _text(architecture) -> str:
    return json.dumps(architecture, sort_keys=True)


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
