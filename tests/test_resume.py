"""A run goes on from its checkpoints to bitwise the same end, and no other run's are used."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn import checkpoint
from fnn.checkpoint import content, orbax
from fnn.checkpoint.fingerprint import describe, differences
from fnn.optimizers import Optimizer
from fnn.train.loop import start
from networks import drawn
from resume_cases import (
    ADAM,
    MOMENTUM,
    SGD,
    arrays,
    assert_same,
    damage,
    data,
    network,
    run_of_two_epochs,
    settings_of,
    train,
    without_seconds,
)
from test_train import compilations

ARROWS = [("x", "h"), ("u", "h"), ("h", "y"), ("x", "y")]
OTHERS = [("x", "h"), ("u", "h"), ("h", "y"), ("u", "y")]


def small(arrows):
    return fnn.graph.Graph(arrows, {"h": fnn.Tanh(), "y": fnn.Tanh()}, ["x", "u"], ["y"])


def graph(structure, seed=0):
    random = np.random.default_rng(seed)
    sizes = len(structure.arrows), len(structure.neurons)
    return fnn.graph.GraphParams(*(jnp.asarray(random.normal(size=n), "float32") for n in sizes), structure)


@pytest.fixture
def saved(tmp_path):
    """The directory of a run of two epochs."""
    return run_of_two_epochs(tmp_path / "run")


# -- going on --------------------------------------------------------------------------------------------------


OWN_KEY = optax.chain(optax.adam(1e-2), optax.add_noise(0.1, 0.1, jax.random.key(3)))
EVERYTHING = {"params": network(norm=True), "dropout": fnn.Dropout(0.8), "validation": data(20)}


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        pytest.param(SGD, {}, id="sgd"),
        pytest.param(ADAM, EVERYTHING, id="adam, batch norm, dropout, held-out data"),
        pytest.param(OWN_KEY, {}, marks=pytest.mark.slow, id="noise with a key of its own"),
        pytest.param(MOMENTUM, {"params": network(dtype="bfloat16")}, marks=pytest.mark.slow, id="momentum, bfloat16"),
        pytest.param(
            SGD, {"params": graph(fnn.graph.Graph.layered((5, 4, 3), fnn.Tanh()))}, marks=pytest.mark.slow, id="graph"
        ),
    ],
)
def test_a_run_that_goes_on_ends_bitwise_as_one_that_was_never_interrupted(optimizer, options, tmp_path):
    whole = train(tmp_path / "whole", optimizer=optimizer, **options)
    train(tmp_path / "parts", optimizer=optimizer, epochs=1, **options)
    first = train(tmp_path / "parts", optimizer=optimizer, epochs=3, **options).history
    parts = train(tmp_path / "parts", optimizer=optimizer, **options)
    assert_same(parts.params, whole.params)
    assert without_seconds(parts.history) == without_seconds(whole.history)
    assert parts.history[:3] == first
    seconds = [record["seconds"] for record in parts.history]
    assert seconds == sorted(seconds)
    assert_same(*(final_state(tmp_path / name, whole.params, optimizer) for name in ("whole", "parts")))
    assert_same(train(None, optimizer=optimizer, **options).params, whole.params)


def final_state(directory, params, optimizer):
    """The optimizer's state in the newest checkpoint."""
    return checkpoint.restore(
        directory, *start(Optimizer(optimizer), params), run=settings_of(directory)
    ).optimizer_state


def test_checkpoints_are_made_after_every_so_many_epochs_and_after_the_last_and_three_stay(tmp_path):
    train(tmp_path, epochs=9, every=2)
    assert orbax.epochs(tmp_path) == [6, 8, 9]
    assert {path.name for path in tmp_path.iterdir()} == {"6", "8", "9"}


