"""Processes meet at the coordinator's address, or learn in seconds which of them, or what, is missing there."""

import socket
import threading
import time

import pytest

from fnn.rendezvous import meet


@pytest.fixture
def address():
    """An address of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def met(address, *visits, seconds=3.0):
    """What happened to every process: None, or its error; visits: (number of processes, own number)."""
    found = [None] * len(visits)

    def come(i, count, own):
        try:
            meet(address, address, count, own, seconds)
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=come, args=(i, *visit)) for i, visit in enumerate(visits)]
    for thread in threads:
        thread.start()
    for thread, (_, own) in zip(threads, visits):
        if own == 0:
            thread.join()
            serve(address, threads)
    for thread in threads:
        thread.join()
    return found


def serve(address, threads):
    """Listen at the address, as JAX's service does after process 0 has left it, until all have met."""
    host, port = address.split(":")
    with socket.create_server((host, int(port))):
        for thread in threads:
            thread.join()


def test_all_meet_and_the_port_is_free_afterwards(address):
    assert met(address, (3, 2), (3, 0), (3, 1)) == [None] * 3
    socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))).close()


def test_one_process_needs_no_others(address):
    meet(address, address, 1, 0, 1)


def test_who_does_not_come_is_named(address):
    waiting, other = met(address, (4, 0), (4, 2), seconds=1.0)
    assert isinstance(waiting, TimeoutError)
    assert f"num_processes: process 1, 3 of 4 did not reach {address} within 1 s; start every" in str(waiting)
    assert "process 0" in str(other)


def test_other_numbers_of_processes_are_told_to_all(address):
    for error in met(address, (3, 0), (2, 1)):
        assert "num_processes: expected 3 as in process 0, got 2 in process 1" in str(error)


def test_a_process_that_is_there_twice_is_told_to_all(address):
    assert all(
        "process_id: expected every process once at" in str(error) for error in met(address, (3, 0), (3, 1), (3, 1))
    )


def test_a_port_in_use_is_named(address):
    host, port = address.split(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(OSError, match=f"{address}: the port is in use; choose"),
    ):
        meet(address, address, 2, 0, 1)


@pytest.mark.parametrize(
    ("bind", "why"),
    [("192.0.2.1:1234", "does not have that address"), ("nowhere.invalid:1234", "give this machine's address")],
)
def test_an_address_that_is_not_this_machines_is_named(bind, why):
    with pytest.raises(OSError, match=f"coordinator_address: cannot listen at {bind}: .*{why}"):
        meet(bind, bind, 2, 0, 1)


@pytest.mark.parametrize("wrong", ["127.0.0.1:1", "nowhere.invalid:1234"])
def test_an_address_where_nobody_answers_is_named(wrong):
    with pytest.raises(TimeoutError, match=f"coordinator_address: {wrong}: no answer .* within 0.5 s"):
        meet(wrong, wrong, 2, 1, 0.5)


def test_something_else_that_answers_is_shown(address):
    def answer():
        visitor, _ = server.accept()
        with visitor:
            visitor.recv(100)
            visitor.sendall(b"HTTP/1.1 400 Bad Request\n")
        server.close()

    host, port = address.split(":")
    server = socket.create_server((host, int(port)))
    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(TimeoutError, match=f"coordinator_address: {address}: "):
        meet(address, address, 2, 1, 0.5)
    thread.join()


def test_whoever_else_looks_at_the_port_is_let_go(address):
    host, port = address.split(":")
    first = threading.Thread(target=meet, args=(address, address, 2, 0, 5))
    first.start()
    for _ in range(100):
        try:
            with socket.create_connection((host, int(port)), timeout=1) as visitor:
                visitor.sendall(b"GET / HTTP/1.1\r\n")
            break
        except OSError:  # process 0 does not listen yet
            time.sleep(0.02)
    assert first.is_alive()
    meet_then_serve = threading.Thread(target=lambda: (first.join(), serve(address, [second])))
    second = threading.Thread(target=meet, args=(address, address, 2, 1, 5))
    second.start()
    meet_then_serve.start()
    for thread in (first, second, meet_then_serve):
        thread.join(5)
        assert not thread.is_alive()
