"""Per-example quantities of graphs equal those of autodiff's per-example gradients, and those of the same layers."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from delta_cases import flat
from delta_cases import given as layers_given
from delta_graph_cases import CASES, LITTLE, SKIPS, B, given
from fnn import forward, per_example
from fnn.graph import Graph, GraphParams
from graph_cases import SOFTMAX, TANH, assert_close, data, network, normed_layers
from problems import and_slow


class Found(NamedTuple):
    """Autodiff's gradients, the median of their lengths, and what fnn says."""

    right: GraphParams
    clip: float
    gradients: GraphParams
    chunks: list
    norms: per_example.Norms
    clipped: GraphParams
    moments: per_example.GradientMoments
    noise_scale: per_example.NoiseScale


@cache
def found(name: str) -> Found:
    """All of a case in one program."""
    params, x, y, options = given(name)

    @jax.jit
    def everything(params, x, y, masks):
        def of(function, *args, **more):
            return function(params, x, y, *args, loss=options["loss"], masks=masks, **more)

        right = jax.jacrev(lambda params: options["loss"].value(forward(params, x, masks=masks), y))(params)
        lengths = jnp.sqrt(sum(jnp.sum(g.reshape(B, -1) ** 2, axis=1) for g in jax.tree.leaves(right)))
        clip = jnp.sort(lengths)[B // 2]  # some are longer, and some are not
        return Found(
            right,
            clip,
            of(per_example.gradients),
            list(of(per_example.gradients, chunk=3)),
            of(per_example.norms),
            of(per_example.clipped, jnp.where(clip > 0, clip, 1)),
            of(per_example.moments),
            of(per_example.noise_scale),
        )

    return jax.device_get(everything(params, x, y, options["masks"]))


every_case = pytest.mark.parametrize("name", and_slow(LITTLE, CASES))


@every_case
def test_gradients_are_autodiffs_example_by_example(name, x64):
    assert_close(found(name).gradients, found(name).right)


@every_case
def test_chunks_are_the_whole_in_parts_with_masks_and_a_batch_norm(name, x64):
    chunks = found(name).chunks
    assert [len(chunk.weights) for chunk in chunks] == [3, 3, 1]
    assert_close(jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks), found(name).gradients)


@every_case
def test_norms_are_those_of_the_gradients_in_all_and_by_neuron(name, x64):
    right, ours, graph = found(name).right, found(name).norms, given(name)[0].graph
    assert_close(ours.total, np.linalg.norm(flat(right), axis=1))
    squares = right.biases**2
    np.add.at(squares.T, graph.arrows[:, 1], (right.weights**2).T)
    if right.norm is not None:
        squares += right.norm.gamma**2 + right.norm.beta**2
    assert_close(ours.layers, np.sqrt(squares))
    assert (ours.layers[:, graph.inputs] == 0).all()


@every_case
def test_clipped_is_the_mean_of_shortened_gradients(name, x64):
    right, clip = found(name).right, float(found(name).clip)
    lengths = np.linalg.norm(flat(right), axis=1)
    weights = np.minimum(1, clip / np.where(lengths > 0, lengths, 1)) / B
    assert_close(found(name).clipped, jax.tree.map(lambda leaf: np.tensordot(weights, leaf, 1), right))


@every_case
def test_moments_are_mean_and_variance_over_the_batch(name, x64):
    right, ours = found(name).right, found(name).moments
    assert_close(ours.mean, jax.tree.map(lambda leaf: leaf.mean(axis=0), right))
    assert_close(ours.variance, jax.tree.map(lambda leaf: leaf.var(axis=0), right))


@pytest.mark.parametrize("name", and_slow(LITTLE, [name for name in CASES if name != "no arrow"]))
def test_the_noise_scale_is_that_of_unbiased_estimates(name, x64):
    g = flat(found(name).right)
    variance = g.var(axis=0, ddof=1).sum()
    squared = np.sum(g.mean(axis=0) ** 2) - variance / B
    expected = per_example.NoiseScale(*map(np.asarray, (variance / squared, variance, squared)))
    assert_close(found(name).noise_scale, expected, 1e-10)


@pytest.mark.parametrize("name", and_slow(LITTLE, ["all", "deep"]))
def test_in_float32_too(name):
    with jax.enable_x64(True):
        lengths = np.linalg.norm(flat(found(name).right), axis=1)
    params, x, y, options = given(name, "float32")
    assert_close(per_example.norms(params, x, y, **options).total, np.float32(lengths), 1e-5)
    for call in (per_example.clipped, lambda *args, **options: per_example.moments(*args[:3], **options)):
        like = jax.eval_shape(lambda params, call=call: call(params, x, y, 0.1, **options), params)
        assert {leaf.dtype for leaf in jax.tree.leaves(like)} == {np.dtype("float32")}


