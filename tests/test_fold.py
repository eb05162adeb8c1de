"""Population statistics, and batch norms folded into plain layers."""

import jax
import numpy as np
import pytest

import fnn
from problems import and_slow
from random_network import network
from test_train import blobs, compilations, train

SIZES, LOSS = (5, 8, 6, 3), fnn.SoftmaxCrossEntropy()


def batches(number=10, size=12, n=5, dtype="float32"):
    return np.random.default_rng(2).normal(1, 2, (number, size, n)).astype(dtype)


def by_hand(params, all_batches, keep=1.0):
    """Ioffe and Szegedy's algorithm 2 written out in NumPy: every layer in training mode, W p for W."""
    means, variances = [[] for _ in params], [[] for _ in params]
    for batch in np.asarray(all_batches, np.float64):
        a = batch
        for i, layer in enumerate(params):
            psi = a @ (np.float64(layer.W) * (keep if i else 1)).T + np.float64(layer.b)
            if layer.norm is not None:
                means[i].append(psi.mean(0))
                variances[i].append(psi.var(0) * len(psi) / (len(psi) - 1))
                psi = (psi - psi.mean(0)) / np.sqrt(psi.var(0) + layer.norm.eps) * np.float64(layer.norm.gamma)
                psi = psi + np.float64(layer.norm.beta)
            a = np.tanh(psi)
    return [(np.mean(m, axis=0), np.mean(v, axis=0)) if m else None for m, v in zip(means, variances)]


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_statistics_are_the_mean_of_means_and_of_unbiased_variances_of_the_network_at_test_time(keep):
    params = network(SIZES, norm="full")
    dropout = None if keep == 1 else fnn.Dropout(keep)
    ours = fnn.statistics(params, batches(), dropout=dropout)
    for moments, expected in zip(ours, by_hand(params, batches(), keep)):
        if expected is None:
            assert moments is None
        else:
            np.testing.assert_allclose(moments.mean, expected[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(moments.variance, expected[1], rtol=1e-4)


def test_the_folded_network_computes_what_the_formula_says_with_those_statistics(x64):
    params = network(SIZES, norm="full", dtype="float64")
    moments = jax.tree.map(np.asarray, fnn.statistics(params, batches(dtype="float64")))
    a = x = np.random.default_rng(3).normal(size=(4, 5))
    folded, outputs = jax.jit(lambda: (folded := fnn.fold(params, statistics=moments), fnn.forward(folded, x)))()
    assert all(layer.norm is None for layer in folded)
    for layer, m in zip(params, moments):
        z = a @ layer.W.T + layer.b
        if m is not None:
            norm = layer.norm
            z = norm.gamma * (z - m.mean) / np.sqrt(m.variance + norm.eps) + norm.beta
        a = np.tanh(z) if layer is not params[-1] else z
    np.testing.assert_allclose(outputs, a, rtol=1e-12)


def test_statistics_of_one_batch_fold_to_the_training_mode_but_for_the_unbiased_variance(x64):
    params, x = network((5, 8, 3), norm="full", dtype="float64"), batches(1, 5000, dtype="float64")

    @jax.jit
    def outputs(params):
        return fnn.forward(fnn.fold(params, statistics=fnn.statistics(params, x)), x[0]), fnn.forward(params, x[0])

    np.testing.assert_allclose(*outputs(params), atol=1e-3)


def test_a_plain_network_folds_to_itself():
    params = network((5, 4, 3))
    assert fnn.statistics(params, batches()) == (None, None)
    assert all(map(np.array_equal, jax.tree.leaves(fnn.fold(params)), jax.tree.leaves(params)))


def test_what_cannot_be_folded_is_refused():
    with pytest.raises(ValueError, match=r"statistics: params\[0\] has a batch norm and needs its statistics"):
        fnn.fold(network(SIZES, norm="full"))
    with pytest.raises(ValueError, match="statistics: expected one entry per layer, 3, got 1"):
        fnn.fold(network(SIZES, norm="full"), statistics=(None,))
    with pytest.raises(ValueError, match="batches: expected at least one mini-batch"):
        fnn.statistics(network(SIZES, norm="full"), [])
    with pytest.raises(ValueError, match="needs at least 2 examples, got 1"):
        fnn.statistics(network(SIZES, norm="full"), batches(2, 1))
    with pytest.raises(ValueError, match="write fnn.fold"):
        fnn.train.evaluate(network(SIZES, norm="full"), blobs(), loss=LOSS)


# With the dropout, the statistics are those of W p.
TRAINED = [("full", fnn.Dropout(0.9)), ("fixed", None)]


@pytest.mark.parametrize("case", and_slow(TRAINED, [("full", None), ("fixed", fnn.Dropout(0.9))]), ids=str)
def test_fit_trains_batch_norms_and_evaluates_with_statistics_of_training_batches(case):
    gradient, dropout = case
    params, data = network((5, 8, 3), activation=fnn.Sigmoid(), norm=gradient), blobs(400)
    run = train(params, data, epochs=10, batch_size=20, dropout=dropout, validation=blobs(300, seed=1))
    assert run.history[-1]["validation_accuracy"] > 0.95
    moments = fnn.statistics(run.params, data.floats().reshape(20, 20, 5), dropout=dropout)
    again = fnn.train.evaluate(fnn.fold(run.params, statistics=moments, dropout=dropout), blobs(300, seed=1), loss=LOSS)
    assert again["loss"] == pytest.approx(run.history[-1]["validation_loss"], rel=0.2)
    assert again["accuracy"] == pytest.approx(run.history[-1]["validation_accuracy"], abs=0.02)
    with compilations() as programs:
        train(params, data, epochs=10, batch_size=20, dropout=dropout, validation=blobs(300, seed=1))
    assert programs == []


def test_the_bias_before_a_fixed_batch_norm_drifts_though_the_output_ignores_it():
    """Its gradient is zero under "full"; under "fixed" it is not, and descent moves it without any effect."""
    data, fitted = blobs(400), {}
    for gradient in ("full", "fixed"):
        params = network((5, 8, 3), activation=fnn.Sigmoid(), norm=gradient)
        fitted[gradient] = train(params, data, epochs=10, batch_size=20).params
        drift = np.abs(fitted[gradient][0].b - params[0].b).max()
        assert drift < 1e-5 if gradient == "full" else drift > 0.01
    moved, last = fitted["fixed"]
    without = (fnn.Dense(moved.W, params[0].b, moved.activation, moved.norm), last)
    ours, theirs = (fnn.trace(params, data.floats())[-1].a for params in (without, fitted["fixed"]))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
