"""Gradient descent on functions that can be drawn: what the documents say of it, and where that needs a condition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import assert_refused, table
from experiments.descent import cubic, square, wavy
from fnn.updates import momentum, nesterov, sgd
from problems import problem

SADDLE, MINIMUM = np.zeros(2), np.array([-9 / 16, 3 / 4])


def descend(*args, **options):
    """The path in NumPy, where to take a point out compiles nothing."""
    return jax.tree.map(np.asarray, fnn.updates.descend(*args, **options))


# -- H1: by the sign of the derivative -------------------------------------------------------------------------


def by_sign(x):
    return x * x, jnp.sign(2 * x)


def test_h1_a_fixed_step_against_the_sign_goes_down_only_while_it_is_small(x64):
    """For x², f(x₁) < f(x₀) needs ε < 2|x₀|: printed without the condition, an erratum."""
    for epsilon, lower in ((0.1, True), (0.59, True), (0.61, False), (1.0, False)):
        before, after = descend(by_sign, 0.3, epsilon, 1).values
        assert (after < before) == lower


def test_h1_the_second_case_must_be_a_negative_derivative(x64):
    """Read as printed, "if f'(x₀) > 0 … x₁ = x₀ + ε", it climbs; where f' < 0, as meant, x₀ + ε goes down."""
    assert square(0.5 + 0.1)[0] > square(0.5)[0]
    assert square(-0.5 + 0.1)[0] < square(-0.5)[0]


def test_h1_with_a_fixed_step_it_ends_hopping_to_and_fro_within_a_step_of_the_minimum(x64):
    points = descend(by_sign, 0.95, 0.2, 40).points
    np.testing.assert_allclose(np.abs(points[-2:]).sum(), 0.2)
    np.testing.assert_allclose(points[-1], points[-3])


