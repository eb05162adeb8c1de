"""Data parallel training, and several processes: both on CPU, on this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import fnn
from test_train import blobs, network, train

TESTS = Path(__file__).parent
GONE_WITHIN = 30  # seconds after a process dies or stops: a bound on hanging


def started(words, devices=1, output=subprocess.DEVNULL, errors=subprocess.DEVNULL):
    """A Python process with so many CPU devices, which checks what the tests of this process check."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_DEBUG_KEY_REUSE": "1",
    }
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, stdout=output, stderr=errors, env=environment, cwd=TESTS.parent, text=True)


def printed(words, devices):
    process = started(words, devices, subprocess.PIPE, subprocess.PIPE)
    try:
        said, complaints = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, complaints[-2000:]
    return said


class Job:
    """Processes of one training run; none outlives the with statement."""

    def __init__(self, words, count, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.logs = [folder / f"process-{i}.log" for i in range(count)]
        self.processes = []
        for i, log in enumerate(self.logs):
            with open(log, "w") as file:
                self.processes.append(started([*words(address, count, i)], 1, file, subprocess.STDOUT))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()  # a stopped one too
            process.wait()

    def wait_for(self, text, seconds=120):
        """Until process 0 says ``text``."""
        end = time.monotonic() + seconds
        while text not in self.logs[0].read_text():
            assert time.monotonic() < end, self.said()
            assert all(process.poll() is None for process in self.processes), self.said()
            time.sleep(0.1)

    def statuses(self, seconds, of=None):
        """How the processes end, waiting no longer."""
        end = time.monotonic() + seconds
        try:
            return [process.wait(max(0, end - time.monotonic())) for process in of or self.processes]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"a process still runs after {seconds} s\n{self.said()}") from None

    def said(self):
        return "\n".join(f"-- {log.name}\n{log.read_text()[-1500:]}" for log in self.logs)


def training(file, epochs, checkpoint=""):
    return lambda address, count, i: [TESTS / "training_process.py", file, epochs, checkpoint, address, count, i]


def check_errors(report):
    for case, error in report["errors"].items():
        assert error < (1e-12 if "float64" in case else 1e-5), f"{case}: {error:.1e}"


def test_several_devices_train_as_one_does_with_one_message_per_step():
    said = printed([TESTS / "parallel_cases.py", "some"], devices=8)
    report = json.loads(said)
    check_errors(report)
    assert len(report["errors"]) == 2
    assert report["messages"] == [{"all-reduce": 1, "all-gather": 0, "all-to-all": 0}]
    assert "batch_size: expected a multiple of 8, the number of devices in mesh, got 20; write batch_size=24" in said


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


@pytest.mark.slow
def test_four_processes_train_bitwise_as_one_process_with_four_devices(tmp_path):
    """With batch norm and dropout, whose messages and masks are shared as well."""
    printed([TESTS / "training_process.py", tmp_path / "one.npz", 3, ""], devices=4)
    with Job(training(tmp_path / "several.npz", 3), 4, tmp_path) as job:
        assert job.statuses(180) == [0] * 4, job.said()
    one, several = np.load(tmp_path / "one.npz"), np.load(tmp_path / "several.npz")
    assert one.files == several.files
    assert all(np.array_equal(one[name], several[name]) for name in one.files)


