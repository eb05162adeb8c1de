"""The functions with custom derivatives that an installed package defines, found by walking its modules."""

import functools
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import jax

RULES = (jax.custom_jvp, jax.custom_vjp)
LIKE_RULES = ("filter_custom_jvp", "filter_custom_vjp", "CustomVjp")  # Equinox's and Flax's versions
DEEP = 6  # decorators around one function, at most
SKIPPED = ("test", "tests", "testing", "conftest", "benchmarks", "examples", "__main__")


class Derivative(NamedTuple):
    """A function with a custom derivative: its module and name, or where it is first met, and its kind."""

    module: str
    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def modules(package: str) -> Iterator[ModuleType]:
    """The package and all its modules that can be imported; tests, examples and what needs more are left out."""
    root = _imported(package)
    if root is None:
        return
    yield root
    found = pkgutil.iter_modules(getattr(root, "__path__", ()), f"{package}.")
    for name in sorted(info.name for info in found):
        if name.rsplit(".", 1)[-1] not in SKIPPED:
            yield from modules(name)


def _imported(name: str) -> ModuleType | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (Exception, SystemExit):  # a module may raise anything, as for a package that is not installed
        return None


def derivatives(package: str) -> list[Derivative]:
    """Every object with a custom derivative that the package's own modules hold, each once."""
    found: dict[int, Derivative] = {}
    for module in modules(package):
        for name, value in _members(module):
            for rule in _rules(value):
                home, qualified = _home(rule)
                if not home:
                    found.setdefault(id(rule), Derivative(module.__name__, name, type(rule).__name__))
                elif _root(home) == _root(package):
                    found.setdefault(id(rule), Derivative(home, qualified, type(rule).__name__))
    return sorted(set(found.values()))


def _root(module: str) -> str:
    return module.partition(".")[0]


def _members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """A module's members, and those of the classes that it defines."""
    for name, value in list(vars(module).items()):
        yield name, value
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield from ((f"{name}.{inner}", member) for inner, member in list(vars(value).items()))


def _rules(value: Any) -> Iterator[Any]:
    """The objects with custom derivatives under the decorators around a value, the innermost too."""
    for _ in range(DEEP):
        if isinstance(value, RULES) or type(value).__name__ in LIKE_RULES:
            yield value
        if isinstance(value, functools.partial):
            value = value.func
        elif isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif not callable(value) or isinstance(value, type):
            return
        else:
            try:
                value = value.__wrapped__
            except Exception:  # most have none; an object may answer as it likes
                return


def _home(rule: Any) -> tuple[str, str]:
    """The module and name of the function under a custom derivative; empty where a wrapper hides them."""
    plain: Any = next((getattr(rule, name) for name in ("__wrapped__", "fn", "fun") if hasattr(rule, name)), rule)
    while isinstance(plain, functools.partial):
        plain = plain.func
    if isinstance(plain, RULES):  # Equinox's, around a function of its own
        return "", ""
    name = getattr(plain, "__qualname__", "")
    return (getattr(plain, "__module__", "") or "", name) if name and "<" not in name else ("", "")
