"""Per-example quantities of graphs equal those of autodiff's per-example gradients, and those of the same layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from delta_cases import flat
from delta_cases import given as layers_given
from delta_graph_cases import CASES, INPUT_IS_OUTPUT, SKIPS, B, given, oracle
from fnn import per_example
from fnn.graph import Graph
from problems import some
from test_graph import TANH, assert_close, data, network


@pytest.mark.parametrize("name", some(CASES, every=10))
def test_gradients_are_autodiffs_example_by_example(name, x64):
    params, x, y, options = given(name)
    assert_close(per_example.gradients(params, x, y, **options), oracle(name))


@pytest.mark.parametrize("name", some(CASES, every=4))
def test_norms_are_those_of_the_gradients_in_all_and_by_neuron(name, x64):
    params, x, y, options = given(name)
    right, ours = oracle(name), per_example.norms(params, x, y, **options)
    assert_close(ours.total, jnp.linalg.norm(flat(right), axis=1))
    target = params.graph.arrows[:, 1]
    squares = right.biases**2 + jnp.zeros_like(right.biases).at[:, target].add(right.weights**2)
    if params.norm is not None:
        squares += right.norm.gamma**2 + right.norm.beta**2
    assert_close(ours.layers, jnp.sqrt(squares))
    assert (ours.layers[:, params.graph.inputs] == 0).all()


@pytest.mark.parametrize("name", some([*CASES][::3], every=10))
def test_clipped_is_the_mean_of_shortened_gradients(name, x64):
    params, x, y, options = given(name)
    lengths = np.linalg.norm(flat(oracle(name)), axis=1)
    clip = float(np.median(lengths))  # some are longer, and some are not
    weights = jnp.asarray(np.minimum(1, clip / np.where(lengths > 0, lengths, 1)) / B)
    expected = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), oracle(name))
    assert_close(per_example.clipped(params, x, y, clip or 1.0, **options), expected)


@pytest.mark.parametrize("name", some([*CASES][::3], every=10))
def test_moments_are_mean_and_variance_over_the_batch(name, x64):
    params, x, y, options = given(name)
    ours = per_example.moments(params, x, y, **options)
    assert_close(ours.mean, jax.tree.map(lambda leaf: leaf.mean(axis=0), oracle(name)))
    assert_close(ours.variance, jax.tree.map(lambda leaf: leaf.var(axis=0), oracle(name)))


@pytest.mark.parametrize("name", some([*CASES][:9:4], every=10))
def test_the_noise_scale_is_that_of_unbiased_estimates(name, x64):
    params, x, y, options = given(name)
    g = flat(oracle(name))
    variance = g.var(axis=0, ddof=1).sum()
    squared = np.sum(g.mean(axis=0) ** 2) - variance / B
    expected = per_example.NoiseScale(*map(jnp.asarray, (variance / squared, variance, squared)))
    assert_close(per_example.noise_scale(params, x, y, **options), expected, 1e-10)


@pytest.mark.parametrize("name", some([*CASES][::3], every=10))
def test_in_float32_too(name):
    with jax.enable_x64(True):
        right = np.linalg.norm(flat(oracle(name)), axis=1)
    params, x, y, options = given(name, "float32")
    assert_close(per_example.norms(params, x, y, **options).total, jnp.asarray(right, "float32"), 1e-5)
    for call in (per_example.clipped, lambda *args, **options: per_example.moments(*args[:3], **options)):
        like = jax.eval_shape(lambda params, call=call: call(params, x, y, 0.1, **options), params)
        assert {leaf.dtype for leaf in jax.tree.leaves(like)} == {np.dtype("float32")}


def test_a_graph_of_layers_has_what_the_layers_have(x64):
    layers, x, y, _ = layers_given("plain")
    params = Graph.from_layers(layers)
    ours, theirs = (per_example.norms(p, x, y) for p in (params, layers))
    assert_close(ours.total, theirs.total)
    first = len(params.graph.inputs)
    for layer, length in zip(layers, theirs.layers):
        of_layer = ours.layers[:, first : first + len(layer.b)]
        assert_close(jnp.linalg.norm(of_layer, axis=1), length)
        first += len(layer.b)
    assert first == len(params.graph)
    ours, theirs = (per_example.gradients(p, x, y) for p in (params, layers))
    theirs = jax.vmap(Graph.from_layers)(theirs)
    assert_close((ours.weights, ours.biases), (theirs.weights, theirs.biases))


def test_labels_are_one_hot_rows(x64):
    params, x, y, options = given("all")
    labels = jnp.arange(B) % 3
    rows = jax.nn.one_hot(labels, 3, dtype=x.dtype)
    assert_close(per_example.norms(params, x, labels, **options), per_example.norms(params, x, rows, **options))


@pytest.mark.parametrize("chunk", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_chunks_are_the_whole_in_parts_with_masks_and_a_batch_norm(chunk, x64):
    params, x, y, options = given("all")
    parts = list(per_example.gradients(params, x, y, chunk=chunk, **options))
    assert [len(part.weights) for part in parts] == ([3, 3, 1] if chunk == 3 else [B])
    assert_close(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), oracle("all"))


def test_chunks_of_layers_have_the_batch_norm_of_the_whole_batch(x64):
    params, x, y, options = layers_given("fixed batch norm")
    parts = list(per_example.gradients(params, x, y, chunk=4, **options))
    whole = per_example.gradients(params, x, y, **options)
    assert_close(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), whole)


def test_all_run_under_jit_and_vmap(x64):
    members, (x, y) = [network(INPUT_IS_OUTPUT, seed=seed) for seed in range(2)], data(INPUT_IS_OUTPUT, B)

    def together(params):
        clipped = jax.vmap(lambda clip: per_example.clipped(params, x, y, clip))(jnp.array([0.1, 1.0]))
        return per_example.norms(params, x, y), clipped, per_example.gradients(params, x, y)

    every = jax.jit(jax.vmap(together))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *members))
    for i, params in enumerate(members):
        norms, clipped, gradients = jax.tree.map(lambda leaf, i=i: leaf[i], every)
        assert_close(norms, per_example.norms(params, x, y))
        assert_close(jax.tree.map(lambda leaf: leaf[0], clipped), per_example.clipped(params, x, y, 0.1))
        assert_close(gradients, per_example.gradients(params, x, y))


def temporary(function, params, x, y) -> int:
    return jax.jit(function).lower(params, x, y).compile().memory_analysis().temp_size_in_bytes


def test_norms_and_clipping_need_less_memory_than_batch_times_arrows():
    graph = Graph.random(jax.random.key(0), 2000, 40000, inputs=10, outputs=3, generations=6, activation=TANH)
    params, (x, y) = network(graph, "float32"), data(graph, 128, "float32")
    in_full = 4 * 128 * 40000
    assert temporary(per_example.norms, params, x, y) < in_full / 2
    assert temporary(lambda *args: per_example.clipped(*args, 1.0), params, x, y) < in_full


# -- refusals --------------------------------------------------------------------------------------------------


def test_inner_products_are_refused_and_what_the_message_says_gives_them(x64):
    layers, x, y, _ = layers_given("plain")
    params = Graph.from_layers(layers)
    with pytest.raises(TypeError, match=r"gram takes layers, .*write per_example.gradients\(params, x, y\), and"):
        per_example.gram(params, x, y)
    with pytest.raises(TypeError, match=r"ntk takes layers, .*loss=per_example.kernels.Projection\(\)\) for each"):
        per_example.ntk(params, x)
    g = flat(per_example.gradients(params, x, y))
    assert_close(jnp.asarray(g @ g.T), per_example.gram(layers, x, y))
    every = [jnp.broadcast_to(row, (B, 3)) for row in jnp.eye(3)]
    projection = per_example.kernels.Projection()
    jacobian = np.stack([flat(per_example.gradients(params, x, row, loss=projection)) for row in every])
    assert_close(jnp.einsum("obk,pck->bcop", jacobian, jacobian), per_example.ntk(layers, x))


def test_a_full_batch_norm_gives_no_example_a_gradient_of_its_own():
    params = network(SKIPS, "float32", batch_norm="full")
    x, y = data(params.graph, B, "float32")
    for call in (per_example.norms, per_example.gradients, per_example.moments, per_example.noise_scale):
        with pytest.raises(ValueError, match=r"params.norm: with gradient='full' .*graph.init\(key, batch_norm='fixed"):
            call(params, x, y)


def test_other_arguments_are_named():
    params, x, y, _ = given("skips", "float32")
    with pytest.raises(ValueError, match=r"x: expected examples in rows.*write x\[None\]"):
        per_example.norms(params, x[0], y[0])
    with pytest.raises(ValueError, match="y: expected shape"):
        per_example.clipped(params, x, y[:, :2], 1.0)
    with pytest.raises(ValueError, match="clip"):
        per_example.clipped(params, x, y, 0.0)
    with pytest.raises((TypeError, ValueError), match="chunk"):
        per_example.gradients(params, x, y, chunk=0)
    with pytest.raises(TypeError, match=r"masks: expected a fnn.Mask"):
        per_example.norms(params, x, y, masks=(fnn.Mask(),))
    with pytest.raises(ValueError, match="at least 2 examples"):
        per_example.noise_scale(params, x[:1], y[:1])