def test_a_finished_run_returns_its_result_and_trains_no_more(saved, monkeypatch):
    run = train(saved, epochs=3)
    monkeypatch.setattr(sys.modules["fnn.train.epochs"], "take_steps", None)
    with pytest.warns(UserWarning, match="holds this run, and it is finished after epoch 3: its result"):
        again = train(saved, epochs=3)
    assert_same(again.params, run.params)
    assert again.history == run.history


def test_a_run_that_its_callback_stopped_is_finished_for_that_callback(tmp_path):
    def stop(state):
        return state.epoch == 2

    run = train(tmp_path, callback=stop)
    assert [record["epoch"] for record in run.history] == [1, 2]
    with pytest.warns(UserWarning, match="its callback or patience stopped it after epoch 2"):
        again = train(tmp_path, callback=stop)
    assert_same(again.params, run.params)
    assert again.history == run.history
    assert len(train(tmp_path).history) == 4


def test_a_run_goes_on_into_the_programs_that_are_compiled(saved, monkeypatch):
    train(saved, epochs=3)
    with compilations() as programs:
        train(saved, epochs=5)
    assert programs == []


def test_the_log_of_a_run_that_goes_on_is_that_of_an_uninterrupted_one(tmp_path):
    lines, run = tmp_path / "run.jsonl", tmp_path / "run"
    train(run, epochs=2, log=lines)
    history = train(run, epochs=3, log=lines).history
    assert [json.loads(line) for line in lines.read_text().splitlines()] == history


def test_the_log_of_a_run_killed_before_its_first_checkpoint_does_not_stop_it_and_is_kept(tmp_path):
    lines, run = tmp_path / "run.jsonl", tmp_path / "run"
    run.mkdir()
    lines.write_text('{"epoch": 1, "loss": 0.5}\n')
    history = train(run, epochs=1, log=lines).history
    assert [json.loads(line) for line in lines.read_text().splitlines()] == history
    assert lines.with_name("run.jsonl.before").read_text() == '{"epoch": 1, "loss": 0.5}\n'


# -- another run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"params": drawn((5, 6, 3))}, r"params\[0\].W: float32 \(4, 5\) in the checkpoint, float32 \(6, 5\) given"),
        ({"params": network(dtype="float16")}, r"params\[0\].W: float32 .* in the checkpoint, float16 .* given"),
        ({"params": network(activation=fnn.ReLU())}, r"params\[0\]: Dense Tanh\(\) in .*, Dense ReLU\(\) given"),
        ({"params": network(norm=True)}, r"params\[0\].norm: None in the checkpoint, BatchNorm 1e-05 'full'"),
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
    assert orbax.epochs(saved) == [1, 2]


def test_two_graphs_of_equal_size_are_told_apart():
    one, other = (describe("params", graph(small(arrows))) for arrows in (ARROWS, OTHERS))
    assert differences(one, other)
    assert not differences(one, describe("params", graph(small(ARROWS), seed=1)))


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


# -- a loop of one's own ---------------------------------------------------------------------------------------


def test_leaves_of_any_dtype_and_shape_come_back(tmp_path):
    dtypes = ["float32", "bfloat16", "float16", "float8_e4m3fn", "int8", "int32", "uint32", "bool"]
    params = {dtype: jnp.asarray(np.arange(6).reshape(2, 3), dtype) for dtype in dtypes}
    params |= {"a scalar": jnp.int32(3), "no entries": jnp.asarray(np.zeros((0, 3), "float32"))}
    params |= {"a/b.c": jax.random.key(1), "nothing": None}
    key = jax.random.key(7, impl="rbg")
    checkpoint.save(tmp_path, params, epoch=3, step=30, key=key, history=[{"loss": 0.1 + 0.2}, {"loss": np.nan}])
    restored = checkpoint.restore(tmp_path, params)
    assert_same((restored.params, restored.optimizer_state, restored.key), (params, (), key))
    assert (restored.epoch, restored.step, restored.history[0]) == (3, 30, {"loss": 0.1 + 0.2})
    assert np.isnan(restored.history[1]["loss"])


