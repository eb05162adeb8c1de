"""Hand-written update rules, each an ``optax.GradientTransformation``, a pair ``init(params)``, ``update(g, state)``.

A rule turns gradients g_t into the step that is added to the parameters. η_t is the learning rate at step
t = 0, 1, …: a number, or a schedule, which is any function of the step count (such as optax's).

    rule      step Δ_t                               equivalent optax chain
    sgd       −η_t g_t                               scale_by_learning_rate(η)
    momentum  v_t,  v_t = α v_{t−1} − η_t g_t        chain(scale_by_learning_rate(η), trace(α))
    nesterov  α v_t − η_t g_t,  v_t as above         chain(scale_by_learning_rate(η), trace(α, nesterov=True))

In an ``optax.chain``, transformations before a rule change g, and those after it change Δ:

    clip_by_global_norm(c)        before     g min(1, c/‖g‖)        clip_by_global_norm(c), which overflows at 1e20
    max_norm(c)                   last       ‖w_k‖ ≤ c              none

and from optax, combined with these rules:

    add_decayed_weights(λ)        before     g + λθ, coupled: the gradient of C + ½ λ‖θ‖²; mask=fnn.is_weight for W
    add_decayed_weights(t ↦ −η_t λ)  after   Δ − η_t λθ, decoupled: θ shrinks by 1 − η_t λ whatever the rule

Conventions, where textbooks differ:

- The rate is inside the velocity, as in Polyak 1964, Sutskever et al. 2013 and Keras. In PyTorch and
  ``optax.sgd(η, momentum=α)`` it is outside: chain(trace(α), scale_by_learning_rate(η)), v_t = α v_{t−1} + g_t,
  Δ_t = −η_t v_t. The two are equal for constant η but not with a schedule: there a new rate scales the whole velocity
  at once, here it scales only the incoming gradient.
- There is no dampening: g enters in full. The average α v + (1 − α) g is ``momentum(η (1 − α), α)`` here.
- Coupled decay is the gradient of ½ λ‖θ‖² and enters the velocity together with g. Decoupled decay shrinks θ by η_t λ,
  whatever the rule. With ``sgd`` they are the same.

Rates and other numbers are data of a compiled training loop (``fnn.optimizers``), so ``sgd(0.1)`` and ``sgd(0.2)``
share one. Equal calls return the same object, ``sgd(0.1) is sgd(learning_rate=0.1)``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial, wraps
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from fnn.checks import arrays
from fnn.numbers import number, whole
from fnn.optimizers import Optimizer

# as the site lists them
__all__ = ["sgd", "momentum", "nesterov", "clip_by_global_norm", "max_norm", "descend", "Path", "State", "Schedule"]

Schedule = Callable[[Array], Any]


class State(NamedTuple):
    """The step count t, () int32, and the velocity v_{t−1} if the rule has one."""

    step: Array
    velocity: Any = None


def one_object_per_value(rule):
    """Decorator for rules: calls with equal arguments, however they are written, return the same object."""
    cached, parameters = lru_cache(maxsize=None)(rule), signature(rule)

    @wraps(rule)
    def call(*args, **kwargs):
        given = parameters.bind(*args, **kwargs)
        given.apply_defaults()
        values = tuple(float(value) if type(value) is int else value for value in given.args)  # 1 equals 1.0
        try:
            hash(values)
        except TypeError:  # a traced rate, as from optax.inject_hyperparams, cannot be cached
            return rule(*values)
        if any(type(value) is bool for value in values):  # True equals 1.0, and is refused
            return rule(*values)
        return cached(*values)

    return call


@one_object_per_value
def sgd(learning_rate: float | Schedule) -> optax.GradientTransformation:
    """Gradient descent, θ ← θ − η g.

    learning_rate: η > 0, or a schedule step → η. Raises TypeError or ValueError for anything else.

    >>> rule = sgd(0.5)
    >>> step, state = rule.update(jnp.array([1.0, 2.0]), rule.init(jnp.zeros(2)))
    >>> step.tolist()
    [-0.5, -1.0]
    """
    return _descent(as_schedule("sgd", learning_rate))


@one_object_per_value
def momentum(learning_rate: float | Schedule, alpha: float = 0.9) -> optax.GradientTransformation:
    """Momentum: Δ ← αΔ − η g, θ ← θ + Δ, starting from Δ = 0.

    Where g = 0, θ still moves by αΔ; this includes weights that dropout removes from a mini-batch.

    learning_rate: η > 0, or a schedule step → η, inside the velocity; alpha: 0 ≤ α < 1.
    Raises TypeError or ValueError for anything else.

    >>> rule, g = momentum(0.5, alpha=0.5), jnp.array([1.0, 2.0])
    >>> first, state = rule.update(g, rule.init(g))
    >>> first.tolist(), rule.update(g, state)[0].tolist()
    ([-0.5, -1.0], [-0.75, -1.5])
    """
    return _descent(as_schedule("momentum", learning_rate), _alpha("momentum", alpha))


@one_object_per_value
def nesterov(learning_rate: float | Schedule, alpha: float = 0.9) -> optax.GradientTransformation:
    """Nesterov momentum: v ← αv − η g, θ ← θ + αv − η g, with g at the stored θ.

    The stored θ is the look-ahead point ϑ + αv of Sutskever et al., so the methods are equivalent.
    learning_rate: η > 0, or a schedule step → η, inside the velocity; alpha: 0 ≤ α < 1.
    Raises TypeError or ValueError for anything else. Source: Sutskever et al. 2013, equations 3 and 4.

    >>> rule, g = nesterov(0.5, alpha=0.5), jnp.array([1.0, 2.0])
    >>> first, state = rule.update(g, rule.init(g))
    >>> first.tolist(), rule.update(g, state)[0].tolist()
    ([-0.75, -1.5], [-0.875, -1.75])
    """
    return _descent(as_schedule("nesterov", learning_rate), _alpha("nesterov", alpha), ahead=True)


def _descent(rate: Schedule, alpha=None, ahead: bool = False) -> optax.GradientTransformation:
    def init(params):
        velocity = None if alpha is None else jax.tree.map(jnp.zeros_like, params)
        return State(jnp.zeros((), jnp.int32), velocity)

    def update(gradients, state, params=None):
        eta = rate_at(rate, state.step)
        steps = jax.tree.map(lambda g: -jnp.asarray(eta, g.dtype) * g, gradients)
        if alpha is None:
            return steps, State(state.step + 1)

        def roll(v, step):
            return jnp.asarray(alpha, v.dtype) * v + step

        velocity = jax.tree.map(roll, state.velocity, steps)
        steps = jax.tree.map(roll, velocity, steps) if ahead else velocity
        return steps, State(state.step + 1, velocity)

    return optax.GradientTransformation(init, update)


def _alpha(call: str, alpha):
    checked(call, "alpha", alpha)
    if not isinstance(alpha, jax.core.Tracer) and not 0 <= alpha < 1:
        raise ValueError(f"alpha: expected 0 <= alpha < 1, got {alpha}; write {call}(0.1, alpha=0.9)")
    return alpha


@one_object_per_value
def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Clips the gradient to norm c: g ← g min(1, c/‖g‖), with ‖g‖ over all leaves together.

    Goes before a rule: ``optax.chain(clip_by_global_norm(1.0), sgd(0.1))``. limit: c > 0. Entries are rescaled before
    they are squared, so that ‖g‖ neither overflows nor underflows; a zero gradient stays zero. Raises TypeError or
    ValueError. Source: Pascanu et al. 2013, section 3.2.

    >>> rule = clip_by_global_norm(1.0)
    >>> g = {"W": jnp.array([[3.0]]), "b": jnp.array([4.0])}
    >>> jax.tree.map(lambda leaf: leaf.round(3).tolist(), rule.update(g, rule.init(g))[0])
    {'W': [[0.6000000238418579]], 'b': [0.800000011920929]}
    """
    checked("clip_by_global_norm", "limit", limit, above=0)

    def update(gradients, state, params=None):
        with jax.numpy_dtype_promotion("standard"):  # leaves may differ in dtype; each keeps its own
            wide = jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), gradients)
            scale = _scale(jnp.max(jnp.stack([jnp.max(jnp.abs(g), initial=0) for g in jax.tree.leaves(wide)])))
            units = jax.tree.map(lambda g: g * scale, wide)
            length = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(units)))  # ‖g‖ scale
            longer = length > limit * scale
            clipped = jax.tree.map(lambda g: g * (limit / jnp.where(longer, length, 1)), units)
            return jax.tree.map(lambda g, c: jnp.where(longer, c.astype(g.dtype), g), gradients, clipped), state

    return optax.GradientTransformation(_no_state, update)


