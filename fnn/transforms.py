"""What stands around an update rule in an ``optax.chain``: clipping and decay, and what all the rules share.

``fnn.updates`` has the table, and these names too.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, wraps
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from fnn.checks.numbers import number

Schedule = Callable[[Array], Any]


class State(NamedTuple):
    """The step count t, () int32, and the velocity v_{t−1} where the rule has one."""

    step: Array
    velocity: Any = None


def one_object_per_value(rule):
    """Decorates a rule, so that calls with equal arguments, however they are written, return one object."""
    cached, parameters = lru_cache(maxsize=None)(rule), signature(rule)

    @wraps(rule)
    def call(*args, **kwargs):
        given = parameters.bind(*args, **kwargs)
        given.apply_defaults()
        values = tuple(float(value) if type(value) is int else value for value in given.args)  # 1 and 1.0 are one
        try:
            hash(values)
        except TypeError:  # a traced rate, as optax.inject_hyperparams gives: nothing to remember
            return rule(*values)
        return cached(*values)

    return call


@one_object_per_value
def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Shortens the gradient to length c: g ← g min(1, c/‖g‖), with ‖g‖ over all leaves together.

    In front of a rule: ``optax.chain(clip_by_global_norm(1.0), sgd(0.1))``. limit: c > 0. ‖g‖ is summed in float32
    at least; a zero gradient stays zero. Raises TypeError or ValueError. Source: Pascanu et al. 2013, section 3.2.

    >>> rule = clip_by_global_norm(1.0)
    >>> g = {"W": jnp.array([[3.0]]), "b": jnp.array([4.0])}
    >>> jax.tree.map(lambda leaf: leaf.round(3).tolist(), rule.update(g, rule.init(g))[0])
    {'W': [[0.6000000238418579]], 'b': [0.800000011920929]}
    """
    checked("clip_by_global_norm", "limit", limit, above=0)

    def update(gradients, state, params=None):
        with jax.numpy_dtype_promotion("standard"):  # leaves may differ in dtype, and each keeps its own
            wide = jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), gradients)
            norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(wide)))
            factor = jnp.minimum(1, limit / norm)  # 1 at norm = 0, for c / 0 is infinite
            return jax.tree.map(lambda g, w: (w * factor).astype(g.dtype), gradients, wide), state

    return optax.GradientTransformation(_no_state, update)


@one_object_per_value
def weight_decay(decay: float) -> optax.GradientTransformation:
    """Coupled weight decay, g ← g + λθ: the gradient of C + ½ λ‖θ‖², L2 regularisation.

    In front of a rule: ``optax.chain(weight_decay(1e-4), momentum(0.1))``. decay: λ ≥ 0. Every leaf decays, biases
    and a batch norm's γ and β too; ``optax.masked`` leaves some out. Raises TypeError or ValueError.
    Source: Loshchilov and Hutter 2019, algorithm 1.

    >>> rule = weight_decay(0.5)
    >>> params = {"W": jnp.array([[2.0]]), "b": jnp.array([4.0])}
    >>> g = jax.tree.map(jnp.zeros_like, params)
    >>> jax.tree.map(lambda leaf: leaf.tolist(), rule.update(g, rule.init(params), params)[0])
    {'W': [[1.0]], 'b': [2.0]}
    >>> weights_only = optax.masked(rule, lambda params: jax.tree.map(lambda leaf: leaf.ndim == 2, params))
    >>> jax.tree.map(lambda leaf: leaf.tolist(), weights_only.update(g, weights_only.init(params), params)[0])
    {'W': [[1.0]], 'b': [0.0]}
    """
    checked("weight_decay", "decay", decay, least=0)

    def update(gradients, state, params=None):
        return _plus("weight_decay", gradients, decay, params), state

    return optax.GradientTransformation(_no_state, update)


