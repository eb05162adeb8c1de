"""Update rules by hand, each an ``optax.GradientTransformation``: pairs of ``init(params)`` and ``update(g, state)``.

A rule turns gradients g_t into the step that is added to the parameters. η_t is the learning rate at step
t = 0, 1, …: a number, or a schedule, which is any function of the step count (optax's are).

    rule      step Δ_t                    the optax chain that equals it, always
    sgd       −η_t g_t                    scale_by_learning_rate(η)
    momentum  α Δ_{t−1} − η_t g_t         chain(scale_by_learning_rate(η), trace(decay=α))

``max_norm`` goes behind either, in an ``optax.chain``.

``optax.sgd(η, momentum=α)`` is chain(trace(α), scale_by_learning_rate(η)): v_t = α v_{t−1} + g_t, Δ_t = −η_t v_t.
With a constant η it equals ``momentum``, for then Δ_t = −η v_t. With a schedule it does not: there a new rate
scales the whole velocity at once, here it scales only the gradient that comes in.

Equal calls return one object, ``sgd(0.1) is sgd(0.1)``, so a compiled training loop is found again.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from fnn.numbers import number

Schedule = Callable[[Array], Any]


class State(NamedTuple):
    """The step count t, () int32, and the previous step Δ_{t−1} where the rule has one."""

    step: Array
    velocity: Any = None


def _one_object_per_value(rule):
    cached = lru_cache(maxsize=None)(rule)

    @wraps(rule)
    def call(*args, **kwargs):
        args = tuple(float(arg) if type(arg) is int else arg for arg in args)  # 1 and 1.0 are one value
        try:
            hash((args, tuple(kwargs.values())))
        except TypeError:  # a traced rate, as optax.inject_hyperparams gives: nothing to remember
            return rule(*args, **kwargs)
        return cached(*args, **kwargs)

    return call


@_one_object_per_value
def sgd(learning_rate: float | Schedule) -> optax.GradientTransformation:
    """Gradient descent, θ ← θ − η g (equations H3, B3, S3).

    learning_rate: η > 0, or a schedule step → η. Raises TypeError or ValueError on anything else.

    >>> rule = sgd(0.5)
    >>> step, state = rule.update(jnp.array([1.0, 2.0]), rule.init(jnp.zeros(2)))
    >>> step.tolist()
    [-0.5, -1.0]
    """
    return _descent(_rate("sgd", learning_rate), None)


@_one_object_per_value
def momentum(learning_rate: float | Schedule, alpha: float = 0.9) -> optax.GradientTransformation:
    """Δ ← αΔ − η g, θ ← θ + Δ; the first step has no Δ yet and is plain (equations S10: 26, 27).

    learning_rate: η > 0, or a schedule step → η, inside the velocity; alpha: 0 ≤ α < 1.
    Raises TypeError or ValueError on anything else.
    """
    if not isinstance(alpha, jax.core.Tracer) and not 0 <= number("momentum", "alpha", alpha) < 1:
        raise ValueError(f"alpha: expected 0 <= alpha < 1, got {alpha}; write momentum(0.1, alpha=0.9)")
    return _descent(_rate("momentum", learning_rate), alpha)


@_one_object_per_value
def max_norm(limit: float) -> optax.GradientTransformation:
    """Scales the step so that no neuron's incoming weights, a row of W, become longer than ``limit``: ‖w_k‖ ≤ c.

    Last in a chain, for it looks at W plus the whole step: ``optax.chain(momentum(0.1), max_norm(3.0))``. Every
    leaf with two dimensions is taken for a W. limit: c > 0. Source: Srivastava et al. 2014, section 5.1.

    >>> rule = max_norm(1.0)
    >>> W = jnp.array([[0.0, 0.0], [0.6, 0.0]])
    >>> (W + rule.update(jnp.array([[3.0, 4.0], [0.0, 0.1]]), rule.init(W), W)[0]).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.6000000238418579, 0.10000000149011612]]
    """
    if not isinstance(limit, jax.core.Tracer):
        number("max_norm", "limit", limit, above=0)

    def shorten(step, leaf):
        if leaf.ndim != 2:
            return step
        W = leaf + step
        length = jnp.sqrt(jnp.sum(W * W, axis=1, keepdims=True))
        return jnp.where(length > limit, W * (limit / jnp.where(length > limit, length, 1)) - leaf, step)

    def update(steps, state, params=None):
        if params is None:
            raise ValueError("params: max_norm needs them; write update(gradients, state, params)")
        return jax.tree.map(shorten, steps, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _descent(rate: Schedule, alpha) -> optax.GradientTransformation:
    def init(params):
        velocity = None if alpha is None else jax.tree.map(jnp.zeros_like, params)
        return State(jnp.zeros((), jnp.int32), velocity)

    def update(gradients, state, params=None):
        with jax.numpy_dtype_promotion("standard"):  # a schedule may mix dtypes: most of optax's do
            eta = rate(state.step)
        steps = jax.tree.map(lambda g: -jnp.asarray(eta, g.dtype) * g, gradients)
        if alpha is None:
            return steps, State(state.step + 1)
        steps = jax.tree.map(lambda v, s: jnp.asarray(alpha, v.dtype) * v + s, state.velocity, steps)
        return steps, State(state.step + 1, steps)

    return optax.GradientTransformation(init, update)


def _rate(call: str, learning_rate) -> Schedule:
    """The learning rate as a function of the step."""
    if callable(learning_rate):
        return learning_rate
    if not isinstance(learning_rate, jax.core.Tracer):  # a traced rate has no value yet
        number(call, "learning_rate", learning_rate, above=0)
    return lambda count: learning_rate
