"""What holds for every network: of any depth, widths, activations, loss, masks and batch norms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fnn
from problems import (
    ACTIVATIONS,
    COUPLED,
    LOSSES,
    Problem,
    and_slow,
    distance,
    objective,
    problem,
    with_masks,
    with_norms,
)

FEW, MANY = 2, 20  # the first is the smallest network that there is

networks = pytest.mark.parametrize("networks", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def double_precision(x64):
    return


def holds_for(networks, strategy, chosen):
    """Run the check that it decorates, on the chosen case and on so many that the strategy draws."""

    def run(check):
        check = example(chosen)(given(strategy)(check))
        settings(max_examples=networks, deadline=None, derandomize=True, database=None)(check)()

    return run


def mixed(dtype="float64") -> Problem:
    """Batch norms of both kinds, masks of units and of arrows, and integer labels; chosen where few are drawn."""
    p = problem(fnn.SiLU(), fnn.SoftmaxCrossEntropy(), 3, output=fnn.Identity(), batch=5, dtype=dtype, labels=True)
    return with_masks(with_norms(p, "full", "fixed"), rows=5)


@st.composite
def problems(draw, dtype="float64", batches=(None, 1, 2, 5), norms=(None, "fixed", "full")):
    """A random network and data for it; integer labels, masks and batch norms now and then."""
    sizes = draw(st.lists(st.sampled_from((1, 2, 3, 6)), min_size=2, max_size=5))
    batch = draw(st.sampled_from(batches))
    loss = draw(st.sampled_from(LOSSES))
    normed = batch is not None and batch > 1 and draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def normal(*shape, loc=0.0, scale=1.0):
        return jnp.asarray(random.normal(loc, scale, shape), dtype)

    def kept(*shape):
        return jnp.asarray(random.binomial(1, 0.7, shape) / 0.7, dtype) if draw(st.booleans()) else None

    layers, masks = [], []
    for n_in, n_out in zip(sizes, sizes[1:]):
        W, b, norm = normal(n_out, n_in, scale=1.5 / np.sqrt(n_in)), normal(n_out, scale=0.5), None
        if normed and (gradient := draw(st.sampled_from(norms))) is not None:
            norm = fnn.BatchNorm(normal(n_out, loc=1.0, scale=0.3), normal(n_out, scale=0.3), gradient=gradient)
        layers.append(fnn.Dense(W, b, draw(st.sampled_from(ACTIVATIONS)), norm))
        masks.append(fnn.Mask(kept(draw(st.sampled_from((1, batch or 1))), n_in), kept(n_out, n_in)))

    shape = () if batch is None else (batch,)
    if loss.takes_labels and sizes[-1] > 1 and draw(st.booleans()):
        y = jnp.asarray(random.integers(0, sizes[-1], shape), "int32")
    else:
        y = jnp.asarray(random.uniform(0.05, 0.95, (*shape, sizes[-1])), dtype)
    return Problem(tuple(layers), normal(*shape, sizes[0]), y, loss, tuple(masks) if draw(st.booleans()) else None)


@partial(jax.jit, static_argnames=("loss", "reduction"))
def quantities(params, x, y, masks, *, loss, reduction="mean"):
    """The gradient, δ, the traces, and ∂L/∂a, which an output Softmax may cancel."""
    traces = fnn.trace(params, x, masks)
    by_output = loss.gradient(jnp.atleast_2d(traces[-1].a), y[None] if x.ndim == 1 else y)
    gradients = fnn.backprop(params, x, y, loss=loss, reduction=reduction, masks=masks)
    return gradients, fnn.deltas(params, x, y, loss=loss, masks=masks), traces, by_output


def largest_term(deltas, traces, by_output):
    """Of what the gradients of the sum add up: |δ|ᵀ|a| for W, Σ|δ| for b; and ∂L/∂a."""
    sizes = [np.linalg.norm(by_output)]
    for delta, t in zip(deltas, traces):
        d, a = (np.abs(np.atleast_2d(value)) for value in (delta, t.a_in))
        sizes += [np.linalg.norm(d.T @ a), np.linalg.norm(d.sum(axis=0))]
    return max(sizes)


def examples(p):
    return 1 if p.x.ndim == 1 else len(p.x)


@networks
def test_the_gradient_equals_autodiff(networks):
    reductions = st.sampled_from(["mean", "sum"])

    @holds_for(networks, st.tuples(problems(), reductions), (mixed(), "mean"))
    def check(case):
        p, reduction = case
        hand, *terms = quantities(p.params, p.x, p.y, p.masks, loss=p.loss, reduction=reduction)
        auto = jax.jit(jax.grad(objective(p, reduction)))(p.params)
        full = any(layer.norm is not None and layer.norm.gradient == "full" for layer in p.params)
        tolerance = 1e-10 if full else 1e-12
        allowed = tolerance * largest_term(*terms) / (examples(p) if reduction == "mean" else 1)
        assert jax.tree.structure(hand) == jax.tree.structure(p.params)
        for (path, ours), theirs in zip(jax.tree.leaves_with_path(hand), jax.tree.leaves(auto)):
            assert distance(ours, theirs) <= allowed, jax.tree_util.keystr(path)


@networks
@pytest.mark.parametrize("dtype", and_slow(["float32", "bfloat16"], ["float64"]))
def test_every_derivative_has_the_shape_and_dtype_of_what_it_is_by(dtype, networks):
    def everything(params, x, y, loss, masks):
        options = {"loss": loss, "masks": masks}
        value, by_params = fnn.value_and_backprop(params, x, y, **options)
        by_x, deltas = fnn.input_gradient(params, x, y, **options), fnn.deltas(params, x, y, **options)
        return value, by_params, by_x, deltas, fnn.trace(params, x, masks), fnn.forward(params, x, masks)

    @holds_for(networks, problems(dtype), mixed(dtype))
    def check(p):
        of_problem = partial(everything, loss=p.loss, masks=p.masks)
        value, by_params, by_x, deltas, traces, a = jax.eval_shape(of_problem, p.params, p.x, p.y)
        assert (value.shape, value.dtype) == ((), dtype)
        assert (a.shape, a.dtype) == (traces[-1].z.shape, dtype)
        assert jax.tree.structure(by_params) == jax.tree.structure(p.params)
        derivatives = [*jax.tree.leaves(by_params), *deltas, by_x]
        for derivative, by in zip(derivatives, [*jax.tree.leaves(p.params), *(t.psi for t in traces), p.x]):
            assert (derivative.shape, derivative.dtype) == (by.shape, by.dtype)


@networks
def test_the_deltas_and_the_layers_inputs_make_the_gradients(networks):
    @holds_for(networks, problems(), mixed())
    def check(p):
        gradients, deltas, traces, by_output = quantities(p.params, p.x, p.y, p.masks, loss=p.loss)
        allowed = 1e-12 * largest_term(deltas, traces, by_output)
        masks = p.masks or (fnn.Mask(),) * len(p.params)
        for gradient, delta, t, mask in zip(gradients, deltas, traces, masks):
            delta, a_in = np.atleast_2d(delta), np.atleast_2d(t.a_in)
            arrows = 1 if mask.arrows is None else np.asarray(mask.arrows)
            assert distance(gradient.W, delta.T @ a_in * arrows / len(delta)) <= allowed
            assert distance(gradient.b, delta.mean(axis=0)) <= allowed


@networks
def test_the_gradient_of_a_batch_is_the_mean_of_its_examples_gradients(networks):
    chosen = problem(COUPLED, fnn.CrossEntropy(), 2, batch=5, dtype="float64")

    @holds_for(networks, problems(batches=(1, 2, 5), norms=(None,)), chosen)
    def check(p):
        batch, *terms = quantities(p.params, p.x, p.y, None, loss=p.loss)
        alone = jax.jit(jax.vmap(partial(fnn.backprop, loss=p.loss), (None, 0, 0)))(p.params, p.x, p.y)
        allowed = 1e-12 * largest_term(*terms)
        for ours, parts in zip(jax.tree.leaves(batch), jax.tree.leaves(alone)):
            assert distance(ours, np.mean(parts, axis=0)) <= allowed
