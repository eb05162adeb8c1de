"""Damaged checkpoints, signals, full disks: nothing wrong is gone on from, and nothing whole is lost."""

import os
import shutil
import signal
import threading

import pytest

from fnn.checkpoint import orbax
from resume_cases import (
    arrays,
    assert_same,
    damage,
    files_of_at_most,
    finished,
    run_of_two_epochs,
    train,
    without_seconds,
)


@pytest.fixture
def saved(tmp_path):
    """The directory of a run of two epochs."""
    return run_of_two_epochs(tmp_path / "run")


# -- damage ----------------------------------------------------------------------------------------------------


def test_one_flipped_bit_in_the_newest_checkpoint_and_the_one_before_it_is_used_with_a_warning(saved):
    whole = train(None)
    damage(arrays(saved, 2)[0])
    with pytest.warns(UserWarning, match=r"resuming from epoch 1, .* newer checkpoints are damaged:\s+epoch 2: \S"):
        run = train(saved)
    assert_same(run.params, whole.params)
    assert without_seconds(run.history) == without_seconds(whole.history)
    assert orbax.epochs(saved) == [2, 3, 4]
    with finished():
        assert_same(train(saved).params, whole.params)  # epoch 2 was written anew


def test_a_changed_record_is_damage_although_it_is_json(saved):
    path = saved / "2" / "meta" / "metadata"
    path.write_text(path.read_text().replace('loss\\": 1', 'loss\\": 2').replace('loss\\": 0', 'loss\\": 1'))
    with pytest.warns(UserWarning, match="epoch 2: the content is damaged"):
        train(saved)


def test_where_no_checkpoint_is_whole_nothing_begins_anew(saved):
    for epoch in (1, 2):
        damage(arrays(saved, epoch)[0])
    with pytest.raises(
        ValueError, match=r"none in .*run is intact:\s+epoch 2: .*\s+epoch 1: .*\s+name another directory"
    ):
        train(saved)
    assert orbax.epochs(saved) == [1, 2]


def test_what_a_killed_save_leaves_is_no_checkpoint(saved):
    shutil.copytree(saved / "2", saved / "3.orbax-checkpoint-tmp")
    assert orbax.epochs(saved) == [1, 2]
    train(saved)
    assert {path.name for path in saved.iterdir()} == {"2", "3", "4"}


# -- signals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_ends_the_run_after_its_epoch_is_saved(number, error, tmp_path):
    whole = train(None).params
    before = signal.getsignal(number)

    def send(state):
        if state.epoch == 2:
            signal.raise_signal(number)

    with pytest.raises(error) as raised:
        train(tmp_path, every=3, callback=send)
    assert signal.getsignal(number) is before
    assert number != signal.SIGTERM or raised.value.code == 143
    assert orbax.epochs(tmp_path) == [2]
    assert_same(train(tmp_path, every=3).params, whole)


def test_a_second_ctrl_c_leaves_at_once(saved):
    def send(state):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(saved, callback=send)
    assert orbax.epochs(saved) == [1, 2]


def test_a_signal_after_the_last_epoch_is_not_lost(tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path, epochs=1, callback=lambda state: signal.raise_signal(signal.SIGTERM))
    assert orbax.epochs(tmp_path) == [1]


def test_without_a_checkpoint_and_in_other_threads_signals_are_left_alone(tmp_path):
    seen = []

    def look(state):
        seen.append(signal.getsignal(signal.SIGINT))

    train(None, epochs=1, callback=look)
    thread = threading.Thread(target=lambda: train(tmp_path, epochs=1, callback=look))
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)] * 2
    assert orbax.epochs(tmp_path) == [1]


# -- what cannot be written ------------------------------------------------------------------------------------


# tensorstore's other writes end after the first has failed, and find nobody to tell
unheard = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@unheard
@pytest.mark.parametrize("epochs", [3, 4], ids=["at the end", "at the next save"])
def test_a_disk_that_is_full_is_an_os_error_and_the_last_checkpoint_stays(epochs, saved, capfd):
    message = r"run: epoch 3 cannot be written: .*[Ff]ile too large.*; the last intact one is epoch 2"
    with files_of_at_most(100), pytest.raises(OSError, match=message) as raised:
        train(saved, epochs=epochs)
    assert not hasattr(raised.value, "__notes__")  # it is told once
    assert capfd.readouterr().err == ""
    assert orbax.epochs(saved) == [1, 2]
    assert_same(train(saved, epochs=epochs).params, train(None, epochs=epochs).params)


@unheard
def test_an_error_of_the_callback_is_told_before_that_of_the_save(saved):
    def fail(state):
        if state.epoch == 4:
            raise ZeroDivisionError

    with files_of_at_most(100), pytest.raises(ZeroDivisionError) as raised:
        train(saved, callback=fail, every=3)
    assert "epoch 3 cannot be written" in raised.value.__notes__[0]
    assert orbax.epochs(saved) == [1, 2]
    assert len(train(saved).history) == 4


def test_a_directory_that_cannot_be_written_is_refused_before_anything_is_trained(saved, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind every user
    epochs = []
    with pytest.raises(OSError, match="run: the directory cannot be used: it is read-only; the last .* epoch 2"):
        train(saved, callback=lambda state: epochs.append(state.epoch))
    assert epochs == []
    with finished():
        assert len(train(saved, epochs=2).history) == 2  # it writes nothing


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(NotADirectoryError, match="checkpoint: .*run is a file"):
        train(tmp_path / "run")
