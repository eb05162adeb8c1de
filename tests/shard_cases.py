"""Trains with layers sharded over several forced CPU devices, and prints what came out: test_parallel.py runs it."""

import json
import re
import sys
import tempfile
import warnings

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import fnn
from fnn.functions import Objective
from fnn.optimizers import Optimizer
from fnn.train import evaluate, fit, loop, make_step, predict
from fnn.train.shards import LayerParallel

LOSS, BATCH, EXAMPLES = fnn.SoftmaxCrossEntropy(), 8, 26
MOMENTUM = fnn.updates.momentum(0.1, 0.9)


def layers(dtype="float64", **options):
    options = {"activation": fnn.Tanh(), "dtype": dtype} | options
    return fnn.init(jax.random.key(1), (5, 8, 8, 8, 3), **options)


def data(dtype="float64"):
    random = np.random.default_rng(0)
    return random.normal(size=(EXAMPLES, 5)).astype(dtype), random.integers(0, 3, EXAMPLES).astype(np.int32)


def trained(params, optimizer=MOMENTUM, *, epochs=2, dtype="float64", **options):
    options = {"loss": LOSS, "batch_size": BATCH, "key": jax.random.key(7), "validation": data(dtype)} | options
    return fit(params, data(dtype), optimizer, epochs=epochs, progress=False, **options)


def sharded(*args, devices=4, **options):
    mesh = fnn.parallel.data_mesh(jax.devices()[:devices])
    return trained(*args, mesh=mesh, shard="layers", **options)


CASES = {
    "tanh, adam": ({}, optax.adam(0.02), {}),
    "a stack with batch norm": ({"batch_norm": "full", "stack": True}, MOMENTUM, {}),
    "dropout, sum": ({}, MOMENTUM, {"dropout": fnn.Dropout(0.7), "reduction": "sum"}),
    "DropConnect": ({"activation": fnn.ReLU()}, MOMENTUM, {"dropout": fnn.DropConnect(0.7)}),
    "lbfgs": ({}, optax.lbfgs(0.05, linesearch=None), {}),
    "adafactor": ({}, optax.adafactor(0.05, min_dim_size_to_factor=4), {}),
}


def leaves(run):
    losses = [[record["loss"], record["validation_loss"]] for record in run.history]
    return [*map(np.asarray, jax.tree.leaves((run.params, run.network))), np.array(losses)]


def apart(one, other):
    """The largest error of a leaf in the norm, relative to the leaf's or to 1."""
    pairs = zip(leaves(one), leaves(other))
    return max(float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1)) for a, b in pairs)


