"""Many networks trained at once end where ``fit`` takes each of them."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import assert_refused, table
from fnn.data import Dataset
from fnn.train import Interrupted, fit, fit_many
from networks import drawn
from test_train import compilations

LOSS = fnn.SoftmaxCrossEntropy()
MEMBERS = 3
BITS = np.arange(2 * MEMBERS, dtype=np.uint32).reshape(MEMBERS, 2)
KEYS, KEY_OF = jax.random.wrap_key_data(BITS), list(map(jax.random.wrap_key_data, BITS))
RATES = (0.03, 0.3, 0.03)
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 43)
DATA = Dataset(np.clip(RANDOM.normal(60 + 50 * LABELS[:, None], 20, (43, 5)), 0, 255).astype(np.uint8), LABELS)
X = RANDOM.normal(size=(20, 5)).astype(np.float32)
TARGETS = (X, X[:, :3])
COMMON = {"loss": LOSS, "epochs": 2, "batch_size": 6, "progress": False}


def together(params):
    """The parameters of all members with a leading axis, stacked by NumPy, which compiles nothing."""
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *params)


def networks(**options):
    return together(drawn(seed=i, **options) for i in range(MEMBERS))


def graphs():
    arrows = [(s, t) for t in range(5, 9) for s in range(5)] + [(s, t) for t in range(9, 12) for s in range(9)]
    activations = [fnn.Identity()] * 5 + [fnn.Tanh()] * 4 + [fnn.Identity()] * 3
    graph = fnn.graph.Graph(arrows, activations, range(5), (9, 10, 11))
    return together(graph.init(key) for key in KEY_OF)


def member(params, i):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[i]), params)


def injected(rule=fnn.updates.sgd, **options):
    return optax.inject_hyperparams(rule)(learning_rate=1.0, **options)


def assert_as_one_by_one(params, optimizer, one=None, tolerance=1e-5, rates=RATES, **options):
    """one: the learning rate → the optimizer of one member; None: the same for all, without rates."""
    options = COMMON | {"validation": DATA} | options
    rules = {rate: optimizer if one is None else one(rate) for rate in rates}  # of equal rates one object
    runs = fit_many(params, DATA, optimizer, keys=KEYS, learning_rates=rates if one else None, **options)
    for i, run in enumerate(runs):
        alone = fit(member(params, i), DATA, rules[rates[i]], key=KEY_OF[i], **options)
        for trained, by_fit in ((run.params, alone.params), (run.network, alone.network)):
            assert jax.tree.structure(trained) == jax.tree.structure(by_fit)
            for ours, its in zip(jax.tree.leaves(trained), jax.tree.leaves(by_fit)):
                assert ours.dtype == its.dtype
                np.testing.assert_allclose(ours, its, rtol=tolerance, atol=tolerance)
        assert run.state.same == alone.state.same
        assert (run.state.epoch, run.state.step) == (alone.state.epoch, alone.state.step)
        assert len(run.history) == len(alone.history)
        for record, its in zip(run.history, alone.history):
            assert record.keys() == its.keys()
            for name in record.keys() - {"seconds"}:
                np.testing.assert_allclose(record[name], its[name], rtol=tolerance, err_msg=name)


def test_every_member_ends_where_fit_takes_it_with_its_rate_in_float64_to_the_last_digits(x64):
    assert_as_one_by_one(networks(dtype="float64"), injected(), fnn.updates.sgd, tolerance=1e-12)


def test_every_rule_with_a_learning_rate_serves_those_of_optax_too():
    """Adam divides by what rounding moves; all have one rate, other than the optimizer's, which is compiled once."""
    assert_as_one_by_one(networks(), injected(optax.adam), optax.adam, tolerance=1e-4, rates=(0.03,) * MEMBERS)


def test_without_rates_all_train_with_the_optimizer_as_it_is_and_with_masks_and_samples_of_their_own():
    """The masks are dropout's, the samples those of a batch norm's statistics."""
    assert_as_one_by_one(networks(norm=True), fnn.updates.sgd(0.05), tolerance=1e-4, dropout=fnn.Dropout(0.7))