NUMPY = {
    "int64": np.array([2**40 + 5, -(2**63)]),
    "uint64": np.array([2**63], np.uint64),
    "float64": np.array([1e300, -0.0, np.nan]),
    "complex128": np.array([[1e300 + 1e-300j]]),
    "a scalar": np.float64(1e300),
    "no dimensions": np.array(2**40 + 5),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "every other": np.arange(6.0)[::2],
}


def test_numpy_arrays_come_back_as_such_bit_for_bit_also_where_jax_has_no_64_bits(tmp_path):
    few = {
        name: np.asarray(jnp.arange(4).astype(name)) for name in content.DTYPES if name.startswith(("float8", "int4"))
    }
    tree = NUMPY | few | {"of jax": jnp.arange(3)}
    checkpoint.save(tmp_path, tree, {"count": np.int64(2**40)}, epoch=1)
    found = checkpoint.restore(tmp_path, tree, {"count": np.int64(0)})
    assert_same((found.params, found.optimizer_state), (tree, {"count": np.int64(2**40)}))
    assert [type(leaf) for leaf in jax.tree.leaves(found.params)] == [type(leaf) for leaf in jax.tree.leaves(tree)]


def test_another_byte_order_comes_back_in_the_machines(tmp_path):
    swapped = np.array([1e300, 2.0], ">f8")
    checkpoint.save(tmp_path, {"a": swapped}, epoch=1)
    found = checkpoint.restore(tmp_path, {"a": swapped}).params["a"]
    assert (found.dtype, found.tolist()) == (np.dtype("float64"), [1e300, 2.0])


@pytest.mark.parametrize(
    ("tree", "error", "message"),
    [
        (
            {"a": np.ma.masked_array([1.0, 2.0], [0, 1])},
            TypeError,
            r"params\['a'\]: expected a plain array, got a masked",
        ),
        (
            {"a": jnp.zeros(3, "float8_e4m3")},
            TypeError,
            r"params\['a'\]: expected an array of numbers .*, got float8_e4m3",
        ),
        ({"a": np.zeros(3, "longdouble")}, TypeError, r"params\['a'\]: .* got float128 of shape \(3,\); write .astype"),
        ({"a": np.zeros(3, "M8[s]")}, TypeError, "got datetime64"),
        ({"a": np.zeros(3, "i1,f4")}, TypeError, r"params\['a'\]: expected an array of numbers that comes back"),
        ((), ValueError, "params: expected a pytree with at least one array that has entries"),
        ({"a": None}, ValueError, "params: expected a pytree with at least one array"),
        ({"a": np.zeros((0, 3))}, ValueError, "params: expected a pytree with at least one array"),
    ],
    ids=["masked", "float8", "longdouble", "dates", "records", "nothing", "None", "no entries"],
)
def test_what_would_not_come_back_is_refused_before_anything_is_written(tree, error, message, tmp_path):
    with pytest.raises(error, match=message):
        checkpoint.save(tmp_path / "run", tree, epoch=1)
    assert not (tmp_path / "run").exists()


def test_float64_comes_back_with_x64_and_is_refused_without(tmp_path):
    with jax.enable_x64(True):
        params = network(dtype="float64")
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
    with pytest.raises(ValueError, match="already holds an intact .* epoch 2, got epoch=2; write epoch=3 or more"):
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
    assert orbax.epochs(tmp_path) == []


# -- what is needed for it ----------------------------------------------------------------------------------------


def test_without_orbax_the_message_says_what_to_install_and_a_run_without_checkpoints_is_as_ever(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    monkeypatch.setitem(sys.modules, "orbax", None)
    with pytest.raises(ImportError, match=r"orbax-checkpoint; install fnn\[train\]"):
        train(tmp_path)
    train(None, epochs=1)


@pytest.mark.process
def test_checkpoints_load_orbax_when_one_is_made():
    code = "import sys, fnn.checkpoint, fnn.train; sys.exit(any(m.split('.')[0] == 'orbax' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
