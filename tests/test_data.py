"""IDX files are read as far as their header says and no further; data sets are checked once, when they are made."""

import gzip
import hashlib
import struct
import tracemalloc
import warnings
from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from experiments import digits
from fnn.data import Dataset, load_idx, load_mnist

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
ONES = np.ones((3, 2), np.float32)
BYTES = np.arange(6, dtype=np.uint8).reshape(3, 2)
LABELS = np.array([2, 0, 1])


def idx(code: int, shape, body: bytes) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


SIX = idx(0x08, (2, 3), bytes(range(6)))


@pytest.fixture(params=["plain", "gzip"])
def packing(request):
    return gzip.compress if request.param == "gzip" else bytes


@pytest.fixture
def written(tmp_path):
    def write(content: bytes, name="six"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def peak_of(call) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="six"):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# -- load_idx --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "body", "value", "dtype"),
    [
        (0x08, "ff", 255, "uint8"),
        (0x09, "ff", -1, "int8"),
        (0x0B, "0102", 258, "int16"),
        (0x0C, "00010002", 65538, "int32"),
        (0x0D, "3fc00000", 1.5, "float32"),
        (0x0E, "3ff8000000000000", 1.5, "float64"),
    ],
)
def test_every_element_type_is_read_big_endian_into_the_machines_order(code, body, value, dtype, packing, written):
    array = load_idx(written(packing(idx(code, (2, 1), bytes.fromhex(body) * 2))))
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.tolist() == [[value], [value]]


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (3, 1, 2, 1)], ids=str)
def test_rows_come_first_in_every_rank(shape, packing, written):
    array = load_idx(written(packing(idx(0x08, shape, bytes(range(6))))), rank=len(shape))
    np.testing.assert_array_equal(array, np.arange(6, dtype=np.uint8).reshape(shape))


def test_the_array_is_the_callers_own_to_write(written):
    array = load_idx(written(SIX))
    array[0, 0] = 9
    assert load_idx(written(SIX))[0, 0] == 0


def test_a_path_may_be_a_string(written):
    assert load_idx(str(written(SIX))).shape == (2, 3)


def test_gzip_is_known_by_its_content_and_not_by_its_name(written):
    assert load_idx(written(gzip.compress(SIX), "six")).shape == (2, 3)
    assert load_idx(written(SIX, "six.gz")).shape == (2, 3)


@pytest.mark.parametrize("length", range(len(SIX)))
def test_a_file_cut_anywhere_is_named(length, packing, written):
    with pytest.raises(ValueError, match="six: (not an IDX file|truncated)"):
        load_idx(written(packing(SIX[:length])))


def test_a_cut_header_and_a_cut_body_are_told_apart(written):
    with pytest.raises(ValueError, match="truncated in the header, after 7 bytes"):
        load_idx(written(SIX[:7]))
    with pytest.raises(ValueError, match="promises 6 bytes, the file holds 5"):
        load_idx(written(SIX[:-1]))


def test_a_file_that_goes_on_is_refused(packing, written):
    with pytest.raises(ValueError, match="six: the file goes on after the 6 bytes"):
        load_idx(written(packing(SIX + b"\0")))


def test_a_second_gzip_member_is_refused(written):
    with pytest.raises(ValueError, match="goes on"):
        load_idx(written(gzip.compress(SIX) + gzip.compress(b"more")))


@pytest.mark.parametrize("start", ["89504e47", "00010802", "01000802", "00000a02", "00000002", "08020000"])
def test_another_kind_of_file_is_no_idx_file(start, packing, written):
    with pytest.raises(ValueError, match="six: not an IDX file: it begins with .*expected"):
        load_idx(written(packing(bytes.fromhex(start) + SIX[4:])))


def test_labels_given_for_images_are_refused_by_their_rank(packing, written):
    with pytest.raises(ValueError, match="six: expected 3 dimensions, the header says 1"):
        load_idx(written(packing(idx(0x08, (2,), b"\1\2"))), rank=3)


def test_a_gzip_bomb_is_not_unpacked(written):
    path = written(gzip.compress(SIX + bytes(2**26), compresslevel=1))
    assert peak_of(lambda: load_idx(path)) < 2**24


@pytest.mark.parametrize("shape", [(2**16, 2**15), (2**31, 1)], ids=str)
def test_a_promise_that_the_file_does_not_keep_costs_no_memory(shape, packing, written):
    path = written(packing(idx(0x08, shape, b"few")))
    assert peak_of(lambda: load_idx(path)) < 2**24


def test_a_promise_over_the_limit_is_refused(packing, written):
    path = written(packing(SIX))
    with pytest.raises(ValueError, match="six: the header promises 6 bytes, over the limit of 5; pass limit="):
        load_idx(path, limit=5)
    assert load_idx(path, limit=6).size == 6


def test_the_limit_is_4_gib_and_lengths_do_not_overflow(packing, written):
    with pytest.raises(ValueError, match="over the limit of 4,294,967,296"):
        load_idx(written(packing(idx(0x0E, (2**32 - 1,) * 4, b""))))


@pytest.mark.parametrize("length", range(2, len(gzip.compress(SIX))))
def test_a_gzip_cut_anywhere_is_named(length, written):
    with pytest.raises(ValueError, match="six: (damaged or )?truncated"):
        load_idx(written(gzip.compress(SIX)[:length]))


def test_one_flipped_bit_in_a_gzip_never_gives_another_array(written):
    packed = gzip.compress(SIX, mtime=0)
    for bit in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            array = load_idx(written(bytes(damaged)))
        except ValueError as error:
            assert "six" in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(array, np.arange(6).reshape(2, 3))


def test_the_digest_is_of_the_unpacked_bytes(packing, written):
    assert load_idx(written(packing(SIX)), sha256=hashlib.sha256(SIX).hexdigest()).size == 6


