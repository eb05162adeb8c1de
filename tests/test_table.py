"""The table of experiments is made from what they left."""

import json
import re
from pathlib import Path

import pytest

from experiments import results, table

pytestmark = pytest.mark.project
PROGRAMS = {
    path.stem for path in Path(table.HERE).glob("*.py") if "\ndef main(" in path.read_text()
} - {"table", "find_the_mistake", "report_picture", "flash_attention", "accelerator"}  # fmt: skip


def test_the_two_pages_hold_the_tables_that_the_records_make():
    readme, gallery = table.README.read_text(), (table.GALLERY / "README.md").read_text()
    made = table.between(readme, table.markdown(table.kept(), table.leading))
    assert readme == made, "write python -m experiments.table"
    assert gallery == table.page(table.kept()), "write python -m experiments.table"


def test_every_experiment_has_left_a_record_with_claims():
    records = {record["experiment"]: record for record in table.kept()}
    assert set(records) >= PROGRAMS
    for name, record in records.items():
        assert record["command"].startswith(f"python -m experiments.{name}")
        assert record["claims"]
        assert record["seconds"] > 0


def test_keeping_a_run_puts_its_record_and_picture_in_the_gallery(tmp_path, monkeypatch):
    gallery, readme = tmp_path / "gallery", tmp_path / "README.md"
    gallery.mkdir()
    readme.write_text(f"before\n{table.BEGIN}old\n{table.END}after\n")
    monkeypatch.setattr(table, "HERE", tmp_path)
    monkeypatch.setattr(table, "GALLERY", gallery)
    monkeypatch.setattr(table, "README", readme)
    monkeypatch.setattr("experiments.machine.instructions", lambda: table.USUAL)
    run = results.folder(tmp_path / "run", "thing")
    (run / "thing.png").write_bytes(b"picture")
    claims = [
        results.Claim("it | holds", "1.00"),
        results.Claim("so", "2"),
        results.Claim("as he says", "3", "4", "one seed"),
    ]
    results.save(run, "thing", table.Options(), claims, {}, shortened="all")
    table.main([str(run)])
    assert {path.name for path in gallery.iterdir()} == {"thing.json", "thing.png", "README.md"}
    lines = readme.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    first = "| `python -m experiments.thing` ([picture](gallery/thing.png)) | it \\| holds |  | 1.00 |  |"
    assert lines[4].startswith(first)
    assert lines[5] == "|  | as he says | 4 | 3 | one seed |  |"
    page = (gallery / "README.md").read_text()
    assert "| so |  | 2 |  |" in page
    assert "| as he says | 4 | 3 | one seed |" in page
    assert "Shortened: all." in page


def test_the_gallery_says_what_a_run_at_full_length_is(tmp_path):
    program = tmp_path / "thing.py"
    program.write_text('"""A thing.\n\nMore.\n\n``--full``: ten epochs,\nor ``--epochs 10``.\n\nEnd.\n"""\n')
    assert table.at_length(program) == ["`python -m experiments.thing --full`: ten epochs, or `--epochs 10`."]
    program.write_text('"""A thing."""\n')
    assert table.at_length(program) == table.at_length(tmp_path / "none.py") == []
    page = (table.GALLERY / "README.md").read_text()
    for path in table.HERE.glob("*.py"):
        if "full: bool" in path.read_text():
            assert f"`python -m experiments.{path.stem} --full`: " in page


def test_a_claim_beside_a_published_figure_says_what_differs(tmp_path):
    with pytest.raises(ValueError, match="expected what differs from the published figure, got none: as he says"):
        results.save(tmp_path, "thing", table.Options(), [results.Claim("as he says", "3", "4")], {})
    assert not list(tmp_path.iterdir())
    for record in table.kept():
        for claim in record["claims"]:
            assert bool(claim["published"]) == bool(claim["differs"]), claim["claim"]


def test_what_was_not_reproduced_is_said_in_the_readme():
    rows = [claim for record in table.kept() for claim in table.leading(record)]
    whole = [row for row in rows if row["claim"].startswith("the whole training set")]
    assert all(re.search(r"\d+ epochs", row["claim"]) for row in whole)
    assert any(re.match("(not )?reproduced", row["differs"]) for row in whole)
    waiting = next(row["differs"] for row in rows if row["claim"].startswith("it stays there"))
    assert "the rate was chosen for speed" in waiting
    missed = [row["published"] for row in rows if row["differs"].startswith("not reproduced")]
    assert sum("figure" in published for published in missed) == 3  # figure 3, and figure 6 twice


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({}, ""),
        ({"platform": "cpu", "kind": "cpu", "instructions": "AVX-512"}, ""),
        ({"platform": "cpu", "kind": "cpu", "instructions": "AVX2"}, " on AVX2"),
        ({"platform": "gpu", "kind": "NVIDIA H200", "instructions": "AVX-512"}, " on NVIDIA H200"),
    ],
)
def test_a_record_of_another_device_or_instruction_set_says_so(made, words):
    assert table.on({"made with": made}) == words


def test_a_command_names_the_options_that_were_changed():
    options = table.Options(runs=(Path("a"), Path("b")))
    assert results.command("thing", options) == "python -m experiments.thing --runs a b"
    assert results.command("thing", table.Options()) == "python -m experiments.thing"


def test_an_infinite_figure_is_refused_for_json_has_none(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        results.save(tmp_path, "thing", table.Options(), [], {"loss": float("inf")})


def test_a_record_has_one_line_for_each_claim_and_each_curve(tmp_path):
    claims = [results.Claim("it holds " * 40, "1.00"), results.Claim("so", "2")]
    curves = {"loss": [i / 7 for i in range(200)], "path": [(i, 0.1 * i) for i in range(200)], 5: {"a": 1, "b": None}}
    results.save(tmp_path, "thing", table.Options(), claims, {"seed 0": curves})
    text = (tmp_path / "figures.json").read_text()
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    for claim in claims:
        assert json.dumps(claim._asdict()) in lines
    for name in ("loss", "path"):
        assert f'"{name}": {json.dumps(curves[name])}' in lines
    assert '"5": {"a": 1, "b": null}' in lines
    assert json.loads(text)["figures"] == json.loads(json.dumps({"seed 0": curves}))


@pytest.mark.parametrize("value", [{}, {"a": []}, {"é": ["ü" * 400, {"b": [[[1, "x"] * 90] * 2]}]}, {"a": [{}] * 150}])
def test_the_compact_form_changes_no_value(value):
    assert json.loads(results.compact(value)) == value


KEPT = [*table.GALLERY.glob("*.json"), table.HERE / "benchmarks" / "figures.json"]


@pytest.mark.parametrize("file", KEPT, ids=lambda path: path.name)
def test_every_kept_file_is_in_the_compact_form(file):
    assert file.read_text() == results.compact(json.loads(file.read_text())), "write results.compact(record)"


def test_a_spread_over_seeds_is_mean_and_standard_deviation():
    assert results.spread([0.9, 0.92], factor=100, unit="%") == "91.00 ± 1.41 %"
    assert results.spread([0.5], digits=1) == "0.5"


@pytest.mark.parametrize("record", table.kept(), ids=lambda record: record["experiment"])
def test_a_record_is_small_and_says_what_made_it(record):
    assert len(json.dumps(record)) < 60_000
    assert {"jax", "python", "device"} <= set(record["made with"])
