"""Functions of a network can be serialised, with any batch size, and are lowered for every platform."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import fnn
from fnn.functions import Objective
from fnn.optimizers import Optimizer
from fnn.train import loop

GRAPH = fnn.graph.Graph([("x", "h"), ("h", "y"), ("x", "y")], fnn.Tanh(), inputs=["x"], outputs=["y"], normed=["y"])


@pytest.fixture(scope="module")
def networks():
    key = jax.random.key(0)
    return {
        "stack": fnn.init(key, (3, 4, 4, 4, 2), activation=fnn.Tanh(), stack=True, batch_norm="full"),
        "per neuron": fnn.init(key, (3, 2, 2), activation=fnn.PerNeuron((fnn.Sigmoid(2.0), fnn.ReLU()))),
        "graph": GRAPH.init(key, batch_norm="full"),
    }


def shapes(params, rows):
    n_in, n_out = (1, 1) if isinstance(params, fnn.graph.GraphParams) else (3, 2)
    return [jax.ShapeDtypeStruct((rows, n), jnp.float32) for n in (n_in, n_out)]


@pytest.mark.parametrize("name", ["stack", "per neuron", "graph"])
def test_forward_and_backprop_are_serialised_with_a_symbolic_batch_size(name, networks):
    params, (rows,) = networks[name], export.symbolic_shape("rows")
    (x, y), random = shapes(params, rows), np.random.default_rng(0)
    data = [random.normal(size=(5, of.shape[1])).astype("float32") for of in (x, y)]
    for function, arguments in ((fnn.forward, [x]), (fnn.backprop, [x, y])):
        written = export.export(jax.jit(function))(params, *arguments).serialize()
        called = export.deserialize(bytearray(written)).call(params, *data[: len(arguments)])
        right = jax.jit(function)(params, *data[: len(arguments)])
        assert jax.tree.structure(called) == jax.tree.structure(right)
        for ours, theirs in zip(*map(jax.tree.leaves, (called, right))):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def an_epoch(begun, x, y):
    order = jnp.arange(8, dtype=jnp.int32).reshape(2, 4)
    return loop.take_steps(
        begun, (x, y, order), 0, None, jax.random.key(0), Optimizer(fnn.updates.momentum(0.1)),
        objective=Objective(fnn.SquaredError(), "mean"), scale=1.0,
    )  # fmt: skip


def test_all_is_lowered_for_gpus_and_tpus(networks):
    platforms = ["cuda", "tpu"]
    for params in networks.values():
        x, y = shapes(params, 8)
        for function in (fnn.forward, fnn.backprop, partial(fnn.curvature.hvp, v=params)):
            arguments = (x,) if function is fnn.forward else (x, y)
            export.export(jax.jit(function), platforms=platforms)(params, *arguments)
    params = networks["per neuron"]
    x, y = shapes(params, 8)
    clipped = partial(fnn.per_example.clipped, clip=1.0)
    export.export(jax.jit(clipped), platforms=platforms)(params, x, y)
    state = fnn.updates.momentum(0.1).init(params)
    export.export(jax.jit(an_epoch), platforms=platforms)((params, state), x, y)
