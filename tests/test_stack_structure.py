"""Which layers become a stack, how it is drawn, undone and summed up, and where it may not stand."""

from itertools import product

import jax
import numpy as np
import pytest

import fnn
from problems import and_slow
from stack_cases import SHORT, SIZES, assert_equal, by_layer, data, pair

KEY = jax.random.key(0)

# -- stack, unstack, init --------------------------------------------------------------------------------------

# Biases are drawn too with the one, γ and β set with the other.
DRAWN = [(fnn.standard_normal, None), (fnn.glorot_normal, "full")]


@pytest.mark.parametrize("case", and_slow(DRAWN, product([fnn.glorot_normal, fnn.standard_normal], [None, "full"])))
def test_init_draws_the_same_stacked_and_not(case):
    options = dict(zip(("initializer", "batch_norm"), case))
    layers, stacked = fnn.init(KEY, SHORT, **options), fnn.init(KEY, SHORT, stack=True, **options)
    assert jax.tree.structure(stacked) == jax.tree.structure(fnn.stack(layers))
    assert_equal(by_layer(stacked, stacked), layers, 1e-6)


@pytest.mark.parametrize(
    ("sizes", "depths"),
    [
        ((4, 4, 4, 4), [0, 0, 0]),  # a single hidden layer between the first and the last
        ((4, 4, 4, 4, 4), [0, 2, 0]),  # the first and the last layer stay, square or not
        ((5, 4, 4, 4, 6, 6, 6, 2), [0, 2, 0, 2, 0]),
        ((5, 4, 3, 2), [0, 0, 0]),
        ((3, 2), [0]),
    ],
)
def test_runs_of_two_or_more_like_hidden_layers_are_stacked(sizes, depths):
    drawn = jax.eval_shape(lambda: fnn.init(KEY, sizes, stack=True))
    for stacked in (drawn, jax.eval_shape(lambda: fnn.stack(fnn.init(KEY, sizes)))):
        assert [len(layer.W) if layer.stacked else 0 for layer in stacked] == depths


def test_only_like_layers_are_stacked():
    layers = list(pair(sizes=(4,) * 9, dtype="float32", norm="full")[0])
    layers[4] = pair(sizes=(4,) * 9, dtype="float32", activation=fnn.Sigmoid(), norm="fixed")[0][4]
    assert [layer.stacked for layer in jax.eval_shape(fnn.stack, layers)] == [False, True, False, True, False]


def test_stacking_what_is_stacked_joins_it_and_unstacking_undoes_it():
    layers, stacked = pair("float32")
    assert jax.tree.structure(fnn.unstack(stacked)) == jax.tree.structure(layers)
    assert_equal(fnn.unstack(stacked), layers, 0)
    part = (layers[0], fnn.stack(layers[:3] + layers[4:])[1], *layers[3:])
    assert [layer.stacked for layer in part] == [False, True, False, False]
    assert jax.tree.structure(fnn.stack(part)) == jax.tree.structure(stacked)


def test_summary_counts_the_layers_of_a_stack():
    layers, stacked = pair("float32", activation=fnn.Sigmoid())
    text = str(fnn.summary(stacked))
    assert "2–4    4       4        Sigmoid(beta=1.0)  -     60" in text
    assert text.splitlines()[-1] == str(fnn.summary(layers)).splitlines()[-1]
    assert repr(stacked[1]) == "Stack(W=(3, 4, 4), b=(3, 4), Sigmoid(beta=1.0), float32)"


# -- refusals --------------------------------------------------------------------------------------------------


def test_a_stack_stands_neither_first_nor_last():
    _, stacked = pair("float32")
    x = np.ones((7, 4), "float32")
    with pytest.raises(ValueError, match=r"params\[0\]: expected a fnn.Dense first and last, got a stack"):
        fnn.forward(stacked[1:], x)
    with pytest.raises(ValueError, match=r"params\[1\]: expected a fnn.Dense first and last"):
        fnn.forward(stacked[:2], x)


def test_wrong_shapes_of_a_stack_are_named():
    first, run, last = stacked = pair("float32")[1]
    x, y = data(stacked)

    def ones(*shape):
        return np.ones(shape, "float32")

    flat = fnn.Stack(ones(4, 4), ones(4), run.activation)
    with pytest.raises(ValueError, match=r"params\[1\].W: expected shape \(D, n, n\), got \(4, 4\)"):
        fnn.forward((first, flat, last), x)
    unequal = fnn.Stack(ones(3, 5, 4), ones(3, 5), run.activation)
    with pytest.raises(ValueError, match=r"params\[1\].W: expected shape \(D, 4, 4\)"):
        fnn.forward((first, unequal, last), x)
    short = fnn.Stack(run.W, ones(2, 4), run.activation)
    with pytest.raises(ValueError, match=r"params\[1\].b: expected shape \(3, 4\), got \(2, 4\)"):
        fnn.forward((first, short, last), x)
    masks = (fnn.Mask(), fnn.Mask(units=ones(7, 4)), fnn.Mask())
    with pytest.raises(ValueError, match=r"masks\[1\].units: expected shape \(3, 7, 4\) or \(3, 1, 4\)"):
        fnn.backprop(stacked, x, y, masks=masks)
    with pytest.raises(ValueError, match=r"keep\[1\]: expected a number or shape \(3, 4\)"):
        fnn.sample_masks(KEY, stacked, fnn.Dropout((None, np.ones(4), None)), 7)
    with pytest.raises(ValueError, match="entries: expected one for every entry of params, 3, got 2"):
        fnn.unstack(stacked, (1, 2))
    with pytest.raises(ValueError, match="stack: expected False or True"):
        fnn.init(KEY, SIZES, stack=3)
