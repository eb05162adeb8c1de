"""Data that are not in memory train as those that are: memory-mapped files, and mini-batches from a function."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import traceback
from pathlib import Path

import jax
import numpy as np
import pytest

import fnn
from errors import assert_refused, table
from fnn import streams
from fnn.data import Batches, Dataset
from fnn.train import evaluate, feed, fit, predict
from fnn.train.loop import shuffle

LOSS = fnn.SoftmaxCrossEntropy()
KEY = 5
EXAMPLES, BATCH = 103, 6  # 17 steps, one example left out
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, EXAMPLES)
BYTES = np.clip(RANDOM.normal(60 + 50 * LABELS[:, None], 20, (EXAMPLES, 5)), 0, 255).astype(np.uint8)
FLOATS = (BYTES / 255).astype(np.float32)
TARGETS = np.eye(3, dtype=np.float32)[LABELS]
PARAMS = fnn.init(jax.random.key(0), (5, 8, 3), activation=fnn.Tanh())
NORMED = fnn.init(jax.random.key(0), (5, 8, 3), activation=fnn.Tanh(), batch_norm="full")
SGD = fnn.updates.momentum(0.1)


def train(data, params=PARAMS, **options):
    options = {"loss": LOSS, "epochs": 2, "batch_size": BATCH, "key": jax.random.key(KEY), "progress": False} | options
    return fit(params, data, SGD, **options)


def without_clock(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


def assert_same(result, expected):
    """Bitwise equal parameters and histories."""
    assert without_clock(result[1]) == without_clock(expected[1])
    assert all(map(np.array_equal, jax.tree.leaves(result[0]), jax.tree.leaves(expected[0])))


def mapped(folder, array, name="x"):
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def shuffled(epoch, x=BYTES, y=LABELS, batch=BATCH):
    """The mini-batches that ``fit`` takes of arrays, in one array that is used again and again."""
    place = np.empty((batch, *x.shape[1:]), x.dtype)
    for rows in shuffle(jax.random.key(KEY), epoch, len(x), batch):
        place[:] = x[rows]
        yield place, y[rows]


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("fnn-feed")}


# -- the same results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "params", "options"),
    [
        (BYTES, LABELS, PARAMS, {}),
        (FLOATS, TARGETS, PARAMS, {}),
        (BYTES, LABELS, NORMED, {"dropout": fnn.Dropout(0.7)}),
    ],
    ids=["bytes and labels", "floats and targets", "batch norm and dropout"],
)
@pytest.mark.parametrize("steps", [1, 5, 7, 100])
def test_a_file_trains_as_an_array_does_to_the_last_bit(x, y, params, options, steps, tmp_path):
    options = {"params": params, "validation": (x, y)} | options
    expected = train((x, y), **options)
    chunk_bytes = steps * BATCH * (x[0].nbytes + y[:1].astype("i4" if y.ndim == 1 else "f4").nbytes) + 1
    data = Dataset(mapped(tmp_path, x), mapped(tmp_path, y, "y"), chunk_bytes=chunk_bytes)
    assert_same(train(data, **options), expected)


def test_arrays_in_memory_are_streamed_if_asked_for_and_pairs_of_mapped_ones_are_taken_too(tmp_path):
    expected = train((BYTES, LABELS))
    assert_same(train(Dataset(BYTES, LABELS, chunk_bytes=1)), expected)
    assert_same(train((mapped(tmp_path, BYTES), LABELS)), expected)


def test_float64_is_streamed_with_x64(tmp_path, x64):
    x, params = FLOATS.astype(np.float64), jax.tree.map(lambda leaf: leaf.astype("float64"), PARAMS)
    expected = train((x, LABELS), params)
    assert_same(train(Dataset(mapped(tmp_path, x), LABELS, chunk_bytes=999), params), expected)
    batches = Batches(lambda epoch: shuffled(epoch, x), chunk_bytes=999)
    assert_same(train(batches, params), expected)


@pytest.mark.parametrize("chunk_bytes", [1, 500, 1 << 24])
def test_mini_batches_from_a_function_train_as_those_that_fit_makes(chunk_bytes):
    asked = []

    def make(epoch):
        asked.append(epoch)
        return shuffled(epoch)

    assert_same(train(Batches(make, chunk_bytes=chunk_bytes)), train((BYTES, LABELS)))
    assert asked == [1, 2]


def test_a_batch_norms_statistics_are_of_the_first_epochs_mini_batches():
    validation = (BYTES, LABELS)
    result, history = train(Batches(shuffled, chunk_bytes=300), NORMED, validation=validation)
    x = np.stack([x.copy() for x, _ in shuffled(1)])
    plain = fnn.fold(result, fnn.statistics(result, x.astype(np.float32) * np.float32(1 / 255)))
    expected = evaluate(plain, validation, loss=LOSS)
    assert history[-1]["validation_accuracy"] == expected["accuracy"]
    np.testing.assert_allclose(history[-1]["validation_loss"], expected["loss"], rtol=1e-5)


def test_a_shorter_last_mini_batch_is_left_out():
    def make(epoch):
        yield from shuffled(epoch)
        yield BYTES[:2], LABELS[:2]

    assert_same(train(Batches(make)), train((BYTES, LABELS)))


def test_files_are_evaluated_in_blocks(tmp_path):
    rows = np.arange(5000) % EXAMPLES
    for x, y in ((BYTES[rows], LABELS[rows]), (FLOATS[rows], TARGETS[rows])):
        data = Dataset(mapped(tmp_path, x), mapped(tmp_path, y, "y"), chunk_bytes=1)
        expected, ours = (evaluate(PARAMS, each, loss=LOSS) for each in (Dataset(x, y), data))
        assert ours["accuracy"] == expected["accuracy"]
        np.testing.assert_allclose(ours["loss"], expected["loss"], rtol=1e-6)
        np.testing.assert_allclose(predict(PARAMS, data), predict(PARAMS, Dataset(x, y)), rtol=1e-5, atol=1e-6)
    _, history = train((BYTES, LABELS), epochs=1, validation=data)
    assert history[0]["validation_accuracy"] > 0.5


# -- what is streamed, and how -------------------------------------------------------------------------------


def test_what_lies_in_a_file_is_streamed_and_slices_of_it_and_nothing_else(tmp_path):
    x = mapped(tmp_path, BYTES)
    data = Dataset(x, LABELS)
    for each in (data, data[3:], data[3:][::2], Dataset(np.asarray(x)[2:], LABELS[2:])):
        assert streams.memory_mapped(each.x)
        assert each.chunk_bytes == streams.CHUNK_BYTES
    for copied in (np.array(x), x.astype(np.float32), x[[1, 2]]):
        assert Dataset(copied, LABELS[: len(copied)]).chunk_bytes is None
    y = mapped(tmp_path, TARGETS, "y")
    assert Dataset(BYTES, y)[1:].chunk_bytes == streams.CHUNK_BYTES
    assert Dataset(x, LABELS, chunk_bytes=7)[1:].chunk_bytes == 7


def test_the_values_of_a_file_are_checked_in_blocks_and_the_row_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 40)
    x = FLOATS.copy()
    x[50, 2] = x[77, 1] = np.nan
    with pytest.raises(ValueError, match=r"^x: expected finite numbers, got .*nan.* in row 50 \(2 such rows\)"):
        Dataset(mapped(tmp_path, x), LABELS)


def test_a_file_of_float64_is_refused_for_it_would_have_to_be_copied(tmp_path):
    with pytest.raises(TypeError, match=r"^x: expected float32, for x64 is off, got a memory map of float64"):
        Dataset(mapped(tmp_path, FLOATS.astype(np.float64)), LABELS)


@pytest.mark.parametrize(
    ("steps", "most", "length"), [(12, 100, 12), (12, 5, 4), (17, 5, 5), (17, 7, 6), (7, 6, 4), (9, 1, 1), (9, 0, 1)]
)
def test_chunks_are_equal_where_the_steps_divide_and_as_equal_as_can_be_elsewhere(steps, most, length):
    assert feed.chunk_length(steps, most) == length


def test_a_file_is_read_by_chunks_and_at_most_two_ahead(tmp_path, monkeypatch):
    taken = []
    gathered = feed.gathered
    monkeypatch.setattr(feed, "gathered", lambda array, rows: taken.append(rows.shape) or gathered(array, rows))
    streamed = feed.Streamed(Dataset(mapped(tmp_path, BYTES), LABELS), BATCH, 3 * BATCH * 9)
    chunks = streamed.chunks(jax.random.key(0), 1)
    next(chunks)
    streamed.close()  # after what is under way
    assert 1 <= len(taken) // 2 <= 1 + 2
    assert taken[0] == (3, BATCH)


# -- what goes wrong -------------------------------------------------------------------------------------------


def spoiled(x=BYTES, y=LABELS, at=4, epoch=2):
    """Batches of which one, in one epoch, is passed through a function before."""

    def make(change):
        def batches(now):
            for number, (xs, ys) in enumerate(shuffled(now, x, y)):
                yield change(xs.copy(), ys.copy()) if (number, now) == (at, epoch) else (xs, ys)

        return Batches(batches, chunk_bytes=400)

    return make


def with_(array, row, value):
    array[row] = value
    return array


@table(
    {
        "a NaN": (spoiled(FLOATS)(lambda x, y: (with_(x, 3, np.nan), y)), ValueError, "x: expected finite .* in row 3"),
        "a negative label": (
            spoiled()(lambda x, y: (x, with_(y, 2, -1))),
            ValueError,
            "y: expected labels >= 0.*row 2",
        ),
        "a label too large": (spoiled()(lambda x, y: (x, with_(y, 1, 3))), ValueError, "labels below 3.* in row 1"),
        "other inputs": (spoiled()(lambda x, y: (x[:, :4], y)), ValueError, r"expected shapes .*\(6, 5\).* as before"),
        "another dtype": (
            spoiled()(lambda x, y: (x / np.float32(255), y)),
            TypeError,
            "uint8, int64 as before, got float32",
        ),
        "too few": (spoiled()(lambda x, y: (x[1:], y[1:])), ValueError, "expected 6 examples, .* got 5; only the last"),
        "too many": (
            spoiled()(lambda x, y: (np.repeat(x, 2, 0), np.repeat(y, 2))),
            ValueError,
            "expected 6 examples, the batch_size, got 12; write batch_size=12",
        ),
        "unequal lengths": (spoiled()(lambda x, y: (x, y[1:])), ValueError, "as many examples in both, got 6 and 5"),
        "x alone": (spoiled()(lambda x, y: x), TypeError, r"expected a pair \(x, y\), got uint8", "write Batches"),
        "lists": (spoiled()(lambda x, y: (x.tolist(), y)), TypeError, "x: expected an array, got list"),
    }
)
def test_a_wrong_mini_batch_is_refused_with_its_epoch_its_number_and_the_row(given, error, fragments):
    assert_refused(lambda: train(given), error, ["^data: batch 4 of epoch 2: ", *fragments])
    assert not threads()


@table(
    {
        "float64 without x64": (
            {"data": Batches(lambda epoch: shuffled(epoch, FLOATS.astype(np.float64)))},
            TypeError,
            r"^data: batch 0 of epoch 1: x: expected float32, .* got float64; yield x.astype\('float32'\)",
        ),
        "images not in rows": (
            {"data": Batches(lambda epoch: shuffled(epoch, BYTES[:, None]))},
            ValueError,
            r"^data: batch 0 of epoch 1: x: expected shape \(N, n\), got \(6, 1, 5\)",
        ),
        "too many inputs": (
            {"data": Batches(lambda epoch: shuffled(epoch, np.tile(BYTES, 2)))},
            ValueError,
            "^data: batch 0 of epoch 1: the network takes 5 inputs",
        ),
        "labels with a squared error": (
            {"data": Batches(shuffled), "loss": fnn.SquaredError()},
            TypeError,
            "^data: batch 0 of epoch 1: y: SquaredError",
        ),
        "one iterator for all epochs": (
            {"data": Batches(lambda epoch, batches=shuffled(1): batches)},
            ValueError,
            "^data: expected at least one mini-batch of 6 examples in epoch 2, got none; make.epoch. must begin anew",
        ),
        "no iterable": ({"data": Batches(lambda epoch: 5)}, TypeError, r"^data: expected make\(1\) to be an iterable"),
        "no batch_size": (
            {"data": Batches(shuffled), "batch_size": None},
            TypeError,
            "^batch_size: expected an integer",
        ),
        "as validation": (
            {"data": (BYTES, LABELS), "validation": Batches(shuffled)},
            TypeError,
            "^validation: expected a fnn.data.Dataset or a pair",
        ),
    }
)
def test_fit_refuses_what_it_cannot_stream(given, error, fragments):
    assert_refused(lambda: train(**given), error, fragments)
    assert not threads()


@table(
    {
        "a list": ({"make": [(BYTES, LABELS)]}, TypeError, "^make: expected a function", "write Batches.lambda epoch"),
        "a scale of 0": ({"make": shuffled, "scale": 0}, ValueError, "^scale: expected a finite number > 0"),
        "no bytes": ({"make": shuffled, "chunk_bytes": 0}, ValueError, "^chunk_bytes: expected at least 1, got 0"),
    }
)
def test_batches_refuse(given, error, fragments):
    assert_refused(lambda: Batches(**given), error, fragments)


def test_an_error_of_the_function_comes_with_the_line_that_raised_it():
    def make(epoch):
        yield from shuffled(epoch)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone") as caught:
        train(Batches(make, chunk_bytes=1))
    assert 'raise OSError("the disk is gone")' in "".join(traceback.format_exception(caught.value))
    assert not threads()


def test_the_thread_ends_with_fit_when_the_callback_stops_or_raises():
    def fails(state):
        assert threads()
        raise KeyboardInterrupt

    data = Dataset(BYTES, LABELS, chunk_bytes=1)
    with pytest.raises(KeyboardInterrupt):
        train(data, callback=fails)
    assert not threads()
    train(data, callback=lambda state: True)
    train(Batches(lambda epoch: shuffled(epoch), chunk_bytes=1))
    gc.collect()
    assert not threads()


PROGRAM = """
    import re, resource, sys
    from pathlib import Path
    import jax, numpy as np
    import fnn
    from fnn.data import Dataset

    n = 64
    def train(rows):
        x = np.memmap(sys.argv[1], {dtype!r}, "r", shape=(rows, n))
        data = Dataset(x, np.zeros((rows, 1), np.float32))
        return fnn.train.fit(params, data, fnn.updates.sgd(0.1), loss=fnn.SquaredError(), epochs=1, batch_size=4096,
            key=jax.random.key(0), progress=False, validation=data)

    params = fnn.init(jax.random.key(1), (n, 4, 1))
    train(1 << 19)
    used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (used + (300 << 20),) * 2)  # private memory, of which a map's is none
    if sys.argv[2] == "copied":
        np.array(np.memmap(sys.argv[1], np.uint8, "r"))
    params, history = train({rows})
    print("trained", history[0]["loss"] >= 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to limit private memory")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_file_of_a_gigabyte_trains_within_300_megabytes(dtype, tmp_path):
    size = 1 << 30
    file = tmp_path / "x"
    with open(file, "wb") as empty:
        empty.truncate(size)  # sparse: it takes no place on the disk
    program = textwrap.dedent(PROGRAM).format(dtype=dtype, rows=size // 64 // np.dtype(dtype).itemsize)

    def run(how):
        return subprocess.run(
            [sys.executable, "-c", program, str(file), how], capture_output=True, text=True, timeout=300,
            cwd=Path(__file__).parent.parent, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip

    ran = run("mapped")
    assert ran.stdout == "trained True\n", ran.stderr
    copied = run("copied")  # so the limit is one
    assert "MemoryError" in copied.stderr
