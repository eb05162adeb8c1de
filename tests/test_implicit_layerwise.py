"""Layer-wise implicit back-propagation: every unit's step is the global minimum of its own proximal problem."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import NORMED, assert_refused, changed, table
from fnn.implicit.generalized import generalized_linear
from fnn.implicit.layerwise import layerwise
from fnn.implicit.units import unit_step
from implicit_cases import assert_second_order, distance, explicit, leaves, size
from problems import and_slow, problem

SOFTMAX, SQUARED = fnn.SoftmaxCrossEntropy(), fnn.SquaredError(0.8)
RELU, STEEP, TANH = fnn.ReLU(), fnn.Sigmoid(beta=2.5), fnn.Tanh()  # a closed form, an equation, and that of another's


def activations(*default):
    """Which activations are in every run; the others are in the slow one."""
    every = (fnn.Identity(), RELU, fnn.Sigmoid(), STEEP, TANH)
    return pytest.mark.parametrize("activation", and_slow(default, every), ids=repr)


VALUES = {  # in NumPy, so that the search below shares nothing with what it judges
    "Identity": lambda z, beta: z,
    "ReLU": lambda z, beta: np.maximum(z, 0),
    "Sigmoid": lambda z, beta: 0.5 + 0.5 * np.tanh(beta * z / 2),
    "Tanh": lambda z, beta: np.tanh(z),
}


def objective(activation, z, u, kappa):
    return kappa * VALUES[type(activation).__name__](z, getattr(activation, "beta", 1)) + 0.5 * (z - u) ** 2


def search(activation, u, kappa):
    """The least of κσ(z) + ½(z − u)² by a dense grid, refined around its ten best points; |z − u| ≤ |κ| max σ'."""
    reach = np.abs(kappa) * {"Sigmoid": getattr(activation, "beta", 1) / 4}.get(type(activation).__name__, 1)
    grid = np.linspace(-1, 1, 4001)
    across = np.concatenate([u + reach * grid, np.clip(30 * grid + 0 * u, u - reach, u + reach)], axis=1)  # and near 0
    values = objective(activation, across, u, kappa)
    best = np.take_along_axis(across, np.argpartition(values, 10, axis=1)[:, :10], axis=1)
    width = np.maximum(reach / 2000, 30 / 2000)
    for _ in range(12):
        near = (best[:, :, None] + (width * np.linspace(-1, 1, 21))[:, None, :]).reshape(len(u), -1)
        values = objective(activation, near, u, kappa)
        best = np.take_along_axis(near, np.argpartition(values, 10, axis=1)[:, :10], axis=1)
        width = width / 5
    return values.min(axis=1)


def instances(activation, number=1800, seed=0):
    """(u, κ) in thirds: any, κ from 1e-3 to 1e5; where a sigmoid has two minima; and around its triple root at 6√3."""
    random = np.random.default_rng(seed)
    third = number // 3
    u = random.normal(size=third) * 10 ** random.uniform(-2, 2, third)
    two = random.uniform(8, 40, third)
    slope, unit = {fnn.Sigmoid(2.5): (2.5, 2.5**2), fnn.Tanh(): (2, 8)}.get(
        activation, (1, 1)
    )  # κ of a sigmoid's is κ/unit
    jump = np.sqrt(2 * two) + random.normal(size=third)
    u = np.concatenate([u, jump / slope, random.uniform(2, 6, third) / slope])
    kappa = np.concatenate([10 ** random.uniform(-3, 5, third), two / unit, random.uniform(8, 14, third) / unit])
    sign = random.choice([-1, 1], number)
    return (sign * u)[:, None], (sign * kappa)[:, None]


@partial(jax.jit, static_argnums=0)
def alphas(activation, u, b, eta, s, steps):
    return unit_step(activation, u, b, eta, s, steps)


@activations(RELU, STEEP, TANH)
def test_a_units_step_is_as_low_as_a_global_search_finds(activation, x64, request):
    u, kappa = instances(activation)
    s, eta = np.full_like(u, 50.0), 0.3
    least, start = search(activation, u, kappa), objective(activation, u, u, kappa)[:, 0]
    rounding = 1e-13 * (np.abs(kappa) + u * u + np.abs(kappa * u))[:, 0]
    for steps, allowed in ((4, 1e-4), (8, 1e-9)):
        alpha = alphas(activation, u, kappa / (eta * s), eta, s, steps)
        ours = objective(activation, u + s * np.asarray(alpha), u, kappa)[:, 0]
        lost = (ours - least - rounding) / np.maximum(start - least, 1e-300)
        print(f"{activation}, {steps} steps: lost at most {lost.max():.1e} of the decrease")
        worst = int(lost.argmax())
        assert lost[worst] <= allowed, f"{lost[worst]:.1e} at u = {u[worst]}, κ = {kappa[worst]}, seed 0"


