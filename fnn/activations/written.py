"""Activations to and from JSON-compatible data, for files and exported programs."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from fnn.activations.base import Activation


def written(activation) -> dict[str, Any]:
    """{"name": class name, **fields}; raises TypeError unless it is a dataclass."""
    if not dataclasses.is_dataclass(activation) or isinstance(activation, type):
        raise TypeError(f"params: expected activations that are dataclasses, got {activation!r}")
    fields = {field.name: _field(getattr(activation, field.name)) for field in dataclasses.fields(activation)}
    return {"name": type(activation).__name__, **fields}


def _field(value):
    if isinstance(value, tuple):
        return [_field(entry) for entry in value]
    return written(value) if dataclasses.is_dataclass(value) else value


def read(data: dict[str, Any], classes: dict[str, type]):
    """The activation described by ``written``'s result; raises ValueError if its class is not in ``classes``."""
    fields = dict(data)
    name = fields.pop("name")
    if name not in classes:
        raise ValueError(f"activation {name!r} is not known; write load(path, activations=({name},))")
    return classes[name](**{key: _read_field(value, classes) for key, value in fields.items()})


def _read_field(value, classes: dict[str, type]):
    if isinstance(value, list):
        return tuple(_read_field(entry, classes) for entry in value)
    return read(value, classes) if isinstance(value, dict) else value


def known(custom: Iterable[type] = ()) -> dict[str, type]:
    """The built-in and ``custom`` activations by class name."""
    ours = (cls for cls in Activation.__subclasses__() if cls.__module__.startswith("fnn."))
    return {cls.__name__: cls for cls in (*ours, *custom)}
