"""What the tests of per-example quantities and of curvature share on graphs: the networks."""

import jax
import numpy as np

import fnn
from fnn.graph import Graph
from graph_cases import SOFTMAX, SQUARED, TANH, data, mixed, network, random_mask

B = 7
KINDS = [TANH, fnn.Softplus(), fnn.Sigmoid()]
INPUT_IS_OUTPUT = Graph([("a", "h"), ("b", "h"), ("h", "y"), ("a", "y"), ("h", "k")], TANH, ["a", "b"], ["y", "a", "k"])


def shuffled(graph: Graph, activations, outputs=()) -> Graph:
    """The same arrows in any order, and neurons of several activations, of which more are outputs."""
    chosen = [activations[i % len(activations)] for i in range(len(graph))]
    return Graph(np.random.default_rng(0).permutation(graph.arrows), chosen, graph.inputs, [*graph.outputs, *outputs])


MIXED, MATRICES = mixed(1, KINDS, 24, 60), Graph.layered((16, 17, 3), TANH)
SKIPS = Graph.layered((16, 17, 4, 3), TANH, skips=[(0, 2), (1, 3)])  # a matrix, and arrows one by one
DEEP = Graph.random(jax.random.key(0), 40, 90, generations=20, activation=TANH)
CASES = {  # graph, batch norm, masks, loss
    "all": (shuffled(SKIPS, KINDS, outputs=[2, 20]), "fixed", ("units", "arrows"), SOFTMAX),
    "matrices with arrow masks": (MATRICES, None, ("arrows",), SOFTMAX),
    "unit masks of the batch": (MIXED, None, ("units of the batch",), SQUARED),
    "deep": (DEEP, None, ("units",), SQUARED),
    "an input is an output": (INPUT_IS_OUTPUT, None, (), SQUARED),
    "no arrow": (Graph([], TANH, ["a", "b"], ["b", "a"]), None, (), SQUARED),
}
SMALL = Graph(
    [("b", "h"), ("h", "i"), ("a", "h"), ("a", "i"), ("h", "k"), ("i", "y"), ("h", "y"), ("i", "k")],
    {"h": TANH, "i": KINDS[1], "k": KINDS[2], "y": KINDS[1]}, ["a", "b"], ["y", "a", "i", "k"],
)  # fmt: skip
LITTLE = {"little of all": (SMALL, "fixed", ("units", "arrows"), SOFTMAX)}  # compiled in less time
# where no example has a gradient of its own
FULL = {"little with a full batch norm": (SMALL, "full", ("units", "arrows"), SOFTMAX)}


def given(name: str, dtype="float64"):
    """params, x, y, and the keywords loss and masks; in float32 the same numbers, rounded."""
    graph, batch_norm, parts, loss = (CASES | LITTLE | FULL)[name]
    params, (x, y) = network(graph, dtype, batch_norm=batch_norm), data(graph, B, dtype)
    return params, x, y, {"loss": loss, "masks": random_mask(graph, parts, B, dtype)}
