"""The state of a training run in a directory, verified against its digests when it is read.

The directory holds one folder per saved epoch, named by its number. It is written under a temporary name and renamed
when it is complete. In it are

    state/           the arrays, in orbax-checkpoint's format, under the names "0", "1", …
    meta/metadata    JSON: {"content": a string, "sha256": of that string}
    fnn.sha256       marks our folders: the SHA-256 of every file in state/, in the format of ``sha256sum -c``

and the content, again JSON, describes them:

    format       "fnn run 1"
    arrays       a list, one entry per array in the order of the names: {"path": "params[0].W", "dtype": "float32",
                 "shape": [30, 784], "sha256": …}. The digest covers the text "float32 (30, 784)\\n" and the entries
                 row by row, little-endian. Empty arrays are not stored. A typed PRNG key is stored as its key data
    run          what must match for the run to resume, name → text: the class, static fields, dtype and shape of every
                 node and leaf of the parameters and the optimizer's state; from ``fit`` also the key, the loss,
                 batch_size, reduction, examples and dropout
    epoch, step  epochs and steps done;  history  one record per epoch;  stopped  whether a callback ended the run
    losses       of the first steps of the next epoch, for a checkpoint within an epoch, in the folder "steps"
    versions     of fnn, jax, jaxlib and numpy, and the device; a difference gives a warning
    key          null, or {"implementation": "threefry2x32" (or "raw"), "data": […]}

A damaged epoch (a file, an array or the content does not match its digest) is skipped with a warning, and the one
before it is used; the next save renames it to ``damaged-EPOCH``. Restored values never differ from those saved.
Anything that cannot be read for another reason, or has a different format, raises an error and is left untouched. Only
folders with our mark are ever removed, when newer epochs are saved.

One run at a time writes to the directory, which it locks (``fnn.checkpoint.lock``); any number may read.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn import files
from fnn.checkpoint import content, orbax
from fnn.checkpoint.fingerprint import describe, require_same_run, versions
from fnn.checkpoint.lock import locked
from fnn.numbers import whole


class Checkpoint(NamedTuple):
    """The state of a run after ``epoch`` epochs and ``step`` steps; history: one record per epoch."""

    params: Any
    optimizer_state: Any
    key: jax.Array | None
    epoch: int
    step: int = 0
    history: Sequence[dict] = ()
    stopped: bool = False  # by a callback
    losses: Sequence[float] = ()  # of the first steps of the next epoch, if it was saved inside one


ATTEMPTS = 100  # to read an epoch before a run that is saving removes it
RECORDED = ("epoch", "step", "history", "stopped", "losses")


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
    """Write the state of a custom training loop to ``directory`` and return when it is complete.

    params, optimizer_state: pytrees of arrays. epoch ≥ 1: larger than that of every intact checkpoint there. step:
    steps done. key: a PRNG key. history: records, dictionaries of strings and numbers. run: what must match for
    :func:`restore`, name → text. keep ≥ 1: the number of epochs kept. Needs orbax-checkpoint.

    Raises ValueError if the epoch is not new or there is no array, TypeError for a leaf that is not an array or would
    not come back bit for bit, or for an invalid record, BlockingIOError if another run is using the directory,
    FileExistsError if the epoch's name is taken by something else, and OSError if the directory cannot be written.
    Existing checkpoints stay intact in every case.

    >>> import fnn, tempfile
    >>> params = fnn.init(jax.random.key(0), (3, 2))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save(directory, params, epoch=1, history=[{"loss": 0.5}])
    ...     restored = restore(directory, params)
    >>> restored.epoch, restored.history, bool((restored.params[0].W == params[0].W).all())
    (1, [{'loss': 0.5}], True)
    """
    files.path_of("directory", directory, "the path of a directory", "run")
    epoch, keep = whole("epoch", epoch), whole("keep", keep)
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise TypeError(f"step: expected the number of steps done, an integer >= 0, got {step!r}; write step=0")
    _require_records(history)
    if run is not None and not isinstance(run, dict):
        raise TypeError(f"run: expected a dictionary of texts, got {run!r}; write run={{'rate': '0.1'}}")
    items = packed(Checkpoint(params, optimizer_state, key, epoch, step, list(history)), run or {})
    with locked(orbax.folder(directory)), orbax.Writer(directory, keep, _last_before(directory, epoch)) as writer:
        writer.save(epoch, *items)


def restore(directory, params, optimizer_state=(), *, run: dict[str, str] | None = None) -> Checkpoint:
    """The newest intact checkpoint in ``directory``, bit for bit, structured like ``params`` and ``optimizer_state``.

    params, optimizer_state: pytrees with the structure, shapes and dtypes that were saved (from ``fnn.init`` and
    ``optimizer.init``); their values are not used. NumPy arrays in them come back as NumPy arrays, including 64-bit
    dtypes that JAX supports only with x64. run: as saved. Needs orbax-checkpoint.

    Warns if a newer checkpoint is damaged. Raises FileNotFoundError if there is none, ValueError if none is intact, if
    it is of another format, or if the run differs, naming the differences, and OSError if it cannot be read.
    """
    found = resume(directory, params, optimizer_state, run or {})
    if found is None:
        raise FileNotFoundError(f"directory: no checkpoint in {directory}; fnn.checkpoint.save writes one")
    return found


def _require_records(history) -> None:
    """Raise TypeError unless ``history`` is a sequence of dictionaries."""
    if not isinstance(history, (tuple, list)) or not all(isinstance(record, dict) for record in history):
        raise TypeError(f"history: expected a list of dictionaries, got {history!r:.80}; write history=run.history")


def resume(directory, params, optimizer_state, run: dict[str, str], allow: Sequence[str] = ()) -> Checkpoint | None:
    """Like :func:`restore`, but None if there is no checkpoint; allow: arguments of ``fit`` that may differ."""
    given = description(params, optimizer_state, run)

    def same_run(saved: dict) -> None:
        require_same_run(directory, saved, given, allow)

    found = _newest(directory, same_run)
    if found is None:
        return None
    saved, arrays = found
    params, optimizer_state = content.structured(saved, arrays, params, optimizer_state)
    return Checkpoint(params, optimizer_state, content.key(saved["key"]), *(saved[name] for name in RECORDED))


def packed(checkpoint: Checkpoint, run: dict[str, str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The two items of a checkpoint; see the module docstring."""
    trees = {"params": checkpoint.params, "optimizer_state": checkpoint.optimizer_state}
    values = {name: getattr(checkpoint, name) for name in RECORDED}
    values |= {
        "key": content.key_data(checkpoint.key),
        "run": description(checkpoint.params, checkpoint.optimizer_state, run),
        "versions": versions(),
    }
    return content.pack(trees, values)


