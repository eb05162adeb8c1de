"""The benchmarks of streamed data and of many networks: what they compare trains alike, and their rows say so."""

import json

import numpy as np
import pytest

from experiments.benchmarks import ensembles, streaming
from fnn.data import Dataset

pytestmark = pytest.mark.project


def small_problem():
    random = np.random.default_rng(0)
    data = Dataset(random.integers(0, 256, (60, 784), np.uint8), np.eye(10, dtype=np.float32)[np.arange(60) % 10])
    return streaming.Problem(data, (784, 30, 10), batch=10, rate=3.0)


def require_rows(rows, count: int) -> None:
    assert len(rows) == count
    for row in rows:
        assert 0 < row.spread[0] <= row.ratio <= row.spread[1]
        assert row.ours.endswith(" ms")
        assert row.theirs.endswith(" ms")


def test_streamed_data_are_measured_beside_those_in_memory(tmp_path):
    arguments = ("--workloads", "small", "--examples", "60", "--chunk-bytes", "20000", "--rounds", "2")
    streaming.main([*arguments, "--out", str(tmp_path)])
    record = json.loads((tmp_path / "figures.json").read_text())
    require_rows(streaming.rows(record["figures"]), 3)
    share = 1 / record["figures"]["streaming"]["small"]["ways"]["memory-mapped"]["/ in memory"][0]
    assert record["claims"][0]["here"] == f"784-30-10 {share:.0%}"


def test_data_that_lead_elsewhere_are_not_timed(tmp_path):
    problem = small_problem()
    given = streaming.ways(problem, tmp_path, 20_000)
    assert all(data.chunk_bytes == 20_000 for name, data in given.items() if name != streaming.BASE)
    other = Dataset(255 - problem.data.x, problem.data.y)
    with pytest.raises(ValueError, match="^other: other parameters than with the data in memory"):
        streaming.require_equal(problem, {streaming.BASE: problem.data, "other": other})


def test_networks_together_are_measured_beside_one_by_one(tmp_path):
    arguments = ("--networks", "20-16-4, batch 10", "--members", "2", "--examples", "40", "--rounds", "2")
    ensembles.main([*arguments, "--out", str(tmp_path)])
    record = json.loads((tmp_path / "figures.json").read_text())
    (row,) = rows = ensembles.rows(record["figures"])
    require_rows(rows, 1)
    assert row.workload == "an epoch of 2 networks 20-16-4, batch 10, by fit_many"
    assert record["claims"][0]["here"] == f"20-16-4, batch 10 {row.ratio:.2f}"
