"""Several devices and several processes: the mesh, the start of a process, and what every process must agree on.

Data parallel: every device holds all parameters and computes the gradients of its rows of a mini-batch, and one sum
over the devices makes them those of the whole. ``fit(..., mesh=data_mesh())`` does that. Processes are JAX's own
(``jax.distributed``): each runs the same program, and the mesh spans the devices of all of them. Their number is fixed
while they run: where one fails all end, and are started again, as many as there are then, from the last checkpoint.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnn.checks.numbers import whole

__all__ = ["data_mesh", "initialize", "leave"]

TIMEOUT_FLAG = "--xla_cpu_collective_timeout_seconds"
SAMPLE = 4096  # rows of a data set that are compared between processes


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, "data": for ``fit(..., mesh=...)``, which spreads every mini-batch's rows over it.

    devices: at least one, none twice; all of them if None, those of other processes included. Raises TypeError or
    ValueError that names the argument.

    >>> data_mesh(jax.devices()[:1]).shape["data"]
    1
    """
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
    """Make this process one of several that train together: ``jax.distributed.initialize``, set to fail fast.

    To be called once, in every process, before JAX computes anything or is asked for its devices. Without arguments
    JAX finds them itself under Slurm, Kubernetes (with ``pip install 'jax[k8s]'``) and Open MPI.

    coordinator_address: "host:port" of process 0; num_processes ≥ 1; process_id: 0 … num_processes − 1.
    bind_address: "host:port" on which process 0 listens; coordinator_address if that is given. Where JAX found the
    address, it listens on all interfaces: whoever reaches the port can take part, for there is no authentication.
    heartbeat_timeout: whole seconds until a process that is dead or stopped ends the others; collective_timeout: until
    a process on CPU gives up on others that live and do not arrive at a sum: more than an epoch's evaluation takes on
    one of them and not on the others; start_timeout: until one that others have not joined gives up.

    From then on an uncaught exception leaves at once, with its traceback and status 1: at a usual exit a process waits
    for the others, which wait for it. Raises TypeError or ValueError that names the argument, and RuntimeError where
    JAX has computed already or a process is initialised twice.

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
    if TIMEOUT_FLAG not in flags:  # without it, a process on CPU waits for one that is stuck as long as that lives
        os.environ["XLA_FLAGS"] = f"{flags} {TIMEOUT_FLAG}={collective_timeout}".strip()
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, initialization_timeout=start_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout, coordinator_bind_address=bind_address or coordinator_address,
        )  # fmt: skip
    except RuntimeError as error:
        os.environ["XLA_FLAGS"] = flags
        if "before" in str(error) and "JAX" in str(error):
            raise RuntimeError(
                "initialize: JAX has computed or been asked for its devices already; "
                "call fnn.parallel.initialize() before anything else of JAX"
            ) from error
        raise
    except ValueError as error:
        os.environ["XLA_FLAGS"] = flags
        given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise ValueError(
            f"{missing}: neither given nor found by JAX (Slurm, Kubernetes, Open MPI): {error}; "
            "write initialize('10.0.0.1:1234', num_processes=2, process_id=0)"
        ) from error
    _leave_on_errors()


def leave(status: int) -> None:
    """End this process at once with ``status``, without waiting for the others as a usual exit does."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _leave_on_errors() -> None:
    show = sys.excepthook

    def show_and_leave(kind, error, traceback):
        try:
            print(f"Process {jax.process_index()} of {jax.process_count()} ends:", file=sys.stderr)
            show(kind, error, traceback)
        finally:
            leave(1)

    sys.excepthook = show_and_leave


def _require_address(name: str, address) -> None:
    if address is None:
        return
    port = address.rpartition(":")[2] if isinstance(address, str) and address.rpartition(":")[0] else ""
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{name}: expected 'host:port' with a port from 1 to 65535, got {address!r}")


# -- for fit -------------------------------------------------------------------------------------------------------


def require_mesh(mesh, batch_size: int) -> None:
    """Raise TypeError or ValueError unless ``mesh`` has one axis, a part of every process, and divides a mini-batch."""
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
    """The arrays of a pytree on the mesh's devices: whole on each, or spread over the axes named; new ones if need be.

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
    """The arrays of a pytree that are whole on every device, as arrays on this process's first one, not copied."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def require_equal(**arguments: Any) -> None:
    """Raise ValueError, naming the argument and the processes, unless every process has the same arrays and numbers.

    Of arrays with more than 4,096 rows as many are compared. Every process must call it; one alone compares nothing.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    ours = np.stack([np.frombuffer(_digest(value), np.uint8) for value in arguments.values()])
    everyone = np.asarray(multihost_utils.process_allgather(ours))  # (processes, arguments, 32)
    for name, digests in zip(arguments, everyone.transpose(1, 0, 2)):
        others = np.flatnonzero((digests != digests[0]).any(axis=1))
        if len(others):
            raise ValueError(
                f"{name}: expected the same in every process, got another than that of process 0 in "
                f"{', '.join(map(str, others))}; every process must give fit the same arguments"
            )


def _digest(tree) -> bytes:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        rows = leaf if np.ndim(leaf) == 0 else leaf[np.linspace(0, len(leaf) - 1, min(len(leaf), SAMPLE)).astype(int)]
        array = np.ascontiguousarray(rows)
        digest.update(f"{array.dtype} {np.shape(leaf)}".encode() + array.tobytes())
    return digest.digest()
