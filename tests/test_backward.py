"""The hand-written gradient equals automatic differentiation."""

from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from problems import (
    ACTIVATIONS,
    COUPLED,
    FROM_Z,
    KINDS,
    LOSSES,
    SMOOTH,
    and_slow,
    assert_agrees,
    distance,
    hand_and_autodiff,
    name,
    objective,
    problem,
    with_masks,
    with_norms,
)

PLAIN = problem(SMOOTH, fnn.SquaredError(), depth=3)


def output(loss):
    """An activation that gives what the loss takes."""
    return fnn.Sigmoid() if isinstance(loss, fnn.CrossEntropy) else fnn.Identity()


# -- every activation, every loss, every shape -------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=name)
def test_the_gradient_equals_autodiff_for_every_activation(activation, x64):
    """In the hidden layer; ``test_losses`` has it in the output layer, with every loss."""
    assert_agrees(problem(activation, fnn.SquaredError(), 2, output=fnn.Identity(), dtype="float64"))


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_the_gradient_equals_autodiff_for_every_loss(loss, x64):
    assert_agrees(problem(SMOOTH, loss, 2, output=output(loss), dtype="float64"))


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=name)
def test_the_gradient_equals_autodiff_for_every_activation_with_every_loss(activation, loss, x64):
    assert_agrees(problem(activation, loss, 3, dtype="float64"))


SHAPES = [
    (SMOOTH, 1, 7, "float64"),  # no hidden layer
    (COUPLED, 4, 7, "float64"),  # a δ from a δ from a δ
    (FROM_Z, 4, None, "float64"),  # a single example
    *((activation, 2, 7, "float32") for activation in KINDS),
]
ALL_SHAPES = product(ACTIVATIONS, (1, 2, 4), (7, None), ("float64", "float32"))


@pytest.mark.parametrize("case", and_slow(SHAPES, ALL_SHAPES), ids=name)
def test_the_gradient_equals_autodiff_at_every_depth_of_a_single_example_and_a_batch(case):
    activation, depth, batch, dtype = case
    with jax.enable_x64(dtype == "float64"):
        assert_agrees(problem(activation, fnn.SquaredError(), depth, batch=batch, dtype=dtype))


@pytest.mark.parametrize("loss", and_slow([fnn.SoftmaxCrossEntropy()], LOSSES), ids=name)
def test_the_gradient_of_the_sum_equals_autodiff(loss, x64):
    assert_agrees(problem(SMOOTH, loss, 2, output=output(loss), dtype="float64"), reduction="sum")


TAKE_LABELS = [(loss, batch) for loss in LOSSES if loss.takes_labels for batch in (7, None)]
LABELS = [(fnn.SoftmaxCrossEntropy(), 7), (fnn.SoftmaxCrossEntropy(), None)]


@pytest.mark.parametrize("case", and_slow(LABELS, TAKE_LABELS), ids=name)
def test_integer_labels_are_one_hot_targets(case, x64):
    loss, batch = case
    p = problem(SMOOTH, loss, 2, output=output(loss), batch=batch, dtype="float64", labels=True)
    assert_agrees(p)
    one_hot = np.eye(p.params[-1].W.shape[0])[np.asarray(p.y)]
    for ours, theirs in zip(*(jax.tree.leaves(fnn.backprop(p.params, p.x, y, loss=loss)) for y in (p.y, one_hot))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-16)


def test_large_logits_leave_the_gradient_finite():
    p = problem(fnn.Identity(), fnn.SoftmaxCrossEntropy(), 2, labels=True)
    huge = jax.tree.map(lambda leaf: 100 * np.asarray(leaf), p.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fnn.backprop(huge, p.x, p.y, loss=p.loss)))


# -- batch norms and masks ---------------------------------------------------------------------------------------


@cache
def of_normed(gradient, dtype):
    with jax.enable_x64(dtype == "float64"):
        p = problem(fnn.Sigmoid(), fnn.SquaredError(), 3, output=fnn.Identity(), dtype=dtype)
        return hand_and_autodiff(with_norms(p, gradient, gradient))


@pytest.mark.parametrize("gradient", ["full", "fixed"])
@pytest.mark.parametrize("case", and_slow([("float64", 1e-12)], [("float32", 1e-4)]), ids=name)
def test_the_gradient_through_a_batch_norm_equals_autodiff(gradient, case):
    dtype, tolerance = case
    hand, auto = (jax.tree.leaves(tree) for tree in of_normed(gradient, dtype))
    size = max(np.linalg.norm(leaf) for leaf in auto)
    for ours, theirs in zip(hand, auto, strict=True):
        assert distance(ours, theirs) <= tolerance * size


def test_the_bias_before_a_batch_norm_has_gradient_zero_only_in_full():
    full, fixed = (np.asarray(of_normed(gradient, "float64")[0][0].b) for gradient in ("full", "fixed"))
    assert np.abs(full).max() < 1e-16
    assert np.abs(fixed).max() > 1e-3


def test_batch_norm_is_right_in_float32_where_the_mean_is_ten_thousand():
    random = np.random.default_rng(0)
    psi = (1e4 + random.normal(size=(64, 3))).astype(np.float32)
    norm = fnn.BatchNorm(np.ones(3, "float32"), np.zeros(3, "float32"))
    exact = psi.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    np.testing.assert_allclose(jax.jit(fnn.batchnorm.normalise)(norm, psi), expected, atol=2e-3)


ALL, SOME = "every mask", "some masks"
MASKS = [(ALL, 7), (SOME, 1)]  # of each example its own; of all examples the same


