"""The state of a training run in a directory, of which nothing is used that is not what was written.

A directory holds one folder per saved epoch, named by its number, written by orbax-checkpoint under another name and
renamed when it is complete. Its two items are

    state    the arrays, in orbax's format, under the names "0", "1", …
    meta     JSON: {"content": a string, "sha256": of that string}

and the content, again JSON, says what they are:

    format       "fnn run 1"
    arrays       a list, one entry per array in the order of its name: {"path": "params[0].W", "dtype": "float32",
                 "shape": [30, 784], "sha256": …}; the digest is of the text "float32 (30, 784)\\n" and of the entries
                 row by row, little-endian. An array without entries is in no file. A typed PRNG key is
                 its key data
    run          what must be equal for the run to go on, name → text: for every node and leaf of the parameters and of
                 the optimizer's state its class, static fields, dtype and shape; of ``fit`` also the key, the loss,
                 batch_size, reduction, examples and dropout
    epoch, step  epochs and steps done;  history  one record per epoch;  stopped  whether a callback ended the run
    key          null, or {"implementation": "threefry2x32" (or "raw"), "data": […]}

A damaged epoch (any difference of an array or of the content from its digest, anything that orbax cannot read) is
passed over with a warning, and the one before it is used. Values differ from what was saved in no case.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn.checkpoint import content, orbax
from fnn.checkpoint.fingerprint import describe, differences
from fnn.checks.numbers import whole


class Checkpoint(NamedTuple):
    """The state of a run after ``epoch`` epochs and ``step`` steps; history: one record per epoch."""

    params: Any
    optimizer_state: Any
    key: jax.Array | None
    epoch: int
    step: int = 0
    history: Sequence[dict] = ()
    stopped: bool = False  # by a callback


RECORDED = ("epoch", "step", "history", "stopped")


def save(
    directory,
    params,
    optimizer_state=(),
    *,
    epoch: int,
    step: int = 0,
    key=None,
    history: Sequence[dict] = (),
    run: dict[str, str] | None = None,
    keep: int = 3,
) -> None:
    """Write the state of a training loop of one's own to ``directory`` and return when it is complete.

    params, optimizer_state: pytrees of arrays. epoch ≥ 1: larger than that of every whole checkpoint there. step:
    steps done. key: a PRNG key. history: records, dictionaries of strings and numbers. run: what must be equal for
    :func:`restore`, name → text. keep ≥ 1: how many epochs stay. Needs orbax-checkpoint.

    Raises ValueError for an epoch that is not new, TypeError for what is no array or no record, OSError where nothing
    can be written; the checkpoints that are there stay whole in every case.

    >>> import fnn, tempfile
    >>> params = fnn.init(jax.random.key(0), (3, 2))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save(directory, params, epoch=1, history=[{"loss": 0.5}])
    ...     restored = restore(directory, params)
    >>> restored.epoch, restored.history, bool((restored.params[0].W == params[0].W).all())
    (1, [{'loss': 0.5}], True)
    """
    epoch, keep = whole("epoch", epoch), whole("keep", keep)
    items = packed(Checkpoint(params, optimizer_state, key, epoch, step, list(history)), run or {})
    with orbax.Writer(directory, keep, _last_before(directory, epoch)) as writer:
        writer.save(epoch, *items)


def restore(directory, params, optimizer_state=(), *, run: dict[str, str] | None = None) -> Checkpoint:
    """The newest whole checkpoint in ``directory``, bit by bit, in the structure of ``params`` and ``optimizer_state``.

    params, optimizer_state: pytrees of the structure, shapes and dtypes that were saved, whose values are not used
    (``fnn.init`` and ``optimizer.init`` give them). run: as it was saved. Needs orbax-checkpoint.

    Warns where a newer checkpoint is damaged. Raises FileNotFoundError where there is none, ValueError that names the
    differences where the run is another one, or where no checkpoint is whole.
    """
    found = resume(directory, params, optimizer_state, run or {})
    if found is None:
        raise FileNotFoundError(f"directory: no checkpoint in {directory}; fnn.checkpoint.save writes one")
    return found


def resume(directory, params, optimizer_state, run: dict[str, str]) -> Checkpoint | None:
    """As :func:`restore`; None where there is no checkpoint."""
    given = description(params, optimizer_state, run)

    def same_run(saved: dict) -> None:
        lines = differences(saved["run"], given)
        if lines:
            raise ValueError(
                f"checkpoint: {directory} holds another run:\n  " + "\n  ".join(lines) + "\n"
                "go on with what is in the checkpoint, or name another directory for this run"
            )

    found = _newest(directory, same_run)
    if found is None:
        return None
    saved, arrays = found
    leaves, structure = jax.tree.flatten((params, optimizer_state))
    params, optimizer_state = jax.tree.unflatten(structure, map(content.on_device, arrays, leaves))
    return Checkpoint(params, optimizer_state, content.key(saved["key"]), *(saved[name] for name in RECORDED))


def packed(checkpoint: Checkpoint, run: dict[str, str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The two items of a checkpoint, as the module says."""
    trees = {"params": checkpoint.params, "optimizer_state": checkpoint.optimizer_state}
    values = {name: getattr(checkpoint, name) for name in RECORDED}
    values |= {
        "key": content.key_data(checkpoint.key),
        "run": description(checkpoint.params, checkpoint.optimizer_state, run),
    }
    return content.pack(trees, values)


def description(params, optimizer_state, run: dict[str, str]) -> dict[str, str]:
    """What must be equal for a run to go on."""
    content.require_arrays({"params": params, "optimizer_state": optimizer_state})
    return run | describe("params", params) | describe("optimizer_state", optimizer_state)


def _last_before(directory, epoch: int) -> int:
    """The epoch after which nothing in ``directory`` is whole, less than ``epoch``."""
    if max(orbax.epochs(directory), default=0) < epoch:
        return epoch - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _newest(directory, lambda saved: None)
    last = 0 if found is None else found[0]["epoch"]
    if last >= epoch:
        raise ValueError(
            f"epoch: {directory} holds a whole checkpoint of epoch {last}, got epoch={epoch}; "
            f"write epoch={last + 1} or more, or name another directory"
        )
    return last


def _newest(directory, check: Callable[[dict], None]) -> tuple[dict, list[np.ndarray]] | None:
    """The content and the arrays of the newest whole checkpoint; ``check`` may refuse the content of one."""
    damaged: list[str] = []
    epochs = orbax.epochs(directory)
    for epoch in reversed(epochs):
        try:
            saved = content.unpack_meta(orbax.read(directory, epoch, "meta"))
        except Exception as error:  # a damaged file may raise anything in the libraries below
            damaged.append(f"epoch {epoch}: {orbax.first_line(error)}")
            continue
        check(saved)
        try:
            arrays = content.unpack(saved, orbax.read(directory, epoch, "state", content.numbered(content.like(saved))))
        except Exception as error:
            damaged.append(f"epoch {epoch}: {orbax.first_line(error)}")
            continue
        if damaged:
            warnings.warn(
                f"{directory}: going on from epoch {epoch}, for what is newer is damaged:\n  " + "\n  ".join(damaged),
                stacklevel=4,
            )
        return saved, arrays
    if damaged:
        raise ValueError(
            f"checkpoint: none in {directory} is whole:\n  " + "\n  ".join(damaged) + "\n"
            "name another directory to begin anew, or put back a copy of this one"
        )
    return None
