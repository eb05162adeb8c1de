"""Several devices and processes: the mesh, initialisation, and checks that all processes agree.

Data parallelism: every device holds all parameters and computes the gradients for its rows of a mini-batch, and one
all-reduce yields those of the whole. ``fit(..., mesh=data_mesh())`` does that. Layer parallelism, for layers too large
for one device: every device holds its rows of every W. ``fit(..., mesh=data_mesh(), shard="layers")`` does that.

Processes are those of ``jax.distributed``: each runs the same program, and the mesh spans the devices of all of them.
Their number is fixed during a run. If one fails, all end; restart them, in any number, from the last checkpoint.
"""

import atexit
import os
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax._src import xla_bridge
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnn import rendezvous
from fnn.checks.arrays import iterable
from fnn.numbers import whole
from fnn.processes import TIMEOUT_FLAG, let_others_leave, note

USED = (
    "initialize: JAX has already computed something or listed its devices; call fnn.parallel.initialize() before any "
    "other use of JAX"
)

__all__ = ["data_mesh", "initialize", "leave"]


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, "data", for ``fit(..., mesh=...)``, which shards mini-batches or layers over it.

    devices: at least one, without repeats; None means all, including those of other processes. Raises TypeError or
    ValueError that names the argument.

    >>> data_mesh(jax.devices()[:1]).shape["data"]
    1
    """
    iterable("devices", jax.devices() if devices is None else devices, "at least one jax.Device; write jax.devices()")
    chosen = list(jax.devices() if devices is None else devices)
    if not chosen or not all(isinstance(device, jax.Device) for device in chosen):
        raise TypeError(f"devices: expected at least one jax.Device, got {chosen!r}; write jax.devices()")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"devices: expected every device once, got {chosen!r}; write jax.devices()")
    return Mesh(np.array(chosen), ("data",))


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    bind_address: str | None = None,
    heartbeat_timeout: int = 10,
    collective_timeout: int = 15,
    start_timeout: int = 300,
) -> None:
    """Join several processes that train together: ``jax.distributed.initialize``, configured to fail fast.

    Call it once in every process, before JAX computes anything or lists its devices. Without arguments, JAX finds them
    itself under Slurm, Kubernetes (with ``pip install 'jax[k8s]'``) and Open MPI.

    coordinator_address: "host:port" of process 0; num_processes ≥ 1; process_id: 0 … num_processes − 1.
    bind_address: "host:port" on which process 0 listens, by default coordinator_address. If JAX found the address,
    process 0 listens on all interfaces, without authentication: anyone who can reach the port can join.
    All timeouts are in whole seconds. heartbeat_timeout: until a dead or stopped process ends the others.
    collective_timeout: until a process on CPU stops waiting for live processes at an all-reduce; it must exceed the
    time of any evaluation that only some of them do. start_timeout: until a process stops waiting for others to join.
    If the address and the numbers are given, the processes meet there before JAX connects them.

    Afterwards an uncaught exception exits at once, with its traceback and status 1, because at a normal exit processes
    wait for one another. Raises TypeError or ValueError that names the argument, RuntimeError if JAX has already been
    used or the process is already initialised, OSError for a port in use or an address that is not this machine's, and
    TimeoutError that names the missing processes.

    Source: https://docs.jax.dev/en/latest/multi_process.html

    >>> initialize("10.0.0.1:1234", num_processes=2, process_id=0)  # doctest: +SKIP
    """
    for name, address in {"coordinator_address": coordinator_address, "bind_address": bind_address}.items():
        _require_address(name, address)
    if num_processes is not None:
        num_processes = whole("num_processes", num_processes)
    if process_id is not None and not (type(process_id) is int and 0 <= process_id < (num_processes or process_id + 1)):
        last = "…" if num_processes is None else f"… {num_processes - 1}"
        raise ValueError(f"process_id: expected an integer, 0 {last}, got {process_id!r}")
    heartbeat_timeout = whole("heartbeat_timeout", heartbeat_timeout)
    collective_timeout = whole("collective_timeout", collective_timeout)
    start_timeout = whole("start_timeout", start_timeout)

    flags = os.environ.get("XLA_FLAGS", "")
    if TIMEOUT_FLAG not in flags:  # without it, a process on CPU waits for a stuck one as long as that lives
        os.environ["XLA_FLAGS"] = f"{flags} {TIMEOUT_FLAG}={collective_timeout}".strip()
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    timeouts = {"initialization_timeout": start_timeout, "heartbeat_timeout_seconds": heartbeat_timeout}
    try:
        if coordinator_address is not None and num_processes is not None and process_id is not None:
            _require_unused()
            place = bind_address or coordinator_address
            rendezvous.meet(coordinator_address, place, num_processes, process_id, start_timeout)
        _join(given, coordinator_bind_address=bind_address or coordinator_address, **timeouts)
    except (RuntimeError, ValueError, OSError):
        os.environ["XLA_FLAGS"] = flags
        raise
    _leave_on_errors()


def _require_unused() -> None:
    """Raise RuntimeError if JAX has been used."""
    if jax.distributed.is_initialized():
        raise RuntimeError("initialize: this process has joined already; call it once")
    if xla_bridge.backends_are_initialized():
        raise RuntimeError(USED)


def _join(given: dict[str, Any], **options) -> None:
    """``jax.distributed.initialize``, with errors that say what to write."""
    try:
        jax.distributed.initialize(**given, **options)
    except RuntimeError as error:
        raise RuntimeError(USED if "before" in str(error) and "JAX" in str(error) else str(error)) from error
    except ValueError as error:
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise ValueError(
            f"{missing}: neither given nor found by JAX (Slurm, Kubernetes, Open MPI): {error}; "
            "write initialize('10.0.0.1:1234', num_processes=2, process_id=0)"
        ) from error


def leave(status: int) -> None:
    """End this process at once with ``status``, without waiting for the other processes as a normal exit does."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _leave_on_errors() -> None:
    show = sys.excepthook

    def show_and_leave(kind, error, traceback):
        try:
            print(f"Process {jax.process_index()} of {jax.process_count()} ends:", file=sys.stderr)
            show(kind, error, traceback)
            note(f"{kind.__name__}: {error}")
            let_others_leave()
        finally:
            leave(1)

    sys.excepthook = show_and_leave
    atexit.register(note, "its program ended")


