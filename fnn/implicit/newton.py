"""Newton–CG with a line search: descent to a point of zero gradient, even through negative curvature.

With the gradient g and the Hessian A of a function f at u, where A is known only through products Av:

    direction  d ≈ −A⁻¹g by conjugate gradients, until ‖Ad + g‖ ≤ κ‖g‖ or a direction p with pᵀAp ≤ 0 is found
    κ          min(½, √(‖g‖/‖g_0‖)) shrinks with g: no wasted work far from the solution, superlinear convergence at it
    length     u + td with t = 1, ½, ¼, … until f has fallen by 10⁻⁴ of what the slope dᵀg predicts (Armijo) or, where
               rounding hides changes of f, until ‖g‖ has fallen

Source: Nocedal and Wright, *Numerical Optimization* (2006), algorithm 7.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

ARMIJO = 1e-4  # the required fraction of the predicted decrease
HALVINGS = 40
ROUNDINGS = 64  # the assumed error of f, in units of rounding of its terms


class State(NamedTuple):
    """The state of the search: u and g (n,), f, the Newton steps and products Av so far, and whether it has ended."""

    u: Array
    value: Array
    gradient: Array
    steps: Array
    products: Array
    over: Array


def minimise(
    evaluate: Callable, product: Callable, start: Array, *, goal: Array, scale: Array, steps: int | Array
) -> State:
    """Descend from ``start`` until ‖g‖ ≤ goal, no lower point is found, or ``steps`` steps are done.

    evaluate: u (n,) -> f and g (n,); product: u, v (n,) -> Av (n,); goal: > 0; scale: the size of the terms that sum to
    f, if they are larger than f; steps: the maximum number of steps. f never rises by more than its rounding errors.
    The search begins a full step along −g from ``start`` if f is lower there. It never enters points that are not
    finite. It aims at a quarter of the goal, so that a recomputed g, with other rounding, meets the goal as well. Once
    a step no longer halves ‖g‖, only rounding is left, and the goal suffices.
    """
    value, gradient = evaluate(start)
    u, value, gradient = _lower((start, value, gradient), (start - gradient, *evaluate(start - gradient)))
    first, zero = length(gradient), jnp.int32(0)
    noise = ROUNDINGS * float(jnp.finfo(start.dtype).eps)

    def unfinished(state):
        return (state.steps < steps) & ~state.over

    def newton(state):
        size = length(state.gradient)
        forcing = jnp.minimum(0.5, jnp.sqrt(size / first))
        tolerance = jnp.maximum(forcing * size, goal / 16)
        d, products = direction(lambda v: product(state.u, v), state.gradient, tolerance)
        here, slack = state[:3], noise * (jnp.abs(state.value) + scale)
        (u, value, gradient), found = line_search(evaluate, here, d, slack)
        left = length(gradient)
        over = ~found | (left <= goal / 4) | ((left <= goal) & (left > size / 2))
        return State(u, value, gradient, state.steps + 1, state.products + products, over)

    return lax.while_loop(unfinished, newton, State(u, value, gradient, zero, zero, first <= goal / 4))


def direction(product: Callable, gradient: Array, tolerance: Array) -> tuple[Array, Array]:
    """d with gᵀd < 0 and ‖Ad + g‖ ≤ tolerance, or as close as it gets, and the number of products Av used.

    If −g itself has negative curvature, d is −g, shortened by the curvature if that is large.
    """
    most = 2 * gradient.size + 10  # n would suffice without rounding

    def unfinished(state):
        j, _, left, _, done = state
        return (j < most) & (length(left) > tolerance) & ~done

    def step(state):
        j, d, left, p, _ = state
        Ap = product(p)
        curvature, along, squared = dot(p, Ap), dot(p, p), dot(left, left)
        convex = curvature > 0
        alpha = jnp.where(convex, squared / jnp.where(convex, curvature, 1), 0)
        alpha = jnp.where(~convex & (j == 0), along / jnp.maximum(along, -curvature), alpha)
        after = left - alpha * Ap
        return j + 1, d + alpha * p, after, after + dot(after, after) / squared * p, ~convex

    first = (jnp.int32(0), jnp.zeros_like(gradient), -gradient, -gradient, jnp.bool_(False))
    products, d, *_ = lax.while_loop(unfinished, step, first)
    return d, products


def line_search(evaluate: Callable, here: tuple, d: Array, slack: Array) -> tuple[tuple, Array]:
    """(u, f, g) at the longest u + td that is low enough, t a power of ½, and True; or unchanged, and False."""
    u, value, gradient = here
    slope, size = dot(gradient, d), length(gradient)

    def search(state):
        halvings, t, _, _ = state
        there = u + t * d, *evaluate(u + t * d)
        low = (there[1] <= value + ARMIJO * t * slope) & (there[1] < value)  # strictly, because t dᵀg may be below ε
        level = (there[1] <= value + slack) & (length(there[2]) <= (1 - ARMIJO * t) * size)
        return halvings + 1, t / 2, there, low | level

    first = (jnp.int32(0), jnp.ones_like(size), here, jnp.bool_(False))
    _, _, there, found = lax.while_loop(lambda state: ~state[-1] & (state[0] <= HALVINGS), search, first)
    return tuple(jnp.where(found, a, b) for a, b in zip(there, here)), found


def _lower(one: tuple, other: tuple) -> tuple:
    """The one of two (u, f, g) with the lower f; the first if f is NaN at the other."""
    return tuple(jnp.where(other[1] < one[1], b, a) for a, b in zip(one, other))


def dot(a: Array, b: Array) -> Array:
    """aᵀb, by pairwise summation."""
    return jnp.sum(a * b)


def length(a: Array) -> Array:
    """‖a‖."""
    return jnp.sqrt(dot(a, a))
