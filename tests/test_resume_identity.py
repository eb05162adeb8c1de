"""Whatever decides a run's result is part of its identity: a change is refused by its name, or allowed by it."""

import os
import warnings
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from agreement_cases import Hidden
from fnn import updates
from fnn.checkpoint import orbax
from fnn.checkpoint.fingerprint import ALLOWED, require_same_run, versions
from fnn.checkpoint.programs import program
from fnn.data import Batches, Dataset
from fnn.train.identity import of_array
from networks import drawn
from resume_cases import assert_same, data, finished, network, run_of_two_epochs, train, without_seconds

X, Y = data()
WEIGHTS = np.linspace(0.5, 1.5, len(Y)).astype(np.float32)
OTHER_WEIGHTS = np.where(np.arange(len(Y)) == 5, np.float32(2), WEIGHTS)


def changed(array, at):
    """The array with one entry that is another."""
    array = array.copy()
    array.flat[at] = (array.flat[at] + 1) % 3
    return array


@dataclass(frozen=True)
class Bent(fnn.Activation):
    """An activation whose repr does not show its slope."""

    slope: float = field(default=1.0, repr=False)

    def value(self, z):
        return self.slope * z

    def derivative(self, z, a):
        return jnp.full_like(z, self.slope)


def twice(g, activation, z, a):
    return 2 * activation.pullback(g, z, a)


def of_rate(rate):
    """A schedule whose rate lies in a closure."""
    return updates.sgd(lambda step: rate * 1.0)


def targets(y):
    return np.eye(3, dtype=np.float32)[y]


def batches(identity):
    def make(epoch):
        return ((X[first : first + 10], Y[first : first + 10]) for first in range(0, 40, 10))

    return Batches(make, identity=identity)


