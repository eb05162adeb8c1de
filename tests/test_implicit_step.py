"""The implicit step of a whole network is θ' = θ − η∇C(θ'), however large η is, or it says that it is not."""

from dataclasses import replace
from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

import fnn
from errors import NORMED, SOFTMAX, SQUARED, X, Y, assert_refused, changed, table
from fnn.implicit import NotConverged, step
from fnn.implicit.newton import direction, minimise
from implicit_cases import assert_second_order, distance, leaves, length
from problems import Problem, and_slow, objective, problem

RATES = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
LINEAR = fnn.Identity()
SMOOTH = (fnn.Tanh(), SOFTMAX, 2, LINEAR, 7)  # activation, loss, depth, output, batch; the problem of most tests here
FROM_Z = (fnn.GELU(), fnn.CrossEntropy(), 2, fnn.Sigmoid(), None)
CASES = (
    (fnn.Sigmoid(), fnn.SigmoidCrossEntropy(), 3, LINEAR, 50),
    (fnn.Softplus(), fnn.Poisson(), 2, LINEAR, 7),
    (fnn.SiLU(), fnn.Huber(0.7), 2, LINEAR, 50),
    (fnn.Gaussian(), SQUARED, 2, LINEAR, None),
    (fnn.ELU(), SOFTMAX, 3, LINEAR, 50),
)


def given(activation, loss, depth, output, batch, dtype="float64"):
    return problem(activation, loss, depth, output=output, batch=batch, dtype=dtype, labels=loss == SOFTMAX)


@pytest.fixture
def tanh(x64):
    return given(*SMOOTH)


@partial(jax.jit, static_argnames=("loss", "reduction"))
def judged(params, x, y, eta, new, masks=None, *, loss, reduction="mean"):
    """‖θ' − θ + η∇C(θ')‖ over 1 + ‖θ‖; and C and ½‖· − θ‖² at θ', at θ and after the explicit step; ∇C by autodiff."""
    cost = objective(Problem(params, x, y, loss, masks), reduction)
    (after, there), (before, here) = (jax.value_and_grad(cost)(q) for q in (new, params))
    explicit = jax.tree.map(lambda v, g: v - eta * g, params, here)
    residual = jax.tree.map(lambda w, v, g: w - v + eta * g, new, params, there)
    away = [0.5 * length(jax.tree.map(jnp.subtract, q, params)) ** 2 for q in (new, params, explicit)]
    return length(residual) / (1 + length(params)), jnp.stack([after, before, cost(explicit)]), jnp.stack(away)


def assert_solves(p, eta, new, tolerance=1e-10, reduction="mean"):
    """θ' solves its equation, with a lower proximal objective than θ; returns C(θ'), C(θ) and ½‖θ' − θ‖²."""
    residual, *found = judged(p.params, p.x, p.y, eta, new, p.masks, loss=p.loss, reduction=reduction)
    costs, away = map(np.asarray, found)
    after, before, explicit = eta * costs + away
    assert residual <= tolerance, f"η = {eta}: residual {residual:.1e}"
    assert after <= before, f"η = {eta}: the proximal objective rose from {before} to {after}"
    assert after <= explicit * (1 + 1e-12) or not np.isfinite(explicit)
    return costs[0], costs[1], away[0]


@pytest.mark.parametrize("case", and_slow([SMOOTH, FROM_Z], CASES), ids=str)
def test_it_solves_its_equation_and_lowers_the_proximal_objective_at_every_rate(case, x64):
    p = given(*case)
    for eta in RATES:
        assert_solves(p, eta, step(*p[:3], eta, loss=p.loss))


def test_float32_comes_as_near_as_it_says():
    p = given(*SMOOTH, dtype="float32")
    for eta in RATES:
        new = step(*p[:3], eta, loss=SOFTMAX)
        with jax.enable_x64(True):
            exact, new = jax.tree.map(lambda v: np.asarray(v, "f8" if v.dtype == "f4" else v.dtype), (p[:3], new))
            assert_solves(Problem(*exact, SOFTMAX), eta, new, tolerance=5e-6 * (1 + eta))


