"""A run is saved inside an epoch too, with its position in the data; what stalls, ends or shrinks is said."""

import os
import signal
import sys
import threading
import time

import jax
import numpy as np
import pytest

import fnn
from fnn import updates
from fnn.checkpoint import orbax, resume
from fnn.data import Batches, Dataset
from fnn.train import Interrupted
from resume_cases import assert_same, damage, data, finished, network, train, without_seconds
from streaming_cases import threads

X, Y = data()
STEPS = 4  # in an epoch
EVERYTHING = {"dropout": fnn.Dropout(0.8), "validation": data(20), "keep": "best", "optimizer": updates.momentum(0.1)}


def drawn(epoch):
    """Mini-batches that differ in every epoch."""
    rows = np.random.default_rng(epoch).permutation(len(X))[: 10 * STEPS].reshape(STEPS, 10)
    return ((X[of_one], Y[of_one]) for of_one in rows)


FEEDS = {
    "in memory": Dataset(X, Y),
    "streamed": Dataset(X, Y, chunk_bytes=1),
    "in chunks of three": Dataset(X, Y, chunk_bytes=3 * 10 * 9),
    "batches": Batches(drawn, identity="drawn", chunk_bytes=1),
}


class Killed(Exception):
    pass


@pytest.fixture
def killed_at(monkeypatch):
    """Sets after how many calls of the compiled loop a run is killed; their number is counted."""
    epochs = sys.modules["fnn.train.epochs"]
    take_steps, calls = epochs.take_steps, [0, None]

    def counted(*args, **options):
        calls[0] += 1
        if calls[0] == calls[1]:
            raise Killed
        return take_steps(*args, **options)

    monkeypatch.setattr(epochs, "take_steps", counted)
    return calls


@pytest.mark.parametrize("feed", FEEDS)
def test_what_is_saved_inside_an_epoch_is_resumed_bitwise(feed, tmp_path, killed_at):
    options = {"data": FEEDS[feed], "epochs": 3, **EVERYTHING}
    whole = train(None, **options)
    for call in (2, 3, 4):  # of the chunks of what is left, whichever they are
        killed_at[:] = 0, call
        with pytest.raises(Killed):
            train(tmp_path, every_steps=1, **options)
    assert orbax.epochs(tmp_path / "steps")
    killed_at[:] = 0, None
    run = train(tmp_path, every_steps=1, **options)
    assert 0 < killed_at[0] < 3 * STEPS - 4  # what was saved was not computed again
    assert_same(
        (run.params, run.best, run.state.optimizer_state), (whole.params, whole.best, whole.state.optimizer_state)
    )
    assert without_seconds(run.history) == without_seconds(whole.history)
    assert run.state.step == whole.state.step
    with finished():
        assert_same(train(tmp_path, **options).params, whole.params)


def test_so_many_steps_are_between_the_checkpoints_and_one_stays(tmp_path, monkeypatch):
    saved = []
    save = orbax.Writer.save
    monkeypatch.setattr(
        orbax.Writer, "save", lambda self, epoch, *items: saved.append(epoch) or save(self, epoch, *items)
    )
    train(tmp_path, data=Dataset(*data(73)), epochs=2, every_steps=3)  # of 7 steps in an epoch
    assert saved == [3, 6, 1, 10, 13, 2]
    assert orbax.epochs(tmp_path / "steps") == [13]


def test_divergence_after_a_resume_inside_an_epoch_is_named_with_its_step(tmp_path, killed_at):
    options = {"loss": fnn.SquaredError(), "epochs": 1, "every_steps": 1, "optimizer": updates.sgd(1e30)}
    options["data"] = Dataset(X, np.eye(3, dtype=np.float32)[Y])
    with pytest.raises(fnn.train.NonFinite) as whole:
        train(None, **options)
    assert whole.value.step > 1
    killed_at[1] = killed_at[0] + whole.value.step
    with pytest.raises(Killed):
        train(tmp_path, **options)
    with pytest.raises(fnn.train.NonFinite, match=f"epoch 1, step {whole.value.step}: "):
        train(tmp_path, **options)


# -- signals -----------------------------------------------------------------------------------------------------


def endless(number=None, sent=lambda: None, stall=None):
    """Batches without an end; at the batch of that number in all, something is sent, and maybe nothing more comes."""
    come = [0]

    def make(epoch):
        random = np.random.default_rng(epoch)
        while True:
            come[0] += 1
            if come[0] == number:
                sent()
                if stall is not None and not stall.wait(60):
                    raise TimeoutError("nothing ended the run")
            rows = random.integers(len(X), size=10)
            yield X[rows], Y[rows]

    return Batches(make, identity="endless", chunk_bytes=1)


