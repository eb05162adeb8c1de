"""A run goes on from its checkpoints to bitwise the same end, and nothing damaged or foreign is ever used."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn import checkpoint, updates
from fnn.checkpoint import archive, content
from fnn.checkpoint.describe import describe, differences
from fnn.train import fit
from fnn.train.loop import start
from test_train import compilations

LOSS = fnn.SoftmaxCrossEntropy()
ADAM, MOMENTUM, SGD = optax.adam(1e-2), updates.momentum(0.1), updates.sgd(0.1)
KEY = jax.random.key(1)
ARROWS = [("x", "h"), ("u", "h"), ("h", "y"), ("x", "y")]
OTHERS = [("x", "h"), ("u", "h"), ("h", "y"), ("u", "y")]
GRAPH = fnn.graph.Graph.layered((5, 4, 3), fnn.Tanh())


def data(examples=43):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (examples, 5)).astype(np.uint8), random.integers(0, 3, examples)


def network(sizes=(5, 4, 3), dtype=jnp.float32, **options):
    return fnn.init(jax.random.key(0), sizes, **{"activation": fnn.Tanh()} | options, dtype=dtype)


def train(directory, params=None, optimizer=SGD, *, examples=43, epochs=4, **options):
    x, y = data(examples)
    settings = {"loss": LOSS, "batch_size": 10, "key": KEY, "progress": False, "checkpoint": directory} | options
    given = fnn.data.Dataset(x, y)
    return fit(network() if params is None else params, given, optimizer, epochs=epochs, **settings)


def assert_same(ours, theirs):
    """The same structure, dtypes and bits."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def without_seconds(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


def damage(path, position=0.5):
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)


def arrays(directory, epoch):
    """The files of an epoch's arrays, the largest first."""
    files = [path for path in (directory / str(epoch) / "state").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (-path.stat().st_size, path))


@pytest.fixture
def saved(tmp_path):
    """The directory of a run of two epochs."""
    train(tmp_path / "run", epochs=2)
    return tmp_path / "run"


# -- going on --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (SGD, {}),
        (MOMENTUM, {"dropout": fnn.Dropout(0.8)}),
        (ADAM, {"params": network(batch_norm="full"), "validation": data(20)}),
        (optax.chain(optax.adam(1e-2), optax.add_noise(0.1, 0.1, jax.random.key(3))), {}),
        pytest.param(SGD, {"params": network(dtype=jnp.bfloat16)}, marks=pytest.mark.slow),
        pytest.param(SGD, {"params": GRAPH.init(jax.random.key(0))}, marks=pytest.mark.slow),
    ],
    ids=["sgd", "momentum, dropout", "adam, batch norm", "noise with a key of its own", "bfloat16", "graph"],
)
def test_a_run_that_goes_on_ends_bitwise_as_one_that_was_never_interrupted(optimizer, options, tmp_path):
    whole, history = train(tmp_path / "whole", optimizer=optimizer, **options)
    train(tmp_path / "parts", optimizer=optimizer, epochs=1, **options)
    _, first = train(tmp_path / "parts", optimizer=optimizer, epochs=3, **options)
    parts, continued = train(tmp_path / "parts", optimizer=optimizer, **options)
    assert_same(parts, whole)
    assert without_seconds(continued) == without_seconds(history)
    assert continued[:3] == first
    seconds = [record["seconds"] for record in continued]
    assert seconds == sorted(seconds)
    assert_same(*(final_state(tmp_path / name, whole, optimizer) for name in ("whole", "parts")))
    assert_same(train(None, optimizer=optimizer, **options)[0], whole)


def final_state(directory, params, optimizer):
    """The optimizer's state in the newest checkpoint."""
    return checkpoint.restore(directory, *start(optimizer, params), run=settings_of(directory)).optimizer_state


def settings_of(directory):
    """What ``fit`` wrote of its own arguments."""
    newest = archive.epochs(directory)[-1]
    run = content.unpack_meta(archive.read(directory, newest, "meta"))["run"]
    return {name: text for name, text in run.items() if not name.startswith(("params", "optimizer_state"))}


def test_checkpoints_are_made_after_every_so_many_epochs_and_after_the_last_and_three_stay(tmp_path):
    train(tmp_path, epochs=9, every=2)
    assert archive.epochs(tmp_path) == [6, 8, 9]
    assert {path.name for path in tmp_path.iterdir()} == {"6", "8", "9"}