# -- H2, H3, B2: x² --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.001, 0.25, 0.5, 0.9, 1.0, 1.1])
def test_h3_on_x_squared_is_the_geometric_sequence(epsilon, x64):
    points, values = descend(square, 3.0, epsilon, 30)
    np.testing.assert_allclose(points, 3 * (1 - 2 * epsilon) ** np.arange(31), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(values, points**2)


def test_b2_too_long_a_step_overshoots_and_too_short_a_one_crawls(x64):
    crawling, good, overshooting, climbing = (descend(square, 3.0, eta, 30) for eta in (0.001, 0.4, 0.9, 1.1))
    assert crawling.values[-1] > 0.8 * crawling.values[0]
    assert good.values[-1] < 1e-40
    assert np.all(np.sign(overshooting.points[1:]) == -np.sign(overshooting.points[:-1]))
    assert overshooting.values[-1] < 1e-4
    assert np.all(np.diff(climbing.values) > 0)


VALUES = jax.jit(jax.vmap(lambda point: cubic(point)[0]))


@pytest.mark.parametrize("point", [(0.5, 0.5), (-1.0, 2.0), (0.3, -0.2)])
def test_b2_of_all_directions_the_negative_gradient_goes_down_most_steeply(point, x64):
    """And L11's "in which direction C decreases most quickly" is an erratum: along +∇C it increases most."""
    angles = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    value, gradient = cubic(np.array(point))
    change = np.asarray(VALUES(point + 1e-6 * directions)) - value
    uphill = gradient / np.linalg.norm(gradient)
    np.testing.assert_allclose(directions[change.argmin()], -uphill, atol=2e-3)
    np.testing.assert_allclose(directions[change.argmax()], uphill, atol=2e-3)


# -- B1, B10: a saddle and a basin -----------------------------------------------------------------------------


def test_b1_the_printed_gradient_is_autodiffs_and_vanishes_at_a_saddle_and_a_minimum(x64):
    points = np.random.default_rng(0).normal(size=(20, 2))
    gradient, autodiff = jax.jit(jax.vmap(lambda p: (cubic(p)[1], jax.grad(lambda p: cubic(p)[0])(p))))(points)
    np.testing.assert_allclose(gradient, autodiff, rtol=1e-13)
    curvature = jax.jit(jax.jacfwd(lambda p: cubic(p)[1]))
    for point, signs in ((SADDLE, [-1, 1]), (MINIMUM, [1, 1])):
        np.testing.assert_allclose(cubic(point)[1], [0, 0], atol=1e-15)
        np.testing.assert_array_equal(np.sign(np.linalg.eigvalsh(curvature(point))), signs)


def test_b1_descent_finds_the_minimum_from_inside_its_basin_and_falls_for_ever_from_outside(x64):
    for start in ((0.5, 0.5), (-2.0, 1.0), (1.0, 2.0)):
        np.testing.assert_allclose(descend(cubic, np.array(start), 0.1, 300).points[-1], MINIMUM, atol=1e-9)
    lost = descend(cubic, np.array([0.5, -0.8]), 0.1, 300)
    assert not np.isfinite(lost.values[-1])
    assert np.nanmin(lost.values) < -1e6 < cubic(MINIMUM)[0]


def test_b10_a_zero_gradient_is_not_always_a_minimum(x64):
    """Descent stays for ever on the saddle, where some directions go down; a nudge to either side leaves it."""
    np.testing.assert_array_equal(descend(cubic, SADDLE, 0.1, 100).points[-1], SADDLE)
    downhill, uphill = np.array([[-3.0, 2 + np.sqrt(13)], [3.0, np.sqrt(13) - 2]])  # the curvature's two directions
    assert cubic(SADDLE + 0.01 * downhill)[0] < cubic(SADDLE)[0] < cubic(SADDLE + 0.01 * uphill)[0]
    np.testing.assert_allclose(descend(cubic, 1e-6 * downhill, 0.1, 500).points[-1], MINIMUM, atol=1e-9)
    assert not np.isfinite(descend(cubic, -1e-6 * downhill, 0.1, 500).values[-1])


# -- B3: networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.1, 0.0001])
def test_b3_every_layer_moves_by_its_gradient_and_every_bias_by_its_delta(alpha, x64):
    p = problem(fnn.Sigmoid(), fnn.SquaredError(), depth=2, batch=None, dtype="float64")
    path = descend(lambda params: fnn.value_and_backprop(params, p.x, p.y), p.params, alpha, 2)
    here = jax.tree.map(np.asarray, (p.params, fnn.trace(p.params, p.x), fnn.deltas(p.params, p.x, p.y)))
    for layer, t, delta, moved in zip(*here, path.points):
        np.testing.assert_allclose(moved.W[1], layer.W - alpha * np.outer(delta, t.a_in), rtol=1e-13)
        np.testing.assert_allclose(moved.b[1], layer.b - alpha * delta, rtol=1e-13)
    assert np.all(np.diff(path.values) < 0)


# -- E5: local minima ------------------------------------------------------------------------------------------


def ends(rule, x0):
    return float(descend(wavy, x0, 0.1, 400, rule=rule).points[-1])


def test_e5_momentum_leaves_a_local_minimum_where_plain_descent_stays(x64):
    assert ends(sgd, 4.0) == pytest.approx(3.38, abs=0.01)
    assert ends(momentum, 4.0) == pytest.approx(-0.49, abs=0.01)
    assert ends(nesterov, 4.0) == pytest.approx(1.46, abs=0.01)


def test_e5_momentum_promises_nothing(x64):
    """From 3 it stays in the first valley too, and from −5 it runs through the lowest into the next."""
    assert ends(momentum, 3.0) == pytest.approx(3.38, abs=0.01)
    assert ends(momentum, -5.0) == pytest.approx(1.46, abs=0.01)


# -- descend itself --------------------------------------------------------------------------------------------


def test_the_path_has_the_start_the_end_and_the_structure_of_x0():
    def f(point):
        x, y = point["x"], point["y"]
        return jnp.sum(x * x) + y * y, {"x": 2 * x, "y": 2 * y}

    path = descend(f, {"x": np.ones((2, 3), "float32"), "y": 1.0}, 0.25, 4)
    assert path.points["x"].shape == (5, 2, 3)
    np.testing.assert_allclose(path.points["y"], [1, 0.5, 0.25, 0.125, 0.0625])
    np.testing.assert_allclose(path.values, 7 * path.points["y"] ** 2)


def test_any_optax_rule_a_schedule_and_autodiffs_gradient_will_do():
    for rate in (0.1, optax.cosine_decay_schedule(0.1, 50)):
        values = descend(jax.value_and_grad(jnp.cosh), 2.0, rate, 50, rule=optax.adam).values
        assert values[-1] < 0.5 * values[0]


def test_one_program_for_many_starts_and_rates_by_vmap():
    starts, rates = np.array([[1.0, 2.0], [0.1, 0.4]], "float32")
    many = jax.vmap(lambda x0, rate: fnn.updates.descend(square, x0, rate, 10))(starts, rates)
    for i in range(2):
        np.testing.assert_allclose(
            np.asarray(many.points)[i], starts[i] * (1 - 2 * rates[i]) ** np.arange(11), rtol=1e-5
        )


def test_bfloat16_stays_bfloat16():
    assert descend(square, np.asarray(1, jnp.bfloat16), 0.1, 3, rule=momentum).points.dtype == "bfloat16"


@table(
    {
        "f is a value": ({"f": 3.0}, TypeError, "^f: expected a function", "got 3.0", "value_and_grad"),
        "f without a gradient": (
            {"f": lambda x: x * x},
            TypeError,
            "^f: expected .*gradient",
            "float32",
            "value_and_g",
        ),
        "a value that is no scalar": ({"f": lambda x: (x[None], x)}, ValueError, "^f: expected a scalar", r"\(1,\)"),
        "another shape": (
            {"f": lambda x: (x, x[None])},
            ValueError,
            r"^f\(x\)\[1\], the gradient: expected",
            r"\(1,\)",
        ),
        "another structure": ({"f": lambda x: (x, (x, x))}, ValueError, "^f: expected a gradient that is a PyTreeDef"),
        "an integer start": ({"x0": 3}, TypeError, "^x0: expected floating", "got int 3", "float32"),
        "integers": ({"x0": np.arange(3)}, TypeError, "^x0: expected floating", "int64"),
        "float64": ({"x0": np.ones(3)}, TypeError, "^x0: expected float32", "float64", "enable_x64"),
        "a rate of 0": ({"learning_rate": 0}, ValueError, "^learning_rate: expected .*> 0", "got 0"),
        "no steps": ({"steps": 0}, ValueError, "^steps: expected at least 1", "got 0"),
        "a rule with its rate": ({"rule": sgd(0.1)}, TypeError, "^rule: expected a function", "rule=fnn.updates.momen"),
    }
)
def test_a_bad_argument_is_refused_by_name(given, error, fragments):
    arguments = {"f": square, "x0": 1.0, "learning_rate": 0.1, "steps": 3} | given
    assert_refused(lambda: descend(**arguments), error, fragments)
