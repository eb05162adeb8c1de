"""What holds for every network: of any depth, widths, activations, loss, masks and batch norms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fnn
from problems import ACTIVATIONS, LOSSES, Problem, distance, objective, summed_terms

SETTINGS = {"deadline": None, "derandomize": True, "database": None}


@pytest.fixture(autouse=True)
def double_precision_and_not_compiled():
    with jax.enable_x64(True), jax.disable_jit():
        yield


@st.composite
def problems(draw, dtype="float64", batches=(None, 1, 2, 5), norms=(None, "fixed", "full")):
    """A random network and data for it; integer labels, masks and batch norms now and then."""
    sizes = draw(st.lists(st.sampled_from((1, 2, 3, 6)), min_size=2, max_size=5))
    batch = draw(st.sampled_from(batches))
    loss = draw(st.sampled_from(LOSSES))
    with_norms = batch is not None and batch > 1 and draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def normal(*shape, loc=0.0, scale=1.0):
        return jnp.asarray(random.normal(loc, scale, shape), dtype)

    def kept(*shape):
        return jnp.asarray(random.binomial(1, 0.7, shape) / 0.7, dtype) if draw(st.booleans()) else None

    layers, masks = [], []
    for n_in, n_out in zip(sizes, sizes[1:]):
        W, b, norm = normal(n_out, n_in, scale=1.5 / np.sqrt(n_in)), normal(n_out, scale=0.5), None
        if with_norms and (gradient := draw(st.sampled_from(norms))) is not None:
            norm = fnn.BatchNorm(normal(n_out, loc=1.0, scale=0.3), normal(n_out, scale=0.3), gradient=gradient)
        layers.append(fnn.Dense(W, b, draw(st.sampled_from(ACTIVATIONS)), norm))
        masks.append(fnn.Mask(kept(draw(st.sampled_from((1, batch or 1))), n_in), kept(n_out, n_in)))

    shape = () if batch is None else (batch,)
    if loss.takes_labels and sizes[-1] > 1 and draw(st.booleans()):
        y = jnp.asarray(random.integers(0, sizes[-1], shape), "int32")
    else:
        y = jnp.asarray(random.uniform(0.05, 0.95, (*shape, sizes[-1])), dtype)
    return Problem(tuple(layers), normal(*shape, sizes[0]), y, loss, tuple(masks) if draw(st.booleans()) else None)


def largest_term(p):
    """The largest of what the gradients of the sum add up, and ∂L/∂a, all of which an output Softmax may cancel."""
    a = jnp.atleast_2d(fnn.forward(p.params, p.x, p.masks))
    gradient = p.loss.gradient(a, p.y[None] if p.x.ndim == 1 else p.y)
    return max(np.linalg.norm(np.asarray(gradient)), *(size for pair in summed_terms(p) for size in pair))


def examples(p):
    return 1 if p.x.ndim == 1 else len(p.x)


@settings(max_examples=3, **SETTINGS)
@given(p=problems(), reduction=st.sampled_from(["mean", "sum"]))
def test_the_gradient_equals_autodiff(p, reduction):
    hand = fnn.backprop(p.params, p.x, p.y, loss=p.loss, reduction=reduction, masks=p.masks)
    auto = jax.grad(objective(p, reduction))(p.params)
    full = any(layer.norm is not None and layer.norm.gradient == "full" for layer in p.params)
    tolerance = 1e-10 if full else 1e-12
    allowed = tolerance * largest_term(p) / (examples(p) if reduction == "mean" else 1)
    assert jax.tree.structure(hand) == jax.tree.structure(p.params)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(hand), jax.tree.leaves(auto)):
        assert distance(ours, theirs) <= allowed, jax.tree_util.keystr(path)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_every_derivative_has_the_shape_and_dtype_of_what_it_is_by(dtype):
    @settings(max_examples=6, **SETTINGS)
    @given(p=problems(dtype))
    def check(p):
        arguments = (p.params, p.x, p.y)
        options = {"loss": p.loss, "masks": p.masks}
        loss, by_params = jax.eval_shape(partial(fnn.value_and_backprop, **options), *arguments)
        deltas = jax.eval_shape(partial(fnn.deltas, **options), *arguments)
        by_x = jax.eval_shape(partial(fnn.input_gradient, **options), *arguments)
        traces = jax.eval_shape(fnn.trace, p.params, p.x, p.masks)
        assert (loss.shape, loss.dtype) == ((), dtype)
        assert jax.tree.structure(by_params) == jax.tree.structure(p.params)
        derivatives = [*jax.tree.leaves(by_params), *deltas, by_x]
        for derivative, by in zip(derivatives, [*jax.tree.leaves(p.params), *(t.psi for t in traces), p.x]):
            assert (derivative.shape, derivative.dtype) == (by.shape, by.dtype)

    check()


@settings(max_examples=3, **SETTINGS)
@given(p=problems())
def test_the_deltas_and_the_layers_inputs_make_the_gradients(p):
    gradients = fnn.backprop(p.params, p.x, p.y, loss=p.loss, masks=p.masks)
    deltas = fnn.deltas(p.params, p.x, p.y, loss=p.loss, masks=p.masks)
    allowed = 1e-12 * largest_term(p)
    masks = p.masks or (fnn.Mask(),) * len(p.params)
    for gradient, delta, t, mask in zip(gradients, deltas, fnn.trace(p.params, p.x, p.masks), masks):
        delta, a_in = np.atleast_2d(np.asarray(delta)), np.atleast_2d(np.asarray(t.a_in))
        arrows = 1 if mask.arrows is None else np.asarray(mask.arrows)
        assert distance(gradient.W, delta.T @ a_in * arrows / len(delta)) <= allowed
        assert distance(gradient.b, delta.mean(axis=0)) <= allowed


@settings(max_examples=3, **SETTINGS)
@given(p=problems(batches=(1, 2, 5), norms=(None,)))
def test_the_gradient_of_a_batch_is_the_mean_of_its_examples_gradients(p):
    p = p._replace(masks=None)
    batch = fnn.backprop(p.params, p.x, p.y, loss=p.loss)
    single = [fnn.backprop(p.params, x, y, loss=p.loss) for x, y in zip(p.x, p.y)]
    allowed = 1e-12 * largest_term(p)
    for leaf, *parts in zip(*map(jax.tree.leaves, (batch, *single))):
        assert distance(leaf, np.mean(parts, axis=0)) <= allowed