def _scale(largest: Array) -> Array:
    """A power of two; after scaling by it, squares of numbers up to ``largest`` neither overflow nor vanish."""
    most = jnp.finfo(largest.dtype).maxexp
    far, back = 2.0 ** (3 * most // 8), 2.0 ** (-5 * most // 8)
    return jnp.where(largest > far, back, jnp.where(largest < 1 / far, 1 / back, 1.0)).astype(largest.dtype)


@one_object_per_value
def max_norm(limit: float) -> optax.GradientTransformation:
    """Scales the step so that no neuron's incoming weights, a row of W, exceed norm ``limit``: ‖w_k‖ ≤ c.

    Goes last in a chain, because it needs W plus the whole step: ``optax.chain(momentum(0.1), max_norm(3.0))``. Every
    leaf with two dimensions counts as a W, as does the W of a ``Stack``. limit: c > 0. Entries are rescaled before they
    are squared, so that ‖w_k‖ does not overflow. Raises TypeError or ValueError.
    Source: Srivastava et al. 2014, section 5.1.

    >>> rule = max_norm(1.0)
    >>> W = jnp.array([[0.0, 0.0], [0.6, 0.0]])
    >>> (W + rule.update(jnp.array([[3.0, 4.0], [0.0, 0.1]]), rule.init(W), W)[0]).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.6000000238418579, 0.10000000149011612]]
    """
    checked("max_norm", "limit", limit, above=0)

    def update(steps, state, params=None):
        params = _needed("max_norm", params)
        return jax.tree.map(partial(_shortened, limit), steps, params, is_leaf=_stacked), state

    return optax.GradientTransformation(_no_state, update)


def _stacked(node) -> bool:
    return getattr(node, "stacked", False)


def _shortened(limit, step, leaf):
    """The step of one leaf, or of a ``Stack``, after which no row of W is longer than ``limit``."""
    if _stacked(leaf):  # its b has two axes but is not a W
        return replace(step, W=jax.vmap(partial(_shortened, limit))(step.W, leaf.W))
    if leaf.ndim != 2:
        return step
    W = leaf + step
    scale = _scale(jnp.max(jnp.abs(W), axis=1, keepdims=True, initial=0))
    units = W * scale
    length = jnp.sqrt(jnp.sum(units * units, axis=1, keepdims=True))  # ‖w_k‖ scale
    longer = length > limit * scale
    return jnp.where(longer, units * (limit / jnp.where(longer, length, 1)) - leaf, step)


def _no_state(params):
    return optax.EmptyState()


def _needed(call: str, params):
    if params is None:
        raise ValueError(f"params: {call} needs them; write update(gradients, state, params)")
    return params


def rate_at(rate: Schedule, step: Array):
    """η_t, a scalar of any dtype."""
    with jax.numpy_dtype_promotion("standard"):  # a schedule may mix dtypes: most of optax's do
        return rate(step)


def as_schedule(call: str, learning_rate) -> Schedule:
    """The learning rate as a function of the step."""
    checked_rate(call, learning_rate)
    return learning_rate if callable(learning_rate) else lambda count: learning_rate


def checked_rate(call: str, learning_rate):
    """``learning_rate``, if it is a schedule or a number > 0; raises TypeError or ValueError for anything else."""
    if not callable(learning_rate) or isinstance(learning_rate, type):
        return checked(call, "learning_rate", learning_rate, above=0)
    try:
        found = jax.eval_shape(partial(rate_at, learning_rate), jax.ShapeDtypeStruct((), jnp.int32))
        if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.number):
            raise TypeError(f"it returns {found!r}")
    except Exception as error:  # whatever the schedule raises
        raise TypeError(
            f"learning_rate: expected a number > 0, or a schedule step → η that JAX can trace, got {learning_rate!r}: "
            f"{str(error).splitlines()[0]}; write optax.linear_schedule(0.1, 0.01, 1000), for example"
        ) from error
    return learning_rate