def test_a_graph_of_layers_has_what_the_layers_have_of_labels_too(x64):
    """Of the layers one is computed as a matrix, and the other arrow by arrow."""
    layers, x, _, _ = layers_given("a matrix")

    @jax.jit
    def of_graph_and_of_layers(layers, labels):
        def quantities(params):
            return [way(params, x, labels, loss=SOFTMAX) for way in (per_example.norms, per_example.gradients)]

        norms, gradients = quantities(layers)
        return *quantities(Graph.from_layers(layers)), norms, jax.vmap(Graph.from_layers)(gradients)

    norms, gradients, of_layers, right = jax.device_get(of_graph_and_of_layers(layers, np.arange(B) % 3))
    assert_close((gradients.weights, gradients.biases), (right.weights, right.biases))
    assert_close(norms.total, of_layers.total)
    by_layer = np.split(norms.layers[:, x.shape[1] :], [len(layers[0].b)], axis=1)
    assert_close(tuple(np.linalg.norm(part, axis=1) for part in by_layer), of_layers.layers)


def test_a_batch_norm_at_the_outputs_is_that_of_the_layers(x64):
    layers, x, y = normed_layers("fixed")

    @jax.jit
    def of_graph_and_of_layers(layers):
        def said(params):
            ways = per_example.gradients, per_example.moments, lambda *args: per_example.clipped(*args, 0.5)
            return *(way(params, x, y) for way in ways), per_example.norms(params, x, y).total

        gradients, moments, clipped, norms = said(layers)
        of_one = [per_example.GradientMoments(*map(Graph.from_layers, moments)), Graph.from_layers(clipped), norms]
        return said(Graph.from_layers(layers)), (jax.vmap(Graph.from_layers)(gradients), *of_one)

    assert_close(*of_graph_and_of_layers(layers))


# clipping is made of the norms and of a sum over the examples
@pytest.mark.parametrize("name", and_slow(["clipped"], ["norms", "gradients", "moments", "noise_scale"]))
def test_all_run_under_vmap(name, x64):
    [case] = LITTLE
    params, x, y, options = given(case)
    members, right = [network(params.graph, seed=1, batch_norm="fixed"), params], found(case)
    clip = [right.clip] if name == "clipped" else []

    @jax.jit
    @jax.vmap
    def of_every_member(params):
        return getattr(per_example, name)(params, x, y, *clip, **options)

    every = of_every_member(jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(members)))
    assert_close(jax.tree.map(lambda leaf: leaf[1], jax.device_get(every)), getattr(right, name))


def temporary(function, params, x, y) -> int:
    return jax.jit(function).lower(params, x, y).compile().memory_analysis().temp_size_in_bytes


# clipping needs the norms too
@pytest.mark.parametrize(("name", "share"), [("clipped", 1.0), pytest.param("norms", 0.5, marks=pytest.mark.slow)])
def test_norms_and_clipping_need_less_memory_than_batch_times_arrows(name, share):
    graph = Graph.random(jax.random.key(0), 1200, 60000, inputs=400, outputs=400, generations=3, activation=TANH)
    params, (x, y) = network(graph, "float32"), data(graph, 128, "float32")
    call = {"clipped": lambda *args: per_example.clipped(*args, 1.0), "norms": per_example.norms}[name]
    assert temporary(call, params, x, y) < share * 4 * 128 * len(graph.arrows)


# -- refusals --------------------------------------------------------------------------------------------------


def test_inner_products_are_refused_and_what_the_message_says_gives_them(x64):
    graph, x, y, _ = given("an input is an output")
    with pytest.raises(TypeError, match=r"gram takes layers, .*write per_example.gradients\(params, x, y\), and"):
        per_example.gram(graph, x, y)
    with pytest.raises(
        TypeError,
        match=r"ntk takes layers, .*write fnn.pullback\(params, x\[i\], unit\)\[0\] for every example and each row",
    ):
        per_example.ntk(graph, x)
    layers, x, y, _ = layers_given("two layers")

    @jax.jit
    def by_the_message_and_by_layers(layers):
        params, every = Graph.from_layers(layers), jnp.broadcast_to(jnp.eye(3)[:, None], (3, B, 3))
        of_examples = jax.vmap(lambda x, unit: fnn.pullback(params, x, unit)[0])
        jacobian = jax.vmap(of_examples, (None, 0))(x, every)
        in_full = per_example.gradients(params, x, y), jacobian
        return in_full, (per_example.gram(layers, x, y), per_example.ntk(layers, x))

    (gradients, jacobian), (gram, ntk) = jax.device_get(by_the_message_and_by_layers(layers))
    g, J = flat(gradients), flat(jacobian, 3 * B).reshape(3, B, -1)
    assert_close(g @ g.T, gram)
    assert_close(np.einsum("obk,pck->bcop", J, J), ntk)


def test_a_full_batch_norm_gives_no_example_a_gradient_of_its_own():
    params = network(SKIPS, "float32", batch_norm="full")
    x, y = data(params.graph, B, "float32")
    for call in (per_example.norms, per_example.gradients, per_example.moments, per_example.noise_scale):
        with pytest.raises(ValueError, match=r"params.norm: with gradient='full' .*graph.init\(key, batch_norm='fixed"):
            call(params, x, y)


def test_other_arguments_are_named():
    params, x, y, _ = given("an input is an output", "float32")
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
