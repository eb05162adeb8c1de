"""The compiled loop: a step, and a scan of steps over an epoch's mini-batches."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fnn.backward import RULES, Rules
from fnn.checks import arrays, targets
from fnn.checks import network as checks
from fnn.data import as_floats
from fnn.functions import Objective, derivatives, given_target
from fnn.kinds import given, kind, require_rules
from fnn.losses import Loss, SquaredError
from fnn.optimizers import Optimizer


class Rows(NamedTuple):
    """A step's functions of the available rows of a mini-batch: all of them, or one device's."""

    value_and_gradients: Callable  # (params, x, masks, y, objective)
    masks: Callable  # (key, params, dropout, rows)


def make_step(
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    rules: Rules = RULES,
) -> Callable:
    """A jitted ``step(params, state, x, y, *, masks=None) -> (params, state, loss)`` for a custom training loop.

    The initial ``state`` is ``optimizer.init(params)``; other arguments as in ``fnn.value_and_backprop``. No buffers
    are donated.

    >>> import fnn
    >>> params, optimizer = fnn.init(jax.random.key(0), (3, 4, 2)), fnn.updates.sgd(0.1)
    >>> step = make_step(optimizer)
    >>> params, state, loss = step(params, optimizer.init(params), jnp.ones((5, 3)), jnp.zeros((5, 2)))
    """
    require_optimizer(optimizer)
    targets.loss_like(loss)
    arrays.one_of("reduction", reduction, checks.REDUCTIONS)
    require_rules(rules)
    compiled = partial(_step, optimizer=Optimizer(optimizer), objective=Objective(loss, reduction, rules))

    def step(params, state, x, y, *, masks=None):
        params, x, masks = given(params, x, masks, rules)  # before jit truncates them
        of = kind(params)
        targets.fitting(loss, of.output_activations(params), of.ports(params).n_out)
        return compiled(params, state, x, given_target(params, y, loss), masks)

    return step


def value_and_gradients(params, x, masks, y, objective):
    """The loss and its gradients for all rows."""
    found = derivatives(params, x, masks, y, objective)
    return found["loss"], found["gradients"]


def all_masks(key, params, dropout, rows: int):
    """The masks of a step in the form that the passes take; dropout may be None."""
    of = kind(params)
    return None if dropout is None else of.sample_masks(key, params, dropout, rows)


UNUSABLE = {
    "LookaheadState": "optax.lookahead trains pairs of fast and slow parameters; write its fast optimizer alone",
    "SAMState": "optax.contrib.sam moves the parameters to the adversarial point and back in alternate steps, so that "
    "an epoch may end at it; write optax.contrib.sam(..., opaque_mode=True)",
    "DifferentiallyPrivateAggregateState": "optax's differentially private rules take the gradient of every example, "
    "and fit gives them the mean; write a custom loop with fnn.per_example.clipped",
    "SophiaState": "optax.contrib.sophia differentiates an objective twice, which fit does not give it; write "
    "optax.adam(1e-3)",
}
ALL_ROWS = Rows(value_and_gradients, all_masks)


def take_step(params, state, x, y, masks=None, *, optimizer, objective, rows=ALL_ROWS):
    """One step: the new parameters and state, and the loss before the step; traced by its compiled callers."""

    def at(params):
        return rows.value_and_gradients(params, x, masks, y, objective)

    value, gradients = jax.lax.optimization_barrier(at(params))  # else XLA rounds a loop of one step differently
    return *stepped(optimizer, params, state, value, gradients, at), value


def stepped(optimizer: Optimizer, params, state, value, gradients, at: Callable):
    """The new parameters and state; at: the loss and its gradients anywhere, for rules that look around."""
    known = {"value": value, "grad": gradients, "value_fn": with_our_gradient(at), "grad_fn": lambda at_, _: at(at_)[1]}
    steps, state = optimizer.update(gradients, state, params, **known)
    with jax.numpy_dtype_promotion("standard"):
        return optax.apply_updates(params, steps), state


def with_our_gradient(at: Callable) -> Callable:
    """The loss as a function of the parameters that ``jax.grad`` differentiates by the hand-written equations."""
    loss = jax.custom_vjp(lambda params: at(params)[0])
    loss.defvjp(at, lambda gradients, factor: (jax.tree.map(lambda leaf: factor * leaf, gradients),))
    return lambda params, grad_fn=None: loss(params)  # optax's line searches hand all that they are given on to it


_step = jax.jit(take_step, static_argnames=("objective", "rows"))


@partial(jax.jit, static_argnames=("objective", "scale", "split", "inside"))
def take_steps(
    begun, batches, first, dropout, key, optimizer, tables=None, *, objective, scale, split=None, inside=False
):
    """One step per mini-batch: the new (parameters, state), the losses, and whether all of them are finite.

    begun: the parameters and the optimizer's state. batches: x, y and the rows of every mini-batch in them, (steps, B);
    or x (steps, B, n), y and None. first: the number of the first step in its epoch, which with ``key`` determines its
    dropout masks. optimizer: an ``Optimizer``. tables: what the network's kind looks up, as an argument of the program.
    split: how several devices share the steps, see ``devices``; inside: whether this is the loop on them.
    """
    if split is not None and not inside:
        on_devices = partial(take_steps, objective=objective, scale=scale, split=split, inside=True)
        return split.over(on_devices)(begun, batches, first, dropout, key, optimizer, tables)
    rows = ALL_ROWS if split is None else Rows(*split.rows(*ALL_ROWS))

    def step(carry, batch):
        (params, state), (x, y, number) = carry, batch
        x, masks = inputs(rows, params, x, number, dropout, key, tables, scale, objective.rules)
        params, state, value = take_step(
            params, state, x, y, masks, optimizer=optimizer, objective=objective, rows=rows
        )
        return (params, state), value

    x, y, order = batches
    if order is not None:
        x, y = x[order], y[order]  # whole rows at once: faster than one gather in every step
    reached, losses = jax.lax.scan(step, begun, (x, y, first + jnp.arange(len(x))))
    return reached, losses, all_finite(losses, begun, reached)


def inputs(rows: Rows, params, x, number, dropout, key, tables, scale, rules):
    """x of a mini-batch as floats, and the masks of step ``number`` in the epoch of ``key``."""
    of = kind(params)
    x = as_floats(x, of.ports(params).dtype, scale)
    masks = rows.masks(jax.random.fold_in(key, number), params, dropout, len(x))
    return of.given(params, x, of.with_masks(tables, masks), rules)[1:]


def all_finite(losses, begun, reached):
    """Whether the losses and all numbers that are reached are finite, ignoring infinities that were there before.

    Some rules start with an infinity, for example as the best loss so far, and some networks mask classes by logits
    of −inf.
    """

    def finite(leaf, before=None):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.array(True)
        return jnp.all(jnp.isfinite(leaf) if before is None else jnp.isfinite(leaf) | (leaf == before))

    found = [finite(losses)] + [finite(*pair) for pair in zip(jax.tree.leaves(reached), jax.tree.leaves(begun))]
    return jnp.all(jnp.stack(found))


@partial(jax.jit, static_argnames="split")
def start(optimizer: Optimizer, params, split=None):
    """The parameters and the optimizer's initial state in the dtypes that every later step returns."""
    found = params, optimizer.init(params)
    found = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.result_type(leaf)), found)
    return found if split is None else split.hold(found)


