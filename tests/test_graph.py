"""The passes of a graph: against a loop over neurons in NumPy, layers, autodiff and finite differences."""

from dataclasses import replace
from itertools import product

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fnn
from fnn.graph import Graph, Network, backprop, deltas, fold, forward, input_gradient, sample_masks, trace
from fnn.graph.passes import _backward
from fnn.graph.plan import plan
from problems import ACTIVATIONS, LOSSES, distance, name, problem, some
from test_train import blobs, compilations, train

ELEMENTWISE = [activation for activation in ACTIVATIONS if not isinstance(activation, fnn.Softmax)]
NUMPY = {  # σ and σ' of one neuron
    fnn.Identity(): (lambda z: z, lambda z: 1.0 + 0 * z),
    fnn.Tanh(): (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    fnn.Sigmoid(): (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    fnn.Softplus(): (lambda z: np.log1p(np.exp(z)), lambda z: 1 / (1 + np.exp(-z))),
    fnn.ReLU(): (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
}
SQUARED, SOFTMAX, TANH = fnn.SquaredError(), fnn.SoftmaxCrossEntropy(), fnn.Tanh()


def mixed(seed, kinds, neurons=40, arrows=130) -> Graph:
    """Names; an activation of its own for every neuron; two outputs with outgoing arrows; everything in any order."""
    key, random = jax.random.key(seed), np.random.default_rng(seed)
    drawn = Graph.random(key, neurons, arrows, inputs=4, outputs=3, generations=6)
    names = [f"n{i}" for i in random.permutation(neurons)]
    pairs = [(names[s], names[t]) for s, t in random.permutation(drawn.arrows)]
    activations = {names[i]: kinds[i % len(kinds)] for i in random.permutation(np.arange(4, neurons))}
    outputs = [names[i] for i in (-2, 20, -1, -3, 9)]
    return Graph(pairs, activations, random.permutation(names[:4]).tolist(), outputs)


def generations(sizes, seed=0) -> Graph:
    """Few arrows: each neuron has two to the next generation, and each of that one from this."""
    random, first, pairs = np.random.default_rng(seed), np.cumsum([0, *sizes]), set()
    for low, middle, high in zip(first, first[1:], first[2:]):
        for i in range(max(middle - low, high - middle)):
            for shift in (0, random.integers(0, 5)):
                pairs.add((low + i % (middle - low), middle + (i + shift) % (high - middle)))
    return Graph(np.array(sorted(pairs)), TANH, range(sizes[0]), range(*first[-2:]))


EVERY_KIND = mixed(0, ELEMENTWISE)
SMOOTH = mixed(1, [TANH, fnn.Softplus(), fnn.Sigmoid()])
LAYERED = Graph.layered((5, 8, 3), TANH)


def network(graph, dtype="float64", seed=0, batch_norm=None) -> Network:
    """Random parameters, none of them zero, an input's bias neither."""
    random = np.random.default_rng(seed)
    params = graph.init(jax.random.key(seed), gain=1.2, batch_norm=batch_norm, dtype=dtype)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(0.3 * random.normal(size=leaf.shape), dtype), params)


def data(graph, batch=7, dtype="float64", seed=0, labels=False):
    random, rows = np.random.default_rng(seed), () if batch is None else (batch,)
    x = jnp.asarray(random.normal(size=(*rows, len(graph.inputs))), dtype)
    if labels:
        return x, jnp.asarray(random.integers(0, len(graph.outputs), rows), "int32")
    return x, jnp.asarray(random.uniform(0.05, 0.95, (*rows, len(graph.outputs))), dtype)


def cost(params, x, y, *, loss=SQUARED, reduction="mean", masks=None):
    values = loss.value(jnp.atleast_2d(forward(params, x, masks)), y if x.ndim == 2 else y[None])
    return values.mean() if reduction == "mean" else values.sum()


def assert_close(ours, theirs, tolerance=1e-12):
    """Equal structure, shapes and dtypes, and every leaf norm-wise."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert distance(a, b) <= tolerance * np.linalg.norm(np.float64(b))


def assert_gradients_agree(params, x, y, tolerance=1e-12, **options):
    assert_close(backprop(params, x, y, **options), jax.grad(cost)(params, x, y, **options), tolerance)


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


def assert_is_the_loop(params, x, y, tolerance=1e-12):
    psi, a, lam, weights, biases = neuron_by_neuron(params, x, y)
    ours, gradients = trace(params, x), backprop(params, x, y, reduction="sum")
    pairs = [(ours.psi, psi), (ours.a, a), (deltas(params, x, y), lam)]
    pairs += [(gradients.weights, weights), (gradients.biases, biases)]
    for value, expected in pairs:
        assert value.shape == expected.shape
        assert distance(value, expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "graph",
    [
        SMOOTH,
        mixed(2, [TANH, fnn.ReLU(), fnn.Identity()]),
        pytest.param(Graph.layered((6, 40, 20, 3), TANH, skips=[(0, 2), (1, 3)]), marks=pytest.mark.slow),
        pytest.param(generations([3, 40, 2, 70, 5]), marks=pytest.mark.slow),
        Graph([(0, 1)], TANH, [0], [1]),
        Graph([("x", "y")], TANH, ["x"], ["y", "x"]),
        Graph([], TANH, ["a", "b"], ["b", "a"]),
    ],
    ids=["mixed", "kinks", "skips", "sizes", "one arrow", "input and output", "no arrow"],
)
def test_every_value_is_that_of_a_loop_over_neurons(graph, x64):
    assert_is_the_loop(network(graph), *data(graph))


def test_a_neuron_without_incoming_arrows_is_its_bias_and_an_output_may_be_isolated(x64):
    with pytest.warns(UserWarning, match="no input: 'b', 'alone'"):
        graph = Graph([("x", "y"), ("b", "y")], TANH, ["x"], ["y", "alone"])
    assert_is_the_loop(network(graph), *data(graph))


def test_a_chain_of_two_thousand_generations_is_a_loop(x64):
    graph = Graph([(i, i + 1) for i in range(2000)], TANH, [0], [2000])
    x, y = data(graph)
    params = Network(1 + 0.1 * jnp.sin(jnp.arange(2000.0)), 0.1 * jnp.cos(jnp.arange(2001.0)), graph)
    a = np.asarray(x)
    for w, b in zip(np.asarray(params.weights), np.asarray(params.biases)[1:]):
        a = np.tanh(w * a + b)
    assert distance(forward(params, x), a) <= 1e-12 * np.linalg.norm(a)
    assert_gradients_agree(params, x, y, 1e-11)
    assert len(plan(graph).layout.forward) == 1


def assert_is_the_layers(p, tolerance=1e-12):
    params, first = Graph.from_layers(p.params), 5
    assert_close(forward(params, p.x), fnn.forward(p.params, p.x), tolerance)
    ours = fnn.graph.value_and_backprop(params, p.x, p.y, loss=p.loss)
    value, gradients = fnn.value_and_backprop(p.params, p.x, p.y, loss=p.loss)
    assert_close(ours, (value, Graph.from_layers(gradients)), tolerance)
    lam = deltas(params, p.x, p.y, loss=p.loss)
    for delta in fnn.deltas(p.params, p.x, p.y, loss=p.loss):
        assert_close(lam[..., first : first + delta.shape[-1]], delta, tolerance)
        first += delta.shape[-1]
    assert first == len(params.graph)


@pytest.mark.parametrize("activation", ELEMENTWISE[::6], ids=name)  # EVERY_KIND has them all
def test_layers_as_a_graph_are_the_same_network(activation, x64):
    with jax.disable_jit():
        assert_is_the_layers(problem(activation, SQUARED, 3, output=fnn.Identity(), dtype="float64"))


@pytest.mark.parametrize("loss", some(LOSSES, every=8), ids=name)
def test_layers_as_a_graph_have_the_same_loss(loss, x64):
    output = fnn.Sigmoid(2.0) if isinstance(loss, fnn.CrossEntropy) else fnn.Identity()
    batch = None if loss.takes_labels else 7
    with jax.disable_jit():
        assert_is_the_layers(problem(TANH, loss, 2, output=output, batch=batch, dtype="float64", labels=batch is None))


def test_half_of_the_arrows_are_the_layers_with_zeros_for_the_others(x64):
    params = fnn.init(jax.random.key(0), (40, 30, 10), activation=TANH, dtype="float64")
    whole, kept = Graph.from_layers(params), np.random.default_rng(0).random(1500) < 0.5
    full = whole.graph
    half = Network(whole.weights[kept], whole.biases, Graph(full.arrows[kept], TANH, full.inputs, full.outputs))
    parts = kept[:1200].reshape(30, 40), kept[1200:].reshape(10, 30)
    masks = tuple(fnn.Mask(arrows=jnp.asarray(part, "float64")) for part in parts)
    params = (params[0], fnn.Dense(params[1].W, params[1].b, TANH))
    x, y = data(full)
    gradients = Graph.from_layers(fnn.backprop(params, x, y, masks=masks))
    assert_close(forward(half, x), fnn.forward(params, x, masks))
    assert_close(backprop(half, x, y), Network(gradients.weights[kept], gradients.biases, half.graph))


@pytest.mark.parametrize(("dtype", "tolerance", "batch"), [("float64", 1e-12, 7), ("float32", 1e-5, None)])
def test_the_gradient_equals_autodiff_with_an_activation_of_its_own_at_every_neuron(dtype, tolerance, batch):
    with jax.enable_x64(dtype == "float64"):
        assert_gradients_agree(network(EVERY_KIND, dtype), *data(EVERY_KIND, batch, dtype), tolerance)


def test_the_gradients_of_the_sum_and_by_the_input_equal_autodiff(x64):
    params, (x, y) = network(SMOOTH), data(SMOOTH)
    auto = jax.grad(cost, argnums=(0, 1))(params, x, y, reduction="sum")
    assert_close(backprop(params, x, y, reduction="sum"), auto[0])
    assert_close(input_gradient(params, x, y, reduction="sum"), auto[1])


@pytest.mark.parametrize(("loss", "labels"), [(fnn.CrossEntropy(), False), (SOFTMAX, True)], ids=["rows", "labels"])
def test_a_loss_sees_outputs_of_several_kinds(loss, labels, x64):
    kinds = [fnn.Sigmoid(), fnn.Sigmoid(2.0), fnn.Gaussian(sigma=2.0)]
    graph = Graph(Graph.layered((4, 5, 3)).arrows, [TANH] * 9 + kinds, range(4), [11, 9, 10])
    x, y = data(graph, labels=labels)
    assert_gradients_agree(network(graph), x, y, loss=loss)


def test_deltas_are_autodiffs_derivatives_by_every_psi_and_input(x64):
    """Of one example, the derivative by ψ is that by the bias."""
    params, (x, y) = network(SMOOTH), data(SMOOTH)
    by_example = jax.vmap(jax.grad(cost, argnums=(0, 1)), in_axes=(None, 0, 0))
    of_params, of_x = by_example(params, x, y)
    assert_close(deltas(params, x, y), of_params.biases.at[:, SMOOTH.inputs].set(of_x))
    assert_close(deltas(params, x[2], y[2]), deltas(params, x, y)[2])
    assert_close(input_gradient(params, x[2], y[2]), of_x[2])


@pytest.mark.parametrize("parts", [("arrows",), ("units", "arrows")], ids=["arrows", "units and arrows"])
def test_masks_are_part_of_the_derivation(parts, x64):
    params, (x, y), random = network(SMOOTH), data(SMOOTH), np.random.default_rng(3)
    shapes = {"units": (7, len(SMOOTH)), "arrows": (len(SMOOTH.arrows),)}
    masks = fnn.Mask(**{part: jnp.asarray(random.integers(0, 2, shapes[part]), "float64") for part in parts})
    auto = jax.grad(cost, argnums=(0, 1))(params, x, y, masks=masks)
    assert_close(backprop(params, x, y, masks=masks), auto[0])
    assert_close(input_gradient(params, x, y, masks=masks), auto[1])


def test_a_mask_of_units_hides_a_neuron_from_its_receivers_and_not_from_the_output(x64):
    params, (x, _) = network(SMOOTH), data(SMOOTH)
    seen = SMOOTH.outputs[1]  # it has outgoing arrows
    masks = fnn.Mask(units=jnp.ones((1, len(SMOOTH))).at[0, seen].set(0))
    without = replace(params, weights=params.weights * (SMOOTH.arrows[:, 0] != seen).astype(float))
    assert_close(trace(params, x, masks), trace(without, x))
    assert_close(forward(params, x, masks), forward(without, x))


@pytest.mark.parametrize("gradient", ["full", "fixed"])
def test_the_gradient_through_a_batch_norm_equals_autodiff(gradient, x64):
    params, (x, y) = network(SMOOTH, batch_norm=gradient), data(SMOOTH)
    units = jnp.asarray(np.random.default_rng(0).integers(0, 2, (7, len(SMOOTH))), "float64")
    hand, auto = (f(params, x, y, masks=fnn.Mask(units=units)) for f in (backprop, jax.grad(cost)))
    assert jax.tree.structure(hand) == jax.tree.structure(auto)
    assert_close(*(jax.flatten_util.ravel_pytree(tree)[0] for tree in (hand, auto)))


@given(st.sampled_from([SMOOTH, LAYERED]), st.integers(0, 2**32 - 1))
@settings(max_examples=4, deadline=None, derandomize=True, database=None)
def test_the_gradient_is_the_quotient_of_differences(graph, seed):
    with jax.enable_x64(True):
        params, (x, y) = network(graph, seed=seed), data(graph, 3, seed=seed)
        gradients = backprop(params, x, y)
        for part in ("weights", "biases"):
            costs = jax.vmap(lambda leaf, part=part: cost(replace(params, **{part: leaf}), x, y))
            leaf, steps = getattr(params, part), 1e-5 * np.eye(getattr(params, part).size)
            high, low = (costs(leaf + step) for step in (steps, -steps))
            assert distance(getattr(gradients, part), (high - low) / 2e-5) < 1e-8


COPIES = {
    "output_delta": lambda loss, activation, z, a, y: activation.pullback(loss.gradient(a, y), z, a),
    "input_gradient": lambda delta, W, mask: delta @ W,
    "hidden_delta": lambda g, activation, z, a: g * activation.derivative(z, a),
    "weight_gradient": lambda delta, a_in, mask: delta.T @ a_in,
    "bias_gradient": lambda delta: delta.sum(axis=0),
}
DEEP = Graph.layered((3, 4, 4, 2), TANH, skips=[(0, 2), (1, 3)])


@pytest.mark.parametrize("rule", some(COPIES))
def test_a_rule_of_ones_own_is_the_one_that_runs(rule, x64):
    params, (x, y) = network(DEEP), data(DEEP)
    with jax.disable_jit():
        plain = backprop(params, x, y)
        assert_close(backprop(params, x, y, rules=fnn.RULES._replace(**{rule: COPIES[rule]})), plain)
        wrong = fnn.RULES._replace(**{rule: lambda *args: 1.5 * COPIES[rule](*args)})
        changed = backprop(params, x, y, rules=wrong)
    assert sum(map(distance, jax.tree.leaves(changed), jax.tree.leaves(plain))) > 0.01


@pytest.mark.parametrize("make", [generations, Graph.layered], ids=["sparse", "dense"])
def test_a_deep_graph_has_few_runs(make):
    layout = plan(make(np.random.default_rng(0).integers(1, 40, 300).tolist())).layout
    for runs in (layout.forward, layout.backward):
        assert len(runs) <= 8
        assert sum(run.steps for run in runs) >= 299


def test_a_huge_generation_among_small_ones_does_not_pad_them():
    graph = generations([3] * 50 + [5000] + [3] * 50)
    for runs in plan(graph).layout[:2]:
        assert sum(run.steps * run.rows for run in runs) <= 2 * len(graph)
        assert sum(run.steps * run.groups * run.width for run in runs) <= 3 * len(graph.arrows)


def test_equal_graphs_and_graphs_of_equal_layout_share_one_program():
    pairs, sizes = [(0, 2), (1, 3), (0, 4), (2, 5), (3, 5), (4, 6)], []
    for seed, arrows in enumerate((pairs, list(pairs), [(1, 2), (0, 3), (1, 4), (3, 5), (4, 5), (2, 6)])):
        params = Graph(arrows, TANH, [0, 1], [5, 6]).init(jax.random.key(seed))
        backprop(params, jnp.ones((4, 2)), jnp.zeros((4, 2)))
        sizes.append(_backward._cache_size())
    assert sizes == sizes[:1] * 3


def test_backprop_runs_under_jit_and_vmap():
    members, (x, y) = [network(LAYERED, "float32", seed) for seed in range(3)], data(LAYERED, dtype="float32")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    every = jax.jit(jax.vmap(fnn.graph.value_and_backprop, in_axes=(0, None, None)))(stacked, x, y)
    for i, member in enumerate(members):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], every), fnn.graph.value_and_backprop(member, x, y), 1e-5)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("kind", [fnn.DropConnect, fnn.Dropout])
def test_every_arrow_or_neuron_is_kept_with_a_probability_of_its_own(kind, inverted):
    params = network(LAYERED, "float32")
    keep = np.linspace(0.1, 1, 64 if kind is fnn.DropConnect else 16).astype(np.float32)
    dropout = kind(keep, inverted=inverted)
    masks = jax.vmap(lambda key: sample_masks(key, params, dropout, 1))(jax.random.split(jax.random.key(0), 4000))
    part, none = (masks.arrows, masks.units) if kind is fnn.DropConnect else (masks.units[:, 0], masks.arrows)
    r = np.asarray(part) * (keep if inverted else 1)
    assert none is None
    assert np.all(np.isclose(r, 0) | np.isclose(r, 1))
    assert np.all(np.abs(r.mean(axis=0) - keep) <= 5 * np.sqrt(keep * (1 - keep) / 4000) + 1e-6)


def test_dropout_keeps_the_inputs_whole_and_draws_by_example_or_by_batch():
    params = network(LAYERED, "float32")
    by_example, again = (sample_masks(jax.random.key(0), params, fnn.Dropout(0.5), 6).units for _ in range(2))
    by_batch = sample_masks(jax.random.key(0), params, fnn.Dropout(0.5, per_example=False), 6).units
    assert (by_example.shape, by_batch.shape) == ((6, 16), (1, 16))
    assert np.array_equal(by_example, again)
    assert np.all(by_example[:, :5] == 1)
    assert len(np.unique(by_example, axis=0)) == 6


def test_a_linear_network_folds_to_its_mean_over_all_masks(x64):
    graph = Graph([(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], fnn.Identity(), [0], [3])
    params, (x, _), p = network(graph), data(graph), np.array([0.3, 0.9, 0.5, 0.7, 0.2])
    every = np.array(list(product([0.0, 1.0], repeat=5)))
    chance = np.prod(np.where(every == 1, p, 1 - p), axis=1)
    outputs = jax.vmap(lambda r: forward(params, x, fnn.Mask(arrows=r)))(jnp.asarray(every))
    assert_close(forward(fold(params, dropout=fnn.DropConnect(p)), x), jnp.tensordot(jnp.asarray(chance), outputs, 1))
    assert_close(fold(params, dropout=fnn.DropConnect(p)).weights, params.weights * p)
    assert_close(fold(params, dropout=fnn.DropConnect(p, inverted=True)), params)
    of_sources = np.array([1, 1, 0.5, 0.5, 0.5])  # an input is kept whole
    assert_close(fold(params, dropout=fnn.Dropout(0.5)).weights, params.weights * of_sources)


def test_the_network_folded_with_the_batchs_own_statistics_is_that_of_training(x64):
    params, (x, _) = network(SMOOTH, batch_norm="full"), data(SMOOTH, 9)
    moments = fnn.graph.statistics(params, [x])
    psi = np.asarray(trace(params, x).psi)
    np.testing.assert_allclose(moments.mean, psi.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(moments.variance, psi.var(axis=0, ddof=1), rtol=1e-12)
    folded = fold(params, moments._replace(variance=moments.variance * 8 / 9))
    assert_close(forward(folded, x), forward(params, x))


@pytest.mark.parametrize("dropout", [None, fnn.DropConnect(0.9), fnn.Dropout(0.9)], ids=["plain", "arrows", "units"])
def test_fit_trains_a_graph_and_a_second_fit_compiles_nothing(dropout):
    batch_norm = "full" if isinstance(dropout, fnn.Dropout) else None
    options = {"epochs": 12, "dropout": dropout, "validation": blobs(60, seed=1)}
    optimizer = fnn.updates.momentum(0.05, 0.9)
    _, history = train(LAYERED.init(jax.random.key(0), batch_norm=batch_norm), blobs(), optimizer, **options)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["validation_accuracy"] > 0.9
    with compilations() as programs:
        train(
            Graph.layered((5, 8, 3), TANH).init(jax.random.key(1), batch_norm=batch_norm), blobs(), optimizer, **options
        )
    assert programs == []


def test_optax_trains_a_graph_and_evaluate_and_predict_take_it():
    params, history = train(LAYERED.init(jax.random.key(0)), blobs(), optax.adam(1e-2), epochs=20, validation=blobs())
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert fnn.train.evaluate(params, blobs(), loss=SOFTMAX)["accuracy"] == history[-1]["validation_accuracy"]
    outputs = fnn.train.predict(params, blobs())
    np.testing.assert_allclose(outputs, forward(params, blobs().floats()), rtol=1e-5, atol=1e-6)