@one_object_per_value
def decoupled_weight_decay(learning_rate: float | Schedule, decay: float) -> optax.GradientTransformation:
    """Decoupled weight decay, Δ ← Δ − η_t λθ: θ shrinks by the factor 1 − η_t λ, whatever the rule in front does.

    Behind a rule and with its rate: ``optax.chain(momentum(rate), decoupled_weight_decay(rate, 1e-4))`` is SGDW;
    behind ``optax.adam(rate)`` it is ``optax.adamw``, where add_decayed_weights(λ) stands between velocity and rate.
    λ is multiplied by the whole rate, as in optax; in the source by the schedule's factor alone.
    learning_rate: η > 0, or a schedule step → η; decay: λ ≥ 0, of every leaf (see :func:`weight_decay`).
    Raises TypeError or ValueError. Source: Loshchilov and Hutter 2019, algorithm 1.

    >>> rule, W = decoupled_weight_decay(0.5, 0.1), jnp.array([2.0])
    >>> rule.update(jnp.array([-1.0]), rule.init(W), W)[0].tolist()
    [-1.100000023841858]
    """
    rate = as_schedule("decoupled_weight_decay", learning_rate)
    checked("decoupled_weight_decay", "decay", decay, least=0)

    def update(steps, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            factor = -rate_at(rate, state.step) * decay
        return _plus("decoupled_weight_decay", steps, factor, params), State(state.step + 1)

    return optax.GradientTransformation(lambda params: State(jnp.zeros((), jnp.int32)), update)


@one_object_per_value
def max_norm(limit: float) -> optax.GradientTransformation:
    """Scales the step so that no neuron's incoming weights, a row of W, become longer than ``limit``: ‖w_k‖ ≤ c.

    Last in a chain, for it looks at W plus the whole step: ``optax.chain(momentum(0.1), max_norm(3.0))``. Every
    leaf with two dimensions is taken for a W; of a ``Stack``, its W. limit: c > 0.
    Source: Srivastava et al. 2014, section 5.1.

    >>> rule = max_norm(1.0)
    >>> W = jnp.array([[0.0, 0.0], [0.6, 0.0]])
    >>> (W + rule.update(jnp.array([[3.0, 4.0], [0.0, 0.1]]), rule.init(W), W)[0]).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.6000000238418579, 0.10000000149011612]]
    """
    checked("max_norm", "limit", limit, above=0)

    def stacked(node):
        return getattr(node, "stacked", False)

    def shorten(step, leaf):
        if stacked(leaf):  # its b has two axes, and is no W
            return replace(step, W=jax.vmap(shorten)(step.W, leaf.W))
        if leaf.ndim != 2:
            return step
        W = leaf + step
        length = jnp.sqrt(jnp.sum(W * W, axis=1, keepdims=True))
        return jnp.where(length > limit, W * (limit / jnp.where(length > limit, length, 1)) - leaf, step)

    def update(steps, state, params=None):
        return jax.tree.map(shorten, steps, _needed("max_norm", params), is_leaf=stacked), state

    return optax.GradientTransformation(_no_state, update)


# -- what they share -------------------------------------------------------------------------------------------


def _no_state(params):
    return optax.EmptyState()


def _plus(call: str, tree, factor, params):
    """tree + factor · params, in the dtypes of ``tree``."""
    return jax.tree.map(lambda t, p: t + jnp.asarray(factor, t.dtype) * p.astype(t.dtype), tree, _needed(call, params))


def _needed(call: str, params):
    if params is None:
        raise ValueError(f"params: {call} needs them; write update(gradients, state, params)")
    return params


def rate_at(rate: Schedule, step: Array):
    """η_t, a scalar of whatever dtype."""
    with jax.numpy_dtype_promotion("standard"):  # a schedule may mix dtypes: most of optax's do
        return rate(step)


def as_schedule(call: str, learning_rate) -> Schedule:
    """The learning rate as a function of the step."""
    checked_rate(call, learning_rate)
    return learning_rate if callable(learning_rate) else lambda count: learning_rate


def checked_rate(call: str, learning_rate):
    """``learning_rate``, a schedule as it is, a number > 0; raises TypeError or ValueError on anything else."""
    return learning_rate if callable(learning_rate) else checked(call, "learning_rate", learning_rate, above=0)


def checked(call: str, name: str, value, **bounds):
    """``value``, checked unless it is traced and has no value yet."""
    if not isinstance(value, jax.core.Tracer):
        number(call, name, value, **bounds)
    return value
