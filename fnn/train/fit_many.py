"""``fit_many``: networks of one shape trained together, each with its own learning rate and shuffles."""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import PartitionSpec as P

from fnn import parallel
from fnn.backward import RULES, Rules
from fnn.checkpoint.directory import Checkpoint
from fnn.checkpoint.resume import Keeping, Resumable
from fnn.checks.network import Ports
from fnn.data import Dataset
from fnn.display import Bar
from fnn.dropout import DropConnect, Dropout
from fnn.functions import Objective
from fnn.kinds import AnyParams, kind, require_rules
from fnn.losses import Loss, SquaredError
from fnn.numbers import whole
from fnn.optimizers import Optimizer
from fnn.processes import Processes
from fnn.runs import Record, Run, State
from fnn.train.epochs import Interrupted
from fnn.train.evaluation import folded, judged, means, named
from fnn.train.fit import STATISTICS_EXAMPLES
from fnn.train.identity import Given, identity, of_members, settings
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
from fnn.train.members import in_memory, require_keys, require_members_mesh, stacked, with_rates
from fnn.train.watch import Progress, Watch, numbers, require_watching


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
    rules: Rules = RULES,
    callback: Callable[[Progress], bool | Mapping[str, Any] | None] | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 1,
    mesh: jax.sharding.Mesh | None = None,
) -> list[Run]:
    """Train N networks on the same data at once, each as ``fit`` would, in one compiled program.

    params: the parameters of one network with a leading axis of N members on every leaf, as ``jax.vmap`` makes them
    (below); for a graph, ``jax.vmap(graph.init)(keys)``. keys: (N,), ``jax.random.split(jax.random.key(seed), N)``;
    each member has the shuffles and masks that ``fit`` draws from its key. learning_rates: N numbers > 0, one per
    member, replacing the rate of ``optimizer``, which must be an
    ``optax.inject_hyperparams(rule)(learning_rate=...)``; None trains all with the optimizer unchanged. Everything else
    is as in ``fit`` and shared by all members. The data are on the device once, for any N, and are not streamed.

    callback: called after every epoch with a :class:`Progress`, whose params have the leading axis and whose history is
    a tuple with the records of every member; returning True stops all, and a dict whose values are one or N numbers
    joins the records. checkpoint, every: as in ``fit``; all members are saved together. mesh: its devices, whose number
    must divide N, share the members; single process only. Ctrl-C raises ``fnn.train.Interrupted``, whose ``run`` is the
    list of runs after the last complete epoch.

    Returns a list with the ``Run`` of every member, as from ``fit``, which may also resume it; "seconds" is the
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
    members = require_keys(keys)
    params, first = stacked(params, members)
    require_training(first, optimizer, loss, reduction, dropout)
    require_rules(rules)
    require_watching(callback, None, None, validation)
    require_members_mesh(mesh, members)
    data = in_memory(data, first, loss, "data")
    batch_size, epochs = whole("batch_size", batch_size, len(data), "examples"), whole("epochs", epochs)
    validation = None if validation is None else in_memory(validation, first, loss, "validation")
    rule, of = Optimizer(optimizer), kind(first)
    tables, ports = of.tables(first, RULES), of.ports(first)
    begin(rule, first)
    params, states = jax.vmap(partial(start, rule))(params)
    states = with_rates(states, learning_rates, members)
    objective = Objective(data.weighted(loss), reduction, rules)
    xy = jnp.asarray(data.x), jnp.asarray(data.targets(ports))
    seeds = np.asarray(jax.random.key_data(keys))  # indexing the typed keys would mark them as used
    samples = _samples(seeds, len(data), batch_size) if of.has_norm(first) else None
    networks = partial(_folded, x=xy[0], samples=samples, dropout=dropout, tables=tables, scale=data.scale)
    unused = {"keep": None, "patience": None, "batches_per_epoch": None}
    same = partial(settings, objective, examples=len(data), dropout=dropout, batch_size=batch_size, **unused)
    work = _Work(
        partial(_one_epoch, xy, seeds, keys, dropout, rule, of.tables(first, rules), batch_size, mesh,
                objective=objective, scale=data.scale),
        networks,
        _evaluator(validation, ports, loss, networks, tables, members),
        batch_size if reduction == "sum" else 1,
        [jax.random.wrap_key_data(key, impl=jax.random.key_impl(keys)) for key in seeds],
        same,
    )  # fmt: skip
    rates = None if learning_rates is None else np.asarray(learning_rates).tolist()
    of_all = same(key=keys) | {"learning_rates": str(rates)}
    keeping = Keeping(checkpoint, every, None, (), False).checked()
    if keeping.checkpoint is not None:
        all_members = Run(None, first, [], State(None, 0, 0, keys))
        of_all = identity(Given(all_members, data, validation, rule, objective, of_all)) | of_members(params)
    watch = Watch(started, progress, None, callback, batch_size, None, None)
    with Resumable(keeping, epochs, of_all, callback is not None, Processes(False)) as kept:
        return _trained(work, kept, Checkpoint(params, states, None, 0), watch)


class _Work(NamedTuple):
    """What training together is made of."""

    train: Callable  # ((params, states), epoch) -> the same after the epoch, and the losses of its steps, (steps, N)
    networks: Callable  # (params, states) -> every member's network for inference, with a leading axis
    judge: Callable  # (params, states) -> every member's record on the held-out data
    of_step: int  # the number of examples in a step's loss: 1, because it is a mean, or the size of its mini-batch
    keys: list[Array]
    same: Callable  # (key) -> the settings of one member

    def records(self, epoch: int, trained, losses: np.ndarray, started: float) -> list[Record]:
        """Every member's record of an epoch."""
        of_held_out, seconds = self.judge(*trained), time.perf_counter() - started
        return [
            {"epoch": epoch, "loss": mean_loss(of_one) / self.of_step} | record | {"seconds": seconds}
            for of_one, record in zip(losses.T, of_held_out)
        ]

    def runs(self, reached: Checkpoint) -> list[Run]:
        """The run of every member."""
        params, states = reached.params, reached.optimizer_state
        together = self.networks(params, states), params, states
        runs = []
        for i, key in enumerate(self.keys):
            network, own, state = jax.tree.map(lambda leaf, i=i: leaf[i], together)
            history = [dict(epoch["members"][i]) for epoch in reached.history]
            held = State(state, reached.epoch, reached.step, key, same=self.same(key=key))
            runs.append(Run(network, own, history, held))
        return runs


