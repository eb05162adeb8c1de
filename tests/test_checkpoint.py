"""What is exported is loaded bit by bit, and a file that was damaged, or is another, is refused by name."""

import gc
import json
import struct
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import fnn
from fnn import checkpoint
from problems import ACTIVATIONS, name, problem, some


@dataclass(frozen=True)
class Cube:
    """An activation of one's own, of no base class."""

    factor: float = 1.0

    def value(self, z):
        return self.factor * z**3

    def pullback(self, g, z, a):
        return g * (3 * self.factor * z**2)


class Plain:
    """An activation that is no dataclass, and so cannot be described."""

    def value(self, z):
        return z

    def pullback(self, g, z, a):
        return g


def network(activation=fnn.Sigmoid(beta=2.5), dtype="float32"):
    return problem(activation, fnn.SquaredError(), 2, dtype=dtype).params


def normed(gradient="full", dtype="float32"):
    """A network with a batch norm in which no two numbers are equal."""
    numbers = np.random.default_rng(0).permutation(47) / 16
    W, b, gamma, beta, V, c = (jnp.asarray(part, dtype) for part in np.split(numbers, [20, 24, 28, 32, 44]))
    norm = fnn.BatchNorm(gamma, beta, gradient=gradient)
    return (
        fnn.Dense(W.reshape(4, 5), b, fnn.Sigmoid(beta=2.5), norm),
        fnn.Dense(V.reshape(3, 4), c, fnn.Identity()),
    )


