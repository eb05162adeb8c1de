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
from fnn.train import devices


class Rows(NamedTuple):
    """A step's functions of the available rows of a mini-batch: all of them, or one device's."""

    value_and_gradients: Callable  # (params, x, masks, y, objective)
    masks: Callable  # (key, params, dropout, rows)


def make_step(
    optimizer: optax.GradientTransformation,
    loss: Loss = SquaredError(),
    *,
    reduction: str = "mean",
    rules: Rules = RULES,
) -> Callable:
    """A jitted ``step(params, state, x, y, masks=None) -> (params, state, loss)`` for a custom training loop.

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
    compiled = jax.jit(partial(take_step, optimizer=optimizer, objective=Objective(loss, reduction, rules)))

    def step(params, state, x, y, masks=None):
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


ALL_ROWS = Rows(value_and_gradients, all_masks)


def take_step(params, state, x, y, masks=None, *, optimizer, objective, rows=ALL_ROWS):
    """One step: the new parameters and state, and the loss before the step; traced by its compiled callers."""
    value, gradients = rows.value_and_gradients(params, x, masks, y, objective)
    with jax.numpy_dtype_promotion("standard"):  # adam and most schedules mix dtypes
        update = optax.with_extra_args_support(optimizer).update
        steps, state = update(gradients, state, params, value=value)
        return optax.apply_updates(params, steps), state, value


@partial(jax.jit, static_argnames=("optimizer", "objective", "scale", "mesh", "inside"))
def take_steps(begun, batches, first, dropout, key, *, optimizer, objective, scale, mesh=None, inside=False):
    """One step per mini-batch: the new (parameters, state), the losses, and whether all of them are finite.

    begun: the parameters and the optimizer's state. batches: x, y and the rows of every mini-batch in them, (steps, B);
    or x (steps, B, n), y and None. first: the number of the first step in its epoch, which with ``key`` determines its
    dropout masks. mesh: shards the rows of every mini-batch, if given; inside: whether this is the loop on one of its
    devices.
    """
    options = {"optimizer": optimizer, "objective": objective}
    if mesh is not None and not inside:
        of_one = partial(take_steps, scale=scale, mesh=mesh, inside=True, **options)
        return devices.on_every_device(of_one, mesh)(begun, batches, first, dropout, key)
    rows = ALL_ROWS if mesh is None else Rows(*devices.rows_at_hand(*ALL_ROWS, mesh))

    def step(carry, batch):
        (params, state), (x, y, number) = carry, batch
        x, masks = inputs(rows, params, x, number, dropout, key, scale, objective.rules)
        params, state, value = take_step(params, state, x, y, masks, rows=rows, **options)
        return (params, state), value

    x, y, order = batches
    if order is not None:
        x, y = x[order], y[order]  # whole rows at once: faster than one gather in every step
    reached, losses = jax.lax.scan(step, begun, (x, y, first + jnp.arange(len(x))))
    return reached, losses, all_finite(losses, begun, reached)


def inputs(rows: Rows, params, x, number, dropout, key, scale, rules):
    """x of a mini-batch as floats, and the masks of step ``number`` in the epoch of ``key``."""
    of = kind(params)
    x = as_floats(x, of.ports(params).dtype, scale)
    masks = rows.masks(jax.random.fold_in(key, number), params, dropout, len(x))
    return of.given(params, x, masks, rules)[1:]


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


@partial(jax.jit, static_argnums=0)
def start(optimizer, params):
    """The parameters and the optimizer's initial state in the dtypes that every later step returns."""
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.result_type(leaf)), (params, state))


def mean_loss(losses: np.ndarray) -> float:
    """The mean over the steps, in float64 because a float32 sum may overflow."""
    return float(np.mean(losses, dtype=np.float64))


def shuffle(key, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """The rows of every mini-batch, (steps, batch_size) int32: a pure function of the key and the epoch."""
    seed = [*np.asarray(jax.random.key_data(key)).ravel().tolist(), epoch]
    steps = examples // batch_size
    order = np.random.default_rng(seed).permutation(examples)[: steps * batch_size]
    return order.reshape(steps, batch_size).astype(np.int32)


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
