"""Every loss is the published one, and is right at outputs of any size."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from loss_cases import both_dtypes, evaluated, outputs
from problems import LOSSES, name

ON_LOGITS = (fnn.SoftmaxCrossEntropy(), fnn.SigmoidCrossEntropy())
FINITE = tuple(loss for loss in LOSSES if loss != fnn.Poisson())  # its e^a overflows


# -- extreme outputs ---------------------------------------------------------------------------------------------


@cache
def at_extremes(dtype):
    a = np.array([[1e4, 0], [-1e4, 0], [1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [0, 1], [1, 0]], dtype)
    y = np.repeat(np.array([[1, 0], [0, 1], [0.5, 0.5]], dtype), len(a), axis=0)
    with jax.enable_x64(dtype == "float64"):
        return evaluated(FINITE, [(np.tile(a, (3, 1)), y)] * len(FINITE))


@both_dtypes
@pytest.mark.parametrize("loss", FINITE, ids=name)
def test_value_and_gradient_are_finite_at_extreme_outputs(loss, dtype):
    value, gradient, oracle = at_extremes(dtype)[loss]
    assert all(np.isfinite(array).all() for array in (value, gradient, oracle))
    np.testing.assert_allclose(gradient, oracle, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 88), ("float64", 709)])
def test_poisson_is_finite_as_far_as_its_exponential_is_and_no_further(dtype, most):
    a, y = np.array([[most], [most + 1], [-1e4]], dtype), np.ones((3, 1), dtype)
    with jax.enable_x64(dtype == "float64"):
        value, gradient, _ = evaluated([fnn.Poisson()], [(a, y)])[fnn.Poisson()]
    assert np.isfinite(value).tolist() == np.isfinite(gradient[:, 0]).tolist() == [True, False, True]
    assert (value[2], gradient[2, 0]) == (1e4, -1)


EXACT = {  # by loss and number of outputs: the outputs, the label, the value, the gradient
    (fnn.SoftmaxCrossEntropy(), 2): [
        ([1e4, 0], 1, 1e4, [1, -1]),
        ([1e4, 0], 0, 0, [0, 0]),
        ([1e4, -1e4], 1, 2e4, [1, -1]),
        ([1e4, 1e4], 0, math.log(2), [-0.5, 0.5]),
    ],
    (fnn.SoftmaxCrossEntropy(), 3): [([-1e4, -1e4, -1e4], 2, math.log(3), [1 / 3, 1 / 3, -2 / 3])],
    (fnn.SigmoidCrossEntropy(), 2): [
        ([1e4, 0], 1, 1e4 + math.log(2), [1, -0.5]),
        ([1e4, -1e4], 0, 0, [0, 0]),
        ([1e4, -1e4], 1, 2e4, [1, -1]),
        ([-1e4, -1e4], 1, 1e4, [0, -1]),
    ],
}


@pytest.mark.parametrize("case", EXACT, ids=name)
def test_values_and_gradients_at_extreme_logits_are_the_exact_ones(case):
    a, labels, values, gradients = zip(*EXACT[case])
    loss = case[0]
    ours, *derivatives = evaluated([loss], [(np.array(a, "float32"), np.array(labels))])[loss]
    np.testing.assert_allclose(ours, values, rtol=1e-6, atol=1e-30)
    for derivative in derivatives:  # by hand, and autodiff's
        np.testing.assert_allclose(derivative, gradients, rtol=1e-6, atol=1e-30)


def test_float32_agrees_with_float64_at_logits_of_every_size():
    random = np.random.default_rng(4)
    a = (random.normal(size=(60, 4)) * 10 ** random.uniform(-4, 4, (60, 1))).astype("float32")
    y = random.integers(0, 4, 60).astype("int32")
    size = np.maximum(1, np.abs(a).max(axis=-1))
    single = evaluated(ON_LOGITS, [(a, y)] * 2)
    with jax.enable_x64(True):
        double = evaluated(ON_LOGITS, [(a.astype("float64"), y)] * 2)
    for loss in ON_LOGITS:
        (value, gradient, _), (true_value, true_gradient, _) = single[loss], double[loss]
        assert (np.abs(value - true_value) <= 1e-6 * size).all(), loss
        assert (np.abs(gradient - true_gradient).max(axis=-1) <= 1e-6 * size).all(), loss


@pytest.mark.parametrize(("categorical", "value"), [(True, 87.34), (False, 2 * 87.34)])
def test_cross_entropy_of_an_impossible_event_is_minus_log_of_the_smallest_normal_number(categorical, value):
    loss, a = fnn.CrossEntropy(categorical), np.array([[0, 1], [0, 1]], "float32")
    values, gradient, autodiff = evaluated([loss], [(a, np.array([0, 1]))])[loss]
    assert values[0] == pytest.approx(value, rel=1e-4)
    assert values[1] == 0
    np.testing.assert_array_equal(gradient, autodiff)


# -- references --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "activation", "on_logits"),
    [
        (fnn.CrossEntropy(), fnn.Sigmoid(), fnn.SigmoidCrossEntropy()),
        (fnn.CrossEntropy(categorical=True), fnn.Softmax(), fnn.SoftmaxCrossEntropy()),
    ],
    ids=name,
)
def test_cross_entropy_on_probabilities_equals_the_loss_on_logits(loss, activation, on_logits, x64):
    def both(z, y):
        a = activation.value(z)
        return (loss.value(a, y), on_logits.value(z, y)), (loss.delta(activation, z, a, y), on_logits.gradient(z, y))

    values, deltas = jax.jit(both)(*outputs(on_logits, "float64"))
    np.testing.assert_allclose(*values, rtol=1e-12)
    np.testing.assert_allclose(*deltas, atol=1e-14)


def test_equation_l6_as_printed_is_infinite_on_a_label_and_corrected_it_is_not():
    a, y = np.array([0.2, 0.7]), np.array([0.0, 1.0])
    with np.errstate(divide="ignore"):
        printed = np.sum(a * np.log(y) + (1 - a) * np.log(1 - y))
    assert printed == -np.inf
    value = jax.jit(fnn.CrossEntropy().value)(a[None].astype("float32"), y[None].astype("float32")).item()
    assert value == pytest.approx(-math.log(0.8) - math.log(0.7))


def test_poisson_is_minus_the_log_of_the_probability_but_for_a_constant(x64):
    a, count = np.linspace(-3, 3, 20), 3
    rate = np.exp(a)
    minus_log = -np.log(np.exp(-rate) * rate**count / math.factorial(count))
    value = fnn.Poisson().value(a[:, None], np.full((20, 1), float(count)))
    np.testing.assert_allclose(value + math.log(math.factorial(count)), minus_log, rtol=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1 / 4])
def test_squared_error_has_the_three_conventions_by_its_scale(scale, x64):
    """Half the squared distance, the squared distance, and its mean over the 4 outputs."""
    a, y = outputs(fnn.SquaredError(), "float64")
    loss = fnn.SquaredError(scale)
    squares = (a - y) ** 2
    expected = {0.5: squares.sum(axis=-1) / 2, 1.0: squares.sum(axis=-1), 0.25: squares.mean(axis=-1)}[scale]
    np.testing.assert_allclose(loss.value(a, y), expected, rtol=1e-14)
    np.testing.assert_allclose(loss.gradient(a, y), 2 * scale * (a - y), rtol=1e-14)


@pytest.mark.parametrize("delta", [0.1, 0.7, 1.0, 100.0])
def test_huber_equals_optax(delta, x64):
    a, y = map(jnp.asarray, outputs(fnn.Huber(), "float64"))
    expected = optax.losses.huber_loss(a, y, delta=delta).sum(axis=-1)
    np.testing.assert_allclose(fnn.Huber(delta).value(a, y), expected, rtol=1e-13)


def test_huber_is_quadratic_then_linear_and_continuous_at_its_threshold(x64):
    a, loss = np.array([[0.3], [0.7], [-0.7], [2.0], [-2.0]]), fnn.Huber(delta=0.7)
    value, gradient, _ = evaluated([loss], [(a, np.zeros_like(a))])[loss]
    np.testing.assert_allclose(value, [0.045, 0.245, 0.245, 1.155, 1.155], rtol=1e-14)
    np.testing.assert_allclose(gradient[:, 0], [0.3, 0.7, -0.7, 0.7, -0.7], rtol=1e-14)


def test_softmax_cross_entropy_equals_optax(x64):
    a, y = map(jnp.asarray, outputs(fnn.SoftmaxCrossEntropy(), "float64"))
    labels, loss = np.argmax(y, axis=-1), fnn.SoftmaxCrossEntropy()
    np.testing.assert_allclose(loss.value(a, y), jax.jit(optax.losses.softmax_cross_entropy)(a, y), rtol=1e-13)
    expected = jax.jit(optax.losses.softmax_cross_entropy_with_integer_labels)(a, labels)
    np.testing.assert_allclose(loss.value(a, labels), expected, rtol=1e-12)


def test_sigmoid_cross_entropy_equals_optax(x64):
    a, y = map(jnp.asarray, outputs(fnn.SigmoidCrossEntropy(), "float64"))
    expected = jax.jit(optax.losses.sigmoid_binary_cross_entropy)(a, y).sum(axis=-1)
    np.testing.assert_allclose(fnn.SigmoidCrossEntropy().value(a, y), expected, rtol=1e-13)
