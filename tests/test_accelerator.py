"""The script for a fresh accelerator runs on the CPU as a rehearsal, and calls nothing there a record of a GPU."""

import json

import jax
import jax.numpy as jnp
import pytest

from experiments import accelerator, row_softmax, table

pytestmark = pytest.mark.project
LONG = "--minutes", "1000"  # since the start of the process, which may have run other tests


@pytest.mark.slow
def test_on_a_cpu_every_part_runs_in_small_and_the_record_says_what_it_is(tmp_path, capsys):
    accelerator.main([*LONG, "--programs", "forward: ", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "figures.json").read_text())
    figures = record["figures"]
    assert "no accelerator" in capsys.readouterr().out
    assert record["experiment"] == "accelerator, rehearsed on a CPU"
    assert [*figures] == [*accelerator.PARTS] == [*accelerator.CLAIMS]
    assert [name for name, found in figures.items() if "left out" in found] == []
    assert figures["every program"]["ran"] == 7
    assert figures["every program"]["largest distance"] == 0
    assert figures["kernel"]["right passes"]
    assert figures["kernel"]["wrong found"] == ["dx"]
    assert figures["resumed"]["differ in a bit"] == 0
    assert figures["clipping"]["distance from vmap(grad)"] < 1e-5
    assert len(record["claims"]) == len(accelerator.PARTS)


def test_without_an_accelerator_nothing_is_saved(capsys):
    with pytest.raises(SystemExit, match="nothing to save without an accelerator"):
        accelerator.main(["--save", "--only", "kernel"])
    assert "no accelerator" in capsys.readouterr().out
    for path in table.GALLERY.glob("accelerator*.json"):
        assert json.loads(path.read_text())["made with"]["platform"] != "cpu"


def test_a_part_that_fails_or_that_the_time_does_not_reach_leaves_the_others(tmp_path, monkeypatch, capsys):
    def fails(options):
        raise RuntimeError("no such product")

    monkeypatch.setitem(accelerator.PARTS, "clipping", fails)
    accelerator.main([*LONG, "--only", "clipping", "kernel", "--out", str(tmp_path)])
    claims = json.loads((tmp_path / "figures.json").read_text())["claims"]
    assert [claim["here"] for claim in claims] == ["it failed: RuntimeError: no such product", "True, True"]
    accelerator.main(["--minutes", "0", "--only", "kernel", "--out", str(tmp_path)])
    (claim,) = json.loads((tmp_path / "figures.json").read_text())["claims"]
    assert claim["here"] == "after 0 minutes"


@pytest.mark.parametrize(("backend", "platform"), [("gpu", "cuda"), ("tpu", "tpu")])
def test_its_kernel_is_lowered_for_gpus_and_tpus(backend, platform, monkeypatch):
    if platform == "cuda" and not jax.__version__.startswith("0.10."):
        pytest.skip("later versions ask a GPU before they lower a kernel for it")
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    softmax = row_softmax.row_softmax()
    step = jax.jit(jax.grad(lambda x: (softmax(x) ** 2).sum()))
    lowered = step.trace(jnp.ones((2 * row_softmax.TILE, 128))).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("custom_call @") == 2  # forwards and back
