"""Trains on several forced CPU devices and on one, and prints how they differ: test_parallel.py runs it."""

import json
import sys

import jax
import numpy as np
import optax

import fnn
from fnn.functions import Objective
from fnn.graph import Graph
from fnn.optimizers import Optimizer
from fnn.train import devices as spread
from fnn.train import fit, loop
from test_train import compilations

BATCH, EXAMPLES, EPOCHS = 8, 26, 2
MEAN = Objective(fnn.SoftmaxCrossEntropy(), "mean")


def graph():
    arrows = [("x", "h"), ("v", "h"), ("x", "k"), ("h", "k"), ("h", "y"), ("k", "y"), ("x", "y")]
    kinds = {"h": fnn.Tanh(), "k": fnn.ReLU(), "y": fnn.Identity()}
    return Graph(arrows, kinds, ["x", "v"], ["y"])


def layers(dtype, activation=fnn.ReLU(), **options):
    return fnn.init(jax.random.key(1), (5, 6, 6, 6, 3), activation=activation, dtype=dtype, **options)


def data_for(params, dtype):
    random = np.random.default_rng(0)
    n = 2 if isinstance(params, fnn.graph.GraphParams) else 5
    x = random.normal(size=(EXAMPLES, n)).astype(dtype)
    return (x, x[:, :1] * x[:, 1:2]) if n == 2 else (x, random.integers(0, 3, EXAMPLES).astype(np.int32))


def cases(dtype):
    """name → (parameters, optimizer, further arguments of fit, the numbers of devices that train them)."""
    momentum, adam, sgd = fnn.updates.momentum(0.1, 0.9), optax.adam(0.02), fnn.updates.sgd(0.1)
    return {
        "ReLU": (layers(dtype), momentum, {}, (2, 4, 8)),
        "batch norm, full": (layers(dtype, batch_norm="full"), momentum, {}, (2, 4, 8)),
        "batch norm, fixed, a stack": (layers(dtype, batch_norm="fixed", stack=True), adam, {}, (4,)),
        "dropout, one per example": (layers(dtype), adam, {"dropout": fnn.Dropout(0.7)}, (2, 8)),
        "dropout, one mask, a stack": (
            layers(dtype, fnn.Tanh(), stack=True), sgd, {"dropout": fnn.Dropout(0.7, per_example=False)}, (8,),
        ),
        "DropConnect, sum": (
            layers(dtype, fnn.Tanh()), sgd, {"dropout": fnn.DropConnect(0.7), "reduction": "sum"}, (2,),
        ),
        "graph": (graph().init(jax.random.key(2), dtype=dtype), adam, {}, (8,)),
        "graph, batch norm, dropout": (
            graph().init(jax.random.key(2), dtype=dtype, batch_norm="full"), sgd, {"dropout": fnn.Dropout(0.8)}, (4,),
        ),
    }  # fmt: skip


def trained(params, optimizer, further, dtype, mesh):
    data = data_for(params, dtype)
    loss = fnn.SquaredError() if data[1].ndim == 2 else fnn.SoftmaxCrossEntropy()
    run = fit(
        params, data, optimizer, loss=loss, epochs=EPOCHS, batch_size=BATCH, key=jax.random.key(7), validation=data,
        mesh=mesh, **further,
    )  # fmt: skip
    assert jax.tree.structure(run.params) == jax.tree.structure(params)
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(run.params))
    figures = np.array([[record["loss"], record["validation_loss"]] for record in run.history])
    return [*map(np.asarray, jax.tree.leaves(run.params)), figures]


def errors(dtype, cases):
    """By case, the largest error of a leaf or of the history, in the norm, against one device without a mesh.

    Relative to the leaf's norm, or to 1 where that is smaller: a bias in front of a batch norm stays near 0.
    """
    found = {}
    for name, (params, optimizer, further, counts) in cases.items():
        alone = trained(params, optimizer, further, dtype, None)
        for count in counts:
            spread_out = trained(params, optimizer, further, dtype, fnn.parallel.data_mesh(jax.devices()[:count]))
            off = [np.linalg.norm(a - b) / max(np.linalg.norm(a), 1) for a, b in zip(alone, spread_out)]
            found[f"{name}, {count} devices, {dtype}"] = float(max(off))
    return found


