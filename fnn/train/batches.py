"""Mini-batches yielded by a function of the epoch, packed into chunks and checked."""

from collections.abc import Iterator
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.checks.arrays import describe, native, unmasked
from fnn.data import Dataset, default_scale, for_network
from fnn.kinds import kind
from fnn.losses import Loss
from fnn.streams import Batches
from fnn.train.prefetch import Packed, Prefetched

ADVICE = "write Batches(lambda epoch: ((x, y) for ...)) with NumPy arrays x (B, n) and y (B,) or (B, m)"


class Drawn(Prefetched):
    """Mini-batches from a function of the epoch."""

    def __init__(self, data: Batches, params, loss: Loss, batch_size: int, steps: tuple = (None, None)):
        super().__init__()
        self.declared, self.most = steps  # mini-batches of an epoch, and of a chunk
        self.data, self.params, self.loss, self.batch_size = data, params, loss, batch_size
        self.scale = 1.0 if data.scale is None else data.scale  # until the first mini-batch determines it
        self.examples = None
        self.dtypes: tuple[np.dtype, np.dtype] | None = None
        self.x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64  # may be set only in this thread

    def sample(self, key: Array, examples: int) -> Array:
        """x of the first mini-batches of epoch 1: (count, B, n)."""
        count, found = max(1, examples // self.batch_size), []
        for _, x, _ in self.prepared(key, 1):
            found.append(x)
            if sum(map(len, found)) >= count:
                break
        return jnp.asarray(np.concatenate(found)[:count])

    def prepared(self, key: Array, epoch: int, done: int = 0) -> Iterator[Packed]:
        """Chunks of the epoch's mini-batches after ``done``; every batch is copied before the next is drawn."""
        x = y = np.empty(0)
        first, filled = done, 0
        for new_x, new_y in islice(self._declared(epoch), done, None):
            if filled == 0:
                steps = max(1, self.data.chunk_bytes // max(1, new_x.nbytes + new_y.nbytes))
                steps = min(steps, self.most or steps)
                x, y = (np.empty((steps, *new.shape), new.dtype) for new in (new_x, new_y))
            x[filled], y[filled] = new_x, new_y
            filled += 1
            if filled == len(x):
                yield self._checked(first, x, y, epoch)
                first, filled = first + filled, 0
        if filled:
            yield self._checked(first, x[:filled], y[:filled], epoch)
        elif first == done:
            least, got = (
                ("at least one mini-batch", "none") if done == 0 else (f"more than {done} mini-batches", "no more")
            )
            raise ValueError(
                f"data: expected {least} of {self.batch_size} examples in epoch {epoch}, got {got}; "
                "make(epoch) must return a fresh iterable at every call"
            )

    def _declared(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The mini-batches, as many as an epoch was declared to have; raises ValueError if there are fewer."""
        number = 0
        for batch in islice(self._whole(epoch), self.declared):
            yield batch
            number += 1
        if self.declared is not None and number < self.declared and not self.closed:
            raise ValueError(
                f"data: expected {self.declared} mini-batches of {self.batch_size} examples in epoch {epoch}, the "
                f"batches_per_epoch, got {number}"
            )

    def _whole(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The mini-batches, all of one size, shape and dtype, without a shorter last one."""
        short, shapes = None, None
        for number, batch in enumerate(self._iterator(epoch)):
            if self.closed:
                return
            name = f"data: batch {number} of epoch {epoch}"
            x, y = _arrays(batch, name)
            if short is not None:
                raise ValueError(f"{short}; only the last of an epoch may be shorter")
            if len(x) != self.batch_size:
                short = f"{name}: expected {self.batch_size} examples, the batch_size, got {len(x)}"
                if len(x) > self.batch_size:
                    raise ValueError(f"{short}; write batch_size={len(x)}")
                continue
            shapes = shapes or (x.shape, y.shape)
            if (x.shape, y.shape) != shapes:
                raise ValueError(f"{name}: expected shapes {shapes} as before, got {(x.shape, y.shape)}")
            self._require_dtypes(x.dtype, y.dtype, name)
            yield x, y

    def _iterator(self, epoch: int) -> Iterator:
        batches = self.data.make(epoch)
        try:
            return iter(batches)
        except TypeError as error:
            raise TypeError(
                f"data: expected make({epoch}) to be an iterable of mini-batches, got {describe(batches)}; {ADVICE}"
            ) from error

    def _require_dtypes(self, x: np.dtype, y: np.dtype, name: str) -> None:
        """Raise TypeError unless the dtypes are those of the very first mini-batch, which determines the scale."""
        if self.dtypes is None:
            self.dtypes = x, y
            self.scale = default_scale(x) if self.data.scale is None else self.data.scale
        if (x, y) != self.dtypes:
            raise TypeError(f"{name}: expected x, y in {self.dtypes[0]}, {self.dtypes[1]} as before, got {x}, {y}")

    def _checked(self, first: int, x: np.ndarray, y: np.ndarray, epoch: int) -> Packed:
        """The chunk, if its values are valid; raises the error of the first bad mini-batch otherwise."""
        with jax.enable_x64(self.x64):
            try:
                checked = self._dataset(x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:]), "data")
            except (TypeError, ValueError):
                for number, (one, its) in enumerate(zip(x, y), first):
                    self._dataset(one, its, f"data: batch {number} of epoch {epoch}")
                raise
        return first, checked.x.reshape(x.shape), checked.y.reshape(y.shape)

    def _dataset(self, x: np.ndarray, y: np.ndarray, name: str) -> Dataset:
        for part, array in (("x", x), ("y", y)):
            if array.dtype == np.float64 and not self.x64:  # or it would be converted with a warning for every chunk
                raise TypeError(
                    f"{name}: {part}: expected float32, because x64 is off, got float64; yield {part}.astype('float32')"
                )
        try:
            data = Dataset(x, y, self.scale)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
        return for_network(data, kind(self.params).ports(self.params), self.loss, name)


def _arrays(batch, name: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a mini-batch, with equally many examples."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"{name}: expected a pair (x, y), got {describe(batch)}; {ADVICE}")
    for part, array in zip("xy", batch):
        if not isinstance(array, (np.ndarray, jax.Array)) or array.ndim == 0:
            raise TypeError(f"{name}: {part}: expected an array, got {describe(array)}; {ADVICE}")
        unmasked(f"{name}: {part}", array)
    x, y = map(native, map(np.asarray, batch))
    if len(x) != len(y):
        raise ValueError(f"{name}: x, y: expected equally many examples in both, got {len(x)} and {len(y)}")
    return x, y