decay = optax.add_decayed_weights
BY_STEP = optax.cosine_decay_schedule
ONE_HOT = {"data": Dataset(X, targets(Y)), "loss": Hidden()}
WEIGHTED, HELD_OUT = {"data": Dataset(X, Y, weights=WEIGHTS)}, {"validation": data(20)}
# what is called for: (what the first run has besides, what is changed, how the difference begins, what allows it)
CHANGES = {
    "a pixel": ({}, {"data": Dataset(changed(X, 7), Y)}, "data.x: uint8 .*SHA-256 .* in the checkpoint", "data"),
    "a label": ({}, {"data": Dataset(X, changed(Y, 3))}, "data.y: int32 .*SHA-256", "data"),
    "the rows' order": ({}, {"data": Dataset(X[::-1], Y[::-1])}, "data.x: ", "data"),
    "scale": ({}, {"data": Dataset(X, Y, scale=0.01)}, r"data.scale: 0\.0039\d* in .*, 0.01 given", "data"),
    "weights": (WEIGHTED, {"data": Dataset(X, Y, weights=OTHER_WEIGHTS)}, "data.weights: float32", "data"),
    "no weights": (WEIGHTED, {"data": Dataset(X, Y)}, r"loss: Weighted\(.*", None),
    "the number of examples": ({}, {"data": Dataset(*data(44))}, "examples: 43 in the checkpoint, 44 given", "data"),
    "of batches": (
        {"data": batches("one")},
        {"data": batches("other")},
        "data: Batches 'one' in the checkpoint, Batches 'other' given",
        "data",
    ),
    "batches for arrays": (
        {},
        {"data": batches("one")},
        "data: nothing in the checkpoint, Batches 'one' given",
        "data",
    ),
    "batches_per_epoch": (
        {"data": batches("one")},
        {"batches_per_epoch": 3},
        "batches_per_epoch: None in the checkpoint, 3 given",
        "batches_per_epoch",
    ),
    "params": ({}, {"params": drawn((5, 4, 3), seed=1)}, "initial params: SHA-256", "params"),
    "a hidden slope": (
        {"params": network(activation=Bent())},
        {"params": network(activation=Bent(2.0))},
        "network program: SHA-256",
        "rules",
    ),
    "rate": (
        {},
        {"optimizer": updates.sgd(0.5)},
        r"optimizer: .*0\.1.* in the checkpoint, .*0\.5.* given",
        "optimizer",
    ),
    "optax's rate": (
        {"optimizer": optax.adam(1e-2)},
        {"optimizer": optax.adam(1e-3)},
        "optimizer: .*-0.01.* in the checkpoint, .*-0.001.* given",
        "optimizer",
    ),
    "b1": (
        {"optimizer": optax.adam(1e-2)},
        {"optimizer": optax.adam(1e-2, b1=0.8)},
        "optimizer: .*b1=0.9",
        "optimizer",
    ),
    "alpha": (
        {"optimizer": updates.momentum(0.1, 0.9)},
        {"optimizer": updates.momentum(0.1, 0.8)},
        "optimizer: .*alpha=0.9.* in .*alpha=0.8",
        "optimizer",
    ),
    "Nesterov": (
        {"optimizer": updates.momentum(0.1)},
        {"optimizer": updates.nesterov(0.1)},
        "optimizer: .*ahead=True",
        "optimizer",
    ),
    "schedule": (
        {"optimizer": updates.sgd(BY_STEP(0.1, 100))},
        {"optimizer": updates.sgd(BY_STEP(0.1, 200))},
        "optimizer: .*decay_steps=100.* in .*decay_steps=200",
        "optimizer",
    ),
    "a schedule's closure": (
        {"optimizer": of_rate(0.1)},
        {"optimizer": of_rate(0.2)},
        "optimizer program: SHA-256",
        "optimizer",
    ),
    "an injected rate": (
        {"optimizer": optax.inject_hyperparams(updates.sgd)(learning_rate=0.1)},
        {"optimizer": optax.inject_hyperparams(updates.sgd)(learning_rate=0.2)},
        "optimizer program: SHA-256",
        "optimizer",
    ),
    "decay": (
        {"optimizer": optax.chain(decay(1e-3), updates.sgd(0.1))},
        {"optimizer": optax.chain(decay(1e-2), updates.sgd(0.1))},
        "optimizer: .*weight_decay=0.001.* in .*weight_decay=0.01",
        "optimizer",
    ),
    "another rule": ({}, {"optimizer": optax.adam(0.1)}, "optimizer: .*scale_by_adam", "optimizer"),
    "loss": ({}, {"loss": fnn.SigmoidCrossEntropy()}, r"loss: SoftmaxCrossEntropy\(.*SigmoidCrossEntropy", "loss"),
    "a loss's hidden factor": (ONE_HOT, {"loss": Hidden(2.0)}, "loss program: SHA-256", "loss"),
    "held-out data": (HELD_OUT, {"validation": data(21)}, "validation.x: uint8", "validation"),
    "none held out": (
        HELD_OUT,
        {"validation": None},
        "validation: nothing in the checkpoint, None given",
        "validation",
    ),
    "key": ({}, {"key": jax.random.key(2)}, "key: ", "key"),
    "batch_size": ({}, {"batch_size": 9}, "batch_size: 10 in the checkpoint, 9 given", "batch_size"),
    "dropout": ({"dropout": fnn.Dropout(0.8)}, {"dropout": fnn.Dropout(0.5)}, "dropout", "dropout"),
    "reduction": ({}, {"reduction": "sum"}, "reduction: mean in the checkpoint, sum given", "reduction"),
    "rules": ({}, {"rules": fnn.RULES._replace(hidden_delta=twice)}, "rules: RULES in .*hidden_delta=", "rules"),
    "precision": ({}, {"precision": "bfloat16"}, "precision: None in the checkpoint, bfloat16 given", "precision"),
    "patience": (HELD_OUT | {"patience": 5}, {"patience": 6}, "patience: 5 in the checkpoint, 6 given", "patience"),
    "keep": (HELD_OUT, {"keep": "best"}, "keep: None in the checkpoint, best given", None),
}
HIDDEN = ("a loss's hidden factor", "a hidden slope", "a schedule's closure", "of batches", "weights")
QUICK = ("rate", "another rule", "a pixel", "key", "a loss's hidden factor")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if change[0] and name not in HIDDEN else [])
        for name, change in CHANGES.items()
    ],
)
def test_a_change_is_refused_by_its_name_and_nothing_is_touched(name, tmp_path):
    before, change, difference, _ = CHANGES[name]
    directory = saved(tmp_path, before)
    with pytest.raises(ValueError, match=rf"holds another run:(.|\n)*  {difference}(.|\n)*write allow=") as refused:
        train(directory, **before | change)
    if difference.endswith("program: SHA-256"):  # where texts show it, programs are not named
        assert str(refused.value).count("program") == 1
    assert orbax.epochs(directory) == [1, 2] if not before else [1]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, change in CHANGES.items()
        if change[3]
    ],
)
@pytest.mark.filterwarnings("ignore:optimizer. its state does not match the checkpoint")
def test_a_change_is_allowed_by_its_name(name, tmp_path):
    before, change, _, argument = CHANGES[name]
    directory = saved(tmp_path, before)
    run = train(directory, **before | change, allow=(argument,))
    assert [record["epoch"] for record in run.history] == [1, 2, 3, 4]
    with finished():
        train(directory, **before | change)  # from now on it is this run
    with pytest.raises(ValueError, match="allow: expected names among data, params"):
        train(directory, **before | change, allow=("all",))


