"""graph: networks on any directed acyclic graph, with one activation per neuron.

``fnn``'s functions accept a graph's parameters just as they accept layers:

>>> import jax, fnn
>>> graph = fnn.graph.Graph([("x", "h"), ("h", "y"), ("x", "y")], fnn.Tanh(), inputs=["x"], outputs=["y"])
>>> params = graph.init(jax.random.key(0))
>>> fnn.backprop(params, jax.numpy.ones((5, 1)), jax.numpy.zeros((5, 1))).weights.shape
(3,)

The indices of the arrows are arguments of every program of fnn. In a function of yours under ``jax.jit`` they are
constants, unless it takes :func:`tables` as an argument.
"""

from fnn.graph.given import tables
from fnn.graph.graph import Graph, GraphParams
from fnn.graph.passes import Trace

__all__ = ["Graph", "GraphParams", "Trace", "tables"]