def _trained(work: _Work, kept: Resumable, begun: Checkpoint, watch: Watch) -> list[Run]:
    """Run the remaining epochs, until the callback stops them; a checkpoint's record of an epoch has all members'."""
    reached, left = kept.resume(begun)
    started = watch.started - (reached.history[-1]["members"][0]["seconds"] if reached.history else 0)
    try:
        with Bar(kept.epochs, watch.progress, reached.epoch) as bar:
            for epoch in left:
                trained, losses = work.train(reached[:2], epoch)
                records = work.records(epoch, trained, losses, started)
                history = [*reached.history, {"members": records}]
                params, states = trained
                reached = Checkpoint(params, states, None, epoch, reached.step + len(losses), history)
                bar.show(
                    {"loss": float(np.mean([record["loss"] for record in records]))}, losses.size * watch.batch_size
                )
                reached = reached._replace(stopped=_told(watch.callback, reached))
                kept.after(reached)
                if reached.stopped:
                    break
    except KeyboardInterrupt as error:
        raise Interrupted(reached.epoch, work.runs(reached)) from error
    return work.runs(reached)


def _told(callback: Callable | None, reached: Checkpoint) -> bool:
    """Whether the callback ends the runs; what it returns joins the last records."""
    if callback is None:
        return False
    histories = zip(*(epoch["members"] for epoch in reached.history))
    stop = callback(Progress(reached.epoch, reached.params, tuple(tuple(map(dict, records)) for records in histories)))
    if not isinstance(stop, Mapping):
        return bool(stop)
    last = reached.history[-1]["members"]
    for name, value in stop.items():
        if np.ndim(value) == 1 and len(value) != len(last):
            raise ValueError(
                f"callback: expected a number or {len(last)} of them, one per member, got {name!r}: {value!r}"
            )
    for i, record in enumerate(last):
        own = {name: value[i] if np.ndim(value) == 1 else value for name, value in stop.items()}
        record.update(numbers(own, record))
    return False


