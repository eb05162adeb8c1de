"""The benchmarks of size: they run on little, and what they say is what they measured."""

import json

import numpy as np
import pytest

from experiments.benchmarks import chain_rule, growth, matmuls, memory

pytestmark = pytest.mark.project


def figures(folder):
    record = json.loads((folder / "figures.json").read_text())
    assert all(claim["here"] for claim in record["claims"])
    return record["figures"]


def test_an_exponent_is_found_with_its_standard_error():
    """On the upper half alone: the lower half has a constant cost and would pull the exponent down."""
    sizes = 2.0 ** np.arange(1, 13)
    exact = growth.fitted(sizes, 100 * (sizes < 100) + 3 * sizes**2)
    assert exact == pytest.approx((2, 0, 3, 6), abs=1e-9)

    noise = np.random.default_rng(0).normal(0, 0.1, (4000, 6))
    fits = [growth.fitted(sizes[-6:], np.exp(row) * sizes[-6:] ** 1.5) for row in noise]
    assert np.std([fit.exponent for fit in fits]) == pytest.approx(
        np.sqrt(np.mean([fit.error**2 for fit in fits])), rel=0.2
    )
    with pytest.raises(ValueError, match="at least 3"):
        growth.fitted((1, 2), (1, 2))


@pytest.mark.slow
def test_memory_tells_ours_from_jax_grads(tmp_path):
    sizes = ["--depths", "3", "--widths", "8", "--batches", "256", "--narrow-depths", "2", "6", "--rounds", "2"]
    memory.main([*sizes, "--only", "ReLU", "--out", str(tmp_path)])
    found = figures(tmp_path)
    assert set(found["networks"]) == {"3 × 8, batch 256"}
    relu = found["networks"]["3 × 8, batch 256"]["ReLU"]
    assert relu["memory ratio"] < 0.8  # it does not depend on the machine's mood
    assert relu["results MiB"] == pytest.approx(4 * (3 * 8 * 9 + 10 * 9) / 2**20, abs=0.005)
    rows = {(row.workload, row.measure): row for row in memory.rows(found)}
    assert rows["gradient, 3 × 8, batch 256, ReLU", "temporary memory"].ratio == relu["memory ratio"]
    hidden, shown = (found["by depth"][way] for way in ("one by one", "one by one, length alone"))
    assert shown["6"] - shown["2"] > 2 * (hidden["6"] - hidden["2"])  # else the figure means something else by now
    lower, upper = rows["gradient, 3 × 8, batch 256, ReLU", "time"].spread
    assert 0 < lower <= upper


def test_every_activation_has_its_plain_twin():
    """Else the comparison is of two networks."""
    z = np.linspace(-3, 3, 25, dtype=np.float32).reshape(5, 5)
    for name, (activation, value) in memory.ACTIVATIONS.items():
        np.testing.assert_allclose(activation.value(z), value(z), rtol=1e-5, atol=1e-6, err_msg=name)


def test_matmuls_name_every_peer_measured_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(matmuls.importlib.util, "find_spec", lambda name: None)
    sizes = ["--shapes", "2", "8", "4", "--precisions", "bfloat16"]
    matmuls.main([*sizes, "--rounds", "2", "--out", str(tmp_path)])
    rows = matmuls.rows(figures(tmp_path))
    assert {row.workload for row in rows} == {"gradient, 2 × 8, batch 4, bfloat16"}
    measured = ["its products alone", "jax.grad", "the measured rate"]
    missing = ["PyTorch eager", "PyTorch compile", "Flax"]
    assert [row.peer for row in rows] == measured + missing
    assert all((row.ratio is None) == (row.note == "not installed") == (row.peer in missing) for row in rows)


@pytest.mark.slow
def test_growth_fits_and_draws_every_quantity(tmp_path):
    growth.main([
        "--depths", "2", "3", "4", "--widths", "4", "8", "16", "2048", "--batches", "1", "2", "4",
        "--examples", "100", "200", "400", "--rounds", "2", "--gib", "0.05", "--out", str(tmp_path),
    ])  # fmt: skip
    found = figures(tmp_path)
    assert list(found["width"]["ms"]) == list(found["width"]["MiB"]) == ["4", "8", "16"]
    assert found["width"]["left out, GiB"] == {"2048": 0.1}
    assert all(low <= middle <= high for of in found.values() for middle, low, high in of["ms"].values())
    assert [row.theirs for row in growth.rows(found)] == ["1", "1", "2", "2", "1", "1", "1", "1"]
    assert found["width"]["MiB"]["16"] > 2 * 4 * 2 * 16**2 / 2**20  # two layers, and their gradients
    assert (tmp_path / "benchmarks.growth.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_backward_order_grows_slowest(tmp_path):
    chain_rule.main([
        "--depths", "2", "4", "8", "--widths", "16", "--width", "4", "--depth", "2",
        "--rounds", "2", "--most-gflop", "0.001", "--out", str(tmp_path),
    ])  # fmt: skip
    found = figures(tmp_path)
    assert max(found["deviation"].values()) < 2e-2  # the differences' own error
    assert all(found["deviation"][way] < 1e-5 for way in found["deviation"] if way != "differences")
    deepest = {way: of["flop"]["8"] for way, of in found["growth"]["depth"].items()}
    assert min(deepest, key=deepest.get) == "backward order"
    depth = {way: of["flop fit"]["exponent"] for way, of in found["growth"]["depth"].items()}
    assert depth.pop("backward order") < 1.2 < 1.5 < min(depth.values())
    rows = chain_rule.rows(found)
    assert {row.measure for row in rows} == {"time", "floating-point operations"}
    assert [row.note for row in rows if row.ratio is None] == ["above --most-gflop"]
    assert (tmp_path / "benchmarks.chain_rule.png").stat().st_size > 10_000
