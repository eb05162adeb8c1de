"""The README's table of experiments is made from what they left."""

import json
from pathlib import Path

import pytest

from experiments import results, table

pytestmark = pytest.mark.project
PROGRAMS = {
    path.stem for path in Path(table.HERE).glob("*.py") if "\ndef main(" in path.read_text()
} - {"table", "find_the_mistake", "flash_attention"}  # fmt: skip


def test_the_readme_and_the_gallery_hold_the_tables_that_the_records_make():
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
    monkeypatch.setattr(table, "HERE", tmp_path / "experiments")
    monkeypatch.setattr(table, "GALLERY", gallery)
    monkeypatch.setattr(table, "README", readme)
    run = results.folder(tmp_path / "run", "thing")
    (run / "thing.png").write_bytes(b"picture")
    claims = [results.Claim("it | holds", "1.00"), results.Claim("so", "2"), results.Claim("as he says", "3", "4")]
    results.save(run, "thing", table.Options(), claims, {}, shortened="all")
    table.main([str(run)])
    assert {path.name for path in gallery.iterdir()} == {"thing.json", "thing.png", "README.md"}
    lines = readme.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    first = "| `python -m experiments.thing` ([picture](gallery/thing.png)) | it \\| holds |  | 1.00 |"
    assert lines[4].startswith(first)
    assert lines[5] == "|  | as he says | 4 | 3 |  |"
    page = (gallery / "README.md").read_text()
    assert "| so |  | 2 |" in page
    assert "Shortened: all." in page


def test_a_command_names_the_options_that_were_changed():
    options = table.Options(runs=(Path("a"), Path("b")))
    assert results.command("thing", options) == "python -m experiments.thing --runs a b"
    assert results.command("thing", table.Options()) == "python -m experiments.thing"


def test_an_infinite_figure_is_refused_for_json_has_none(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        results.save(tmp_path, "thing", table.Options(), [], {"loss": float("inf")})


def test_a_spread_over_seeds_is_mean_and_standard_deviation():
    assert results.spread([0.9, 0.92], factor=100, unit="%") == "91.00 ± 1.41 %"
    assert results.spread([0.5], digits=1) == "0.5"


@pytest.mark.parametrize("record", table.kept(), ids=lambda record: record["experiment"])
def test_a_record_is_small_and_says_what_made_it(record):
    assert len(json.dumps(record)) < 60_000
    assert {"jax", "python", "device"} <= set(record["made with"])
