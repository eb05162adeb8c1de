"""Newton–CG with a line search: from a point down to where the gradient is 0, though the curvature may be negative.

With g the gradient and A the Hessian of a function f at u, of which products Av are all that is known:

    direction  d ≈ −A⁻¹g by conjugate gradients, until ‖Ad + g‖ ≤ κ‖g‖, or until a direction p with pᵀAp ≤ 0 turns up
    κ          min(½, √(‖g‖/‖g_0‖)) shrinks with g: no work is lost far from the end, and the end is superlinear
    length     u + td with t = 1, ½, ¼, … until f has fallen by 10⁻⁴ of what the slope dᵀg foretells (Armijo); where
               f cannot tell, for its rounding, until ‖g‖ has fallen

Source: Nocedal and Wright, *Numerical Optimization* (2006), algorithm 7.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

ARMIJO = 1e-4  # the part of the foretold decrease that has to come true
HALVINGS = 40
ROUNDINGS = 64  # f is taken to be known to within so many units of rounding of its terms


class State(NamedTuple):
    """Where the search stands: u and g (n,), f, the Newton steps and products Av so far, and whether it is over."""

    u: Array
    value: Array
    gradient: Array
    steps: Array
    products: Array
    over: Array


def minimise(
    evaluate: Callable, product: Callable, start: Array, *, goal: Array, scale: Array, steps: int | Array
) -> State:
    """From ``start`` down to ‖g‖ ≤ goal; not so far only where no lower point is found, or after ``steps`` steps.

    evaluate: u (n,) -> f and g (n,); product: u, v (n,) -> Av (n,); goal: > 0; scale: the size of the terms of which f
    is the sum, if they are larger than f; steps: Newton's, at most. f never rises by more than its rounding errors.
    A whole step along −g is where it begins, if f is lower there. What is not finite on the way is not entered.
    A quarter of the goal is aimed at, so that the rounding of whoever computes g again is within the goal as well;
    but where a step does not halve ‖g‖ any more, rounding is all that is left of it, and the goal is enough.
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
    """d with gᵀd < 0 and ‖Ad + g‖ ≤ tolerance, or as far as that gets, and the number of products Av it took.

    Where −g itself has negative curvature, it is d, shortened by the curvature if that is large.
    """
    most = 2 * gradient.size + 10  # n would be enough without rounding

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
    """(u, f, g) at the longest u + td that is low enough, t a power of ½, and True; or as they were, and False."""
    u, value, gradient = here
    slope, size = dot(gradient, d), length(gradient)

    def search(state):
        halvings, t, _, _ = state
        there = u + t * d, *evaluate(u + t * d)
        low = (there[1] <= value + ARMIJO * t * slope) & (there[1] < value)  # and not equal, for t dᵀg may be below ε
        level = (there[1] <= value + slack) & (length(there[2]) <= (1 - ARMIJO * t) * size)
        return halvings + 1, t / 2, there, low | level

    first = (jnp.int32(0), jnp.ones_like(size), here, jnp.bool_(False))
    _, _, there, found = lax.while_loop(lambda state: ~state[-1] & (state[0] <= HALVINGS), search, first)
    return tuple(jnp.where(found, a, b) for a, b in zip(there, here)), found


def _lower(one: tuple, other: tuple) -> tuple:
    """Of two (u, f, g) the one where f is lower; the first, where f is NaN at the other."""
    return tuple(jnp.where(other[1] < one[1], b, a) for a, b in zip(one, other))


def dot(a: Array, b: Array) -> Array:
    """aᵀb, by addition in pairs."""
    return jnp.sum(a * b)


def length(a: Array) -> Array:
    """‖a‖."""
    return jnp.sqrt(dot(a, a))
