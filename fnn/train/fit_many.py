"""``fit_many``: networks of one shape trained together, each with its own learning rate and shuffles."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from fnn.checks import arrays
from fnn.data import Dataset, for_network
from fnn.display import Bar
from fnn.dropout import DropConnect, Dropout
from fnn.functions import Objective
from fnn.kinds import AnyParams, kind
from fnn.losses import Loss, SquaredError
from fnn.numbers import number, whole
from fnn.optimizers import Optimizer
from fnn.runs import Record, Run, State
from fnn.train.evaluation import folded, judged, means, named, require_network
from fnn.train.fit import STATISTICS_EXAMPLES
from fnn.train.identity import settings
from fnn.train.loop import (
    ALL_ROWS,
    begin,
    for_evaluation,
    inputs,
    mean_loss,
    require_training,
    sample_rows,
    shuffle,
    start,
    take_step,
)

STACKED = "write jax.vmap(lambda key: fnn.init(key, sizes))(keys)"
INJECTED = "write optax.inject_hyperparams(fnn.updates.sgd)(learning_rate=0.1)"


def fit_many(
    params: AnyParams,
    data,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss = SquaredError(),
    epochs: int,
    batch_size: int,
    keys: Array,
    learning_rates=None,
    validation=None,
    dropout: Dropout | DropConnect | None = None,
    reduction: str = "mean",
    progress: bool | None = None,
) -> list[Run]:
    """Train N networks on the same data at once, each as ``fit`` would, in one compiled program.

    params: the parameters of one network with a leading axis of N members on every leaf, as ``jax.vmap`` makes them
    (below); for a graph, ``jax.vmap(graph.init)(keys)``. keys: (N,), ``jax.random.split(jax.random.key(seed), N)``;
    each member has the shuffles and masks that ``fit`` draws from its key. learning_rates: N numbers > 0, one per
    member, replacing the rate of ``optimizer``, which must be an
    ``optax.inject_hyperparams(rule)(learning_rate=...)``; None trains all with the optimizer unchanged. Everything else
    is as in ``fit`` and shared by all members. The data are on the device once, for any N, and are not streamed.

    Returns a list with the ``Run`` of every member, as from ``fit``, which may also go on with it; "seconds" is the
    time for all together. The results equal those of separate ``fit`` calls up to rounding, because all members'
    products are computed together, with a different order of summation. A diverging member does not affect the rest.

    Use it for networks too small to keep the device busy. On 2 idle CPU cores, 16 networks with mini-batches of 10 take
    0.57 times as long as one by one for 20-16-4, 0.75 for 784-64-64-10, and 0.87 for 784-30-10. With mini-batches of
    128 and other work on the cores, one by one may be faster (``python -m experiments.benchmarks.ensembles``).
    Raises TypeError or ValueError that names the argument before training starts.

    >>> import fnn
    >>> params = jax.vmap(lambda key: fnn.init(key, (4, 5, 2)))(jax.random.split(jax.random.key(0), 3))
    >>> optimizer = optax.inject_hyperparams(fnn.updates.sgd)(learning_rate=0.1)
    >>> x, y = jnp.ones((20, 4)), jnp.zeros((20, 2))
    >>> runs = fit_many(params, (x, y), optimizer, loss=fnn.SquaredError(), epochs=2, batch_size=5,
    ...     keys=jax.random.split(jax.random.key(1), 3), learning_rates=(0.01, 0.1, 1.0), progress=False)
    >>> runs[0].params[0].W.shape, [len(run.history) for run in runs]
    ((5, 4), [2, 2, 2])
    >>> best = min(runs, key=lambda run: run.history[-1]["loss"])
    """
    started = time.perf_counter()
    members = _require_keys(keys)
    params, first = _stacked(params, members)
    require_training(first, optimizer, loss, reduction, dropout)
    data = _in_memory(data, first, loss, "data")
    batch_size, epochs = whole("batch_size", batch_size, len(data), "examples"), whole("epochs", epochs)
    validation = None if validation is None else _in_memory(validation, first, loss, "validation")
    xy = jnp.asarray(data.x), jnp.asarray(data.targets(kind(first).ports(first).n_out))
    seeds = np.asarray(jax.random.key_data(keys))  # indexing the typed keys would mark them as used
    samples = _samples(seeds, len(data), batch_size) if kind(first).has_norm(first) else None
    networks = partial(_folded, x=xy[0], samples=samples, dropout=dropout, scale=data.scale)
    held_out = _evaluator(validation, kind(first).ports(first).n_out, loss, networks, members)
    rule = Optimizer(optimizer)
    begin(rule, first)
    params, states = jax.vmap(partial(start, rule))(params)
    begun = params, states if learning_rates is None else _with_rates(states, learning_rates, members)
    objective, of_step = Objective(data.weighted(loss), reduction), batch_size if reduction == "sum" else 1
    one_epoch = partial(_epoch, objective=objective, scale=data.scale)
    histories: list[list[Record]] = [[] for _ in range(members)]
    with Bar(epochs, progress) as bar:
        for epoch in range(1, epochs + 1):
            orders = _orders(seeds, epoch, examples=len(data), batch_size=batch_size)
            begun, losses = one_epoch(begun, xy, orders, dropout, keys, epoch, rule)
            means_of_members = [mean_loss(of_one) / of_step for of_one in np.asarray(losses).T]
            of_held_out, seconds = held_out(*begun), time.perf_counter() - started
            for history, loss_of_one, record in zip(histories, means_of_members, of_held_out):
                history.append({"epoch": epoch, "loss": loss_of_one} | record | {"seconds": seconds})
            bar.show({"loss": float(np.mean(means_of_members))}, orders.size)
    own_keys = [jax.random.wrap_key_data(key, impl=jax.random.key_impl(keys)) for key in seeds]
    unused = {"keep": None, "patience": None, "batches_per_epoch": None}
    same = partial(settings, objective, examples=len(data), dropout=dropout, batch_size=batch_size, **unused)
    return _runs((networks(*begun), *begun), histories, own_keys, epochs * (len(data) // batch_size), same)


def _runs(stacked: tuple, histories: list[list[Record]], keys: list[Array], steps: int, same: Callable) -> list[Run]:
    """The run of every member; stacked: networks, parameters and states with a leading axis of members."""
    runs = []
    for i, (history, key) in enumerate(zip(histories, keys)):
        network, params, state = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        runs.append(Run(network, params, history, State(state, len(history), steps, key, same=same(key=key))))
    return runs


@partial(jax.jit, static_argnames=("objective", "scale"))
def _epoch(begun, xy, orders, dropout, keys, epoch, optimizer, *, objective, scale):
    """One step of every member per row of ``orders``, (steps, N, B): (parameters, states) and losses (steps, N)."""
    (x, y), keys = xy, jax.vmap(jax.random.fold_in, (0, None))(keys, epoch)

    def member(params, state, key, rows, number):
        # one mini-batch at a time, to avoid copies
        batch, masks = inputs(ALL_ROWS, params, x[rows], number, dropout, key, scale, objective.rules)
        return take_step(params, state, batch, y[rows], masks, optimizer=optimizer, objective=objective)

    def step(carry, of_step):
        (params, states), (rows, number) = carry, of_step
        params, states, values = jax.vmap(member, (0, 0, 0, 0, None))(params, states, keys, rows, number)
        return (params, states), values

    return jax.lax.scan(step, begun, (orders, jnp.arange(len(orders))))


def _samples(seeds: np.ndarray, examples: int, batch_size: int) -> np.ndarray:
    """The rows of the mini-batches that measure every member's batch-norm statistics: (count, N, B)."""
    return np.stack([sample_rows(key, examples, batch_size, STATISTICS_EXAMPLES) for key in seeds], axis=1)


