"""Data parallelism: the loop runs on every device of a mesh, each with its own rows of every mini-batch.

``DataParallel`` and ``shards.LayerParallel`` are the two ways in which the devices of a mesh split the steps of a run.
Their methods say where the parameters and the optimizer's state are between epochs (``home``; ``hold`` in a compiled
program) and during one (``place``, and ``at_hand`` back again), and what the feed, the compiled loop and the functions
of a step are there (``feed``, ``over``, ``rows``).

Parameters and optimizer state are replicated, and every device takes the same step with the sum of all devices'
gradients; without a batch norm, that sum is the step's only communication. Only its order depends on the number of
devices: dropout draws the masks, and a batch norm uses the statistics, of the whole mini-batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from fnn import parallel
from fnn.masks import Mask


@dataclass(frozen=True)
class DataParallel:
    """Every device holds all parameters, and computes with its rows of every mini-batch."""

    mesh: Mesh

    def home(self, begun):
        return begun

    hold = home

    def place(self, begun):
        return parallel.place(begun, self.mesh)

    def at_hand(self, reached):
        return parallel.here(reached)

    def feed(self, feed) -> "Spread":
        return Spread(feed, self.mesh, *self.mesh.axis_names)

    def over(self, loop: Callable) -> Callable:
        """``loop``, called like ``loop.take_steps``, on every device with its rows of the mini-batches."""
        (axis,) = self.mesh.axis_names
        mine = P(None, axis)

        def spread(begun, batches, *rest):
            of_data = mine if batches[2] is None else P()
            specs = (P(), (of_data, of_data, mine), *(P() for _ in rest))
            over = jax.shard_map(loop, mesh=self.mesh, in_specs=specs, out_specs=P(), check_vma=False)
            return over(begun, batches, *rest)

        return spread

    def rows(self, value_and_gradients: Callable, masks: Callable) -> tuple[Callable, Callable]:
        """The same functions of a step when only one device's rows of the mini-batch are available.

        The first gives the whole mini-batch's results, the second the masks of these rows.
        """
        return partial(_value_and_gradients, value_and_gradients, self.mesh), partial(_masks, masks, self.mesh)


class Spread:
    """The mini-batches of another feed on a mesh: their rows sharded over its axis, or whole without an axis."""

    def __init__(self, feed, mesh: Mesh, axis: str | None = None):
        self.feed, self.mesh, self.axis = feed, mesh, axis
        self.examples, self.batch_size, self.sample, self.close = (
            feed.examples,
            feed.batch_size,
            feed.sample,
            feed.close,
        )
        self._given: Any = None  # replicated arrays stay on the devices for all epochs
        self._placed: Any = None

    @property
    def scale(self) -> float:
        return self.feed.scale

    def chunks(self, key: Array, epoch: int, *position: Any) -> Iterator[tuple[int, tuple | None]]:
        """Those of the wrapped feed, on the mesh."""
        for first, batches in self.feed.chunks(key, epoch, *position):
            if batches is None:
                yield first, None
                continue
            x, y, rows = batches
            if rows is None:
                yield first, (*parallel.place((x, y), self.mesh, None, self.axis), None)
                continue
            if self._given is not x:
                self._given, self._placed = x, parallel.place((x, y), self.mesh)
            yield first, (*self._placed, parallel.place(rows, self.mesh, None, self.axis))


def _value_and_gradients(of_rows: Callable, mesh: Mesh, params, x, masks, y, objective):
    (axis,) = mesh.axis_names
    normed = jax.tree.map(lambda node: replace(node, axis=axis) if _is_norm(node) else node, params, is_leaf=_is_norm)
    value, gradients = of_rows(normed, x, masks, y, objective._replace(reduction="sum"))
    gradients = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(gradients))  # norms without an axis
    scale = 1 / (len(x) * mesh.size) if objective.reduction == "mean" else 1
    leaves, structure = jax.tree.flatten((value, gradients))
    total = _total(_one_vector(leaves), mesh)  # one message per leaf would cost one latency each
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = (total[end - leaf.size : end].reshape(leaf.shape).astype(leaf.dtype) for leaf, end in zip(leaves, ends))
    return jax.tree.unflatten(structure, [part * scale for part in parts])


def _one_vector(leaves) -> Array:
    """All entries of the leaves, written in place because jnp.concatenate can be 100 times slower on CPUs."""
    with jax.numpy_dtype_promotion("standard"):  # a loss may have another dtype
        vector = jnp.zeros(sum(leaf.size for leaf in leaves), jnp.result_type(*leaves))
    offset = 0
    for leaf in leaves:
        vector = lax.dynamic_update_slice(vector, leaf.ravel().astype(vector.dtype), (offset,))
        offset += leaf.size
    return vector


def _total(vector: Array, mesh: Mesh) -> Array:
    """The sum over the devices, on every device.

    On CPUs, the order in which an all-reduce adds three or more terms depends on how the devices are spread over
    processes. Instead, each device there adds its part of all vectors in device order, and the parts are gathered; the
    amount of communication is the same.
    """
    (axis,) = mesh.axis_names
    if mesh.size <= 2 or mesh.devices.flat[0].platform != "cpu":
        return lax.psum(vector, axis)
    parts = jnp.pad(vector, (0, -vector.size % mesh.size)).reshape(mesh.size, -1)
    mine = jnp.sum(lax.all_to_all(parts, axis, 0, 0), axis=0)
    return lax.all_gather(mine, axis, tiled=True)[: vector.size]


def _masks(of_all: Callable, mesh: Mesh, key, params, dropout, rows: int):
    """The masks of the whole mini-batch, reduced to this device's rows where they have one row per example."""
    whole = rows * mesh.size

    def of_rows(mask):
        if mask.units is None or mask.units.shape[-2] != whole:
            return mask
        first = lax.axis_index(*mesh.axis_names) * rows
        return mask._replace(units=lax.dynamic_slice_in_dim(mask.units, first, rows, axis=-2))

    masks = of_all(key, params, dropout, whole)
    return jax.tree.map(of_rows, masks, is_leaf=lambda node: isinstance(node, Mask))


def _is_norm(node) -> bool:
    return hasattr(node, "gamma")
