"""Layer-wise implicit back-propagation: every unit's step is the global minimum of its own proximal problem."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import NORMED, assert_refused, table
from fnn.implicit.generalized import generalized_linear
from fnn.implicit.layerwise import layerwise
from fnn.implicit.units import unit_step
from implicit_cases import assert_second_order, length

SOFTMAX, SQUARED = fnn.SoftmaxCrossEntropy(), fnn.SquaredError()
ACTIVATIONS = (fnn.Identity(), fnn.ReLU(), fnn.Sigmoid(), fnn.Sigmoid(beta=2.5), fnn.Tanh())
one_of_each = pytest.mark.parametrize("activation", [fnn.ReLU(), fnn.Tanh()], ids=repr)  # closed form, and solved
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)

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


@pytest.mark.parametrize("steps", [4, 8])
@every_activation
def test_a_units_step_is_as_low_as_a_global_search_finds(activation, steps, x64, request):
    u, kappa = instances(activation)
    s, eta = np.full_like(u, 50.0), 0.3
    alpha = unit_step(
        activation, jnp.asarray(u), jnp.asarray(kappa / (eta * s)), jnp.asarray(eta), jnp.asarray(s), steps
    )
    ours = objective(activation, u + s * np.asarray(alpha), u, kappa)[:, 0]
    least, start = search(activation, u, kappa), objective(activation, u, u, kappa)[:, 0]
    rounding = 1e-13 * (np.abs(kappa) + u * u + np.abs(kappa * u))[:, 0]
    lost = (ours - least - rounding) / np.maximum(start - least, 1e-300)
    print(f"{request.node.callspec.id}: lost at most {lost.max():.1e} of the decrease")
    worst = int(lost.argmax())
    allowed = 1e-4 if steps == 4 else 1e-9
    assert lost[worst] <= allowed, f"{lost[worst]:.1e} at u = {u[worst]}, κ = {kappa[worst]}, seed 0"


@every_activation
def test_a_units_step_is_where_its_own_gradient_says_so(activation, x64):
    """α = −ηb σ'(z) at z = u + sα; for ReLU only off the kink."""
    u, kappa = instances(activation, seed=1)
    s, eta = np.full_like(u, 50.0), 0.3
    b = kappa / (eta * s)
    alpha = unit_step(activation, *map(jnp.asarray, (u, b, eta, s)), 30)
    z = u + s * alpha
    slope = activation.derivative(z, activation.value(z))
    error = np.abs(alpha + eta * b * slope) / (1 + np.abs(u) / s + np.abs(eta * b))
    off = np.abs(np.asarray(z)) > 1e-12 * np.abs(u)
    assert off.mean() > 0.5
    assert error[off if isinstance(activation, fnn.ReLU) else ...].max() <= 1e-12


def problem(activation, output=None, dtype="float64", batch=6, seed=0):
    random = np.random.default_rng(seed)
    params = fnn.init(
        jax.random.key(seed), (5, 4, 6, 3), activation=activation, output=output or fnn.Identity(), dtype=dtype
    )
    params = tuple(replace(layer, b=jnp.asarray(random.normal(size=layer.b.shape) / 2, dtype)) for layer in params)
    return params, jnp.asarray(random.normal(size=(batch, 5)), dtype), jnp.asarray(random.integers(0, 3, batch))


@pytest.mark.parametrize("output", ["proximal", pytest.param("linear", marks=pytest.mark.slow)])
@every_activation
def test_as_the_rate_goes_to_0_it_becomes_explicit_sgd_with_an_error_of_second_order(activation, output, x64):
    params, x, y = problem(activation)
    step = partial(layerwise, params, x, y, loss=SOFTMAX, output=output)
    if isinstance(activation, (fnn.ReLU, fnn.Identity)) and output == "linear":  # then the two are equal
        new, gradients = step(1e-4), fnn.backprop(params, x, y, loss=SOFTMAX)
        explicit = jax.tree.map(lambda v, g: v - 1e-4 * g, params, gradients)
        assert float(length(jax.tree.map(lambda v, w: v - w, new, explicit))) <= 1e-14
    else:
        assert_second_order(step, params, x, y, SOFTMAX)


@pytest.mark.parametrize("loss", [SQUARED, fnn.SigmoidCrossEntropy(), fnn.Poisson()], ids=repr)
def test_so_it_does_with_every_loss_that_has_a_proximal_step(loss, x64):
    params, x, _ = problem(fnn.Tanh())
    y = jnp.full((6, 3), 0.3)
    assert_second_order(partial(layerwise, params, x, y, loss=loss), params, x, y, loss)


@one_of_each
def test_a_batch_is_the_mean_of_its_examples_own_steps(activation, x64):
    params, x, y = problem(activation)
    batch = layerwise(params, x, y, 30.0, loss=SOFTMAX)
    own = jax.jit(jax.vmap(lambda x, y: layerwise(params, x, y, 30.0, loss=SOFTMAX)))(x, y)
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), own)
    assert float(length(jax.tree.map(lambda v, w: v - w, batch, mean))) <= 1e-12 * float(length(mean))


