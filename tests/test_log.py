"""The log: a line of JSON for every epoch, there when it ends; and no file of anything else is lost."""

import json
import os
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import assert_refused
from fnn.train import fit
from fnn.train.log import Log
from networks import drawn

PARAMS = drawn((3, 2))
LABELS = np.array([0, 1, 1, 0, 1, 0])
DATA = (np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), LABELS)
RECORDS = [{"epoch": i, "loss": 1 / i, "seconds": 0.1 * i} for i in (1, 2, 3, 4)]


def train(path, **options):
    settings = {"loss": fnn.SoftmaxCrossEntropy(), "epochs": 3, "batch_size": 3, "key": jax.random.key(1)} | options
    return fit(PARAMS, DATA, fnn.updates.sgd(0.1), progress=False, log=path, **settings)


def read(path) -> list[dict]:
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in Path(path).read_text().splitlines()]


def filled(path, records):
    with Log(path) as log:
        for record in records:
            log.write(record)
    return path


def test_every_epoch_is_a_line_that_is_there_when_it_ends(tmp_path):
    path, seen = tmp_path / "log.jsonl", []
    history = train(path, validation=DATA, callback=lambda state: seen.append(read(path))).history
    assert [len(lines) for lines in seen] == [
        0,
        1,
        2,
    ]  # its own epoch is not over for the callback, which may add to it
    assert read(path) == history
    assert set(history[0]) == {"epoch", "loss", "validation_loss", "validation_accuracy", "seconds"}


def test_a_run_that_is_interrupted_leaves_its_epochs(tmp_path):
    def interrupt(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "m", callback=interrupt)
    assert [record["epoch"] for record in read(tmp_path / "m")] == [1]


@pytest.mark.parametrize(
    ("text", "error", "fragments"),
    [
        ("".join(json.dumps(r) + "\n" for r in RECORDS[:2]), FileExistsError, ["holds 2 records", "name another file"]),
        ("precious\n", ValueError, ["lines of JSON", "something else", "name another file"]),
        ("precious", ValueError, ["something else"]),
        ('{"epoch": 1}\n{"loss": 1}\n', ValueError, ["something else"]),
        ("[1]\n", ValueError, ["something else"]),
    ],
    ids=["another run's", "text", "text without a line end", "a line without an epoch", "a list"],
)
def test_a_file_that_is_there_is_refused_and_stays(text, error, fragments, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    assert_refused(lambda: train(path), error, ["^log: .*log.jsonl", *fragments])
    assert path.read_text() == text
    assert os.listdir(tmp_path) == ["log.jsonl"]


def test_bytes_that_are_no_text_are_refused_and_stay(tmp_path):
    path = tmp_path / "params.safetensors"
    path.write_bytes(bytes(range(256)))
    assert_refused(lambda: train(path), ValueError, ["something else"])
    assert path.read_bytes() == bytes(range(256))


def test_an_empty_file_is_as_good_as_none(tmp_path):
    path = tmp_path / "log.jsonl"
    path.touch()
    train(path, epochs=1)
    assert len(read(path)) == 1


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(FileNotFoundError, match="log: cannot be written.*no-folder"):
        train(tmp_path / "no-folder" / "m")
    with pytest.raises(IsADirectoryError, match="log: cannot be written"):
        train(tmp_path)
    assert_refused(lambda: train(3), TypeError, ["^log: expected a path, got 3", "write log="])
    assert_refused(lambda: train(""), ValueError, ["^log: expected a path, got ''", "write log="])


def test_a_run_that_goes_on_takes_back_what_came_after_its_checkpoint(tmp_path):
    path = filled(tmp_path / "m", RECORDS)
    path.write_text(path.read_text() + '{"epoch": 5, "lo')  # and a record that was torn
    with Log(path, RECORDS[:2]) as log:
        assert read(path) == RECORDS[:2]
        log.write(RECORDS[3])
    assert read(path) == [*RECORDS[:2], RECORDS[3]]
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("before", [None, 0, 1, 2])
def test_a_run_that_goes_on_writes_what_its_file_lacks(before, tmp_path):
    path = tmp_path / "m"
    if before is not None:
        filled(path, RECORDS[:before])
    Log(path, RECORDS[:3]).__exit__()
    assert read(path) == RECORDS[:3]


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_the_file_anew(tmp_path):
    path = filled(tmp_path / "m", RECORDS)
    Log(path, [], resumed=True).__exit__()
    assert read(path) == []


def test_every_crash_before_a_first_checkpoint_leaves_its_records(tmp_path):
    for number in (1, 2, 3):
        path = filled(tmp_path / "m", RECORDS[:number])
        Log(path, [], resumed=True).__exit__()
    assert read(path) == []
    assert [len(read(f"{path}.before{ending}")) for ending in ("", "-2", "-3")] == [1, 2, 3]
    assert len(os.listdir(tmp_path)) == 4


def test_nothing_beside_the_file_is_touched(tmp_path):
    others = [tmp_path / f"m{ending}" for ending in (".new", ".part", ".before")]
    for other in others:
        other.write_text("mine")
    path = filled(tmp_path / "m", RECORDS)
    Log(path, RECORDS[:1]).__exit__()
    Log(path, [], resumed=True).__exit__()
    assert {other.read_text() for other in others} == {"mine"}
    assert read(tmp_path / "m.before-2") == RECORDS[:1]


def test_a_link_to_the_file_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(filled(tmp_path / "m", RECORDS))
    Log(tmp_path / "link", RECORDS[:1]).__exit__()
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "m") == RECORDS[:1]


