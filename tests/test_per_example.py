"""Per-example quantities equal those of autodiff's per-example gradients, which they never form."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from delta_cases import (
    CASES,
    ESSENTIAL,
    KEY,
    PRODUCTS,
    SOFTMAX,
    B,
    assert_close,
    flat,
    given,
    oracle,
)
from fnn import per_example
from problems import and_slow

MANY = 1e6  # longer than every gradient


class Found(NamedTuple):
    """Autodiff's gradients, the median of their lengths, and what fnn says."""

    right: tuple
    clip: float
    gradients: tuple
    chunks: list
    norms: per_example.Norms
    clipped: tuple
    unclipped: tuple
    moments: per_example.GradientMoments
    noise_scale: per_example.NoiseScale


@cache
def found(name: str) -> Found:
    """All of a case in one program: under jit, and ``clipped`` under vmap as well."""
    params, x, y, options = given(name)

    @jax.jit
    def everything(params, x, y, masks):
        def of(function, *args, **more):
            return function(params, x, y, *args, loss=options["loss"], masks=masks, **more)

        right = of(oracle)
        lengths = jnp.sqrt(sum(jnp.sum(g.reshape(B, -1) ** 2, axis=1) for g in jax.tree.leaves(right)))
        clip = jnp.sort(lengths)[B // 2]  # some are longer, and some are not
        clipped = jax.vmap(lambda clip: of(per_example.clipped, clip))(jnp.stack([clip, clip + MANY]))
        return Found(
            right,
            clip,
            of(per_example.gradients),
            list(of(per_example.gradients, chunk=3)),
            of(per_example.norms),
            *(jax.tree.map(lambda leaf, i=i: leaf[i], clipped) for i in range(2)),
            of(per_example.moments),
            of(per_example.noise_scale),
        )

    return jax.device_get(everything(params, x, y, options["masks"]))


every_case = pytest.mark.parametrize("name", and_slow(ESSENTIAL, CASES))


@every_case
def test_gradients_are_autodiffs_example_by_example(name, x64):
    assert_close(found(name).gradients, found(name).right)


@every_case
def test_chunks_are_the_whole_in_parts_with_the_batch_norm_of_the_whole_batch(name, x64):
    chunks, whole = found(name).chunks, found(name).gradients
    assert [len(jax.tree.leaves(chunk)[0]) for chunk in chunks] == [3, 3, 1]
    assert_close(jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks), whole)


@every_case
def test_norms_are_those_of_the_gradients_in_all_and_by_layer(name, x64):
    right, ours = found(name).right, found(name).norms
    assert_close(ours.total, np.linalg.norm(flat(right), axis=1))
    for layer, gradient, length in zip(given(name)[0], right, ours.layers):
        one_by_one = [gradient] if not layer.stacked else [
            jax.tree.map(lambda leaf, i=i: leaf[:, i], gradient) for i in range(len(layer.W))
        ]  # fmt: skip
        expected = np.stack([np.linalg.norm(flat(g), axis=1) for g in one_by_one])
        assert_close(np.atleast_2d(length), expected)


@every_case
def test_clipped_is_the_mean_of_shortened_gradients(name, x64):
    right, clip = found(name).right, float(found(name).clip)
    lengths = np.linalg.norm(flat(right), axis=1)
    assert lengths.min() < clip < lengths.max() < MANY
    weights = np.minimum(1, clip / lengths) / B
    assert_close(found(name).clipped, jax.tree.map(lambda leaf: np.tensordot(weights, leaf, 1), right))
    assert_close(found(name).unclipped, jax.tree.map(lambda leaf: np.mean(leaf, axis=0), right))


@every_case
def test_moments_are_mean_and_variance_over_the_batch(name, x64):
    right, ours = found(name).right, found(name).moments
    assert_close(ours.mean, jax.tree.map(lambda leaf: np.mean(leaf, axis=0), right))
    assert_close(ours.variance, jax.tree.map(lambda leaf: np.var(leaf, axis=0), right))


