"""A file that was damaged, or that another program wrote, is refused by name."""

import hashlib
import json
import os
import struct

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from checkpoint_cases import assert_same, graph, network, normed
from fnn import checkpoint
from fnn.checkpoint.fingerprint import digest
from fnn.summary import count
from problems import and_slow


def header_length(content: bytes) -> int:
    return 8 + struct.unpack("<Q", content[:8])[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


@pytest.fixture
def exported(path):
    checkpoint.export(path, network())
    return path


# -- damage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [normed(), graph()], ids=["layers", "graph"])
def test_a_flipped_bit_anywhere_in_the_arrays_is_detected(params, path):
    checkpoint.export(path, params)
    content = path.read_bytes()
    start = header_length(content)
    assert len(content) - start == 4 * count(params)
    for position in range(start, len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"network.safetensors: ([01]\.)?[a-zW.]+ is damaged"):
            checkpoint.load(path)


@pytest.mark.parametrize("bit", and_slow([0], range(8)))  # 0: a digit or a letter becomes its neighbour
@pytest.mark.parametrize("params", [normed(), graph()], ids=["layers", "graph"])
def test_a_flipped_bit_in_the_header_never_gives_another_network(params, bit, path):
    checkpoint.export(path, params)
    content = path.read_bytes()
    for position in range(header_length(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except ValueError as error:
            assert path.name in str(error)  # noqa: PT017
        else:
            assert_same(loaded, params)


def test_a_file_cut_anywhere_is_no_whole_file(exported):
    content = exported.read_bytes()
    for length in (*range(16), *range(16, len(content), 7), len(content) - 1):
        exported.write_bytes(content[:length])
        with pytest.raises(ValueError, match="network.safetensors: not a whole safetensors file"):
            checkpoint.load(exported)


def test_a_file_that_goes_on_is_no_whole_file(exported):
    exported.write_bytes(exported.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="network.safetensors: not a whole safetensors file"):
        checkpoint.load(exported)


@pytest.mark.parametrize("content", [b"", b"W = 1, 2, 3\n" * 9, b"\x80\x04\x95pickle..", bytes(64)], ids=range(4))
def test_another_kind_of_file_is_named(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="network.safetensors: not a whole safetensors file"):
        checkpoint.load(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match="network.safetensors"):
        checkpoint.load(path)


# -- files of other programs -----------------------------------------------------------------------------------


def rewritten(path, change=None, **metadata):
    """The file with other metadata, each a string or None for none, and other tensors."""
    with safetensors.safe_open(path, framework="numpy") as file:
        kept = file.metadata() | metadata
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if change is not None:
        change(tensors)
    safetensors.numpy.save_file(tensors, path, {key: text for key, text in kept.items() if text is not None})
    return path


def architecture(activation, layers=2, **more):
    return json.dumps([{"activation": activation, "norm": None, **more}] * layers)


def test_a_file_without_metadata_was_not_written_by_export(exported):
    safetensors.numpy.save_file(safetensors.numpy.load_file(exported), exported)
    with pytest.raises(
        ValueError, match="network.safetensors: expected format 'fnn 1', got None; write it with export"
    ):
        checkpoint.load(exported)


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": "pt"},
        {"format": "fnn 2"},
        {"sha256": None},
        {"sha256": "{"},
        {"sha256": "[]"},
        {"sha256": "{}"},
        {"architecture": None},
        {"architecture": "{"},
        {"architecture": "3"},
        {"architecture": "[3, 3]"},
        {"architecture": "[{}, {}]"},
        {"architecture": architecture("Sigmoid")},
        {"architecture": architecture({})},
        {"architecture": architecture({"name": "Sigmoid", "slope": 2.5})},
        {"architecture": architecture({"name": "Sigmoid", "beta": -1})},
        {"architecture": architecture({"name": "Sigmoid", "beta": "wide"})},
        {"architecture": architecture({"name": "Sigmoid"}, norm={"eps": 1e-5, "gradient": "full"})},
        {"architecture": architecture({"name": "Sigmoid"}, norm={"width": 2})},
        {"architecture": architecture({"name": "Sigmoid"}, layers=3)},
        {"architecture": architecture({"name": "Sigmoid"}, layers=1)},
        {"architecture": "[]"},
    ],
    ids=str,
)
def test_metadata_that_do_not_describe_the_arrays_are_a_value_error_that_names_the_file(metadata, exported):
    rewritten(exported, **metadata)
    with pytest.raises(ValueError, match="network.safetensors: "):
        checkpoint.load(exported)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("1.b"),
        lambda tensors: tensors.update({"2.W": tensors["1.W"]}),
        lambda tensors: tensors.update({"0.W": tensors["0.W"].T.copy()}),
        lambda tensors: tensors.update({"0.W": tensors["0.W"].reshape(2, 10)}),
        lambda tensors: tensors.update({"0.b": tensors["0.b"].view(np.int32)}),
        lambda tensors: tensors.update({"0.W": tensors["0.W"] + 1}),
    ],
    ids=["missing", "one more", "transposed", "another shape", "another dtype", "other numbers"],
)
def test_arrays_that_are_not_those_that_were_written_are_refused(change, exported):
    rewritten(exported, change)
    with pytest.raises(ValueError, match="network.safetensors: "):
        checkpoint.load(exported)


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph["arrows"].append([0, 9]),
        lambda graph: graph["arrows"].append([2, 1]),
        lambda graph: graph["arrows"].pop(),
        lambda graph: graph.pop("kinds"),
        lambda graph: graph["kind"].append(0),
        lambda graph: graph["inputs"].append(1),
        lambda graph: graph.update(kinds=[{"name": "Cube"}] * 3),
        lambda graph: graph.update(neurons=["x", "h"]),
    ],
    ids=["no such neuron", "a cycle", "fewer", "no kinds", "one kind more", "another input", "unknown", "no names"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_structure_that_is_no_graph_of_the_arrays_is_refused(change, path):
    checkpoint.export(path, graph())
    with safetensors.safe_open(path, framework="numpy") as file:
        kept = file.metadata()
    described, digests = json.loads(kept["architecture"]), json.loads(kept["sha256"])
    change(described["graph"])
    text = json.dumps(described)  # with a digest that is right
    digests["architecture"] = hashlib.sha256(text.encode()).hexdigest()
    rewritten(path, architecture=text, sha256=json.dumps(digests))
    with pytest.raises(ValueError, match="network.safetensors: "):
        checkpoint.load(path)


# -- files made to deceive -------------------------------------------------------------------------------------


def forged(path, architecture, change=None):
    """The file with another architecture and other tensors, and with digests that are right for them."""
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if change is not None:
        change(tensors)
    digests = {name: digest(tensor) for name, tensor in tensors.items()}
    digests["architecture"] = hashlib.sha256(architecture.encode()).hexdigest()
    metadata = {"format": "fnn 1", "architecture": architecture, "sha256": json.dumps(digests)}
    safetensors.numpy.save_file(tensors, path, metadata)
    return path


def layer(activation="Identity", **changed):
    return {"activation": {"name": activation}, "norm": None, "stacked": False} | changed


NESTED = "[" * 100_000 + "]" * 100_000
WIDE = {"1.W": np.zeros((6, 5), np.float32)}
RUN = {"0.W": np.zeros((2, 5, 5), np.float32), "0.b": np.zeros((2, 5), np.float32)}


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ([], None, "expected a tuple of fnn.Dense"),
        ([], dict.clear, "expected a tuple of fnn.Dense"),
        ([layer()], None, r"1\.W, 1\.b: expected a place in the architecture"),
        ([layer(), layer(), layer()], None, "2.W"),
        ([layer(), layer()], lambda tensors: tensors.update({"2.W": tensors["1.W"]}), "2.W: expected a place"),
        ([layer(), layer()], lambda tensors: tensors.update(WIDE), r"params\[1\].W: expected shape \(n_out, 4\)"),
        ([layer(), layer()], lambda tensors: tensors.update({"1.b": np.zeros(6, np.float16)}), "expected float32"),
        ([layer(), layer()], lambda tensors: tensors.update({k: v.astype(int) for k, v in tensors.items()}), ""),
        ([layer(stacked=True), layer()], lambda tensors: tensors.update(RUN), "expected a fnn.Dense first and last"),
        ([layer(stacked=1), layer()], None, r"params\[0\].W: expected shape"),
        ([layer(stacked=0), layer()], None, "expected the architecture of"),
        ([layer(more=1), layer()], None, "expected the architecture of"),
        ([layer(norm={"eps": -1, "gradient": "full"}), layer()], None, ""),
        ([layer(activation={"name": "Sigmoid", "beta": 10**400}), layer()], None, ""),
        ([layer("Threshold"), layer("load")], None, "activation 'load' is not known"),
        ({"graph": [], "norm": None}, None, ""),
        ({"graph": {"kinds": [], "neurons": None, "kind": [10**30], "arrows": [[10**30, 0]]}}, None, ""),
        (NESTED, None, "recursion"),
        (f'[{{"activation": {NESTED}}}]', None, "recursion"),
        ('{"graph": ' * 50_000 + "1" + "}" * 50_000, None, "recursion"),
    ],
    ids=range(20),
)
def test_metadata_made_to_deceive_are_a_value_error_that_names_the_file(architecture, change, message, exported):
    text = architecture if isinstance(architecture, str) else json.dumps(architecture)
    forged(exported, text, change)
    with pytest.raises(ValueError, match=f"network.safetensors: .*{message}"):
        checkpoint.load(exported)


