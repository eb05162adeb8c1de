"""What the grader and the process of a hand-in send each other: a line of JSON, with arrays and plain containers.

Nothing that is sent back can run anything: classes are only those that were sent before.
"""

import base64
import importlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

PLAIN = (bool, int, float, str, type(None))


def encoded(value, classes: dict[str, type]) -> Any:
    """The value as JSON has it; the classes of its dataclasses and named tuples are added to ``classes``."""
    if isinstance(value, PLAIN) and not isinstance(value, np.generic):
        return value
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        array = np.asarray(value)
        content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return {"array": content, "dtype": array.dtype.name, "shape": array.shape}
    if type(value) in (list, tuple):
        return {type(value).__name__: [encoded(item, classes) for item in value]}
    if type(value) is dict:
        return {"dict": [[encoded(key, classes), encoded(item, classes)] for key, item in value.items()]}
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    state = value._asdict() if hasattr(value, "_asdict") else getattr(value, "__dict__", None)
    if state is None:
        raise TypeError(f"expected arrays in tuples, lists and dicts, got {name.replace(':', '.')}")
    classes[name] = type(value)
    return {"class": name, "state": {key: encoded(item, classes) for key, item in state.items()}}


def decoded(data, classes: Mapping[str, type] | None = None) -> Any:
    """The value; of ``classes`` alone, if given, else of any that can be imported. Raises ValueError for others."""
    if isinstance(data, PLAIN):
        return data
    if not isinstance(data, dict):
        raise ValueError(f"expected a value, got {data!r:.50}")
    if "array" in data:
        content = base64.b64decode(data["array"])
        return np.frombuffer(content, np.dtype(data["dtype"])).reshape(data["shape"]).copy()
    for kind in (list, tuple):
        if kind.__name__ in data:
            return kind(decoded(item, classes) for item in data[kind.__name__])
    if "dict" in data:
        return {decoded(key, classes): decoded(item, classes) for key, item in data["dict"]}
    name, state = data["class"], {key: decoded(item, classes) for key, item in data["state"].items()}
    if classes is not None and name not in classes:
        raise ValueError(f"expected arrays, got {name!r:.50}")
    return _made(_imported(name) if classes is None else classes[name], state)


def _imported(name: str):
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _made(cls, state: dict):
    if issubclass(cls, tuple):
        return cls(**state)
    made = object.__new__(cls)
    for name, value in state.items():
        object.__setattr__(made, name, value)
    return made


def line(message: Mapping) -> bytes:
    return json.dumps(message).encode() + b"\n"