@every_case
def test_the_noise_scale_is_that_of_unbiased_estimates(name, x64):
    g = flat(found(name).right)
    variance = g.var(axis=0, ddof=1).sum()
    squared = np.sum(g.mean(axis=0) ** 2) - variance / B
    expected = per_example.NoiseScale(*map(np.asarray, (variance / squared, variance, squared)))
    assert_close(found(name).noise_scale, expected, 1e-10)


@pytest.mark.parametrize("name", and_slow(["arrow masks"], CASES))
def test_in_float32_too(name):
    with jax.enable_x64(True):
        right, clip = found(name).right, float(found(name).clip)
    lengths = np.linalg.norm(flat(right), axis=1)
    weights = np.minimum(1, clip / lengths) / B
    params, x, y, options = given(name, "float32")

    @jax.jit
    def norms_and_clipped(params, masks):
        here = {"loss": options["loss"], "masks": masks}
        return per_example.norms(params, x, y, **here), per_example.clipped(params, x, y, clip, **here)

    norms, clipped = jax.device_get(norms_and_clipped(params, options["masks"]))
    assert {leaf.dtype for leaf in jax.tree.leaves((norms, clipped))} == {np.dtype("float32")}
    assert_close(norms.total, lengths, 1e-5)
    assert_close(clipped, jax.tree.map(lambda leaf: np.tensordot(weights, leaf, 1), right), 1e-5)


# a batch norm, a stack and masks; as little as possible
@pytest.mark.parametrize("name", and_slow(["stack with all"], PRODUCTS))
def test_the_gram_matrix_holds_all_inner_products(name, x64):
    params, x, y, options = given(name)
    _, x2, y2, columns = given(name, seed=1, batch=4)

    @jax.jit
    def products_and_gradients(params, x, y, masks, x2, y2, masks2):
        here = {"loss": options["loss"], "masks": masks}
        square = per_example.gram(params, x, y, **here)
        return square, per_example.gram(params, x, y, x2, y2, **here, masks2=masks2), oracle(params, x2, y2, **columns)

    square, ours, right = products_and_gradients(params, x, y, options["masks"], x2, y2, columns["masks"])
    g, g2 = flat(found(name).right), flat(right, 4)
    assert_close(square, g @ g.T)
    assert_close(ours, g @ g2.T)


@pytest.mark.parametrize("name", and_slow(["plain"], ["stack", "fixed batch norm"]))
def test_the_tangent_kernel_is_that_of_the_jacobians(name, x64):
    params, x, *_ = given(name)
    _, x2, *_ = given(name, seed=1, batch=4)

    @jax.jit
    def kernels_and_jacobians(params, x, x2):
        kernels = [per_example.ntk(params, *of) for of in ((x, x2), (x,))]
        kernels.append(per_example.ntk(params, x, x2, traced=True))
        return kernels, [jax.jacrev(lambda params, x=x: fnn.forward(params, x))(params) for x in (x, x2)]

    kernels, jacobians = kernels_and_jacobians(params, x, x2)
    J, J2 = (
        np.concatenate([np.asarray(leaf).reshape(rows, 3, -1) for leaf in jax.tree.leaves(jacobian)], axis=2)
        for rows, jacobian in zip((B, 4), jacobians)
    )
    pairs = ("bok,cpk->bcop", J, J2), ("bok,cpk->bcop", J, J), ("bok,cok->bc", J, J2)
    for kernel, (sum_, *of) in zip(kernels, pairs):
        assert_close(kernel, np.einsum(sum_, *of))


# -- how they are called ---------------------------------------------------------------------------------------


def little(dtype="float64"):
    params, x, y, _ = given("two layers", dtype)
    return params, x, y


