"""Data sets are checked once, when they are made."""

import warnings
from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.data import Dataset
from networks import drawn

ONES = np.ones((3, 2), np.float32)
BYTES = np.arange(6, dtype=np.uint8).reshape(3, 2)
LABELS = np.array([2, 0, 1])


def test_bytes_stay_bytes_and_floats_stay_floats():
    assert Dataset(BYTES, LABELS).x.dtype == np.uint8
    assert Dataset(ONES, LABELS).x.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_floating_dtype_is_taken_as_it_is(dtype):
    data = Dataset(np.ones((3, 2), jnp.dtype(dtype)), np.ones((3, 1), jnp.dtype(dtype)))
    assert data.x.dtype == data.y.dtype == jnp.dtype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "uint64"])
def test_labels_of_every_integer_dtype_become_int32(dtype):
    y = Dataset(ONES, LABELS.astype(dtype)).y
    assert y.dtype == np.int32
    assert y.tolist() == [2, 0, 1]


def test_jax_arrays_are_taken_too():
    data = Dataset(jnp.ones((3, 2)), jnp.array([2, 0, 1]))
    assert isinstance(data.x, np.ndarray)
    assert data.y.tolist() == [2, 0, 1]


@pytest.mark.parametrize(("x", "scale"), [(BYTES, 1 / 255), (ONES, 1.0)], ids=["bytes", "floats"])
def test_the_scale_is_one_255th_for_bytes_and_one_for_floats(x, scale):
    assert Dataset(x, LABELS).scale == scale
    assert Dataset(x, LABELS, 0.5).scale == 0.5


def test_floats_are_scaled_in_the_dtype_asked_for():
    floats = Dataset(BYTES, LABELS, 0.5).floats()
    assert floats.dtype == np.float32
    assert floats.tolist() == [[0, 0.5], [1, 1.5], [2, 2.5]]
    assert Dataset(BYTES, LABELS).floats(np.float64).max() == 5 / 255


def test_a_slice_keeps_rows_together_and_the_scale():
    data = Dataset(BYTES, LABELS, 0.25)[1:]
    assert (data.x.tolist(), data.y.tolist(), data.scale) == ([[2, 3], [4, 5]], [0, 1], 0.25)
    assert len(data) == 2
    assert len(Dataset(BYTES, LABELS)[::2]) == 2


@pytest.mark.parametrize("rows", [0, [0, 1], np.array([True, False, True]), None], ids=str)
def test_only_a_slice_selects_rows(rows):
    with pytest.raises(TypeError, match=r"rows: expected a slice, got .*; write data\[0:1\]"):
        Dataset(BYTES, LABELS)[rows]


def test_an_empty_slice_is_refused():
    with pytest.raises(ValueError, match="x, y: .*at least one, got 0 and 0"):
        Dataset(BYTES, LABELS)[3:]


def test_a_dataset_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Dataset(BYTES, LABELS).scale = 2.0


@pytest.mark.parametrize(
    ("x", "y", "named"),
    [
        (ONES.astype(np.float64), LABELS, ["x"]),
        (BYTES, ONES.astype(np.float64), ["y"]),
        (ONES.astype(np.float64), ONES.astype(np.float64), ["x", "y"]),
    ],
    ids=["x", "y", "both"],
)
def test_float64_becomes_float32_with_one_warning_per_array(x, y, named):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = Dataset(x, y)
    assert [str(warning.message) for warning in caught] == [
        f"{name}: float64 becomes float32, because x64 is off; write {name}.astype('float32')" for name in named
    ]
    assert {warning.filename for warning in caught} == {__file__}
    assert all(getattr(data, name).dtype == np.float32 for name in named)
    assert len(data[:2]) == 2  # without another warning


def test_float64_stays_float64_with_x64(x64):
    data = Dataset(ONES.astype(np.float64), ONES.astype(np.float64))
    assert data.x.dtype == data.y.dtype == np.float64


def test_the_callers_float64_array_stays_as_it_is():
    x = ONES.astype(np.float64)
    with pytest.warns(UserWarning, match="x: float64 becomes float32"):
        Dataset(x, LABELS)
    assert x.dtype == np.float64


