"""IDX files, those of MNIST among them, are read as far as their header says and no further."""

import gzip
import hashlib
import lzma
import os
import struct
import tracemalloc
from functools import partial

import numpy as np
import pytest

import fnn.data
from experiments import digits
from fnn.data import load_idx, load_mnist

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(code: int, shape, body: bytes) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


SIX = idx(0x08, (2, 3), bytes(range(6)))


@pytest.fixture(params=["plain", "gzip", "xz"])
def packing(request):
    return {"plain": bytes, "gzip": gzip.compress, "xz": lzma.compress}[request.param]


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


def test_a_file_cut_anywhere_is_named(packing, written):
    for length in range(len(SIX)):
        with pytest.raises(ValueError, match="six: (not an IDX file|truncated)"):
            load_idx(written(packing(SIX[:length])))


def test_a_cut_header_and_a_cut_body_are_told_apart(written):
    with pytest.raises(ValueError, match="truncated in the header, after 7 bytes"):
        load_idx(written(SIX[:7]))
    with pytest.raises(ValueError, match="declares 6 bytes, the file holds 5"):
        load_idx(written(SIX[:-1]))


def test_a_file_that_goes_on_is_refused(packing, written):
    with pytest.raises(ValueError, match="six: the file continues after the 6 bytes"):
        load_idx(written(packing(SIX + b"\0")))


def test_a_second_gzip_member_is_refused(written):
    with pytest.raises(ValueError, match="continues after"):
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
    with pytest.raises(ValueError, match="six: the header declares 6 bytes, over the limit of 5; pass limit="):
        load_idx(path, limit=5)
    assert load_idx(path, limit=6).size == 6


@pytest.mark.parametrize(
    "pack", [partial(gzip.compress, compresslevel=1), partial(lzma.compress, preset=0)], ids=["gzip", "xz"]
)
def test_a_packed_file_that_keeps_an_absurd_promise_is_refused_and_costs_no_memory(pack, written):
    size = 2**26 + 1
    path = written(pack(idx(0x08, (size,), bytes(size))))
    assert peak_of(lambda: load_idx(path)) < 2**24
    with pytest.raises(ValueError, match=rf"six: the header declares {size:,} bytes, over 100 times .* limit={size}"):
        load_idx(path)
    assert load_idx(path, limit=size).nbytes == size


def test_an_honest_file_costs_little_more_than_its_array(packing, written):
    content = idx(0x0C, (2**22,), bytes(range(256)) * 2**16)
    path, digest = written(packing(content)), hashlib.sha256(content).hexdigest()
    tracemalloc.start()
    try:
        array = load_idx(path, sha256=digest, limit=2**24)
        assert tracemalloc.get_traced_memory()[1] < 2 * array.nbytes + 2**22
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(array, np.frombuffer(content[8:], ">i4"))


def test_an_xz_file_that_asks_for_a_large_dictionary_is_refused(written):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    path = written(lzma.compress(SIX, filters=filters))
    assert peak_of(lambda: load_idx(path)) < 2**24
    assert load_idx(written(lzma.compress(SIX, preset=9))).size == 6


