"""Text messages between the processes of one run, through JAX's coordination service.

Unlike a sum over devices, this needs no device, waits for a limited time, and can say which process is missing and why.
"""

import contextlib
import itertools
import json
import os
import re
import time
from typing import Any

import jax
from jax._src import distributed  # the key-value store that orbax uses as well; JAX has no public name for it

TIMEOUT_FLAG = "--xla_cpu_collective_timeout_seconds"
TIMEOUT = 15  # seconds, if the flag is not set
POLL = 0.5  # seconds
LINGER = 3  # seconds

_runs = itertools.count(1)


class Processes:
    """The processes that train one run together, or this one alone; a context manager.

    together: whether all of ``jax.distributed`` take part. Each must then construct its runs in the same order. Where
    one leaves the context by an exception, the others raise RuntimeError at their next exchange, and name it.
    """

    def __init__(self, together: bool):
        self.count = jax.process_count() if together else 1
        self.own = jax.process_index() if together else 0
        self.run, self.exchanges = next(_runs) if self.count > 1 else 0, 0
        self.what = "fit"

    def exchange(self, what: str, ours: dict[str, str]) -> list[dict[str, str]]:
        """What every process tells, by its number; what: for messages, where the processes are.

        Raises RuntimeError for a process that has ended, and TimeoutError for one that does not come in time.
        """
        self.what = what
        if self.count == 1:
            return [ours]
        store, before = _store(), self._name(self.own)
        self.exchanges += 1
        store.key_value_set(self._name(self.own), json.dumps(ours))
        told = [ours if i == self.own else json.loads(self._of(i)) for i in range(self.count)]
        if self.exchanges > 1:  # all have read it, because all have come here
            store.key_value_delete(before)
        return told

    def require_same(self, what: str, ours: dict[str, str], advice: str) -> None:
        """Raise ValueError, in all processes, naming what is not the same in all of them."""
        require_alike(what, self.exchange(what, ours), advice)

    def _name(self, process: int) -> str:
        return f"fnn/{self.run}/{self.exchanges}/{process}"

    def _of(self, process: int) -> str:
        seconds = timeout()
        ends = time.monotonic() + seconds
        while True:
            try:
                return _store().blocking_key_value_get(self._name(process), int(1000 * POLL))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise RuntimeError(f"{self.what}: the coordinator, process 0, has ended: {error}") from error
            why = self._left(process)
            if why is not None:
                raise RuntimeError(f"{self.what}: process {process} has ended: {why}")
            if time.monotonic() > ends:
                raise TimeoutError(
                    f"{self.what}: process {process} did not arrive within {seconds} s; every process must call fit "
                    "with mesh=fnn.parallel.data_mesh() and the same arguments; if one only takes longer, raise "
                    "collective_timeout in fnn.parallel.initialize"
                )

    def _left(self, process: int) -> str | None:
        """Why a process has left this run or ended, if it has said so."""
        return _noted(process, f"fnn/{self.run}") or _noted(process, "fnn")

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self.count == 1 or error is None:
            return
        note(f"{type(error).__name__}: {error}", f"fnn/{self.run}")
        if isinstance(error, jax.errors.JaxRuntimeError):
            others = ((i, self._left(i)) for i in range(self.count) if i != self.own)
            told = [f"process {i} has ended: {why}" for i, why in others if why is not None]
            raise RuntimeError(
                f"after {self.what}: {'; '.join(told) or 'another process has ended or does not respond'}: "
                f"{str(error).splitlines()[0]}"
            ) from error


def require_alike(what: str, told: list[dict[str, str]], advice: str) -> None:
    """Raise ValueError, naming what is not the same in what every process told."""
    for name in dict.fromkeys(name for of_one in told for name in of_one):
        texts = [of_one.get(name, "nothing") for of_one in told]
        others = [i for i, text in enumerate(texts) if text != texts[0]]
        if others:
            raise ValueError(
                f"{name}: expected the same in every process, got {texts[0]} in process 0 and {texts[others[0]]} in "
                f"process {', '.join(map(str, others))}, {what}; {advice}"
            )


def timeout() -> int:
    """Seconds until a process gives up waiting for others, as ``parallel.initialize`` has set it."""
    found = re.search(rf"{TIMEOUT_FLAG}=(\d+)", os.environ.get("XLA_FLAGS", ""))
    return int(found[1]) if found else TIMEOUT


def note(why: str, of: str = "fnn") -> None:
    """Leave word for the other processes of why this one ends, or leaves the run ``of``."""
    with contextlib.suppress(RuntimeError):  # the coordinator has gone already
        _store().key_value_set(f"{of}/left/{jax.process_index()}", why.splitlines()[0], allow_overwrite=True)


def let_others_leave() -> None:
    """In process 0, whose end ends the others by SIGABRT: wait a moment for those that are about to end by an error."""
    ends = time.monotonic() + LINGER
    if jax.process_index() == 0 and jax.process_count() > 1:
        while time.monotonic() < ends and not all(_noted(i, "fnn") for i in range(1, jax.process_count())):
            time.sleep(POLL / 10)


def _noted(process: int, of: str) -> str | None:
    with contextlib.suppress(RuntimeError):
        return _store().key_value_try_get(f"{of}/left/{process}")
    return None


def _store() -> Any:
    if distributed.global_state.client is None:
        raise RuntimeError("processes: expected those of jax.distributed; call fnn.parallel.initialize() first")
    return distributed.global_state.client