def test_a_finished_run_returns_its_result_and_trains_no_more(saved, monkeypatch):
    params, history = train(saved, epochs=3)
    monkeypatch.setattr(sys.modules["fnn.train.epochs"], "run", None)
    again, same = train(saved, epochs=3)
    assert_same(again, params)
    assert same == history


def test_a_run_that_its_callback_stopped_is_finished_for_that_callback(tmp_path):
    def stop(state):
        return state.epoch == 2

    params, history = train(tmp_path, callback=stop)
    assert [record["epoch"] for record in history] == [1, 2]
    again, same = train(tmp_path, callback=stop)
    assert_same(again, params)
    assert same == history
    assert len(train(tmp_path)[1]) == 4


def test_a_run_goes_on_into_the_programs_that_are_compiled(saved, monkeypatch):
    train(saved, epochs=3)
    with compilations() as programs:
        train(saved, epochs=5)
    assert programs == []


def test_the_metrics_of_a_run_that_goes_on_are_those_of_an_uninterrupted_one(tmp_path):
    lines, run = tmp_path / "run.jsonl", tmp_path / "run"
    train(run, epochs=2, metrics=lines)
    _, history = train(run, epochs=3, metrics=lines)
    assert [json.loads(line) for line in lines.read_text().splitlines()] == history


def test_metrics_of_a_run_killed_before_its_first_checkpoint_do_not_stop_it_and_are_kept(tmp_path):
    lines, run = tmp_path / "run.jsonl", tmp_path / "run"
    run.mkdir()
    lines.write_text('{"epoch": 1, "loss": 0.5}\n')
    _, history = train(run, epochs=1, metrics=lines)
    assert [json.loads(line) for line in lines.read_text().splitlines()] == history
    assert lines.with_name("run.jsonl.before").read_text() == '{"epoch": 1, "loss": 0.5}\n'


# -- another run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"params": network((5, 6, 3))}, r"params\[0\].W: float32 \(4, 5\) in the checkpoint, float32 \(6, 5\) given"),
        ({"params": network(dtype=jnp.float16)}, r"params\[0\].W: float32 .* in the checkpoint, float16 .* given"),
        ({"params": network(activation=fnn.ReLU())}, r"params\[0\]: Dense Tanh\(\) in .*, Dense ReLU\(\) given"),
        ({"params": network(batch_norm="full")}, r"params\[0\].norm: None in the checkpoint, BatchNorm 1e-05 'full'"),
        ({"optimizer": MOMENTUM}, r"optimizer_state.* given"),
        ({"optimizer": ADAM}, r"optimizer_state.*ScaleByAdamState given"),
        ({"key": jax.random.key(2)}, r"key: .*\[0, 1\] in the checkpoint, .*\[0, 2\] given"),
        ({"key": jax.random.key(1, impl="rbg")}, r"key: threefry2x32 .* in the checkpoint, rbg .* given"),
        ({"batch_size": 9}, "batch_size: 10 in the checkpoint, 9 given"),
        ({"examples": 44}, "examples: 43 in the checkpoint, 44 given"),
        ({"reduction": "sum"}, "reduction: mean in the checkpoint, sum given"),
        (
            {"loss": fnn.SigmoidCrossEntropy()},
            r"loss: SoftmaxCrossEntropy\(.*\) in .*, SigmoidCrossEntropy\(.*\) given",
        ),
        ({"dropout": fnn.Dropout(0.5)}, "dropout: None in the checkpoint, Dropout .* given"),
    ],
    ids=[
        "layer",
        "dtype",
        "activation",
        "norm",
        "momentum",
        "adam",
        "key",
        "implementation",
        "batch",
        "examples",
        "reduction",
        "loss",
        "dropout",
    ],
)
def test_the_checkpoint_of_another_run_is_refused_with_the_difference_named(options, difference, saved):
    with pytest.raises(ValueError, match=rf"holds another run:(.|\n)*{difference}(.|\n)*name another directory"):
        train(saved, **options)
    assert archive.epochs(saved) == [1, 2]


def test_two_graphs_of_equal_size_are_told_apart():
    graphs = [fnn.graph.Graph(a, {"h": fnn.Tanh(), "y": fnn.Tanh()}, ["x", "u"], ["y"]) for a in (ARROWS, OTHERS)]
    one, other = (describe("params", graph.init(jax.random.key(0))) for graph in graphs)
    assert differences(one, other)
    assert not differences(one, describe("params", graphs[0].init(jax.random.key(1))))


