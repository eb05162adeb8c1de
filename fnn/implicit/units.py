"""The proximal step of one unit: minimise η b σ(wᵀa) + ½‖w − w_t‖² over w, with b = ∂L/∂a held fixed.

w − w_t is a multiple of a (bias included, s = ‖a‖² + 1). With u = w_tᵀa and w = w_t + αa this is a problem in
z = u + sα: minimise κσ(z) + ½(z − u)² with κ = ηsb, and α = (z − u)/s. It is not convex for every
κ; the lower of two minima wins.

*Identity*: α = −ηb, the explicit step.
*ReLU*: for b ≥ 0, down to the kink at most: z = min(u, max(u − κ, 0)). For b < 0 the two candidates are z = u − κ > 0,
with objective κu − ½κ², and z = u < 0, with objective 0. The first is lower where u > κ/2.
*Sigmoid*: replacing (z, u, κ) by (−z, −u, −κ) if necessary, κ ≥ 0; u − κ/4 ≤ z ≤ u and h(z) = z − u + κσ'(z) = 0.
σ' falls fastest at Z = log(2 + √3), so z + κσ'(z) rises and then falls left of Z, and falls and then rises right of it:
at most one minimum on either side. Right of Z, h is convex, and Newton from z = u descends to the minimum if there is
one. Left of Z, Newton is bracketed and starts from the solution for σ' ≈ ½e^z (Wright's omega).
The lower objective wins. Both minima can exist only for κ > 6√3.
*Sigmoid(β)*: βz instead of z and β²κ instead of κ. *Tanh*: tanh z = 2σ(2z) − 1, so ½ of the solution for (2u, 8κ).

Source: Fagan and Iyengar, *Robust implicit backpropagation* (2018), who find α by other means.
"""

import math

import jax.numpy as jnp
from jax import Array, lax

from fnn.activations import Activation, Identity, ReLU, Sigmoid, Tanh
from fnn.implicit.scalar import log_omega

Z = math.log(2 + math.sqrt(3))
HAVE_STEP = (Identity, ReLU, Sigmoid, Tanh)


def unit_step(activation: Activation, u: Array, b: Array, eta: Array, s: Array, steps: int) -> Array:
    """α for every unit and example, (B, n): u, b (B, n), s (B, 1), eta (); steps: Newton steps (Sigmoid, Tanh)."""
    if type(activation) is Identity:
        return -eta * b
    kappa = eta * s * b
    if type(activation) is ReLU:
        return (relu(u, kappa) - u) / s
    if type(activation) is Sigmoid:
        beta = activation.beta
        return (sigmoid(beta * u, beta * beta * kappa, steps) / beta - u) / s
    return (0.5 * sigmoid(2 * u, 8 * kappa, steps) - u) / s


def relu(u: Array, kappa: Array) -> Array:
    """The z that minimises κ max(z, 0) + ½(z − u)²; u and kappa of one shape."""
    down = jnp.minimum(u, jnp.maximum(u - kappa, 0))
    return jnp.where(kappa >= 0, down, jnp.where(2 * u > kappa, u - kappa, u))


def sigmoid(u: Array, kappa: Array, steps: int) -> Array:
    """The z that minimises κσ(z) + ½(z − u)², by ``steps`` Newton steps on either side; u and kappa of one shape."""
    sign = jnp.where(kappa < 0, jnp.full_like(u, -1), 1)
    u, kappa = sign * u, sign * kappa
    right, left = _right(u, kappa, steps), _left(u, kappa, steps)
    lower = _objective(right, u, kappa) < _objective(left, u, kappa)
    return sign * jnp.where(lower, right, left)


def _stationary(z: Array, u: Array, kappa: Array) -> tuple[Array, Array]:
    """h(z) = z − u + κσ'(z) and h'(z), from one exponential."""
    e = jnp.exp(-jnp.abs(z))
    r = 1 / (1 + e)
    slope = kappa * (e * r * r)
    return z - u + slope, 1 - slope * jnp.sign(z) * ((1 - e) * r)


def _right(u, kappa, steps):
    low = jnp.minimum(jnp.maximum(u - 0.25 * kappa, Z), u)

    def newton(_, z):
        h, dh = _stationary(z, u, kappa)
        return jnp.where(dh > 0, jnp.clip(z - h / dh, low, u), low)

    return lax.fori_loop(0, steps, newton, u)


def _left(u, kappa, steps):
    low = u - 0.25 * kappa
    high = jnp.maximum(jnp.minimum(u, Z), low)
    log_half = jnp.log(0.5 * kappa)
    log_q = log_omega(u + log_half, steps=0)
    start = jnp.clip(jnp.where(log_q > 0, log_q - log_half, u - jnp.exp(log_q)), low, high)

    def newton(_, state):
        z, low, high = state
        h, dh = _stationary(z, u, kappa)
        beyond = (h > 0) | (dh <= 0)  # past the minimum, or past the maximum behind it
        low, high = jnp.where(beyond, low, z), jnp.where(beyond, z, high)
        new = z - h / dh
        return jnp.where((dh > 0) & (new >= low) & (new <= high), new, 0.5 * (low + high)), low, high

    return lax.fori_loop(0, steps, newton, (start, low, high))[0]


def _objective(z, u, kappa):
    return kappa / (1 + jnp.exp(-z)) + 0.5 * (z - u) ** 2
