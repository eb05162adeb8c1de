"""Data parallel training on several devices and in several processes: both on CPU, on this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import fnn

pytestmark = pytest.mark.process
TESTS = Path(__file__).parent
GONE_WITHIN = 30  # seconds after a process dies or stops: a bound on hanging


def started(words, devices=1, **streams):
    """A Python process with so many CPU devices, which checks what the tests of this process check."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # the experiments' is the user's
        "XLA_FLAGS": flags.strip(),
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "JAX_DEBUG_KEY_REUSE": "1",
    }
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=TESTS.parent, text=True, **streams)


def printed(words, devices):
    process = started(words, devices, stderr=subprocess.PIPE)
    try:
        said, complaints = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, complaints[-2000:]
    return said


class Job:
    """Processes of one training run and the lines that they print; none outlives the with statement."""

    def __init__(self, words, count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.lines, self.silent, self.heard = [[] for _ in range(count)], set(), threading.Condition()
        self.processes = [started(words(address, count, i), stderr=subprocess.STDOUT) for i in range(count)]
        self.listeners = [threading.Thread(target=self.listen, args=(i,)) for i in range(count)]
        for listener in self.listeners:
            listener.start()

    def listen(self, i):
        """Note what a process prints, until its end."""
        with self.processes[i].stdout as lines:
            for line in lines:
                with self.heard:
                    self.lines[i].append(line)
                    self.heard.notify_all()
        with self.heard:
            self.silent.add(i)
            self.heard.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()  # a stopped one too
            process.wait()
        for listener in self.listeners:
            listener.join()

    def wait_for(self, line, seconds=120):
        """Until process 0 says ``line``, while all live."""
        with self.heard:
            self.heard.wait_for(lambda: f"{line}\n" in self.lines[0] or self.silent, seconds)
        assert not self.silent, self.said()
        assert f"{line}\n" in self.lines[0], self.said()

    def statuses(self, seconds, of=None):
        """How the processes end, those numbered ``of`` or all, waiting no longer."""
        numbers = range(len(self.processes)) if of is None else of
        with self.heard:
            ended = self.heard.wait_for(lambda: self.silent.issuperset(numbers), seconds)
        assert ended, f"a process still runs after {seconds} s\n{self.said()}"
        return [self.processes[i].wait() for i in numbers]

    def said(self):
        return "\n".join(f"-- process {i}\n{''.join(lines)[-1500:]}" for i, lines in enumerate(self.lines))


def training(file, epochs, checkpoint=""):
    return lambda address, count, i: [TESTS / "training_process.py", file, epochs, checkpoint, address, count, i]


def check_errors(report):
    for case, error in report["errors"].items():
        assert error < (1e-12 if "float64" in case else 1e-5), f"{case}: {error:.1e}"


def test_several_devices_train_as_one_does_with_one_message_per_step():
    said = printed([TESTS / "parallel_cases.py", "one"], devices=8)
    report = json.loads(said)
    check_errors(report)
    assert len(report["errors"]) == 1
    assert report["messages"] == [{"all-reduce": 1, "all-gather": 0, "all-to-all": 0}]
    assert "batch_size: expected a multiple of 8, the number of devices in mesh, got 20; write batch_size=24" in said
    assert report["members"] < 1e-5


@pytest.mark.slow
def test_two_four_and_eight_devices_train_every_kind_of_network_as_one_does():
    report = json.loads(printed([TESTS / "parallel_cases.py", "all"], devices=8))
    check_errors(report)
    assert len(report["errors"]) == 13 + 6
    in_order, with_norms = report["messages"]
    assert in_order == {"all-reduce": 0, "all-gather": 1, "all-to-all": 1}
    assert with_norms["all-reduce"] == 1
    assert 0 < with_norms["all-gather"] <= 9  # of three batch norms: μ and ν, and the pull-back's two means in one
    assert report["compiled by a second fit"] == []
    assert report["rows and gathered mini-batches are trained alike"]


def check_shards(report):
    assert report["where"] == {"hidden layers": [[0.25], [0.25], [0.25]], "output": [1]}  # 3 neurons: whole on all
    assert report["resumed"].pop("its shards") == [0.25]
    assert report["resumed"].pop("elsewhere") < 1e-12
    assert report["resumed"] == {"from its checkpoint": True, "in memory": True}
    assert max(report["used"]) < 1e-12
    same, error = report["streamed"]
    assert same
    assert error < 1e-12
    alone, spread = report["diverged"]
    assert alone == spread
    error, shares = report["two axes"]
    assert error < 1e-12
    assert shares == [0.5]
    assert report["messages"] == ["8", "8,64"]  # of 8 examples: neurons' values and an output's sums, and never a W
    assert all(0.24 < share < 0.27 for share in report["memory"])  # of one device's, on each of four


@pytest.mark.parametrize("which", ["some", pytest.param("all", marks=pytest.mark.slow)])
def test_layers_in_shards_train_as_whole_ones_do_and_no_device_ever_holds_a_whole_one(which):
    report = json.loads(printed([TESTS / "shard_cases.py", which], devices=4))
    assert len(report["errors"]) == {"some": 6, "all": 12}[which]
    assert all(error < 1e-12 for error in report["errors"].values()), report["errors"]
    check_shards(report)
    begins = {
        "width": "ValueError: shard: 'layers' needs hidden widths that are multiples of 4, the number of devices in "
        "mesh, got 6 in params[0]; write 8, or shard='data'",
        "no mesh": "ValueError: mesh: shard='layers' needs one; write mesh=fnn.parallel.data_mesh()",
        "name": "ValueError: shard: expected 'data' or 'layers', got 'rows'",
        "graph": "TypeError: shard: 'layers' shards the rows of every W, and a graph has none; write shard='data'",
    }
    for name, begin in begins.items():
        assert report["refused"][name].startswith(begin), report["refused"][name]


@pytest.mark.parametrize("others", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_after_a_process_is_killed_the_run_goes_on_from_its_checkpoint_with_as_many_processes_or_others(
    others, tmp_path
):
    """Bitwise as one process with as many devices does. With as many processes, bitwise as if nothing had happened, and
    with others but for rounding. With batch norm and dropout, whose messages and masks are shared as well.
    """
    kept, epochs = tmp_path / "run", 400
    with Job(training(tmp_path / "killed.npz", epochs, kept), 2) as job:
        job.wait_for("epoch 5")
        job.processes[1].kill()
        assert job.statuses(GONE_WITHIN, [0]) != [0], job.said()
    reached = max(int(folder.name) for folder in kept.iterdir() if folder.name.isdecimal())
    assert 4 <= reached < epochs
    more = reached + 4

    def went_on(processes, devices):
        """What so many processes leave, or one with so many devices, that go on from a copy of the checkpoint."""
        name = f"{processes}-{devices}"
        file, copy = tmp_path / f"{name}.npz", shutil.copytree(kept, tmp_path / name)
        if processes == 1:
            said = printed([TESTS / "training_process.py", file, more, copy], devices)
        else:
            with Job(training(file, more, copy), processes) as job:
                assert job.statuses(180) == [0] * processes, job.said()
            said = "".join(job.lines[0])
        assert f"epoch {reached}\n" not in said
        return np.load(file)

    printed([TESTS / "training_process.py", tmp_path / "whole.npz", more, ""], devices=2)
    whole, again, other = np.load(tmp_path / "whole.npz"), went_on(2, 1), went_on(others, 1)
    bitwise = [(whole, again)] + ([(went_on(1, others), other)] if others > 1 else [])
    for one, several in bitwise:
        assert one.files == several.files
        assert all(np.array_equal(one[name], several[name]) for name in one.files)
    for name in whole.files:
        np.testing.assert_allclose(other[name], whole[name], rtol=1e-3, atol=1e-4)


MNIST = """
import sys
from experiments import figures, mnist
mnist.check_gradient = figures.learning_curves = figures.mistakes = lambda *_: None  # which take most of the time
mnist.main(sys.argv[1:])
"""


def test_mnist_in_several_processes_learns_bitwise_what_one_process_learns(tmp_path):
    mnist = ["-c", MNIST, "--examples", 320, "--epochs", 2, "--hidden", 16, "--out"]
    printed([*mnist, tmp_path / "one", "--data-parallel"], devices=2)

    def words(address, count, i):
        given = ["--coordinator-address", address, "--num-processes", count, "--process-id", i]
        return [*mnist, tmp_path / f"of-{i}", "--distributed", *given]

    with Job(words, 2) as job:
        assert job.statuses(300) == [0, 0], job.said()
    assert [(tmp_path / f"of-{i}").exists() for i in range(2)] == [True, False]
    assert any(line.startswith("epoch  2  loss") for line in job.lines[0])
    assert not any("epoch" in line for line in job.lines[1])
    one, several = (fnn.checkpoint.load(tmp_path / name / "seed-0.safetensors") for name in ("one", "of-0"))
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(several)))
    histories = [json.loads((tmp_path / name / "figures.json").read_text())["figures"] for name in ("one", "of-0")]
    for record in (record for history in histories for record in history["seed 0"]):
        del record["seconds"]
    assert histories[0] == histories[1]


