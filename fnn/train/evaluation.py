"""Evaluation and prediction of whole data sets in one compiled program."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.backward import RULES
from fnn.blocks import blocks
from fnn.checks import arrays, targets
from fnn.checks.network import Ports
from fnn.data import Dataset, as_floats, default_scale, for_network, inputs, require_inputs
from fnn.functions import forward
from fnn.kinds import AnyParams, kind
from fnn.losses import Loss, SquaredError
from fnn.runs import Record, Run, network_of
from fnn.streams import CHUNK_BYTES, Files

ROWS = 2048  # per pass through the network


def evaluate(params: AnyParams | Run, data, *, loss: Loss = SquaredError()) -> Record:
    """{"loss": the mean over the examples, "accuracy": if y holds classes} for held-out data.

    params: a ``Run``, whose ``network`` is used, or layers or a graph without batch norm. data: a ``Dataset``, (x, y)
    or (x, y, weights). The accuracy is over the examples with a weight above 0, each counted once; the class is the
    output with the highest activation. Memory-mapped data are read in blocks; only the last bits of the result may
    differ. Raises TypeError or ValueError that names the argument.
    """
    params, data = _for_evaluation(params, data, loss)
    blocks = _Blocks(data, kind(params).ports(params))
    return named(_evaluate(params, blocks, data.weighted(loss)), "")


def predict(params: AnyParams | Run, x: Any) -> np.ndarray:
    """The network's outputs for every example of x: (N, n_L); ``.argmax(1)`` is the class.

    params: as for :func:`evaluate`. x: an array (N, n), in memory or memory-mapped, as for ``fit``: floating, or bytes,
    which are scaled by 1/255; a pandas DataFrame; a ``Dataset``, whose y is ignored; or a function without arguments
    that returns an iterable of such arrays, such as ``lambda: (np.asarray(x) for x, y in loader)``.
    """
    params = _for_inference(params)
    if not callable(x):
        return np.concatenate([*_predicted(params, x, "x")])
    batches = x()
    if hasattr(batches, "ndim") or not hasattr(batches, "__iter__"):
        raise TypeError(
            f"x: expected a function that returns an iterable of arrays (N, n), got one that returns "
            f"{arrays.describe(batches)}; write lambda: [x]"
        )
    found = [part for number, batch in enumerate(batches) for part in _predicted(params, batch, f"x: batch {number}")]
    if not found:
        raise ValueError("x: expected a function that yields at least one array (N, n), got none")
    return np.concatenate(found)


def _predicted(params, x, name: str) -> Iterator[np.ndarray]:
    """The outputs, block by block for streamed data."""
    if isinstance(x, Dataset):
        x, scale, chunk_bytes = x.x, x.scale, x.chunk_bytes
    else:
        if not (hasattr(x, "ndim") or hasattr(x, "to_numpy")):
            raise TypeError(
                f"{name}: expected an array, got {arrays.describe(x)}; write np.asarray(x), or "
                "predict(run, lambda: (np.asarray(x) for x, *_ in loader)) for mini-batches"
            )
        try:
            x, chunk_bytes = inputs(x), None
        except (TypeError, ValueError) as error:
            raise type(error)(name + str(error).removeprefix("x")) from error
        scale, chunk_bytes = default_scale(x.dtype), CHUNK_BYTES if arrays.memory_mapped(x) else None
    require_inputs(x, kind(params).ports(params), name)
    if len(x) == 0:
        raise ValueError(f"{name}: expected at least one example, got an empty array of shape {x.shape}")
    waiting, tables = None, kind(params).tables(params, RULES)
    for rows in blocks(x, chunk_bytes or x.nbytes):
        found = _outputs(params, jnp.asarray(x[rows]), tables, scale=scale)
        if waiting is not None:
            yield np.asarray(waiting)  # while the device computes the next
        waiting = found
    yield np.asarray(waiting)


def evaluator(validation: Dataset | None, ports: Ports, loss: Loss) -> Callable[[Any], Record] | None:
    """A function of a network for inference that gives its record on the held-out data, if there are any."""
    if validation is None:
        return None
    blocks, loss = _Blocks(validation, ports, "validation"), validation.weighted(loss)
    return lambda network: named(_evaluate(network, blocks, loss))


class _Blocks:
    """x, y and the classes, or None, on the device: all at once, or block by block for streamed data."""

    def __init__(self, data: Dataset, ports: Ports, name: str = "data"):
        self.data, self.y, self.classes = data, data.targets(ports), data.classes()
        self.files = Files(name, data.x, self.y)
        self.step, self.held = len(data), None
        if data.chunk_bytes is None:
            self.held = self._block(slice(None))
        else:  # whole rounds of the compiled loop, so that it computes as with all rows
            most = data.chunk_bytes // max(1, data.x[:1].nbytes + self.y[:1].nbytes)
            self.step = max(1, most // ROWS) * ROWS

    def _block(self, rows: slice) -> tuple[Array, Array, Array | None]:
        self.files.require_whole()
        x, y = jnp.asarray(self.data.x[rows]), jnp.asarray(self.y[rows])
        return x, y, None if self.classes is None else jnp.asarray(self.classes[rows])

    def __iter__(self) -> Iterator[tuple[Array, Array, Array | None]]:
        for first in range(0, len(self.data), self.step):
            yield self.held or self._block(slice(first, first + self.step))


@partial(jax.jit, static_argnames="scale")
def folded(params, x, dropout, tables, *, scale):
    """The network for inference, with the statistics of the mini-batches x, (count, B, n)."""
    own = kind(params)
    if not own.has_norm(params):
        return params if dropout is None else own.fold(params, None, dropout)
    kept, dtype = own.kept_weights(params, dropout), own.ports(params).dtype

    def of_batch(batch):
        return own.norm_statistics(*own.given(kept, as_floats(batch, dtype, scale), tables, RULES))

    of_batches = jax.lax.map(of_batch, x)
    return own.fold(params, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), of_batches), dropout)


@partial(jax.jit, static_argnames="scale")
def _outputs(params, x, tables, *, scale):
    dtype = kind(params).ports(params).dtype
    return jax.lax.map(lambda row: forward(params, as_floats(row, dtype, scale), masks=tables), x, batch_size=ROWS)


def _evaluate(params, blocks: _Blocks, loss) -> tuple[Array, Array | None]:
    """The mean loss, and the accuracy; the same at any size of the blocks."""
    found: list = []
    tables = kind(params).tables(params, RULES)
    for x, y, classes in blocks:
        found.append(judged(params, x, y, classes, tables, loss=loss, scale=blocks.data.scale))
        jax.block_until_ready(found[-2:-1])  # so that no more than one block waits on the device
    return means(jax.tree.map(lambda *parts: jnp.concatenate(parts), *found), len(blocks.data))


class Judged(NamedTuple):
    """Sums over every ROWS examples in turn, so that a block leaves little memory and any block size the same bits."""

    losses: Array
    classes: tuple[Array, Array] | None  # how many were predicted, of how many: those with a weight


@partial(jax.jit, static_argnames=("loss", "scale"))
def judged(params, x, y, classes, tables, *, loss, scale) -> Judged:
    """The losses and the predicted classes, where y holds classes; classes: −1 for an example without weight."""
    a = _outputs(params, x, tables, scale=scale)
    losses = _sums(targets.loss_values(loss, a, y))
    if classes is None:
        return Judged(losses, None)
    counted = classes >= 0
    right = jnp.equal(jnp.argmax(a, axis=1).astype(classes.dtype), classes) & counted
    return Judged(losses, (_sums(right.astype(jnp.int32)), _sums(counted.astype(jnp.int32))))


def _sums(values):
    """The sums of every ROWS values in turn."""
    return jnp.sum(jnp.pad(values, (0, -len(values) % ROWS)).reshape(-1, ROWS), axis=1)


@jax.jit
def means(found: Judged, examples):
    """The mean loss, and the accuracy or None."""
    loss = jnp.sum(found.losses) / examples
    if found.classes is None:
        return loss, None
    right, counted = found.classes
    return loss, jnp.sum(right) / jnp.sum(counted)


def require_network(params):
    """The checked parameters, with layers as a tuple."""
    kind(params).require(params)
    params = arrays.native(params)
    return tuple(params) if isinstance(params, list) else params


def _for_inference(params):
    """The network for inference of a run, or the checked parameters, which must not have a batch norm."""
    params = require_network(network_of(params))
    if kind(params).has_norm(params):
        raise ValueError(
            "params: a network with a batch norm has no output for a single example; write "
            "fnn.fold(params, statistics=fnn.statistics(params, batches)), or run.network after fit"
        )
    return params


def _for_evaluation(params, data, loss):
    params = require_network(network_of(params))
    targets.loss_like(loss)
    params, of = _for_inference(params), kind(params)
    targets.fitting(loss, of.output_activations(params), of.ports(params).n_out)
    return params, for_network(data, of.ports(params), loss, "data")


def named(loss_and_accuracy, prefix: str = "validation_") -> Record:
    names = (f"{prefix}loss", f"{prefix}accuracy")
    return {name: float(value) for name, value in zip(names, loss_and_accuracy) if value is not None}