def test_two_runs_do_not_write_to_one_file(tmp_path):
    path = tmp_path / "m"
    for history in ([], RECORDS[:1]):
        with Log(path, history) as log:
            for other in ([], history, RECORDS[:2]):
                with pytest.raises(BlockingIOError, match="log: .*m is being written by another run; name another"):
                    Log(path, other, resumed=True)
            log.write(RECORDS[len(history)])
        assert read(path) == RECORDS[: len(history) + 1]


def test_of_many_runs_that_begin_at_once_one_writes(tmp_path):
    begun, refused = [], []

    def begin(number):
        try:
            with Log(tmp_path / "m") as log:
                for record in RECORDS:
                    log.write(record | {"run": number})
            begun.append(number)
        except (FileExistsError, BlockingIOError) as error:
            refused.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(begun), len(refused)) == (1, 15)
    assert read(tmp_path / "m") == [record | {"run": begun[0]} for record in RECORDS]


@pytest.mark.parametrize("kind", ["a pipe", "a FIFO"])
def test_what_is_no_regular_file_is_written_as_it_comes(kind, tmp_path):
    if kind == "a FIFO":
        os.mkfifo(tmp_path / "m")
        end, path = os.open(tmp_path / "m", os.O_RDONLY | os.O_NONBLOCK), tmp_path / "m"
    else:
        end, other = os.pipe()
        path = f"/dev/fd/{other}"
    if not os.path.exists(path):
        pytest.skip("needs /dev/fd")
    filled(path, RECORDS)
    assert [json.loads(line) for line in os.read(end, 10_000).splitlines()] == RECORDS


def test_a_run_that_goes_on_refuses_the_records_of_another(tmp_path):
    path = filled(tmp_path / "m", RECORDS)
    other = [{**RECORDS[0], "loss": 0.5}]
    assert_refused(lambda: Log(path, other), FileExistsError, ["log: .* another run", "epoch 1", "another file"])
    assert read(path) == RECORDS


def test_what_is_not_finite_is_null(tmp_path):
    """A held-out loss may be, when training goes on."""
    x = np.array(DATA[0])
    x[2] = 3e38
    wide = (fnn.Dense(*map(jnp.float32, (np.full((2, 3), 5), np.zeros(2))), fnn.Identity()),)
    history = fit(
        wide, (DATA[0], LABELS), fnn.updates.sgd(0.1), loss=fnn.SoftmaxCrossEntropy(), epochs=1, batch_size=3,
        key=jax.random.key(0), validation=(x, LABELS), progress=False, log=tmp_path / "m",
    ).history  # fmt: skip
    assert not np.isfinite(history[0]["validation_loss"])
    (record,) = read(tmp_path / "m")
    assert record["validation_loss"] is None
    assert record["loss"] == history[0]["loss"]
    Log(tmp_path / "m", history).__exit__()  # and the same record still


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_training_survives_a_full_disk():
    with pytest.warns(UserWarning, match="log: /dev/full: .*no further records are written") as told:
        history = train("/dev/full", epochs=2).history
    assert len(history) == 2
    assert len(told) == 1
    with pytest.raises(OSError, match="log: cannot be written.*/dev/full"):
        Log("/dev/full", RECORDS[:1])