FITS = """
import signal, sys, fnn, jax, numpy as np

def stuck(*_):
    while True:
        signal.pause()

signal.signal(signal.SIGUSR1, stuck)
fnn.parallel.initialize(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
targets = jax.process_index() if sys.argv[1] == "other data" else 0
data = np.ones((8, 3), np.float32), np.full((8, 2), targets, np.float32)
fnn.train.fit(fnn.init(jax.random.key(0), (3, 2)), data, fnn.updates.sgd(0.1), loss=fnn.SquaredError(), batch_size=2,
              epochs=1_000_000, key=jax.random.key(0), mesh=fnn.parallel.data_mesh(),
              callback=lambda state: print("epoch", state.epoch, flush=True))
"""


@pytest.mark.parametrize(  # a process other than 0 that is killed: in the test of a run that goes on
    ("sign", "which"), [(signal.SIGKILL, 0), (signal.SIGSTOP, 0), (signal.SIGSTOP, 1), (signal.SIGUSR1, 1)]
)
def test_where_a_process_dies_stops_or_is_stuck_the_other_ends_with_an_error(sign, which):
    with Job(lambda *given: ["-c", FITS, "", *given], 2) as job:
        job.wait_for("epoch 3")
        job.processes[which].send_signal(sign)
        began = time.monotonic()
        (status,) = job.statuses(GONE_WITHIN, [1 - which])
        print(f"{sign.name} of process {which}: {status} after {time.monotonic() - began:.1f} s")
        assert status != 0