@pytest.mark.slow
def test_stacks_are_members_too():
    params = together(fnn.stack(drawn((5, 6, 6, 6, 3), seed=i)) for i in range(MEMBERS))
    assert_as_one_by_one(params, fnn.updates.sgd(0.05), tolerance=1e-4, dropout=fnn.Dropout(0.7))


@pytest.mark.slow
def test_graphs_are_members_too():
    assert_as_one_by_one(graphs(), fnn.updates.sgd(0.05), dropout=fnn.Dropout(0.8))


RULE = injected()  # one object, and so one program for what follows


def train(rates=RATES, **options):
    """The parameters before, and the runs."""
    settings = {"keys": KEYS, "validation": TARGETS, "learning_rates": rates} | COMMON | {"loss": fnn.SquaredError()}
    params = networks()
    return params, fit_many(params, TARGETS, RULE, **settings | options)


def test_targets_have_no_accuracy_and_a_diverged_member_leaves_the_others_alone():
    _, runs = train((0.01, 1e30, 0.02))
    assert set(runs[0].history[0]) == {"epoch", "loss", "validation_loss", "seconds"}
    finite = [all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params)) for run in runs]
    assert finite == [True, False, True]


def test_one_program_serves_all_epochs_and_a_second_call_with_other_rates():
    train()
    with compilations() as programs:
        train(RATES[::-1], epochs=4)
    assert programs == []


def test_the_parameters_that_were_given_stay_as_they_are():
    params, _ = train()
    for ours, drawn_anew in zip(*map(jax.tree.leaves, (params, networks()))):
        np.testing.assert_array_equal(ours, drawn_anew)


# -- callback, checkpoint, mesh, Ctrl-C --------------------------------------------------------------------------


def results(runs):
    histories = [[record | {"seconds": 0} for record in run.history] for run in runs]
    return [(run.params, run.network, run.state.optimizer_state) for run in runs], histories


def assert_equal_runs(ours, others):
    (ours, history), (others, its) = results(ours), results(others)
    assert history == its
    assert all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(others)))


def test_a_callback_sees_all_members_adds_to_their_records_and_stops_them():
    seen = []

    def watch(progress):
        seen.append((progress.epoch, progress.params[0].W.shape, [len(records) for records in progress.history]))
        return {"first": progress.params[0].W[:, 0, 0], "twice": 2 * progress.epoch}

    _, runs = train(callback=watch)
    assert seen == [(1, (MEMBERS, 8, 5), [1] * MEMBERS), (2, (MEMBERS, 8, 5), [2] * MEMBERS)]
    for run in runs:
        assert run.history[-1]["first"] == float(run.params[0].W[0, 0])
        assert [record["twice"] for record in run.history] == [2, 4]
    assert [len(run.history) for run in train(callback=lambda progress: True)[1]] == [1] * MEMBERS


def test_all_members_resume_from_one_checkpoint_bitwise(tmp_path):
    _, whole = train()
    train(epochs=1, checkpoint=tmp_path)
    assert_equal_runs(train(checkpoint=tmp_path)[1], whole)
    with pytest.warns(UserWarning, match="holds this run, and it is finished after epoch 2"):
        assert_equal_runs(train(checkpoint=tmp_path)[1], whole)
    assert_refused(
        lambda: train((0.1, 0.3, 0.03), checkpoint=tmp_path), ValueError, ["learning_rates: .*0.3.* in the checkpoint"]
    )


def test_ctrl_c_loses_no_whole_epoch_of_any_member():
    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"stopped after epoch 2; write fit\(error.run\[i\], data, ...\)") as caught:
        train(epochs=5, callback=stop)
    assert_equal_runs(pickle.loads(pickle.dumps(caught.value)).run, train()[1])


