"""Right derivations, drawn at random, that the checker must not accuse."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fnn
from fnn import verify
from fnn.verify import Stage
from problems import ACTIVATIONS, LOSSES

NETWORKS, FUNCTIONS = 1000, 200  # in the slow run, in all
QUICK = settings(max_examples=5, derandomize=True, deadline=None, database=None)


def many(count: int) -> settings:
    return settings(max_examples=count, derandomize=True, deadline=None, database=None)


# -- what users write ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snake(fnn.Activation):
    def value(self, z):
        return z + jnp.sin(z) ** 2

    def derivative(self, z, a):
        return 1 + jnp.sin(2 * z)

    def second_derivative(self, z, a):
        return 2 * jnp.cos(2 * z)


@dataclass(frozen=True)
class Exponential(fnn.Activation):
    """It overflows in float32, and is right where it does not."""

    def value(self, z):
        return jnp.exp(z)

    def derivative(self, z, a):
        return a

    def second_derivative(self, z, a):
        return a


@dataclass(frozen=True)
class Cube(fnn.Activation):
    def value(self, z):
        return z**3

    def derivative(self, z, a):
        return 3 * z**2

    def second_derivative(self, z, a):
        return 6 * z


@dataclass(frozen=True)
class HardSigmoid(fnn.Activation):
    def value(self, z):
        return jnp.clip(0.2 * z + 0.5, 0, 1)

    def derivative(self, z, a):
        return jnp.where((a > 0) & (a < 1), 0.2, 0).astype(z.dtype)

    def second_derivative(self, z, a):
        return jnp.zeros_like(z)


@dataclass(frozen=True)
class Maxout(fnn.Activation):
    """The largest z of each example, in its place; of tied ones the last."""

    def value(self, z):
        return jnp.where(z == z.max(axis=1, keepdims=True), z, 0)

    def pullback(self, g, z, a):
        return jnp.where(z == z.max(axis=1, keepdims=True), g, 0)


@dataclass(frozen=True)
class AbsoluteError(fnn.Loss):
    def value(self, a, y):
        return jnp.abs(a - y).sum(axis=-1)

    def gradient(self, a, y):
        return jnp.where(a > y, 1, -1).astype(a.dtype)


@dataclass(frozen=True)
class Hinge(fnn.Loss):
    def value(self, a, y):
        return jnp.maximum(0, 1 - (2 * y - 1) * a).sum(axis=-1)

    def gradient(self, a, y):
        sign = 2 * y - 1
        return jnp.where(sign * a < 1, -sign, 0).astype(a.dtype)


@dataclass(frozen=True)
class LogCosh(fnn.Loss):
    def value(self, a, y):
        return jnp.log(jnp.cosh(a - y)).sum(axis=-1)

    def gradient(self, a, y):
        return jnp.tanh(a - y)


OWN_ACTIVATIONS, OWN_LOSSES = (Snake(), HardSigmoid(), Exponential(), Cube()), (AbsoluteError(), Hinge(), LogCosh())


@st.composite
def networks(draw, losses=(*LOSSES, *OWN_LOSSES)):
    """(params, loss, x, y): layers or a graph, of any activations, from tiny to huge, with ties and dead units."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    hidden = draw(st.lists(st.sampled_from([*ACTIVATIONS, *OWN_ACTIVATIONS]), max_size=3))
    loss = draw(st.sampled_from(losses))
    output = fnn.Identity()
    if isinstance(loss, fnn.CrossEntropy):
        output = fnn.Softmax() if loss.categorical else fnn.Sigmoid()
    sizes = [draw(st.sampled_from([2, 3, 5])) for _ in range(len(hidden) + 2)]
    norm = draw(st.sampled_from([None, None, "full", "fixed"]))
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float64]))
    scale, spread = (10.0 ** draw(st.floats(-3, 1.5)) for _ in range(2))
    layers = []
    for i, (n_in, n_out) in enumerate(zip(sizes, sizes[1:])):
        W, b = random.normal(size=(n_out, n_in)) * scale, random.normal(size=n_out) * scale
        W = np.round(W) if draw(st.booleans()) else W  # ties, and units that are exactly 0
        of = norm if i < len(hidden) else None
        normed = of and fnn.BatchNorm(*np.ones((2, n_out), dtype), gradient=of)
        layers.append(fnn.Dense(W.astype(dtype), b.astype(dtype), [*hidden, output][i], normed))
    batch = draw(st.sampled_from([1, 2, 7])) + bool(norm)
    x = random.normal(size=(batch, sizes[0])) * spread
    x = np.round(x) if draw(st.booleans()) else x
    y = random.uniform(0.02, 0.98, (batch, sizes[-1]))
    y = (
        y / y.sum(axis=1, keepdims=True)
        if isinstance(loss, fnn.SoftmaxCrossEntropy) or getattr(loss, "categorical", False)
        else y
    )
    return tuple(layers), loss, x.astype(dtype), y.astype(dtype)


def assert_not_accused(case, dtype=None, probes=True):
    params, loss, x, y = case
    with jax.enable_x64(params[0].W.dtype == np.float64):
        report = verify.network(params, x, y, loss=loss, dtype=dtype, probes=probes)
    assert not report.wrong, report


@QUICK
@given(networks())
def test_a_right_network_is_not_accused(case):
    assert_not_accused(case)


def assert_curvature_not_accused(case):
    params, loss, x, y = case
    with jax.enable_x64(params[0].W.dtype == np.float64):
        report = verify.curvature(params, x, y, loss=loss)
    assert not report.wrong, report