def test_layers_are_not_sharded_over_several_processes():
    script = FITS.replace("mesh=fnn.parallel.data_mesh(),", "mesh=fnn.parallel.data_mesh(), shard='layers',")
    with Job(lambda *given: ["-c", script, "", *given], 2) as job:
        assert job.statuses(GONE_WITHIN + 30) == [1, 1]
        assert "shard: 'layers' needs devices of one process" in job.said()


def test_an_error_in_one_process_ends_all_at_once_and_says_where():
    with Job(lambda *given: ["-c", FITS, "other data", *given], 2) as job:
        assert job.statuses(GONE_WITHIN + 30) == [1, 1]  # from the start of Python
        assert any(line.startswith("Process 1 of 2 ends:") for line in job.lines[1])
        assert "data.y: expected the same in every process, got float32 (8, 2), SHA-256 " in job.said()


COUNT_AND_LISTEN = """
import sys, socket, fnn, jax
fnn.parallel.initialize(*sys.argv[1:2], *map(int, sys.argv[2:]))
address = jax._src.distributed.global_state.coordinator_address
print(jax.process_index(), "of", jax.process_count())
if jax.process_index() == 0:
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.2", int(address.rpartition(":")[2])))
            print("elsewhere the port is free")
        except OSError:
            print("listens on all interfaces")
"""


def test_the_coordinator_listens_on_the_address_given_and_nowhere_else():
    with Job(lambda *given: ["-c", COUNT_AND_LISTEN, *given], 2) as job:
        assert job.statuses(120) == [0, 0], job.said()
    assert job.lines[0][:2] == ["0 of 2\n", "elsewhere the port is free\n"]


def test_processes_that_slurm_starts_find_each_other(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))  # whose last digits are the port
    for name, value in {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)

    def words(_address, _count, i):
        monkeypatch.setenv("SLURM_PROCID", str(i))
        monkeypatch.setenv("SLURM_LOCALID", str(i))
        return ["-c", COUNT_AND_LISTEN]

    with Job(words, 2) as job:
        assert job.statuses(120) == [0, 0], job.said()
    assert [lines[0] for lines in job.lines] == ["0 of 2\n", "1 of 2\n"]
    assert "listens on all interfaces\n" in job.lines[0]  # as initialize says of an address that JAX found


def test_initialize_after_jax_has_computed_and_without_anything_to_find_says_so():
    script = (
        "import jax, fnn, os\n"
        "for computed in (False, True):\n"
        "    if computed: jax.devices()\n"
        "    try: fnn.parallel.initialize(*(['127.0.0.1:1', 1, 0] if computed else []))\n"
        "    except (ValueError, RuntimeError) as error: print(type(error).__name__, error)\n"
        "print('collective' in os.environ['XLA_FLAGS'])"
    )
    said = printed(["-c", script], devices=1)
    assert "ValueError coordinator_address, num_processes, process_id: neither given nor found" in said
    assert "RuntimeError initialize: JAX has already computed something or listed its devices" in said
    assert said.endswith("False\n")