def test_a_linear_layers_least_squares_step_is_the_closed_form(x64):
    p = problem(LINEAR, SQUARED, 1, dtype="float64")
    for eta in RATES:
        assert distance(step(*p[:3], eta, loss=SQUARED), fnn.implicit.linear(*p[:3], eta)) <= 1e-9


@pytest.mark.parametrize("loss", and_slow([SOFTMAX], [fnn.SigmoidCrossEntropy(), fnn.Poisson()]), ids=repr)
def test_a_generalised_linear_models_step_is_that_of_its_scalar_equation(loss, x64):
    p = problem(LINEAR, loss, 1, dtype="float64", batch=None)
    y = jnp.asarray(np.round(p.y) if loss is not SOFTMAX else np.eye(p.y.shape[-1])[1])
    for eta in RATES:
        exact = fnn.implicit.generalized_linear(p.params, p.x, y, eta, loss=loss)
        assert distance(step(p.params, p.x, y, eta, loss=loss), exact) <= 1e-9


@pytest.mark.slow  # two closed forms say the same
def test_a_convex_problems_step_is_what_scipy_finds(x64):
    p = problem(LINEAR, SOFTMAX, 1, dtype="float64", labels=True)
    theta, unravel = ravel_pytree(p.params)

    @jax.jit
    @jax.value_and_grad
    def proximal(u, eta):
        return eta * objective(p)(unravel(u)) + 0.5 * jnp.sum((u - theta) ** 2)

    for eta in (1.0, 100.0):
        options = {"method": "L-BFGS-B", "options": {"ftol": 0, "gtol": 1e-9}}
        theirs = scipy.optimize.minimize(proximal, theta, (eta,), jac=True, **options)
        ours, _ = ravel_pytree(step(*p[:3], eta, loss=SOFTMAX))
        assert np.linalg.norm(ours - theirs.x) <= 1e-7 * np.linalg.norm(theirs.x)
        assert proximal(ours, eta)[0] <= theirs.fun + 1e-12


def test_as_the_rate_goes_to_0_it_becomes_explicit_sgd_with_an_error_of_second_order(tanh):
    assert_second_order(partial(step, *tanh[:3], loss=SOFTMAX, tolerance=1e-14), *tanh[:3], SOFTMAX)


def test_a_larger_rate_leaves_a_lower_loss(tanh):
    """Of a descent's limit that is no theorem, but ηC + ½‖θ' − θ‖² bounds it: C(θ') ≤ C(θ) − ‖θ' − θ‖²/2η."""
    losses = []
    for eta in RATES:
        after, before, away = assert_solves(tanh, eta, step(*tanh[:3], eta, loss=SOFTMAX))
        assert after <= before - away / eta
        losses.append(after)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01 * before


def test_unit_masks_and_arrow_masks_and_a_sum_over_the_examples(tanh):
    random = np.random.default_rng(0)
    masks = tuple(
        fnn.Mask(jnp.asarray(random.integers(0, 2, (7, n)) * 2.0), jnp.asarray(random.integers(0, 2, (m, n)) * 1.0))
        for m, n in (layer.W.shape for layer in tanh.params)
    )
    p = tanh._replace(masks=masks)
    new = step(*p[:3], 3.0, loss=SOFTMAX, masks=masks, reduction="sum")
    assert_solves(p, 3.0, new, reduction="sum")
    for layer, after, mask in zip(p.params, new, masks):
        closed = np.asarray(mask.arrows) == 0
        np.testing.assert_array_equal(np.asarray(after.W)[closed], np.asarray(layer.W)[closed])


def test_a_stack_and_a_batch_norm_that_differentiates_its_statistics_are_smooth_like_others(x64):
    random = np.random.default_rng(0)
    norm = fnn.BatchNorm(*map(jnp.asarray, (np.ones(4), np.zeros(4))), gradient="full")
    W, b = jnp.asarray(random.normal(size=(4, 4)) / 2), jnp.asarray(random.normal(size=4))
    params = tuple(fnn.Dense(W, b, fnn.Tanh(), kind) for kind in (None, norm, norm, None))
    p = Problem(params, *map(jnp.asarray, (random.normal(size=(7, 4)), random.uniform(size=(7, 4)))), SQUARED)
    for eta in (0.1, 1.0):
        new = step(fnn.stack(p.params), p.x, p.y, eta, loss=SQUARED)
        assert isinstance(new[1], fnn.Stack)
        assert_solves(p, eta, fnn.unstack(new))