def saved(folder, options):
    """The directory of a run of two epochs, or with further options of one."""
    if not options:
        return run_of_two_epochs(folder / "run")
    train(folder / "run", epochs=1, **options)
    return folder / "run"


def test_batches_without_an_identity_are_said_not_to_be_compared(tmp_path):
    train(tmp_path, data=batches(None), epochs=1)
    with pytest.warns(UserWarning, match=r"data: these Batches were not compared .*; write Batches\(make, identity="):
        train(tmp_path, data=batches(None))


def test_every_name_that_allow_takes_is_that_of_a_change():
    assert {change[3] for change in CHANGES.values()} - {None} == {*ALLOWED} - {"flags"}


@pytest.mark.parametrize(
    ("context", "difference"),
    [
        (lambda: jax.enable_x64(True), "jax_enable_x64: False in the checkpoint, True given"),
        (lambda: jax.default_matmul_precision("high"), "jax_default_matmul_precision: highest in .*, high given"),
        (lambda: jax.threefry_partitionable(False), "jax_threefry_partitionable: True in .*, False given"),
        (lambda: jax.disable_jit(), "jax_disable_jit: False in .*, True given"),
    ],
    ids=["x64", "matmul", "threefry", "jit"],
)
def test_a_setting_of_jax_that_changes_numbers_is_refused(context, difference, tmp_path):
    directory = run_of_two_epochs(tmp_path / "run")
    with context(), pytest.raises(ValueError, match=difference):
        train(directory)


def test_xlas_flags_are_compared_but_for_those_that_change_no_number(tmp_path, monkeypatch):
    directory = run_of_two_epochs(tmp_path / "run")
    before = os.environ.get("XLA_FLAGS", "")
    monkeypatch.setenv("XLA_FLAGS", f"{before} --xla_force_host_platform_device_count=2")
    train(directory, epochs=3)
    monkeypatch.setenv("XLA_FLAGS", f"{before} --xla_cpu_enable_fast_math=true")
    with pytest.raises(ValueError, match="XLA_FLAGS: .* in the checkpoint, .*fast_math=true.* given"):
        train(directory)
    train(directory, allow=("flags",))


def test_what_may_differ_without_a_word(tmp_path):
    directory = run_of_two_epochs(tmp_path / "run")
    run = train(
        directory, callback=lambda state: {"more": 1.0}, log=tmp_path / "log", every=2, every_steps=3, progress=False,
        mesh=fnn.parallel.data_mesh(jax.devices()[:1]),
    )  # fmt: skip
    assert len(run.history) == 4


# -- allow, fresh, finished ------------------------------------------------------------------------------------------


def test_an_allowed_rate_is_the_rate_from_there_on(tmp_path):
    first = train(None, epochs=2)
    expected = train(None, first, updates.sgd(0.5), epochs=2, key=None)
    run = train(run_of_two_epochs(tmp_path / "run"), optimizer=updates.sgd(0.5), allow=("optimizer",))
    assert_same(run.params, expected.params)


def test_the_state_of_another_optimizer_starts_anew_with_a_warning(tmp_path):
    expected = train(None, optimizer=optax.adam(0.1), epochs=1)
    directory = run_of_two_epochs(tmp_path / "run")
    with pytest.warns(UserWarning, match="optimizer: its state does not match the checkpoint and is reinitialised in"):
        run = train(directory, optimizer=optax.adam(0.1), epochs=3, allow=["optimizer"])
    assert jax.tree.structure(run.state.optimizer_state) == jax.tree.structure(expected.state.optimizer_state)
    assert int(run.state.optimizer_state[0].count) == 4


def test_fresh_begins_anew_and_deletes_nothing(tmp_path):
    directory = run_of_two_epochs(tmp_path / "run")
    (directory / "notes.txt").write_text("mine")
    before = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    for number in (1, 2):
        run = train(directory, optimizer=updates.sgd(0.5), epochs=2, fresh=True)
        assert_same(run.params, train(None, optimizer=updates.sgd(0.5), epochs=2).params)
        aside = directory / f"before-{number}"
        assert orbax.epochs(aside) == orbax.epochs(directory) == [1, 2]
    assert all(
        (directory / path if path.name == "notes.txt" else directory / "before-1" / path).read_bytes() == content
        for path, content in before.items()
    )
    assert len(train(directory, optimizer=updates.sgd(0.5), epochs=3).history) == 3  # the new one is resumed
    with finished():
        assert len(train(directory / "before-1", epochs=2).history) == 2  # the old one is whole