def test_a_wrong_digest_is_told_with_both(packing, written):
    ours, other = hashlib.sha256(SIX).hexdigest(), "0" * 64
    with pytest.raises(ValueError, match=f"six: SHA-256 of the unpacked bytes is {ours}, expected {other}"):
        load_idx(written(packing(SIX)), sha256=other)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        load_idx(tmp_path / "nothing-here")


# -- load_mnist ------------------------------------------------------------------------------------------------


IMAGES = idx(0x08, (2, 2, 2), bytes(range(8)))
DIGITS = idx(0x08, (2,), b"\0\x09")


@pytest.fixture
def folder(tmp_path, packing):
    ending = ".gz" if packing is gzip.compress else ""

    def write(**changed):
        for images, labels in (TRAIN, TEST):
            for name, content in ((images, IMAGES), (labels, DIGITS)):
                content = changed.get(name.partition("-")[0] + "_" + name.split("-")[1], content)
                if content is not None:
                    (tmp_path / (name + ending)).write_bytes(packing(content))
        return tmp_path

    return write


def test_the_four_files_become_rows_of_bytes_with_labels(folder):
    for data in load_mnist(folder()):
        assert data.x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert data.x.dtype == np.uint8
        assert data.y.tolist() == [0, 9]
        assert data.scale == 1 / 255


def test_training_and_test_set_are_not_exchanged(folder):
    train, test = load_mnist(folder(t10k_labels=idx(0x08, (2,), b"\7\7")))
    assert train.y.tolist() == [0, 9]
    assert test.y.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_labels": idx(0x08, (3,), b"\0\1\2")}, f"{TRAIN[0]} has 2 images, {TRAIN[1]} 3 labels"),
        ({"t10k_labels": idx(0x08, (2,), b"\0\x0a")}, f"{TEST[1]}: expected labels from 0 to 9, got 10 in row 1"),
        ({"train_images": DIGITS}, f"{TRAIN[0]}.*: expected 3 dimensions, the header says 1"),
        ({"t10k_labels": IMAGES}, f"{TEST[1]}.*: expected 1 dimensions, the header says 3"),
        ({"t10k_images": idx(0x0D, (2, 1, 1), bytes(8))}, f"{TEST[0]}: expected unsigned bytes, .* float32"),
        ({"train_labels": idx(0x0C, (2,), bytes(8))}, f"{TRAIN[1]}: expected unsigned bytes, .* int32"),
        ({"train_images": IMAGES[:-1]}, f"{TRAIN[0]}.*: truncated"),
        ({"train_images": idx(0x08, (0, 2, 2), b""), "train_labels": idx(0x08, (0,), b"")}, "train-.*at least one"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_file_that_does_not_belong_is_named(changed, message, folder):
    with pytest.raises(ValueError, match=message):
        load_mnist(folder(**changed))


@pytest.mark.parametrize("name", [*TRAIN, *TEST])
def test_a_file_that_is_missing_is_named_with_and_without_gz(name, folder):
    short = name.partition("-")[0] + "_" + name.split("-")[1]
    with pytest.raises(FileNotFoundError, match=f"found neither {name} nor {name}.gz"):
        load_mnist(folder(**{short: None}))


def test_the_plain_file_is_taken_where_both_are(tmp_path):
    for images, labels in (TRAIN, TEST):
        (tmp_path / images).write_bytes(IMAGES)
        (tmp_path / labels).write_bytes(DIGITS)
        (tmp_path / (images + ".gz")).write_bytes(b"\x1f\x8bnot read")
    assert len(load_mnist(tmp_path)[0]) == 2


def test_digests_go_by_the_name_without_gz(folder):
    path = folder()
    assert len(load_mnist(path, {TRAIN[0]: hashlib.sha256(IMAGES).hexdigest()})[0]) == 2
    with pytest.raises(ValueError, match=f"{TEST[1]}.*: SHA-256"):
        load_mnist(path, {TEST[1]: "0" * 64})


def test_the_real_digits_are_here_whole():
    train, test = digits.load()
    assert (train.x.shape, test.x.shape) == ((60_000, 784), (10_000, 784))
    assert (len(train.y), len(test.y)) == (60_000, 10_000)
    assert (train.y[0], test.y[0]) == (5, 7)
    assert (train.x.min(), train.x.max()) == (0, 255)
    assert np.bincount(train.y)[[0, 9]].tolist() == [5923, 5949]


# -- Dataset ---------------------------------------------------------------------------------------------------


def test_bytes_stay_bytes_and_floats_stay_floats():
    assert Dataset(BYTES, LABELS).x.dtype == np.uint8
    assert Dataset(ONES, LABELS).x.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_floating_dtype_is_taken_as_it_is(dtype):
    data = Dataset(np.asarray(jnp.ones((3, 2), dtype)), np.asarray(jnp.ones((3, 1), dtype)))
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
        f"{name}: float64 becomes float32, for x64 is off; write {name}.astype('float32')" for name in named
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
    good, spoiled = (np.asarray(jnp.asarray(array, dtype)) for array in (good, spoiled))
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
        (ONES, LABELS[:2], ValueError, "x, y: expected as many examples in both, at least one, got 3 and 2"),
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
    params = fnn.init(jax.random.key(0), (2, 3))
    arguments = {"loss": fnn.SquaredError(), "epochs": 2, "batch_size": 3, "key": jax.random.key(1), "progress": False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained, _ = fnn.train.fit(params, (ONES, np.ones((3, 3))), fnn.updates.sgd(0.1), **arguments)
    assert [str(warning.message).partition(":")[0] for warning in caught] == ["y"]
    assert trained[0].W.dtype == jnp.float32
