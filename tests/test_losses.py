"""Every loss: its gradient by hand, the output delta, the targets it takes, and what it is as a value."""

from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from loss_cases import both_dtypes, evaluated, outputs
from problems import (
    ACTIVATIONS,
    COUPLED,
    KINDS,
    LOSSES,
    SMOOTH,
    TOLERANCE,
    and_slow,
    assert_agrees,
    name,
    problem,
)

TAKE_LABELS = tuple(loss for loss in LOSSES if loss.takes_labels)

every_loss = pytest.mark.parametrize("loss", LOSSES, ids=name)


@cache
def at_outputs(dtype):
    with jax.enable_x64(dtype == "float64"):
        return evaluated(LOSSES, [outputs(loss, dtype) for loss in LOSSES])


def norm(value):
    return np.linalg.norm(np.asarray(value, np.float64))


# -- the gradient and δ ------------------------------------------------------------------------------------------


@both_dtypes
@every_loss
def test_the_gradient_equals_autodiff(loss, dtype):
    _, hand, oracle = at_outputs(dtype)[loss]
    assert hand.shape == (60, 4)
    assert hand.dtype == dtype
    assert norm(hand - oracle) <= TOLERANCE[dtype] * norm(np.maximum(1, np.abs(oracle)))


@pytest.mark.parametrize("activations", and_slow([KINDS], [ACTIVATIONS]), ids=len)
@every_loss
def test_delta_equals_autodiff_through_every_activation(loss, activations, x64):
    """By default through one of each kind; a fused δ is compared with the product that is not, below."""
    random = np.random.default_rng(1)
    z, y = random.normal(size=(60, 4)), random.uniform(size=(60, 4))

    def of(activation, z, y):
        a = activation.value(z)
        autodiff = jax.grad(lambda z: loss.value(activation.value(z), y).sum())(z)
        return loss.delta(activation, z, a, y), autodiff, jnp.maximum(1, jnp.abs(loss.gradient(a, y)))

    deltas = jax.jit(lambda z, y: [of(activation, z, y) for activation in activations])(z, y)
    for activation, (hand, oracle, size) in zip(activations, deltas):
        assert hand.shape == z.shape
        assert norm(hand - oracle) <= TOLERANCE["float64"] * norm(size), activation


FUSED = [
    pytest.param(fnn.CrossEntropy(), fnn.Sigmoid(), id="Sigmoid"),
    pytest.param(fnn.CrossEntropy(), fnn.Sigmoid(beta=2.5), id="steep Sigmoid"),
    pytest.param(fnn.CrossEntropy(categorical=True), fnn.Softmax(), id="Softmax"),
]


@pytest.mark.parametrize(("loss", "activation"), FUSED)
def test_a_fused_delta_equals_the_unfused_product_at_moderate_z(loss, activation, x64):
    random = np.random.default_rng(2)
    z = random.normal(size=(60, 4)) * 2
    for y in (random.uniform(size=(60, 4)), np.eye(4)[random.integers(0, 4, 60)]):
        _, fused, unfused = both_deltas(z, y, loss, activation)
        assert norm(fused - unfused) <= 1e-12 * norm(unfused)


@partial(jax.jit, static_argnames=("loss", "activation"))
def both_deltas(z, y, loss, activation):
    a = activation.value(z)
    return a, loss.delta(activation, z, a, y), fnn.Loss.delta(loss, activation, z, a, y)


@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_the_sigmoid_delta_is_right_where_a_rounds_to_0_or_1_and_the_unfused_one_vanishes(beta):
    z = np.array([[-1e4], [-200], [200], [1e4]], "float32")
    right = np.array([[0], [0], [1], [1]], "float32")
    wrong = 1 - right
    a, fused, unfused = both_deltas(z, wrong, fnn.CrossEntropy(), fnn.Sigmoid(beta))
    np.testing.assert_array_equal(a, right)
    np.testing.assert_allclose(fused, beta * (right - wrong), rtol=1e-6)
    assert not unfused.any()
    assert not both_deltas(z, right, fnn.CrossEntropy(), fnn.Sigmoid(beta))[1].any()


def test_the_softmax_delta_is_right_where_a_rounds_to_0_and_1_and_the_unfused_one_vanishes():
    z, y = np.array([[1e4, 0, -1e4]], "float32"), np.array([1])
    a, fused, unfused = both_deltas(z, y, fnn.CrossEntropy(categorical=True), fnn.Softmax())
    assert a.tolist() == [[1, 0, 0]]
    assert fused.tolist() == [[1, -1, 0]]
    assert not unfused.any()


@pytest.mark.parametrize(
    "case", [(fnn.CrossEntropy(), fnn.Softmax()), (fnn.CrossEntropy(True), fnn.Sigmoid())], ids=name
)
def test_only_the_matching_output_activation_is_fused(case, x64):
    _, hand, product = both_deltas(*outputs(fnn.SoftmaxCrossEntropy(), "float64"), *case)
    np.testing.assert_array_equal(hand, product)


