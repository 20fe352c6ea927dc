"""The modes of sockets: time-outs and non-blocking ones are as before, and so are errors."""

import os
import select
import socket
import threading
import time

import pytest

from gofer import fork, patched, timeout, unpatch

from shared import error_of, in_thread
from shared.io_points import POINTS, cancelled_wait

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

RECEIVE = [
    name for name in POINTS if name.startswith(("recv", "send", "accept")) and name != "makefile"
]


@pytest.mark.parametrize("name", RECEIVE)
def test_its_own_timeout(name, closing):
    it = POINTS[name]()
    closing(*it.sockets)
    for sock in it.sockets:
        sock.settimeout(0.02)
    before = in_thread(error_of, it.wait)
    assert before == (TimeoutError, "timed out")
    assert error_of(it.wait) == before
    it.wake()
    it.wait()
    it.close()


@pytest.mark.parametrize("name", RECEIVE)
def test_non_blocking_ones_are_left_alone(name, closing):
    it = POINTS[name]()
    closing(*it.sockets)
    cancelled_wait(it)
    for sock in it.sockets:
        sock.setblocking(False)
    before = in_thread(error_of, it.wait)
    assert before[0] is BlockingIOError
    assert error_of(it.wait) == before
    it.wake()
    it.wait()
    it.close()


def test_the_mode_looks_as_before(pair):
    a, b = pair
    for limit in (None, 5.0, 0.0):
        a.settimeout(limit)
        b.send(b"x")
        assert fork(a.recv, 1).join() == b"x"
        assert a.gettimeout() == limit
        assert a.getblocking() is (limit != 0)


def test_undone(pair):
    """What was made non-blocking blocks again."""
    a, b = pair
    with pytest.raises(TimeoutError):
        with timeout(0.01):
            a.recvmsg(1)
    assert not os.get_blocking(a.fileno())
    unpatch()
    assert os.get_blocking(a.fileno())
    thread = threading.Thread(target=lambda: time.sleep(0.05) or b.send(b"x"))
    thread.start()
    assert a.recv(1) == b"x"
    thread.join()


def test_undone_among_objects_that_do_not_say_what_they_are(pair):
    class Proxy:
        @property
        def __class__(self):
            raise RuntimeError("there is nothing behind it")

    kept = [Proxy()]
    unpatch()
    assert not any(patched().values())
    del kept


def test_errors_are_those_of_before(pair, closing):
    a, _ = pair
    closed = socket.socket()
    closed.close()
    unconnected = closing(socket.socket())
    nobody = closing(socket.create_server(("127.0.0.1", 0)))
    address = nobody.getsockname()
    nobody.close()
    calls = [
        lambda: closed.recv(1),
        lambda: closed.send(b""),
        lambda: closed.sendall(b"x"),
        lambda: closed.connect(address),
        lambda: unconnected.recv(1),
        lambda: unconnected.sendall(b"x"),
        lambda: a.recv(),
        lambda: a.recv(-1),
        lambda: a.send("text"),
        lambda: a.send(b"", 0, 0),
        lambda: a.sendall(b"", flags=0),
        lambda: a.connect(5),
        lambda: socket.socket().connect(address),
        lambda: socket.create_connection(address, timeout=5),
        lambda: select.select([a], [], [], -1),
        lambda: select.select(5, [], []),
        lambda: select.select([closed], [], [], 1),
        lambda: select.select([a], [], [], "1"),
        lambda: os.read(a.fileno()),
        lambda: os.read(closed.fileno(), 1),
        lambda: os.read(2**31 - 1, 1),
        lambda: os.read(2**31, 1),
        lambda: os.read(a, 1),
        lambda: os.read(a.fileno(), -1),
        lambda: os.readv(a.fileno(), [b"read only"]),
        lambda: os.write(2**31 - 1, b"x"),
        lambda: os.write(a.fileno(), "text"),
        lambda: os.write(a.fileno(), b"x", 1),
        lambda: os.writev(a.fileno(), ["text"]),
        lambda: os.writev(2**31 - 1, [b"x"]),
        lambda: os.waitpid(2**30, 0),
        lambda: os.waitpid("1", 0),
        lambda: socket.gethostbyname("no such.name.invalid"),
    ]
    before = [in_thread(error_of, call) for call in calls]
    assert None not in before
    assert [error_of(call) for call in calls] == before
    assert socket.socket().connect_ex(address) == in_thread(socket.socket().connect_ex, address)


def test_connecting(closing):
    server = closing(socket.create_server(("127.0.0.1", 0)))
    for limit in (None, 10, 0):
        with socket.socket() as a:
            a.settimeout(limit)
            error = a.connect_ex(server.getsockname())
            if limit == 0:
                assert error == 115
                select.select([], [a], [])
            else:
                assert error == 0
            accepted = server.accept()[0]
            assert accepted.gettimeout() is None
            accepted.close()
