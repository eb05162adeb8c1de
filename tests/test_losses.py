"""Every loss: its value, its gradient by hand, the output delta, and the targets it takes."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from problems import ACTIVATIONS, LOSSES, TOLERANCE, name

TAKE_LABELS = tuple(loss for loss in LOSSES if loss.takes_labels)
ON_LOGITS = (fnn.SoftmaxCrossEntropy(), fnn.SigmoidCrossEntropy())

every_loss = pytest.mark.parametrize("loss", LOSSES, ids=name)
every_loss_with_labels = pytest.mark.parametrize("loss", TAKE_LABELS, ids=name)
both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


def outputs(loss, dtype, shape=(60, 4)):
    """Outputs a and targets y: probabilities for a loss on probabilities, any number for the others."""
    random = np.random.default_rng(0)
    a = random.uniform(0.02, 0.98, shape) if isinstance(loss, fnn.CrossEntropy) else random.normal(size=shape) * 2
    return jnp.asarray(a, dtype), jnp.asarray(random.uniform(size=shape), dtype)


def summed(loss, y):
    return lambda a: loss.value(a, y).sum()


def norm(value):
    return np.linalg.norm(np.asarray(value, np.float64))


@both_dtypes
@every_loss
def test_the_gradient_equals_autodiff(loss, dtype):
    with jax.enable_x64(dtype == "float64"):
        a, y = outputs(loss, dtype)
        oracle = jax.grad(summed(loss, y))(a)
        hand = loss.gradient(a, y)
        assert hand.shape == a.shape
        assert hand.dtype == a.dtype
        assert norm(hand - oracle) <= TOLERANCE[dtype] * norm(jnp.maximum(1, jnp.abs(oracle)))


@every_loss
def test_delta_equals_autodiff_through_every_activation(loss, x64):
    random = np.random.default_rng(1)
    z = jnp.asarray(random.normal(size=(60, 4)))
    y = jnp.asarray(random.uniform(size=(60, 4)))
    for activation in ACTIVATIONS:
        a = activation.value(z)
        oracle = jax.grad(lambda z, activation=activation: loss.value(activation.value(z), y).sum())(z)
        hand = loss.delta(activation, z, a, y)
        assert hand.shape == z.shape
        assert norm(hand - oracle) <= TOLERANCE["float64"] * norm(jnp.maximum(1, jnp.abs(loss.gradient(a, y))))


FUSED = [
    pytest.param(fnn.CrossEntropy(), fnn.Sigmoid(), id="Sigmoid"),
    pytest.param(fnn.CrossEntropy(), fnn.Sigmoid(beta=2.5), id="steep Sigmoid"),
    pytest.param(fnn.CrossEntropy(categorical=True), fnn.Softmax(), id="Softmax"),
]


@pytest.mark.parametrize(("loss", "activation"), FUSED)
def test_a_fused_delta_equals_the_unfused_product_at_moderate_z(loss, activation, x64):
    random = np.random.default_rng(2)
    z = jnp.asarray(random.normal(size=(60, 4)) * 2)
    a = activation.value(z)
    for y in (random.uniform(size=(60, 4)), np.eye(4)[random.integers(0, 4, 60)]):
        fused = loss.delta(activation, z, a, jnp.asarray(y))
        unfused = fnn.Loss.delta(loss, activation, z, a, jnp.asarray(y))
        assert norm(fused - unfused) <= 1e-12 * norm(unfused)


@pytest.mark.parametrize("z", [-1e4, -200.0, 200.0, 1e4])
@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_the_sigmoid_delta_is_right_where_a_rounds_to_0_or_1_and_the_unfused_one_vanishes(beta, z):
    loss, activation = fnn.CrossEntropy(), fnn.Sigmoid(beta)
    z = jnp.asarray([[z]])
    a = activation.value(z)
    assert a.item() in (0.0, 1.0)
    wrong = 1 - a
    assert loss.delta(activation, z, a, wrong).item() == pytest.approx(beta * (2 * a.item() - 1))
    assert fnn.Loss.delta(loss, activation, z, a, wrong).item() == 0
    assert loss.delta(activation, z, a, a).item() == 0


def test_the_softmax_delta_is_right_where_a_rounds_to_0_and_1_and_the_unfused_one_vanishes():
    loss, activation = fnn.CrossEntropy(categorical=True), fnn.Softmax()
    z = jnp.asarray([[1e4, 0.0, -1e4]])
    a, y = activation.value(z), jnp.asarray([1])
    assert a.tolist() == [[1, 0, 0]]
    assert loss.delta(activation, z, a, y).tolist() == [[1, -1, 0]]
    assert not fnn.Loss.delta(loss, activation, z, a, y).any()


def test_only_the_matching_output_activation_is_fused(x64):
    a, y = outputs(fnn.CrossEntropy(), "float64")
    for loss, activation in ((fnn.CrossEntropy(), fnn.Softmax()), (fnn.CrossEntropy(categorical=True), fnn.Sigmoid())):
        expected = activation.pullback(loss.gradient(a, y), jnp.log(a), a)
        np.testing.assert_array_equal(loss.delta(activation, jnp.log(a), a, y), expected)


@pytest.mark.parametrize("integers", ["int32", "int8", "uint8"])
@every_loss_with_labels
def test_labels_one_hot_rows_and_soft_targets_agree(loss, integers):
    a, _ = outputs(loss, "float32")
    labels = jnp.asarray(np.random.default_rng(3).integers(0, 4, 60), integers)
    one_hot = jnp.asarray(np.eye(4)[np.asarray(labels)], "float32")
    for part in (loss.value, loss.gradient, partial(loss.delta, fnn.Sigmoid(), a)):
        np.testing.assert_array_equal(part(a, labels), part(a, one_hot))
    soft = 0.9 * one_hot + 0.025
    mixture = 0.9 * loss.value(a, labels) + sum(0.025 * loss.value(a, jnp.full(60, k, integers)) for k in range(4))
    np.testing.assert_allclose(loss.value(a, soft), mixture, rtol=1e-5)


@pytest.mark.parametrize("integers", ["int8", "uint8"])
@every_loss_with_labels
def test_labels_in_a_narrow_dtype_stand_for_one_class_among_300(loss, integers):
    a = jnp.full((2, 300), 0.5)
    labels = jnp.asarray([0, 100], integers)
    np.testing.assert_array_equal(loss.value(a, labels), loss.value(a, labels.astype("int32")))
    np.testing.assert_array_equal(loss.gradient(a, labels), loss.gradient(a, labels.astype("int32")))


@both_dtypes
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != fnn.Poisson()], ids=name)  # its e^a overflows
def test_value_and_gradient_are_finite_at_extreme_outputs(loss, dtype):
    with jax.enable_x64(dtype == "float64"):
        a = jnp.asarray([[1e4, 0], [-1e4, 0], [1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [0, 1], [1, 0]], dtype)
        for y in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]):
            y = jnp.broadcast_to(jnp.asarray(y, dtype), a.shape)
            value, gradient, oracle = loss.value(a, y), loss.gradient(a, y), jax.grad(summed(loss, y))(a)
            assert all(bool(jnp.isfinite(array).all()) for array in (value, gradient, oracle))
            np.testing.assert_allclose(gradient, oracle, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 88), ("float64", 709)])
def test_poisson_is_finite_as_far_as_its_exponential_is_and_no_further(dtype, most):
    with jax.enable_x64(dtype == "float64"):
        a, y = jnp.asarray([[most], [most + 1], [-1e4]], dtype), jnp.ones((3, 1), dtype)
        value, gradient = fnn.Poisson().value(a, y), fnn.Poisson().gradient(a, y)
        assert jnp.isfinite(value).tolist() == jnp.isfinite(gradient[:, 0]).tolist() == [True, False, True]
        assert (value[2], gradient[2, 0]) == (1e4, -1)


def test_poisson_is_minus_the_log_of_the_probability_but_for_a_constant(x64):
    a, y = jnp.linspace(-3, 3, 20)[:, None], jnp.full((20, 1), 3.0)
    minus_log = -jax.scipy.stats.poisson.logpmf(y, jnp.exp(a))[:, 0]
    np.testing.assert_allclose(fnn.Poisson().value(a, y) + math.log(6), minus_log, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "a", "label", "value", "gradient"),
    [
        (fnn.SoftmaxCrossEntropy(), [1e4, 0], 1, 1e4, [1, -1]),
        (fnn.SoftmaxCrossEntropy(), [1e4, 0], 0, 0, [0, 0]),
        (fnn.SoftmaxCrossEntropy(), [1e4, -1e4], 1, 2e4, [1, -1]),
        (fnn.SoftmaxCrossEntropy(), [1e4, 1e4], 0, math.log(2), [-0.5, 0.5]),
        (fnn.SoftmaxCrossEntropy(), [-1e4, -1e4, -1e4], 2, math.log(3), [1 / 3, 1 / 3, -2 / 3]),
        (fnn.SigmoidCrossEntropy(), [1e4, 0], 1, 1e4 + math.log(2), [1, -0.5]),
        (fnn.SigmoidCrossEntropy(), [1e4, -1e4], 0, 0, [0, 0]),
        (fnn.SigmoidCrossEntropy(), [1e4, -1e4], 1, 2e4, [1, -1]),
        (fnn.SigmoidCrossEntropy(), [-1e4, -1e4], 1, 1e4, [0, -1]),
    ],
    ids=str,
)
def test_values_and_gradients_at_extreme_logits_are_the_exact_ones(loss, a, label, value, gradient):
    a, y = jnp.asarray([a], "float32"), jnp.asarray([label])
    assert loss.value(a, y).item() == pytest.approx(value, rel=1e-6, abs=1e-30)
    np.testing.assert_allclose(loss.gradient(a, y)[0], gradient, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(jax.grad(summed(loss, y))(a)[0], gradient, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("loss", ON_LOGITS, ids=name)
def test_float32_agrees_with_float64_at_logits_of_every_size(loss):
    random = np.random.default_rng(4)
    a = (random.normal(size=(60, 4)) * 10 ** random.uniform(-4, 4, (60, 1))).astype("float32")
    y = jnp.asarray(random.integers(0, 4, 60), "int32")
    single = [np.asarray(part(jnp.asarray(a), y), "float64") for part in (loss.value, loss.gradient)]
    with jax.enable_x64(True):
        double = [np.asarray(part(jnp.asarray(a, "float64"), y)) for part in (loss.value, loss.gradient)]
    size = np.maximum(1, np.abs(a).max(axis=-1))
    assert (np.abs(single[0] - double[0]) <= 1e-6 * size).all()
    assert (np.abs(single[1] - double[1]).max(axis=-1) <= 1e-6 * size).all()


@pytest.mark.parametrize(("categorical", "value"), [(True, 87.34), (False, 2 * 87.34)])
def test_cross_entropy_of_an_impossible_event_is_minus_log_of_the_smallest_normal_number(categorical, value):
    a, y = jnp.asarray([[0.0, 1.0]]), jnp.asarray([0])
    loss = fnn.CrossEntropy(categorical)
    assert loss.value(a, y).item() == pytest.approx(value, rel=1e-4)
    assert loss.value(a, jnp.asarray([1])).item() == 0
    np.testing.assert_array_equal(loss.gradient(a, y), jax.grad(summed(loss, y))(a))


def test_cross_entropy_on_probabilities_equals_the_loss_on_logits(x64):
    logits, y = outputs(fnn.SoftmaxCrossEntropy(), "float64")
    pairs = (
        (fnn.CrossEntropy(), fnn.Sigmoid(), fnn.SigmoidCrossEntropy()),
        (fnn.CrossEntropy(categorical=True), fnn.Softmax(), fnn.SoftmaxCrossEntropy()),
    )
    for loss, activation, on_logits in pairs:
        a = activation.value(logits)
        np.testing.assert_allclose(loss.value(a, y), on_logits.value(logits, y), rtol=1e-12)
        delta = loss.delta(activation, logits, a, y)
        np.testing.assert_allclose(delta, on_logits.delta(fnn.Identity(), logits, logits, y), atol=1e-14)


def test_equation_l6_as_printed_is_infinite_on_a_label_and_corrected_it_is_not():
    a, y = np.array([0.2, 0.7]), np.array([0.0, 1.0])
    with np.errstate(divide="ignore"):
        printed = np.sum(a * np.log(y) + (1 - a) * np.log(1 - y))
    assert printed == -np.inf
    value = fnn.CrossEntropy().value(jnp.asarray(a[None], "float32"), jnp.asarray(y[None], "float32")).item()
    assert value == pytest.approx(-math.log(0.8) - math.log(0.7))


@pytest.mark.parametrize("scale", [0.5, 1.0, 1 / 4])
def test_squared_error_has_the_three_conventions_by_its_scale(scale, x64):
    """Half the squared distance, the squared distance, and its mean over the 4 outputs."""
    a, y = outputs(fnn.SquaredError(), "float64")
    loss = fnn.SquaredError(scale)
    squares = (np.asarray(a) - np.asarray(y)) ** 2
    expected = {0.5: squares.sum(axis=-1) / 2, 1.0: squares.sum(axis=-1), 0.25: squares.mean(axis=-1)}[scale]
    np.testing.assert_allclose(loss.value(a, y), expected, rtol=1e-14)
    np.testing.assert_allclose(loss.gradient(a, y), 2 * scale * (np.asarray(a) - np.asarray(y)), rtol=1e-14)


@pytest.mark.parametrize("delta", [0.1, 0.7, 1.0, 100.0])
def test_huber_equals_optax(delta, x64):
    a, y = outputs(fnn.Huber(), "float64")
    expected = optax.losses.huber_loss(a, y, delta=delta).sum(axis=-1)
    np.testing.assert_allclose(fnn.Huber(delta).value(a, y), expected, rtol=1e-13)


def test_huber_is_quadratic_then_linear_and_continuous_at_its_threshold(x64):
    a = jnp.asarray([[0.3], [0.7], [-0.7], [2.0], [-2.0]])
    y, loss = jnp.zeros_like(a), fnn.Huber(delta=0.7)
    np.testing.assert_allclose(loss.value(a, y), [0.045, 0.245, 0.245, 1.155, 1.155], rtol=1e-14)
    np.testing.assert_allclose(loss.gradient(a, y)[:, 0], [0.3, 0.7, -0.7, 0.7, -0.7], rtol=1e-14)


def test_softmax_cross_entropy_equals_optax(x64):
    a, y = outputs(fnn.SoftmaxCrossEntropy(), "float64")
    labels = jnp.argmax(y, axis=-1)
    loss = fnn.SoftmaxCrossEntropy()
    np.testing.assert_allclose(loss.value(a, y), optax.losses.softmax_cross_entropy(a, y), rtol=1e-13)
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(a, labels)
    np.testing.assert_allclose(loss.value(a, labels), expected, rtol=1e-12)


def test_sigmoid_cross_entropy_equals_optax(x64):
    a, y = outputs(fnn.SigmoidCrossEntropy(), "float64")
    expected = optax.losses.sigmoid_binary_cross_entropy(a, y).sum(axis=-1)
    np.testing.assert_allclose(fnn.SigmoidCrossEntropy().value(a, y), expected, rtol=1e-13)


@pytest.mark.parametrize("total", [0.0, 0.3, 2.0])
def test_softmax_cross_entropy_and_the_fused_delta_take_targets_that_do_not_sum_to_1(total, x64):
    a, y = outputs(fnn.SoftmaxCrossEntropy(), "float64")
    y = total * y / y.sum(axis=-1, keepdims=True)
    loss = fnn.SoftmaxCrossEntropy()
    gradient = loss.gradient(a, y)
    assert norm(gradient - jax.grad(summed(loss, y))(a)) <= 1e-12 * norm(a)
    np.testing.assert_allclose(gradient.sum(axis=-1), 0, atol=1e-14)
    p = fnn.Softmax().value(a)
    np.testing.assert_allclose(fnn.CrossEntropy(categorical=True).delta(fnn.Softmax(), a, p, y), gradient, atol=1e-14)


@every_loss
def test_the_loss_is_summed_over_outputs_and_kept_per_example(loss, x64):
    a, y = outputs(loss, "float64")
    value = loss.value(a, y)
    assert value.shape == (60,)
    assert value.dtype == a.dtype
    np.testing.assert_allclose(value[7:8], loss.value(a[7:8], y[7:8]), rtol=1e-14)
    np.testing.assert_allclose(value[7], loss.value(a[7], y[7]), rtol=1e-14)
    if not isinstance(loss, fnn.SoftmaxCrossEntropy):
        single = sum(loss.value(a[:, k : k + 1], y[:, k : k + 1]) for k in range(4))
        np.testing.assert_allclose(value, single, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@every_loss
def test_shapes_and_dtypes_are_preserved(loss, dtype):
    with jax.enable_x64(dtype == "float64"):
        a = jax.ShapeDtypeStruct((5, 3), dtype)
        targets = [a, jax.ShapeDtypeStruct((5,), "int32")] if loss.takes_labels else [a]
        for y in targets:
            value, gradient = jax.eval_shape(loss.value, a, y), jax.eval_shape(loss.gradient, a, y)
            assert (value.shape, value.dtype) == ((5,), dtype)
            for activation in ACTIVATIONS:
                delta = jax.eval_shape(partial(loss.delta, activation), a, a, y)
                assert (delta.shape, delta.dtype) == (gradient.shape, gradient.dtype) == ((5, 3), dtype)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fnn.SquaredError(), fnn.SquaredError(0.5)),
        (fnn.SquaredError(1), fnn.SquaredError(scale=np.float32(1))),
        (fnn.Huber(), fnn.Huber(delta=1)),
        (fnn.CrossEntropy(), fnn.CrossEntropy(categorical=False)),
        (fnn.SoftmaxCrossEntropy(), fnn.SoftmaxCrossEntropy()),
    ],
    ids=str,
)
def test_equal_parameters_make_equal_losses(one, other):
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)


def test_different_parameters_and_different_classes_make_different_losses():
    assert len(set(LOSSES)) == len(LOSSES)
    assert fnn.SquaredError() != fnn.SquaredError(1)
    assert fnn.Huber(1) != fnn.Huber(2)
    assert fnn.Huber(0.5) != fnn.SquaredError(0.5)
    assert fnn.SoftmaxCrossEntropy() != fnn.SigmoidCrossEntropy()


def test_equal_losses_share_one_compilation():
    traced = []

    @partial(jax.jit, static_argnums=0)
    def value(loss, a, y):
        traced.append(loss)
        return loss.value(a, y)

    a = jnp.ones((2, 3))
    for loss in (fnn.Huber(1), fnn.Huber(delta=1.0), fnn.Huber(np.float64(1))):
        value(loss, a, a)
    assert len(traced) == 1


@pytest.mark.parametrize("make", [fnn.SquaredError, fnn.Huber], ids=["SquaredError", "Huber"])
def test_a_parameter_that_is_not_a_positive_number_is_refused(make):
    for number in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite number"):
            make(number)
    with pytest.raises(TypeError, match="number"):
        make("one")


@dataclass(frozen=True)
class LogCosh(fnn.Loss):
    def value(self, a, y):
        return jnp.log(jnp.cosh(a - y)).sum(axis=-1)

    def gradient(self, a, y):
        return jnp.tanh(a - y)


def test_a_loss_of_ones_own_trains_a_network(x64):
    params = fnn.init(jax.random.key(0), (3, 4, 2), dtype="float64")
    x, y = jnp.ones((5, 3)) / 2, jnp.ones((5, 2))
    hand = fnn.backprop(params, x, y, loss=LogCosh())
    auto = jax.grad(lambda p: LogCosh().value(fnn.forward(p, x), y).mean())(params)
    for ours, theirs in zip(jax.tree.leaves(hand), jax.tree.leaves(auto)):
        assert norm(ours - theirs) <= 1e-12 * norm(theirs)


def test_a_loss_without_its_methods_says_what_to_define():
    a = jnp.ones((2, 3))
    with pytest.raises(NotImplementedError, match="must define value"):
        fnn.Loss().value(a, a)
    with pytest.raises(NotImplementedError, match="must define gradient"):
        fnn.Loss().delta(fnn.Identity(), a, a, a)
