"""The hand-written gradients agree with an oracle that shares no code with fnn, nor with jax.grad."""

from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
import oracle
from problems import ACTIVATIONS, name, problem, some

ANALYTIC = (
    fnn.Identity(),
    fnn.Sigmoid(),
    fnn.Sigmoid(beta=2.5),
    fnn.Tanh(),
    fnn.ScaledTanh(),
    fnn.Softplus(),
    fnn.SiLU(),
    fnn.GELU(approximate=True),
    fnn.Gaussian(mu=0.3, sigma=0.8),
    fnn.Softmax(),
)
NOT_ANALYTIC = tuple(activation for activation in ACTIVATIONS if activation not in ANALYTIC)
ANALYTIC_LOSSES = (
    fnn.SquaredError(),
    fnn.SquaredError(scale=1.0),
    fnn.SoftmaxCrossEntropy(),
    fnn.SigmoidCrossEntropy(),
    fnn.Poisson(),
)
KINKS = {"PiecewiseLinear": lambda z: np.minimum(np.abs(np.abs(z) - 1.5), np.abs(np.abs(z) - 1)), "default": np.abs}


@pytest.fixture(autouse=True)
def double_precision_and_not_compiled():
    with jax.enable_x64(True), jax.disable_jit():
        yield


def in_numpy(p):
    """A problem as the oracle takes it: leaves, layers, targets, loss."""
    leaves, layers = {"x": np.atleast_2d(np.asarray(p.x))}, []
    for i, layer in enumerate(p.params, start=1):
        leaves |= {f"W{i}": np.asarray(layer.W), f"b{i}": np.asarray(layer.b)}
        layers.append({"activation": (type(layer.activation).__name__, asdict(layer.activation))})
        if layer.norm is not None:
            leaves |= {f"gamma{i}": np.asarray(layer.norm.gamma), f"beta{i}": np.asarray(layer.norm.beta)}
            layers[-1]["norm"] = {"eps": layer.norm.eps, "fixed": layer.norm.gradient == "fixed"}
        if p.masks is not None:
            layers[-1] |= {k: np.asarray(v) for k, v in p.masks[i - 1]._asdict().items() if v is not None}
    return leaves, layers, np.atleast_2d(np.asarray(p.y)), (type(p.loss).__name__, asdict(p.loss))


def by_hand(p):
    """fnn's gradients of the sum over the examples, under the oracle's names."""
    arguments = {"loss": p.loss, "reduction": "sum", "masks": p.masks}
    leaves = {"x": np.atleast_2d(np.asarray(fnn.input_gradient(p.params, p.x, p.y, **arguments)))}
    for i, layer in enumerate(fnn.backprop(p.params, p.x, p.y, **arguments), start=1):
        leaves |= {f"W{i}": layer.W, f"b{i}": layer.b}
        if layer.norm is not None:
            leaves |= {f"gamma{i}": layer.norm.gamma, f"beta{i}": layer.norm.beta}
    return leaves


def by_oracle(p, differentiate):
    leaves, layers, y, loss = in_numpy(p)
    return differentiate(lambda leaves: oracle.cost(leaves, layers, y, loss), leaves)


def assert_close(p, differentiate, tolerance):
    """Norm-wise, leaf by leaf, against the leaf or, where it is small, the largest leaf's hundredth part."""
    hand, expected = by_hand(p), by_oracle(p, differentiate)
    assert hand.keys() == expected.keys()
    largest = max(np.linalg.norm(leaf) for leaf in expected.values())
    assert largest > 0
    for key, leaf in expected.items():
        assert hand[key].shape == leaf.shape
        error = np.linalg.norm(np.asarray(hand[key]) - leaf)
        assert error <= tolerance * max(np.linalg.norm(leaf), largest / 100), f"{key}: {error:.2e} of {largest:.2e}"


def small(activation, loss, depth=3, **options):
    return problem(activation, loss, depth, dtype="float64", **options)


@pytest.mark.parametrize("loss", ANALYTIC_LOSSES, ids=name)
@pytest.mark.parametrize("activation", some(ANALYTIC), ids=name)
def test_the_gradient_equals_the_complex_step(activation, loss):
    for batch in (None, 3):
        assert_close(small(activation, loss, batch=batch), oracle.complex_step, 1e-12)
        assert_close(small(activation, loss, batch=batch, output=fnn.Identity()), oracle.complex_step, 1e-12)


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        (fnn.CrossEntropy(), fnn.Sigmoid()),
        (fnn.CrossEntropy(), fnn.Sigmoid(beta=2.5)),
        (fnn.CrossEntropy(), fnn.Softmax()),
        (fnn.CrossEntropy(categorical=True), fnn.Softmax()),
        (fnn.CrossEntropy(categorical=True), fnn.Sigmoid()),
    ],
    ids=name,
)
def test_the_gradient_of_a_loss_on_probabilities_fused_or_not_equals_the_complex_step(loss, output):
    assert_close(small(fnn.Tanh(), loss, batch=3, output=output), oracle.complex_step, 1e-12)


def away_from_kinks(activation, loss, **options):
    """The first of a few random problems in which no weighted input or residual comes within 1e-3 of a kink."""
    distance = KINKS.get(type(activation).__name__, KINKS["default"])
    for seed in range(50):
        p = small(activation, loss, batch=2, seed=seed, **options)
        leaves, layers, y, _ = in_numpy(p)
        weighted, a = oracle.forward(leaves, layers)
        gaps = [distance(z).min() for z in weighted]
        if isinstance(loss, fnn.Huber):
            gaps.append(np.abs(np.abs(a - y) - loss.threshold).min())
        if min(gaps) > 1e-3:
            return p
    raise AssertionError("every problem comes near a kink")