# -- targets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("integers", and_slow(["int32"], ["int8", "uint8"]))
def test_labels_one_hot_rows_and_soft_targets_agree(integers):
    a = outputs(fnn.SoftmaxCrossEntropy(), "float32")[0]
    labels = np.random.default_rng(3).integers(0, 4, 60).astype(integers)
    one_hot = np.eye(4, dtype="float32")[labels]

    @jax.jit
    def of_all(y):
        return [(loss.value(a, y), loss.gradient(a, y), loss.delta(fnn.Sigmoid(), a, a, y)) for loss in TAKE_LABELS]

    of_labels, of_one_hot, of_soft = of_all(labels), of_all(one_hot), of_all(0.9 * one_hot + np.float32(0.025))
    of_class = [of_all(np.full(60, k, integers)) for k in range(4)]
    jax.tree.map(np.testing.assert_array_equal, of_labels, of_one_hot)
    for i in range(len(TAKE_LABELS)):
        mixture = 0.9 * of_labels[i][0] + sum(0.025 * values[i][0] for values in of_class)
        np.testing.assert_allclose(of_soft[i][0], mixture, rtol=1e-5)


@pytest.mark.parametrize("integers", ["int8", "uint8"])
def test_labels_in_a_narrow_dtype_stand_for_one_class_among_300(integers):
    a = np.full((2, 300), 0.5, "float32")

    @jax.jit
    def of_all(labels):
        return [(loss.value(a, labels), loss.gradient(a, labels)) for loss in TAKE_LABELS]

    labels = np.array([0, 100], integers)
    jax.tree.map(np.testing.assert_array_equal, of_all(labels), of_all(labels.astype("int32")))


@pytest.mark.parametrize("total", [0.0, 0.3, 2.0])
def test_softmax_cross_entropy_and_the_fused_delta_take_targets_that_do_not_sum_to_1(total, x64):
    loss, fused = fnn.SoftmaxCrossEntropy(), fnn.CrossEntropy(categorical=True)
    a, y = outputs(loss, "float64")
    y = total * y / y.sum(axis=-1, keepdims=True)
    _, gradient, autodiff = evaluated([loss], [(a, y)])[loss]
    assert norm(gradient - autodiff) <= 1e-12 * norm(a)
    np.testing.assert_allclose(gradient.sum(axis=-1), 0, atol=1e-14)
    np.testing.assert_allclose(fused.delta(fnn.Softmax(), a, fnn.Softmax().value(a), y), gradient, atol=1e-14)


# -- shapes and dtypes -------------------------------------------------------------------------------------------


def test_the_loss_is_summed_over_outputs_and_kept_per_example(x64):
    @jax.jit
    def parts(points):
        """One row, one example that is no row, and every output alone."""
        return [
            (loss.value(a[7:8], y[7:8]), loss.value(a[7], y[7]), loss.value(a[:, :, None], y[:, :, None]))
            for loss, (a, y) in zip(LOSSES, points)
        ]

    of_all = parts([outputs(loss, "float64") for loss in LOSSES])
    for loss, (row, example, alone) in zip(LOSSES, of_all):
        value, _, _ = at_outputs("float64")[loss]
        assert (value.shape, value.dtype) == ((60,), "float64")
        np.testing.assert_allclose(value[7:8], row, rtol=1e-14)
        np.testing.assert_allclose(value[7], example, rtol=1e-14)
        if not isinstance(loss, fnn.SoftmaxCrossEntropy):
            np.testing.assert_allclose(value, np.sum(alone, axis=1), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@every_loss
def test_shapes_and_dtypes_are_preserved(loss, dtype):
    """δ as a product, and as two losses fuse it; that every pull-back keeps both, ``test_activations`` says."""

    def everything(a, y):
        deltas = [loss.delta(activation, a, a, y) for activation in (SMOOTH, COUPLED, fnn.Sigmoid())]
        return loss.value(a, y), [loss.gradient(a, y), *deltas]

    with jax.enable_x64(dtype == "float64"):
        a = jax.ShapeDtypeStruct((5, 3), dtype)
        for y in [a, jax.ShapeDtypeStruct((5,), "int32")] if loss.takes_labels else [a]:
            value, rows = jax.eval_shape(everything, a, y)
            assert (value.shape, value.dtype) == ((5,), dtype)
            assert {(row.shape, row.dtype) for row in rows} == {((5, 3), a.dtype)}


# -- losses as values --------------------------------------------------------------------------------------------


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

    a = np.ones((2, 3), "float32")
    for loss in (fnn.Huber(1), fnn.Huber(delta=1.0), fnn.Huber(np.float64(1))):
        value(loss, a, a)
    assert len(traced) == 1


@pytest.mark.parametrize("make", [fnn.SquaredError, fnn.Huber], ids=["SquaredError", "Huber"])
def test_a_parameter_that_is_not_a_positive_number_is_refused(make):
    for number in (0, -1, np.nan, np.inf):
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
    assert_agrees(problem(SMOOTH, LogCosh(), 2, dtype="float64"))


def test_a_loss_without_its_methods_says_what_to_define():
    a = np.ones((2, 3))
    with pytest.raises(NotImplementedError, match="must define value"):
        fnn.Loss().value(a, a)
    with pytest.raises(NotImplementedError, match="must define gradient"):
        fnn.Loss().delta(fnn.Identity(), a, a, a)