def checked(call: str, name: str, value, **bounds):
    """``value``, checked unless it is a tracer, which has no value yet."""
    if not isinstance(value, jax.core.Tracer):
        number(call, name, value, **bounds)
    return value


# -- any function ----------------------------------------------------------------------------------------------


class Path(NamedTuple):
    """The path of a descent: x_0 … x_steps and the values of f, each with a leading axis of steps + 1."""

    points: Any
    values: Array


def descend(f: Callable, x0, learning_rate: float | Schedule, steps: int, *, rule: Callable = sgd) -> Path:
    """Gradient descent on any function, x_{n+1} = x_n − η ∇f(x_n), with the path recorded.

    f: x → (value, gradient), with a scalar value and a gradient like x; written by hand, or ``jax.value_and_grad(f)``;
    for a network, ``lambda params: fnn.value_and_backprop(params, x, y)``. x0: any pytree of floating arrays, or a
    float. learning_rate: η > 0, or a schedule step → η. steps ≥ 1. rule: a function from the learning rate to an update
    rule, such as ``momentum`` or ``optax.adam``. Compiled once for each f, rate, rule and number of steps. A diverging
    path continues to inf and NaN without raising. Raises TypeError or ValueError that names the argument.

    >>> descend(lambda x: (x * x, 2 * x), 1.0, 0.25, steps=3)
    Path(points=Array([1.   , 0.5  , 0.25 , 0.125], dtype=float32),
         values=Array([1.      , 0.25    , 0.0625  , 0.015625], dtype=float32))
    """
    if not callable(f) or isinstance(f, type):
        raise TypeError(f"f: expected a function x -> (value, gradient), got {f!r}; write jax.value_and_grad(f)")
    made = None if not callable(rule) or isinstance(rule, type) else rule(checked_rate("descend", learning_rate))
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise TypeError(
            f"rule: expected a function from the learning rate to an optimizer of optax, got {rule!r}; "
            "write rule=fnn.updates.momentum"
        )
    if not jax.tree.leaves(x0):
        raise TypeError(f"x0: expected a floating array or a pytree of them, got {x0!r}; write jnp.zeros(3)")
    optimizer = Optimizer(made)
    return _path(jax.tree.map(_starting_point, x0), optimizer, f=f, steps=whole("steps", steps))


