"""The grader's side of the process that runs a hand-in."""

import builtins
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np

import fnn
from fnn.verify.grading.messages import decoded, encoded, line

LONGEST = 2**26  # bytes of an answer
MOST_RAISED = 30  # exceptions, for one function
NO_VALUE = "it sent something that is no value"


class Ended(BaseException):
    """The process of the hand-in is over, or gives no answer; no ``except Exception`` of a check may hide that."""


class HandIn:
    """A running hand-in.

    defined: its functions, with the number of arguments that each takes, or None; left: the seconds for which its
    answers may still be waited for.
    """

    def __init__(self, file: Path, seconds: float, memory: float):
        self.left = seconds
        folder = str(Path(fnn.__file__).parent.parent)
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fnn.verify.grading.handin", str(file.resolve()), str(memory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        self.answers: queue.Queue[bytes] = queue.Queue(maxsize=2)  # it may send without end
        threading.Thread(target=self._read, daemon=True).start()
        self.asked, self.raised = 0, Counter[str]()
        try:
            first = self._answer()
            if "error" in first:
                raise Ended(f"it cannot be loaded: {_plain(first['error'])}: {_plain(first.get('message'))}")
            self.defined: dict[str, int | None] = dict(first["defined"])
        except Exception as error:
            self.close()
            raise Ended(NO_VALUE) from error
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        out = self.process.stdout
        assert out is not None
        while received := out.readline(LONGEST):
            self.answers.put(received)
        self.answers.put(b"")

    def _answer(self) -> dict:
        began = time.monotonic()
        try:
            received = self.answers.get(timeout=max(0.0, self.left))
        except queue.Empty:
            raise Ended("it takes too long") from None
        self.left -= time.monotonic() - began
        if not received:
            raise Ended(self._end())
        try:
            return dict(json.loads(received))
        except Exception as error:  # too deep, or no JSON, or something else
            raise Ended(NO_VALUE) from error

    def _end(self) -> str:
        try:
            code = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"

    def _write(self, request: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # that the process has ended is said by its answer
            self.process.stdin.write(request)
            self.process.stdin.flush()

    def ask(self, name: str, *args):
        """What the hand-in's function returns; raises what it raises, and :class:`Ended` if there is no answer."""
        arrays = jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, args)
        classes: dict[str, type] = {}
        self.asked += 1
        request = line({"id": self.asked, "call": name, "args": encoded(arrays, classes)})
        threading.Thread(target=self._write, args=(request,), daemon=True).start()  # it may never read
        answer = self._answer()
        if answer.get("id") != self.asked:
            raise Ended(NO_VALUE)
        if "error" in answer:
            self.raised[name] += 1
            error = _exception(_plain(answer["error"]), _plain(answer.get("message")))
            raise error if self.raised[name] < MOST_RAISED else Ended(f"it raises {type(error).__name__}: {error}")
        try:
            return decoded(answer["value"], classes)
        except Exception as error:
            raise Ended(NO_VALUE) from error

    def close(self) -> None:
        """End the process and all that it has started."""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def _plain(text) -> str:
    """What a hand-in says, on one line: it may not look like points."""
    return "".join(c if c.isprintable() else " " for c in str(text or "")[:300])


def _exception(name: str, message: str) -> Exception:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):  # some want more than a message
            return kind(message)
    return type(name, (Exception,), {})(message)
