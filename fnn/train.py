"""Training: whole epochs in one compiled loop, with gradients from ``fnn.backward`` and any optax optimizer.

An epoch is one ``lax.scan`` over mini-batches. The images stay as they are stored, bytes for MNIST, until the
loop turns a mini-batch into floats; the order of the examples comes from the host, a pure function of the key
and the epoch. The examples that do not fill the last mini-batch of an epoch's shuffle are left out of that
epoch (a shorter batch would compile a second program, a padded one would spoil batch statistics); another
shuffle leaves out others.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from fnn import checks
from fnn.backward import RULES, Rules, require_rules
from fnn.data import Dataset, as_floats, for_network
from fnn.display import Bar
from fnn.dropout import DropConnect, Dropout
from fnn.kinds import AnyParams, kind
from fnn.losses import Loss, SoftmaxCrossEntropy, SquaredError
from fnn.numbers import whole

Record = dict[str, float]
STATISTICS_EXAMPLES = 10_000  # of a batch norm's statistics: enough for three digits of a variance


class State(NamedTuple):
    """What ``callback`` sees after an epoch: its number from 1, the parameters (a copy), and the records so far."""

    epoch: int
    params: Any  # of the kind that was given
    history: tuple[Record, ...]


def fit(
    params: AnyParams,
    data,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss,
    epochs: int,
    batch_size: int,
    key: Array,
    validation=None,
    dropout: Dropout | DropConnect | None = None,
    reduction: str = "mean",
    callback: Callable[[State], bool | None] | None = None,
    progress: bool | None = None,
) -> tuple[AnyParams, list[Record]]:
    """Train for ``epochs`` passes over ``data`` and return the new parameters and a record for each epoch.

    params: from ``fnn.init`` or ``graph.init``; copied, so the caller's stay as they are. data, validation: a
    ``Dataset`` or a pair (x, y). optimizer: ``fnn.updates`` or any optax one. loss: see ``fnn.losses``. epochs ≥ 1.
    batch_size: 1 … N. key: ``jax.random.key(seed)``, the shuffles' seed. reduction: "mean" or "sum" over a
    mini-batch (N7). dropout: fresh masks for every step. callback: called after every epoch with a :class:`State`;
    returning True stops. progress: a bar per epoch, False for none, None for one in a terminal only (needs tqdm).

    A record holds "epoch", "loss" (the mean over the epoch's mini-batches, each before its step), "seconds"
    since the start and, with ``validation``, "validation_loss" and (for labels or one-hot rows)
    "validation_accuracy". With dropout or a batch norm, the held-out data are given to the network that
    ``fnn.fold`` makes, with statistics of mini-batches of at most 10,000 training examples, always the same ones.

    One program is compiled for all epochs, and none in a second ``fit`` with equal shapes, loss and
    optimizer. Raises TypeError or ValueError that names the argument before anything is trained.
    """
    started = time.perf_counter()
    params = _network(params)
    checks.loss_like(loss)
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    checks.prng_key(key)
    _check_optimizer(optimizer)
    if dropout is not None:
        kind(params).probabilities(dropout, params)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a function of a fnn.train.State, got {callback!r}")
    data = for_network(data, params, loss)
    batch_size = whole("batch_size", batch_size, len(data), "examples")
    epochs = whole("epochs", epochs)
    if validation is not None:
        validation = for_network(validation, params, loss, "validation")

    x, y = _on_device(data)
    sample = _shuffle(key, 0, len(data), batch_size)[: max(1, STATISTICS_EXAMPLES // batch_size)]
    held_out = _evaluator(validation, loss, partial(_folded, x=x, order=sample, dropout=dropout, scale=data.scale))
    params, optimizer_state = _start(optimizer, params)
    history: list[Record] = []
    with Bar(epochs, progress) as bar:
        for epoch in range(1, epochs + 1):
            order = _shuffle(key, epoch, len(data), batch_size)
            params, optimizer_state, mean_loss = _epoch(
                params, optimizer_state, x, y, order, dropout, jax.random.fold_in(key, epoch),
                optimizer=optimizer, loss=loss, reduction=reduction, scale=data.scale,
            )  # fmt: skip
            record = {"epoch": epoch, "loss": float(mean_loss)} | held_out(params)
            history.append(record | {"seconds": time.perf_counter() - started})
            bar.show(history[-1])
            if callback is not None and callback(State(epoch, _copy(params), tuple(map(dict, history)))):
                break
    return params, history


def make_step(
    optimizer: optax.GradientTransformation,
    loss: Loss = SquaredError(),
    *,
    reduction: str = "mean",
    rules: Rules = RULES,
) -> Callable:
    """A jitted ``step(params, state, x, y, masks=None) -> (params, state, loss)`` for a loop of one's own.

    ``state`` begins as ``optimizer.init(params)``; arguments as in ``fnn.value_and_backprop``. Nothing is donated.

    >>> import fnn
    >>> params, optimizer = fnn.init(jax.random.key(0), (3, 4, 2)), fnn.updates.sgd(0.1)
    >>> step = make_step(optimizer)
    >>> params, state, loss = step(params, optimizer.init(params), jnp.ones((5, 3)), jnp.zeros((5, 2)))
    """
    _check_optimizer(optimizer)
    checks.loss_like(loss)
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    require_rules(rules)
    compiled = jax.jit(partial(_step, optimizer, loss, reduction, rules))

    def step(params, state, x, y, masks=None):
        params, x, masks = kind(params).arguments(params, x, masks)  # before jit would truncate them
        checks.target_arguments(params, y, loss)
        return compiled(params, state, x, y, masks)

    return step


def evaluate(params: AnyParams, data, *, loss: Loss) -> Record:
    """{"loss": the mean over the examples, "accuracy": where y holds classes} of ``data``, a Dataset or (x, y).

    The class is the output with the highest activation (L4).
    """
    params, data = _for_evaluation(params, data, loss)
    return _named(_evaluate(params, *_on_device(data), _classes(data), loss=loss, scale=data.scale), "")


def predict(params: AnyParams, data: Dataset) -> np.ndarray:
    """The network's outputs for every example of ``data``, a Dataset: (N, n_L); ``.argmax(1)`` is the class (L4)."""
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data: expected a fnn.data.Dataset, got {checks.describe(data)}; or write fnn.forward(params, x)"
        )
    loss = SquaredError() if data.y.ndim == 2 else SoftmaxCrossEntropy()
    params, data = _for_evaluation(params, data, loss)
    return np.asarray(_outputs(params, jnp.asarray(data.x), scale=data.scale))


