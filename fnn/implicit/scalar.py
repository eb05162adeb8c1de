"""The scalar equations of implicit SGD on one linear layer, each solved elementwise for any u, c and y.

With u = θᵀx̃, s = ‖x̃‖², c = ηs and z = θ'ᵀx̃, the step θ' = θ − η ∂L/∂a(z) x̃, times x̃, is z = u − c ∂L/∂a(z).

*Wright's omega*, ω + log ω = x, solves z + c e^z = A: the unknown q = c e^z satisfies q + log q = A + log c.
*Poisson*, ∂L/∂a = e^z − y: the same with A = u + cy.
*Logistic*, ∂L/∂a = σ(z) − y: replacing (z, u, y) by (−z, −u, 1 − y) if necessary, z ≤ 0. There e^z/2 ≤ σ(z) ≤ e^z,
so ω with c/2 is right of the root by less than log 2, and Newton on a convex increasing function descends to it:
each step at least squares and halves the error, and six steps reach the last bit.
*Softmax*, label k, ∂L/∂a = p − e_k: with q_j = c p_j, and ρ = log p_k/(1 − p_k), so that z_k = u_k + cσ(−ρ),
    log q_j + q_j = u_j − u_k + log c − cσ(−ρ) − softplus(−ρ) for j ≠ k,    cσ(−ρ) = Σ_{j≠k} q_j,
a single equation for ρ. If N competitors are equal and the rest absent, it is the logistic equation with c(1 + 1/N) and
u = u_k − u_j − log N; N = n − 1 and N = 1, both at the largest u_j, bracket the root.

Relative precision is kept at both ends (z near u, and z far from a huge u), and no Python code runs per example.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

MOST_STEPS = 60  # bisection in the worst case; the median is 4, and 99 % need at most 8


def log_omega(x: Array, steps: int = 3) -> Array:
    """log ω(x), where ω + log ω = x, by Halley's method: to 1e-12 after 2 steps, to the last bit after 3.

    >>> w = jnp.exp(log_omega(jnp.array([1.0, 4.0])))
    >>> (w + jnp.log(w)).round(5).tolist()
    [1.0, 4.0]
    """
    e, big = jnp.exp(jnp.minimum(x, 1)), jnp.maximum(x, 1)
    l = jnp.where(x > 1, jnp.log(big) * big / (1 + big), x - e / (1 + e))  # noqa: E741  off by 0.3 at most
    for _ in range(steps):
        w = jnp.exp(l)
        f, slope = l + w - x, 1 + w
        l = l - f / (slope - 0.5 * f * (w / slope))  # noqa: E741  w * w could overflow
    return l


def poisson(u: Array, c: Array, y: Array) -> Array:
    """The z with z = u − c (e^z − y); u, c, y of one shape, c > 0."""
    return _exponential(u + c * y, c)


def _exponential(A: Array, c: Array) -> Array:
    """The z with z + c e^z = A, from log q where q is large and z small compared with A, else from A − q."""
    log_c = jnp.log(c)
    log_q = log_omega(A + log_c)
    return jnp.where(log_q > 0, log_q - log_c, A - jnp.exp(log_q))


def logistic(u: Array, c: Array, y: Array) -> Array:
    """The z with z = u − c (σ(z) − y); u, c, y of one shape, c > 0, 0 ≤ y ≤ 1."""
    positive = u > c * (0.5 - y)
    u, y = jnp.where(positive, -u, u), jnp.where(positive, 1 - y, y)
    z = jnp.minimum(_exponential(u + c * y, c / 2), 0)
    for _ in range(6):
        p = lax.logistic(z)
        z = z - (z - u + c * (p - y)) / (1 + c * (p * (1 - p)))
    return jnp.where(positive, -z, z)


def softmax(u: Array, c: Array, hot: Array) -> Array:
    """z − u for z = u − c (softmax(z) − hot), row by row: u (B, n), c (B,), hot (B, n) bool with one True per row."""
    if u.shape[-1] == 1:
        return jnp.zeros_like(u)  # a single class has probability 1
    d = jnp.where(hot, 0, u - jnp.sum(jnp.where(hot, u, 0), axis=-1, keepdims=True))
    largest = jnp.max(jnp.where(hot, -jnp.inf, d), axis=-1)
    others, one = u.shape[-1] - 1, jnp.ones_like(c)
    low = logistic(-largest - jnp.log(one * others), c * (1 + 1 / others), one)
    high = logistic(-largest, 2 * c, one)
    eps = float(jnp.finfo(u.dtype).eps)
    log_c = jnp.log(c)

    def competitors(rho):
        """log q_j, −inf for the label."""
        m = (log_c - c * lax.logistic(-rho) - jax.nn.softplus(-rho))[..., None] + d
        return jnp.where(hot, -jnp.inf, log_omega(jnp.where(hot, 0, m)))

    def newton(state):
        """One step on log(cσ(−ρ)) − log Σ q_j, which is decreasing; bisection where Newton leaves the bracket."""
        step, rho, low, high, _ = state
        log_q, p = competitors(rho), lax.logistic(rho)
        log_sum = jax.nn.logsumexp(log_q, axis=-1)
        share = jnp.sum(jnp.exp(log_q - log_sum[..., None]) / (1 + jnp.exp(log_q)), axis=-1)
        value = log_c - jax.nn.softplus(rho) - log_sum
        low, high = jnp.where(value >= 0, rho, low), jnp.where(value <= 0, rho, high)
        new = rho + value / (p + lax.logistic(-rho) * (1 + c * p) * share)
        new = jnp.where((new >= low) & (new <= high), new, 0.5 * (low + high))
        return step + 1, new, low, high, jnp.any(jnp.abs(new - rho) > 8 * eps * (1 + jnp.abs(rho)))

    slack = eps**0.5  # the bracket's ends have rounding errors too
    state = 0, low, low - slack * (1 + jnp.abs(low)), high + slack * (1 + jnp.abs(high)), jnp.bool_(True)
    _, rho, *_ = lax.while_loop(lambda state: (state[0] < MOST_STEPS) & state[-1], newton, state)
    return jnp.where(hot, (c * lax.logistic(-rho))[..., None], -jnp.exp(competitors(rho)))