@activations(fnn.Identity(), RELU, STEEP, TANH)
def test_a_units_step_is_where_its_own_gradient_says_so(activation, x64):
    """α = −ηb σ'(z) at z = u + sα; for ReLU only off the kink."""
    u, kappa = instances(activation, seed=1)
    s, eta = np.full_like(u, 50.0), 0.3
    b = kappa / (eta * s)
    alpha = np.asarray(alphas(activation, u, b, eta, s, 30))
    z = u + s * alpha
    slope = np.asarray(jax.jit(lambda z: activation.derivative(z, activation.value(z)))(z))
    error = np.abs(alpha + eta * b * slope) / (1 + np.abs(u) / s + np.abs(eta * b))
    off = np.abs(z) > 1e-12 * np.abs(u)
    assert off.mean() > 0.5
    assert error[off if activation == RELU else ...].max() <= 1e-12


def network(activation, dtype="float64"):
    """A network of three layers with x and labels."""
    return problem(activation, SOFTMAX, 3, output=fnn.Identity(), batch=6, dtype=dtype, labels=True)[:3]


@pytest.mark.parametrize(
    "case",
    and_slow(
        [(RELU, "proximal"), (TANH, "proximal")],
        [(STEEP, "proximal"), (fnn.Identity(), "proximal"), (RELU, "linear"), (TANH, "linear")],
    ),
    ids=str,
)
def test_as_the_rate_goes_to_0_it_becomes_explicit_sgd_with_an_error_of_second_order(case, x64):
    activation, output = case
    params, x, y = network(activation)
    step = partial(layerwise, params, x, y, loss=SOFTMAX, output=output)
    if case == (RELU, "linear"):  # then the two are equal
        assert distance(step(1e-4), explicit(params, x, y, 1e-4, SOFTMAX)) <= 1e-14
    else:
        assert_second_order(step, params, x, y, SOFTMAX)


@pytest.mark.parametrize("loss", and_slow([SQUARED], [fnn.SigmoidCrossEntropy(), fnn.Poisson()]), ids=repr)
def test_so_it_does_with_every_loss_that_has_a_proximal_step(loss, x64):
    params, x, _ = network(TANH)
    y = jnp.asarray(np.full((6, 3), 0.3))
    assert_second_order(partial(layerwise, params, x, y, loss=loss), params, x, y, loss)


@pytest.mark.parametrize("activation", and_slow([TANH], [RELU]), ids=repr)
def test_a_batch_is_the_mean_of_its_examples_own_steps(activation, x64):
    params, x, y = network(activation)
    own = [layerwise(params, *map(jnp.asarray, one), 30.0, loss=SOFTMAX) for one in zip(np.asarray(x), np.asarray(y))]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *own)
    assert distance(layerwise(params, x, y, 30.0, loss=SOFTMAX), mean) <= 1e-12 * size(mean)


