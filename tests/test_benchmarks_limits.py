"""What bounds a step: the machine's limit, the variants that were tried, several devices; and which machine it was."""

import json

import jax
import numpy as np
import pytest

from experiments import machine
from experiments.benchmarks import aims, devices, limits, matmuls, peers, variants
from experiments.benchmarks.timing import Row
from fnn.data import Dataset

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
    assert {len(line) for line in lines} == {4 + 2 + len(aims.ELSEWHERE)}