def _orders(seeds: np.ndarray, epoch: int, *, examples: int, batch_size: int) -> np.ndarray:
    """The rows of every member's mini-batches, as ``fit`` draws them from its key: (steps, N, B)."""
    return np.stack([shuffle(key, epoch, examples, batch_size) for key in seeds], axis=1)


def _evaluator(validation: Dataset | None, n_out: int, loss, networks: Callable, members: int):
    """A function of the stacked parameters that gives every member's record on the held-out data, if any."""
    if validation is None:
        return lambda params, states: [{}] * members
    given, classes = (jnp.asarray(validation.x), jnp.asarray(validation.targets(n_out))), validation.classes()
    judge = partial(judged, loss=validation.weighted(loss), scale=validation.scale)

    def evaluate(params, states):
        values, right = jax.vmap(means)(
            *jax.vmap(judge, (0, None, None, None))(networks(params, states), *given, classes)
        )
        return [named((values[i], None if right is None else right[i])) for i in range(members)]

    return evaluate


@partial(jax.jit, static_argnames="scale")
def _folded(params, states, *, x, samples, dropout, scale):
    """Every member's network for inference, one by one, because each gathers its own sample."""

    def member(given):
        params, state, rows = given
        params = for_evaluation(params, state)
        return folded(params, None if rows is None else x[rows], dropout, scale=scale)

    return jax.lax.map(member, (params, states, None if samples is None else jnp.swapaxes(samples, 0, 1)))


