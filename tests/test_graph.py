"""The passes of a graph: against a loop over neurons in NumPy, layers, autodiff and finite differences."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnn
from fnn import backprop, deltas, forward, input_gradient, trace, value_and_backprop
from fnn.functions import _backward
from fnn.graph import Graph, GraphParams
from fnn.graph.plan import plan
from graph_cases import (
    EVERY_KIND,
    SMOOTH,
    SOFTMAX,
    SQUARED,
    TANH,
    assert_close,
    autodiff,
    cost,
    data,
    gradients,
    mixed,
    network,
    normed_layers,
    passes,
    random_mask,
)
from problems import FROM_Z, KINKED, and_slow, distance, name, problem

NUMPY = {  # σ and σ' of one neuron
    fnn.Identity(): (lambda z: z, lambda z: 1.0 + 0 * z),
    fnn.Tanh(): (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    fnn.Sigmoid(): (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    fnn.Softplus(): (lambda z: np.log1p(np.exp(z)), lambda z: 1 / (1 + np.exp(-z))),
    fnn.ReLU(): (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
}
OTHER_LOSSES = (fnn.Huber(delta=0.7), fnn.CrossEntropy(), fnn.CrossEntropy(categorical=True), fnn.Poisson())
DEEP = Graph.layered((3, 4, 4, 2), TANH, skips=[(0, 2), (1, 3)])


def generations(sizes, seed=0) -> Graph:
    """Few arrows: each neuron has two to the next generation, and each of that one from this."""
    random, first, pairs = np.random.default_rng(seed), np.cumsum([0, *sizes]), set()
    for low, middle, high in zip(first, first[1:], first[2:]):
        for i in range(max(middle - low, high - middle)):
            for shift in (0, random.integers(0, 5)):
                pairs.add((low + i % (middle - low), middle + (i + shift) % (high - middle)))
    return Graph(np.array(sorted(pairs)), TANH, range(sizes[0]), range(*first[-2:]))


def a_few_of_every_case() -> Graph:
    """Inputs in another order than their numbers, one an output; 3 without incoming arrows; 4 an output without any."""
    with pytest.warns(UserWarning, match="no input: 3, 4"):
        return Graph([(1, 2), (0, 2), (3, 2)], TANH, inputs=[1, 0], outputs=[2, 1, 4])


# -- against a loop --------------------------------------------------------------------------------------------


def neuron_by_neuron(params, x, y):
    """S1 and S2 one neuron after the other, for ½‖a − y‖² summed over the examples: ψ, a, λ, ∂/∂w, ∂/∂β."""
    graph, w, b, x = params.graph, np.asarray(params.weights), np.asarray(params.biases), np.asarray(x)
    into, out = ([[] for _ in range(len(graph))] for _ in range(2))
    for i, (s, t) in enumerate(graph.arrows.tolist()):
        into[t].append((i, s))
        out[s].append((i, t))
    waiting, order, inputs = list(map(len, into)), [], set(graph.inputs.tolist())
    ready = [k for k, n in enumerate(waiting) if n == 0]
    while ready:
        order.append(ready.pop())
        for _, t in out[order[-1]]:
            waiting[t] -= 1
            if waiting[t] == 0:
                ready.append(t)
    psi, a, g, lam = np.zeros((4, len(x), len(graph)))
    psi[:, graph.inputs] = a[:, graph.inputs] = x
    for k in order:
        if k not in inputs:
            psi[:, k] = b[k] + sum(w[i] * a[:, j] for i, j in into[k])
            a[:, k] = NUMPY[graph.activations[k]][0](psi[:, k])
    g[:, graph.outputs] = a[:, graph.outputs] - np.asarray(y)
    for k in reversed(order):
        g[:, k] += sum(lam[:, t] * w[i] for i, t in out[k])
        lam[:, k] = g[:, k] * NUMPY[graph.activations[k]][1](psi[:, k])
    source, target = graph.arrows.T
    computed = ~np.isin(np.arange(len(graph)), graph.inputs)
    return psi, a, lam, (lam[:, target] * a[:, source]).sum(axis=0), lam.sum(axis=0) * computed


@pytest.mark.parametrize(
    "make",
    [
        lambda: SMOOTH,
        a_few_of_every_case,
        lambda: Graph([], TANH, ["a", "b"], ["b", "a"]),
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (
                lambda: mixed(2, [TANH, fnn.ReLU(), fnn.Identity()]),
                lambda: Graph.layered((6, 40, 20, 3), TANH, skips=[(0, 2), (1, 3)]),
                lambda: generations([3, 40, 2, 70, 5]),
            )
        ),
    ],
    ids=["mixed", "a few of every case", "no arrow", "kinks", "skips", "sizes"],
)
def test_every_value_is_that_of_a_loop_over_neurons(make, x64):
    params = network(make())
    x, y = data(params.graph)
    psi, a, lam, weights, biases = neuron_by_neuron(params, x, y)
    ours = passes(params, x, y)
    pairs = [(ours.trace.psi, psi), (ours.trace.a, a), (ours.outputs, a[:, params.graph.outputs]), (ours.deltas, lam)]
    pairs += [(ours.gradients.weights, weights), (ours.gradients.biases, biases)]
    for value, expected in pairs:
        assert value.shape == expected.shape
        assert distance(value, expected) <= 1e-12 * np.linalg.norm(expected)


def test_a_chain_of_two_thousand_generations_is_a_loop(x64):
    graph = Graph([(i, i + 1) for i in range(2000)], TANH, [0], [2000])
    x, y = data(graph)
    n = np.arange(2001.0)
    params = GraphParams(*map(jax.device_put, (1 + 0.1 * np.sin(n[:-1]), 0.1 * np.cos(n))), graph)
    a = np.asarray(x)
    for w, b in zip(np.asarray(params.weights), np.asarray(params.biases)[1:]):
        a = np.tanh(w * a + b)
    outputs, both = jax.jit(lambda *args: (forward(*args[:2]), gradients(*args)))(params, x, y)
    assert distance(outputs, a) <= 1e-12 * np.linalg.norm(a)
    assert_close(*both, 1e-11)
    assert len(plan(graph).layout.forward) == 1


# -- against layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", and_slow([SQUARED, SOFTMAX], OTHER_LOSSES), ids=name)
def test_layers_as_a_graph_are_the_same_network(loss, x64):
    """Of one example with its label, where the loss takes labels, and else of a batch."""
    kinds = FROM_Z, KINKED, fnn.Sigmoid(2.0) if isinstance(loss, fnn.CrossEntropy) else fnn.Identity()
    if loss.takes_labels:
        kinds, p = kinds[1:], problem(TANH, loss, 2, batch=None, dtype="float64", labels=True)
    else:
        p = problem(TANH, loss, 3, dtype="float64")
    layers = tuple(replace(layer, activation=kind) for layer, kind in zip(p.params, kinds, strict=True))

    @jax.jit
    def as_graph_and_as_layers(layers, x, y):
        params, first = Graph.from_layers(layers), x.shape[-1]
        value, of_layers = fnn.value_and_backprop(layers, x, y, loss=loss)
        ours = forward(params, x), *value_and_backprop(params, x, y, loss=loss), deltas(params, x, y, loss=loss)
        by_psi = jnp.concatenate(fnn.deltas(layers, x, y, loss=loss), axis=-1)
        return (*ours[:3], ours[3][..., first:]), (fnn.forward(layers, x), value, Graph.from_layers(of_layers), by_psi)

    assert_close(*as_graph_and_as_layers(layers, p.x, p.y))


@pytest.mark.parametrize("gradient", ["full", "fixed"])
def test_a_batch_norm_at_the_outputs_is_that_of_the_layers(gradient, x64):
    layers, x, y = normed_layers(gradient)

    def said(params, x, y):
        moments = fnn.statistics(params, [x, x[::-1] ** 2])
        folded = forward(fnn.fold(params, statistics=moments), x)
        values = forward(params, x), input_gradient(params, x, y), folded
        return values, backprop(params, x, y), deltas(params, x, y), moments

    @jax.jit
    def as_graph_and_as_layers(layers, x, y):
        params = Graph.from_layers(layers)
        return said(params, x, y), said(layers, x, y), jax.grad(cost)(params, x, y)

    (values, gradients, lam, moments), of_layers, autodiff = as_graph_and_as_layers(layers, x, y)
    assert_close(values, of_layers[0])
    assert_close((gradients, gradients), (Graph.from_layers(of_layers[1]), autodiff))
    assert_close(lam[:, 4:], np.concatenate(of_layers[2], axis=1))
    for part, right in ((slice(4, 9), of_layers[3][0]), (slice(13, 16), of_layers[3][2])):
        assert_close(jax.tree.map(lambda leaf, part=part: leaf[part], moments), right)


def test_half_of_the_arrows_are_the_layers_with_zeros_for_the_others(x64):
    """So many arrows that they are computed as matrices, with zeros in them for those that are missing."""
    random, sizes = np.random.default_rng(0), ((30, 40), (10, 30))
    layers = tuple(fnn.Dense(random.normal(size=of) / np.sqrt(of[1]), random.normal(size=of[0]), TANH) for of in sizes)
    parts = [random.random(of) < 0.5 for of in sizes]
    full, kept = Graph.layered((40, 30, 10)), np.flatnonzero(np.concatenate(parts, axis=None))
    half = Graph(full.arrows[kept], TANH, full.inputs, full.outputs)
    masks = tuple(fnn.Mask(arrows=part.astype("float64")) for part in parts)

    @jax.jit
    def as_graph_and_as_layers(layers, x, y):
        def graph(layers):
            whole = Graph.from_layers(layers)
            return replace(whole, weights=whole.weights[kept], graph=half)

        right = fnn.forward(layers, x, masks=masks), graph(fnn.backprop(layers, x, y, masks=masks))
        return (forward(graph(layers), x), backprop(graph(layers), x, y)), right

    assert_close(*as_graph_and_as_layers(layers, *data(half)))


# -- against autodiff ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_gradient_equals_autodiff_with_an_activation_of_its_own_at_every_neuron(x64):
    assert_close(*gradients(network(EVERY_KIND), *data(EVERY_KIND)))


@pytest.mark.parametrize("parts", and_slow([(), ("units", "arrows")], [("arrows",)]), ids=" and ".join)
def test_every_derivative_equals_autodiffs_and_masks_are_part_of_the_derivation(parts, x64):
    """Of one example, the derivative by ψ is that by the bias, and by ψ of an input that by x.

    The neurons are of several kinds, those that the loss sees too.
    """
    assert len({SMOOTH.activations[i] for i in SMOOTH.outputs}) > 1
    params, (x, y), masks = network(SMOOTH), data(SMOOTH), random_mask(SMOOTH, parts)
    ours, (by_params, by_x) = jax.device_get((passes(params, x, y, masks), autodiff(params, x, y, masks)))
    assert_close(ours.gradients, jax.tree.map(lambda leaf: leaf.sum(axis=0), by_params))
    assert_close(ours.by_x, by_x)
    of_input = np.isin(np.arange(len(SMOOTH)), SMOOTH.inputs)
    assert_close(ours.deltas[:, ~of_input], by_params.biases[:, ~of_input])
    assert_close(ours.deltas[:, SMOOTH.inputs], by_x)


def test_one_example_is_a_row_of_a_batch(x64):
    params, (x, y) = network(SMOOTH), data(SMOOTH)

    @jax.jit
    def of_one(params, x, y):
        return trace(params, x), deltas(params, x, y), input_gradient(params, x, y)

    batch = jax.device_get(passes(params, x, y))
    right = jax.tree.map(lambda leaf: leaf[2], (batch.trace, batch.deltas, batch.by_x))
    assert_close(of_one(params, np.asarray(x)[2], np.asarray(y)[2]), right)


@pytest.mark.parametrize(
    ("loss", "labels"), [(fnn.CrossEntropy(), False), pytest.param(SOFTMAX, True, marks=pytest.mark.slow)]
)
def test_a_loss_sees_outputs_of_several_kinds(loss, labels, x64):
    kinds = [fnn.Sigmoid(), fnn.Sigmoid(2.0), fnn.Gaussian(sigma=2.0)]
    graph = Graph(Graph.layered((4, 5, 3)).arrows, [TANH] * 9 + kinds, range(4), [11, 9, 10])
    assert_close(*gradients(network(graph), *data(graph, labels=labels), loss=loss))


def test_a_mask_of_units_hides_a_neuron_from_its_receivers_and_not_from_the_output(x64):
    params, (x, y) = network(SMOOTH), data(SMOOTH)
    seen = SMOOTH.outputs[1]  # it has outgoing arrows
    units = np.ones((len(x), len(SMOOTH)))
    units[:, seen] = 0
    masks = fnn.Mask(*map(jax.device_put, (units, np.ones(len(SMOOTH.arrows)))))
    weights = np.where(SMOOTH.arrows[:, 0] == seen, 0, np.asarray(params.weights))
    hidden, without = passes(params, x, y, masks), passes(replace(params, weights=jax.device_put(weights)), x, y)
    assert_close(hidden.trace, without.trace)
    assert_close(hidden.outputs, without.outputs)


@pytest.mark.parametrize("gradient", and_slow(["full"], ["fixed"]))
def test_the_gradient_through_a_batch_norm_equals_autodiff(gradient, x64):
    params, (x, y) = network(DEEP, batch_norm=gradient), data(DEEP)
    hand, auto = gradients(params, x, y, random_mask(DEEP, ["units"]))
    assert jax.tree.structure(hand) == jax.tree.structure(auto)
    # in one, because with the statistics differentiated the biases have no effect
    assert_close(*(np.concatenate(list(map(np.asarray, jax.tree.leaves(tree)))) for tree in (hand, auto)))


@pytest.mark.parametrize("graph", [DEEP, pytest.param(SMOOTH, marks=pytest.mark.slow)], ids=["deep", "mixed"])
def test_the_gradient_is_the_quotient_of_differences(graph, x64):
    @jax.jit
    def gradients_and_quotients(params, x, y):
        flat, back = ravel_pytree(params)
        costs, steps = jax.vmap(lambda flat: cost(back(flat), x, y)), 1e-5 * jnp.eye(len(flat))
        return backprop(params, x, y), back((costs(flat + steps) - costs(flat - steps)) / 2e-5)

    for seed in range(4):
        ours, quotients = gradients_and_quotients(network(graph, seed=seed), *data(graph, 3, seed=seed))
        for part in ("weights", "biases"):
            assert distance(getattr(ours, part), getattr(quotients, part)) < 1e-8


# -- how they are called ---------------------------------------------------------------------------------------


COPIES = {
    "output_delta": lambda loss, activation, z, a, y: activation.pullback(loss.gradient(a, y), z, a),
    "input_gradient": lambda delta, W, mask: delta @ W,
    "hidden_delta": lambda g, activation, z, a: g * activation.derivative(z, a),
    "weight_gradient": lambda delta, a_in, mask: delta.T @ a_in,
    "bias_gradient": lambda delta: delta.sum(axis=0),
}


def test_a_rule_of_ones_own_is_the_one_that_runs(x64):
    params, (x, y) = network(DEEP), data(DEEP)

    @jax.jit
    def with_factors(factors):
        """The gradients by rules that are these multiples of the right ones, and the right gradients."""

        def times(i, rule):
            return lambda *args: factors[i] * rule(*args)

        rules = fnn.RULES._replace(**{name: times(i, rule) for i, (name, rule) in enumerate(COPIES.items())})
        return backprop(params, x, y, rules=rules), backprop(params, x, y)

    assert_close(*with_factors(np.ones(5)))
    for factors in 1 + 0.5 * np.eye(5):
        changed, plain = with_factors(factors)
        assert sum(map(distance, jax.tree.leaves(changed), jax.tree.leaves(plain))) > 0.01


def test_backprop_runs_under_jit_and_vmap_in_float32():
    with jax.enable_x64(True):
        members, (x, y) = [network(SMOOTH, seed=seed) for seed in range(2)], data(SMOOTH)
        right = [jax.device_get(passes(member, x, y).gradients) for member in members]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).astype("float32"), *jax.device_get(members))
    x, y = np.float32(x), np.float32(y)

    @jax.jit
    @jax.vmap
    def of_every_member(params):
        return value_and_backprop(params, x, y, reduction="sum")

    _, every = jax.device_get(of_every_member(stacked))
    for i, expected in enumerate(right):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], every), jax.tree.map(np.float32, expected), 1e-5)


def test_equal_graphs_share_one_program():
    pairs, sizes = [(0, 2), (1, 3), (0, 4), (2, 5), (3, 5), (4, 6)], []
    x, y = np.ones((4, 2), "float32"), np.zeros((4, 2), "float32")
    for seed, arrows in enumerate((pairs, list(pairs), np.array(pairs))):
        backprop(network(Graph(arrows, TANH, [0, 1], [5, 6]), "float32", seed), x, y)
        sizes.append(_backward._cache_size())
    assert sizes == sizes[:1] * 3


@pytest.mark.parametrize("make", [generations, Graph.layered], ids=["sparse", "dense"])
def test_a_deep_graph_has_few_legs(make):
    layout = plan(make(np.random.default_rng(0).integers(1, 40, 300).tolist())).layout
    for legs in (layout.forward, layout.backward):
        assert len(legs) <= 8
        assert sum(leg.steps for leg in legs) >= 299


def test_a_huge_generation_among_small_ones_does_not_pad_them():
    graph = generations([3] * 50 + [1000] + [3] * 50)
    for legs in plan(graph).layout[:2]:
        assert sum(leg.steps * leg.rows for leg in legs) <= 2 * len(graph)
        assert sum(leg.steps * leg.groups * leg.width for leg in legs) <= 3 * len(graph.arrows)