@pytest.mark.parametrize(
    "shape", [(1,) * 65, (1,) * 255, (2**32 - 1, 2**32 - 1, 0), (0, *(2**32 - 1,) * 4), (0,) * 65], ids=len
)
def test_dimensions_that_no_array_has_are_named_with_the_file(shape, packing, written):
    path = written(packing(idx(0x08, shape, b"" if 0 in shape else b"1")))
    with pytest.raises(ValueError, match="six: no array has the dimensions that the header declares"):
        load_idx(path)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "six")
    for path in (tmp_path / "six", "/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match="expected a regular file, got a FIFO, a socket or a device"):
            load_idx(path)
    with pytest.raises(IsADirectoryError, match="expected a file, got a directory"):
        load_idx(tmp_path)


def test_the_limit_is_4_gib_and_lengths_do_not_overflow(packing, written):
    with pytest.raises(ValueError, match="over the limit of 4,294,967,296"):
        load_idx(written(packing(idx(0x0E, (2**32 - 1,) * 4, b""))))


def test_a_gzip_cut_anywhere_is_named(written):
    for length in range(2, len(gzip.compress(SIX))):
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


def test_a_digest_in_capitals_is_the_same(written):
    assert load_idx(written(SIX), sha256=hashlib.sha256(SIX).hexdigest().upper()).size == 6


NO_DIGESTS = [(b"0" * 64, TypeError), (3, TypeError), ("", ValueError), ("0" * 63, ValueError), ("x" * 64, ValueError)]


@pytest.mark.parametrize(("digest", "error"), NO_DIGESTS, ids=str)
def test_what_is_no_digest_is_refused(digest, error, written):
    with pytest.raises(error, match="sha256: expected a SHA-256, 64 hexadecimal digits, got"):
        load_idx(written(SIX), sha256=digest)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        load_idx(tmp_path / "nothing-here")


# -- load_mnist ------------------------------------------------------------------------------------------------


IMAGES = idx(0x08, (2, 2, 2), bytes(range(8)))
DIGITS = idx(0x08, (2,), b"\0\x09")


@pytest.fixture
def folder(tmp_path, packing):
    ending = {bytes: "", gzip.compress: ".gz", lzma.compress: ".xz"}[packing]

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
        ({"train_labels": idx(0x0B, (2,), bytes(4))}, f"{TRAIN[1]}: expected unsigned bytes or int32, .* int16"),
        (
            {"t10k_labels": idx(0x0C, (2,), bytes(7) + b"\x0a")},
            f"{TEST[1]}: expected labels from 0 to 9, got 10 in row 1",
        ),
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


@pytest.mark.parametrize(
    "name",
    ["train-images.gz", f"{TRAIN[0]}.gz", f"{TRAIN[0]}.xz", "train-image-idx3-ubyte", TRAIN[0].upper(), "", 3, None],
)
def test_a_digest_of_no_file_is_refused_before_anything_is_read(name, folder, monkeypatch):
    path = folder()
    monkeypatch.setattr(fnn.data, "load_idx", pytest.fail)
    with pytest.raises(ValueError, match=f"sha256: expected the names of the four files.*{TEST[1]}, got {name}$"):
        load_mnist(path, {TEST[0]: "0" * 64, name: "0" * 64})


@pytest.mark.parametrize(("digest", "error"), [*NO_DIGESTS, (None, TypeError)], ids=str)
def test_what_is_no_digest_of_a_file_is_refused_before_anything_is_read(digest, error, folder, monkeypatch):
    path = folder()
    monkeypatch.setattr(fnn.data, "load_idx", pytest.fail)
    with pytest.raises(error, match=rf"sha256\['{TRAIN[0]}'\]: expected a SHA-256"):
        load_mnist(path, {TRAIN[0]: digest})
    with pytest.raises(TypeError, match="sha256: expected a dict, file name -> digest, got"):
        load_mnist(path, "0" * 64)


def test_the_limit_is_that_of_every_file(folder):
    path = folder()
    with pytest.raises(ValueError, match=f"{TRAIN[0]}.*: the header declares 8 bytes, over the limit of 7"):
        load_mnist(path, limit=7)
    assert len(load_mnist(path, limit=8)[0]) == 2


def kinds(dot):
    return f"images{dot}idx3-ubyte", f"labels{dot}idx1-ubyte"


def put(folder, *names, images=IMAGES, labels=DIGITS):
    for name in names:
        (folder / name).write_bytes(images if "images" in name else labels)
    return folder


@pytest.mark.parametrize("test", ["t10k", "test"])
@pytest.mark.parametrize("dot", "-.")
@pytest.mark.parametrize("name", ["", "kuzushiji"])
def test_other_public_names_of_the_same_files_are_known(name, dot, test, tmp_path):
    start = name and f"{name}-"
    put(tmp_path, *(f"{start}{of}-{kind}" for of in ("train", test) for kind in kinds(dot)))
    assert [data.y.tolist() for data in load_mnist(tmp_path, name=name)] == [[0, 9], [0, 9]]


@pytest.mark.parametrize(
    ("split", "least", "most"), [("letters", 1, 26), ("balanced", 0, 46), ("byclass", 0, 61), ("digits", 0, 9)]
)
def test_labels_of_emnist_stay_as_they_are_within_their_limits(split, least, most, tmp_path):
    name = f"emnist-{split}"
    names = [f"{name}-{of}-{kind}" for of in ("train", "test") for kind in kinds("-")]
    put(tmp_path, *names, labels=idx(0x08, (2,), bytes([least, most])))
    assert load_mnist(tmp_path, name=name)[1].y.tolist() == [least, most]
    put(tmp_path, names[1], labels=idx(0x08, (2,), bytes([least, most + 1])))
    with pytest.raises(
        ValueError, match=f"{names[1]}: expected labels from {least} to {most}, got {most + 1} in row 1"
    ):
        load_mnist(tmp_path, name=name)


def test_qmnists_labels_are_the_first_of_eight_columns_of_int32(tmp_path):
    rows = np.arange(16, dtype=">i4").reshape(2, 8)
    names = [f"qmnist-{of}-{kind}" for of in ("train", "test") for kind in ("images-idx3-ubyte", "labels-idx2-int")]
    put(tmp_path, *names, labels=idx(0x0C, (2, 8), rows.tobytes()))
    train, _ = load_mnist(tmp_path, name="qmnist")
    assert (train.y.tolist(), train.y.dtype) == ([0, 8], np.int32)


def test_the_name_of_what_is_there_is_told_where_it_is_not_given(tmp_path):
    put(tmp_path, *(f"emnist-letters-{of}-{kind}" for of in ("train", "test") for kind in kinds("-")))
    with pytest.raises(
        FileNotFoundError, match=r"found neither train-im.*; write load_mnist\(path, name='emnist-letters'"
    ):
        load_mnist(tmp_path)


def test_a_cut_xz_file_is_named(written):
    content = lzma.compress(idx(0x08, (1000,), np.random.default_rng(0).bytes(1000)))
    for length in (20, len(content) // 2, len(content) - 1):
        with pytest.raises(ValueError, match="six: (damaged or truncated xz file|not an IDX file)"):
            load_idx(written(content[:length]))


def test_the_real_digits_are_here_whole():
    train, test = digits.load()
    assert (train.x.shape, test.x.shape) == ((60_000, 784), (10_000, 784))
    assert (len(train.y), len(test.y)) == (60_000, 10_000)
    assert (train.y[0], test.y[0]) == (5, 7)
    assert (train.x.min(), train.x.max()) == (0, 255)
    assert np.bincount(train.y)[[0, 9]].tolist() == [5923, 5949]
