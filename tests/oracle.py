"""A second oracle, in NumPy alone: forward passes from the formulas, and derivatives that are not autodiff's.

The complex step, Im f(t + ih)/h with h = 1e-30, subtracts nothing and so is right to the last digit; it needs
formulas that are analytic. Central differences do for the others, away from their kinks.
"""

import math

import numpy as np

H_COMPLEX = 1e-30
H_CENTRAL = 1e-6


def _logistic(z):
    return 1 / (1 + np.exp(-z))


def _softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def _gelu(z, approximate):
    if approximate:
        return 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)))
    return 0.5 * z * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))


def _gaussian(z, mu, sigma):
    return np.exp(-(z - mu) * (z - mu) / (2 * sigma * sigma)) / (sigma * math.sqrt(2 * math.pi))


def _ramp(z, m, b, x_min, x_max):
    return np.select([z <= x_min, z >= x_max], [0.0, 1.0], m * z + b)


def _huber(a, y, threshold):
    r = np.abs(a - y)
    return np.where(r <= threshold, r**2 / 2, threshold * r - threshold**2 / 2).sum(axis=-1)


def _cross_entropy(a, y, categorical):
    other = 0 if categorical else (1 - y) * np.log(1 - a)
    return -(y * np.log(a) + other).sum(axis=-1)


ACTIVATIONS = {
    "Identity": lambda z: z,
    "Sigmoid": lambda z, beta: _logistic(beta * z),
    "Tanh": np.tanh,
    "ScaledTanh": lambda z: 1.7159 * np.tanh(2 * z / 3),
    "Softsign": lambda z: z / (1 + np.abs(z)),
    "ReLU": lambda z: np.maximum(z, 0),
    "LeakyReLU": lambda z, slope: np.where(z > 0, z, slope * z),
    "ELU": lambda z: np.where(z > 0, z, np.exp(z) - 1),
    "Softplus": lambda z: np.log(1 + np.exp(z)),
    "SiLU": lambda z: z * _logistic(z),
    "GELU": _gelu,
    "Gaussian": _gaussian,
    "PiecewiseLinear": _ramp,
    "Threshold": lambda z: np.where(z >= 0, 1.0, 0.0),
    "Sign": lambda z: np.where(z >= 0, 1.0, -1.0),
    "Softmax": _softmax,
}
LOSSES = {
    "SquaredError": lambda a, y, scale: scale * ((a - y) * (a - y)).sum(axis=-1),
    "Huber": _huber,
    "SoftmaxCrossEntropy": lambda a, y: (y * (np.log(np.exp(a).sum(axis=-1, keepdims=True)) - a)).sum(axis=-1),
    "SigmoidCrossEntropy": lambda a, y: (np.log(1 + np.exp(a)) - y * a).sum(axis=-1),
    "CrossEntropy": _cross_entropy,
    "Poisson": lambda a, y: (np.exp(a) - y * a).sum(axis=-1),
}


def normalise(psi, gamma, beta, eps, fixed):
    """Batch normalisation; with ``fixed`` the statistics lose their imaginary part, and with it their derivative."""
    mu = psi.mean(axis=0)
    nu = ((psi - mu) * (psi - mu)).mean(axis=0)
    if fixed:
        mu, nu = mu.real, nu.real
    return gamma * (psi - mu) / np.sqrt(nu + eps) + beta


def forward(leaves, layers):
    """Every layer's z, and the output. ``leaves`` holds x and W1, b1, W2, ...; ``layers`` the fixed things."""
    a, weighted = leaves["x"], []
    for i, layer in enumerate(layers, start=1):
        W = leaves[f"W{i}"] * layer.get("arrows", 1)
        z = (a * layer.get("units", 1)) @ W.T + leaves[f"b{i}"]
        if "norm" in layer:
            z = normalise(z, leaves[f"gamma{i}"], leaves[f"beta{i}"], **layer["norm"])
        activation, parameters = layer["activation"]
        a = ACTIVATIONS[activation](z, **parameters)
        weighted.append(z)
    return weighted, a


def cost(leaves, layers, y, loss):
    """The sum over the examples."""
    name, parameters = loss
    return LOSSES[name](forward(leaves, layers)[1], y, **parameters).sum()


def _entry_by_entry(f, leaves, dtype, slope):
    gradients = {}
    for name, leaf in leaves.items():
        gradients[name] = np.empty(leaf.shape)
        for index in np.ndindex(leaf.shape):

            def along(step, name=name, index=index):
                moved = {key: value.astype(dtype) for key, value in leaves.items()}
                moved[name][index] += step
                return f(moved)

            gradients[name][index] = slope(along)
    return gradients


def complex_step(f, leaves):
    """∂f/∂leaf for every entry of every leaf, of an analytic f."""
    return _entry_by_entry(f, leaves, np.complex128, lambda along: along(1j * H_COMPLEX).imag / H_COMPLEX)


def central_differences(f, leaves):
    """∂f/∂leaf for every entry of every leaf, to about nine digits."""

    def slope(along):
        return (along(H_CENTRAL) - along(-H_CENTRAL)) / (2 * H_CENTRAL)

    return _entry_by_entry(f, leaves, np.float64, slope)
