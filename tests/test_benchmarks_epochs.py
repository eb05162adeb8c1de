"""The benchmark of whole epochs: its peers do what ``fit`` does, and its rows say what was measured."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.benchmarks import epochs
from fnn.data import Dataset

pytestmark = pytest.mark.project
IN_JAX = ("jax.grad", "NumPy")


def left(folder, *arguments: str) -> dict:
    epochs.main([*arguments, "--examples", "256", "--part", "0.5", "--rounds", "2", "--out", str(folder)])
    return json.loads((folder / "figures.json").read_text())


def require_consistent(record: dict, workloads: int, measured: set[str]) -> None:
    rows = epochs.rows(record["figures"])
    assert len(rows) == workloads * len(epochs.PEERS)
    assert {row.peer for row in rows if row.ratio is not None} == measured
    assert len(record["claims"]) == workloads
    for row in rows:
        claim = next(claim for claim in record["claims"] if row.workload.split(", ", 1)[1] in claim["claim"])
        if row.ratio is None:
            assert row.note
            assert row.peer not in claim["here"]
        else:
            low, high = row.spread
            assert 0 < low <= row.ratio <= high
            assert f"{row.peer} {row.ratio:.2f}" in claim["here"]


def test_an_epoch_is_measured_beside_peers_that_train_alike(tmp_path):
    names = [name for name in epochs.PEERS if name.startswith(IN_JAX)]
    record = left(tmp_path, "--workloads", "small", "--only", *names)
    require_consistent(record, 1, set(names))
    assert set(record["figures"]["epochs"]["small"]["apart"]) == set(names)


@pytest.mark.slow
def test_every_peer_that_is_installed_is_measured(tmp_path):
    record = left(tmp_path, "--workloads", "large")
    figure = record["figures"]["epochs"]["large"]
    notes = {name for name, note in figure["notes"].items() if note.startswith(("not installed", "does not run"))}
    assert set(figure["peers"]) | notes == set(epochs.PEERS)
    require_consistent(record, 1, set(figure["peers"]))


def test_a_peer_that_trains_otherwise_is_refused():
    random = np.random.default_rng(0)
    data = Dataset(
        random.integers(0, 256, (30, 784)).astype(np.uint8), np.eye(10, dtype=np.float32)[np.arange(30) % 10]
    )
    problem = epochs.Problem(data, (784, 30, 10), batch=10, rate=3.0)
    other = epochs.NumPy(replace(problem, rate=3.01))
    with pytest.raises(ValueError, match="NumPy: .* of the way"):
        epochs.disagreement(other, problem)


def test_a_peer_that_is_not_installed_has_a_row_that_says_so(monkeypatch):
    def absent(problem):
        raise ImportError("no such library")

    monkeypatch.setattr(epochs, "PEERS", {"absent": (absent, True)})
    problem = epochs.Problem(Dataset(np.zeros((2, 3), np.uint8), np.zeros(2, np.int32)), (3, 2), batch=1, rate=0.1)
    found, missing, apart = epochs.peers_of(problem)
    assert (found, missing, apart) == ({}, {"absent": "not installed"}, {})
    figures = {"epochs": {"small": {"workload": str(problem), "ours s": 1.0, "peers": found, "notes": missing}}}
    (row,) = epochs.rows(figures)
    assert (row.peer, row.ratio, row.note) == ("absent", None, "not installed")
