"""Chunks of mini-batches, prepared by a thread while the device computes."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from jax import Array

AHEAD = 2  # chunks prepared ahead of time
POLL = 0.1  # seconds between looks at whether waiting is still worth while
CLOSE = 2  # seconds in which a thread may finish what it does

Chunk = tuple[Array, Array, np.ndarray | None]  # x, y as stored, and the rows of mini-batches; see loop.take_steps
Packed = tuple[int, np.ndarray, np.ndarray]  # the first step, x (steps, B, n) and y (steps, B, …)


class Worker:
    """A thread that runs what is submitted, in order.

    Unlike those of ``concurrent.futures`` it does not keep Python from ending while a user's function does not return.
    """

    def __init__(self, name: str):
        self.tasks: queue.SimpleQueue = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.started = False

    def submit(self, function: Callable, *args: Any) -> Future:
        """The future result of function(*args)."""
        if not self.started:
            self.started = True
            self.thread.start()
        result: Future = Future()
        self.tasks.put((result, function, args))
        return result

    def close(self) -> None:
        """End the thread after its current task, and wait for that, but not for ever."""
        if self.started:
            self.tasks.put(None)
            self.thread.join(CLOSE)

    def _run(self) -> None:
        while (task := self.tasks.get()) is not None:
            result, function, args = task
            try:
                result.set_result(function(*args))
            except BaseException as error:
                result.set_exception(error)
            del result, function, args, task  # or they would live until the next


class Prefetched:
    """Chunks prepared by a thread while the device computes; exceptions in the thread are raised here.

    The thread uses only NumPy, because thread-local settings, such as the default device, do not apply in it.
    """

    def __init__(self) -> None:
        self.worker = Worker("fnn-feed")
        self.closed = False

    def prepared(self, key: Array, epoch: int, done: int) -> Iterator[Packed]:
        """The chunks of an epoch after its first ``done`` steps."""
        raise NotImplementedError

    def chunks(
        self, key: Array, epoch: int, done: int = 0, overdue: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, Chunk | None]]:
        """Pairs of a chunk's first step and its mini-batches, or None where none came before ``overdue()``."""
        prepared = self.prepared(key, epoch, done)
        waiting = deque(self.worker.submit(self._next, prepared) for _ in range(AHEAD))
        while True:
            chunk = waiting.popleft()
            while not _is_done(chunk):
                if overdue():
                    yield done, None
            if (found := chunk.result()) is None:
                return
            waiting.append(self.worker.submit(self._next, prepared))
            first, x, y = found
            yield first, (jax.device_put(x), jax.device_put(y), None)
            done = first + len(x)

    def _next(self, prepared: Iterator[Packed]) -> Packed | None:
        return None if self.closed else next(prepared, None)

    def close(self) -> None:
        """Stop the thread after its current mini-batch or chunk."""
        self.closed = True
        self.worker.close()


def _is_done(result: Future) -> bool:
    """Whether the result, or its exception, is there after a while."""
    try:
        result.exception(POLL)
    except TimeoutError:
        return result.done()
    return True