def assert_same(loaded, params):
    """The same classes, shapes, dtypes and bits, in a structure that a compiled function finds again."""
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(params)):
        assert isinstance(ours, jax.Array)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def header_length(content: bytes) -> int:
    return 8 + struct.unpack("<Q", content[:8])[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


@pytest.fixture
def exported(path):
    checkpoint.export(path, network())
    return path


# -- there and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=name)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_every_activation_and_dtype_comes_back_bit_by_bit(activation, dtype, path):
    with jax.enable_x64(dtype == "float64"):
        params = network(activation, dtype)
        checkpoint.export(path, params)
        loaded = checkpoint.load(path)
        assert_same(loaded, params)
        assert loaded[0].activation == activation


@pytest.mark.parametrize("gradient", ["full", "fixed"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_batch_norm_comes_back_with_its_two_parameters(gradient, dtype, path):
    with jax.enable_x64(dtype == "float64"):
        params = normed(gradient, dtype)
        checkpoint.export(path, params)
        assert_same(checkpoint.load(path), params)


def test_the_eps_of_a_batch_norm_comes_back(path):
    layer = fnn.Dense(jnp.ones((2, 3)), jnp.ones(2), fnn.ReLU(), fnn.BatchNorm(jnp.ones(2), jnp.zeros(2), eps=0.1))
    checkpoint.export(path, (layer,))
    assert checkpoint.load(path)[0].norm.eps == 0.1


def test_the_loaded_network_computes_the_same(exported):
    p = problem(fnn.Sigmoid(beta=2.5), fnn.SquaredError(), 2)
    np.testing.assert_array_equal(fnn.forward(checkpoint.load(exported), p.x), fnn.forward(p.params, p.x))


def test_more_than_ten_layers_stay_in_order(path):
    params = tuple(fnn.Dense(jnp.full((n + 1, n), n / 2), jnp.zeros(n + 1), fnn.ReLU()) for n in range(1, 14))
    checkpoint.export(path, params)
    assert_same(checkpoint.load(path), params)


def test_numbers_that_are_no_numbers_come_back_too(path):
    params = (fnn.Dense(jnp.array([[jnp.nan, jnp.inf, -0.0]]), jnp.array([1e-42]), fnn.Identity()),)
    checkpoint.export(path, params)
    assert_same(checkpoint.load(path), params)


def test_columns_that_lie_first_in_memory_are_written_as_rows(path):
    W = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    checkpoint.export(path, (fnn.Dense(W, np.zeros(2, np.float32), fnn.ReLU()),))
    np.testing.assert_array_equal(checkpoint.load(path)[0].W, W)


def test_a_path_and_a_list_of_layers_are_taken_as_they_come(path):
    checkpoint.export(str(path), list(network()))
    assert_same(checkpoint.load(str(path)), network())


def test_another_program_finds_rows_for_receiving_neurons(exported):
    tensors = safetensors.numpy.load_file(exported)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "0.W": (4, 5), "0.b": (4,), "1.W": (6, 4), "1.b": (6,)}  # fmt: skip


# -- damage ----------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_in_the_arrays_is_detected(path):
    checkpoint.export(path, normed())
    content = path.read_bytes()
    start = header_length(content)
    assert len(content) - start == 4 * fnn.display.count(normed())
    for position in range(start, len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"network.safetensors: [01]\.[a-zW.]+ is damaged"):
            checkpoint.load(path)


@pytest.mark.parametrize("bit", some(range(8), every=4))
def test_a_flipped_bit_in_the_header_never_gives_another_network(bit, path):
    checkpoint.export(path, normed())
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
            assert_same(loaded, normed())


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


# -- activations of one's own ----------------------------------------------------------------------------------


def test_an_unknown_activation_is_named_with_the_call_that_knows_it(path):
    checkpoint.export(path, network(Cube(factor=0.5)))
    with pytest.raises(ValueError, match=r"activation 'Cube' is not known; write load\(path, activations=\(Cube,\)\)"):
        checkpoint.load(path)


def test_an_activation_of_ones_own_comes_back_by_its_class(path):
    params = network(Cube(factor=0.5))
    checkpoint.export(path, params)
    assert_same(checkpoint.load(path, activations=(Cube,)), params)
    assert_same(checkpoint.load(path, activations=iter([Cube])), params)


# -- x64 -------------------------------------------------------------------------------------------------------


def test_float64_is_not_made_float32_where_x64_is_off(path):
    with jax.enable_x64(True):
        checkpoint.export(path, network(dtype="float64"))
    with pytest.raises(ValueError, match=r"0\.[Wb] is float64; call jax.config.update\('jax_enable_x64', True\) first"):
        checkpoint.load(path)


def test_float32_stays_float32_with_x64(exported, x64):
    assert checkpoint.load(exported)[0].W.dtype == jnp.float32


# -- writing ---------------------------------------------------------------------------------------------------


def test_an_older_file_is_replaced(exported):
    checkpoint.export(exported, normed())
    assert_same(checkpoint.load(exported), normed())
    assert list(exported.parent.iterdir()) == [exported]


def fail_halfway(path, data):
    with open(path, "wb") as file:
        file.write(b"half of it")
    raise OSError("no space left on device")


def test_an_export_that_fails_while_writing_leaves_the_older_file_and_nothing_else(exported, monkeypatch):
    before = exported.read_bytes()
    monkeypatch.setattr(type(exported), "write_bytes", fail_halfway)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.export(exported, normed())
    assert exported.read_bytes() == before
    assert list(exported.parent.iterdir()) == [exported]


def test_an_export_that_cannot_replace_leaves_nothing_behind(path):
    path.mkdir()
    with pytest.raises(OSError, match="network.safetensors"):
        checkpoint.export(path, network())
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_os_error(path):
    with pytest.raises(OSError, match="nowhere"):
        checkpoint.export(path.parent / "nowhere" / "network.safetensors", network())


@pytest.mark.parametrize("params", [None, (), "params", {"W": 1}, network()[0], (network(),)], ids=range(6))
def test_what_is_no_network_is_not_written(params, exported):
    before = exported.read_bytes()
    with pytest.raises(TypeError, match="params: expected a tuple of fnn.Dense, got .*write fnn.init"):
        checkpoint.export(exported, params)
    assert exported.read_bytes() == before
    assert list(exported.parent.iterdir()) == [exported]


def test_an_activation_that_cannot_be_described_is_not_written(exported):
    before = exported.read_bytes()
    with pytest.raises(TypeError, match="params: expected activations that are dataclasses, got .*Plain"):
        checkpoint.export(exported, network(Plain()))
    assert exported.read_bytes() == before


# -- last, for the class lives on if this fails ------------------------------------------------------------------


def test_a_class_of_ones_own_does_not_replace_one_of_the_library_by_its_name(exported):
    @dataclass(frozen=True)
    class Sigmoid(fnn.Activation):
        beta: float = 1.0

    try:
        assert type(checkpoint.load(exported)[0].activation) is fnn.Sigmoid
    finally:
        del Sigmoid
        gc.collect()  # the base class knows its subclasses while they live
