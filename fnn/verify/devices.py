"""Where a check computes: its oracle on the CPU, and what it judges where the user runs it.

A TPU has no float64 of its own, and a GPU may round products to TF32: the oracle should depend on neither. What is
judged must run where its users run it, because a kernel may exist for that platform alone.
"""

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache

import jax

_OUTSIDE: ContextVar[tuple] = ContextVar("outside", default=())  # (the user's default device,) within a check


@cache
def cpu() -> jax.Device | None:
    """The CPU's first device in this process; None where JAX_PLATFORMS leaves the CPU out."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


@contextlib.contextmanager
def on_cpu():
    """Within it JAX computes on the CPU, except within :func:`as_called`."""
    outside = _OUTSIDE.get() or (jax.config.values["jax_default_device"],)
    token = _OUTSIDE.set(outside)
    try:
        with _default(cpu()):
            yield
    finally:
        _OUTSIDE.reset(token)


@contextlib.contextmanager
def as_called():
    """Within it JAX computes where it does outside the check: for what the user wrote."""
    outside = _OUTSIDE.get()
    if not outside or _is_default(cpu(), outside[0]):
        yield
    else:
        with jax.default_device(outside[0]):
            yield


def on_cpu_if_possible(call: Callable):
    """What ``call()`` returns; what exists for the user's platform alone, as a kernel may, is computed there."""
    try:
        return call()
    except Exception:
        outside = _OUTSIDE.get()
        if not outside or _is_default(cpu(), outside[0]):
            raise
        with as_called():
            return call()


def note() -> tuple[str, ...]:
    """What a report says where the oracle could not be computed on a CPU."""
    if cpu() is not None:
        return ()
    platform = jax.default_backend()
    return (f"autodiff ran on the {platform}, because JAX_PLATFORMS leaves out the CPU; JAX_PLATFORMS={platform},cpu "
            "lets it run there",)  # fmt: skip


def _default(device: jax.Device | None):
    """A context in which ``device`` is the default; none where it is already, so that JAX keeps its programs."""
    already = device is None or _is_default(device, jax.config.values["jax_default_device"])
    return contextlib.nullcontext() if already else jax.default_device(device)


def _is_default(device: jax.Device | None, default) -> bool:
    """Whether ``device`` is what JAX computes on by default where its option jax_default_device is ``default``."""
    if isinstance(default, str):
        default = jax.local_devices(backend=default)[0]
    return device is None or device == (default or jax.local_devices()[0])