def test_under_jit_and_vmap_it_takes_the_same_steps_and_is_nan_where_it_does_not_converge_and_only_there(tanh):
    rates = np.array([0.1, 1.0, 1e4])
    many = jax.jit(jax.vmap(lambda eta: step(*tanh[:3], eta, loss=SOFTMAX, steps=10)))(rates)
    for i, eta in enumerate(rates[:2]):
        one = step(*tanh[:3], eta, loss=SOFTMAX)
        assert distance([leaf[i] for leaf in leaves(many)], one) <= 1e-9
    assert all(np.isnan(leaf[2]).all() for leaf in leaves(many))


def test_every_rate_and_every_number_of_steps_has_one_compilation(tanh):
    compiled = import_module("fnn.implicit.step")._step  # the function of that name hides the module
    step(*tanh[:3], 0.2, loss=SOFTMAX)
    before = compiled._cache_size()
    step(*tanh[:3], 0.3, loss=SOFTMAX, steps=40)
    step(*tanh[:3], 2, loss=SOFTMAX, tolerance=1e-8)
    assert compiled._cache_size() == before


def test_it_says_where_it_does_not_converge(tanh):
    with pytest.raises(
        NotConverged, match=r"expected .* <= .*, got .* after .* 2 Newton.*learning_rate.*steps=20"
    ) as of:
        step(*tanh[:3], 100.0, loss=SOFTMAX, steps=2)
    assert of.value.residual > of.value.allowed > 0
    with pytest.raises(NotConverged):  # less than rounding leaves
        step(*tanh[:3], 100.0, loss=SOFTMAX, tolerance=1e-18, steps=50)
    with pytest.raises(NotConverged, match="nan"):
        step(tanh.params, jnp.asarray(np.full_like(tanh.x, np.nan)), tanh.y, 1.0, loss=SOFTMAX)


def test_matmuls_are_asked_for_in_full_precision():
    """An accelerator's default keeps three digits of a float32 product, and no residual would go below them."""
    p = given(*SMOOTH, dtype="float32")
    text = str(jax.make_jaxpr(lambda params: step(params, p.x, p.y, 1.0, loss=SOFTMAX))(p.params))
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == text.count("dot_general[") > 0


# -- Newton–CG itself ------------------------------------------------------------------------------------------


@jax.jit
def on_quadratic(A, b, start, steps):
    """Newton–CG on ½uᵀAu − bᵀu."""

    def evaluate(u):
        return 0.5 * u @ A @ u - b @ u, A @ u - b

    return minimise(evaluate, lambda u, v: A @ v, start, goal=1e-10, scale=1.0, steps=steps)


@jax.jit
def direction_of(A, g):
    return direction(lambda v: A @ v, g, 1e-8)


def test_conjugate_gradients_solve_a_convex_quadratic_in_as_many_products_as_it_has_eigenvalues(x64):
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(20, 20)))
    A, g = basis @ np.diag(np.repeat([1.0, 3.0, 10.0, 30.0], 5)) @ basis.T, random.normal(size=20)
    d, products = direction_of(A, g)
    assert products == 4
    np.testing.assert_allclose(A @ d, -g, atol=1e-8)


def test_they_stop_at_a_direction_of_negative_curvature_with_one_that_goes_down(x64):
    for A in (np.diag([1.0, 2.0, -3.0]), -np.eye(3), np.zeros((3, 3))):
        g = np.array([1.0, 1.0, 1e-3])
        d, products = direction_of(A, g)
        assert g @ d < 0
        assert products <= 3
        assert np.linalg.norm(d) <= 2 * np.linalg.norm(g)


def test_a_point_with_gradient_0_is_left_as_it_is(x64):
    found = on_quadratic(np.eye(3), np.ones(3), np.ones(3), 100)
    assert found.steps == found.products == 0
    assert np.array_equal(found.u, np.ones(3))


