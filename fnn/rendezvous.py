"""All processes meet before JAX connects them, because JAX aborts a process that waits in vain.

Process 0 listens at the coordinator's address, and the others say who they are. When all are there it says so, and
stops listening; then JAX's own service takes the port. What each sends is one line: "fnn 1 of 4", "all" or "no: why".
"""

import contextlib
import errno
import socket
import time
from collections.abc import Iterable, Iterator

POLL = 0.1  # seconds between attempts to connect
LINE = 400  # bytes, at most
HELLO = "fnn {id} of {count}"
ALL, NO = "all", "no: "
ADVICE = "start every process with the same coordinator_address and num_processes, and process_id 0, 1, …"


def meet(address: str, bind: str, count: int, own: int, seconds: float) -> None:
    """Return when all ``count`` processes have come to ``address``, "host:port"; own: the number of this one.

    bind: where process 0 listens. Raises OSError for a port in use or an address that is not this machine's,
    TimeoutError, naming who is missing, after ``seconds``, and ValueError for a process that is there twice or expects
    other processes.
    """
    ends = time.monotonic() + seconds
    if own == 0:
        _wait_for_others(bind, count, ends, seconds)
    else:
        _say_hello(address, HELLO.format(id=own, count=count), ends, seconds)


def _wait_for_others(bind: str, count: int, ends: float, seconds: float) -> None:
    come: dict[int, socket.socket] = {}
    with _listening(bind) as server, contextlib.ExitStack() as stack:
        try:
            while len(come) < count - 1:
                visitor = stack.enter_context(_next(server, ends))
                who = _number(_line(visitor), count)
                if who in come:
                    raise ValueError(f"process_id: expected every process once at {bind}, got {who} twice; {ADVICE}")
                if who is not None:  # else a port scanner, or a probe
                    come[who] = visitor
        except TimeoutError as error:
            missing = ", ".join(str(i) for i in range(1, count) if i not in come)
            why = f"num_processes: process {missing} of {count} did not reach {bind} within {seconds:g} s; {ADVICE}"
            _tell(come.values(), NO + why)
            raise TimeoutError(why) from error
        except ValueError as error:
            _tell((*come.values(), visitor), f"{NO}{error}")
            raise
        _tell(come.values(), ALL)
        for visitor in come.values():  # they close first, so that the port is free at once
            _line(visitor)


def _next(server: socket.socket, ends: float) -> socket.socket:
    server.settimeout(max(0.01, ends - time.monotonic()))
    return server.accept()[0]


def _tell(visitors: Iterable[socket.socket], line: str) -> None:
    for visitor in visitors:
        with contextlib.suppress(OSError):  # it has gone; JAX will miss it
            visitor.sendall(f"{line}\n".encode())


def _number(line: str, count: int) -> int | None:
    """The number of the process that says ``line``; None for anything else's; raises ValueError for other processes."""
    words = line.split()
    if len(words) != 4 or words[0] != "fnn" or not (words[1].isdecimal() and words[3].isdecimal()):
        return None
    if int(words[3]) != count or not 0 < int(words[1]) < count:
        raise ValueError(
            f"num_processes: expected {count} as in process 0, got {words[3]} in process {words[1]}; {ADVICE}"
        )
    return int(words[1])


@contextlib.contextmanager
def _listening(bind: str) -> Iterator[socket.socket]:
    try:
        kind, _, _, _, place = socket.getaddrinfo(*_parts(bind), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with contextlib.ExitStack() as failed:
            server = failed.enter_context(socket.socket(kind))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(place)
            server.listen(128)
            failed.pop_all()
    except OSError as error:
        why = {
            errno.EADDRINUSE: "the port is in use; choose another, or end the process that has it",
            errno.EADDRNOTAVAIL: "this machine, of process 0, does not have that address; give its own",
        }.get(error.errno or 0, f"{error.strerror}; give this machine's address, of process 0, as host:port")
        raise OSError(error.errno, f"coordinator_address: cannot listen at {bind}: {why}") from error
    with server:
        yield server


def _say_hello(address: str, hello: str, ends: float, seconds: float) -> None:
    last = "no answer"
    while (left := ends - time.monotonic()) > 0:
        try:
            with socket.create_connection(_parts(address), timeout=min(left, 2)) as server:
                server.sendall(f"{hello}\n".encode())
                answer = _line(server, max(0.01, ends - time.monotonic()))
                if answer == ALL:
                    break
                if answer.startswith(NO):
                    raise RuntimeError(f"coordinator_address: process 0 at {address}: {answer.removeprefix(NO)}")
                last = f"unexpected answer {answer!r}" if answer else "process 0 is waiting for others, or has ended"
        except OSError as error:
            last = f"no answer ({error.strerror or error})"
        time.sleep(POLL)
    else:
        raise TimeoutError(f"coordinator_address: {address}: {last} within {seconds:g} s; {ADVICE}")
    while time.monotonic() < ends:  # until JAX's service has the port: its own clients would wait a second
        with contextlib.suppress(OSError), socket.create_connection(_parts(address), timeout=1):
            return
        time.sleep(POLL)


def _line(connection: socket.socket, seconds: float = 2) -> str:
    """A line from the other side, without its end; "" if none comes."""
    connection.settimeout(seconds)
    found = b""
    with contextlib.suppress(OSError):
        while not found.endswith(b"\n") and len(found) < LINE and (part := connection.recv(LINE)):
            found += part
    return found.decode(errors="replace").strip()


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