def test_without_jit_they_say_the_same_and_labels_are_one_hot_rows(x64):
    params, x, _ = little()
    labels = np.arange(B) % 3
    compiled = jax.jit(lambda *args: per_example.norms(*args, loss=SOFTMAX))(params, x, np.eye(3)[labels])
    assert_close(per_example.norms(params, x, labels, loss=SOFTMAX), compiled)


def test_a_chunk_may_hold_one_example_or_all(x64):
    @jax.jit
    def in_parts_and_whole(params, x, y):
        every = [list(per_example.gradients(params, x, y, chunk=chunk)) for chunk in (1, B, 20)]
        return every, per_example.gradients(params, x, y)

    every, whole = jax.device_get(in_parts_and_whole(*little()))
    assert list(map(len, every)) == [B, 1, 1]
    for parts in every:
        assert_close(jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), whole)


def test_clipping_agrees_with_optax(x64):
    ours = found("arrow masks")
    clip = float(ours.clip)
    private = optax.contrib.differentially_private_aggregate(l2_norm_clip=clip, noise_multiplier=0.0, key=0)
    with jax.numpy_dtype_promotion("standard"), jax.debug_key_reuse(False):
        expected, _ = jax.jit(private.update)(ours.right, private.init(given("arrow masks")[0]))
    assert_close(ours.clipped, expected, 1e-7)  # its noise is float32


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax_privacy calls what optax has renamed
def test_clipping_agrees_with_a_privacy_library(x64):
    clipped_grad = pytest.importorskip("jax_privacy").clipped_grad
    params, x, y = little()

    def cost(params, x, y):
        return fnn.SquaredError().value(fnn.forward(params, x), y).sum()

    theirs = clipped_grad(cost, l2_clip_norm=0.5, batch_argnums=(1, 2), normalize_by=float(B))
    with jax.numpy_dtype_promotion("standard"), jax.debug_key_reuse(False):
        expected = jax.jit(theirs)(params, x, y)
    assert_close(per_example.clipped(params, x, y, 0.5), expected)


def test_noise_has_the_stated_deviation_and_comes_from_the_key_alone():
    random, sizes = np.random.default_rng(0), ((200, 100), (3, 200))
    params = tuple(fnn.Dense(*(np.float32(random.normal(size=of)) for of in (n, n[:1])), fnn.Tanh()) for n in sizes)
    x, y = (np.float32(random.normal(size=(B, n))) for n in (100, 3))
    keys = (jax.random.key(seed) for seed in (3, 3, 4))
    clipped = [per_example.clipped(params, x, y, 0.5, noise=2.0, key=key) for key in keys]
    quiet, noisy, again, other = (flat(of, 1)[0] for of in (per_example.clipped(params, x, y, 0.5), *clipped))
    noise = noisy - quiet
    assert noise.std() == pytest.approx(2.0 * 0.5 / B, rel=0.02)
    assert abs(noise.mean()) < 5 * noise.std() / np.sqrt(noise.size)
    assert (again == noisy).all()
    assert (other != noisy).any()


def test_a_zero_gradient_is_not_divided_by(x64):
    params, x, _ = little()
    clipped = per_example.clipped(params, x, fnn.forward(params, x), 0.5)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(clipped))


# -- what is not computed --------------------------------------------------------------------------------------


def compiled(function):
    params = fnn.init(KEY, (64, 128, 128, 10), activation=fnn.ReLU())
    x, labels = np.ones((64, 64), np.float32), np.zeros(64, np.int32)
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
    params, x, y, _ = given("full batch norm", "float32")
    for call in (per_example.norms, per_example.gradients, per_example.moments, per_example.gram):
        with pytest.raises(ValueError, match=r"params\[0\].norm: with gradient='full' the loss of each example"):
            call(params, x, y)


def test_inner_products_refuse_arrow_masks():
    params, x, y, options = given("arrow masks", "float32")
    with pytest.raises(ValueError, match=r"masks\[0\].arrows: expected None"):
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
