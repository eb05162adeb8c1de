"""What bounds a step, what was tried, what several devices and parts of training cost, and which machine it was."""

import json
from importlib.util import find_spec

import jax
import numpy as np
import pytest

import fnn
from experiments import machine
from experiments.benchmarks import aims, costs, devices, epochs, graph, limits, matmuls, peers, per_example, variants
from experiments.benchmarks.timing import Row
from fnn.data import Dataset
from fnn.graph import Graph

pytestmark = pytest.mark.project


def problem(sizes=(6, 8, 8, 3), batch=4, **options):
    random = np.random.default_rng(0)
    data = Dataset(random.integers(0, 256, (40, sizes[0]), np.uint8), random.integers(0, sizes[-1], 40, np.int32))
    return peers.Problem(data, sizes, batch, rate=0.1, **options)


def test_the_operations_of_a_step_are_those_that_xla_counts():
    of = problem((64, 64, 64, 64), batch=64)
    x = np.ones((64, 64), np.float32)
    counted = jax.jit(matmuls.products).lower(of.params, x, x).cost_analysis()["flops"]
    assert limits.operations(of) == matmuls.operations(matmuls.Shape(3, 64, 64)) == pytest.approx(counted, rel=0.01)


def test_a_step_with_momentum_moves_more_bytes():
    weights = 6 * 8 + 8 * 8 + 8 * 3
    assert limits.moved(problem()) == 4 * (4 * weights - 6 * 8) + 4 * 6
    assert limits.moved(problem(alpha=0.9)) - limits.moved(problem()) == 4 * 2 * weights


def test_the_limit_says_what_it_is_made_of():
    limit = limits.Limit(problem())
    limit.train(None)
    assert "GFLOP/s" in limit.note
    assert "GB/s" in limit.note


@pytest.mark.slow
def test_every_variant_of_a_step_ends_where_the_step_does(tmp_path):
    variants.main(["--examples", "240", "--rounds", "2", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert len(variants.rows(found)) == len(found["variants"]) - 1 + len(variants.LARGER)
    assert found["variants"][variants.BASE]["/ as it is"] == [1, 1, 1]


def test_a_variant_that_computes_something_else_is_refused(monkeypatch):
    def wrong(delta, x, W):
        return W - 1.01 * variants.RATE * (delta.T @ x)

    monkeypatch.setattr(variants, "turned", wrong)
    with pytest.raises(
        ValueError, match="δᵀ of \\(3\\) as an array: .* of the way from where the loop as it is arrives"
    ):
        variants.measure(variants.Options(examples=240, rounds=1))


def test_what_a_device_receives_is_counted_by_its_bytes():
    text = """
  %all-gather.1 = f32[8,64]{1,0} all-gather(%a), channel_id=1
  %sums = (f32[8]{0}, /*index=1*/f32[8,2]{1,0}) all-reduce(%b, %c), channel_id=2
  %all-gather-start.2 = (f32[4]{0}, f32[16]{0}) all-gather-start(%d), channel_id=3
  %other = f32[100]{0} add(%e, %f)
"""
    assert devices.received(text) == 4 * (8 * 64 + 8 + 16 + 4 + 16)


def test_one_device_alone_receives_nothing(tmp_path):
    devices.main(["--devices", "1", "--width", "32", "--rounds", "2", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert [step["MiB received"] for step in found["steps"].values()] == [0, 0]
    assert devices.rows(found) == []


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("flags\t\t: fpu avx avx2 avx512f", "AVX-512"),
        ("flags : sse4_2 avx avx2", "AVX2"),
        ("Features : fp asimd", "NEON"),
    ],
)
def test_the_instructions_are_the_widest_of_the_processor(flags, name, tmp_path, monkeypatch):
    told = tmp_path / "cpuinfo"
    told.write_text(f"model name\t: Some CPU\n{flags}\n")
    monkeypatch.setattr(machine, "INFORMATION", told)
    assert (machine.processor(), machine.instructions()) == ("Some CPU", name)


def test_an_aim_is_said_to_hold_or_not_on_every_processor():
    first, *_ = aims.AIMS
    row = Row(first.workload, first.measure, first.peer, first.bound + 0.1, None, "", "")
    lines = aims.by_processor({"one": {first.module: [row]}, "other": {}})
    assert lines[0][4:6] == (f"({row.ratio:.3g})", "")
    assert {len(line) for line in lines} == {4 + 2}


def test_costs_are_beside_the_same_without(tmp_path):
    costs.main(["--steps", "2", "--epochs", "3", "--rounds", "2", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "figures.json").read_text())["figures"]
    rows = costs.rows(found)
    assert len(rows) == len(costs.PARTS) - 1 + len(found["bookkeeping"]) - 1
    assert {row.peer for row in rows} == {costs.PLAIN, costs.ALONE}
    assert found["parts"][costs.PLAIN]["ratio"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("sizes", "installed", "why"),
    [((2, 3, 2), False, "not installed"), ((900, 101, 2), True, "left out above 1000 neurons")],
)
def test_connex_is_left_out_with_a_reason(sizes, installed, why, monkeypatch):
    monkeypatch.setattr(graph, "find_spec", lambda name: installed or None)
    params = Graph.layered(sizes, fnn.Tanh()).init(jax.random.key(0))
    made, missing = graph.connex_step(params, None, None)
    assert made == {}
    assert missing["connex"].startswith(why)


@pytest.mark.parametrize("name", ["MLX", "torch.compile, tuned and fused"])
def test_a_peer_that_is_not_installed_is_a_row_that_says_so(name):
    if all(find_spec(package) for package in ("mlx", "torch")):
        pytest.skip("both are installed")
    _, missing, _ = epochs.peers_of(problem((784, 8, 10)), [name])
    assert missing[name] in ("not installed", "left out")
    figure = {"workload": "a net", "ours s": 1.0, "peers": {}, "notes": missing}
    rows = {row.peer: row for row in epochs.rows({"epochs": {"one": figure}})}
    assert (rows[name].ratio, rows[name].note) == (None, missing[name])


def test_optax_clips_as_the_clipped_rows_do():
    params = fnn.init(jax.random.key(0), (6, 8, 3), activation=fnn.ReLU())
    x, y = np.random.default_rng(0).random((5, 6), np.float32), np.array([0, 1, 2, 0, 1], np.int32)
    ours = fnn.per_example.clipped(params, x, y, per_example.CLIP, loss=per_example.LOSS)
    with jax.numpy_dtype_promotion("standard"):
        theirs = per_example.optax_clipped(params, x, y)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
