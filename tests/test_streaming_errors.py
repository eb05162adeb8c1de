"""What is wrong with streamed data is refused with its place, and no thread is left behind."""

import gc
import traceback

import numpy as np
import pytest

import fnn
from errors import assert_refused, table
from fnn.data import Batches, Dataset
from streaming_cases import AT_ONCE, BYTES, EVERY_5_STEPS, FLOATS, LABELS, shuffled, threads, train


def spoiled(x=BYTES, y=LABELS, at=4, epoch=1):
    """Batches of which one, in one epoch, is passed through a function before."""
    chunk_bytes = AT_ONCE if epoch == 1 else EVERY_5_STEPS  # at once: then nothing is trained, and compiled, before

    def make(change):
        def batches(now):
            for number, (xs, ys) in enumerate(shuffled(now, x, y)):
                yield change(xs.copy(), ys.copy()) if (number, now) == (at, epoch) else (xs, ys)

        return Batches(batches, chunk_bytes=chunk_bytes)

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
def test_a_wrong_mini_batch_is_refused_with_its_number_and_the_row(given, error, fragments):
    assert_refused(lambda: train(given), error, ["^data: batch 4 of epoch 1: ", *fragments])
    assert not threads()


def test_it_is_refused_when_its_epoch_comes():
    given = spoiled(at=11, epoch=2)(lambda x, y: (x, with_(y, 1, 3)))
    assert_refused(lambda: train(given), ValueError, ["^data: batch 11 of epoch 2: y: .*labels below 3.* in row 1"])
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
            {"data": Batches(lambda epoch, batches=shuffled(1): batches, chunk_bytes=EVERY_5_STEPS)},
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
        train(Batches(make, chunk_bytes=EVERY_5_STEPS))
    assert 'raise OSError("the disk is gone")' in "".join(traceback.format_exception(caught.value))
    assert not threads()


def test_the_thread_ends_with_fit_when_the_callback_stops_or_raises():
    def fails(state):
        assert threads()
        raise KeyboardInterrupt

    data = Dataset(BYTES, LABELS, chunk_bytes=EVERY_5_STEPS)
    with pytest.raises(KeyboardInterrupt):
        train(data, callback=fails)
    assert not threads()
    train(data, callback=lambda state: True)
    train(Batches(shuffled, chunk_bytes=EVERY_5_STEPS))
    gc.collect()
    assert not threads()
