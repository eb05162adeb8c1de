"""Every activation: its value, its derivative by hand, and what both are at kinks and at extreme inputs."""

import math
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from problems import ACTIVATIONS, TOLERANCE, assert_agrees, name, problem

ELEMENTWISE = tuple(a for a in ACTIVATIONS if not isinstance(a, fnn.Softmax))
KINKS = (-1.5, -1.0, 0.0, 1.0, 1.5)  # of all activations in ACTIVATIONS
EXTREMES = (-1e4, -1e3, 0.0, 1e3, 1e4)
RAMP = fnn.PiecewiseLinear(m=0.4, b=0.1, x_min=-1, x_max=1)

every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=name)
every_elementwise_activation = pytest.mark.parametrize("activation", ELEMENTWISE, ids=name)
both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
all_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])


def points(dtype):
    """Some hundred weighted inputs: random ones, the kinks and both sides of each, and the extremes."""
    random = np.random.default_rng(0).normal(size=300) * 3
    near = [kink + step for kink in KINKS for step in (-1e-2, -1e-4, -1e-6, 0, 1e-6, 1e-4, 1e-2)]
    return np.concatenate([random, near, EXTREMES]).astype(dtype)


def weights(dtype):
    return np.random.default_rng(1).normal(size=points(dtype).shape).astype(dtype)


@partial(jax.jit, static_argnames="activations")
def evaluated(z, g, activations=ACTIVATIONS):
    """Of each activation a, σ'(z), the pull-back of g, and the last two by autodiff; one program for all."""

    def of(activation):
        a, autodiff = jax.vjp(activation.value, z)
        derivative = jnp.zeros_like(z) if isinstance(activation, fnn.Softmax) else activation.derivative(z, a)
        return a, derivative, activation.pullback(g, z, a), autodiff(jnp.ones_like(z))[0], autodiff(g)[0]

    return [of(activation) for activation in activations]


@cache
def everything(dtype, nan=False):
    """By activation, in float64: bfloat16 is no dtype of NumPy's."""
    z = points(dtype)
    if nan:
        z[7] = math.nan
    with jax.enable_x64(dtype == "float64"):
        results = evaluated(z, weights(dtype))
    return dict(zip(ACTIVATIONS, jax.tree.map(partial(np.asarray, dtype="float64"), results)))


@both_dtypes
@every_elementwise_activation
def test_the_derivative_and_the_pullback_equal_autodiff(activation, dtype):
    _, hand, pullback, oracle, pulled = everything(dtype)[activation]
    size = np.maximum(1, np.abs(oracle))
    assert (np.abs(hand - oracle) <= TOLERANCE[dtype] * size).all()
    assert np.linalg.norm(pullback - pulled) <= TOLERANCE[dtype] * np.linalg.norm(weights(dtype) * size)


@both_dtypes
def test_the_pullback_of_softmax_equals_its_full_jacobian(dtype):
    with jax.enable_x64(dtype == "float64"):
        random = np.random.default_rng(2)
        z, g = ((random.normal(size=(40, 5)) * scale).astype(dtype) for scale in (2, 1))
        softmax = fnn.Softmax()
        jacobians = jax.jit(jax.vmap(jax.jacobian(softmax.value)))(z)
        pullback = jax.jit(lambda g, z: softmax.pullback(g, z, softmax.value(z)))(g, z)
        oracle = np.einsum("bi,bij->bj", np.float64(g), np.float64(jacobians))
        assert np.linalg.norm(np.float64(pullback) - oracle) <= TOLERANCE[dtype] * np.linalg.norm(g)