@pytest.mark.slow
def test_after_a_process_is_killed_the_run_goes_on_from_its_checkpoint_with_as_many_processes_or_others(tmp_path):
    """Bitwise as if nothing had happened where there are as many again, and but for rounding where there are not."""
    kept, epochs = tmp_path / "run", 400
    with Job(training(tmp_path / "killed.npz", epochs, kept), 2, tmp_path) as job:
        job.wait_for("epoch 5\n")
        job.processes[1].kill()
        assert job.statuses(GONE_WITHIN, job.processes[:1]) != [0], job.said()
    reached = max(int(folder.name) for folder in kept.iterdir() if folder.name.isdecimal())
    assert 4 <= reached < epochs
    more, results = reached + 4, {}
    printed([TESTS / "training_process.py", tmp_path / "whole.npz", more, ""], devices=2)
    for count in (2, 1, 4):
        shutil.copytree(kept, tmp_path / f"run-{count}")
        with Job(training(tmp_path / f"{count}.npz", more, tmp_path / f"run-{count}"), count, tmp_path) as job:
            assert job.statuses(180) == [0] * count, job.said()
            assert f"epoch {reached}\n" not in job.logs[0].read_text()
        results[count] = np.load(tmp_path / f"{count}.npz")
    whole = np.load(tmp_path / "whole.npz")
    for name in whole.files:
        assert np.array_equal(whole[name], results[2][name])
        for count in (1, 4):
            np.testing.assert_allclose(results[count][name], whole[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_mnist_in_several_processes_learns_bitwise_what_one_process_learns(count, tmp_path):
    mnist = ["-m", "experiments.mnist", "--examples", 1000, "--epochs", 2, "--hidden", 16, "--out"]
    printed([*mnist, tmp_path / "one", "--data-parallel"], devices=count)

    def words(address, count, i):
        given = ["--coordinator-address", address, "--num-processes", count, "--process-id", i]
        return [*mnist, tmp_path / f"of-{i}", "--distributed", *given]

    with Job(words, count, tmp_path) as job:
        assert job.statuses(300) == [0] * count, job.said()
    assert [(tmp_path / f"of-{i}").exists() for i in range(count)] == [True] + [False] * (count - 1)
    assert "epoch  2  loss" in job.logs[0].read_text()
    assert not any("epoch" in log.read_text() for log in job.logs[1:])
    one, several = (fnn.checkpoint.load(tmp_path / name / "seed-0.safetensors") for name in ("one", "of-0"))
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(several)))
    histories = [json.loads((tmp_path / name / "figures.json").read_text())["figures"] for name in ("one", "of-0")]
    for record in (record for history in histories for record in history["seed 0"]):
        del record["seconds"]
    assert histories[0] == histories[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "which", "count"),
    [
        (signal.SIGKILL, 1, 2),
        (signal.SIGKILL, 0, 4),
        (signal.SIGSTOP, 1, 2),
        (signal.SIGSTOP, 0, 2),
        (signal.SIGUSR1, 1, 2),
    ],
)
def test_where_a_process_dies_stops_or_is_stuck_all_others_end_with_an_error(sign, which, count, tmp_path):
    with Job(training(tmp_path / "result.npz", 1_000_000), count, tmp_path) as job:
        job.wait_for("epoch 3")
        job.processes[which].send_signal(sign)
        others = [process for i, process in enumerate(job.processes) if i != which]
        began = time.monotonic()
        statuses = job.statuses(GONE_WITHIN, others)
        print(f"{sign.name} of process {which} of {count}: {statuses} after {time.monotonic() - began:.1f} s")
        assert 0 not in statuses


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_at_once_and_says_where(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        "import sys, fnn, jax, numpy as np\n"
        "fnn.parallel.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))\n"
        "params = fnn.init(jax.random.key(0), (3, 2))\n"
        "data = np.ones((8, 3), np.float32), np.ones((8, 2), np.float32) * jax.process_index()\n"
        "fnn.train.fit(params, data, fnn.updates.sgd(0.1), loss=fnn.SquaredError(), epochs=1, batch_size=2,\n"
        "              key=jax.random.key(0), mesh=fnn.parallel.data_mesh())\n"
    )
    with Job(lambda address, count, i: [script, address, count, i], 2, tmp_path) as job:
        assert job.statuses(GONE_WITHIN + 30) == [1, 1]  # from the start of Python
        assert "Process 1 of 2 ends:" in job.logs[1].read_text()
        assert "data: expected the same in every process, got another than that of process 0 in 1" in job.said()


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


@pytest.mark.slow
def test_the_coordinator_listens_on_the_address_given_and_nowhere_else(tmp_path):
    with Job(lambda *given: ["-c", COUNT_AND_LISTEN, *given], 2, tmp_path) as job:
        assert job.statuses(120) == [0, 0], job.said()
    assert job.logs[0].read_text().splitlines()[:2] == ["0 of 2", "elsewhere the port is free"]


