"""The suite runs what it is told to, keeps what came by device, and says what failed."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cache, machine, table
from experiments.benchmarks import __main__ as suite
from experiments.benchmarks import aims, calls, report, startup, timing
from experiments.benchmarks.timing import Row

pytestmark = pytest.mark.project
ROW = timing.Row("a step", "time", "NumPy", 0.5, (0.4, 0.6), "1 ms", "2 ms")
ROOT = Path(table.HERE).parent


def kept(platform="cpu", **changes):
    record = {
        "platform": platform, "command": "python -m experiments.benchmarks.graph", "seconds": 1.0, "figures": {},
        "date": "2026-01-01", "machine": "a machine", "versions": {"jax": "1"}, "rows": [ROW._asdict()],
    }  # fmt: skip
    return {"graph": record | changes}


def test_every_workload_is_a_module_with_rows():
    for name in suite.WORKLOADS:
        module = importlib.import_module(f"experiments.benchmarks.{name}")
        assert callable(module.main), name
        assert callable(module.rows), name


@pytest.mark.parametrize("name", ["graph", "implicit", "stack", "per_example", "curvature", "startup", "calls"])
def test_the_rows_of_a_committed_record_have_its_ratios(name):
    path = table.GALLERY / f"benchmarks.{name}.json"
    if not path.exists():
        pytest.skip("not measured")
    figures = json.loads(path.read_text())["figures"]
    if name in ("stack", "per_example", "curvature") and "rounds, ms" not in path.read_text():
        pytest.skip("measured before the rounds were kept")
    rows = importlib.import_module(f"experiments.benchmarks.{name}").rows(figures)
    assert rows
    for row in rows:
        if row.spread is not None:
            assert row.spread[0] <= row.ratio <= row.spread[1]
        assert (row.ratio is None) <= bool(row.note or row.measure != "time")


def test_a_section_says_if_other_programs_ran():
    said = "Other programs ran: a load of 12.5 when it began."
    assert said in report.page({"Some CPU": kept(load=12.5)}, suite.WORKLOADS, {})
    assert "Other programs" not in report.page({"Some CPU": kept(load=0.3)}, suite.WORKLOADS, {})


def test_two_ways_are_compared_round_by_round():
    ours = {"ms": 2.0, "rounds, ms": "1 2 6", "temporary MiB": 1.0, "compile s": 0.5}
    theirs = {"ms": 4.0, "rounds, ms": "2 4 8", "temporary MiB": 0.0, "compile s": 1.0}
    time, memory, compiling = timing.against("a step", "its peer", ours, theirs)
    assert (time.ratio, time.spread, time.ours, time.theirs) == (0.5, (0.5, 0.625), "2 ms", "4 ms")
    assert memory.ratio is None
    assert compiling.ratio == 0.5
    assert [row.measure for row in timing.against("a step", "its peer", ours, {"ms": 4.0, "rounds, ms": "2 4 8"})] == [
        "time"
    ]
    (absent,) = timing.against("a step", "its peer", ours, None)
    assert (absent.ratio, absent.note) == (None, "not installed")


def test_ways_that_jax_does_not_compile_are_timed_beside_those_that_it_does():
    rows = timing.measured({"one": (lambda x: 2 * x, (1.0,))}, 3, "one", {"other": lambda: 2})
    assert set(rows["one"]) - set(rows["other"]) == {"temporary MiB", "compile s"}
    assert len(rows["other"]["rounds, ms"].split()) == 3
    assert "other" in timing.table(rows, "one")


def test_the_page_has_a_section_for_every_device_and_says_if_no_accelerator_was_measured():
    cpu, gpu = {"Some CPU": kept()}, {"Some GPU": kept("gpu", machine="another machine")}
    page = report.page(cpu, suite.WORKLOADS, {"Some CPU": "ratios.png"})
    assert "| a step | time | NumPy | 0.50 (0.40–0.60) | 1 ms | 2 ms |  |" in page
    assert "![Ratios on Some CPU](ratios.png)" in page
    assert "Not measured" in page
    both = report.page(gpu | cpu, suite.WORKLOADS, {})
    assert "Not measured" not in both
    assert both.index("## Some CPU") < both.index("a machine; jax 1.") < both.index("## Some GPU")
    assert "another machine; jax 1." in both


def test_pictures_are_drawn_for_every_device(tmp_path):
    names = report.draw(tmp_path, {"Some GPU": kept("gpu"), "Some CPU": kept()}, suite.WORKLOADS)
    assert names == {"Some CPU": "ratios.png", "Some GPU": "ratios-some-gpu.png"}
    assert {path.name for path in tmp_path.iterdir()} == set(names.values())


def test_the_picture_shows_the_times_of_the_first_workload_of_a_table():
    rows = [
        timing.Row("small", "compile time", "peer", 2.0, "2 s", "1 s", ""),
        timing.Row("small", "time", "peer", 0.5, "1 s", "2 s", ""),
        timing.Row("small", "time", "absent", None, "1 s", "", "not installed"),
        timing.Row("large", "time", "peer", 0.7, "7 s", "10 s", ""),
    ]
    assert [row.ratio for row in report.first(rows)] == [0.5]
    assert [row.ratio for row in report.first(rows[:1])] == [2.0]
    assert report.first(rows[2:3]) == []


def test_what_fails_is_told_and_the_others_are_kept_beside_what_was(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "figures.json"
    file.write_text(json.dumps({"Some GPU": kept("gpu")}))
    figures = {"rows": [{
        "graph": "small", "ms": {"ours": 1.0, "jax.grad": 2.0}, "ratio": {"jax.grad": [0.5, 0.4, 0.6]},
        "compile s": {"ours": 1.0, "jax.grad": 1.0}, "temporary MB": {"ours": 1.0, "jax.grad": 1.0},
    }]}  # fmt: skip
    made = {"platform": "cpu", "kind": "cpu", "python": "3"}

    def run(name, rounds, out):
        assert rounds == 2
        if name == "stack":
            return ["Error: no stack", "exit status 1"]
        record = {"made with": made, "figures": figures, "command": "python -m …", "seconds": 2}
        (out / "figures.json").write_text(json.dumps(record))
        return None

    monkeypatch.setattr(suite, "run", run)
    with pytest.raises(SystemExit) as ended:
        suite.main(["--only", "stack", "graph", "--rounds", "2", "--json", str(file), "--no-plot"])
    assert ended.value.code == 1
    assert "stack failed:\n  Error: no stack\n  exit status 1" in capsys.readouterr().out
    records = json.loads(file.read_text())
    model = f"{machine.processor()}, {machine.instructions()}"
    assert set(records) == {"Some GPU", model}
    assert [row["ratio"] for row in records[model]["graph"]["rows"]] == [0.5, 1.0, 1.0]
    page = (tmp_path / "README.md").read_text()
    assert "## Some GPU" in page
    assert "| a graph's step, small | time | jax.grad | 0.50 (0.40–0.60) |" in page


@pytest.mark.process
def test_a_workload_in_a_process_of_its_own_that_fails_leaves_its_last_lines(tmp_path, capsys):
    last = suite.run("no_such_workload", None, tmp_path)
    assert last is not None
    assert "no_such_workload" in " ".join(last)
    assert last[-1] == "exit status 1"
    assert "no_such_workload" in capsys.readouterr().out


class Program:
    """Stands for a process: a second passes before each line that it prints."""

    returncode, now, pid = 0, 0.0, 0

    def __init__(self, *_, **__):
        self.stdout = self.lines()

    def lines(self):
        for line in ("loading\n", "first step\n", "last step\n"):
            Program.now += 1
            yield line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_starting_is_timed_to_the_line_asked_for_or_to_the_end(monkeypatch):
    monkeypatch.setattr(startup.subprocess, "Popen", Program)
    monkeypatch.setattr(startup.time, "perf_counter", lambda: Program.now)
    monkeypatch.setattr(startup, "of_process", lambda pid: Program.now / 2)
    monkeypatch.setattr(startup, "of_children", lambda: Program.now / 4)
    assert startup.seconds((), "first") == (2, 1)
    assert startup.seconds(()) == (3, 0.75)


@pytest.mark.process
def test_a_program_that_fails_or_never_says_the_line_is_not_timed():
    assert startup.seconds(("-c", "print('first')"), "first").wall > 0
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint('first', flush=True)\nprint('last')"
    assert 0.3 <= startup.seconds(("-c", busy)).cpu < 3
    assert not startup.seconds(("-c", busy + "\nwhile time.process_time() < 2: pass"), "first").cpu > 1.5
    with pytest.raises(RuntimeError, match="no such thing"):
        startup.seconds(("-c", "raise ValueError('no such thing')"))
    with pytest.raises(RuntimeError, match="did not come so far:\nfirst"):
        startup.seconds(("-c", "print('first')"), "second")


def test_startup_leaves_its_figures_and_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "seconds", lambda arguments, until="", cache="": startup.Taken(1 + (not cache), 0.5))
    monkeypatch.setattr(startup, "stages", lambda: {"fnn": {"run": 0.1}})
    monkeypatch.setattr(startup, "modules", lambda: {"all of fnn": 20.0})
    startup.main(["--rounds", "2", "--imports", "fnn", "jax", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "figures.json").read_text())
    assert record["figures"]["seconds"]["mnist, kept"] == [1.0, 1.0]
    assert record["claims"][0]["here"] == "2.0 and 1.0 s"
    assert record["claims"][-2]["here"] == "0.50"  # of verify.network, of the CPU
    rows = {(row.workload.split(",")[0], row.peer): row for row in startup.rows(record["figures"])
            if row.measure == "time"}  # fmt: skip
    assert rows["experiments.mnist to its first step", "with nothing kept"].ratio == 0.5
    assert rows["import fnn", "import jax"].ratio == 1.0
    assert rows["import fnn", "import optax"].note == "not installed"


def ask(tmp_path, argv, **environment):
    """What a fresh process that runs ``experiments.cache`` for ``argv`` would tell JAX, and what it says."""
    code = (
        f"import sys, os; sys.orig_argv = {argv!r}; from experiments import cache; cache.keep_compiled()\n"
        "print({k: v for k, v in os.environ.items() if k.startswith(('JAX_COMPILATION', 'JAX_PERSISTENT'))})"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    given = clean | {"XDG_CACHE_HOME": str(tmp_path)} | environment
    ran = subprocess.run([sys.executable, "-c", code], env=given, cwd=ROOT, text=True, capture_output=True, check=True)
    return ran.stdout


@pytest.mark.process
def test_experiments_keep_what_they_compile_and_benchmarks_and_tests_do_not(tmp_path):
    pytest.importorskip("filelock")
    mnist = ["python", "-m", "experiments.mnist", "--epochs", "1"]
    said = ask(tmp_path, mnist)
    assert f"what is kept in {tmp_path / 'fnn' / 'mnist'}" in said
    assert "JAX_COMPILATION_CACHE_MAX_SIZE" in said  # JAX locks the folder only then
    assert "JAX_COMPILATION" not in ask(tmp_path, mnist, JAX_ENABLE_COMPILATION_CACHE="false")
    (tmp_path / "of-another-program-cache").touch()  # without -atime, as JAX leaves it where the size is not bounded
    said = ask(tmp_path, mnist, JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert said == f"{ {'JAX_COMPILATION_CACHE_DIR': str(tmp_path)} }\n"
    assert (tmp_path / "of-another-program-cache").exists()
    assert "JAX_COMPILATION" not in ask(tmp_path, ["python", "-m", "experiments.benchmarks.graph"])
    assert cache.folder() != tmp_path


@pytest.mark.process
def test_an_entry_whose_writer_was_killed_is_removed(tmp_path):
    pytest.importorskip("filelock")
    folder = tmp_path / "fnn" / "mnist"
    folder.mkdir(parents=True)
    for name in ("half-cache", "whole-cache", "whole-atime"):
        (folder / name).write_bytes(b"12345678")
    ask(tmp_path, ["python", "-m", "experiments.mnist"])
    assert {path.name for path in folder.iterdir()} == {"whole-cache", "whole-atime"}


@pytest.mark.process
def test_runs_at_the_same_time_share_what_is_kept(tmp_path):
    """No warning, so no entry was read that another had half written; the second time nothing is new."""
    pytest.importorskip("filelock")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    environment = clean | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONWARNINGS": "error"}

    def together(number):
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "experiments.equations", "--only", "H9"], env=environment, cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for _ in range(number)
        ]  # fmt: skip
        for process in started:
            said, _ = process.communicate()
            assert process.returncode == 0, said
            assert "persistent compilation cache" not in said
        return {path.name for path in (tmp_path / "fnn" / "equations").glob("*-cache")}

    first = together(2)
    assert first
    assert together(1) == first


def test_an_aim_that_is_missed_says_what_the_products_alone_take():
    def row(peer, ratio):
        return Row(aims.SMALL, "time", peer, ratio, (ratio, ratio), "", "")

    rows = [row("NumPy", 0.3), row("PyTorch", 0.1), row("its matrix products alone", 1.25)]
    numpy, pytorch = aims.reached({"epochs": rows})
    assert numpy[2:] == ("NumPy", "≤\N{NO-BREAK SPACE}0.35", "0.300 (0.300–0.300)", "reached")
    assert pytorch[-1] == "not reached: the matrix products alone take 0.080 of the peer's time, ours 1.25 of that"


def test_every_aim_is_of_a_row_that_the_committed_figures_have():
    kept = json.loads((suite.HERE / "figures.json").read_text())
    cpus = [records for records in kept.values() if report.platform(records) == "cpu"]
    assert cpus
    for records in cpus:
        assert len(aims.reached({name: report.rows(record) for name, record in records.items()})) == len(aims.AIMS)


def test_single_calls_of_equal_gradients_are_timed_beside_jax(tmp_path):
    calls.main(["--rounds", "2", "--out", str(tmp_path)])
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert [row.peer for row in calls.rows(figures)] == 2 * [calls.GRAD]
    assert all(row.ratio > 0 for row in calls.rows(figures))
