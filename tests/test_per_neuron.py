"""A layer whose neurons have different activations."""

import jax
import numpy as np
import pytest

import fnn
from problems import distance

MIXED = fnn.PerNeuron((fnn.Tanh(), fnn.ReLU(), fnn.Tanh(), fnn.GELU()))


def drawn(activation):
    return fnn.init(jax.random.key(0), (3, 4, 2), activation=activation)


def test_every_neuron_has_its_own_activation_and_derivative():
    z, g = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    a = MIXED.value(z)
    for k, activation in enumerate(MIXED.activations):
        np.testing.assert_array_equal(a[:, k], activation.value(z)[:, k])
        np.testing.assert_allclose(MIXED.pullback(g, z, a)[:, k], activation.pullback(g, z, a)[:, k], rtol=1e-6)


def test_the_gradient_equals_autodiff_and_that_of_the_graph():
    params, random = drawn(MIXED), np.random.default_rng(1)
    x, y = (random.normal(size=(5, n)).astype("float32") for n in (3, 2))
    auto = jax.grad(lambda params: fnn.SquaredError().value(fnn.forward(params, x), y).mean())(params)
    hand = fnn.backprop(params, x, y)
    for ours, theirs in zip(*map(jax.tree.leaves, (hand, auto))):
        assert distance(ours, theirs) <= 1e-5 * np.linalg.norm(theirs)
    graph = fnn.graph.Graph.from_layers(params)
    assert set(map(str, graph.graph.kinds)) == {"Identity()", "Tanh()", "ReLU()", "GELU(approximate=False)"}
    weights = np.concatenate([np.ravel(layer.W) for layer in hand])
    assert distance(fnn.backprop(graph, x, y).weights, weights) <= 1e-5 * np.linalg.norm(weights)


def test_layers_take_an_activation_each():
    params = fnn.init(jax.random.key(0), (3, 4, 4, 4, 2), activation=[fnn.Tanh(), fnn.ReLU(), fnn.ReLU()], stack=True)
    assert [str(layer.activation) for layer in params] == ["Tanh()", "ReLU()", "Identity()"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="activation: expected one, or one per hidden layer, 1, got 2"):
        drawn([fnn.Tanh(), fnn.ReLU()])
    with pytest.raises(TypeError, match=r"activations\[1\]: expected an elementwise activation"):
        fnn.PerNeuron((fnn.Tanh(), fnn.Softmax))
    with pytest.raises(ValueError, match="PerNeuron: expected 2 neurons, one per activation, got 4"):
        fnn.forward(drawn(fnn.PerNeuron((fnn.Tanh(), fnn.ReLU()))), np.ones((5, 3), "float32"))
