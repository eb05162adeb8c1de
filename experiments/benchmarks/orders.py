"""Five orders of the chain rule that end in the same gradient, and the operations each takes, for ``chain_rule``.

One example, square tanh layers with a linear last one, ½‖a − y‖². Counts are XLA's ``cost_analysis`` of the program
before it is optimized, where it has no loops; of a loop they are of one step, times the steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

import fnn

OURS = "backward order"
AT_ONCE = 64  # parameters whose passes run as one batch: one at a time, most of the time is calls
STEP = 1e-2  # of a difference in float32: rounding and curvature are about equal


class Chain(NamedTuple):
    """What the chain rule multiplies: δ^L (n,), and W (L, n, n), σ'(z) (L, n), a_in (L, n) of every layer."""

    top: jax.Array
    W: jax.Array
    slopes: jax.Array
    inputs: jax.Array


def stacked(params) -> tuple[jax.Array, jax.Array]:
    """W (L, n, n) and b (L, n) of all layers."""
    layers = fnn.unstack(params)
    return jnp.stack([layer.W for layer in layers]), jnp.stack([layer.b for layer in layers])


def chain(W, b, x, y) -> Chain:
    """The forward pass, with a linear last layer."""

    def layer(a, of):
        return jnp.tanh(of[0] @ a + of[1]), a

    a, inputs = lax.scan(layer, x, (W[:-1], b[:-1]))
    inputs = jnp.concatenate([inputs, a[None]])
    slopes = jnp.concatenate([1 - inputs[1:] ** 2, jnp.ones_like(x)[None]])  # tanh' of the next layer's input
    return Chain(W[-1] @ a + b[-1] - y, W, slopes, inputs)


def chain_factor(c: Chain, later, delta):
    """δ^{ℓ−1} = (δ^ℓ W^ℓ) ⊙ σ'(z^{ℓ−1})."""
    return (delta @ c.W[later]) * c.slopes[later - 1]


def jacobian_factor(c: Chain, later, J):
    """∂z^ℓ/∂z^k = W^ℓ diag(σ'(z^{ℓ−1})) ∂z^{ℓ−1}/∂z^k."""
    return c.W[later] @ (c.slopes[later - 1][:, None] * J)


def each_chain_anew(W, b, x, y):
    c = chain(W, b, x, y)

    def of_layer(layer):
        top = len(W) - 1
        delta = lax.fori_loop(0, top - layer, lambda step, delta: chain_factor(c, top - step, delta), c.top)
        return jnp.outer(delta, c.inputs[layer]), delta

    return lax.map(of_layer, jnp.arange(len(W)))


def jacobians_anew(W, b, x, y):
    c = chain(W, b, x, y)

    def of_layer(layer):
        unit = jnp.eye(W.shape[1], dtype=W.dtype)
        J = lax.fori_loop(layer + 1, len(W), lambda later, J: jacobian_factor(c, later, J), unit)
        delta = c.top @ J
        return jnp.outer(delta, c.inputs[layer]), delta

    return lax.map(of_layer, jnp.arange(len(W)))


def cost(x, y, W, b):
    """½‖a − y‖²."""
    return 0.5 * jnp.sum(chain(W, b, x, y).top ** 2)


def along(W, b, x, y, direction):
    """∂C/∂θ · direction, forwards."""
    flat, unravel = ravel_pytree((W, b))
    return jax.jvp(lambda flat: cost(x, y, *unravel(flat)), (flat,), (direction,))[1]


def moved(W, b, x, y, direction):
    """C at a small step along the direction."""
    flat, unravel = ravel_pytree((W, b))
    return cost(x, y, *unravel(flat + STEP * direction))


def by_parameter(value: Callable, W, b, x, y):
    """``value`` for the direction of every parameter, shaped as W and b."""
    flat, unravel = ravel_pytree((W, b))

    def one(i):
        return value(W, b, x, y, jnp.zeros_like(flat).at[i].set(1))

    return unravel(lax.map(one, jnp.arange(flat.size), batch_size=AT_ONCE))


def differences(W, b, x, y):
    flat, unravel = ravel_pytree(by_parameter(moved, W, b, x, y))
    return unravel((flat - cost(x, y, W, b)) / STEP)


def forward_mode(W, b, x, y):
    return by_parameter(along, W, b, x, y)


def backward_order(params, x, y):
    return fnn.backprop(params, x, y, reduction="sum")


NAIVE: dict[str, Callable] = {
    "each chain anew": each_chain_anew,
    "Jacobians anew": jacobians_anew,
    "forward mode": forward_mode,
    "differences": differences,
}


def problem(depth: int, width: int):
    """The network, stacked where it has equal hidden layers, an example and its target."""
    params = fnn.init(jax.random.key(0), (width,) * (depth + 1), activation=fnn.Tanh(), stack=True)
    x, y = jax.random.normal(jax.random.key(1), (2, width))
    return params, x, y


def flops(function: Callable, *arguments) -> float:
    """XLA's count for a program without loops, before it is optimized."""
    analysis: Any = jax.jit(function).lower(*arguments).cost_analysis()
    return analysis["flops"]


def counts(depth: int, width: int) -> dict[str, float]:
    """Floating-point operations of every way: of what is repeated, times its repeats."""
    params, x, y = problem(depth, width)
    W, b = stacked(params)
    c, pairs = chain(W, b, x, y), depth * (depth - 1) // 2  # of a layer and a later one

    def unrolled(W, b, x, y):
        """The cost, its loop over layers written out, for a loop's body is counted once."""
        for layer in range(depth - 1):
            x = jnp.tanh(W[layer] @ x + b[layer])
        return 0.5 * jnp.sum((W[-1] @ x + b[-1] - y) ** 2)

    forward = flops(unrolled, W, b, x, y)
    tangent = flops(lambda W, b, x, y: jax.jvp(lambda W, b: unrolled(W, b, x, y), (W, b), (W, b))[1], W, b, x, y)
    ends = depth * flops(jnp.outer, c.top, x)
    parameters = W.size + b.size
    return {
        OURS: flops(backward_order, fnn.unstack(params), x, y),
        "each chain anew": forward + pairs * flops(partial(chain_factor, c, 1), c.top) + ends,
        "Jacobians anew": forward
        + pairs * flops(partial(jacobian_factor, c, 1), c.W[0])
        + depth * flops(jnp.matmul, c.top, c.W[0])
        + ends,
        "forward mode": parameters * tangent,
        "differences": (parameters + 1) * forward,
    }
