"""Processes that train together agree on everything before the first step, and on every epoch; they end together."""

import signal
import time

import numpy as np
import pytest

from agreement_cases import cases
from fnn.checkpoint import orbax
from test_parallel import GONE_WITHIN, TESTS, Job, training

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def lines():
    """What every process of two says to each case of agreement_cases.py, by its name."""
    with Job(lambda *given: [TESTS / "agreement_cases.py", *given], 2) as job:
        assert job.statuses(300) == [0, 0], job.said()
        return [dict(line.strip().split(": ", 1) for line in lines if ": " in line) for lines in job.lines]


@pytest.mark.parametrize("name", cases())
def test_what_one_process_has_otherwise_is_refused_by_its_name_in_all(name, lines):
    begins = cases()[name][2]
    assert [of_one[name].startswith(begins) for of_one in lines] == [True, True], [of_one[name] for of_one in lines]
    if begins != "trained":
        assert lines[0][name] == lines[1][name]
        assert "expected the same in every process, got " in lines[0][name]
        assert " in process 0 and " in lines[0][name]


def test_parameters_that_have_become_others_are_noticed_at_the_end_of_the_epoch(lines):
    assert "params: expected the same in every process, got " in lines[0]["diverged"]
    assert f"{'0' * 64} in process 1, at the end of epoch 1; " in lines[1]["diverged"]


# -- ending together ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_sigterm_to_one_process_saves_and_ends_all_with_143(which, tmp_path):
    with Job(training(tmp_path / "ended.npz", 100_000, tmp_path / "run"), 2) as job:
        job.wait_for("epoch 3")
        job.processes[which].send_signal(signal.SIGTERM)
        assert job.statuses(GONE_WITHIN) == [143, 143], job.said()
        assert not any("Traceback" in line for lines in job.lines for line in lines)
        last = [line for line in job.lines[0] if line.startswith("epoch")][-1]
    assert last == f"epoch {orbax.epochs(tmp_path / 'run')[-1]}\n"


ALONE = """
import sys, fnn, jax, numpy as np
fnn.parallel.initialize(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), collective_timeout=4)

def watch(progress):
    print("epoch", progress.epoch, flush=True)
    if sys.argv[1] == "raises" and jax.process_index() == 1 and progress.epoch == 2:
        raise ZeroDivisionError("mine")

data = np.ones((8, 3), np.float32), np.ones((8, 2), np.float32)
mesh = None if sys.argv[1] == "no mesh" and jax.process_index() == 1 else fnn.parallel.data_mesh()
if sys.argv[1] == "ends" and jax.process_index() == 1:
    sys.exit()
fnn.train.fit(fnn.init(jax.random.key(0), (3, 2)), data, fnn.updates.sgd(0.1), loss=fnn.SquaredError(), batch_size=2,
              epochs=3, key=jax.random.key(0), mesh=mesh, callback=watch)
"""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("raises", "RuntimeError: at the end of epoch 2: process 1 has ended: ZeroDivisionError: mine"),
        ("ends", "RuntimeError: at the start of fit: process 1 has ended: its program ended"),
        ("no mesh", "process 1 has "),
    ],
)
def test_what_happens_in_one_process_only_is_an_error_that_names_it_in_the_other(what, told):
    with Job(lambda *given: ["-c", ALONE, what, *given], 2) as job:
        assert job.statuses(GONE_WITHIN + 30, [0]) == [1], job.said()
        assert any(told in line for line in job.lines[0]), job.said()


STREAMED = """
import sys, fnn, jax, numpy as np
file, epochs, kept, *given = sys.argv[1:]
fnn.parallel.initialize(given[0], *map(int, given[1:]))
random = np.random.default_rng(0)
x, y = random.normal(size=(10000, 5)).astype(np.float32), random.integers(0, 3, 10000)
data = fnn.data.Dataset(x, y, chunk_bytes=2000)  # 125 chunks in an epoch
run = fnn.train.fit(fnn.init(jax.random.key(0), (5, 6, 3)), data, fnn.updates.momentum(0.1), batch_size=8,
                    loss=fnn.SoftmaxCrossEntropy(), epochs=int(epochs), key=jax.random.key(1), checkpoint=kept or None,
                    mesh=fnn.parallel.data_mesh(), callback=lambda progress: print("epoch", progress.epoch, flush=True))
if jax.process_index() == 0:
    np.savez(file, *jax.tree.leaves(run.params))
"""


def test_sigterm_inside_an_epoch_of_streamed_data_saves_there_and_the_run_is_resumed_bitwise(tmp_path):
    def words(file, epochs, kept):
        return lambda *given: ["-c", STREAMED, tmp_path / file, epochs, kept, *given]

    kept = tmp_path / "run"
    with Job(words("never.npz", 100_000, kept), 2) as job:
        job.wait_for("epoch 2")
        while not (kept / "2").exists():  # a signal while it is saved ends the run there, and not inside an epoch
            time.sleep(0.001)
        job.processes[1].send_signal(signal.SIGTERM)
        assert job.statuses(GONE_WITHIN) == [143, 143], job.said()
    whole, (inside,) = orbax.epochs(kept)[-1], orbax.epochs(kept / "steps")
    assert whole * 1250 < inside < (whole + 1) * 1250
    for file, directory in (("resumed.npz", kept), ("whole.npz", "")):
        with Job(words(file, whole + 1, directory), 2) as job:
            assert job.statuses(120) == [0, 0], job.said()
    one, other = np.load(tmp_path / "resumed.npz"), np.load(tmp_path / "whole.npz")
    assert all(np.array_equal(one[name], other[name]) for name in other.files)