def begin(optimizer: Optimizer, params, split=None):
    """As :func:`start`; raises TypeError, with the reason, for an optimizer that cannot train."""
    try:
        begun = start(optimizer, params, split)
        refuse_unusable(begun[1])
        first_step.eval_shape(optimizer, *begun)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        if str(error).startswith("optimizer: "):
            raise
        raise TypeError(
            f"optimizer: its update fails with params, gradients, state, value, grad, value_fn and grad_fn: "
            f"{type(error).__name__}: {error}; write fnn.updates.sgd(0.1), or an optax optimizer"
        ) from error
    return begun


@jax.jit
def first_step(optimizer, params, state):
    """A step with the parameters for gradients; it is traced, and never run."""
    value = jnp.zeros((), jax.tree.leaves(params)[0].dtype)
    return stepped(optimizer, params, state, value, params, lambda params: (value, params))


def refuse_unusable(state) -> None:
    """Raise TypeError for the state of an optimizer of optax that trains something else than the parameters."""
    for node in of_kind(state, tuple(UNUSABLE)):
        why = UNUSABLE[type(node).__name__]
        if getattr(node, "cache", True) is not None:  # None: of sam in its opaque mode
            raise TypeError(f"optimizer: {why}")


def of_kind(state, names: tuple[str, ...]) -> list:
    """The nodes of an optimizer's state whose classes have these names."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: type(node).__name__ in names)
    return [node for node in nodes if type(node).__name__ in names]


@jax.jit
def for_evaluation(params, state):
    """The parameters to evaluate: as trained, or the average that ``optax.contrib.schedule_free`` keeps."""
    found = of_kind(state, ("ScheduleFreeState",))
    if not found:
        return params
    b1, points = found[0].b1, found[0].z
    return jax.tree.map(lambda y, z: (y - (1 - b1) * z) / b1, params, points)


def mean_loss(losses: np.ndarray) -> float:
    """The mean over the steps, in float64 because a float32 sum may overflow."""
    return float(np.mean(losses, dtype=np.float64))


def shuffle(key, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """The rows of every mini-batch, (steps, batch_size) int32: a pure function of the key and the epoch."""
    seed = [*np.asarray(jax.random.key_data(key)).ravel().tolist(), epoch]
    steps = examples // batch_size
    order = np.arange(examples, dtype=np.int32)
    np.random.default_rng(seed).shuffle(order)  # in place: of 10⁸ examples a second copy takes 800 MB
    return order[: steps * batch_size].reshape(steps, batch_size)


def sample_rows(key, examples: int, batch_size: int, enough: int) -> np.ndarray:
    """The first mini-batches of a shuffle that no epoch uses: at most ``enough`` examples, but at least one batch."""
    return shuffle(key, 0, examples, batch_size)[: max(1, enough // batch_size)]


def require_training(params, optimizer, loss, reduction, dropout) -> None:
    """Raise TypeError or ValueError unless the arguments can train the network; params: already checked."""
    targets.loss_like(loss)
    arrays.one_of("reduction", reduction, checks.REDUCTIONS)
    require_optimizer(optimizer)
    of = kind(params)
    targets.fitting(loss, of.output_activations(params), of.ports(params).n_out)
    if dropout is not None:
        of.probabilities(dropout, params)


def require_optimizer(optimizer) -> None:
    """Raise TypeError unless ``optimizer`` has the interface of optax."""
    if isinstance(optimizer, type) or not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"optimizer: expected an optax.GradientTransformation, got {optimizer!r}; write fnn.updates.sgd(0.1)"
        )
