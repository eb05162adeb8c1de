"""Dropout and DropConnect: masks, their statistics, and the network that is used at test time."""

import jax
import numpy as np
import optax
import pytest

import fnn
from fnn import updates
from problems import and_slow, distance, objective, problem
from random_network import network
from test_train import blobs, compilations, train

KEY = jax.random.key(0)
KINDS = [fnn.Dropout, fnn.DropConnect]
PARAMS = network((6, 50, 40, 3))


def sample(*dropouts, batch, params=PARAMS, key=KEY):
    """Masks of each dropout with the same key, drawn in one program."""
    return jax.jit(lambda key: [fnn.sample_masks(params, dropout, batch, key=key) for dropout in dropouts])(key)


def arrays(masks):
    return [leaf for mask in masks for leaf in mask if leaf is not None]


def same(masks, others):
    return all(map(np.array_equal, arrays(masks), arrays(others)))


def test_dropout_masks_the_units_of_hidden_layers_by_example_or_by_batch():
    masks, shared = sample(fnn.Dropout(0.5), fnn.Dropout(0.5, per_example=False), batch=7)
    assert [None if m.units is None else m.units.shape for m in masks] == [None, (7, 50), (7, 40)]
    assert [m.arrows for m in masks] == [None] * 3
    assert len({tuple(row) for row in np.asarray(masks[1].units)}) == 7
    assert [None if m.units is None else m.units.shape for m in shared] == [None, (1, 50), (1, 40)]


def test_drop_connect_masks_every_arrow_once_for_the_batch_those_out_of_the_input_included():
    """Equation (11) of S4 has an r_kl for every arrow."""
    masks = jax.eval_shape(lambda: fnn.sample_masks(PARAMS, fnn.DropConnect(0.5), 7, key=KEY))
    assert [None if m.arrows is None else m.arrows.shape for m in masks] == [(50, 6), (40, 50), (3, 40)]
    assert [m.units for m in masks] == [None] * 3
    hidden = jax.eval_shape(lambda: fnn.sample_masks(PARAMS, fnn.DropConnect((None, 0.5, 0.5)), 7, key=KEY))
    assert [None if m.arrows is None else m.arrows.shape for m in hidden] == [None, (40, 50), (3, 40)]


def test_one_probability_for_every_arrow_is_a_tuple_of_it_in_masks_and_at_test_time():
    """In layers, stacked or not."""
    stacked = fnn.init(KEY, (6, 5, 5, 5, 3), stack=True)
    for params in (PARAMS, stacked):
        one, each = fnn.DropConnect(0.3), fnn.DropConnect((0.3,) * len(params))
        assert same(*(fnn.sample_masks(params, dropout, 4, key=KEY) for dropout in (one, each)))
        for folded, layer in zip(fnn.fold(params, dropout=one), params):
            np.testing.assert_array_equal(folded.W, layer.W * np.float32(0.3))


def test_dropout_keeps_the_networks_input_and_drop_connect_its_arrows_too_at_test_time():
    first = [fnn.fold(PARAMS, dropout=kind(0.5))[0].W for kind in KINDS]
    np.testing.assert_array_equal(first[0], PARAMS[0].W)
    np.testing.assert_array_equal(first[1], PARAMS[0].W / 2)


def test_a_tuple_has_an_entry_per_layer_the_networks_input_first():
    by_unit = np.linspace(0, 1, 50)
    (masks,) = sample(fnn.Dropout((0.8, by_unit, None)), batch=4000)
    assert masks[0].units.shape == (4000, 6)
    assert masks[2].units is None
    np.testing.assert_allclose(np.mean(masks[1].units, axis=0), by_unit, atol=0.04)
    by_arrow = np.random.default_rng(0).uniform(size=(40, 50))

    def arrows(key):
        return fnn.sample_masks(PARAMS, fnn.DropConnect((None, by_arrow, None)), 1, key=key)[1].arrows

    drawn = jax.jit(lambda key: jax.vmap(arrows)(jax.random.split(key, 400)))(KEY)
    np.testing.assert_allclose(np.mean(drawn, axis=0), by_arrow, atol=0.13)


