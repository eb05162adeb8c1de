"""Long runs are kept once they have finished, resumed if not, and shared between processes."""

import os

import pytest

from experiments import long_runs
from fnn import files

pytestmark = pytest.mark.project


def counted(calls: list):
    """Three runs that leave their number, and note that they ran."""

    def make(number):
        def run(checkpoints):
            calls.append(number)
            return {"number": number}

        return run

    return {f"run {number}": make(number) for number in range(3)}


def numbers(left: dict) -> dict:
    assert all(run["seconds"] >= 0 for run in left.values())
    return {name: run["number"] for name, run in left.items()}


def test_what_has_finished_is_not_run_again(tmp_path):
    calls: list = []
    runs = counted(calls)
    first = long_runs.finished(tmp_path, dict(list(runs.items())[:2]), settings="a")
    again = long_runs.finished(tmp_path, runs, settings="a")
    assert calls == [0, 1, 2]
    assert numbers(again) == {"run 0": 0, "run 1": 1, "run 2": 2}
    assert again["run 0"] == first["run 0"]


def test_without_a_folder_all_run_and_nothing_is_kept(tmp_path):
    calls: list = []
    assert numbers(long_runs.finished(None, counted(calls), settings="a")) == {f"run {i}": i for i in range(3)}
    assert calls == [0, 1, 2]


def test_a_run_of_another_process_is_left_to_it(tmp_path):
    calls: list = []
    lock = os.open(tmp_path / "run 1.lock", os.O_RDWR | os.O_CREAT)
    assert files.try_lock(lock)
    try:
        left = long_runs.finished(tmp_path, counted(calls), settings="a")
    finally:
        files.release(lock)
    assert calls == [0, 2]
    assert set(left) == {"run 0", "run 2"}
    assert set(long_runs.finished(tmp_path, counted(calls), settings="a")) == {"run 0", "run 1", "run 2"}


def test_an_interrupted_run_finds_its_checkpoints_and_a_finished_one_leaves_none(tmp_path):
    def run(checkpoints):
        if not checkpoints.exists():
            checkpoints.mkdir()
            (checkpoints / "epoch").write_text("5")
            raise KeyboardInterrupt
        return {"epoch": (checkpoints / "epoch").read_text()}

    with pytest.raises(KeyboardInterrupt):
        long_runs.finished(tmp_path, {"run": run}, settings="a")
    assert long_runs.finished(tmp_path, {"run": run}, settings="a")["run"]["epoch"] == "5"
    assert not (tmp_path / "run").exists()


def test_a_report_runs_nothing(tmp_path):
    calls: list = []
    runs = counted(calls)
    long_runs.finished(tmp_path, {"run 0": runs["run 0"]}, settings="a")
    assert set(long_runs.finished(tmp_path, runs, settings="a", report=True)) == {"run 0"}
    assert calls == [0]
    with pytest.raises(ValueError, match="report: expected --checkpoint FOLDER"):
        long_runs.finished(None, runs, settings="a", report=True)


def test_a_folder_is_for_one_kind_of_settings(tmp_path):
    long_runs.finished(tmp_path, {}, settings="--epochs 1")
    with pytest.raises(ValueError, match="is of other settings; expected '--epochs 2', got '--epochs 1'"):
        long_runs.finished(tmp_path, {}, settings="--epochs 2")


def test_a_seed_counts_when_all_its_runs_have_finished():
    groups = {0: ["a 0", "b 0"], 1: ["a 1", "b 1"]}
    assert long_runs.complete({"a 0": {}, "b 0": {}, "a 1": {}}, groups) == [0]
    with pytest.raises(SystemExit, match="1 runs have finished, and no seed whole"):
        long_runs.complete({"a 1": {}}, groups)


def test_a_count_says_how_many_were_asked_for():
    assert [long_runs.count(*pair) for pair in ((5, 5), (2, 5), (1, 1))] == ["5 seeds", "2 of 5 seeds", "one seed"]
