"""Activations and losses whose own derivative is wrong."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

import fnn


def wrong(cls, derivative, *args, **kwargs):
    """An activation of the class with another derivative."""

    @dataclass(frozen=True)
    class Wrong(cls):
        def derivative(self, z, a):
            return derivative(self, z, a)

        def pullback(self, g, z, a):
            return g * derivative(self, z, a)

    return Wrong(*args, **kwargs)


ACTIVATIONS = {
    "sigmoid: a(1 + a)": wrong(fnn.Sigmoid, lambda s, z, a: s.beta * a * (1 + a), 1.5),
    "sigmoid: no beta": wrong(fnn.Sigmoid, lambda s, z, a: a * (1 - a), 1.5),
    "tanh: 1 - a": wrong(fnn.Tanh, lambda s, z, a: 1 - a),
    "tanh: 1 - z^2": wrong(fnn.Tanh, lambda s, z, a: 1 - z * z),
    "relu: the wrong side": wrong(fnn.ReLU, lambda s, z, a: jnp.where(z < 0, 1.0, 0.0).astype(z.dtype)),
    "relu: 5 at the kink": wrong(fnn.ReLU, lambda s, z, a: jnp.where(z == 0, 5, jnp.where(z > 0, 1, 0 * z))),
    "leaky relu: no slope": wrong(fnn.LeakyReLU, lambda s, z, a: jnp.where(z > 0, 1, 0 * z), 0.2),
    "elu: a for a + 1": wrong(fnn.ELU, lambda s, z, a: jnp.where(z <= 0, a, 1)),
    "softplus: tanh": wrong(fnn.Softplus, lambda s, z, a: jnp.tanh(z)),
    "silu: no second term": wrong(fnn.SiLU, lambda s, z, a: jax.lax.logistic(z)),
    "gelu: no density": wrong(fnn.GELU, lambda s, z, a: jax.scipy.special.ndtr(z)),
    "gaussian: sign": wrong(fnn.Gaussian, lambda s, z, a: a * (z - s.mu) / s.sigma**2, 0.3, 0.8),
    "gaussian: sigma not squared": wrong(fnn.Gaussian, lambda s, z, a: -a * (z - s.mu) / s.sigma, 0.3, 0.8),
    "piecewise: m everywhere": wrong(fnn.PiecewiseLinear, lambda s, z, a: s.m + 0 * z, 0.5, 0.5, -1.0, 1.0),
    "softsign: not squared": wrong(fnn.Softsign, lambda s, z, a: 1 / (1 + abs(z))),
    "scaled tanh: no 2/3": wrong(fnn.ScaledTanh, lambda s, z, a: 1.7159 - a * a / 1.7159),
    "softmax: diagonal only": wrong(fnn.Softmax, lambda s, z, a: a * (1 - a)),
}
SAID = {"gaussian: sign": "the sign", "scaled tanh: no 2/3": "a constant factor 1.5",
        "sigmoid: no beta": "a constant factor 0.66666",
        "gaussian: sigma not squared": "a constant factor 0.8"}  # fmt: skip


def wrong_loss(cls, gradient, *args):
    @dataclass(frozen=True, init=False, repr=False, eq=False)
    class Wrong(cls):
        def __init__(self, *args):
            cls.__init__(self, *args)

        def __hash__(self):
            return hash(cls)

        def gradient(self, a, y):
            return gradient(self, a, y, super().gradient)

        def delta(self, activation, z, a, y):
            return activation.pullback(self.gradient(a, y), z, a)

    return Wrong(*args)


LOSSES = {
    "squared: no 2": (wrong_loss(fnn.SquaredError, lambda L, a, y, right: L.scale * (a - y)), "a factor 1/2", None),
    "squared: y - a": (wrong_loss(fnn.SquaredError, lambda L, a, y, right: y - a), "the sign", None),
    "huber: not clipped": (wrong_loss(fnn.Huber, lambda L, a, y, right: a - y, 0.3), None, None),
    "softmax: y not summed": (
        wrong_loss(fnn.SoftmaxCrossEntropy, lambda L, a, y, right: jax.nn.softmax(a) - y), None, fnn.Identity()),
    "softmax: no target": (
        wrong_loss(fnn.SoftmaxCrossEntropy, lambda L, a, y, right: jax.nn.softmax(a)), None, fnn.Identity()),
    "sigmoid: y - p": (
        wrong_loss(fnn.SigmoidCrossEntropy, lambda L, a, y, right: -right(a, y)), "the sign", fnn.Identity()),
    "poisson: a count for its logarithm": (
        wrong_loss(fnn.Poisson, lambda L, a, y, right: 1 - y / a), None, fnn.Identity()),
    "poisson: no count": (wrong_loss(fnn.Poisson, lambda L, a, y, right: jnp.exp(a)), None, fnn.Identity()),
    "cross-entropy: first term only": (wrong_loss(fnn.CrossEntropy, lambda L, a, y, right: -y / a), None, None),
}  # fmt: skip
