"""The process that runs a hand-in: ``python -m fnn.verify.grading.handin FILE MEMORY``.

It reads what to compute from its standard input and writes the values to its standard output. Both are hidden from the
hand-in, which finds them empty: what it prints goes nowhere.
"""

import importlib.util
import inspect
import json
import os
import sys
from pathlib import Path

import jax

from fnn.verify.grading.messages import decoded, encoded, line
from fnn.verify.interpret import evaluate

GIB = 2**30


def main(file: str, memory: float) -> None:
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    _limit(memory)

    def answer(message: dict) -> None:
        answers.write(line(message))
        answers.flush()

    try:
        functions = _functions(Path(file))
    except BaseException as error:  # a hand-in may raise anything, and may end the process
        answer({"error": type(error).__name__, "message": _said(error)})
        return
    answer({"defined": {name: parameters(function) for name, function in functions.items()}})
    for request in asked:
        wanted = json.loads(request)
        try:
            value = evaluate(functions[wanted["call"]], *decoded(wanted["args"]))
            reply = {"value": encoded(value, {})}
        except BaseException as error:
            reply = {"error": type(error).__name__, "message": _said(error)}
        answer({"id": wanted["id"], **reply})


def _functions(file: Path) -> dict:
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if callable(value) and not _is_ours(value)}


def _is_ours(function) -> bool:
    """Whether it is one of fnn's own functions, which a hand-in may import and has not written."""
    return str(getattr(function, "__module__", "")).startswith("fnn.")


def parameters(function) -> int | None:
    """How many arguments a function takes by position; None if it cannot be said."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is one.VAR_POSITIONAL for one in found):
        return None
    return sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in found)


def _said(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except BaseException:  # its text is the hand-in's, too
        return ""


def _limit(memory: float) -> None:
    """Allow so much memory besides what Python and JAX have taken already, which is more on more cores."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        taken = 0
    resource.setrlimit(resource.RLIMIT_AS, (taken + int(memory * GIB),) * 2)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
