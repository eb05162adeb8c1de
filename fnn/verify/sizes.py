"""The size of the terms that a line sums, by which its error is judged."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from fnn.batchnorm import standardise
from fnn.losses import as_targets
from fnn.masks import masked
from fnn.verify.interpret import evaluate, is_array
from fnn.verify.oracle import AUTODIFF, loss_gradient
from fnn.verify.report import norm

DELTAS = ("output_delta", "hidden_delta")
BETWEEN = (1.0, 0.6, 0.3, 0.1, 1e-3, -0.1, -0.3, -1.0)


def upstream(rule: str, args: tuple) -> np.ndarray:
    """g = ∂/∂a, of which a δ is the product with σ'."""
    if rule == "hidden_delta":
        return np.asarray(args[0])
    loss, _, _, a, y = args
    g = evaluate(loss_gradient, loss, a, y)
    return np.where(np.isfinite(g), g, 0)


def _largest_product(rule: str, args: tuple) -> float:
    """The largest size of g ⊙ σ' between 0 and z: what a formula for a small σ' may be the difference of."""
    g, activation, z = upstream(rule, args), args[1], np.asarray(args[2])
    products = (evaluate(AUTODIFF.hidden_delta, g, activation, t * z, None) for t in BETWEEN)
    return max(norm(np.where(np.isfinite(product), product, 0)) for product in products)


def size(rule: str, part: int, args: tuple, oracle: np.ndarray, tolerance: float) -> float:
    """The size of the terms that a line sums, and a share of factors that may be much larger than their product."""
    rounding = 16 * float(jnp.finfo(oracle.dtype).eps) / tolerance
    absolute: list[Any] = [np.abs(np.asarray(arg, np.float64)) if is_array(arg) else arg for arg in args]
    if rule in DELTAS:
        factors = _largest_product(rule, args)
        if rule == "output_delta":
            factors += norm(args[3]) + norm(evaluate(as_targets, np.asarray(args[4]), args[3]))
        return norm(oracle) + rounding * factors
    if rule == "norm_pullback":
        batch_norm, psi, delta_z = args
        return _norm_sizes(batch_norm, psi, delta_z, rounding)[part]
    if rule == "normalise":
        return norm(oracle) + norm(args[0].beta) + norm(args[0].gamma) + rounding * norm(args[1])
    if rule == "affine":
        a_in, W, b = absolute
        return norm(a_in @ W.T + b)
    if rule == "weight_gradient":
        delta, a_in, mask = absolute
        return norm(masked(delta.T @ a_in, mask))
    if rule == "input_gradient":
        delta, W, mask = absolute
        return norm(masked(delta @ W, mask))
    return norm(absolute[0].sum(axis=0))


def _norm_sizes(batch_norm, psi, delta_z, rounding: float) -> tuple[float, float, float]:
    """The sizes of the terms that a batch norm's pull-back sums."""
    x_hat, s = (np.abs(value) for value in evaluate(standardise, batch_norm, psi))
    x_hat = x_hat + rounding * np.abs(psi) / s  # x̂ is a difference of numbers that may be nearly equal
    delta_z = np.abs(delta_z)
    h = np.abs(np.asarray(batch_norm.gamma)) * delta_z
    terms = (h + h.mean(axis=0) + x_hat * (h * x_hat).mean(axis=0)) / s
    return norm(terms), norm((delta_z * x_hat).sum(axis=0)), norm(delta_z.sum(axis=0))
