"""Outputs for arrays, files, tables and functions, without labels; and the one rule for what NumPy makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import PARAMS, X, assert_refusal, fit
from fnn.data import Batches, Dataset
from fnn.train import evaluation, predict

FLOATS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
BYTES = np.random.default_rng(0).integers(0, 256, (5, 3)).astype(np.uint8)
WARNING = "x: float64 becomes float32, because x64 is off"


class Table:
    """What is used of a table of pandas."""

    def __init__(self, values):
        self.values = values

    def to_numpy(self):
        return self.values


def right(x):
    return fnn.forward(PARAMS, jnp.asarray(x))


def mapped(folder, array):
    np.save(folder / "x.npy", array)
    return np.load(folder / "x.npy", mmap_mode="r")


@pytest.mark.parametrize(
    "of",
    [
        lambda x: x,
        jnp.asarray,
        Table,
        lambda x: lambda: (x[i : i + 2] for i in range(0, 5, 2)),
        lambda x: Dataset(x, np.zeros(5, np.int32)),
        lambda x: x.astype(">f4"),
    ],
    ids=["NumPy", "JAX", "a table", "a function", "a dataset", "big-endian"],
)
def test_predict_takes_whatever_has_rows(of):
    np.testing.assert_allclose(predict(PARAMS, of(FLOATS)), right(FLOATS), rtol=1e-5, atol=1e-6)


def test_bytes_are_scaled_as_fit_scales_them():
    expected = right(BYTES.astype(np.float32) * np.float32(1 / 255))
    np.testing.assert_allclose(predict(PARAMS, BYTES), expected, rtol=1e-5, atol=1e-6)


def test_a_file_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK_BYTES", 2 * 12)
    rows = []
    outputs = evaluation._outputs

    def counted(params, x, tables, *, scale):
        rows.append(len(x))
        return outputs(params, x, tables, scale=scale)

    monkeypatch.setattr(evaluation, "_outputs", counted)
    np.testing.assert_allclose(predict(PARAMS, mapped(tmp_path, FLOATS)), right(FLOATS), rtol=1e-5, atol=1e-6)
    assert rows == [2, 2, 1]


@pytest.mark.parametrize("function", [fnn.forward, predict], ids=["forward", "predict"])
@pytest.mark.parametrize("of", [np.asarray, Table], ids=["NumPy", "a table"])
def test_float64_is_taken_as_fit_takes_it(function, of):
    with pytest.warns(UserWarning, match=WARNING) as told:
        outputs = function(PARAMS, of(FLOATS.astype(np.float64)))
    assert len(told) == 1
    np.testing.assert_allclose(outputs, right(FLOATS), rtol=1e-5, atol=1e-6)


def test_the_warning_of_forward_points_at_its_caller():
    with pytest.warns(UserWarning, match=WARNING) as told:
        fnn.forward(PARAMS, FLOATS.astype(np.float64))
    assert told[0].filename == __file__


def test_with_x64_float64_is_as_it_is_and_float32_parameters_refuse_it(x64):
    assert_refusal(lambda: fnn.forward(PARAMS, FLOATS.astype(np.float64)), "TypeError: x: expected float32")
    assert_refusal(lambda: predict(PARAMS, FLOATS.astype(np.float64)), "TypeError: x: expected x in float32")


def test_fit_takes_tables():
    y = np.zeros((5, 2), np.float32)
    one, other = fit(data=(Table(FLOATS), Table(y))), fit(data=(FLOATS, y))
    assert all(map(np.array_equal, jax.tree.leaves(one.params), jax.tree.leaves(other.params)))


def test_a_loader_is_a_source_of_data_and_the_error_says_how():
    loader = [(X[:2], np.zeros((2, 2), np.float32))] * 2
    assert_refusal(
        lambda: Batches(loader),
        "TypeError: make: …write Batches(lambda epoch: ((np.asarray(x), np.asarray(y)) for x, y in loader))",
    )
    fit(data=Batches(lambda epoch: ((np.asarray(x), np.asarray(y)) for x, y in loader)))
