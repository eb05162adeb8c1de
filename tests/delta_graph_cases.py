"""What the tests of per-example quantities and of curvature share on graphs: the networks, and autodiff's gradients."""

from functools import cache

import jax
import numpy as np

import fnn
from fnn.graph import Graph, forward, sample_masks
from test_graph import SOFTMAX, SQUARED, TANH, data, mixed, network

B = 7
KINDS = [TANH, fnn.Softplus(), fnn.Sigmoid()]
INPUT_IS_OUTPUT = Graph([("a", "h"), ("b", "h"), ("h", "y"), ("a", "y"), ("h", "k")], TANH, ["a", "b"], ["y", "a", "k"])


def shuffled(graph: Graph, activations) -> Graph:
    """The same arrows in any order, and neurons of several activations."""
    chosen = [activations[i % len(activations)] for i in range(len(graph))]
    return Graph(np.random.default_rng(0).permutation(graph.arrows), chosen, graph.inputs, graph.outputs)


MIXED, MATRICES = mixed(1, KINDS, 24, 60), Graph.layered((16, 17, 3), TANH)
SKIPS = Graph.layered((16, 17, 4, 3), TANH, skips=[(0, 2), (1, 3)])  # a matrix, and arrows one by one
UNITS, ARROWS = fnn.Dropout(0.7), fnn.DropConnect(0.7, inverted=True)
CASES = {  # graph, batch norm, dropouts, loss
    "all": (shuffled(SKIPS, KINDS), "fixed", (UNITS, ARROWS), SOFTMAX),
    "named": (MIXED, None, (), SQUARED),
    "skips": (SKIPS, None, (), SQUARED),
    "matrices": (MATRICES, None, (), SQUARED),
    "an input is an output": (INPUT_IS_OUTPUT, None, (), SQUARED),
    "matrices with arrow masks": (MATRICES, None, (ARROWS,), SOFTMAX),
    "unit masks of the batch": (MIXED, None, (fnn.Dropout(0.5, per_example=False),), SQUARED),
    "fixed batch norm": (MIXED, "fixed", (), SQUARED),
    "deep": (Graph.random(jax.random.key(0), 40, 90, generations=20, activation=TANH), None, (UNITS,), SQUARED),
    "no arrow": (Graph([], TANH, ["a", "b"], ["b", "a"]), None, (), SQUARED),
}
SMALL = Graph(
    [("b", "h"), ("h", "i"), ("a", "h"), ("a", "i"), ("h", "k"), ("i", "y"), ("h", "y"), ("i", "k")],
    {"h": TANH, "i": KINDS[1], "k": KINDS[2], "y": KINDS[1]}, ["a", "b"], ["y", "a", "i", "k"],
)  # fmt: skip
LITTLE = {"little of all": (SMALL, "fixed", (UNITS, ARROWS), SOFTMAX)}  # compiled in less time
FULL = {  # where no example has a gradient of its own
    "little with a full batch norm": (SMALL, "full", (UNITS, ARROWS), SOFTMAX),
    "full batch norm": (shuffled(SKIPS, KINDS), "full", (UNITS, ARROWS), SOFTMAX),
}


def given(name: str, dtype="float64"):
    """params, x, y, and the keywords loss and masks; in float32 the same numbers, rounded."""
    graph, batch_norm, dropouts, loss = (CASES | LITTLE | FULL)[name]
    with jax.enable_x64(True):
        params, (x, y), parts = network(graph, batch_norm=batch_norm), data(graph, B), {}
        for i, dropout in enumerate(dropouts):
            drawn = sample_masks(jax.random.key(i), params, dropout, B)
            parts |= {part: leaf for part, leaf in drawn._asdict().items() if leaf is not None}
        masks = fnn.Mask(**parts) if parts else None
        params, x, y, masks = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x, y, masks))
    return params, x, y, {"loss": loss, "masks": masks}


@cache
def oracle(name: str):
    """Autodiff's gradient of every example, with the examples in front: in float64."""
    params, x, y, options = given(name)
    return jax.jit(jax.jacrev(lambda params: options["loss"].value(forward(params, x, options["masks"]), y)))(params)