def spread_over(tree):
    """Of the arrays with an axis of 8 neurons, the shares of an array that its devices hold."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if leaf.size and leaf.shape[-2:] in {(8, 5), (8, 8), (8,), (3, 8)}]
    return sorted({shard.data.size / leaf.size for leaf in arrays for shard in leaf.addressable_shards})


def errors(cases):
    found = {}
    for name in cases:
        options, optimizer, further = CASES[name]
        params = layers(**options)
        alone = trained(params, optimizer, **further)
        for devices in (2, 4):
            found[f"{name}, {devices} devices"] = apart(alone, sharded(params, optimizer, devices=devices, **further))
    return found


def where_it_lives():
    run = sharded(layers())
    state = [run.params[:-1], run.network[:-1], jax.tree.leaves(run.state.optimizer_state)[:-2]]
    return {"hidden layers": [spread_over(part) for part in state], "output": spread_over(run.params[-1])}


def program(width=64, devices=4):
    """The compiled loop of a network 32-64-64-12, whose sizes tell its arrays apart."""
    split = LayerParallel(fnn.parallel.data_mesh(jax.devices()[:devices]))
    params = fnn.init(jax.random.key(0), (32, width, width, 12), activation=fnn.Tanh())
    begun = loop.start(Optimizer(MOMENTUM), split.home(params), split)
    x, y = np.ones((BATCH, 32), np.float32), np.zeros(BATCH, np.int32)
    return loop.take_steps.lower(
        begun, (x[None], y[None], None), 0, None, jax.random.key(0), Optimizer(MOMENTUM),
        objective=Objective(LOSS, "mean"), scale=1.0, split=split,
    ).compile()  # fmt: skip


def messages():
    """The shapes of all arrays that the devices send each other."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    lines = re.findall(rf"= (\(?[^=]*?) (?:{kinds})\(", program().as_text())
    return sorted({shape for line in lines for shape in re.findall(r"\[([\d,]*)\]", line)})


def memory():
    """Bytes on each device of four, of the compiled loop's arguments and of what it needs beside them, for one's."""
    found = [program(512, devices).memory_analysis() for devices in (1, 4)]
    return [found[1].argument_size_in_bytes / found[0].argument_size_in_bytes,
            found[1].temp_size_in_bytes / found[0].temp_size_in_bytes]  # fmt: skip


def bitwise(one, other):
    return all(map(np.array_equal, leaves(one), leaves(other)))


def resumed():
    """A run that goes on from its checkpoint in shards, in memory, on fewer devices, and without shards."""
    params = layers(batch_norm="full")
    whole = sharded(params, epochs=4)
    with tempfile.TemporaryDirectory() as folder:
        first = sharded(params, checkpoint=f"{folder}/run")
        again = sharded(params, checkpoint=f"{folder}/run", epochs=4)
        others = []
        for place, way in (("two", {"devices": 2}), ("one", None)):
            sharded(params, checkpoint=f"{folder}/{place}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the devices are others
                go_on = sharded if way else trained
                others.append(go_on(params, checkpoint=f"{folder}/{place}", epochs=4, **(way or {})))
    return {
        "from its checkpoint": bitwise(whole, again),
        "in memory": bitwise(whole, sharded(first, epochs=2)),
        "its shards": spread_over(again.params[:-1]),
        "elsewhere": max(apart(whole, other) for other in others),
    }


def used():
    """What evaluate and predict make of a run in shards."""
    run = sharded(layers())
    alone = trained(layers())
    values = [evaluate(each, data(), loss=LOSS) for each in (run, alone)]
    outputs = [predict(each, data()[0]) for each in (run, alone)]
    return [abs(values[0]["loss"] - values[1]["loss"]), float(np.abs(outputs[0] - outputs[1]).max())]


def streamed():
    """Whether batches from a function, and data given chunk by chunk, train bitwise as those in memory."""
    x, y = (array[: EXAMPLES // BATCH * BATCH] for array in data())
    rows = np.split(np.arange(len(x)), len(x) // BATCH)
    whole = sharded(layers(), validation=None, epochs=1)
    chunks = sharded(layers(), validation=None, epochs=1, every_steps=1)
    batches = fnn.data.Batches(lambda epoch: ((x[some], y[some]) for some in rows))
    optimizer, options = MOMENTUM, {"loss": LOSS, "epochs": 1, "batch_size": BATCH, "key": jax.random.key(7)}
    mesh = fnn.parallel.data_mesh()
    alone, spread = (
        fit(layers(), batches, optimizer, progress=False, **options, **more)
        for more in ({}, {"mesh": mesh, "shard": "layers"})
    )
    pairs = zip(*map(jax.tree.leaves, (alone.params, spread.params)))
    errors = [float(np.abs(np.asarray(one) - np.asarray(other)).max()) for one, other in pairs]
    same = map(np.array_equal, *map(jax.tree.leaves, (whole.params, chunks.params)))
    return [all(same), max(errors)]


def diverged():
    """What a run that diverges says, with and without shards."""
    said = []
    for train in (trained, sharded):
        try:
            train(layers(activation=fnn.ReLU()), fnn.updates.sgd(1e200))
        except fnn.train.NonFinite as error:
            said.append(str(error).split("(")[0])
    return said


def two_axes():
    """Steps of make_step with rows of W over one axis of a mesh and examples over another, as the guide shows."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "layers"))
    alone = fnn.init(jax.random.key(1), (5, 8, 4), activation=fnn.Tanh(), dtype="float64")
    x, y = data()
    x, y = x[:BATCH], y[:BATCH]
    step = make_step(MOMENTUM, loss=LOSS)
    params = jax.device_put(alone, NamedSharding(mesh, PartitionSpec("layers")))
    spread = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec("data")))
    state, of_one = jax.jit(MOMENTUM.init)(params), MOMENTUM.init(alone)
    for _ in range(3):
        params, state, _ = step(params, state, *spread)
        alone, of_one, _ = step(alone, of_one, x, y)
    errors = [np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(*map(jax.tree.leaves, (alone, params)))]
    return [float(max(errors)), spread_over(params)]


def deep():
    return fnn.graph.Graph.layered([5, 8, 3], fnn.Tanh())


def refused():
    mesh, params = fnn.parallel.data_mesh(), layers()
    narrow = fnn.init(jax.random.key(1), (5, 6, 3), dtype="float64")
    calls = {
        "width": lambda: sharded(narrow),
        "no mesh": lambda: trained(params, shard="layers"),
        "name": lambda: trained(params, mesh=mesh, shard="rows"),
        "graph": lambda: sharded(deep().init(jax.random.key(2), dtype="float64")),
    }
    said = {}
    for name, call in calls.items():
        try:
            call()
        except (TypeError, ValueError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    report = {"errors": errors(list(CASES)[:3] if sys.argv[1] == "some" else CASES)}
    report |= {"where": where_it_lives(), "resumed": resumed(), "used": used(), "refused": refused()}
    report |= {"two axes": two_axes(), "streamed": streamed(), "diverged": diverged()}
    jax.config.update("jax_enable_x64", False)
    report |= {"messages": messages(), "memory": memory()}
    json.dump(report, sys.stdout)