@pytest.mark.slow
def test_processes_that_slurm_starts_find_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))  # whose last digits are the port
    for name, value in {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)

    def words(_address, _count, i):
        monkeypatch.setenv("SLURM_PROCID", str(i))
        monkeypatch.setenv("SLURM_LOCALID", str(i))
        return ["-c", COUNT_AND_LISTEN]

    with Job(words, 2, tmp_path) as job:
        assert job.statuses(120) == [0, 0], job.said()
    assert [log.read_text().splitlines()[0] for log in job.logs] == ["0 of 2", "1 of 2"]
    assert "listens on all interfaces" in job.logs[0].read_text()  # as initialize says of an address that JAX found


def test_the_mesh_has_one_axis_over_the_devices_given():
    mesh = fnn.parallel.data_mesh()
    assert mesh.axis_names == ("data",)
    assert list(mesh.devices.flat) == jax.devices()
    with pytest.raises(ValueError, match="devices: expected every device once"):
        fnn.parallel.data_mesh(jax.devices()[:1] * 2)
    with pytest.raises(TypeError, match="devices: expected at least one jax.Device, got \\[\\]"):
        fnn.parallel.data_mesh([])


def test_a_mesh_of_one_device_changes_nothing():
    data = blobs()
    one, history = train(network(), data, validation=data)
    same, of_mesh = train(network(), data, validation=data, mesh=fnn.parallel.data_mesh(jax.devices()[:1]))
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(same)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(history, of_mesh):
        assert ours | {"seconds": 0} == pytest.approx(theirs | {"seconds": 0}, rel=1e-5)


def test_another_mesh_than_one_of_data_is_refused():
    other = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    with pytest.raises(TypeError, match="mesh: expected a mesh with one axis.*write fnn.parallel.data_mesh"):
        train(network(), blobs(), mesh=other)
    with pytest.raises(TypeError, match="mesh: expected a mesh with one axis, got 8"):
        train(network(), blobs(), mesh=8)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"coordinator_address": "10.0.0.1"}, "coordinator_address: expected 'host:port' with a port"),
        ({"coordinator_address": "10.0.0.1:0"}, "coordinator_address: expected 'host:port' with a port"),
        ({"coordinator_address": "a:1", "bind_address": ":9"}, "bind_address: expected 'host:port'"),
        ({"num_processes": 0}, "num_processes: expected at least 1"),
        ({"num_processes": 2, "process_id": 2}, "process_id: expected an integer, 0 … 1, got 2"),
        ({"process_id": -1}, "process_id: expected an integer, 0 …, got -1"),
        ({"heartbeat_timeout": 0}, "heartbeat_timeout: expected at least 1"),
        ({"collective_timeout": 0}, "collective_timeout: expected at least 1"),
    ],
)
def test_a_wrong_argument_of_initialize_is_named_before_anything_is_set(arguments, complaint):
    before = os.environ.get("XLA_FLAGS")
    with pytest.raises(ValueError, match=complaint):
        fnn.parallel.initialize(**arguments)
    assert os.environ.get("XLA_FLAGS") == before


def test_a_batch_norm_whose_axis_is_not_there_is_an_error_that_names_it():
    norm = fnn.BatchNorm(np.ones(4, np.float32), np.zeros(4, np.float32), axis="data")
    layer = fnn.Dense(np.ones((4, 3), np.float32), np.zeros(4, np.float32), fnn.Tanh(), norm)
    with pytest.raises(ValueError, match="BatchNorm.axis: there is no mesh axis 'data' here; write axis=None"):
        fnn.forward((layer,), np.ones((5, 3), np.float32))


@pytest.mark.slow
def test_initialize_after_jax_has_computed_and_without_anything_to_find_says_so(tmp_path):
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
    assert "RuntimeError initialize: JAX has computed or been asked for its devices already" in said
    assert said.endswith("False\n")
