"""Monitoring a run: the callback, the best epoch, and patience."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn.checks import arrays
from fnn.numbers import whole
from fnn.runs import Record

KEEPS = {"best": ("validation_loss", 1), "best_accuracy": ("validation_accuracy", -1)}  # of times the sign, the lowest


class Progress(NamedTuple):
    """The argument of ``callback`` after an epoch: its number from 1, the parameters, and the records so far.

    params are as trained; ``keep="best"`` and ``patience`` are for early stopping. This callback adds the largest
    weight to every record.

    >>> import fnn, jax, jax.numpy as jnp, numpy as np
    >>> def watch(progress):
    ...     return {"largest": jnp.max(jnp.abs(progress.params[0].W))}
    >>> x = np.linspace(-1, 1, 24, dtype=np.float32)[:, None]
    >>> run = fnn.train.fit(
    ...     fnn.init(jax.random.key(0), (1, 1)), (x, 2 * x), fnn.updates.sgd(0.5), loss=fnn.SquaredError(), epochs=3,
    ...     batch_size=12, key=jax.random.key(0), callback=watch, progress=False)
    >>> list(run.history[-1])
    ['epoch', 'loss', 'seconds', 'largest']
    """

    epoch: int
    params: Any  # of the kind given to ``fit``
    history: tuple[Any, ...]  # the records; of ``fit_many``, one tuple of them for every member


class Watch(NamedTuple):
    """How a run reports its epochs, and what it keeps and stops for."""

    started: float
    progress: bool | None
    log: str | os.PathLike | None
    callback: Callable | None
    batch_size: int
    keep: str | None
    patience: int | None

    def score(self, record: Record) -> float:
        """The lower, the better; NaN is as bad as infinity."""
        name, sign = KEEPS[self.keep or "best"]
        return math.inf if math.isnan(record[name]) else sign * record[name]

    def after(self, reached: Any, trained, steps: int, record: Record, network) -> Any:
        """What is reached after another epoch."""
        new = reached._replace(
            params=trained[0], optimizer_state=trained[1], history=[*reached.history, record], step=reached.step + steps
        )
        if self.keep is None:
            return new
        before = reached.history[reached.best_epoch - 1] if reached.best_epoch else None
        if before is not None and not self.score(record) < self.score(before):
            return new
        return new._replace(best=network, best_epoch=new.epoch)

    def told(self, reached: Any) -> bool:
        """Whether the callback or impatience ends the run; what the callback returns joins the last record."""
        stop = None
        if self.callback is not None:
            stop = self.callback(Progress(reached.epoch, reached.params, tuple(map(dict, reached.history))))
            if isinstance(stop, Mapping):
                reached.history[-1].update(numbers(stop, reached.history[-1]))
                stop = None
        return bool(stop) or self._impatient(reached.history)

    def _impatient(self, history: list[Record]) -> bool:
        """Whether the best epoch was ``patience`` epochs ago."""
        if self.patience is None:
            return False
        scores = [self.score(record) for record in history if KEEPS[self.keep or "best"][0] in record]
        return len(scores) - 1 - scores.index(min(scores)) >= self.patience


def numbers(told: Mapping, record: Record) -> Record:
    """What a callback adds to a record; raises TypeError or ValueError unless these are new names of numbers."""
    found = {}
    for name, value in told.items():
        if name in record:
            raise ValueError(f"callback: expected names that the record does not have, got {name!r}; rename it")
        plain = value.item() if isinstance(value, (np.generic, np.ndarray, jax.Array)) and value.ndim == 0 else value
        if not isinstance(name, str) or isinstance(plain, bool) or not isinstance(plain, (int, float)):
            raise TypeError(
                f"callback: expected a dict of numbers, True or None, got {name!r}: {value!r}; write float(...)"
            )
        found[name] = plain
    return found


def require_watching(callback, keep, patience, validation) -> None:
    """Raise TypeError or ValueError unless the arguments can watch a run."""
    if callback is not None and (not callable(callback) or isinstance(callback, type)):
        raise TypeError(f"callback: expected a function of a fnn.train.Progress, got {callback!r}")
    arrays.one_of("keep", keep, (*KEEPS, None))
    if patience is not None:
        whole("patience", patience)
    for name, value in {"keep": keep, "patience": patience}.items():
        if value is not None and validation is None:
            raise ValueError(f"{name}: expected validation data too, to compare epochs by; write validation=(x, y)")
    if keep == "best_accuracy" and validation.classes() is None:
        raise ValueError(
            f"keep: {keep!r} needs labels or one-hot rows for validation, got {validation}; write keep='best'"
        )