def test_fresh_without_anything_there_begins_as_ever(tmp_path):
    train(tmp_path / "run", epochs=1, fresh=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"1"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"allow": "optimizer"}, TypeError, r"allow: expected names of arguments, got 'optimizer'; write allow=\('opt"),
        ({"allow": ("epochs",)}, ValueError, "allow: expected names among .*, got 'epochs'"),
        ({"allow": (1,)}, TypeError, "allow: expected names of arguments"),
        ({"fresh": 1}, TypeError, "fresh: expected True or False, got 1"),
        ({"every_steps": 0}, ValueError, "every_steps: expected at least 1, got 0"),
        (
            {"batches_per_epoch": 2},
            ValueError,
            "batches_per_epoch: an epoch of 43 examples in mini-batches of 10 has 4",
        ),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_by_name(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        train(tmp_path, **options)
    assert not [*tmp_path.iterdir()]


def test_a_run_in_memory_goes_on_into_the_directory_that_it_came_from(tmp_path):
    whole = train(None)
    first = train(tmp_path, epochs=2)
    run = train(tmp_path, first, epochs=2, key=None)
    assert_same(run.params, whole.params)
    assert without_seconds(run.history) == without_seconds(whole.history)
    with finished():
        train(tmp_path)


# -- what is noted ---------------------------------------------------------------------------------------------------


def test_other_versions_are_told_and_not_refused_and_their_programs_not_compared():
    run = {"optimizer": "sgd", "optimizer program": "SHA-256 1"}
    written = {"run": run, "versions": versions() | {"jax": "0.1", "device": "tpu v9"}}
    with pytest.warns(UserWarning, match="written by jax 0.1, now .*; device tpu v9, now .*programs were not compared"):
        require_same_run("run", written, run | {"optimizer program": "SHA-256 2"})
    with pytest.raises(ValueError, match="optimizer: sgd in the checkpoint, adam given"):
        require_same_run("run", written, run | {"optimizer": "adam"})
    with warnings.catch_warnings():
        require_same_run("run", {"run": run, "versions": versions()}, run)


@dataclass(frozen=True)
class OfTen(fnn.Loss):
    """A loss that takes mini-batches of ten only."""

    def value(self, a, y):
        return jnp.sum((a - y).reshape(5, 2, -1) ** 2, axis=-1).reshape(10)

    def gradient(self, a, y):
        return 2 * (a.reshape(10, -1) - y)


def test_a_loss_that_takes_whole_mini_batches_only_has_an_identity_too(tmp_path):
    options = {"data": Dataset(X, targets(Y)), "loss": OfTen()}
    train(tmp_path, epochs=1, **options)
    assert len(train(tmp_path, epochs=2, **options).history) == 2


# -- fingerprints ------------------------------------------------------------------------------------------------------


def test_a_programs_digest_is_that_of_its_constants_and_not_of_its_names():
    table = np.arange(6.0, dtype=np.float32)
    one = program(lambda x: jax.jit(lambda x: x + table)(x) * 0.1, table)
    jax.clear_caches()
    assert one == program(lambda given: jax.jit(lambda given: given + table.copy())(given) * 0.1, table)
    others = [
        program(lambda x: jax.jit(lambda x: x + changed(table, 3))(x) * 0.1, table),
        program(lambda x: jax.jit(lambda x: x + table)(x) * 0.2, table),
        program(lambda x: jax.jit(lambda x: table + x)(x) * 0.1, table),
        program(lambda x: jax.jit(lambda x: x + table)(x) * 0.1, table[:1]),
    ]
    assert len({one, *others}) == 5


def test_a_file_is_told_from_another_by_its_size_shape_and_samples(tmp_path):
    def mapped(name, array):
        np.save(tmp_path / f"{name}.npy", array)
        return np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    rows = np.arange(5 << 20, dtype=np.uint8).reshape(-1, 64)
    texts = {of_array(mapped(str(i), array)) for i, array in enumerate((rows, rows.reshape(-1, 32), rows[:-1], ~rows))}
    assert len(texts) == 4
    assert all("in a file of" in text for text in texts)
    assert of_array(mapped("same", rows)) in texts