def test_fewer_epochs_than_were_done_are_refused(saved):
    with pytest.raises(ValueError, match="epochs: the run in .*run has done 2, got epochs=1; write epochs=2 or more"):
        train(saved, epochs=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"checkpoint": 3}, TypeError, "checkpoint: expected the path of a directory, got 3"),
        ({"every": 0}, ValueError, "every: expected at least 1, got 0"),
        ({"every": 1.5}, TypeError, "every: expected an integer"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        train(**{"directory": tmp_path} | options)


# -- damage ----------------------------------------------------------------------------------------------------


def test_one_flipped_bit_in_the_newest_checkpoint_and_the_one_before_it_is_used_with_a_warning(saved):
    whole, history = train(None)
    damage(arrays(saved, 2)[0])
    with pytest.warns(UserWarning, match=r"going on from epoch 1, for what is newer is damaged:\s+epoch 2: \S"):
        params, continued = train(saved)
    assert_same(params, whole)
    assert without_seconds(continued) == without_seconds(history)
    assert archive.epochs(saved) == [2, 3, 4]
    assert_same(train(saved)[0], whole)  # epoch 2 was written anew


def test_a_changed_record_is_damage_although_it_is_json(saved):
    path = saved / "2" / "meta" / "metadata"
    path.write_text(path.read_text().replace('loss\\": 1', 'loss\\": 2').replace('loss\\": 0', 'loss\\": 1'))
    with pytest.warns(UserWarning, match="epoch 2: the content is damaged"):
        train(saved)


def test_where_no_checkpoint_is_whole_nothing_begins_anew(saved):
    for epoch in (1, 2):
        damage(arrays(saved, epoch)[0])
    with pytest.raises(
        ValueError, match=r"none in .*run is whole:\s+epoch 2: .*\s+epoch 1: .*\s+name another directory"
    ):
        train(saved)
    assert archive.epochs(saved) == [1, 2]


def test_what_a_killed_save_leaves_is_no_checkpoint(saved):
    shutil.copytree(saved / "2", saved / "3.orbax-checkpoint-tmp")
    assert archive.epochs(saved) == [1, 2]
    train(saved)
    assert {path.name for path in saved.iterdir()} == {"2", "3", "4"}


# -- signals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_ends_the_run_after_its_epoch_is_saved(number, error, tmp_path):
    whole, _ = train(None)
    before = signal.getsignal(number)

    def send(state):
        if state.epoch == 2:
            signal.raise_signal(number)

    with pytest.raises(error) as raised:
        train(tmp_path, every=3, callback=send)
    assert signal.getsignal(number) is before
    assert number != signal.SIGTERM or raised.value.code == 143
    assert archive.epochs(tmp_path) == [2]
    assert_same(train(tmp_path, every=3)[0], whole)


def test_a_second_ctrl_c_leaves_at_once(saved):
    def send(state):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(saved, callback=send)
    assert archive.epochs(saved) == [1, 2]


def test_a_signal_after_the_last_epoch_is_not_lost(tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path, epochs=1, callback=lambda state: signal.raise_signal(signal.SIGTERM))
    assert archive.epochs(tmp_path) == [1]


def test_without_a_checkpoint_and_in_other_threads_signals_are_left_alone(tmp_path):
    seen = []

    def look(state):
        seen.append(signal.getsignal(signal.SIGINT))

    train(None, epochs=1, callback=look)
    thread = threading.Thread(target=lambda: train(tmp_path, epochs=1, callback=look))
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)] * 2
    assert archive.epochs(tmp_path) == [1]


