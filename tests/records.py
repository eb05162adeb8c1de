"""What the tests of experiments share."""

import json


def left(folder, name: str) -> dict:
    """The record that a run left, after a look at its files and its claims."""
    assert {path.name for path in folder.iterdir()} == {"figures.json", f"{name}.png"}
    assert (folder / f"{name}.png").stat().st_size > 10_000
    record = json.loads((folder / "figures.json").read_text())
    assert record["experiment"] == name
    assert all(claim["here"] for claim in record["claims"])
    return record
