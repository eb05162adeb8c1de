"""Layer parallelism: every device of a mesh holds its rows of every W, and computes its neurons for all examples.

The compiled loop is that of one device, and its arrays say where they live: W (n_out, n_in) is sharded by its rows, and
so are b, γ, β and what an optimizer keeps for each. Then ψ and δ are sharded by neurons, (3) and (4) need no
communication, and no W and no gradient ever moves. Per layer and step the devices gather a, (B, n_out), for the next
layer, and sum their terms of (2a), (B, n_in).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnn import parallel
from fnn.checks import arrays
from fnn.kinds import GRAPH, kind
from fnn.layers import Dense
from fnn.train.devices import DataParallel, Spread

SHARDS = ("data", "layers")


@dataclass(frozen=True)
class LayerParallel:
    """Every device holds its rows of every layer's parameters; see ``devices`` for the methods."""

    mesh: Mesh

    def home(self, begun):
        return jax.device_put(begun, layout(begun, self.mesh))

    place = home

    def hold(self, begun):
        return lax.with_sharding_constraint(begun, layout(begun, self.mesh))

    def at_hand(self, reached):
        return reached

    def feed(self, feed) -> Spread:
        return Spread(feed, self.mesh)

    def over(self, loop: Callable) -> Callable:
        def held(begun, *rest):
            reached, *others = loop(self.hold(begun), *rest)
            return self.hold(reached), *others

        return held

    def rows(self, *functions: Callable) -> tuple[Callable, ...]:
        return functions


def layout(tree, mesh: Mesh):
    """For every array of a pytree how it lives on the mesh: those of a layer by rows, all others whole everywhere.

    A layer may be of parameters or of an optimizer's state, with further axes in front as in a :class:`Stack`. What
    the number of devices does not divide is whole too.
    """
    (axis,) = mesh.axis_names

    def of_leaf(leaf, from_the_end: int):
        divided = leaf.ndim >= from_the_end and leaf.shape[-from_the_end] % mesh.size == 0
        spec = (None,) * (leaf.ndim - from_the_end) + (axis,) if divided else ()
        return NamedSharding(mesh, PartitionSpec(*spec))

    def of_node(node):
        if not isinstance(node, Dense):
            return NamedSharding(mesh, PartitionSpec())
        vectors = jax.tree.map(lambda leaf: of_leaf(leaf, 1), node)
        return replace(vectors, W=jax.tree.map(lambda leaf: of_leaf(leaf, 2), node.W))

    return jax.tree.map(of_node, tree, is_leaf=lambda node: isinstance(node, Dense))


def split_of(mesh: Mesh | None, shard: str, params, batch_size: int) -> DataParallel | LayerParallel | None:
    """How the devices of ``mesh`` share the run, None without one; raises TypeError or ValueError."""
    arrays.one_of("shard", shard, SHARDS)
    if shard == "data":
        if mesh is None:
            return None
        parallel.require_mesh(mesh, batch_size)
        return DataParallel(mesh)
    if mesh is None:
        raise ValueError("mesh: shard='layers' needs one; write mesh=fnn.parallel.data_mesh()")
    parallel.require_mesh(mesh, mesh.size)
    _require_divisible(params, mesh)
    return LayerParallel(mesh)


def _require_divisible(params, mesh: Mesh) -> None:
    """Raise TypeError for a graph, and ValueError for several processes or a hidden width that does not divide."""
    if kind(params) is GRAPH:
        raise TypeError("shard: 'layers' shards the rows of every W, and a graph has none; write shard='data'")
    if mesh.is_multi_process:
        raise ValueError(
            "shard: 'layers' needs devices of one process, because checkpoints and evaluation read all parameters; "
            "got a mesh of several; write mesh=fnn.parallel.data_mesh(jax.local_devices()) in a program of one process"
        )
    for number, layer in enumerate(params[:-1]):
        width = layer.b.shape[-1]
        if width % mesh.size:
            raise ValueError(
                f"shard: 'layers' needs hidden widths that are multiples of {mesh.size}, the number of devices in "
                f"mesh, got {width} in params[{number}]; write {-(-width // mesh.size) * mesh.size}, or shard='data'"
            )
