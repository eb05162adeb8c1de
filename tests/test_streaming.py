"""Data that are not in memory train as those that are: memory-mapped files, and mini-batches from a function."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

import fnn
from fnn import blocks, streams
from fnn.checks.arrays import memory_mapped
from fnn.data import Batches, Dataset
from fnn.train import evaluate, feed, predict
from networks import drawn
from problems import and_slow
from streaming_cases import (
    AT_ONCE,
    BATCH,
    BYTES,
    EVERY_5_STEPS,
    EXAMPLES,
    FLOATS,
    LABELS,
    LOSS,
    NORMED,
    PARAMS,
    TARGETS,
    shuffled,
    train,
)


def without_clock(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


def assert_same(result, expected):
    """Bitwise equal parameters and histories."""
    assert without_clock(result.history) == without_clock(expected.history)
    assert all(map(np.array_equal, jax.tree.leaves(result.params), jax.tree.leaves(expected.params)))


def mapped(folder, array, name="x"):
    np.save(folder / f"{name}.npy", array)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


# -- the same results ------------------------------------------------------------------------------------------


KINDS = {
    "bytes": (BYTES, LABELS, {}),
    "floats": (FLOATS, TARGETS, {}),
    "dropout": (BYTES, LABELS, {"dropout": fnn.Dropout(0.7)}),  # its masks go by the number of the step in the epoch
    "batch norm": (BYTES, LABELS, {"params": NORMED, "validation": (BYTES, LABELS)}),
}
CASES = [("bytes", 1), ("dropout", 5), ("batch norm", 5), ("floats", 100)]  # steps of a chunk; of 5, the last has 2
MORE = [("bytes", 7), ("bytes", 100), ("dropout", 1), ("batch norm", 100), ("floats", 7)]  # 7: as 6, 6 and 5


@pytest.mark.parametrize("case", and_slow(CASES, MORE), ids=str)
def test_a_file_trains_as_an_array_does_to_the_last_bit(case, tmp_path):
    kind, steps = case
    x, y, options = KINDS[kind]
    chunk_bytes = steps * BATCH * (x[0].nbytes + y[:1].astype("i4" if y.ndim == 1 else "f4").nbytes) + 1
    data = Dataset(mapped(tmp_path, x), mapped(tmp_path, y, "y"), chunk_bytes=chunk_bytes)
    assert_same(train(data, **options), train((x, y), **options))


def test_arrays_in_memory_are_streamed_if_asked_for_and_pairs_of_mapped_ones_are_taken_too(tmp_path):
    expected = train((BYTES, LABELS))
    assert_same(train(Dataset(BYTES, LABELS, chunk_bytes=1)), expected)
    assert_same(train((mapped(tmp_path, BYTES), LABELS)), expected)


def test_float64_is_streamed_with_x64(tmp_path, x64):
    x, params = FLOATS.astype(np.float64), drawn(dtype="float64")
    expected = train((x, LABELS), params)
    assert_same(train(Dataset(mapped(tmp_path, x), LABELS, chunk_bytes=AT_ONCE), params), expected)
    batches = Batches(lambda epoch: shuffled(epoch, x), chunk_bytes=AT_ONCE)
    assert_same(train(batches, params), expected)


@pytest.mark.parametrize("chunk_bytes", [1, EVERY_5_STEPS, AT_ONCE])
def test_mini_batches_from_a_function_train_as_those_that_fit_makes(chunk_bytes):
    asked = []

    def make(epoch):
        asked.append(epoch)
        return shuffled(epoch)

    assert_same(train(Batches(make, chunk_bytes=chunk_bytes)), train((BYTES, LABELS)))
    assert asked == [1, 2]


def test_a_batch_norms_statistics_are_of_the_first_epochs_mini_batches():
    validation = (BYTES, LABELS)
    run = train(Batches(shuffled, chunk_bytes=EVERY_5_STEPS), NORMED, validation=validation)
    x = np.stack([x.copy() for x, _ in shuffled(1)])
    plain = fnn.fold(run.params, statistics=fnn.statistics(run.params, x.astype(np.float32) * np.float32(1 / 255)))
    expected = evaluate(plain, validation, loss=LOSS)
    assert run.history[-1]["validation_accuracy"] == expected["accuracy"]
    np.testing.assert_allclose(run.history[-1]["validation_loss"], expected["loss"], rtol=1e-5)


def test_a_shorter_last_mini_batch_is_left_out():
    def make(epoch):
        yield from shuffled(epoch)
        yield BYTES[:2], LABELS[:2]

    assert_same(train(Batches(make)), train((BYTES, LABELS)))


@pytest.mark.parametrize("kind", ["bytes", pytest.param("floats", marks=pytest.mark.slow)])
def test_files_are_evaluated_in_blocks(kind, tmp_path):
    rows = np.arange(5000) % EXAMPLES
    x, y = (array[rows] for array in KINDS[kind][:2])
    data = Dataset(mapped(tmp_path, x), mapped(tmp_path, y, "y"), chunk_bytes=1)
    expected, ours = (evaluate(PARAMS, each, loss=LOSS) for each in (Dataset(x, y), data))
    assert ours["accuracy"] == expected["accuracy"]
    np.testing.assert_allclose(ours["loss"], expected["loss"], rtol=1e-6)
    np.testing.assert_allclose(predict(PARAMS, data), predict(PARAMS, Dataset(x, y)), rtol=1e-5, atol=1e-6)
    run = train((BYTES, LABELS), validation=data)
    expected = evaluate(run, data, loss=LOSS)["loss"]
    np.testing.assert_allclose(run.history[-1]["validation_loss"], expected, rtol=1e-6)


# -- what is streamed, and how -------------------------------------------------------------------------------


def test_what_lies_in_a_file_is_streamed_and_slices_of_it_and_nothing_else(tmp_path):
    x = mapped(tmp_path, BYTES)
    data = Dataset(x, LABELS)
    for each in (data, data[3:], data[3:][::2], Dataset(np.asarray(x)[2:], LABELS[2:])):
        assert memory_mapped(each.x)
        assert each.chunk_bytes == streams.CHUNK_BYTES
    for copied in (np.array(x), x.astype(np.float32), x[[1, 2]]):
        assert Dataset(copied, LABELS[: len(copied)]).chunk_bytes is None
    y = mapped(tmp_path, TARGETS, "y")
    assert Dataset(BYTES, y)[1:].chunk_bytes == streams.CHUNK_BYTES
    assert Dataset(x, LABELS, chunk_bytes=7)[1:].chunk_bytes == 7


def test_the_values_of_a_file_are_checked_in_blocks_and_the_row_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)
    x = FLOATS.copy()
    x[50, 2] = x[77, 1] = np.nan
    with pytest.raises(ValueError, match=r"^x: expected finite numbers, got .*nan.* in row 50 \(2 such rows\)"):
        Dataset(mapped(tmp_path, x), LABELS)


def test_a_file_of_float64_is_refused_because_it_would_have_to_be_copied(tmp_path):
    with pytest.raises(TypeError, match=r"^x: expected float32, because x64 is off, got a memory map of float64"):
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
    streamed = feed.Streamed(
        Dataset(mapped(tmp_path, BYTES), LABELS, chunk_bytes=3 * BATCH * 9), LABELS.astype("int32"), LOSS, BATCH
    )
    chunks = streamed.chunks(jax.random.key(0), 1)
    next(chunks)
    streamed.close()  # after what is under way
    assert 1 <= len(taken) // 2 <= 1 + 2
    assert taken[0] == (3, BATCH)


# -- how much memory it takes -------------------------------------------------------------------------------------


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
    run = train({rows})
    print("trained", run.history[0]["loss"] >= 0)
"""


def ran(file, dtype, how):
    rows = file.stat().st_size // 64 // np.dtype(dtype).itemsize
    program = textwrap.dedent(PROGRAM).format(dtype=dtype, rows=rows)
    return subprocess.run(
        [sys.executable, "-c", program, str(file), how], capture_output=True, text=True, timeout=300,
        cwd=Path(__file__).parent.parent, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


@pytest.fixture
def gigabyte(tmp_path):
    with open(tmp_path / "x", "wb") as empty:
        empty.truncate(1 << 30)  # sparse: it takes no place on the disk
    return tmp_path / "x"


needs_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to limit private memory")


@pytest.mark.process
@needs_linux
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_file_of_a_gigabyte_trains_within_300_megabytes(dtype, gigabyte):
    mapped = ran(gigabyte, dtype, "mapped")
    assert mapped.stdout == "trained True\n", mapped.stderr


@pytest.mark.process
@needs_linux
def test_an_array_of_a_gigabyte_does_not_fit_into_300_megabytes(gigabyte):
    assert "MemoryError" in ran(gigabyte, "uint8", "copied").stderr
