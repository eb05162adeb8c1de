"""Mini-batches yielded by a function of the epoch, packed into chunks and checked."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.checks.arrays import describe, native, unmasked
from fnn.data import Dataset, default_scale, require_fitting
from fnn.kinds import kind
from fnn.losses import Loss, Weighted
from fnn.streams import Batches
from fnn.train.prefetch import Packed, Prefetched

ADVICE = (
    "write Batches(lambda epoch: ((x, y) for ...)) with NumPy arrays x (B, n) and y (B,) or (B, m), with weights in "
    "every mini-batch or in none"
)
PARTS = "x", "y", "weights"


class Drawn(Prefetched):
    """Mini-batches from a function of the epoch."""

    def __init__(self, data: Batches, params, loss: Loss, batch_size: int, steps: tuple, first_epoch: int):
        super().__init__()
        self.declared, self.most = steps  # mini-batches of an epoch, and of a chunk
        self.data, self.ports, self.batch_size = data, kind(params).ports(params), batch_size
        self.scale = 1.0 if data.scale is None else data.scale  # until the first mini-batch determines it
        self.examples = None
        self.dtypes: tuple[np.dtype, ...] | None = None
        self.x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64  # may be set only in this thread
        batches = self._iterator(first_epoch)
        first = list(islice(batches, 1))  # now, because the loss depends on whether there are weights
        self.begun: tuple[int, Iterator] = first_epoch, chain(first, batches)
        weighted = len(first) == 1 and isinstance(first[0], (tuple, list)) and len(first[0]) == 3
        self.given, self.loss = loss, Weighted(loss) if weighted else loss

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
        parts: Sequence[np.ndarray] = ()
        first, filled = done, 0
        for batch in islice(self._declared(epoch), done, None):
            if filled == 0:
                steps = max(1, self.data.chunk_bytes // max(1, sum(new.nbytes for new in batch)))
                steps = min(steps, self.most or steps)
                parts = [np.empty((steps, *new.shape), new.dtype) for new in batch]
            for part, new in zip(parts, batch):
                part[filled] = new
            filled += 1
            if filled == len(parts[0]):
                yield self._checked(first, parts, epoch)
                first, filled = first + filled, 0
        if filled:
            yield self._checked(first, [part[:filled] for part in parts], epoch)
        elif first == done:
            least, got = (
                ("at least one mini-batch", "none") if done == 0 else (f"more than {done} mini-batches", "no more")
            )
            raise ValueError(
                f"data: expected {least} of {self.batch_size} examples in epoch {epoch}, got {got}; "
                "make(epoch) must return a fresh iterable at every call"
            )

    def _declared(self, epoch: int) -> Iterator[list[np.ndarray]]:
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

    def _whole(self, epoch: int) -> Iterator[list[np.ndarray]]:
        """The mini-batches, all of one size, shape and dtype, without a shorter last one."""
        short, shapes = None, None
        batches = self.begun[1] if self.begun[0] == epoch else self._iterator(epoch)
        self.begun = 0, iter(())
        for number, batch in enumerate(batches):
            if self.closed:
                return
            name = f"data: batch {number} of epoch {epoch}"
            parts = _arrays(batch, name, 2 if self.loss is self.given else 3)
            if short is not None:
                raise ValueError(f"{short}; only the last of an epoch may be shorter")
            if len(parts[0]) != self.batch_size:
                short = f"{name}: expected {self.batch_size} examples, the batch_size, got {len(parts[0])}"
                if len(parts[0]) > self.batch_size:
                    raise ValueError(f"{short}; write batch_size={len(parts[0])}")
                continue
            found = tuple(part.shape for part in parts)
            shapes = shapes or found
            if found != shapes:
                raise ValueError(f"{name}: expected shapes {shapes} as before, got {found}")
            self._require_dtypes(tuple(part.dtype for part in parts), name)
            yield parts

    def _iterator(self, epoch: int) -> Iterator:
        batches = self.data.make(epoch)
        try:
            return iter(batches)
        except TypeError as error:
            raise TypeError(
                f"data: expected make({epoch}) to be an iterable of mini-batches, got {describe(batches)}; {ADVICE}"
            ) from error

    def _require_dtypes(self, found: tuple[np.dtype, ...], name: str) -> None:
        """Raise TypeError unless the dtypes are those of the very first mini-batch, which determines the scale."""
        if self.dtypes is None:
            self.dtypes = found
            self.scale = default_scale(found[0]) if self.data.scale is None else self.data.scale
        if found != self.dtypes:
            names, before, now = (", ".join(map(str, each)) for each in (PARTS[: len(found)], self.dtypes, found))
            raise TypeError(f"{name}: expected {names} in {before} as before, got {now}")

    def _checked(self, first: int, parts: Sequence[np.ndarray], epoch: int) -> Packed:
        """The chunk, if its values are valid; raises the error of the first bad mini-batch otherwise."""
        with jax.enable_x64(self.x64):
            try:
                checked = self._dataset([part.reshape(-1, *part.shape[2:]) for part in parts], "data")
            except (TypeError, ValueError):
                for number, one in enumerate(zip(*parts), first):
                    self._dataset(one, f"data: batch {number} of epoch {epoch}")
                raise
            x, y = checked.x, checked.targets(self.ports)
        of_chunk = parts[0].shape[:2]
        return first, x.reshape(*of_chunk, *x.shape[1:]), y.reshape(*of_chunk, *y.shape[1:])

    def _dataset(self, parts: Sequence[np.ndarray], name: str) -> Dataset:
        for part, array in zip(PARTS, parts):
            if array.dtype == np.float64 and not self.x64:  # or it would be converted with a warning for every chunk
                raise TypeError(
                    f"{name}: {part}: expected float32, because x64 is off, got float64; yield {part}.astype('float32')"
                )
        x, y, *weights = parts
        try:
            data = Dataset(x, y, self.scale, weights=weights[0] if weights else None)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
        require_fitting(data, self.ports, self.given, name)
        return data


def _arrays(batch, name: str, count: int) -> list[np.ndarray]:
    """The ``count`` parts of a mini-batch, with equally many examples."""
    if not isinstance(batch, (tuple, list)) or len(batch) != count:
        expected = "a pair (x, y)" if count == 2 else "(x, y, weights) as before"
        raise TypeError(f"{name}: expected {expected}, got {describe(batch)}; {ADVICE}")
    for part, array in zip(PARTS, batch):
        if not isinstance(array, (np.ndarray, jax.Array)) or array.ndim == 0:
            raise TypeError(f"{name}: {part}: expected an array, got {describe(array)}; {ADVICE}")
        unmasked(f"{name}: {part}", array)
    parts = [native(np.asarray(part)) for part in batch]
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{name}: {', '.join(PARTS[:count])}: expected equally many examples in {'both' if count == 2 else 'all'}, "
            f"got {' and '.join(map(str, lengths))}"
        )
    return parts
