"""The hand-written gradients agree with an oracle that shares no code with fnn, nor with jax.grad."""

from dataclasses import asdict
from functools import partial
from itertools import product

import jax
import numpy as np
import pytest

import fnn
import oracle
from problems import ACTIVATIONS, KINDS, and_slow, name, problem, with_masks, with_norms

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
def double_precision(x64):
    return


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


@partial(jax.jit, static_argnames="loss")
def gradients(params, x, y, masks, *, loss):
    arguments = {"loss": loss, "reduction": "sum", "masks": masks}
    return fnn.input_gradient(params, x, y, **arguments), fnn.backprop(params, x, y, **arguments)


def by_hand(p):
    """fnn's gradients of the sum over the examples, under the oracle's names."""
    by_x, by_params = gradients(p.params, p.x, p.y, p.masks, loss=p.loss)
    leaves = {"x": np.atleast_2d(by_x)}
    for i, layer in enumerate(by_params, start=1):
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


ANALYTIC_CASES = [  # every loss once, with one example and several
    (fnn.Tanh(), fnn.SquaredError(), None),  # σ' read from a
    (fnn.GELU(approximate=True), fnn.SoftmaxCrossEntropy(), 3),  # σ' read from z
    (fnn.Sigmoid(beta=2.5), fnn.SigmoidCrossEntropy(), 3),  # a parameter
    (fnn.Softmax(), fnn.Poisson(), 3),  # not elementwise
]
ALL_ANALYTIC = [*product(ANALYTIC, ANALYTIC_LOSSES, [3]), *product(ANALYTIC, [fnn.SquaredError()], [None])]


@pytest.mark.parametrize("case", and_slow(ANALYTIC_CASES, ALL_ANALYTIC), ids=name)
def test_the_gradient_equals_the_complex_step(case):
    activation, loss, batch = case
    assert_close(small(activation, loss, batch=batch), oracle.complex_step, 1e-12)


FUSED_OR_NOT = [
    (fnn.CrossEntropy(), fnn.Sigmoid(beta=2.5)),  # fused
    (fnn.CrossEntropy(categorical=True), fnn.Softmax()),  # fused
    (fnn.CrossEntropy(), fnn.Softmax()),
]
ON_PROBABILITIES = [(fnn.CrossEntropy(), fnn.Sigmoid()), (fnn.CrossEntropy(categorical=True), fnn.Sigmoid())]


@pytest.mark.parametrize("case", and_slow(FUSED_OR_NOT, ON_PROBABILITIES), ids=name)
def test_the_gradient_of_a_loss_on_probabilities_fused_or_not_equals_the_complex_step(case):
    loss, output = case
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


OWN, PLAIN = None, fnn.Identity()  # the output layer's activation
KINKED_CASES = [
    (fnn.ReLU(), fnn.SquaredError(), OWN),
    (fnn.PiecewiseLinear(m=0.4, b=0.1, x_min=-1, x_max=1), fnn.SigmoidCrossEntropy(), PLAIN),  # jumps
    (fnn.GELU(), fnn.SquaredError(scale=1.0), OWN),  # smooth, but not analytic
]
LOSSES = [*ANALYTIC_LOSSES, fnn.Huber(delta=0.7)]
WITH_SLOPE = [activation for activation in NOT_ANALYTIC if not isinstance(activation, (fnn.Threshold, fnn.Sign))]
ALL_KINKED = [*product(NOT_ANALYTIC, [fnn.SquaredError()], [PLAIN]), *product(WITH_SLOPE, LOSSES, [OWN])]


@pytest.mark.parametrize("case", and_slow(KINKED_CASES, ALL_KINKED), ids=name)
def test_the_gradient_of_what_has_kinks_equals_central_differences(case):
    activation, loss, output = case
    p = away_from_kinks(activation, loss, depth=2 if output is OWN else 3, output=output)
    assert_close(p, oracle.central_differences, 1e-7)


@pytest.mark.parametrize("delta", and_slow([0.7], [0.1, 5.0]))
def test_the_gradient_of_huber_equals_central_differences(delta):
    assert_close(away_from_kinks(fnn.Tanh(), fnn.Huber(delta)), oracle.central_differences, 1e-7)


NORMED = [(fnn.SiLU(), "full"), (fnn.Softmax(), "fixed")]
ALL_NORMED = product((fnn.SiLU(), fnn.Softmax(), fnn.Tanh()), ("full", "fixed"))


@pytest.mark.parametrize("case", and_slow(NORMED, ALL_NORMED), ids=name)
def test_the_gradient_of_batch_norm_equals_the_complex_step(case):
    activation, gradient = case
    p = small(activation, fnn.SoftmaxCrossEntropy(), batch=5, output=fnn.Identity())
    assert_close(with_norms(p, gradient, gradient), oracle.complex_step, 1e-12)


MASKED = [(4, ()), (1, ("full", "fixed"))]  # masks of each example's own; of all examples, with batch norms
ALL_MASKED = product((4, 1), ((), ("full", "full"), ("fixed", "fixed")))


@pytest.mark.parametrize("case", and_slow(MASKED, ALL_MASKED), ids=name)
def test_the_gradient_of_a_masked_network_equals_the_complex_step(case):
    rows, norms = case
    p = small(fnn.Sigmoid(beta=2.5), fnn.SquaredError(), batch=4, output=fnn.Identity())
    assert_close(with_masks(with_norms(p, *norms), rows), oracle.complex_step, 1e-12)


def deltas_by_oracle(p):
    """The derivative by a bias of each example's own is that example's delta."""
    leaves, layers, y, loss = in_numpy(p)
    batch = len(leaves["x"])
    biases = {key: np.tile(leaf, (batch, 1)) for key, leaf in leaves.items() if key.startswith("b")}
    return oracle.complex_step(lambda own: oracle.cost(leaves | own, layers, y, loss), biases)


@pytest.mark.parametrize(
    "activation", and_slow([fnn.Softmax()], [fnn.Tanh(), fnn.Gaussian(mu=0.3, sigma=0.8)]), ids=name
)
def test_a_delta_is_the_derivative_by_one_examples_bias(activation):
    p = small(activation, fnn.SquaredError(), batch=4)
    for hand, expected in zip(fnn.deltas(p.params, p.x, p.y, loss=p.loss), deltas_by_oracle(p).values()):
        assert np.linalg.norm(np.asarray(hand) - expected) <= 1e-12 * np.linalg.norm(expected)


def test_every_activation_is_its_formula():
    z = np.random.default_rng(2).normal(size=(9, 4)) * 3
    values = jax.jit(lambda z: [activation.value(z) for activation in ACTIVATIONS])(z)
    for activation, value in zip(ACTIVATIONS, values):
        formula = oracle.ACTIVATIONS[type(activation).__name__]
        np.testing.assert_allclose(
            value, formula(z, **asdict(activation)), rtol=1e-12, atol=1e-13, err_msg=name(activation)
        )


@pytest.mark.parametrize("activation", and_slow(KINDS, ACTIVATIONS), ids=name)
def test_the_forward_pass_equals_the_oracles(activation):
    p = small(activation, fnn.SquaredError(), batch=4)
    leaves, layers, _, _ = in_numpy(p)
    weighted, a = oracle.forward(leaves, layers)
    traces = fnn.trace(p.params, p.x)
    for t, z in zip(traces, weighted):
        np.testing.assert_allclose(t.z, z, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(traces[-1].a, a, rtol=1e-12, atol=1e-13)
