"""The checks in a file: reports, and functions that return one or raise."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fnn.verify.report import DerivationError, Finding, Report

PREFIXES = ("check_", "test_")


class Checked(NamedTuple):
    """A check that was run: its report, if it returned one; what it raised."""

    name: str
    report: Report | None = None
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error and (self.report is None or self.report.ok)

    def __str__(self) -> str:
        """A line, and what is wrong."""
        said = "" if self.report is None else self.report.verdict()
        lines = [f"{'ok' if self.ok else 'WRONG':5}  {self.name}" + (f": {said}" if said else "")]
        lines += [] if self.report is None else [finding.explanation() for finding in self.report.wrong]
        return "\n".join([*lines, *(f"  {line}" for line in self.error.splitlines())])

    def record(self) -> dict[str, Any]:
        """What JSON can hold."""
        report = self.report
        found: dict[str, Any] = {"name": self.name, "ok": self.ok, "error": self.error}
        if report is not None:
            findings = [_record(finding) for finding in report.findings]
            found |= {"verdict": report.verdict(), "dtype": report.dtype, "notes": report.notes, "findings": findings}
        return found


def _record(finding: Finding) -> dict[str, Any]:
    names = ("name", "kind", "layer", "status", "error", "tolerance", "end_to_end", "index", "hand", "oracle", "case",
             "note", "example")  # fmt: skip
    return {name: _plain(getattr(finding, name)) for name in names}


def _plain(value):
    """A number that JSON does not have is a string."""
    if isinstance(value, complex) or (isinstance(value, float) and not np.isfinite(value)):
        return str(value)
    return value


def load(target: str) -> ModuleType:
    """The module of a name or a file, whose folder can then be imported from, as by ``python FILE.py``."""
    if not target.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(target)
    file = Path(target).resolve()
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise FileNotFoundError(f"{target}: there is no such file")
    sys.path.insert(0, str(file.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def checked(target: str) -> Iterator[Checked]:
    """Every check of ``FILE.py``, ``module``, ``FILE.py:name`` or ``module:name``, as it is run.

    Raises what loading it raises, but for a disagreement, which is a check that fails.
    """
    where, _, name = target.partition(":") if not Path(target).is_file() else (target, "", "")
    try:
        module = load(where)
    except DerivationError as error:
        yield Checked(where, None, str(error))
        return
    if name and not hasattr(module, name):
        raise AttributeError(f"{where}: it has no {name!r}")
    found = {name: getattr(module, name)} if name else vars(module)
    for key, value in found.items():
        if isinstance(value, Report):
            yield Checked(key, value)
        elif name or _is_check(key, value, module):
            yield from _run(key, value)


def _is_check(name: str, value, module: ModuleType) -> bool:
    """Whether a function of this module has the name of a check, and needs no arguments."""
    if not name.startswith(PREFIXES) or not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    parameters = inspect.signature(value).parameters.values()
    return all(one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)


def _run(name: str, function) -> Iterator[Checked]:
    """What a check returns: a report, or several in a list, a tuple or a dict; nothing if it raises where it fails."""
    try:
        returned = function()
    except DerivationError as error:
        yield Checked(name, None, str(error))
        return
    except (Exception, SystemExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = "".join(traceback.format_exception_only(error)).strip()
        yield Checked(name, None, f"{said} ({Path(where.filename).name}, line {where.lineno})")
        return
    if isinstance(returned, dict):
        several = [(f"{name}[{key!r}]", report) for key, report in returned.items()]
    elif isinstance(returned, (list, tuple)):
        several = [(f"{name}[{i}]", report) for i, report in enumerate(returned)]
    else:
        several = [(name, returned)]
    for each, report in several:
        if report is None or isinstance(report, Report):
            yield Checked(each, report)
        else:
            yield Checked(each, None, f"expected a report, got {type(report).__name__}; return fnn.verify.network(...)")


@contextlib.contextmanager
def printing_elsewhere(elsewhere: bool):
    """Within it, what the file prints goes to the standard error, so that the standard output is the result alone."""
    with contextlib.redirect_stdout(sys.stderr) if elsewhere else contextlib.nullcontext():
        yield