def test_a_float64_number_too_large_for_float32_is_refused_with_no_second_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="x: expected finite numbers"):
            Dataset(np.array([[1e300]]), np.array([0]))
    assert [warning.category for warning in caught] == [UserWarning]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_row_that_is_not_finite_is_named(bad, dtype):
    good, spoiled = np.ones((5, 2), np.float32), np.ones((5, 2), np.float32)
    spoiled[2, 1] = spoiled[4, 0] = bad
    good, spoiled = (array.astype(jnp.dtype(dtype)) for array in (good, spoiled))
    with pytest.raises(ValueError, match=r"^x: expected finite numbers, got .* in row 2 \(2 such rows\)"):
        Dataset(spoiled, good)
    with pytest.raises(ValueError, match=r"^y: expected finite numbers, got .* in row 2 \(2 such rows\)"):
        Dataset(good, spoiled)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (ONES, np.array([0, -1, -3]), ValueError, r"y: expected labels >= 0, got -1 in row 1 \(2 such rows\)"),
        (ONES, np.array([0, 1, 2**31]), ValueError, r"y: expected labels below 2\*\*31, got 2147483648 in row 2"),
        (ONES[:0], LABELS[:0], ValueError, "x, y: .*at least one, got 0 and 0"),
        (ONES, LABELS[:2], ValueError, "x, y: expected equally many examples in both, at least one, got 3 and 2"),
        (ONES[0], LABELS, ValueError, r"x: expected shape \(N, n\), got \(2,\); write x.reshape"),
        (np.ones((3, 2, 2), np.float32), LABELS, ValueError, r"x: expected shape \(N, n\), got \(3, 2, 2\)"),
        (np.array(1, np.float32), LABELS, ValueError, r"x: expected shape \(N, n\), got \(\)"),
        (BYTES.astype(np.int64), LABELS, TypeError, r"x: expected uint8 or floating, got int64 of shape \(3, 2\)"),
        (BYTES > 2, LABELS, TypeError, "x: expected uint8 or floating, got bool"),
        (ONES.astype(np.complex64), LABELS, TypeError, "x: expected uint8 or floating, got complex64"),
        (ONES.astype(object), LABELS, TypeError, "x: expected uint8 or floating, got object"),
        (BYTES.tolist(), LABELS, TypeError, r"x: expected an array, got list .*write np.asarray\(x\)"),
        (BYTES, LABELS.tolist(), TypeError, r"y: expected an array, got list .*write np.asarray\(y\)"),
        (BYTES, None, TypeError, "y: expected an array, got NoneType None"),
        (ONES, LABELS[:, None], ValueError, r"y: expected labels of shape \(N,\), got \(3, 1\)"),
        (ONES, ONES[:, 0], ValueError, r"y: expected targets of shape \(N, m\), got \(3,\)"),
        (ONES, LABELS > 0, TypeError, "y: expected integer labels or floating targets, got bool"),
        (ONES, np.array(["a", "b", "c"]), TypeError, "y: expected integer labels or floating targets, got <U1"),
        (ONES, np.asarray(3), ValueError, r"y: expected .*\(\)"),
    ],
)
def test_what_is_not_a_data_set_is_refused_by_name(x, y, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Dataset(x, y)


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf])
def test_a_scale_is_a_finite_number_above_zero(scale):
    with pytest.raises(ValueError, match="scale: expected a finite number > 0, got"):
        Dataset(BYTES, LABELS, scale)


@pytest.mark.parametrize("scale", ["1/255", "0.5", np.ones(2), [1.0]], ids=str)
def test_a_scale_is_one_number(scale):
    with pytest.raises(TypeError, match="scale: expected a number.*, got"):
        Dataset(BYTES, LABELS, scale)


def test_labels_and_one_hot_rows_have_classes():
    one_hot = np.eye(3, dtype=np.float32)[LABELS]
    for y in (LABELS, one_hot, np.asarray(jnp.asarray(one_hot, jnp.bfloat16))):
        classes = Dataset(ONES, y).classes()
        assert classes.dtype == np.int32
        assert classes.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "row",
    [[0.5, 0.5], [0.0, 0.0], [1.0, 1.0], [2.0, -1.0], [1.0], [0.0]],
    ids=str,
)
def test_other_targets_have_none(row):
    y = np.zeros((3, len(row)), np.float32)
    y[:, 0] = 1
    y[1] = row
    assert Dataset(ONES, y).classes() is None


def test_a_data_set_says_what_it_holds():
    assert repr(Dataset(BYTES, LABELS)) == ("Dataset(x=uint8 of shape (3, 2), y=int32 of shape (3,), scale=0.00392157)")


def test_fit_warns_once_of_a_float64_array_and_then_trains():
    arguments = {"loss": fnn.SquaredError(), "epochs": 2, "batch_size": 3, "key": jax.random.key(1), "progress": False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained = fnn.train.fit(drawn((2, 3)), (ONES, np.ones((3, 3))), fnn.updates.sgd(0.1), **arguments).params
    assert [str(warning.message).partition(":")[0] for warning in caught] == ["y"]
    assert trained[0].W.dtype == jnp.float32
