"""Training a graph: dropout, the network for inference, and fit."""

from itertools import product

import jax
import numpy as np
import optax
import pytest

import fnn
from fnn import fold, forward, sample_masks, trace
from fnn.graph import Graph
from graph_cases import SMOOTH, SOFTMAX, TANH, assert_close, data, network
from test_train import blobs, compilations, train

LAYERED = Graph.layered((5, 8, 3), TANH)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("kind", [fnn.DropConnect, fnn.Dropout])
def test_every_arrow_or_neuron_is_kept_with_a_probability_of_its_own(kind, inverted):
    params = network(LAYERED, "float32")
    keep = np.linspace(0.1, 1, 64 if kind is fnn.DropConnect else 16).astype(np.float32)
    dropout = kind(keep, inverted=inverted)
    masks = jax.vmap(lambda key: sample_masks(params, dropout, 1, key=key))(jax.random.split(jax.random.key(0), 4000))
    part, none = (masks.arrows, masks.units) if kind is fnn.DropConnect else (masks.units[:, 0], masks.arrows)
    r = np.asarray(part) * (keep if inverted else 1)
    assert none is None
    assert np.all(np.isclose(r, 0) | np.isclose(r, 1))
    assert np.all(np.abs(r.mean(axis=0) - keep) <= 5 * np.sqrt(keep * (1 - keep) / 4000) + 1e-6)


def test_dropout_keeps_the_inputs_whole_and_draws_by_example_or_by_batch():
    params = network(LAYERED, "float32")
    by_example, again = (sample_masks(params, fnn.Dropout(0.5), 6, key=jax.random.key(0)).units for _ in range(2))
    by_batch = sample_masks(params, fnn.Dropout(0.5, per_example=False), 6, key=jax.random.key(0)).units
    assert (by_example.shape, by_batch.shape) == ((6, 16), (1, 16))
    assert np.array_equal(by_example, again)
    assert np.all(np.asarray(by_example)[:, :5] == 1)
    assert len(np.unique(by_example, axis=0)) == 6


def test_one_number_for_dropconnect_drops_the_arrows_out_of_the_inputs_too_as_in_layers():
    params = network(LAYERED, "float32")
    arrows = sample_masks(params, fnn.DropConnect(0.5), 6, key=jax.random.key(0)).arrows
    from_inputs = np.asarray(LAYERED.arrows)[:, 0] < 5
    assert 0.2 < np.asarray(arrows)[from_inputs].mean() < 0.8
    assert np.allclose(fold(params, dropout=fnn.DropConnect(0.5)).weights, params.weights / 2)
    layers = fnn.init(jax.random.key(0), (5, 8, 3))
    assert np.allclose(fold(layers, dropout=fnn.DropConnect(0.5))[0].W, layers[0].W / 2)


def test_a_linear_network_folds_to_its_mean_over_all_masks(x64):
    graph = Graph([(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], fnn.Identity(), [0], [3])
    params, (x, _), p = network(graph), data(graph), np.array([0.3, 0.9, 0.5, 0.7, 0.2])
    every = np.array(list(product([0.0, 1.0], repeat=5)))
    chance = np.prod(np.where(every == 1, p, 1 - p), axis=1)

    @jax.jit
    def outputs_and_folded(every):
        outputs = jax.vmap(lambda r: forward(params, x, masks=fnn.Mask(arrows=r)))(every)
        return outputs, forward(fold(params, dropout=fnn.DropConnect(p)), x)

    outputs, folded = outputs_and_folded(every)
    assert_close(folded, np.tensordot(chance, outputs, 1))
    weights = np.asarray(params.weights)
    assert_close(fold(params, dropout=fnn.DropConnect(p)).weights, weights * p)
    assert_close(fold(params, dropout=fnn.DropConnect(p, inverted=True)), params)
    of_sources = np.array([1, 1, 0.5, 0.5, 0.5])  # an input is kept whole
    assert_close(fold(params, dropout=fnn.Dropout(0.5)).weights, weights * of_sources)


def test_the_network_folded_with_the_batchs_own_statistics_is_that_of_training(x64):
    params, (x, _) = network(SMOOTH, batch_norm="full"), data(SMOOTH, 9)
    moments = fnn.statistics(params, [x])

    @jax.jit
    def psi_and_outputs(mean, variance):
        folded = fold(params, statistics=moments._replace(mean=mean, variance=variance * 8 / 9))
        return trace(params, x).psi, forward(params, x), forward(folded, x)

    psi, right, ours = psi_and_outputs(*moments)
    np.testing.assert_allclose(moments.mean, np.mean(psi, axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(moments.variance, np.var(psi, axis=0, ddof=1), rtol=1e-12)
    assert_close(ours, right)


def train_layered(dropout, optimizer, batch_norm, seed=0):
    graph = Graph.layered((5, 8, 3), TANH)  # equal to any other, and not the same
    params, options = graph.init(jax.random.key(seed), batch_norm=batch_norm), {"dropout": dropout, "epochs": 12}
    return train(params, blobs(), optimizer, validation=blobs(60, seed=1), **options)


@pytest.mark.parametrize(
    ("dropout", "optimizer", "batch_norm"),
    [
        (fnn.Dropout(0.9), optax.adam(5e-2), None),  # a mask for every example, and an optimizer that is optax's
        pytest.param(None, optax.adam(5e-2), None, marks=pytest.mark.slow),
        pytest.param(fnn.DropConnect(0.9), fnn.updates.momentum(0.05, 0.9), None, marks=pytest.mark.slow),
        pytest.param(fnn.Dropout(0.9), fnn.updates.momentum(0.05, 0.9), "full", marks=pytest.mark.slow),
    ],
    ids=["units, optax", "plain, optax", "arrows", "units, batch norm"],
)
def test_fit_trains_a_graph_evaluate_and_predict_take_it_and_a_second_fit_compiles_nothing(
    dropout, optimizer, batch_norm
):
    run = train_layered(dropout, optimizer, batch_norm)
    assert run.history[-1]["loss"] < 0.5 * run.history[0]["loss"]
    assert run.history[-1]["validation_accuracy"] > 0.9
    with compilations() as programs:
        train_layered(dropout, optimizer, batch_norm, seed=1)
    assert programs == []

    moments, held_out = batch_norm and fnn.statistics(run.params, [blobs().floats()]), blobs(60, seed=1)
    plain = fold(run.params, statistics=moments, dropout=dropout)
    accuracy = fnn.train.evaluate(plain, held_out, loss=SOFTMAX)["accuracy"]
    assert accuracy > 0.9
    assert batch_norm or accuracy == run.history[-1]["validation_accuracy"]  # fit has statistics of mini-batches
    outputs = forward(plain, held_out.floats())
    np.testing.assert_allclose(fnn.train.predict(plain, held_out), outputs, rtol=1e-5, atol=1e-6)
