"""Per-example quantities equal those of autodiff's per-example gradients, which they never form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from delta_cases import CASES, KEY, PRODUCTS, SOFTMAX, SQUARED, B, assert_close, flat, given, oracle
from fnn import per_example
from problems import some


@pytest.mark.parametrize("name", some(CASES, every=4))
def test_gradients_are_autodiffs_example_by_example(name, x64):
    params, x, y, options = given(name)
    right = oracle(params, x, y, **options)
    assert_close(per_example.gradients(params, x, y, **options), right)


@pytest.mark.parametrize("name", some(CASES, every=4))
def test_norms_are_those_of_the_gradients_in_all_and_by_layer(name, x64):
    params, x, y, options = given(name)
    right, ours = oracle(params, x, y, **options), per_example.norms(params, x, y, **options)
    assert_close(ours.total, np.linalg.norm(flat(right), axis=1))
    for layer, gradient, length in zip(params, right, ours.layers):
        one_by_one = [gradient] if not layer.stacked else [
            jax.tree.map(lambda leaf, i=i: leaf[:, i], gradient) for i in range(len(layer.W))
        ]  # fmt: skip
        expected = np.stack([np.linalg.norm(flat(g), axis=1) for g in one_by_one])
        assert_close(jnp.atleast_2d(length), expected)


@pytest.mark.parametrize("name", some(CASES, every=4))
def test_clipped_is_the_mean_of_shortened_gradients(name, x64):
    params, x, y, options = given(name)
    right = oracle(params, x, y, **options)
    lengths = np.linalg.norm(flat(right), axis=1)
    clip = float(np.median(lengths))  # some are longer, and some are not
    weights = np.minimum(1, clip / lengths) / B
    expected = jax.tree.map(lambda leaf: jnp.tensordot(jnp.asarray(weights), leaf, 1), right)
    assert_close(per_example.clipped(params, x, y, clip, **options), expected)
    assert_close(per_example.clipped(params, x, y, 1e6, **options), jax.tree.map(lambda leaf: leaf.mean(0), right))


@pytest.mark.parametrize("name", some(CASES, every=4))
def test_moments_are_mean_and_variance_over_the_batch(name, x64):
    params, x, y, options = given(name)
    right, ours = oracle(params, x, y, **options), per_example.moments(params, x, y, **options)
    assert_close(ours.mean, jax.tree.map(lambda leaf: leaf.mean(axis=0), right))
    assert_close(ours.variance, jax.tree.map(lambda leaf: leaf.var(axis=0), right))


@pytest.mark.parametrize("name", some(CASES, every=3))
def test_the_noise_scale_is_that_of_unbiased_estimates(name, x64):
    params, x, y, options = given(name)
    g = flat(oracle(params, x, y, **options))
    variance = g.var(axis=0, ddof=1).sum()
    squared = np.sum(g.mean(axis=0) ** 2) - variance / B
    ours = per_example.noise_scale(params, x, y, **options)
    assert_close(ours, per_example.NoiseScale(*map(np.asarray, (variance / squared, variance, squared))), 1e-10)


@pytest.mark.parametrize("name", some(PRODUCTS, every=3))
def test_the_gram_matrix_holds_all_inner_products(name, x64):
    params, x, y, options = given(name)
    g = flat(oracle(params, x, y, **options))
    assert_close(per_example.gram(params, x, y, **options), g @ g.T)
    _, x2, y2, columns = given(name, seed=1, batch=4)
    g2 = flat(oracle(params, x2, y2, **columns), 4)
    ours = per_example.gram(params, x, y, x2, y2, **options, masks2=columns["masks"])
    assert_close(ours, g @ g2.T)


@pytest.mark.parametrize("name", some(["stack", "plain", "fixed batch norm"], every=3))
def test_the_tangent_kernel_is_that_of_the_jacobians(name, x64):
    params, x, *_ = given(name)
    _, x2, *_ = given(name, seed=1, batch=4)

    def jacobian(x):
        leaves = jax.tree.leaves(jax.jacrev(lambda params: fnn.forward(params, x))(params))
        return np.concatenate([np.asarray(leaf).reshape(len(x), 3, -1) for leaf in leaves], axis=2)

    J, J2 = jacobian(x), jacobian(x2)
    assert_close(per_example.ntk(params, x, x2), np.einsum("bok,cpk->bcop", J, J2))
    assert_close(per_example.ntk(params, x), np.einsum("bok,cpk->bcop", J, J))
    assert_close(per_example.ntk(params, x, x2, traced=True), np.einsum("bok,cok->bc", J, J2))


@pytest.mark.parametrize("name", some(CASES, every=4))
def test_in_float32_too(name):
    params, x, y, options = given(name, "float32")
    g = flat(oracle(params, x, y, **options))
    assert_close(per_example.norms(params, x, y, **options).total, np.linalg.norm(g, axis=1), 1e-5)
    mean = per_example.clipped(params, x, y, 0.1, **options)
    assert {leaf.dtype for leaf in jax.tree.leaves(mean)} == {np.dtype("float32")}


def test_labels_are_one_hot_rows(x64):
    params, x, _, options = given("stack")
    labels = jnp.arange(B) % 3
    rows = jax.nn.one_hot(labels, 3, dtype=x.dtype)
    assert_close(per_example.norms(params, x, labels, **options), per_example.norms(params, x, rows, **options))


def test_clipping_agrees_with_optax(x64):
    params, x, y, options = given("plain")
    private = optax.contrib.differentially_private_aggregate(l2_norm_clip=0.5, noise_multiplier=0.0, key=0)
    with jax.numpy_dtype_promotion("standard"), jax.debug_key_reuse(False):
        expected, _ = private.update(oracle(params, x, y, **options), private.init(params))
    assert_close(per_example.clipped(params, x, y, 0.5, **options), expected, 1e-7)  # its noise is float32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax_privacy calls what optax has renamed
def test_clipping_agrees_with_a_privacy_library(x64):
    clipped_grad = pytest.importorskip("jax_privacy").clipped_grad
    params, x, y, options = given("plain")

    def cost(params, x, y):
        return options["loss"].value(fnn.forward(params, x), y).sum()

    theirs = clipped_grad(cost, l2_clip_norm=0.5, batch_argnums=(1, 2), normalize_by=float(B))
    with jax.numpy_dtype_promotion("standard"), jax.debug_key_reuse(False):
        expected = theirs(params, x, y)
    assert_close(per_example.clipped(params, x, y, 0.5, **options), expected)


def test_noise_has_the_stated_deviation_and_comes_from_the_key_alone():
    params, x, y, options = given("plain", "float32")
    quiet = per_example.clipped(params, x, y, 0.5, **options)
    keys, first = jax.random.split(jax.random.key(3), 400), jax.random.split(jax.random.key(3), 400)[0]
    noisy = jax.vmap(lambda key: per_example.clipped(params, x, y, 0.5, noise=2.0, key=key, **options))(keys)
    noise = np.concatenate([(a - b).ravel() for a, b in zip(jax.tree.leaves(noisy), jax.tree.leaves(quiet))])
    assert noise.std() == pytest.approx(2.0 * 0.5 / B, rel=0.02)
    assert abs(noise.mean()) < 5 * noise.std() / np.sqrt(noise.size)
    again = per_example.clipped(params, x, y, 0.5, noise=2.0, key=first, **options)
    assert_close(again, jax.tree.map(lambda leaf: leaf[0], noisy), 1e-6)


@pytest.mark.parametrize("chunk", [1, 3, 7, 20])
def test_chunks_are_the_whole_in_parts(chunk, x64):
    params, x, y, options = given("unit masks")
    whole, parts = per_example.gradients(params, x, y, **options), []
    for part in per_example.gradients(params, x, y, chunk=chunk, **options):
        assert len(jax.tree.leaves(part)[0]) <= chunk
        parts.append(part)
    assert_close(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), whole)


def test_all_run_under_jit_and_vmap(x64):
    params, x, y, options = given("plain")
    right = per_example.norms(params, x, y, **options).total
    assert_close(jax.jit(lambda x, y: per_example.norms(params, x, y, loss=SQUARED).total)(x, y), right)
    every = jax.vmap(lambda clip: per_example.clipped(params, x, y, clip, **options))(jnp.array([0.1, 1.0]))
    assert_close(jax.tree.map(lambda leaf: leaf[1], every), per_example.clipped(params, x, y, 1.0, **options))


def test_a_zero_gradient_is_not_divided_by(x64):
    params, x, _, options = given("plain")
    clipped = per_example.clipped(params, x, fnn.forward(params, x), 0.5, **options)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(clipped))


# -- what is not computed --------------------------------------------------------------------------------------


def compiled(function):
    params = fnn.init(KEY, (64, 128, 128, 10), activation=fnn.ReLU())
    x, labels = jnp.ones((64, 64)), jnp.zeros(64, jnp.int32)
    program = jax.jit(lambda params, x, y: function(params, x, y, loss=SOFTMAX)).lower(params, x, labels).compile()
    return program.cost_analysis()["flops"], program.memory_analysis().temp_size_in_bytes


def test_norms_and_clipping_cost_about_a_backward_pass_and_no_memory_of_batch_times_parameters():
    flops, _ = compiled(fnn.backprop)
    of_norms, memory = compiled(per_example.norms)
    assert of_norms < 0.75 * flops  # no weight gradient
    assert memory < 64 * 128 * 4 * 10
    of_clipped, memory = compiled(lambda *args, **options: per_example.clipped(*args, 1.0, **options))
    assert of_clipped < 1.1 * flops
    assert memory < 64 * 128 * 4 * 10


# -- refusals --------------------------------------------------------------------------------------------------


def test_a_full_batch_norm_gives_no_example_a_gradient_of_its_own():
    params = fnn.init(KEY, (5, 4, 3), batch_norm="full")
    x, y = jnp.ones((B, 5)), jnp.ones((B, 3))
    for call in (per_example.norms, per_example.gradients, per_example.moments, per_example.gram):
        with pytest.raises(ValueError, match=r"params\[0\].norm: with gradient='full' the loss of each example"):
            call(params, x, y)


def test_inner_products_refuse_arrow_masks():
    params, x, y, options = given("arrow masks", "float32")
    with pytest.raises(ValueError, match=r"masks\[1\].arrows: expected None"):
        per_example.gram(params, x, y, **options)


def test_other_arguments_are_named():
    params, x, y, options = given("plain", "float32")
    with pytest.raises(ValueError, match=r"x: expected examples in rows.*write x\[None\]"):
        per_example.norms(params, x[0], y[0])
    with pytest.raises(ValueError, match="clip"):
        per_example.clipped(params, x, y, 0.0)
    with pytest.raises(ValueError, match="noise"):
        per_example.clipped(params, x, y, 1.0, noise=-1.0, key=KEY)
    with pytest.raises(TypeError, match="key: expected one PRNG key with noise"):
        per_example.clipped(params, x, y, 1.0, noise=1.0)
    with pytest.raises(TypeError, match="key: expected one PRNG key with noise and none without"):
        per_example.clipped(params, x, y, 1.0, key=KEY)
    with pytest.raises(TypeError, match="x2, y2: expected both or neither"):
        per_example.gram(params, x, y, x)
    with pytest.raises(ValueError, match="at least 2 examples"):
        per_example.noise_scale(params, x[:1], y[:1])
    with pytest.raises((TypeError, ValueError), match="chunk"):
        per_example.gradients(params, x, y, chunk=0)
    with pytest.raises(ValueError, match="y: expected shape"):
        per_example.norms(params, x, y[:, :2])
    with pytest.raises(TypeError, match="x: expected float32"):
        per_example.ntk(params, np.ones((3, 5), np.float64).astype("float16"))