@pytest.mark.parametrize("loss", [SOFTMAX, fnn.SigmoidCrossEntropy()])
def test_the_last_layers_proximal_step_is_the_generalized_linear_one_on_its_inputs(loss, x64):
    params, x, y = problem(fnn.Tanh())
    hidden = fnn.trace(params, x)[-1].a_in
    expected = generalized_linear(params[-1:], hidden, y, 7.0, loss=loss)
    for ours, theirs in zip(jax.tree.leaves(layerwise(params, x, y, 7.0, loss=loss)[-1]), jax.tree.leaves(expected)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_the_last_layers_squared_error_step_is_the_linear_one_on_its_input(x64):
    params, x, _ = problem(fnn.Tanh(), batch=1)
    loss, y = fnn.SquaredError(0.8), jnp.ones((1, 3))
    expected = fnn.implicit.linear(params[-1:], fnn.trace(params, x)[-1].a_in, y, 7.0, loss=loss)
    for ours, theirs in zip(jax.tree.leaves(layerwise(params, x, y, 7.0, loss=loss)[-1]), jax.tree.leaves(expected)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@one_of_each
def test_a_hidden_layers_step_uses_the_gradient_of_its_outputs(activation, x64):
    """Equation (2a) by autodiff: ∂L/∂a of the hidden layer, from the layers behind it."""
    params, x, y = problem(activation)
    first = fnn.trace(params, x)[0]
    b = jax.grad(lambda a: SOFTMAX.value(fnn.forward(params[1:], a), y).sum())(first.a)
    s = 1 + jnp.sum(x * x, axis=1, keepdims=True)
    alpha = unit_step(activation, first.z, b, jnp.asarray(3.0), s, 4)
    new = layerwise(params, x, y, 3.0, loss=SOFTMAX)[0]
    np.testing.assert_allclose(new.W, params[0].W + alpha.T @ x / 6, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(new.b, params[0].b + alpha.mean(axis=0), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [fnn.Tanh()], ids=repr)
def test_float32_is_finite_and_close_to_float64_at_every_rate(activation):
    params, x, y = problem(activation, dtype="float32")
    rates = jnp.logspace(-8, 8, 17)
    many = jax.jit(
        jax.vmap(lambda params, x, y, rate: layerwise(params, x, y, rate, loss=SOFTMAX), (None, None, None, 0))
    )
    single = many(params, x, y, rates)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: v.astype("float64"), (params, x))
        double = many(*wide, y, rates.astype("float64"))
        for ours, theirs in zip(jax.tree.leaves(single), jax.tree.leaves(double)):
            error = np.abs(np.asarray(ours, "float64") - np.asarray(theirs)).reshape(17, -1).max(axis=1)
            size = 1 + np.abs(np.asarray(theirs)).reshape(17, -1).max(axis=1)
            assert np.isfinite(ours).all()
            assert (error <= 1e-4 * size).all()


@pytest.mark.parametrize("activation", [fnn.Tanh()], ids=repr)
def test_a_huge_rate_cannot_throw_a_saturating_network_away_and_explicit_sgd_can(activation):
    params, x, y = problem(activation, dtype="float32")
    implicit = explicit = params
    for _ in range(5):
        implicit = layerwise(implicit, x, y, 1e4, loss=SOFTMAX)
        gradients = fnn.backprop(explicit, x, y, loss=SOFTMAX)
        explicit = jax.tree.map(lambda v, g: v - 1e4 * g, explicit, gradients)
    assert float(length(implicit)) < 100 < 1000 < float(length(explicit))


def test_a_compiled_loop_takes_steps_with_a_traced_rate():
    params, x, y = problem(fnn.Tanh(), dtype="float32")

    @jax.jit
    def train(params, rates):
        return jax.lax.scan(lambda p, rate: (layerwise(p, x, y, rate, loss=SOFTMAX), None), params, rates)[0]

    before, after = (SOFTMAX.value(fnn.forward(p, x), y).mean() for p in (params, train(params, jnp.full(200, 1.0))))
    assert after < 0.5 * before


OTHER = "activation: expected Identity or ReLU or Sigmoid or Tanh"


@table(
    {
        "another activation": ({"hidden": fnn.GELU()}, ValueError, rf"^params\[0\].{OTHER}", "got GELU", "write fnn"),
        "a batch norm": ({"params": NORMED}, ValueError, r"^params\[0\].norm: .*batch norm", "ties", "without"),
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
    hidden, last = given.pop("hidden", fnn.Tanh()), given.pop("last", fnn.Identity())
    params = fnn.init(jax.random.key(0), (3, 4, 2), activation=hidden, output=last)
    arguments = {"params": params, "x": jnp.ones((5, 3)), "y": jnp.zeros(5, int), "learning_rate": 0.1, "loss": SOFTMAX}
    assert_refused(lambda: layerwise(**arguments | given), error, fragments)


def test_any_loss_and_soft_targets_are_taken_with_a_linear_output():
    params = fnn.init(jax.random.key(0), (3, 4, 2), output=fnn.Sigmoid())
    for loss in (fnn.Huber(), fnn.CrossEntropy(), SOFTMAX):
        new = layerwise(params, jnp.ones((5, 3)), jnp.full((5, 2), 0.5), 0.1, loss=loss, output="linear")
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(new))