@pytest.mark.parametrize("kind", KINDS)
def test_printed_masks_are_zero_and_one_and_inverted_ones_have_mean_one(kind):
    printed, inverted = map(arrays, sample(kind(0.8), kind(0.8, inverted=True), batch=400))
    assert {float(v) for m in printed for v in np.unique(m)} == {0.0, 1.0}
    assert {float(v) for m in inverted for v in np.unique(m)} == {0.0, 1.25}
    assert np.mean([np.mean(np.asarray(m)) for m in printed]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([np.mean(np.asarray(m)) for m in inverted]) == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_key_draws_the_same_masks_and_layers_and_keys_draw_independent_ones(kind):
    drawn = jax.jit(lambda key: fnn.sample_masks(network((40,) * 4), kind(0.5), 60, key=key))
    a, b, c = (drawn(jax.random.key(seed)) for seed in (3, 3, 4))
    assert same(a, b)
    assert not same(a, c)
    masks = [np.asarray(m).ravel() for m in (*arrays(a), *arrays(c))]
    correlations = np.corrcoef([m[:1600] for m in masks])[np.triu_indices(len(masks), 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(1600)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_with_sampled_masks_equals_autodiff(kind, x64):
    """For any masks it is shown in ``test_backward``; these are sampled, as printed and inverted."""
    p = problem(fnn.Sigmoid(), fnn.SquaredError(), 2, dtype="float64")

    @jax.jit
    def gradients(masks):
        return fnn.backprop(p.params, p.x, p.y, masks=masks), jax.grad(objective(p._replace(masks=masks)))(p.params)

    for masks in sample(*(kind((0.9, 0.5), inverted=i) for i in (False, True)), batch=len(p.x), params=p.params):
        for ours, theirs in zip(*map(jax.tree.leaves, gradients(masks))):
            assert distance(ours, theirs) <= 1e-12 * np.linalg.norm(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_for_one_layer_the_folded_network_is_the_mean_over_all_masks(kind, x64):
    """Equation S5, exact: the 2^n masks of one layer, weighted by their probabilities."""
    random = np.random.default_rng(1)
    W, b, x = (random.normal(size=shape) for shape in ((1, 4), (1,), (3, 4)))
    p = np.array([0.9, 0.2, 0.5, 0.7])
    params = (fnn.Dense(W, b, fnn.Identity()),)
    kept = np.array(list(np.ndindex(2, 2, 2, 2)))
    chances = np.prod(np.where(kept, p, 1 - p), axis=1)
    keep, of_masks = (p, fnn.Mask(units=0)) if kind is fnn.Dropout else (p[None], fnn.Mask(arrows=0))
    every = jax.jit(jax.vmap(lambda mask: fnn.forward(params, x, masks=(mask,)), ((of_masks,))))
    for inverted in (False, True):
        r = (kept / (p if inverted else 1))[:, None]
        mean = np.tensordot(chances, every(fnn.Mask(units=r) if kind is fnn.Dropout else fnn.Mask(arrows=r)), 1)
        folded = fnn.fold(params, dropout=kind((keep,), inverted=inverted))
        np.testing.assert_allclose(fnn.forward(folded, x), mean, rtol=1e-13)


# Units, with W p at test time; arrows, with W. The slow run adds a probability of the network's input.
DROPPED = [fnn.Dropout(0.8), fnn.DropConnect(0.8, inverted=True)]


@pytest.mark.parametrize("dropout", and_slow(DROPPED, [fnn.Dropout((0.9, 0.5))]))
def test_fit_drops_with_fresh_masks_in_one_program_and_evaluates_the_folded_network(dropout):
    params, data = network((5, 16, 3)), blobs(200)
    run = train(params, data, dropout=dropout, epochs=15, validation=data)
    assert run.history[-1]["validation_accuracy"] > 0.95
    folded = fnn.train.evaluate(fnn.fold(run.params, dropout=dropout), data, loss=fnn.SoftmaxCrossEntropy())
    assert folded["loss"] == pytest.approx(run.history[-1]["validation_loss"], rel=1e-5)
    with compilations() as programs:
        again = train(params, data, dropout=dropout, epochs=15, validation=data).params
    assert programs == []
    assert all(map(np.array_equal, jax.tree.leaves(run.params), jax.tree.leaves(again)))
    other = train(params, data, dropout=dropout, epochs=15, key=jax.random.key(9)).params
    assert not np.array_equal(run.params[0].W, other[0].W)


@pytest.mark.parametrize(
    ("dropout", "said"),
    [
        (fnn.Dropout((0.5, 0.5)), "keep: expected one entry per layer, 3, got 2"),
        (fnn.Dropout((None, np.ones(6), None)), r"keep\[1\]: expected a number or shape \(50,\), got \(6,\)"),
        (fnn.DropConnect((None, np.ones(50), None)), r"keep\[1\]: expected a number or shape \(40, 50\), got \(50,\)"),
        (0.5, "dropout: expected fnn.Dropout or fnn.DropConnect, got 0.5"),
    ],
)
def test_what_is_no_probability_to_keep_is_refused(dropout, said):
    with pytest.raises((TypeError, ValueError), match=said):
        fnn.sample_masks(PARAMS, dropout, 4, key=KEY)
    with pytest.raises((TypeError, ValueError), match=said):
        fnn.fold(PARAMS, dropout=dropout)


def test_max_norm_bounds_every_neurons_incoming_weights_and_leaves_shorter_ones_alone():
    params = network((5, 16, 3))
    gradients = jax.tree.map(lambda leaf: 3 * leaf + 1, params)

    def after_one_step(rule):
        return optax.apply_updates(params, rule.update(gradients, rule.init(params), params)[0])

    rules = updates.sgd(0.1), optax.chain(updates.sgd(0.1), updates.max_norm(1.0))
    free, bound = jax.tree.map(np.asarray, jax.jit(lambda: [after_one_step(rule) for rule in rules])())
    lengths = [np.linalg.norm(layer.W, axis=1, keepdims=True) for layer in free]
    assert min(map(np.min, lengths)) < 1.0 < max(map(np.max, lengths))
    for ours, without, length in zip(bound, free, lengths):
        np.testing.assert_allclose(ours.W, without.W * np.minimum(1, 1 / length), rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(ours.W[length[:, 0] < 1.0], without.W[length[:, 0] < 1.0])
        np.testing.assert_array_equal(ours.b, without.b)
    assert updates.max_norm(3.0) is updates.max_norm(3)
    with pytest.raises(ValueError, match="limit: expected a finite number > 0"):
        updates.max_norm(0.0)
