"""The parameters of a network of layers: ``Dense``, and ``Stack`` for equal layers, with a common iteration."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from fnn.activations import Activation
from fnn.batchnorm import BatchNorm
from fnn.markup import arrays


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Dense:
    """One layer, a = σ(W a_in + b): a pytree with leaves W, b and, with a batch norm, its γ and β.

    W: (n_out, n_in), one row per receiving neuron; b: (n_out,); one floating dtype for the whole network.
    activation: see ``fnn.activations``. norm: None, or a :class:`BatchNorm` between the affine map and the activation.
    Nothing is checked here, because JAX transformations build layers whose leaves are not arrays; ``forward`` checks.
    """

    stacked: ClassVar[bool] = False

    W: Array
    b: Array
    activation: Activation = field(metadata={"static": True})
    norm: BatchNorm | None = None

    def __repr__(self) -> str:
        W, b = (getattr(leaf, "shape", leaf) for leaf in (self.W, self.b))
        norm = "" if self.norm is None else f", norm={self.norm.gradient}"
        dtype = f", {self.W.dtype}" if hasattr(self.W, "dtype") else ""
        return f"{type(self).__name__}(W={W}, b={b}, {self.activation}{norm}{dtype})"

    def _repr_html_(self) -> str:
        norm = {} if self.norm is None else {"γ": self.norm.gamma, "β": self.norm.beta}
        return arrays({"W": self.W, "b": self.b, **norm}, title=repr(self))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Stack(Dense):
    """A run of D ≥ 1 hidden layers of equal width and activation as one entry of ``params``, computed by ``lax.scan``.

    The fields are those of :class:`Dense`, with a leading axis of layers on every leaf: W (D, n, n), b (D, n), γ and β
    (D, n). The same holds for its masks and its entry in the results of ``trace``, ``deltas`` and ``backprop``. The
    first and the last entry of ``params`` may not be stacks. ``fnn.stack`` makes stacks and says when they pay off.
    """

    stacked: ClassVar[bool] = True


class LayerTrace(NamedTuple):
    """The values computed by one layer: a_in, the input of the affine map, (B, n_in); psi, z and a (B, n_out).

    For a :class:`Stack` each has a leading axis of layers.
    """

    a_in: Array
    psi: Array
    z: Array
    a: Array

    def _repr_html_(self) -> str:
        return arrays(self._asdict())


Params = tuple[Dense, ...]


def each(step: Callable, carry, layer: Dense, *rest, reverse: bool = False):
    """step(carry, layer, *rest) -> (carry, result) for one layer; for a :class:`Stack`, a scan over its layers."""
    if isinstance(layer, Stack):
        return lax.scan(lambda carry, at: step(carry, *at), carry, (layer, *rest), reverse=reverse)
    return step(carry, layer, *rest)


def one_by_one(layer: Dense, entry) -> list:
    """The entries for the layers of a :class:`Stack`, one by one; for any other layer, its single entry."""
    if not isinstance(layer, Stack):
        return [entry]
    entries = (jax.tree.map(lambda leaf, i=i: leaf[i], entry) for i in range(len(layer.W)))
    return [Dense(**vars(one)) if isinstance(one, Stack) else one for one in entries]


def equal_neighbours(shapes: Sequence[Hashable]) -> list[list[int]]:
    """The positions of equal neighbours, grouped; the first, the last, and every None are groups of one.

    >>> equal_neighbours(["a", "b", "b", None, None, "b", "b"])
    [[0], [1, 2], [3], [4], [5], [6]]
    """
    ends = (0, len(shapes) - 1)
    keys = [i if i in ends or shape is None else shape for i, shape in enumerate(shapes)]
    return [list(group) for _, group in groupby(range(len(shapes)), keys.__getitem__)]


def stack_layers(layers: Sequence[Dense]) -> Params:
    """The same network with every run of two or more equal hidden layers as one :class:`Stack`."""

    def shape(layer: Dense) -> Any:
        n_out, n_in = layer.W.shape
        return (n_in, layer.W.dtype, jax.tree.structure(layer)) if n_out == n_in else None

    def entry(group: list[int]) -> Dense:
        if len(group) == 1:
            return layers[group[0]]
        return Stack(**vars(jax.tree.map(lambda *leaves: jnp.stack(leaves), *(layers[i] for i in group))))

    return tuple(map(entry, equal_neighbours([shape(layer) for layer in layers])))