# -- compiled --------------------------------------------------------------------------------------------------


def _step(optimizer, loss, reduction, rules, params, state, x, y, masks=None):
    backprop = kind(params).value_and_backprop
    value, gradients = backprop(params, x, y, loss=loss, reduction=reduction, masks=masks, rules=rules)
    with jax.numpy_dtype_promotion("standard"):  # adam and most schedules mix dtypes
        update = optax.with_extra_args_support(optimizer).update
        steps, state = update(gradients, state, params, value=value)
        return optax.apply_updates(params, steps), state, value


@partial(jax.jit, static_argnames=("optimizer", "loss", "reduction", "scale"), donate_argnums=(0, 1))
def _epoch(params, optimizer_state, x, y, order, dropout, key, *, optimizer, loss, reduction, scale):
    dtype = checks.ports(params).dtype

    def step(carry, batch):
        (params, state), (x, y, number) = carry, batch
        x, masks = as_floats(x, dtype, scale), None
        if dropout is not None:
            masks = kind(params).sample_masks(jax.random.fold_in(key, number), params, dropout, len(x))
        params, state, value = _step(optimizer, loss, reduction, RULES, params, state, x, y, masks)
        return (params, state), value

    batches = x[order], y[order], jnp.arange(len(order))  # one gather of whole rows is faster than one in every step
    (params, optimizer_state), values = jax.lax.scan(step, (params, optimizer_state), batches)
    return params, optimizer_state, jnp.mean(values)