@pytest.fixture
def stall():
    """A batch waits for it until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def terminate(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_an_endless_epoch_ends_by_sigterm_and_is_resumed_where_it_was(tmp_path):
    expected = train(None, data=endless(), batches_per_epoch=40, epochs=1)
    for number in (10, 20):
        with pytest.raises(SystemExit) as raised:
            train(tmp_path, data=endless(number, terminate), batches_per_epoch=40, epochs=1)
        assert raised.value.code == 143
        (reached,) = orbax.epochs(tmp_path / "steps")
        assert number - 5 <= reached <= number + 5
    assert_same(train(tmp_path, data=endless(), batches_per_epoch=40, epochs=1).params, expected.params)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_batches_that_stall_do_not_keep_a_signal_waiting(number, tmp_path, stall, monkeypatch):
    monkeypatch.setattr(resume, "GRACE", 0.3)
    sent = threading.Timer(0.5, terminate, [number]).start
    began = time.monotonic()
    with pytest.raises((SystemExit, Interrupted)) as raised:
        train(tmp_path, data=endless(8, sent, stall))
    assert raised.type is (SystemExit if number == signal.SIGTERM else Interrupted)
    assert time.monotonic() - began < 30  # a bound on hanging
    assert orbax.epochs(tmp_path / "steps") == [7]


def test_one_ctrl_c_ends_a_run_without_a_checkpoint_whose_batches_stall(stall):
    began = time.monotonic()
    with pytest.raises(Interrupted, match="stopped after epoch 0"):
        train(None, data=endless(8, threading.Timer(0.5, terminate, [signal.SIGINT]).start, stall))
    assert time.monotonic() - began < 30  # a bound on hanging


def test_a_run_interrupted_inside_its_first_epoch_after_a_resume_has_the_network_of_the_last_whole_one(tmp_path, stall):
    options = {"batches_per_epoch": 40, "epochs": 2}
    with pytest.raises(SystemExit):
        train(tmp_path, data=endless(10, terminate), **options)
    with pytest.raises(Interrupted, match="stopped after epoch 0") as caught:
        train(tmp_path, data=endless(20, lambda: terminate(signal.SIGINT)), **options)
    assert_same(caught.value.run.params, network())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_that_whoever_started_the_process_ignores_stays_ignored(number, tmp_path):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        run = train(tmp_path, callback=lambda progress: signal.raise_signal(number))
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert len(run.history) == 4


# -- how long an epoch is ----------------------------------------------------------------------------------------------


def fewer(epoch):
    """In the second epoch, half of the mini-batches."""
    return (batch for i, batch in enumerate(drawn(epoch)) if i < STEPS // 2 or epoch != 2)


def test_an_epoch_with_fewer_batches_than_those_before_is_said():
    with pytest.warns(UserWarning, match="data: epoch 2 had 2 mini-batches, those before 4; .*batches_per_epoch=4,"):
        train(None, data=Batches(fewer), epochs=2)


def test_an_epoch_with_fewer_batches_than_declared_is_refused_and_more_are_left():
    with pytest.raises(ValueError, match="data: expected 4 mini-batches of 10 examples in epoch 2, .*per_epoch, got 2"):
        train(None, data=Batches(fewer), batches_per_epoch=4)
    run = train(None, data=Batches(fewer), batches_per_epoch=2)
    assert run.state.step == 2 * 4
    assert not threads()


def test_a_resumed_epoch_that_has_become_shorter_is_refused(tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path, data=endless(10, terminate), epochs=1)
    assert orbax.epochs(tmp_path / "steps")
    with pytest.raises(
        ValueError, match="data: expected more than .* mini-batches of 10 examples in epoch 1, got no more"
    ):
        train(tmp_path, data=Batches(drawn, identity="endless"), epochs=1)


def test_a_damaged_checkpoint_inside_an_epoch_gives_way_to_the_last_whole_one(tmp_path):
    train(tmp_path, epochs=2, every_steps=3)
    (damaged,) = (path for path in (tmp_path / "steps").rglob("*") if path.is_file() and path.name == "metadata")
    damage(damaged)
    with pytest.warns(
        UserWarning, match="resuming from the last complete epoch, because checkpoint: none in .*steps is intact"
    ):
        run = train(tmp_path, epochs=3)
    assert_same(run.params, train(None, epochs=3).params)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["data", "validation"])
def test_a_file_that_is_cut_off_during_the_run_is_an_error_and_not_the_end_of_the_process(what, tmp_path):
    np.save(tmp_path / "x.npy", np.tile(X, (5000, 1)))
    mapped = Dataset(np.load(tmp_path / "x.npy", mmap_mode="r"), np.tile(Y, 5000), chunk_bytes=10_000)
    given = {"data": mapped} if what == "data" else {"validation": mapped}

    def cut(progress):
        os.truncate(tmp_path / "x.npy", 5000)

    with pytest.raises(OSError, match=rf"^{what}: the file of the memory map had 1,075,128 bytes, and has 5,000 now"):
        train(None, callback=cut, batch_size=1000 if what == "data" else 10, **given)
    jax.block_until_ready(mapped.y)