def _require_address(name: str, address) -> None:
    if address is None:
        return
    port = address.rpartition(":")[2] if isinstance(address, str) and address.rpartition(":")[0] else ""
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{name}: expected 'host:port' with a port from 1 to 65535, got {address!r}")


# -- for fit -------------------------------------------------------------------------------------------------------


def require_mesh(mesh, batch_size: int) -> None:
    """Raise TypeError or ValueError unless ``mesh`` has one axis, spans all processes, and divides a mini-batch."""
    if not isinstance(mesh, Mesh) or len(mesh.axis_names) != 1:
        raise TypeError(f"mesh: expected a mesh with one axis, got {mesh!r}; write fnn.parallel.data_mesh()")
    if batch_size % mesh.size:
        raise ValueError(
            f"batch_size: expected a multiple of {mesh.size}, the number of devices in mesh, got {batch_size}; "
            f"write batch_size={-(-batch_size // mesh.size) * mesh.size}"
        )
    idle = set(range(jax.process_count())) - {device.process_index for device in mesh.devices.flat}
    if idle:
        raise ValueError(
            f"mesh: expected devices of every process, got none of process {min(idle)}; write fnn.parallel.data_mesh()"
        )


def place(tree, mesh: Mesh, *axes: str | None):
    """The arrays of a pytree on the mesh's devices: replicated, or sharded over the given axes; copied if necessary.

    Every process must have the same arrays, of which each device gets its part.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def of_leaf(leaf):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(of_leaf(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)  # device_put would compare the whole array between processes
        return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

    return jax.tree.map(of_leaf, tree)


def here(tree):
    """The replicated arrays of a pytree as arrays on this process's first device, without copying."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