@pytest.mark.parametrize("loss", and_slow([SOFTMAX], [fnn.SigmoidCrossEntropy()]), ids=repr)
def test_the_last_layers_proximal_step_is_the_generalized_linear_one_on_its_inputs(loss, x64):
    params, x, y = network(TANH)
    expected = generalized_linear(params[-1:], fnn.trace(params, x)[-1].a_in, y, 7.0, loss=loss)
    for ours, theirs in zip(jax.tree.leaves(layerwise(params, x, y, 7.0, loss=loss)[-1]), jax.tree.leaves(expected)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_the_last_layers_squared_error_step_is_the_linear_one_on_its_input(x64):
    """On one example, given six times here, because layerwise averages the examples' own steps."""
    params, x, _ = network(TANH)
    x, y = jnp.asarray(np.tile(x[0], (6, 1))), jnp.asarray(np.ones((6, 3)))
    inputs = np.asarray(fnn.trace(params, x)[-1].a_in)
    expected = fnn.implicit.linear(params[-1:], jnp.asarray(inputs[0]), jnp.asarray(np.ones(3)), 7.0, loss=SQUARED)
    ours = layerwise(params, x, y, 7.0, loss=SQUARED)[-1:]
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected)):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("activation", and_slow([TANH], [RELU]), ids=repr)
def test_a_hidden_layers_step_uses_the_gradient_of_its_outputs(activation, x64):
    """Equation (2a) by autodiff: ∂L/∂a of the hidden layer, from the layers behind it."""
    params, x, y = network(activation)
    first = fnn.trace(params, x)[0]
    b = jax.jit(jax.grad(lambda a: SOFTMAX.value(fnn.forward(params[1:], a), y).sum()))(first.a)
    s = 1 + np.sum(np.square(x), axis=1, keepdims=True)
    alpha = np.asarray(alphas(activation, first.z, b, 3.0, s, 4))
    new = layerwise(params, x, y, 3.0, loss=SOFTMAX)[0]
    np.testing.assert_allclose(new.W, params[0].W + alpha.T @ np.asarray(x) / 6, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(new.b, params[0].b + alpha.mean(axis=0), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_float32_is_finite_and_close_to_float64_at_every_rate():
    params, x, y = network(TANH, "float32")
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda v: jnp.asarray(np.float64(v)), (params, x))
    for rate in np.logspace(-8, 8, 17):
        single = layerwise(params, x, y, rate, loss=SOFTMAX)
        with jax.enable_x64(True):
            double = layerwise(*exact, y, rate, loss=SOFTMAX)
        for ours, theirs in zip(leaves(single), leaves(double)):
            assert np.isfinite(ours).all()
            assert np.abs(ours - theirs).max() <= 1e-4 * (1 + np.abs(theirs).max())


def test_a_huge_rate_cannot_throw_a_saturating_network_away_and_explicit_sgd_can(x64):
    params, x, y = network(TANH)
    ours = theirs = params
    for _ in range(5):
        ours = layerwise(ours, x, y, 1e4, loss=SOFTMAX)
        theirs = explicit(theirs, x, y, 1e4, SOFTMAX)
    assert size(ours) < 100 < 1000 < size(theirs)


def test_a_compiled_loop_takes_steps_with_a_traced_rate():
    params, x, y = network(TANH, "float32")

    @jax.jit
    def costs(params, rates):
        def step(p, rate):
            return layerwise(p, x, y, rate, loss=SOFTMAX), SOFTMAX.value(fnn.forward(p, x), y).mean()

        return jax.lax.scan(step, params, rates)[1]

    before, *_, after = costs(params, np.ones(200, "float32")).tolist()
    assert after < 0.5 * before


OTHER = "activation: expected Identity or ReLU or Sigmoid or Tanh"


@table(
    {
        "another activation": ({"hidden": fnn.GELU()}, ValueError, rf"^params\[0\].{OTHER}", "got GELU", "write fnn"),
        "a batch norm": ({"params": NORMED}, ValueError, r"^params\[0\].norm: .*batch norm", "couples", "without"),
        "a softmax output": ({"last": fnn.Softmax()}, ValueError, rf"^params\[1\].{OTHER}", "Softmax"),
        "proximal behind tanh": ({"last": fnn.Tanh()}, ValueError, "^output: .*Identity", "write output='linear'"),
        "proximal Huber": ({"loss": fnn.Huber(), "y": jnp.zeros((5, 2))}, ValueError, "^output: .*Huber", "'linear'"),
        "soft targets": ({"y": jnp.full((5, 2), 0.5)}, ValueError, "^y: .*soft targets", "output='linear'"),
        "another output": ({"output": "exact"}, ValueError, "^output: expected 'proximal' or 'linear', got 'exact'"),
        "no steps": ({"steps": 0}, ValueError, "^steps: expected at least 1"),
        "a rate of infinity": ({"learning_rate": float("inf")}, ValueError, "^learning_rate: expected a finite"),
        "labels of another shape": ({"y": jnp.zeros(4, int)}, ValueError, "^y: expected labels of shape"),
    }
)
def test_what_it_cannot_do_is_refused(given, error, fragments):
    given = dict(given)
    params = changed(1, changed(0, activation=given.pop("hidden", TANH)), activation=given.pop("last", fnn.Identity()))
    arguments = {"params": params, "x": jnp.ones((5, 3)), "y": jnp.zeros(5, int), "learning_rate": 0.1, "loss": SOFTMAX}
    assert_refused(lambda: layerwise(**arguments | given), error, fragments)


def test_any_loss_and_soft_targets_are_taken_with_a_linear_output():
    params = changed(1, changed(0, activation=RELU), activation=fnn.Sigmoid())

    def new(loss):
        return layerwise(params, jnp.ones((5, 3)), jnp.full((5, 2), 0.5), 0.1, loss=loss, output="linear")

    for loss in (fnn.Huber(), SOFTMAX):
        assert jax.tree.structure(jax.eval_shape(partial(new, loss))) == jax.tree.structure(params)
    assert np.isfinite(size(new(fnn.CrossEntropy())))