def description(params, optimizer_state, run: dict[str, str]) -> dict[str, str]:
    """What must match for a run to resume."""
    content.require_arrays({"params": params, "optimizer_state": optimizer_state})
    return run | describe("params", params) | describe("optimizer_state", optimizer_state)


def _last_before(directory, epoch: int) -> int:
    """The newest intact epoch in ``directory``; raises ValueError unless it is less than ``epoch``."""
    if max(orbax.epochs(directory), default=0) < epoch:
        return epoch - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _newest(directory, lambda saved: None)
    last = 0 if found is None else found[0]["epoch"]
    if last >= epoch:
        raise ValueError(
            f"epoch: {directory} already holds an intact checkpoint of epoch {last}, got epoch={epoch}; "
            f"write epoch={last + 1} or more, or name another directory"
        )
    return last


def _newest(directory, check: Callable[[dict], None]) -> tuple[dict, list[np.ndarray]] | None:
    """The content and the arrays of the newest intact checkpoint; ``check`` may refuse the content by raising."""
    for _ in range(ATTEMPTS):
        try:
            return _newest_of(directory, orbax.epochs(directory), check)
        except FileNotFoundError:  # another process has saved newer ones, and removed what was read
            continue
    raise OSError(f"checkpoint: {directory} cannot be read, because a run keeps removing its epochs")


def _newest_of(directory, epochs: Sequence[int], check: Callable[[dict], None]):
    damaged: list[str] = []
    for epoch in reversed(epochs):
        try:
            saved, arrays = _read(directory, epoch, check)
        except content.Damaged as error:
            damaged.append(f"epoch {epoch}: {orbax.first_line(error)}")
            continue
        if damaged:
            warnings.warn(
                f"{directory}: resuming from epoch {epoch}, because newer checkpoints are damaged:\n  "
                + "\n  ".join(damaged),
                stacklevel=5,
            )
        return saved, arrays
    if damaged:
        raise ValueError(
            f"checkpoint: none in {directory} is intact:\n  " + "\n  ".join(damaged) + "\n"
            "name another directory to start over, or restore a backup of this one"
        )
    return None


def _read(directory, epoch: int, check: Callable[[dict], None]) -> tuple[dict, list[np.ndarray]]:
    """The content and the arrays of one checkpoint."""
    try:
        saved = content.unpack_meta(orbax.read(directory, epoch, "meta"))
    except content.Damaged:
        raise
    except ValueError as error:
        raise ValueError(
            f"checkpoint: epoch {epoch} in {directory} cannot be read by this version of fnn: {error}"
        ) from error
    check(saved)
    return saved, content.unpack(saved, orbax.read(directory, epoch, "state", content.numbered(content.like(saved))))
