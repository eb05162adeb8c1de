"""Implicit SGD of generalised linear models is θ' = θ − η∇L(θ'), for every loss, size and rate."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import Y, assert_refused, layer, table
from fnn.implicit import scalar
from fnn.implicit.generalized import generalized_linear
from implicit_cases import assert_second_order, cases, length, residual_ratio, stepped

SIGMOID, SOFTMAX, POISSON = fnn.SigmoidCrossEntropy(), fnn.SoftmaxCrossEntropy(), fnn.Poisson()


def logistic_mean(a):
    p = jax.nn.sigmoid(a)
    return p, jnp.max(p * (1 - p))


def softmax_mean(a):
    p = jax.nn.softmax(a)
    return p, jnp.max(p * (1 - p))


def poisson_mean(a):
    return jnp.exp(a), jnp.max(jnp.exp(a))


def classes(random, shape):
    return random.integers(0, shape[-1], shape[:-1])


def zero_or_one(random, shape):
    return random.integers(0, 2, shape).astype("float64")


def fractions(random, shape):
    return random.uniform(size=shape) ** random.choice([1, 20], shape)


def counts(random, shape):
    return random.poisson(10 ** random.uniform(-1, 6, shape)).astype("float64")


KINDS = {
    "sigmoid, 0 or 1": (SIGMOID, 2, zero_or_one, logistic_mean),
    "sigmoid, fractions": (SIGMOID, 2, fractions, logistic_mean),
    "softmax, 2 classes": (SOFTMAX, 2, classes, softmax_mean),
    "softmax, 10 classes": (SOFTMAX, 10, classes, softmax_mean),
    "Poisson": (POISSON, 2, counts, poisson_mean),
}
SLOW = pytest.mark.slow  # every second kind
every_kind = pytest.mark.parametrize(
    ("loss", "n_out", "targets", "mean"),
    [pytest.param(*kind, id=name, marks=[SLOW] if i % 2 else []) for i, (name, kind) in enumerate(KINDS.items())],
)


@every_kind
def test_the_step_solves_its_equation_for_every_size_and_rate(loss, n_out, targets, mean, x64, request):
    given = cases(20_000, 4, n_out, targets)
    ratio = residual_ratio(given, stepped(partial(generalized_linear, loss=loss), given), loss, mean)
    print(f"{request.node.callspec.id}: largest residual ratio {ratio.max():.1e}")
    assert ratio.max() <= 1e-10, f"worst at case {ratio.argmax()}, seed 0: {ratio.max():.2e}"


@every_kind
def test_float32_is_finite_everywhere_and_close_to_float64(loss, n_out, targets, mean):
    single = cases(5_000, 4, n_out, targets, dtype="float32")
    ours = stepped(partial(generalized_linear, loss=loss), single)
    with jax.enable_x64(True):
        double, ours = jax.tree.map(lambda v: v.astype("float64") if v.dtype == np.float32 else v, (single, ours))
        exact = stepped(partial(generalized_linear, loss=loss), double)
        gap, moved = (
            np.asarray(jax.vmap(length)(jax.tree.map(lambda v, w: v - w, exact, other)))
            for other in (ours, double.params)
        )
        size = np.asarray(jax.vmap(length)(double.params))
    assert np.isfinite(gap).all()
    assert (gap <= 3e-5 * (size + moved)).all()  # u itself is only known to 1e-7 ‖x‖‖θ‖


@every_kind
def test_as_the_rate_goes_to_0_it_becomes_explicit_sgd_with_an_error_of_second_order(loss, n_out, targets, mean, x64):
    params, x, y, _ = jax.tree.map(lambda v: v[0], cases(1, 4, n_out, targets, seed=3, batch=5))
    x = x / jnp.max(jnp.abs(x))
    y = jnp.minimum(y, 5)
    assert_second_order(lambda rate: generalized_linear(params, x, y, rate, loss=loss), params, x, y, loss)


@every_kind
def test_a_batch_is_the_mean_of_its_examples_own_steps(loss, n_out, targets, mean, x64):
    params, x, y, eta = jax.tree.map(lambda v: v[0], cases(1, 4, n_out, targets, seed=4, batch=6))
    batch = generalized_linear(params, x, y, eta, loss=loss)
    own = jax.jit(jax.vmap(lambda x, y: generalized_linear(params, x, y, eta, loss=loss)))(x, y)
    mean_of_own = jax.tree.map(lambda leaf: leaf.mean(axis=0), own)
    assert float(length(jax.tree.map(lambda v, w: v - w, batch, mean_of_own))) <= 1e-12 * float(length(own))


@pytest.mark.parametrize("loss", [SIGMOID, SOFTMAX])
def test_labels_and_one_hot_rows_give_the_same_step(loss):
    params, x, y, _ = jax.tree.map(lambda v: v[0], cases(1, 4, 3, classes, dtype="float32", batch=6))
    by_label, by_row = (generalized_linear(params, x, t, 0.5, loss=loss) for t in (y, jax.nn.one_hot(y, 3)))
    for ours, theirs in zip(jax.tree.leaves(by_label), jax.tree.leaves(by_row)):
        np.testing.assert_array_equal(ours, theirs)


def test_one_class_has_probability_1_and_stays():
    params = layer(W=jnp.ones((1, 3)), b=jnp.zeros(1))
    new = generalized_linear(params, jnp.ones((5, 3)), jnp.ones((5, 1)), 10.0, loss=SOFTMAX)
    np.testing.assert_array_equal(new[0].W, params[0].W)


def test_wrights_omega_solves_its_equation(x64):
    x = jnp.concatenate([jnp.linspace(-700, 700, 100_001), jnp.logspace(-300, 300, 10_001)])
    log_w = scalar.log_omega(x)
    assert float(jnp.max(jnp.abs(log_w + jnp.exp(log_w) - x) / (1 + jnp.abs(x)))) <= 1e-14 * 700


def test_explicit_sgd_diverges_where_the_implicit_step_stays_near_the_target(x64):
    params, x, y = layer(W=jnp.full((2, 3), 0.1), b=jnp.zeros(2)), jnp.full((1, 3), 100.0), jnp.array([[3.0, 0.0]])
    implicit = generalized_linear(params, x, y, 1e6, loss=POISSON)
    explicit = jax.tree.map(lambda v, g: v - 1e6 * g, params, fnn.backprop(params, x, y, loss=POISSON))
    assert jnp.exp(fnn.forward(implicit, x))[0, 0] == pytest.approx(3, rel=1e-6)
    assert not 1e-6 < float(jnp.exp(fnn.forward(explicit, x))[0, 0]) < 1e6


def test_a_compiled_loop_takes_steps_with_a_rate_of_its_own():
    params = layer()

    @jax.jit
    def train(params, rates):
        def step(p, rate):
            return generalized_linear(p, jnp.ones((5, 3)), jnp.zeros(5, int), rate, loss=SOFTMAX), None

        return jax.lax.scan(step, params, rates)[0]

    new = train(params, jnp.array([0.1, 1.0, 10.0]))
    one_by_one = params
    for rate in (0.1, 1.0, 10.0):
        one_by_one = generalized_linear(one_by_one, jnp.ones((5, 3)), jnp.zeros(5, int), rate, loss=SOFTMAX)
    np.testing.assert_allclose(new[0].W, one_by_one[0].W, rtol=1e-6)


def test_traced_targets_without_an_equation_give_nan_not_a_wrong_step():
    step = jax.jit(partial(generalized_linear, loss=SOFTMAX), static_argnums=3)
    assert jnp.isnan(step(layer(), jnp.ones((5, 3)), jnp.full((5, 2), 0.5), 0.1)[0].W).all()
    step = jax.jit(partial(generalized_linear, loss=SIGMOID), static_argnums=3)
    assert jnp.isnan(step(layer(), jnp.ones((5, 3)), jnp.full((5, 2), 1.5), 0.1)[0].W).all()


@table(
    {
        "two layers": ({"params": layer() + layer()[:1]}, ValueError, "^params: .* one layer", "got 2", "layerwise"),
        "another output": ({"params": layer(activation=fnn.Tanh())}, ValueError, "^params: .*Identity", "Tanh"),
        "squared error": ({"loss": fnn.SquaredError(), "y": Y}, ValueError, "^loss: expected", "write implicit.linear"),
        "Huber": ({"loss": fnn.Huber(), "y": Y}, ValueError, "^loss: expected .*Poisson", "got Huber", "write loss="),
        "soft targets": ({"y": jnp.full((5, 2), 0.5)}, ValueError, "^y: .*soft targets", "argmax"),
        "above 1": ({"y": jnp.full((5, 2), 1.5), "loss": SIGMOID}, ValueError, "^y: expected 0 <= y <= 1", "clip"),
        "a negative count": ({"y": -jnp.ones((5, 2)), "loss": POISSON}, ValueError, "^y: expected counts", "maximum"),
        "a rate of 0": ({"learning_rate": 0.0}, ValueError, "^learning_rate: expected a finite number > 0, got 0"),
        "no rate": ({"learning_rate": "fast"}, TypeError, "^learning_rate: expected a number", "'fast'"),
        "targets of another shape": ({"y": jnp.zeros((5, 3)), "loss": SIGMOID}, ValueError, "^y: expected shape"),
        "integers": ({"x": jnp.ones((5, 3), int)}, TypeError, "^x: expected float32"),
    }
)
def test_what_it_cannot_do_is_refused(given, error, fragments):
    x, y = jnp.ones((5, 3)), jnp.zeros(5, int)
    arguments = {"params": layer(), "x": x, "y": y, "learning_rate": 0.1, "loss": SOFTMAX} | given
    if "params" in given and len(given["params"]) > 1:
        arguments["params"] = (layer()[0], fnn.Dense(jnp.ones((2, 2)), jnp.zeros(2), fnn.Identity()))
    assert_refused(lambda: generalized_linear(**arguments), error, fragments)