@pytest.mark.parametrize("key", ["sha256", "architecture", "format"])
def test_deeply_nested_metadata_are_a_value_error_that_names_the_file(key, exported):
    rewritten(exported, **{key: NESTED})
    with pytest.raises(ValueError, match="network.safetensors: "):
        checkpoint.load(exported)


def raw(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64", "BOOL", "F99", "", 3])
def test_tensors_of_any_dtype_in_another_programs_file_are_a_value_error_that_names_the_file(dtype, path):
    size = {"C64": 64, "F4": 4, "F6_E2M3": 6}.get(dtype, 8)
    path.write_bytes(raw({"0.W": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}, bytes(size)))
    with pytest.raises(ValueError, match="network.safetensors: "):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "header",
    [
        NESTED.encode(),
        b'{"__metadata__": ' + NESTED.encode() + b"}",
        b'{"__metadata__": {"format": 3}}',
        b'{"__metadata__": null}',
        b'{"0.W": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}',
        b'{"0.W": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"0.W": {"dtype": "F32", "shape": [], "data_offsets": [0, 18446744073709551615]}}',
        b"\xff" * 64,
    ],
    ids=range(8),
)
def test_a_header_made_to_deceive_is_a_value_error_that_names_the_file(header, path):
    for content in (raw(header), struct.pack("<Q", 2**64 - 1) + header, struct.pack("<Q", 2**40) + header):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="network.safetensors: "):
            checkpoint.load(path)


def test_a_directory_and_a_fifo_are_refused_by_name(path):
    path.mkdir()
    with pytest.raises(IsADirectoryError, match="expected a file, got a directory.*network.safetensors"):
        checkpoint.load(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="network.safetensors: expected a regular file"):
        checkpoint.load(path)
