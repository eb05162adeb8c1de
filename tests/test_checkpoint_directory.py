"""Nothing but our own checkpoints is moved or removed in a directory, and one run at a time writes to it."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from fnn import checkpoint, files
from fnn.checkpoint import folders, lock, orbax
from fnn.checkpoint.lock import locked
from resume_cases import arrays, assert_same, damage, network, run_of_two_epochs, train

pytestmark = pytest.mark.filterwarnings("ignore:checkpoint.*holds this run")  # which is finished


@pytest.fixture
def saved(tmp_path):
    """The directory of a run of two epochs."""
    return run_of_two_epochs(tmp_path / "run")


def write(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(directory):
    return {path.name for path in directory.iterdir()}


# -- what is not ours --------------------------------------------------------------------------------------------


OTHERS = [
    "2024/thesis.txt",
    "007/thesis.txt",
    "٣/thesis.txt",
    "99",
    "9.orbax-checkpoint-tmp/thesis.txt",
    "3.tmp-0123456789abcdef/thesis.txt",
    "damaged-3/thesis.txt",
    "log.jsonl",
    "2024/state/meta/thesis.txt",
]


def test_what_else_is_in_the_directory_stays_as_it_is(tmp_path):
    paths = [write(tmp_path / name) for name in OTHERS]
    empty = [tmp_path / name for name in ("2025", "9.tmp-notes", "8.orbax-checkpoint-tmp")]
    for folder in empty:
        folder.mkdir()
    train(tmp_path, epochs=5, every=2)
    assert orbax.epochs(tmp_path) == [2, 4, 5]
    train(tmp_path, epochs=6)
    assert orbax.epochs(tmp_path) == [4, 5, 6]
    assert {path.read_text() for path in paths} == {"mine"}
    assert all(folder.is_dir() for folder in empty)


@pytest.mark.parametrize("name", ["3", "3/thesis.txt", "3/state/thesis.txt", "4/meta/metadata"])
def test_what_has_the_name_of_an_epoch_to_come_is_refused_before_anything_is_trained(name, saved):
    path = write(saved / name)
    with pytest.raises(FileExistsError, match=r"checkpoint: .*run/[34] was not written by fnn.*move it away"):
        train(saved, callback=pytest.fail)
    with pytest.raises(FileExistsError, match=r"checkpoint: .*run/[34] was not written by fnn"):
        checkpoint.save(saved, network(), epoch=int(name[0]))
    assert path.read_text() == "mine"
    assert len(train(saved, epochs=2).history) == 2  # a finished run writes nothing


def test_an_empty_folder_and_a_link_with_the_name_of_an_epoch_stay_too(saved, tmp_path):
    (saved / "4").mkdir()
    with pytest.raises(FileExistsError, match="run/4 was not written by fnn"):
        train(saved)
    (saved / "4").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (saved / "4").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="run/4 was not written by fnn"):
        train(saved)
    assert (saved / "4").is_symlink()


def test_what_takes_the_name_of_an_epoch_during_the_run_is_refused_and_stays(tmp_path):
    def take(state):
        write(tmp_path / "3" / "thesis.txt")

    with pytest.raises(OSError, match="3 was not written by fnn"):
        train(tmp_path, callback=take)
    assert (tmp_path / "3" / "thesis.txt").read_text() == "mine"
    assert orbax.epochs(tmp_path) == [1, 2]
    assert names(tmp_path) == {"1", "2", "3"}


def test_a_link_to_a_checkpoint_elsewhere_is_neither_used_nor_removed(saved, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "2").symlink_to(saved / "2")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        checkpoint.restore(other, network())
    checkpoint.save(other, network(), epoch=3, keep=1)
    assert names(other) == {"2", "3"}
    assert orbax.epochs(saved) == [1, 2]


def test_an_old_epoch_with_something_of_the_users_in_it_is_kept_whole(saved):
    path = write(saved / "1" / "notes.txt")
    train(saved, epochs=5)
    assert path.read_text() == "mine"
    assert orbax.epochs(saved) == [1, 3, 4, 5]


@pytest.mark.parametrize("log", ["3", "2024", "./3"])
def test_a_log_under_the_name_of_an_epoch_is_refused_before_anything_is_written(log, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ValueError, match=r"log: .*run.* is where the checkpoint of epoch .*; write log='.*log.jsonl'"):
        train(run, log=f"{run}/{log}")
    assert not run.exists()
    train(run, log=run / "log.jsonl", epochs=1)
    assert names(run) == {"1", "log.jsonl"}


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_name_is_refused_and_not_the_working_directory(empty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (train, lambda path: checkpoint.save(path, network(), epoch=1)):
        with pytest.raises(
            (ValueError, TypeError), match="(checkpoint|directory): expected the path of a directory, got b?''"
        ):
            call(empty)
    assert names(tmp_path) == set()


# -- damage, and what only looks like it -------------------------------------------------------------------------


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("what", ["an array", "content", "lost content"])
def test_what_is_damaged_is_moved_aside_and_never_removed(what, saved):
    if what == "lost content":
        (saved / "2" / folders.META).unlink()
    else:
        damage(arrays(saved, 2)[0] if what == "an array" else saved / "2" / folders.META)
    before = content_of(saved / "2")
    (saved / "damaged-2").mkdir()  # of an earlier time
    with pytest.warns(UserWarning, match="resuming from epoch 1, because newer checkpoints are damaged"):
        train(saved, epochs=6)
    assert content_of(saved / "damaged-2-2") == before
    assert names(saved) == {"4", "5", "6", "damaged-2", "damaged-2-2"}


def test_a_damaged_mark_does_not_matter_and_a_folder_that_lost_it_is_not_removed(saved):
    whole = train(None, epochs=6).params
    damage(saved / "1" / folders.MARK)
    (saved / "2" / folders.MARK).unlink()
    assert_same(train(saved, epochs=6).params, whole)
    assert names(saved) == {"2", "4", "5", "6"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("item", ["meta", "state"])
def test_what_cannot_be_read_now_is_raised_as_such_and_stays(code, item, saved, monkeypatch):
    whole, before, opened = train(None).params, content_of(saved), files.opened

    def fails(path, *args):
        if saved / "2" / item in path.parents:
            raise OSError(code, os.strerror(code), str(path))
        return opened(path)

    def orbax_fails(path, like):
        raise ValueError("UNKNOWN: the same, in the words of a library")

    with monkeypatch.context() as context:
        context.setattr(files, "opened", fails)
        context.setattr(orbax, "_restore", orbax_fails)
        for call in (train, lambda path: checkpoint.save(path, network(), epoch=2)):
            with pytest.raises(OSError, match=os.strerror(code)) as raised:
                call(saved)
            assert raised.value.errno == code
        assert content_of(saved) == before
    assert_same(train(saved).params, whole)
    assert orbax.epochs(saved) == [2, 3, 4]


def test_too_many_open_files_are_no_damage(saved):
    before, (soft, hard) = content_of(saved), resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            checkpoint.restore(saved, network())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(held[0])
    assert content_of(saved) == before


def test_arrays_that_orbax_cannot_read_although_they_are_what_was_written_are_no_damage(saved, monkeypatch):
    def refuse(path, like):
        raise ValueError("PERMISSION_DENIED: of another kind")

    with monkeypatch.context() as context:
        context.setattr(orbax, "_restore", refuse)
        with pytest.raises(OSError, match="run/2 is intact, but cannot be read: PERMISSION_DENIED"):
            train(saved)
    assert orbax.epochs(saved) == [1, 2]
    assert len(train(saved, epochs=2).history) == 2


@pytest.mark.parametrize("written", ["fnn run 99", "fnn run 0"])
def test_another_format_is_refused_as_such_and_stays(written, saved):
    path = saved / "2" / folders.META
    text = json.loads(path.read_text())["content"]
    content = json.loads(text) | {"format": written, "more": "than is known today"}
    text = json.dumps(content)
    path.write_text(json.dumps({"content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}))
    before = content_of(saved)
    for call in (train, lambda path: checkpoint.save(path, network(), epoch=2)):
        with pytest.raises(ValueError, match=f"epoch 2 in .*run cannot be read by this version.*got '{written}'"):
            call(saved)
    assert content_of(saved) == before


def test_an_epoch_that_is_removed_while_it_is_read_is_no_damage(saved, monkeypatch):
    read, seen = orbax.read, []

    def slow(directory, epoch, item, *args):
        if not seen:  # another process saves epoch 3, and removes this one
            seen.append(epoch)
            monkeypatch.setattr(orbax, "read", read)
            train(saved, epochs=3)
            shutil.rmtree(saved / str(epoch))
        return read(directory, epoch, item, *args)

    monkeypatch.setattr(orbax, "read", slow)
    assert len(train(saved, epochs=3).history) == 3
    assert seen == [2]


def test_the_mark_is_what_sha256sum_reads(saved):
    if shutil.which("sha256sum") is None:
        pytest.skip("needs sha256sum")
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", folders.MARK], cwd=saved / "2", check=True)


def test_what_a_killed_process_left_half_saved_or_half_removed_goes(saved):
    half = folders.temporary(saved, 3)
    write(half / "state.orbax-checkpoint-tmp" / "0")
    write(half / "meta" / "metadata")
    (saved / "3.tmp-0000000000000000").mkdir()  # killed before its mark
    train(saved, epochs=3)
    assert names(saved) == {"1", "2", "3"}


# -- one run at a time -------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_by_the_owners_host_and_process_and_nothing_is_mixed(tmp_path):
    who = rf"in use by another run \(process {os.getpid()} on {socket.gethostname()}, since \d"
    lines = tmp_path / "log.jsonl"

    def start_another(state):
        for call in (
            lambda: train(tmp_path / "run", log=lines),
            lambda: checkpoint.save(tmp_path / "run", network(), epoch=9),
        ):
            with pytest.raises(BlockingIOError, match=who):
                call()

    history = train(tmp_path / "run", log=lines, callback=start_another).history
    assert [json.loads(line) for line in lines.read_text().splitlines()] == history
    assert names(tmp_path / "run") == {"2", "3", "4"}  # the lock is gone


def test_reading_needs_no_lock(saved):
    with locked(saved):
        assert len(train(saved, epochs=2).history) == 2  # a finished run


def test_a_run_goes_on_from_what_another_saved_while_it_waited_for_the_lock(saved, monkeypatch):
    whole = train(None).params
    enter = lock.locked

    def late(directory):
        monkeypatch.undo()
        train(saved, epochs=3)
        return enter(directory)

    monkeypatch.setattr(sys.modules["fnn.checkpoint.resume"], "locked", late)
    epochs = []
    run = train(saved, callback=lambda state: epochs.append(state.epoch))
    assert epochs == [4]
    assert_same(run.params, whole)


def test_the_lock_of_a_process_that_is_gone_is_taken_over(saved):
    write(saved / lock.NAME, json.dumps({"fnn": "lock", "host": socket.gethostname(), "process": 2**22 + 1}))
    assert len(train(saved).history) == 4
    write(saved / lock.NAME, "")  # killed before it had written who it was
    assert len(train(saved, epochs=5).history) == 5


def test_a_file_of_the_users_is_no_lock(saved):
    path = write(saved / lock.NAME)
    with pytest.raises(FileExistsError, match=r"fnn.lock is not a lock of fnn; move it away"):
        train(saved)
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to(write(saved / "thesis.txt", ""))
    with pytest.raises(OSError, match=r"fnn.lock"):
        train(saved)
    assert (saved / "thesis.txt").read_text() == ""


@pytest.mark.parametrize(
    ("owner", "refused"),
    [
        ({"host": socket.gethostname(), "process": 2**22 + 1}, False),
        ({"host": socket.gethostname(), "process": os.getpid()}, True),
        ({"host": "elsewhere", "process": 2**22 + 1}, True),
        ({}, True),
        (None, False),
    ],
    ids=["gone", "alive", "elsewhere", "not written yet", "no owner"],
)
def test_where_a_file_system_has_no_locks_the_file_says_who_it_was(owner, refused, saved, monkeypatch):
    monkeypatch.setattr(files, "try_lock", lambda descriptor: None)
    if owner is not None:
        path = write(saved / lock.NAME, json.dumps({"fnn": "lock"} | owner))
    if refused:
        with pytest.raises(BlockingIOError, match=rf"{owner.get('host', '?')}.*delete .*fnn.lock".replace("?", r"\?")):
            train(saved)
        path.unlink()
    assert len(train(saved).history) == 4
    assert lock.NAME not in names(saved)


def test_of_many_threads_that_want_the_lock_one_at_a_time_has_it(tmp_path):
    inside, most, refused = [0], [0], [0]

    def enter():
        for _ in range(50):
            try:
                with locked(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.0005)
                    inside[0] -= 1
            except BlockingIOError:
                refused[0] += 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert refused != [0]
    assert names(tmp_path) == set()


@pytest.mark.process
def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from fnn.checkpoint.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    if os.fork() == 0: time.sleep(60)\n"
        "    print('forked', flush=True); os._exit(0)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        try:
            assert parent.stdout.readline() == b"forked\n"
            assert parent.wait() == 0
            with locked(tmp_path):
                pass
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_runs_in_threads_with_a_directory_each_all_succeed(tmp_path):
    whole, found = train(None).params, {}

    def run(number):
        found[number] = train(tmp_path / str(number)).params

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == 8
    for number, params in found.items():
        assert_same(params, whole)
        assert orbax.epochs(tmp_path / str(number)) == [2, 3, 4]
