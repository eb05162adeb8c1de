"""The hand-written gradient equals automatic differentiation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from problems import ACTIVATIONS, LOSSES, Problem, assert_agrees, distance, name, objective, problem, some

SMOOTH = problem(fnn.Tanh(), fnn.SquaredError(), depth=3)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("activation", some(ACTIVATIONS), ids=name)
def test_the_gradient_equals_autodiff_for_every_activation_and_loss(activation, loss):
    """Mean and sum; not compiled, for thousands of programs take an hour. The slow test takes all depths and dtypes."""
    with jax.enable_x64(True), jax.disable_jit():
        for depth, batch in ((1, 7), (3, None), (4, 7)):
            assert_agrees(problem(activation, loss, depth, batch=batch, dtype="float64"))


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.long)])
def test_the_gradient_equals_autodiff_at_every_depth_of_a_single_example_and_a_batch(loss, dtype):
    with jax.enable_x64(dtype == "float64"), jax.disable_jit():
        for activation in ACTIVATIONS:
            for depth in (1, 2, 3, 4):
                for batch in (None, 7):
                    assert_agrees(problem(activation, loss, depth, batch=batch, dtype=dtype))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=name)
def test_the_compiled_gradient_equals_autodiff_in_float32_for_every_activation(activation):
    assert_agrees(problem(activation, fnn.SquaredError(), 3, output=fnn.Identity()))


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_the_compiled_gradient_equals_autodiff_in_float32_for_every_loss(loss):
    probabilities = isinstance(loss, fnn.CrossEntropy)
    assert_agrees(problem(fnn.Tanh(), loss, 2, output=fnn.Sigmoid() if probabilities else fnn.Identity()))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.takes_labels], ids=name)
@pytest.mark.parametrize("batch", [None, 7])
def test_integer_labels_are_one_hot_targets(loss, batch, x64):
    output = fnn.Sigmoid() if isinstance(loss, fnn.CrossEntropy) else fnn.Identity()
    p = problem(fnn.Tanh(), loss, 2, output=output, batch=batch, dtype="float64", labels=True)
    assert_agrees(p)
    one_hot = p._replace(y=jax.nn.one_hot(p.y, p.params[-1].W.shape[0], dtype="float64"))
    for ours, theirs in zip(*(jax.tree.leaves(fnn.backprop(q.params, q.x, q.y, loss=loss)) for q in (p, one_hot))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("gradient", ["full", "fixed"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_the_gradient_through_a_batch_norm_equals_autodiff(gradient, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        p = normed(gradient, dtype)
        hand, auto = fnn.backprop(p.params, p.x, p.y), jax.grad(objective(p))(p.params)
        size = max(float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(auto))
        for ours, theirs in zip(jax.tree.leaves(hand), jax.tree.leaves(auto)):
            assert distance(ours, theirs) <= tolerance * size


def test_the_bias_before_a_batch_norm_has_gradient_zero_only_in_full(x64):
    full, fixed = (normed(gradient, "float64") for gradient in ("full", "fixed"))
    assert np.abs(fnn.backprop(full.params, full.x, full.y)[0].b).max() < 1e-16
    assert np.abs(fnn.backprop(fixed.params, fixed.x, fixed.y)[0].b).max() > 1e-3


def test_batch_norm_is_right_in_float32_where_the_mean_is_ten_thousand():
    random = np.random.default_rng(0)
    psi = (1e4 + random.normal(size=(64, 3))).astype(np.float32)
    norm = fnn.BatchNorm(jnp.ones(3), jnp.zeros(3))
    exact = psi.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    np.testing.assert_allclose(fnn.batchnorm.normalise(norm, jnp.asarray(psi)), expected, atol=2e-3)


def normed(gradient, dtype) -> Problem:
    p = problem(fnn.Sigmoid(), fnn.SquaredError(), 3, output=fnn.Identity(), dtype=dtype)
    random = np.random.default_rng(5)
    layers = []
    for layer in p.params[:-1]:
        gamma, beta = (jnp.asarray(random.uniform(0.5, 1.5, layer.b.shape), dtype) for _ in range(2))
        layers.append(fnn.Dense(layer.W, layer.b, layer.activation, fnn.BatchNorm(gamma, beta, gradient=gradient)))
    return p._replace(params=(*layers, p.params[-1]))


@pytest.mark.parametrize("rows", [1, 7])
def test_masks_of_units_and_of_arrows_are_part_of_the_derivation(rows, x64):
    p = problem(fnn.Tanh(), fnn.SquaredError(), 3, dtype="float64")
    random = np.random.default_rng(6)

    def draw(*shape):
        return jnp.asarray(random.integers(0, 2, shape), "float64")

    masks = tuple(fnn.Mask(draw(rows, layer.W.shape[1]), draw(*layer.W.shape)) for layer in p.params)
    assert_agrees(p._replace(masks=masks))
    assert_agrees(p._replace(masks=(fnn.Mask(), masks[1], fnn.Mask(arrows=masks[2].arrows))))
    gradients = fnn.backprop(p.params, p.x, p.y, masks=masks)
    assert not np.any(np.asarray(gradients[1].W)[np.asarray(masks[1].arrows) == 0])


@pytest.mark.parametrize("batch", [None, 7])
def test_deltas_are_autodiffs_derivatives_by_every_weighted_input(batch, x64):
    p = problem(fnn.Softplus(), fnn.SoftmaxCrossEntropy(), 3, output=fnn.Identity(), batch=batch, dtype="float64")

    def shifted(shifts):
        a = jnp.atleast_2d(p.x)
        for layer, shift in zip(p.params, shifts):
            a = layer.activation.value(a @ layer.W.T + layer.b + shift)
        return p.loss.value(a, jnp.atleast_2d(p.y)).sum()

    deltas = fnn.deltas(p.params, p.x, p.y, loss=p.loss)
    auto = jax.grad(shifted)([jnp.zeros_like(delta) for delta in deltas])
    for ours, theirs in zip(deltas, auto):
        assert distance(ours, theirs) <= 1e-12 * np.linalg.norm(theirs)


@pytest.mark.parametrize("batch", [None, 7])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_input_gradient_equals_autodiff(batch, reduction, x64):
    p = problem(fnn.SiLU(), fnn.SquaredError(), 3, batch=batch, dtype="float64")
    hand = fnn.input_gradient(p.params, p.x, p.y, loss=p.loss, reduction=reduction)
    auto = jax.grad(objective(p, reduction), argnums=1)(p.params, p.x)
    assert hand.shape == p.x.shape
    assert distance(hand, auto) <= 1e-12 * np.linalg.norm(auto)


def test_the_value_is_the_loss_and_both_functions_give_one_gradient():
    value, gradients = fnn.value_and_backprop(SMOOTH.params, SMOOTH.x, SMOOTH.y)
    np.testing.assert_allclose(value, objective(SMOOTH)(SMOOTH.params), rtol=1e-6)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(fnn.backprop(SMOOTH.params, SMOOTH.x, SMOOTH.y))):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_deltas_and_inputs_are_all_that_the_gradients_need():
    gradients = fnn.backprop(SMOOTH.params, SMOOTH.x, SMOOTH.y, reduction="sum")
    deltas = fnn.deltas(SMOOTH.params, SMOOTH.x, SMOOTH.y)
    for t, delta, gradient in zip(fnn.trace(SMOOTH.params, SMOOTH.x), deltas, gradients):
        np.testing.assert_allclose(delta.T @ t.a_in, gradient.W, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(delta.sum(axis=0), gradient.b, rtol=1e-5, atol=1e-6)


def test_a_rule_of_ones_own_is_the_one_that_runs():
    doubled = fnn.RULES._replace(bias_gradient=lambda delta: 2 * delta.sum(axis=0))
    ours = fnn.backprop(SMOOTH.params, SMOOTH.x, SMOOTH.y)
    theirs = fnn.backprop(SMOOTH.params, SMOOTH.x, SMOOTH.y, rules=doubled)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(b.b, 2 * a.b, rtol=1e-6)
        np.testing.assert_allclose(b.W, a.W, rtol=1e-6)


def test_backprop_runs_under_jit_vmap_and_scan():
    hand = fnn.backprop(SMOOTH.params, SMOOTH.x, SMOOTH.y, reduction="sum")
    jitted = jax.jit(partial(fnn.backprop, reduction="sum"))(SMOOTH.params, SMOOTH.x, SMOOTH.y)
    rows = jax.vmap(fnn.backprop, in_axes=(None, 0, 0))(SMOOTH.params, SMOOTH.x, SMOOTH.y)
    _, scanned = jax.lax.scan(lambda _, row: (None, fnn.backprop(SMOOTH.params, *row)), None, (SMOOTH.x, SMOOTH.y))
    for ours, *others in zip(*(jax.tree.leaves(tree) for tree in (hand, jitted, rows, scanned))):
        for theirs in (others[0], others[1].sum(axis=0), others[2].sum(axis=0)):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_equal_calls_compile_once_whether_defaults_are_given_or_not():
    p = problem(fnn.Tanh(), fnn.SquaredError(), 2, batch=9)
    from fnn.backward import _backward

    fnn.backprop(p.params, p.x, p.y)
    before = _backward._cache_size()
    fnn.backprop(p.params, p.x, p.y, loss=fnn.SquaredError(0.5), reduction="mean", masks=None, rules=fnn.RULES)
    fnn.backprop(list(p.params), p.x, p.y, masks=(fnn.Mask(), fnn.Mask()))
    assert _backward._cache_size() == before


def test_large_logits_leave_the_gradient_finite():
    p = problem(fnn.Identity(), fnn.SoftmaxCrossEntropy(), 2, labels=True)
    huge = tuple(jax.tree.map(lambda leaf: 100 * leaf, layer) for layer in p.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fnn.backprop(huge, p.x, p.y, loss=p.loss)))