def test_a_mesh_of_one_device_changes_nothing():
    mesh = fnn.parallel.data_mesh(jax.devices()[:1])
    for ours, its in zip(*map(jax.tree.leaves, (results(train(mesh=mesh)[1])[0], results(train()[1])[0]))):
        np.testing.assert_allclose(ours, its, rtol=1e-6, atol=1e-7)


def test_all_members_train_with_the_rules_given():
    rules = fnn.RULES._replace(bias_gradient=lambda delta: 0 * delta.sum(axis=0))
    params, runs = train(rules=rules)
    for i, run in enumerate(runs):
        np.testing.assert_array_equal(run.params[0].b, params[0].b[i])


@table(
    {
        "one network": (
            {"params": member(networks(), 0)},
            ValueError,
            r"^params\[0\].*W: expected a leading axis of 3 members, one per key, got float32 of shape \(8, 5\); write",
        ),
        "another number of members": (
            {"keys": jax.random.split(jax.random.key(0), 4)},
            ValueError,
            r"^params\[0\].*W: expected a leading axis of 4 members",
        ),
        "vmapped twice": (
            {"params": together([networks()] * MEMBERS)},
            ValueError,
            r"^params\[0\].W: expected shape \(n_out, n_in\), got \(3, 8, 5\); of the first member",
        ),
        "no params": ({"params": None}, TypeError, "^params: expected a tuple of fnn.Dense"),
        "one key": ({"keys": jax.random.key(0)}, TypeError, r"^keys: expected PRNG keys of shape \(N,\)", "split"),
        "seeds": ({"keys": np.arange(3)}, TypeError, r"^keys: expected PRNG keys of shape \(N,\)", "got int64"),
        "a rate for all": ({"learning_rates": 0.1}, ValueError, "^learning_rates: expected 3 numbers", "got float 0.1"),
        "too few rates": ({"learning_rates": (0.1, 0.2)}, ValueError, "^learning_rates: expected 3 numbers"),
        "a rate of 0": (
            {"learning_rates": (0.1, 0.0, 1.0)},
            ValueError,
            r"^learning_rates\[1\]: expected a finite number > 0, got 0.0",
        ),
        "rates for an optimizer that has its own": (
            {"optimizer": fnn.updates.sgd(0.1), "learning_rates": RATES},
            ValueError,
            "^optimizer: expected one whose learning rate is part of its state",
            r"write optax.inject_hyperparams\(fnn.updates.sgd\)\(learning_rate=0.1\)",
        ),
        "streamed data": (
            {"data": Dataset(DATA.x, DATA.y, chunk_bytes=100)},
            ValueError,
            "^data: expected arrays in memory, got streamed ones",
        ),
        "data of another width": ({"data": (np.ones((9, 4), "f4"), LABELS[:9])}, ValueError, "^data: .*takes 5 inputs"),
        "batch_size over N": ({"batch_size": 44}, ValueError, "^batch_size: .*at most the 43 examples, got 44"),
        "a callback's numbers for other members": (
            {"callback": lambda progress: {"a": [1.0, 2.0]}},
            ValueError,
            r"^callback: expected a number or 3 of them, one per member, got 'a': \[1.0, 2.0\]",
        ),
        "no function for a callback": (
            {"callback": 3},
            TypeError,
            "^callback: expected a function of a fnn.train.Prog",
        ),
        "no mesh": (
            {"mesh": 3},
            TypeError,
            "^mesh: expected a mesh with one axis, got 3; write fnn.parallel.data_mesh",
        ),
        "no rules": ({"rules": None}, TypeError, "^rules: expected fnn.Rules, got None"),
        "no probability": ({"dropout": fnn.Dropout((0.5,))}, ValueError, "^keep: expected one entry per layer"),
    }
)
def test_fit_many_refuses(given, error, fragments):
    given = {"params": networks(), "data": DATA, "optimizer": injected(), "keys": KEYS} | COMMON | given
    assert_refused(lambda: fit_many(**given), error, fragments)