def messages(batch_norm, devices):
    """How often each kind of message between devices stands in the compiled loop."""
    mesh, optimizer = fnn.parallel.data_mesh(jax.devices()[:devices]), fnn.updates.sgd(0.1)
    begun = loop.start(Optimizer(optimizer), layers("float32", batch_norm=batch_norm))
    x, y = data_for(begun[0], "float32")
    order = fnn.parallel.place(np.arange(24, dtype=np.int32).reshape(3, 8), mesh, None, "data")
    program = loop.take_steps.lower(
        begun, (x, y, order), 0, None, jax.random.key(0), Optimizer(optimizer), objective=MEAN, scale=1.0,
        split=spread.DataParallel(mesh),
    ).compile().as_text()  # fmt: skip
    return {kind: program.count(f" {kind}(") for kind in ("all-reduce", "all-gather", "all-to-all")}


def compiled_by_a_second_fit():
    params, *_ = cases("float32")["batch norm, full"]
    case = (params, fnn.updates.sgd(0.1), {}, "float32", fnn.parallel.data_mesh(jax.devices()[:4]))
    trained(*case)
    with compilations() as programs:
        trained(*case)
    return programs


def refused_batch_size():
    params = layers("float32")
    options = {"loss": fnn.SoftmaxCrossEntropy(), "epochs": 1, "batch_size": 20, "key": jax.random.key(0)}
    try:
        fit(params, data_for(params, "float32"), fnn.updates.sgd(0.1), mesh=fnn.parallel.data_mesh(), **options)
    except ValueError as error:
        return str(error)


def gathered_batches_are_trained_alike():
    """A feed that yields mini-batches and not rows: the same loop."""
    mesh, params = fnn.parallel.data_mesh(), layers("float32")
    x, y = data_for(params, "float32")
    order = np.random.default_rng(1).permutation(24).astype(np.int32).reshape(3, 8)
    results = []
    for batches in ((x, y, order), (x[order], y[order], None)):

        class Feed:
            examples = batch_size = sample = close = None

            def chunks(self, key, epoch, batches=batches):
                yield 0, batches

        split = spread.DataParallel(mesh)
        ((first, placed),) = split.feed(Feed()).chunks(None, 1)
        optimizer = Optimizer(fnn.updates.sgd(0.1))
        carry = fnn.parallel.place(loop.start(optimizer, params), mesh)
        reached, *_ = loop.take_steps(
            carry, placed, first, None, jax.random.key(0), optimizer, objective=MEAN, scale=1.0, split=split
        )  # fmt: skip
        results.append(jax.tree.leaves(reached[0]))
    return all(np.array_equal(a, b) for a, b in zip(*results))


def members_apart():
    """The largest error of a leaf of ``fit_many`` on four devices, against one device without a mesh."""
    keys = jax.random.wrap_key_data(np.arange(16, dtype=np.uint32).reshape(8, 2))
    params = jax.vmap(lambda key: fnn.init(key, (5, 6, 3), batch_norm="full"))(jax.random.split(jax.random.key(1), 8))
    optimizer = optax.inject_hyperparams(fnn.updates.momentum)(learning_rate=0.1)
    data = data_for(layers("float32"), "float32")
    alone, shared = (
        fnn.train.fit_many(
            params, data, optimizer, loss=MEAN.loss, epochs=EPOCHS, batch_size=BATCH, keys=keys, mesh=mesh,
            learning_rates=np.geomspace(0.01, 0.3, 8), dropout=fnn.Dropout(0.7), validation=data,
        )
        for mesh in (None, fnn.parallel.data_mesh(jax.devices()[:4]))
    )  # fmt: skip
    pairs = zip(*(jax.tree.leaves([(run.params, run.network) for run in runs]) for runs in (alone, shared)))
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


if __name__ == "__main__":
    if sys.argv[1] == "one":
        with jax.enable_x64(True):
            params, options = layers("float64", batch_norm="full"), {"dropout": fnn.Dropout(0.7)}
            case = {"batch norm and dropout": (params, fnn.updates.momentum(0.1, 0.9), options, (8,))}
            report = {"errors": errors("float64", case), "messages": [messages(None, 2)]}
        report["refused"] = refused_batch_size()
        report["members"] = members_apart()
    else:
        with jax.enable_x64(True):
            report = {"errors": errors("float64", cases("float64"))}
        fewer = ("batch norm, full", "dropout, one per example", "graph")
        report["errors"] |= errors("float32", {name: cases("float32")[name] for name in fewer})
        report["messages"] = [messages(None, 8), messages("full", 2)]
        report["compiled by a second fit"] = compiled_by_a_second_fit()
        report["rows and gathered mini-batches are trained alike"] = gathered_batches_are_trained_alike()
    json.dump(report, sys.stdout)
