"""What is exported is loaded bit by bit, and an export that fails leaves what was there."""

import gc
import os
import stat
import threading
from dataclasses import dataclass, replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import fnn
from checkpoint_cases import assert_same, graph, network, normed
from fnn import checkpoint, files
from problems import ACTIVATIONS, and_slow, problem
from resume_cases import files_of_at_most


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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


@pytest.fixture
def exported(path):
    checkpoint.export(path, network())
    return path


# -- there and back --------------------------------------------------------------------------------------------


DTYPES = ("float32", "bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2")
SHORT = [(activation, "float32") for activation in ACTIVATIONS] + [
    (fnn.Sigmoid(beta=2.5), dtype) for dtype in DTYPES[1:]
]


@pytest.mark.parametrize("case", and_slow(SHORT, product(ACTIVATIONS, DTYPES)), ids=str)
def test_every_activation_and_dtype_comes_back_bit_by_bit(case, path):
    activation, dtype = case
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
    first, last = normed()
    checkpoint.export(path, (replace(first, norm=replace(first.norm, eps=0.1)), last))
    assert checkpoint.load(path)[0].norm.eps == 0.1


def test_the_loaded_network_computes_the_same(exported):
    p = problem(fnn.Sigmoid(beta=2.5), fnn.SquaredError(), 2)
    np.testing.assert_array_equal(fnn.forward(checkpoint.load(exported), p.x), fnn.forward(p.params, p.x))


def test_more_than_ten_layers_stay_in_order(path):
    zeros = np.zeros(2, np.float32)
    params = tuple(fnn.Dense(jnp.asarray(np.full((2, 2), n, np.float32)), zeros, fnn.ReLU()) for n in range(13))
    checkpoint.export(path, params)
    assert_same(checkpoint.load(path), params)


def test_numbers_that_are_no_numbers_come_back_too(path):
    params = (fnn.Dense(*map(jnp.float32, ([[np.nan, np.inf, -0.0]], [1e-42])), fnn.Identity()),)
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("batch_norm", [None, "full", "fixed"])
@pytest.mark.parametrize("names", [("x", "h", 7, "y"), (0, 1, 2, 3), (3, 2, 1, 0), (5, 4, 9, 8)], ids=str)
def test_a_graph_comes_back_bit_by_bit_with_its_names(names, batch_norm, dtype, path):
    with jax.enable_x64(dtype == "float64"):
        params = graph(names, dtype, batch_norm)
        checkpoint.export(path, params)
        assert_same(checkpoint.load(path), params)


def test_the_loaded_graph_computes_the_same_and_shares_the_compiled_function(path):
    params, x = graph(batch_norm=None), jnp.ones((5, 1))
    checkpoint.export(path, params)
    loaded = checkpoint.load(path)
    np.testing.assert_array_equal(fnn.forward(loaded, x), fnn.forward(params, x))
    assert hash(loaded.graph) == hash(params.graph)


def test_a_graph_whose_names_json_cannot_hold_is_not_written(path):
    with pytest.raises(TypeError, match="params.graph: expected neurons named by strings or integers"):
        checkpoint.export(path, graph(("x", ("h", 1), 7, "y")))
    assert not path.exists()


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


def test_an_export_that_fails_while_writing_leaves_the_older_file_and_nothing_else(exported):
    before = exported.read_bytes()
    with files_of_at_most(100), pytest.raises(OSError, match="File too large"):
        checkpoint.export(exported, normed())
    assert exported.read_bytes() == before
    assert list(exported.parent.iterdir()) == [exported]


@pytest.mark.parametrize("params", [network(), normed(), graph()], ids=["layers", "batch norm", "graph"])
def test_equal_parameters_give_equal_bytes(params, path):
    written = set()
    for _ in range(10):  # safetensors orders its metadata by chance
        checkpoint.export(path, jax.tree.map(jnp.array, params))
        written.add(path.read_bytes())
    assert len(written) == 1


def test_the_header_is_what_safetensors_would_write_in_another_order(exported):
    with safetensors.safe_open(exported, framework="numpy") as file:
        assert set(file.metadata()) == {"format", "architecture", "sha256"}
    assert int.from_bytes(exported.read_bytes()[:8], "little") % 8 == 0


def test_a_file_beside_it_and_a_link_in_its_place_are_not_touched(path):
    others = [path.with_name(path.name + ending) for ending in (".part", ".new", ".tmp")]
    for other in others:
        other.write_text("mine")
    checkpoint.export(path, network())
    assert {other.read_text() for other in others} == {"mine"}
    path.unlink()
    path.symlink_to(others[0])
    checkpoint.export(path, network())
    assert not path.is_symlink()  # the link is replaced, not what it leads to
    assert others[0].read_text() == "mine"


def test_a_fifo_is_not_replaced(path):
    os.mkfifo(path)
    path.with_name("link").symlink_to(path)
    for place in (path, path.with_name("link")):
        with pytest.raises(ValueError, match="expected a regular file, got a FIFO, a socket or a device"):
            checkpoint.export(place, network())
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert len(os.listdir(path.parent)) == 2


def test_a_planted_link_is_not_followed(path, monkeypatch):
    victim = path.with_name("thesis.txt")
    victim.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "guessed")
    path.with_name(".fnn-guessed.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        checkpoint.export(path, network())
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("permissions", [0o600, 0o640])
def test_a_replaced_file_keeps_its_permissions(permissions, exported):
    exported.chmod(permissions)
    checkpoint.export(exported, network())
    assert stat.S_IMODE(exported.stat().st_mode) == permissions


def test_a_new_file_has_the_permissions_that_the_umask_leaves(exported):
    exported.with_name("another").touch()
    assert exported.stat().st_mode == exported.with_name("another").stat().st_mode


def test_many_exports_to_one_path_all_succeed_and_a_reader_always_sees_a_whole_file(exported):
    networks = [network(fnn.Sigmoid(beta=float(beta))) for beta in range(1, 5)]
    found, errors, over = set(), [], threading.Event()

    def export(params):
        try:
            for _ in range(15):
                checkpoint.export(exported, params)
        except BaseException as error:
            errors.append(error)

    def read():
        try:
            while not over.is_set():
                found.add(checkpoint.load(exported)[0].activation.beta)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=export, args=(params,)) for params in networks]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    reader.join()
    assert errors == []
    assert found <= {1.0, 2.0, 2.5, 3.0, 4.0}
    assert list(exported.parent.iterdir()) == [exported]


def test_what_is_loaded_does_not_change_with_its_file(exported):
    """It is not mapped into memory, where a file that another program shortens is a SIGBUS."""
    loaded = checkpoint.load(exported)
    with open(exported, "r+b") as file:
        file.write(bytes(exported.stat().st_size))
    os.truncate(exported, 10)
    assert_same(loaded, network())


@pytest.mark.parametrize("path", ["", 3, None])
def test_what_is_no_path_is_refused(path):
    with pytest.raises((TypeError, ValueError), match=f"path: expected the path of a file, got {path!r}; write path="):
        checkpoint.export(path, network())


def test_layers_that_do_not_fit_together_are_not_written(exported):
    before = exported.read_bytes()
    with pytest.raises(ValueError, match=r"params\[1\].W: expected shape"):
        checkpoint.export(exported, (network()[0], network()[0]))
    assert exported.read_bytes() == before


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
