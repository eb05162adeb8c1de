"""graph: networks on any directed acyclic graph, with an activation of its own at every neuron (equations S1 to S4).

>>> import jax, fnn
>>> graph = fnn.graph.Graph([("x", "h"), ("h", "y"), ("x", "y")], fnn.Tanh(), inputs=["x"], outputs=["y"])
>>> params = graph.init(jax.random.key(0))
>>> fnn.graph.backprop(params, jax.numpy.ones((5, 1)), jax.numpy.zeros((5, 1))).weights.shape
(3,)
"""

from fnn.graph.graph import Graph, Network
from fnn.graph.passes import Trace, backprop, deltas, forward, input_gradient, trace, value_and_backprop
from fnn.graph.training import fold, sample_masks, statistics

__all__ = [
    "Graph",
    "Network",
    "Trace",
    "backprop",
    "deltas",
    "fold",
    "forward",
    "input_gradient",
    "sample_masks",
    "statistics",
    "trace",
    "value_and_backprop",
]