@pytest.mark.parametrize(
    "activation",
    [Exponential(), *(pytest.param(own, marks=pytest.mark.slow) for own in (Snake(), HardSigmoid(), Cube()))],
    ids=lambda activation: type(activation).__name__,
)
@pytest.mark.parametrize("check", [verify.network, verify.curvature], ids=lambda check: check.__name__)
def test_nor_is_an_activation_of_the_users_on_any_probe(activation, check):
    params = fnn.init(jax.random.key(0), (3, 4, 2), activation=activation)
    check(params, loss=fnn.SquaredError()).check()
    check(fnn.graph.Graph.from_layers(params), loss=fnn.SquaredError()).check()


@pytest.mark.slow
def test_nor_is_the_curvature_of_right_networks():
    many(60)(given(networks(LOSSES))(assert_curvature_not_accused))()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_nor_is_any_of_a_thousand(dtype):
    many(NETWORKS // 2)(given(networks())(lambda case: assert_not_accused(case, dtype, probes=False)))()


@pytest.mark.slow
def test_nor_is_any_on_the_probes():
    many(100)(given(networks())(lambda case: assert_not_accused(case)))()


# -- functions that others wrote -------------------------------------------------------------------------------


def softmax(x):
    e = jnp.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_bwd(x, y, g):
    return y * (g - (y * g).sum(axis=-1, keepdims=True))


def layer_norm(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def layer_norm_bwd(x, y, g):
    s = jnp.sqrt(((x - x.mean(axis=-1, keepdims=True)) ** 2).mean(axis=-1, keepdims=True) + 1e-5)
    return (g - g.mean(axis=-1, keepdims=True) - y * (g * y).mean(axis=-1, keepdims=True)) / s


def pool(x):
    return x.max(axis=-1)


def pool_bwd(x, y, g):
    last = x.shape[-1] - 1 - jnp.argmax(x[:, ::-1], axis=-1)
    return g[:, None] * jax.nn.one_hot(last, x.shape[-1], dtype=g.dtype)


FOREIGN = {  # f, and its pull-back (x, y, g) → x̄
    "softmax": (softmax, softmax_bwd),
    "log-softmax": (lambda x: x - jax.nn.logsumexp(x, axis=-1, keepdims=True),
                    lambda x, y, g: g - jnp.exp(y) * g.sum(axis=-1, keepdims=True)),
    "layer norm": (layer_norm, layer_norm_bwd),
    "max pooling, the last": (pool, pool_bwd),
    "relu, 1 at 0": (lambda x: jnp.maximum(x, 0), lambda x, y, g: jnp.where(x >= 0, g, 0)),
    "abs, 1 at 0": (jnp.abs, lambda x, y, g: jnp.where(x >= 0, g, -g)),
    "elu": (lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1), lambda x, y, g: jnp.where(x > 0, 1, jnp.exp(x)) * g),
    "root of a square": (lambda x: jnp.sqrt(x * x), lambda x, y, g: jnp.sign(x) * g),
    "clip": (lambda x: jnp.clip(x, -1, 1), lambda x, y, g: jnp.where(abs(x) <= 1, g, 0)),
    "sorted": (lambda x: jnp.sort(x, axis=-1),
               lambda x, y, g: jnp.take_along_axis(g, jnp.argsort(jnp.argsort(x, axis=-1), axis=-1), axis=-1)),
    "cumulative sum": (lambda x: jnp.cumsum(x, axis=-1), lambda x, y, g: jnp.cumsum(g[:, ::-1], axis=-1)[:, ::-1]),
    "softplus": (jax.nn.softplus, lambda x, y, g: jax.nn.sigmoid(x) * g),
    "signed log": (lambda x: jnp.sign(x) * jnp.log1p(jnp.abs(x)), lambda x, y, g: g / (1 + jnp.abs(x))),
    "norm of rows": (lambda x: jnp.sqrt((x**2).sum(axis=-1) + 1e-12),
                     lambda x, y, g: x * (g / y)[:, None]),
    "gram matrix": (lambda x: x @ x.T, lambda x, y, g: (g + g.T) @ x),
}  # fmt: skip
INSIDE = (None, jnp.float32, jnp.bfloat16)  # the dtype in which the function computes


@st.composite
def foreign(draw):
    name, inside = draw(st.sampled_from(sorted(FOREIGN))), draw(st.sampled_from(INSIDE))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = random.normal(size=(draw(st.integers(1, 4)), draw(st.integers(1, 5)))) * 10.0 ** draw(st.floats(-6, 2.5))
    if draw(st.booleans()):
        x = np.round(x)  # ties and zeros
    return name, inside, x.astype(draw(st.sampled_from([np.float32, np.float64])))


def assert_function_not_accused(case):
    name, inside, x = case
    f, bwd = FOREIGN[name]
    if inside is not None:
        value, back = f, bwd

        def f(x):
            return value(x.astype(inside)).astype(x.dtype)

        def bwd(x, y, g):
            return back(x.astype(inside), y.astype(inside), g.astype(inside)).astype(x.dtype)

    stage = Stage(name, lambda _, x: f(x), lambda _, x, y, g: ((), bwd(x, y, g)))
    report = verify.stages([stage], x)
    assert not report.wrong, report
    ruled = jax.custom_vjp(f)
    ruled.defvjp(lambda x: (f(x), (x, f(x))), lambda kept, g: (bwd(*kept, g),))
    report = verify.custom_vjp(ruled, x)
    assert not report.wrong, report


@QUICK
@given(foreign())
def test_a_right_function_is_not_accused(case):
    assert_function_not_accused(case)


@pytest.mark.slow
def test_nor_is_any_of_two_hundred():
    many(FUNCTIONS)(given(foreign())(assert_function_not_accused))()