def _one_epoch(xy, seeds, keys, dropout, rule, tables, batch_size: int, mesh, begun, epoch: int, **options):
    """(parameters, states) after an epoch, and the losses (steps, N); with a mesh, on its first device."""
    orders = _orders(seeds, epoch, examples=len(xy[0]), batch_size=batch_size)
    if mesh is None:
        trained, losses = _epoch(begun, xy, orders, dropout, keys, epoch, rule, tables, **options)
        return trained, np.asarray(losses)
    (axis,) = mesh.axis_names
    (begun, keys), xy = parallel.place((begun, keys), mesh, axis), parallel.place(xy, mesh)
    orders = parallel.place(orders, mesh, None, axis)
    trained, losses = _epoch(begun, xy, orders, dropout, keys, epoch, rule, tables, mesh=mesh, **options)
    return jax.device_put(trained, mesh.devices.flat[0]), np.asarray(losses)


@partial(jax.jit, static_argnames=("objective", "scale", "mesh"))
def _epoch(begun, xy, orders, dropout, keys, epoch, optimizer, tables, *, objective, scale, mesh=None):
    """One step of every member per row of ``orders``, (steps, N, B): (parameters, states) and losses (steps, N).

    mesh: its devices share the members, if it is given.
    """
    if mesh is not None:
        own, of_steps = P(*mesh.axis_names), P(None, *mesh.axis_names)
        specs = own, P(), of_steps, P(), own, P(), P(), P()
        of_one = partial(_epoch, objective=objective, scale=scale)
        share = jax.shard_map(of_one, mesh=mesh, in_specs=specs, out_specs=(own, of_steps), check_vma=False)
        return share(begun, xy, orders, dropout, keys, epoch, optimizer, tables)
    (x, y), keys = xy, jax.vmap(jax.random.fold_in, (0, None))(keys, epoch)

    def member(params, state, key, rows, number):
        # one mini-batch at a time, to avoid copies
        batch, masks = inputs(ALL_ROWS, params, x[rows], number, dropout, key, tables, scale, objective.rules)
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


def _evaluator(validation: Dataset | None, ports: Ports, loss, networks: Callable, tables, members: int):
    """A function of the stacked parameters that gives every member's record on the held-out data, if any."""
    if validation is None:
        return lambda params, states: [{}] * members
    given, classes = (jnp.asarray(validation.x), jnp.asarray(validation.targets(ports))), validation.classes()
    judge = partial(judged, loss=validation.weighted(loss), scale=validation.scale)

    def evaluate(params, states):
        found = jax.vmap(judge, (0, None, None, None, None))(networks(params, states), *given, classes, tables)
        losses, accuracies = jax.vmap(means, (0, None))(found, len(validation))
        return [named((losses[i], None if accuracies is None else accuracies[i])) for i in range(members)]

    return evaluate


@partial(jax.jit, static_argnames="scale")
def _folded(params, states, *, x, samples, dropout, tables, scale):
    """Every member's network for inference, one by one, because each gathers its own sample."""

    def member(given):
        params, state, rows = given
        params = for_evaluation(params, state)
        return folded(params, None if rows is None else x[rows], dropout, tables, scale=scale)

    return jax.lax.map(member, (params, states, None if samples is None else jnp.swapaxes(samples, 0, 1)))