def test_softmax_is_positive_sums_to_1_and_ignores_a_shift(x64):
    z, softmax = np.random.default_rng(3).normal(size=(2, 6, 5)) * 5, jax.jit(fnn.Softmax().value)
    a = np.asarray(softmax(z))
    assert (a > 0).all()
    np.testing.assert_allclose(a.sum(axis=-1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(softmax(z + 100), a, rtol=1e-12)
    np.testing.assert_allclose(a, jax.nn.softmax(z), rtol=1e-14)


def test_softmax_has_no_elementwise_derivative():
    z = np.zeros(3)
    with pytest.raises(TypeError, match="pullback"):
        fnn.Softmax().derivative(z, z)


@all_dtypes
@every_activation
def test_value_derivative_and_pullback_are_finite_at_extreme_inputs(activation, dtype):
    assert all(np.isfinite(array).all() for array in everything(dtype)[activation])


@all_dtypes
@every_activation
def test_a_nan_passes_through_the_value(activation, dtype):
    a = everything(dtype, nan=True)[activation][0]
    assert np.isnan(a[7])
    assert activation not in ELEMENTWISE or np.isfinite(np.delete(a, 7)).all()


AT_A_KINK = [  # the activation, z, the value, the slope
    (fnn.ReLU(), 0, 0, 0),
    (fnn.LeakyReLU(), 0, 0, 0.01),
    (fnn.LeakyReLU(slope=0.2), 0, 0, 0.2),
    (fnn.LeakyReLU(slope=0), 0, 0, 0),
    (fnn.ELU(), 0, 0, 1),
    (fnn.Softsign(), 0, 0, 1),
    (RAMP, -1, 0, 0),
    (RAMP, 1, 1, 0),
    (fnn.PiecewiseLinear.continuous(-2, 2), -2, 0, 0),
    (fnn.PiecewiseLinear.continuous(-2, 2), 2, 1, 0),
    (fnn.Threshold(), 0, 1, 0),
    (fnn.Threshold(), -0.0, 1, 0),
    (fnn.Sign(), 0, 1, 0),
    (fnn.Sign(), -0.0, 1, 0),
]


def test_value_and_derivative_at_the_kink_are_as_documented_and_as_autodiff_has_them(x64):
    activations = tuple(dict.fromkeys(activation for activation, *_ in AT_A_KINK))
    z = np.array([-2, -1, -0.0, 0.0, 1, 2])
    of_all = dict(zip(activations, jax.tree.map(np.asarray, evaluated(z, np.full(len(z), 3.0), activations))))
    for activation, at, value, slope in AT_A_KINK:
        here = (z == at) & (np.signbit(z) == np.signbit(float(at)))
        ours = [array[here].item() for array in of_all[activation]]
        assert ours == [value, slope, 3 * slope, slope, 3 * slope], (activation, at)


def test_threshold_and_sign_take_two_values_and_have_no_slope_anywhere():
    for activation, below in ((fnn.Threshold(), 0), (fnn.Sign(), -1)):
        a, derivative, *_ = everything("float32")[activation]
        np.testing.assert_array_equal(a, np.where(points("float32") >= 0, 1, below))
        assert not derivative.any()


REFERENCES = {
    fnn.Sigmoid(): jax.nn.sigmoid,
    fnn.Tanh(): jnp.tanh,
    fnn.Softsign(): jax.nn.soft_sign,
    fnn.ReLU(): jax.nn.relu,
    fnn.LeakyReLU(slope=0.2): partial(jax.nn.leaky_relu, negative_slope=0.2),
    fnn.ELU(): jax.nn.elu,
    fnn.Softplus(): jax.nn.softplus,
    fnn.SiLU(): jax.nn.silu,
    fnn.GELU(): partial(jax.nn.gelu, approximate=False),
    fnn.GELU(approximate=True): partial(jax.nn.gelu, approximate=True),
    fnn.Identity(): lambda z: z,
    fnn.Sigmoid(beta=2.5): lambda z: jax.nn.sigmoid(2.5 * z),
    fnn.ScaledTanh(): lambda z: 1.7159 * jnp.tanh(2 * z / 3),
}


@cache
def of_references():
    def of_all(z):
        values_and_pullbacks = [jax.vjp(reference, z) for reference in REFERENCES.values()]
        return [(value, pullback(jnp.ones_like(z))[0]) for value, pullback in values_and_pullbacks]

    return dict(zip(REFERENCES, jax.jit(of_all)(points("float64"))))


@pytest.mark.parametrize("activation", REFERENCES, ids=name)
def test_value_and_derivative_equal_a_reference_implementation(activation, x64):
    (value, slope), (a, derivative, *_) = of_references()[activation], everything("float64")[activation]
    np.testing.assert_allclose(a, value, rtol=1e-12, atol=1e-14)
    off_the_kink = points("float64") != 0  # where references differ
    np.testing.assert_allclose(derivative[off_the_kink], np.asarray(slope)[off_the_kink], rtol=0, atol=1e-12)


def test_the_two_gelus_differ_by_less_than_a_thousandth_but_differ():
    exact, approximate = (everything("float32")[activation][0] for activation in (fnn.GELU(), fnn.GELU(True)))
    assert 1e-5 < np.abs(exact - approximate).max() < 1e-3


def test_scaled_tanh_maps_plus_and_minus_1_to_themselves(x64):
    np.testing.assert_allclose(fnn.ScaledTanh().value(np.array([-1.0, 1.0])), [-1, 1], atol=1e-4)


@pytest.mark.parametrize("sigma", [0.25, 1.0, 4.0])
def test_the_gaussian_is_a_density_and_with_the_printed_factor_it_is_not(sigma, x64):
    z, step = np.linspace(0.3 - 12 * sigma, 0.3 + 12 * sigma, 4001, retstep=True)
    area = np.sum(jax.jit(fnn.Gaussian(mu=0.3, sigma=sigma).value)(z)) * step
    assert area == pytest.approx(1, abs=1e-12)
    printed = np.exp(-((z - 0.3) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi * sigma)
    assert printed.sum() * step == pytest.approx(math.sqrt(sigma), rel=1e-12)


@pytest.mark.parametrize(("x_min", "x_max"), [(-1, 1), (0, 1), (-3, -0.5), (2, 10)])
def test_the_continuous_ramp_rises_from_0_to_1_without_a_jump(x_min, x_max, x64):
    ramp = fnn.PiecewiseLinear.continuous(x_min, x_max)
    z = np.array([x_min - 5, x_min, x_min + 1e-9, (x_min + x_max) / 2, x_max - 1e-9, x_max, x_max + 5])
    ((a, derivative, *_),) = evaluated(z, z, (ramp,))
    np.testing.assert_allclose(a, [0, 0, 0, 0.5, 1, 1, 1], atol=1e-8)
    np.testing.assert_allclose(derivative[3], 1 / (x_max - x_min), rtol=1e-15)


def test_a_ramp_of_ones_own_may_jump():
    a = jax.jit(RAMP.value)(np.array([-1.001, -0.999, 0.999, 1.001], "float32"))
    np.testing.assert_allclose(a, [0, -0.2996, 0.4996, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fnn.Sigmoid(1), fnn.Sigmoid(beta=1.0)),
        (fnn.Sigmoid(), fnn.Sigmoid(np.float32(1))),
        (fnn.LeakyReLU(1), fnn.LeakyReLU(slope=1.0)),
        (fnn.GELU(), fnn.GELU(approximate=False)),
        (fnn.Gaussian(0, 1), fnn.Gaussian()),
        (fnn.PiecewiseLinear.continuous(-1, 1), fnn.PiecewiseLinear(0.5, 0.5, -1, 1)),
    ],
    ids=str,
)
def test_equal_parameters_make_equal_activations(one, other):
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)


def test_different_parameters_and_different_classes_make_different_activations():
    assert len(set(ACTIVATIONS)) == len(ACTIVATIONS)
    assert fnn.Sigmoid(1) != fnn.Sigmoid(2)
    assert fnn.GELU() != fnn.GELU(approximate=True)
    assert fnn.Tanh() != fnn.ReLU()
    assert fnn.Threshold() != fnn.Sign()


def test_equal_activations_share_one_compilation():
    traced = []

    @partial(jax.jit, static_argnums=0)
    def value(activation, z):
        traced.append(activation)
        return activation.value(z)

    z = np.ones(3, "float32")
    for activation in (fnn.Sigmoid(1), fnn.Sigmoid(beta=1.0), fnn.Sigmoid(np.float64(1))):
        value(activation, z)
    assert len(traced) == 1
    value(fnn.Sigmoid(2), z)
    assert len(traced) == 2


@pytest.mark.parametrize(
    ("make", "error", "argument"),
    [
        (lambda: fnn.Sigmoid(0), ValueError, "beta"),
        (lambda: fnn.Sigmoid(math.nan), ValueError, "beta"),
        (lambda: fnn.Sigmoid("steep"), TypeError, "beta"),
        (lambda: fnn.LeakyReLU(-0.1), ValueError, "slope"),
        (lambda: fnn.Gaussian(sigma=0), ValueError, "sigma"),
        (lambda: fnn.Gaussian(mu=math.inf), ValueError, "mu"),
        (lambda: fnn.GELU(approximate=1), TypeError, "approximate"),
        (lambda: fnn.PiecewiseLinear(1, 0, 1, 0), ValueError, "x_min"),
        (lambda: fnn.PiecewiseLinear.continuous(1, 1), ValueError, "x_min"),
    ],
    ids=range(9),
)
def test_a_parameter_outside_its_range_is_refused_by_name(make, error, argument):
    with pytest.raises(error, match=argument):
        make()


@dataclass(frozen=True)
class Sine(fnn.Activation):
    def value(self, z):
        return jnp.sin(z)

    def derivative(self, z, a):
        return jnp.cos(z)


@dataclass(frozen=True)
class Normalised(fnn.Activation):
    """Not elementwise, so it defines its pull-back."""

    def value(self, z):
        return z / (1 + jnp.sum(z * z, axis=-1, keepdims=True))

    def pullback(self, g, z, a):
        size = 1 + jnp.sum(z * z, axis=-1, keepdims=True)
        return g / size - 2 * z * jnp.sum(g * z, axis=-1, keepdims=True) / size**2


@pytest.mark.parametrize("activation", [Sine(), Normalised()], ids=name)
def test_an_activation_of_ones_own_works_in_a_network(activation, x64):
    assert_agrees(problem(activation, fnn.SquaredError(), 3, dtype="float64"))


def test_an_activation_without_a_value_says_what_to_define():
    with pytest.raises(NotImplementedError, match="Activation must define value"):
        fnn.Activation().value(np.ones(2))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@every_activation
def test_shapes_and_dtypes_are_preserved(activation, dtype):
    def all_methods(z):
        derivatives = [activation.derivative(z, z)] if activation in ELEMENTWISE else []
        return [activation.value(z), activation.pullback(z, z, z), *derivatives]

    with jax.enable_x64(dtype == "float64"):
        for shape in ((3,), (2, 4, 3)):
            z = jax.ShapeDtypeStruct(shape, dtype)
            assert {(result.shape, result.dtype) for result in jax.eval_shape(all_methods, z)} == {(shape, z.dtype)}
