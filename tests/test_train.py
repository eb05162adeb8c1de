"""Training: whole epochs in one compiled loop."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn import updates
from fnn.data import Dataset
from fnn.train import Progress, evaluate, fit, make_step, predict
from networks import drawn
from problems import and_slow, compilations

LOSS = fnn.SoftmaxCrossEntropy()


def blobs(examples=103, seed=0):
    """Three Gaussian clouds in five dimensions, as bytes with labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, examples)
    centres = np.random.default_rng(99).integers(60, 200, (3, 5))
    return Dataset(np.clip(random.normal(centres[labels], 15), 0, 255).astype(np.uint8), labels)


def network(seed=0, dtype=jnp.float32):
    return fnn.init(jax.random.key(seed), (5, 8, 3), activation=fnn.Tanh(), dtype=dtype)


def train(params, data, optimizer=None, **options):
    settings = {"loss": LOSS, "epochs": 3, "batch_size": 10, "key": jax.random.key(1), "progress": False} | options
    return fit(params, data, optimizer or updates.sgd(0.5), **settings)


def test_fit_learns_and_records_every_epoch():
    run = train(network(), blobs(), epochs=20, validation=blobs(seed=1))
    assert [record["epoch"] for record in run.history] == list(range(1, 21))
    assert run.history[-1]["loss"] < 0.2 < run.history[0]["loss"]
    assert run.history[-1]["validation_accuracy"] > 0.95
    assert set(run.history[0]) == {"epoch", "loss", "validation_loss", "validation_accuracy", "seconds"}
    json.dumps(run.history)
    assert evaluate(run.params, blobs(seed=1), loss=LOSS)["accuracy"] == run.history[-1]["validation_accuracy"]


def test_fit_is_the_loop_that_one_would_write_over_the_same_shuffle():
    data, optimizer = blobs(), updates.momentum(0.2, 0.9)
    run = train(network(), data, optimizer, epochs=2, batch_size=10)
    params, state, step = network(), optimizer.init(network()), make_step(optimizer, loss=LOSS)
    for epoch in (1, 2):
        seed = [*np.asarray(jax.random.key_data(jax.random.key(1))).tolist(), epoch]
        order = np.random.default_rng(seed).permutation(103)[:100].reshape(10, 10)
        losses = []
        for rows in order:
            params, state, loss = step(params, state, data.floats()[rows], data.y[rows])
            losses.append(float(loss))
        np.testing.assert_allclose(run.history[epoch - 1]["loss"], np.mean(losses), rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(run.params), jax.tree.leaves(params)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


# examples and batch_size: some examples left out; all in one mini-batch; one by one
@pytest.mark.parametrize("shape", and_slow([(103, 10)], [(40, 40), (11, 1)]), ids=str)
def test_one_program_serves_all_epochs_and_a_second_fit_compiles_nothing(shape):
    (examples, batch_size), optimizer = shape, optax.adam(1e-2)
    data = blobs(examples)
    held_out = blobs(23)
    with compilations() as first:
        train(network(), data, optimizer, epochs=4, batch_size=batch_size, validation=held_out)
    assert first.count("jit(run)") <= 1  # the name is told by newer versions only
    with compilations() as longer:
        train(network(1), data, optimizer, epochs=6, batch_size=batch_size, validation=held_out)
    assert longer == []


def test_equal_rules_of_ours_share_the_compiled_program():
    train(network(), blobs(), updates.momentum(0.2, 0.9))
    with compilations() as programs:
        train(network(), blobs(), updates.momentum(0.2, 0.9))
    assert programs == []


def test_every_epoch_has_a_shuffle_of_its_own_and_leaves_out_other_examples():
    from fnn.train.loop import shuffle

    key = jax.random.key(3)
    orders = [shuffle(key, epoch, 103, 10) for epoch in (1, 2)]
    assert all(order.shape == (10, 10) and len(np.unique(order)) == 100 for order in orders)
    assert set(orders[0].ravel()) != set(orders[1].ravel())
    assert np.array_equal(orders[0], shuffle(key, 1, 103, 10))


def test_nothing_that_the_caller_can_hold_is_donated():
    start, kept = network(), []
    before = [np.asarray(leaf).copy() for leaf in jax.tree.leaves(start)]
    result = train(start, blobs(), callback=lambda state: kept.append(state.params)).params
    train(result, blobs())
    assert all(map(np.array_equal, before, jax.tree.leaves(start)))
    for params in (*kept, result):
        assert np.isfinite([float(jnp.sum(leaf)) for leaf in jax.tree.leaves(params)]).all()
    assert not np.array_equal(kept[0][0].W, kept[1][0].W)


def test_leaves_may_share_a_buffer_and_optimizers_may_keep_the_parameters():
    twice, (last,) = drawn((5, 5, 3))[:1] * 2, drawn((5, 3))
    train((*twice, last), blobs(), optax.chain(optax.sgd(0.1), optax.ema(0.9)))
    train((*twice, last), blobs(), optax.contrib.schedule_free_sgd(0.1))


def test_a_callback_sees_the_state_and_returning_true_stops():
    seen = []

    def stop(state: Progress):
        seen.append(state)
        return state.epoch == 2

    history = train(network(), blobs(), epochs=9, callback=stop).history
    assert len(history) == 2
    assert [len(state.history) for state in seen] == [1, 2]


def test_float_data_one_hot_targets_and_bytes_with_labels_train_alike():
    data = blobs()
    floats = Dataset(data.floats(), np.eye(3, dtype=np.float32)[data.y])
    a = train(network(), data, validation=data)
    b = train(network(), (floats.x, floats.y), validation=floats)
    for ours, theirs in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert a.history[-1]["validation_accuracy"] == b.history[-1]["validation_accuracy"]


def test_regression_has_a_loss_and_no_accuracy():
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    y = (x[:, :1] * x[:, 1:]).astype(np.float32)
    history = train(drawn((2, 16, 1)), (x, y), updates.sgd(0.1), loss=fnn.SquaredError(), validation=(x, y)).history
    assert set(history[0]) == {"epoch", "loss", "validation_loss", "seconds"}


@pytest.mark.parametrize("dtype", and_slow(["bfloat16"], ["float64"]))
def test_bytes_train_a_network_of_any_floating_dtype(dtype):
    with jax.enable_x64(dtype == "float64"):
        run = train(drawn(dtype=dtype), blobs(), epochs=8, validation=blobs())
    assert run.params[0].W.dtype == dtype
    assert run.history[-1]["loss"] < run.history[0]["loss"]


def test_the_sum_over_a_batch_is_the_mean_with_a_rate_as_many_times_larger():
    mean = train(network(), blobs(), updates.sgd(0.5)).params
    total = train(network(), blobs(), updates.sgd(0.5 / 10), reduction="sum").params
    for ours, theirs in zip(jax.tree.leaves(mean), jax.tree.leaves(total)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_an_optimizer_that_asks_for_the_loss_gets_it():
    train(network(), blobs(), optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)))


def test_predict_gives_the_outputs_that_forward_gives():
    data = blobs()
    np.testing.assert_allclose(predict(network(), data), fnn.forward(network(), data.floats()), rtol=1e-5, atol=1e-6)


def test_progress_needs_a_terminal_or_to_be_asked_for(capfd):
    train(network(), blobs(), progress=None)
    assert capfd.readouterr().err == ""
    train(network(), blobs(), progress=True)
    assert "3/3" in capfd.readouterr().err
