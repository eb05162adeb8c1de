"""The second derivatives of activations and losses equal autodiff's, and targets are drawn from what the loss says."""

from functools import cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from delta_cases import assert_close
from problems import ACTIVATIONS, LOSSES, name

ELEMENTWISE = [activation for activation in ACTIVATIONS if activation != fnn.Softmax()]
DENSITIES = [loss for loss in LOSSES if not isinstance(loss, fnn.Huber)]
OUTPUTS = (fnn.Sigmoid(2.0), fnn.Softmax())


@cache
def changes_of_activations():
    """Of every activation: R{a} and R{pull-back}, and what autodiff says of both; in one program."""
    random = np.random.default_rng(0)

    @jax.jit
    def changes(z, dz, g):
        found = []
        for activation in ACTIVATIONS:
            a, da = jax.jvp(activation.value, (z,), (dz,))
            _, change = jax.jvp(lambda z, of=activation: of.pullback(g, z, of.value(z)), (z,), (dz,))
            ours = activation.pushforward(dz, z, a), activation.pullback_tangent(g, z, a, dz)
            found.append((ours, (da, change)))
        return found

    return dict(zip(ACTIVATIONS, changes(*(random.normal(size=(3, 6, 4)) * 2))))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=name)
def test_the_second_derivative_is_autodiffs_of_the_pull_back(activation, x64):
    assert_close(*changes_of_activations()[activation], 1e-13)


def test_the_second_derivative_is_finite_far_out():
    z = np.float32([-1e4, -100.0, 100.0, 1e4])
    far_out = jax.jit(lambda z: [of.second_derivative(z, of.value(z)) for of in ELEMENTWISE])(z)
    for activation, values in zip(ELEMENTWISE, far_out, strict=True):
        assert np.isfinite(values).all(), activation


@cache
def changes_of_losses():
    """Of every loss behind two activations: R{∂L/∂z} and R{∂L/∂a}, and what autodiff says of both; in one program."""
    random = np.random.default_rng(1)

    @jax.jit
    def changes(z, dz, y):
        found = []
        for loss, output in product(LOSSES, OUTPUTS):
            a, da = jax.jvp(output.value, (z,), (dz,))
            _, change = jax.jvp(lambda z, of=loss, s=output: of.delta(s, z, s.value(z), y), (z,), (dz,))
            _, bend = jax.jvp(lambda a, of=loss: of.gradient(a, y), (a,), (da,))
            found.append(((loss.delta_tangent(output, z, a, y, dz, da), loss.hessian(a, y, da)), (change, bend)))
        return found

    z, dz, y = random.normal(size=(3, 6, 4))
    return dict(zip(product(LOSSES, OUTPUTS), changes(z, dz, abs(y))))


@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("output", OUTPUTS, ids=name)
def test_the_tangent_of_the_output_delta_is_autodiffs(loss, output, x64):
    assert_close(*changes_of_losses()[loss, output], 1e-12)


@cache
def drawn_gradients():
    """Of every loss that is a −log p: ∂L/∂a at 20 000 drawn targets, and the mean of ∂²L/∂a²; in one program."""

    @jax.jit
    def drawn(many, key):
        found = []
        for loss in DENSITIES:
            y = loss.sample(key, many)

            def column(da, of=loss, y=y):
                return of.hessian(many, y, jnp.broadcast_to(da, many.shape)).mean(axis=0)

            found.append((loss.gradient(many, y), jax.vmap(column)(jnp.eye(3))))
        return found

    with jax.debug_key_reuse(False):  # each loss draws from the same key
        many = np.broadcast_to(np.float32([0.2, 0.5, 0.3]), (20_000, 3))
        return dict(zip(DENSITIES, jax.device_get(drawn(many, jax.random.key(0)))))


@pytest.mark.parametrize("loss", DENSITIES, ids=name)
def test_drawn_targets_have_the_loss_for_their_log_density(loss):
    """E[∂L/∂a] = 0 and E[∂L/∂a ∂L/∂aᵀ] = ∂²L/∂a² hold for −log p alone."""
    g, H = drawn_gradients()[loss]
    outer = g[:, :, None] * g[:, None, :]
    if loss != fnn.CrossEntropy(categorical=True):  # whose probabilities may not move freely: their sum is 1
        assert (abs(g.mean(axis=0)) < 5 * g.std(axis=0) / np.sqrt(len(g))).all()
    assert (abs(outer.mean(axis=0) - H) <= 5 * outer.std(axis=0) / np.sqrt(len(g)) + 1e-12).all()


@pytest.mark.parametrize(
    ("output", "loss"),
    [(fnn.Identity(), fnn.SoftmaxCrossEntropy()), (fnn.Softmax(), fnn.CrossEntropy(categorical=True))],
    ids=["logits", "probabilities"],
)
def test_thousands_of_examples_have_the_mean_of_their_parts(output, loss):
    """A compiler that sums products of entries over a wrong row is right for a few."""
    params = fnn.init(jax.random.key(0), (4, 3), output=output)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20_000, 4)).astype("float32"), random.integers(0, 3, 20_000)

    def diagonal(rows):
        return fnn.curvature.gauss_newton_diagonal(params, x[rows], y[rows], loss=loss)

    parts = [diagonal(slice(first, first + 1000)) for first in range(0, len(x), 1000)]
    assert_close(diagonal(slice(None)), jax.tree.map(lambda *of: np.mean(of, axis=0), *parts), 1e-5)