def _require_keys(keys) -> int:
    """The number of members; raises TypeError unless ``keys`` is an array (N,) of typed keys."""
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not typed or keys.ndim != 1 or len(keys) == 0:
        raise TypeError(
            f"keys: expected PRNG keys of shape (N,), one per member, got {arrays.describe(keys)}; "
            "write keys=jax.random.split(jax.random.key(0), N)"
        )
    return len(keys)


def _stacked(params, members: int) -> tuple[Any, Any]:
    """The parameters, with layers as a tuple, and those of the first member, which must form a network."""
    params = tuple(params) if isinstance(params, list) else params
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if np.ndim(leaf) == 0 or len(leaf) != members:
            name = f"params{jax.tree_util.keystr(path)}"
            raise ValueError(
                f"{name}: expected a leading axis of {members} members, one per key, got {arrays.describe(leaf)}; "
                + STACKED
            )
    first = jax.tree.map(lambda leaf: leaf[0], params)
    try:
        return params, require_network(first)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}; of the first member, without the leading axis: {STACKED}") from error


def _in_memory(data, params, loss, name: str) -> Dataset:
    data = for_network(data, kind(params).ports(params), loss, name)
    if data.chunk_bytes is not None:
        raise ValueError(
            f"{name}: expected arrays in memory, got streamed ones, {data}; "
            "write Dataset(np.array(x), np.array(y)), or fit one by one"
        )
    return data


def _require_rates(learning_rates, members: int) -> np.ndarray:
    rates = np.asarray(learning_rates)
    if rates.shape != (members,):
        raise ValueError(
            f"learning_rates: expected {members} numbers, one per key, got {arrays.describe(learning_rates)}; "
            "write learning_rates=np.geomspace(0.01, 1, len(keys))"
        )
    for i, rate in enumerate(rates):
        number("fit_many", f"learning_rates[{i}]", rate.item(), above=0)
    return rates


def _with_rates(states, learning_rates, members: int):
    """The optimizer's states, each with its rate; raises ValueError unless the rate is part of the state."""
    rates = _require_rates(learning_rates, members)
    known = getattr(states, "hyperparams", {})
    if "learning_rate" not in known:
        raise ValueError(
            "optimizer: expected one whose learning rate is part of its state, because learning_rates are given; "
            + INJECTED
        )
    rate = known["learning_rate"]
    return states._replace(hyperparams={**known, "learning_rate": jnp.asarray(rates, rate.dtype)})