@partial(jax.jit, static_argnames=("f", "steps"))
def _path(x0, optimizer: Optimizer, *, f, steps):
    def step(carry, _):
        x, state = carry
        value, gradient = _value_and_gradient(f, x)
        change, state = optimizer.update(gradient, state, x, value=value)
        with jax.numpy_dtype_promotion("standard"):
            return (optax.apply_updates(x, change), state), Path(x, value)

    return jax.lax.scan(step, (x0, optimizer.init(x0)), length=steps + 1)[
        1
    ]  # of the last step only x and f(x) are used


def _value_and_gradient(f, x):
    """f(x), if it is a scalar value and a gradient like x."""
    result = f(x)
    if not isinstance(result, tuple) or len(result) != 2:
        got = arrays.describe(result)
        raise TypeError(f"f: expected f(x) -> (value, gradient), got {got}; write jax.value_and_grad(f)")
    value, gradient = jax.tree.map(jnp.asarray, result)
    if value.shape != ():
        raise ValueError(f"f: expected a scalar value, got {arrays.describe(value)}; write jnp.sum(value)")
    expected, got = (str(jax.tree.structure(tree)) for tree in (x, gradient))
    if got != expected:
        raise ValueError(
            f"f: expected a gradient that is a {expected} as x0 is, got {got}; write jax.value_and_grad(f)"
        )
    return value, jax.tree.map(lambda g, leaf: arrays.same_shape(g, leaf, "f(x)[1], the gradient"), gradient, x)


def _starting_point(leaf) -> Array:
    leaf = jnp.asarray(leaf) if isinstance(leaf, float) else leaf
    if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
        got = arrays.describe(leaf)
        raise TypeError(f"x0: expected floating arrays, or a float, got {got}; write x0=jnp.asarray(x0, jnp.float32)")
    arrays.array("x0", leaf)
    leaf = arrays.native(leaf)
    return jnp.asarray(leaf, leaf.dtype)  # drops a Python float's weak type, which would change after one step