@pytest.mark.parametrize("loss", [*ANALYTIC_LOSSES, fnn.Huber(delta=0.7)], ids=name)
@pytest.mark.parametrize("activation", some(NOT_ANALYTIC), ids=name)
def test_the_gradient_of_what_has_kinks_equals_central_differences(activation, loss):
    assert_close(away_from_kinks(activation, loss, output=fnn.Identity()), oracle.central_differences, 1e-7)
    if not isinstance(activation, (fnn.Threshold, fnn.Sign)):
        assert_close(away_from_kinks(activation, loss, depth=2), oracle.central_differences, 1e-7)


@pytest.mark.parametrize("delta", [0.1, 0.7, 5.0])
def test_the_gradient_of_huber_equals_central_differences(delta):
    assert_close(away_from_kinks(fnn.Tanh(), fnn.Huber(delta)), oracle.central_differences, 1e-7)


def with_norms(p, gradient):
    random = np.random.default_rng(0)
    layers = []
    for layer in p.params[:-1]:
        gamma, beta = (jnp.asarray(random.normal(loc, 0.3, layer.b.shape)) for loc in (1, 0))
        layers.append(fnn.Dense(layer.W, layer.b, layer.activation, fnn.BatchNorm(gamma, beta, gradient=gradient)))
    return p._replace(params=(*layers, p.params[-1]))


def with_masks(p, units_rows):
    random = np.random.default_rng(1)
    masks = []
    for layer in p.params:
        units = random.binomial(1, 0.7, (units_rows, layer.W.shape[1])) / 0.7
        masks.append(fnn.Mask(jnp.asarray(units), jnp.asarray(random.binomial(1, 0.8, layer.W.shape) / 0.8)))
    return p._replace(masks=tuple(masks))


@pytest.mark.parametrize("activation", [fnn.Tanh(), fnn.SiLU(), fnn.Softmax()], ids=name)
@pytest.mark.parametrize("gradient", ["full", "fixed"])
def test_the_gradient_of_batch_norm_equals_the_complex_step(gradient, activation):
    p = with_norms(small(activation, fnn.SoftmaxCrossEntropy(), batch=5, output=fnn.Identity()), gradient)
    assert_close(p, oracle.complex_step, 1e-12)


@pytest.mark.parametrize("units_rows", [1, 4])
@pytest.mark.parametrize("gradient", [None, "full", "fixed"])
def test_the_gradient_of_a_masked_network_equals_the_complex_step(gradient, units_rows):
    p = small(fnn.Sigmoid(beta=2.5), fnn.SquaredError(), batch=4, output=fnn.Identity())
    p = with_masks(p if gradient is None else with_norms(p, gradient), units_rows)
    assert_close(p, oracle.complex_step, 1e-12)


def deltas_by_oracle(p):
    """The derivative by a bias of each example's own is that example's delta."""
    leaves, layers, y, loss = in_numpy(p)
    batch = len(leaves["x"])
    biases = {key: np.tile(leaf, (batch, 1)) for key, leaf in leaves.items() if key.startswith("b")}
    return oracle.complex_step(lambda own: oracle.cost(leaves | own, layers, y, loss), biases)


@pytest.mark.parametrize("activation", [fnn.Tanh(), fnn.Gaussian(mu=0.3, sigma=0.8), fnn.Softmax()], ids=name)
def test_a_delta_is_the_derivative_by_one_examples_bias(activation):
    p = small(activation, fnn.SquaredError(), batch=4)
    for hand, expected in zip(fnn.deltas(p.params, p.x, p.y, loss=p.loss), deltas_by_oracle(p).values()):
        assert np.linalg.norm(np.asarray(hand) - expected) <= 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize("gradient", [None, "full", "fixed"])
def test_the_rows_of_delta_add_up_to_the_bias_gradient_of_the_sum(gradient):
    p = small(fnn.SiLU(), fnn.SigmoidCrossEntropy(), batch=4, output=fnn.Identity())
    if gradient is not None:
        p = with_norms(p, gradient)
    expected = by_oracle(p, oracle.complex_step)
    largest = max(np.linalg.norm(leaf) for leaf in expected.values())
    for i, delta in enumerate(fnn.deltas(p.params, p.x, p.y, loss=p.loss), start=1):
        assert np.linalg.norm(np.asarray(delta.sum(axis=0)) - expected[f"b{i}"]) <= 1e-12 * largest


def test_the_input_gradient_of_the_mean_is_the_oracles_divided_by_the_batch():
    p = small(fnn.Tanh(), fnn.SquaredError(), batch=4)
    expected = by_oracle(p, oracle.complex_step)["x"]
    hand = fnn.input_gradient(p.params, p.x, p.y, loss=p.loss)
    assert np.linalg.norm(np.asarray(hand) - expected / 4) <= 1e-12 * np.linalg.norm(expected / 4)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=name)
def test_the_forward_pass_equals_the_oracles(activation):
    p = small(activation, fnn.SquaredError(), batch=4)
    leaves, layers, _, _ = in_numpy(p)
    weighted, a = oracle.forward(leaves, layers)
    traces = fnn.trace(p.params, p.x)
    for t, z in zip(traces, weighted):
        np.testing.assert_allclose(t.z, z, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(traces[-1].a, a, rtol=1e-12, atol=1e-13)