# -- what cannot be written ------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_of_at_most(size):
    """The system refuses to let a file grow beyond ``size`` bytes, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# tensorstore's other writes end after the first has failed, and find nobody to tell
unheard = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@unheard
@pytest.mark.parametrize("epochs", [3, 4], ids=["at the end", "at the next save"])
def test_a_disk_that_is_full_is_an_os_error_and_the_last_checkpoint_stays(epochs, saved, capfd):
    message = r"run: epoch 3 cannot be written: .*[Ff]ile too large.*; the last whole one is epoch 2"
    with files_of_at_most(100), pytest.raises(OSError, match=message) as raised:
        train(saved, epochs=epochs)
    assert not hasattr(raised.value, "__notes__")  # it is told once
    assert capfd.readouterr().err == ""
    assert archive.epochs(saved) == [1, 2]
    assert_same(train(saved, epochs=epochs)[0], train(None, epochs=epochs)[0])


@unheard
def test_an_error_of_the_callback_is_told_before_that_of_the_save(saved):
    def fail(state):
        if state.epoch == 4:
            raise ZeroDivisionError

    with files_of_at_most(100), pytest.raises(ZeroDivisionError) as raised:
        train(saved, callback=fail, every=3)
    assert "epoch 3 cannot be written" in raised.value.__notes__[0]
    assert archive.epochs(saved) == [1, 2]
    assert len(train(saved)[1]) == 4


def test_a_directory_that_cannot_be_written_is_refused_before_anything_is_trained(saved, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind every user
    epochs = []
    with pytest.raises(OSError, match="run: the directory cannot be used: it is read-only; the last .* epoch 2"):
        train(saved, callback=lambda state: epochs.append(state.epoch))
    assert epochs == []
    assert len(train(saved, epochs=2)[1]) == 2  # a finished run writes nothing


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(NotADirectoryError, match="checkpoint: .*run is a file"):
        train(tmp_path / "run")


def test_without_orbax_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    monkeypatch.setitem(sys.modules, "orbax", None)
    with pytest.raises(ImportError, match=r"orbax-checkpoint; install fnn\[train\]"):
        train(tmp_path)


def test_checkpoints_load_orbax_when_one_is_made():
    code = "import sys, fnn.checkpoint, fnn.train; sys.exit(any(m.split('.')[0] == 'orbax' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- a loop of one's own ---------------------------------------------------------------------------------------


def test_leaves_of_any_dtype_and_shape_come_back(tmp_path):
    dtypes = ["float32", "bfloat16", "float16", "float8_e4m3fn", "int8", "int32", "uint32", "bool"]
    params = {dtype: jnp.arange(6).reshape(2, 3).astype(dtype) for dtype in dtypes}
    params |= {"a scalar": jnp.int32(3), "no entries": jnp.zeros((0, 3)), "a/b.c": jax.random.key(1), "nothing": None}
    key = jax.random.key(7, impl="rbg")
    checkpoint.save(tmp_path, params, epoch=3, step=30, key=key, history=[{"loss": 0.1 + 0.2}, {"loss": np.nan}])
    restored = checkpoint.restore(tmp_path, params)
    assert_same((restored.params, restored.optimizer_state, restored.key), (params, (), key))
    assert (restored.epoch, restored.step, restored.history[0]) == (3, 30, {"loss": 0.1 + 0.2})
    assert np.isnan(restored.history[1]["loss"])


def test_float64_comes_back_with_x64_and_is_refused_without(tmp_path):
    with jax.enable_x64(True):
        params = network(dtype=jnp.float64)
        checkpoint.save(tmp_path, params, epoch=1)
        assert_same(checkpoint.restore(tmp_path, params).params, params)
    with pytest.raises(ValueError, match="float64 .* in the checkpoint, float32 .* given"):
        checkpoint.restore(tmp_path, network())


def test_an_old_raw_key_comes_back_raw(tmp_path):
    checkpoint.save(tmp_path, network(), epoch=1, key=jax.random.PRNGKey(5))
    assert checkpoint.restore(tmp_path, network()).key.tolist() == [0, 5]


def test_an_epoch_that_is_there_is_not_replaced_unless_it_is_damaged(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(tmp_path, network(), epoch=epoch)
    with pytest.raises(ValueError, match="holds a whole checkpoint of epoch 2, got epoch=2; write epoch=3 or more"):
        checkpoint.save(tmp_path, network(), epoch=2)
    damage(arrays(tmp_path, 2)[0])
    checkpoint.save(tmp_path, network(), epoch=2)
    assert checkpoint.restore(tmp_path, network()).epoch == 2


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*nowhere"):
        checkpoint.restore(tmp_path / "nowhere", network())
    with pytest.raises(TypeError, match="history: expected dictionaries of strings and numbers"):
        checkpoint.save(tmp_path, network(), epoch=1, history=[{"loss": jnp.ones(())}])
    for leaf in ("text", 3, np.array("text")):
        with pytest.raises(TypeError, match=r"params\['a'\]: expected an array, got"):
            checkpoint.save(tmp_path, {"a": leaf}, epoch=1)
    assert archive.epochs(tmp_path) == []