@partial(jax.jit, static_argnums=0)
def _start(optimizer, params):
    """Copies of the parameters and of the optimizer's first state, every leaf in a buffer of its own: donatable."""
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True), (params, state))


@partial(jax.jit, static_argnames="scale")
def _folded(params, x, order, dropout, *, scale):
    """The network for inference, with the statistics of the mini-batches in ``order``."""
    own = kind(params)
    if not own.has_norm(params):
        return params if dropout is None else own.fold(params, dropout=dropout)
    kept, dtype = own.kept_weights(params, dropout), checks.ports(params).dtype
    moments = jax.lax.map(lambda rows: own.batch_moments(kept, as_floats(x[rows], dtype, scale)), order)
    return own.fold(params, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), moments), dropout)


@jax.jit
def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


@partial(jax.jit, static_argnames="scale")
def _outputs(params, x, *, scale):
    dtype = checks.ports(params).dtype
    return jax.lax.map(lambda row: kind(params).forward(params, as_floats(row, dtype, scale)), x, batch_size=2048)


@partial(jax.jit, static_argnames=("loss", "scale"))
def _evaluate(params, x, y, classes, *, loss, scale):
    a = _outputs(params, x, scale=scale)
    accuracy = (
        None
        if classes is None
        else jnp.mean(jnp.equal(jnp.argmax(a, axis=1).astype(classes.dtype), classes), dtype=jnp.float32)
    )
    values = checks.loss_values(loss, a, y)
    return jnp.mean(values), accuracy


# -- on the host -----------------------------------------------------------------------------------------------


def _shuffle(key, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """The rows of every mini-batch, (steps, batch_size) int32: a pure function of the key and the epoch."""
    seed = [*np.asarray(jax.random.key_data(key)).ravel().tolist(), epoch]
    steps = examples // batch_size
    order = np.random.default_rng(seed).permutation(examples)[: steps * batch_size]
    return order.reshape(steps, batch_size).astype(np.int32)


def _evaluator(validation: Dataset | None, loss: Loss, folded: Callable) -> Callable[[Any], Record]:
    """A function of the parameters that evaluates their folded network on the held-out data, if there are any."""
    if validation is None:
        return lambda params: {}
    x, y = _on_device(validation)
    classes = _classes(validation)
    return lambda params: _named(_evaluate(folded(params), x, y, classes, loss=loss, scale=validation.scale))


def _on_device(data: Dataset) -> tuple[Array, Array]:
    return jnp.asarray(data.x), jnp.asarray(data.y)


def _network(params):
    """The parameters, checked; layers as a tuple."""
    kind(params).require(params)
    return tuple(params) if isinstance(params, list) else params


def _classes(data: Dataset) -> Array | None:
    classes = data.classes()
    return None if classes is None else jnp.asarray(classes)


def _for_evaluation(params, data, loss):
    params = _network(params)
    checks.loss_like(loss)
    if kind(params).has_norm(params):
        raise ValueError(
            "params: a network with a batch norm has no output for single examples; write "
            "fnn.fold(params, fnn.statistics(params, batches))"
        )
    return params, for_network(data, params, loss, "data")


def _named(loss_and_accuracy, prefix: str = "validation_") -> Record:
    names = (f"{prefix}loss", f"{prefix}accuracy")
    return {name: float(value) for name, value in zip(names, loss_and_accuracy) if value is not None}


def _check_optimizer(optimizer) -> None:
    if isinstance(optimizer, type) or not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"optimizer: expected an optax.GradientTransformation, got {optimizer!r}; write fnn.updates.sgd(0.1)"
        )