def test_a_whole_gradient_step_is_where_it_begins_if_that_is_lower(x64):
    """With A = I it is the minimum."""
    found = on_quadratic(np.eye(3), np.ones(3), np.zeros(3), 100)
    assert found.steps == 0
    assert np.array_equal(found.u, np.ones(3))


def test_it_leaves_a_saddles_neighbourhood_and_what_is_not_finite_is_not_entered(x64):
    """f = (1 − u²)²/4 + v²/2 + barrier: minima at u = ±1, a saddle at 0; NaN beyond u = 1.5."""

    def evaluate(u):
        value = (1 - u[0] ** 2) ** 2 / 4 + u[1] ** 2 / 2
        gradient = jnp.stack([u[0] ** 3 - u[0], u[1]])
        return jnp.where(u[0] > 1.5, jnp.nan, value), gradient

    def product(u, v):
        return jnp.stack([(3 * u[0] ** 2 - 1) * v[0], v[1]])

    found = jax.jit(partial(minimise, evaluate, product, goal=1e-10, scale=1.0, steps=100))(np.array([1e-3, 2.0]))
    np.testing.assert_allclose(found.u, [1.0, 0.0], atol=1e-9)


def test_a_function_without_a_minimum_is_reported_by_its_gradient(x64):
    found = on_quadratic(-np.eye(3), np.zeros(3), np.ones(3), 5)
    assert found.steps == 5
    assert np.linalg.norm(found.gradient) > 1


# -- refusals --------------------------------------------------------------------------------------------------


def replaced(i, activation):
    return changed(i, changed(0, activation=fnn.Tanh()), activation=activation)


KINK = ("continuous σ'", "no residual goes to 0", r"Softplus\(\)", "layerwise")


@table(
    {
        "a ReLU": ({"params": replaced(0, fnn.ReLU())}, ValueError, r"^params\[0\].activation: .*got ReLU", *KINK),
        "a kinked output": ({"params": replaced(1, fnn.LeakyReLU())}, ValueError, r"^params\[1\].*LeakyReLU", *KINK),
        "a threshold": ({"params": replaced(0, fnn.Threshold())}, ValueError, r"^params\[0\].*Threshold", *KINK),
        "a sign": ({"params": replaced(0, fnn.Sign())}, ValueError, r"^params\[0\].*Sign", *KINK),
        "a ramp": (
            {"params": replaced(0, fnn.PiecewiseLinear.continuous(-1, 1))},
            ValueError, r"^params\[0\].*PiecewiseLinear", *KINK,
        ),
        "fixed statistics": (
            {"params": tuple(replace(v, norm=v.norm and replace(v.norm, gradient="fixed")) for v in NORMED)},
            ValueError, r"^params\[0\].norm: .*'fixed'.*not give the gradient", "batch_norm='full'",
        ),
        "no rate": ({"learning_rate": 0.0}, ValueError, "^learning_rate: expected a finite number > 0"),
        "a row of rates": ({"learning_rate": jnp.ones(2)}, TypeError, "^learning_rate: expected a number > 0"),
        "no steps": ({"steps": 0}, ValueError, "^steps: expected at least 1"),
        "half a step": ({"steps": 0.5}, TypeError, "^steps: expected an integer"),
        "no tolerance": ({"tolerance": 0}, ValueError, "^tolerance: expected a finite number > 0"),
        "a loss's class": ({"loss": fnn.SquaredError}, TypeError, "^loss: expected a loss such as"),
        "another reduction": ({"reduction": "max"}, ValueError, "^reduction: expected 'mean' or 'sum', got 'max'"),
        "targets of another shape": ({"y": jnp.zeros((5, 3))}, ValueError, "^y: expected shape"),
        "pixels": ({"x": X.astype("uint8")}, TypeError, "^x: expected float32"),
    }
)  # fmt: skip
def test_what_it_cannot_do_is_refused(given, error, fragments):
    arguments = {"params": replaced(0, fnn.Tanh()), "x": X, "y": Y, "learning_rate": 0.1, "loss": SQUARED}
    assert_refused(lambda: step(**arguments | given), error, fragments)