@pytest.mark.parametrize("case", and_slow(MASKS, [(ALL, 1), (SOME, 7)]), ids=name)
def test_masks_of_units_and_of_arrows_are_part_of_the_derivation(case, x64):
    kind, rows = case
    p = with_masks(problem(SMOOTH, fnn.SquaredError(), 3, dtype="float64"), rows)
    if kind == SOME:
        p = p._replace(masks=(fnn.Mask(), p.masks[1], fnn.Mask(arrows=p.masks[2].arrows)))
    assert_agrees(p)
    gradients = fnn.backprop(p.params, p.x, p.y, masks=p.masks)
    assert not np.any(np.asarray(gradients[1].W)[np.asarray(p.masks[1].arrows) == 0])


# -- δ and ∂C/∂x -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", and_slow([7], [None]))
def test_deltas_are_autodiffs_derivatives_by_every_weighted_input(batch, x64):
    p = problem(fnn.Softplus(), fnn.SoftmaxCrossEntropy(), 3, output=fnn.Identity(), batch=batch, dtype="float64")

    def shifted(shifts):
        a = jnp.atleast_2d(p.x)
        for layer, shift in zip(p.params, shifts):
            a = layer.activation.value(a @ layer.W.T + layer.b + shift)
        return p.loss.value(a, jnp.atleast_2d(p.y)).sum()

    deltas = fnn.deltas(p.params, p.x, p.y, loss=p.loss)
    auto = jax.jit(jax.grad(shifted))([np.zeros(delta.shape) for delta in deltas])
    for ours, theirs in zip(deltas, auto):
        assert distance(ours, theirs) <= 1e-12 * np.linalg.norm(theirs)


EXAMPLES = [(7, "mean"), (None, "sum")]


@pytest.mark.parametrize("case", and_slow(EXAMPLES, [(7, "sum"), (None, "mean")]), ids=name)
def test_the_input_gradient_equals_autodiff(case, x64):
    batch, reduction = case
    p = problem(fnn.SiLU(), fnn.SquaredError(), 3, batch=batch, dtype="float64")
    hand = fnn.input_gradient(p.params, p.x, p.y, loss=p.loss, reduction=reduction)
    auto = jax.jit(jax.grad(objective(p, reduction), argnums=1))(p.params, p.x)
    assert hand.shape == p.x.shape
    assert distance(hand, auto) <= 1e-12 * np.linalg.norm(auto)


# -- the functions -----------------------------------------------------------------------------------------------


def test_the_value_is_the_loss_and_both_functions_give_one_gradient():
    value, gradients = fnn.value_and_backprop(*PLAIN[:3])
    np.testing.assert_allclose(value, jax.jit(objective(PLAIN))(PLAIN.params), rtol=1e-6)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(fnn.backprop(*PLAIN[:3]))):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_a_rule_of_ones_own_is_the_one_that_runs():
    doubled = fnn.RULES._replace(bias_gradient=lambda delta: 2 * delta.sum(axis=0))
    for ours, theirs in zip(fnn.backprop(*PLAIN[:3]), fnn.backprop(*PLAIN[:3], rules=doubled)):
        np.testing.assert_allclose(theirs.b, 2 * np.asarray(ours.b), rtol=1e-6)
        np.testing.assert_allclose(theirs.W, ours.W, rtol=1e-6)


def test_backprop_runs_under_jit_vmap_and_scan():
    hand = fnn.backprop(*PLAIN[:3], reduction="sum")
    jitted = jax.jit(partial(fnn.backprop, reduction="sum"))(*PLAIN[:3])
    rows = jax.vmap(fnn.backprop, in_axes=(None, 0, 0))(*PLAIN[:3])
    _, scanned = jax.lax.scan(lambda _, row: (None, fnn.backprop(PLAIN.params, *row)), None, (PLAIN.x, PLAIN.y))
    for ours, *others in zip(*(jax.tree.leaves(tree) for tree in (hand, jitted, rows, scanned))):
        for theirs in (others[0], np.sum(others[1], axis=0), np.sum(others[2], axis=0)):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_equal_calls_compile_once_whether_defaults_are_given_or_not():
    from fnn.functions import _backward

    fnn.backprop(*PLAIN[:3])
    before = _backward._cache_size()
    fnn.backprop(*PLAIN[:3], loss=fnn.SquaredError(0.5), reduction="mean", masks=None, rules=fnn.RULES)
    fnn.backprop(list(PLAIN.params), PLAIN.x, PLAIN.y, masks=(fnn.Mask(),) * 3)
    assert _backward._cache_size() == before


def test_the_pullback_from_any_seed_is_autodiffs_and_takes_that_of_the_loss(x64):
    p = problem(fnn.SiLU(), fnn.SquaredError(), 3, dtype="float64")
    out, pull_back = jax.vjp(fnn.forward, p.params, p.x)
    g = p.loss.gradient(out, p.y)
    for ours, theirs in zip(*map(jax.tree.leaves, (fnn.pullback(p.params, p.x, g), pull_back(g)))):
        assert distance(ours, theirs) <= 1e-12 * np.linalg.norm(theirs)
    gradients = fnn.backprop(p.params, p.x, p.y, reduction="sum")
    for ours, theirs in zip(*map(jax.tree.leaves, (fnn.pullback(p.params, p.x, g)[0], gradients))):
        assert distance(ours, theirs) <= 1e-12 * np.linalg.norm(theirs)
    with pytest.raises(ValueError, match=r"g: expected float64 of shape \(7, 3\), got float64 of shape \(7, 2\)"):
        fnn.pullback(p.params, p.x, np.ones((7, 2)))


def test_rules_print_what_is_replaced():
    assert repr(fnn.RULES) == "RULES"
    assert repr(fnn.RULES._replace(hidden_delta=max)) == "RULES._replace(hidden_delta=max)"
