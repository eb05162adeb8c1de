"""Many networks trained at once end where ``fit`` takes each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import assert_refused, table
from fnn.data import Dataset
from fnn.train import fit, fit_many

LOSS = fnn.SoftmaxCrossEntropy()
MEMBERS = 3
KEYS = jax.random.split(jax.random.key(7), MEMBERS)
KEY_OF = [jax.random.wrap_key_data(row) for row in np.asarray(jax.random.key_data(KEYS))]
RATES = (0.03, 0.3, 0.1)
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 43)
DATA = Dataset(np.clip(RANDOM.normal(60 + 50 * LABELS[:, None], 20, (43, 5)), 0, 255).astype(np.uint8), LABELS)
COMMON = {"loss": LOSS, "epochs": 2, "batch_size": 6, "progress": False}


def fresh():
    return jax.random.split(jax.random.key(1), MEMBERS)


def networks(dtype=jnp.float32, sizes=(5, 8, 3), **options):
    options = {"activation": fnn.Tanh()} | options
    return jax.vmap(lambda key: fnn.init(key, sizes, dtype=dtype, **options))(fresh())


def graphs():
    arrows = [(s, t) for t in range(5, 9) for s in range(5)] + [(s, t) for t in range(9, 12) for s in range(9)]
    graph = fnn.graph.Graph(
        arrows, [fnn.Identity()] * 5 + [fnn.Tanh()] * 4 + [fnn.Identity()] * 3, range(5), (9, 10, 11)
    )
    return jax.vmap(graph.init)(fresh())


def member(params, i):
    return jax.tree.map(lambda leaf: leaf[i], params)


def injected(rule=fnn.updates.sgd, **options):
    return optax.inject_hyperparams(rule)(learning_rate=1.0, **options)


def assert_as_one_by_one(params, data, optimizer, one=None, tolerance=1e-5, **options):
    """one: the learning rate → the optimizer of one member; None: the same for all."""
    rates = RATES if one is not None else None
    together, histories = fit_many(params, data, optimizer, keys=KEYS, learning_rates=rates, **COMMON | options)
    for i in range(MEMBERS):
        rule = optimizer if one is None else one(RATES[i])
        alone, history = fit(member(params, i), data, rule, key=KEY_OF[i], **COMMON | options)
        assert jax.tree.structure(alone) == jax.tree.structure(member(together, i))
        for ours, its in zip(jax.tree.leaves(member(together, i)), jax.tree.leaves(alone)):
            assert ours.dtype == its.dtype
            np.testing.assert_allclose(ours, its, rtol=tolerance, atol=tolerance)
        assert len(histories[i]) == len(history)
        for record, its in zip(histories[i], history):
            assert record.keys() == its.keys()
            for name in record.keys() - {"seconds"}:
                np.testing.assert_allclose(record[name], its[name], rtol=tolerance, err_msg=name)


def test_every_member_ends_where_fit_takes_it_with_its_rate():
    assert_as_one_by_one(networks(), DATA, injected(), fnn.updates.sgd, validation=DATA)


@pytest.mark.parametrize(
    ("rule", "tolerance"), [(fnn.updates.momentum, 1e-5), (optax.adam, 1e-4)], ids=["ours", "optax"]
)
def test_every_rule_with_a_learning_rate_serves(rule, tolerance):
    assert_as_one_by_one(networks(), DATA, injected(rule), rule, tolerance)  # adam divides by what rounding moves


def test_in_float64_they_agree_in_the_last_digits(x64):
    params = networks(jnp.float64)
    assert_as_one_by_one(params, DATA, injected(), fnn.updates.sgd, tolerance=1e-12, validation=DATA)


@pytest.mark.parametrize(
    "options",
    [
        {"params": {"batch_norm": "full"}},
        pytest.param(
            {"params": {"sizes": (5, 6, 6, 6, 3), "stack": True}, "dropout": fnn.Dropout(0.7)}, marks=pytest.mark.slow
        ),
    ],
    ids=["batch norm", "stack and dropout"],
)
def test_without_rates_all_train_with_the_optimizer_as_it_is(options):
    options = dict(options)
    params = networks(**options.pop("params", {}))
    assert_as_one_by_one(params, DATA, fnn.updates.sgd(0.05), validation=DATA, tolerance=1e-4, **options)


@pytest.mark.slow
def test_graphs_are_members_too():
    assert_as_one_by_one(graphs(), DATA, injected(), fnn.updates.sgd, dropout=fnn.Dropout(0.8), validation=DATA)


def test_targets_have_no_accuracy_and_a_diverged_member_leaves_the_others_alone():
    x = RANDOM.normal(size=(20, 5)).astype(np.float32)
    data = (x, x[:, :3])
    rates = (0.01, 1e30, 0.02)
    params, histories = fit_many(
        networks(), data, injected(), keys=KEYS, learning_rates=rates, validation=data,
        **COMMON | {"loss": fnn.SquaredError()},
    )  # fmt: skip
    assert set(histories[0][0]) == {"epoch", "loss", "validation_loss", "seconds"}
    finite = [all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(member(params, i))) for i in range(3)]
    assert finite == [True, False, True]


def test_one_program_serves_all_epochs_and_a_second_call_with_other_rates():
    from test_train import compilations

    optimizer = injected()
    arguments = {"keys": KEYS, "validation": DATA} | COMMON
    fit_many(networks(), DATA, optimizer, learning_rates=RATES, **arguments)
    params = networks()
    with compilations() as programs:
        fit_many(params, DATA, optimizer, learning_rates=RATES[::-1], **arguments | {"epochs": 4})
    assert programs == []


def test_the_parameters_that_were_given_stay_as_they_are():
    params = networks()
    before = [np.asarray(leaf).copy() for leaf in jax.tree.leaves(params)]
    fit_many(params, DATA, fnn.updates.sgd(0.1), keys=KEYS, **COMMON)
    assert all(map(np.array_equal, before, jax.tree.leaves(params)))


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
            {"params": jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), networks())},
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
        "no probability": ({"dropout": fnn.Dropout(2.0)}, ValueError, "^keep: expected 0 <= keep <= 1"),
    }
)
def test_fit_many_refuses(given, error, fragments):
    given = {"params": networks(), "data": DATA, "optimizer": injected(), "keys": KEYS} | COMMON | given
    assert_refused(lambda: fit_many(**given), error, fragments)
