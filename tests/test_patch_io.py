"""Sockets, select and pipes of the standard library, in goroutines and threads."""

import fcntl
import os
import select
import socket
import threading

import pytest

from gofer import fork, gosched, timeout

from shared import error_of, in_thread
from shared.canary import beats_under
from shared.io_points import CHILD, POINTS, cancelled_wait
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")


@pytest.fixture(params=POINTS)
def point(request):
    it = POINTS[request.param]()
    yield it
    for thing in it.sockets:
        thing.close()
    it.close()


# --- waiting and waking -------------------------------------------------------------------------


def test_the_others_go_on(point, one_worker):
    beats_under(point.wait, point.wake)


def test_the_others_go_on_with_a_timeout(point, one_worker):
    for sock in point.sockets:
        if hasattr(sock, "settimeout"):
            sock.settimeout(1000)
    beats_under(point.wait, point.wake)


def test_a_thread_wakes_a_goroutine(point, parked):
    waiter = fork(point.wait)
    parked(waiter)
    in_thread(point.wake)
    waiter.join()


def test_a_thread_waits(point, parked):
    """Also after a goroutine has waited there, and made it non-blocking."""
    waiter = fork(cancelled_wait, point)
    waiter.join()
    ended = []
    thread = threading.Thread(target=lambda: ended.append(point.wait()))
    thread.start()
    for _ in range(20):
        gosched()
    assert not ended
    point.wake()
    thread.join()
    assert ended


def test_cancelled(point, parked):
    for _ in range(2):
        cancelled_wait(point)
    waiter = fork(point.wait)
    parked(waiter)
    point.wake()
    waiter.join()


def test_timeout_of_gofer(point):
    with pytest.raises(TimeoutError):
        with timeout(0.02):
            point.wait()


# --- select -------------------------------------------------------------------------------------


def test_select_sees_what_fileno_changes_and_nothing_later(pair, parked):
    a, b = pair

    class Shrinking:
        def fileno(self):
            del asked[-1]
            return b.fileno()

    asked = [Shrinking()] * 10
    assert select.select([], asked, []) == ([], asked[:5], [])

    asked = [a]
    task = fork(select.select, asked, [], [])
    parked(task)
    asked.clear()
    b.send(b"x")
    assert task.join() == ([a], [], [])


# --- closing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 1000])
def test_closing_wakes_who_waits(limit, parked, closing):
    a, b = socket.socketpair()
    closing(b)
    a.settimeout(limit)
    waiters = [fork(error_of, lambda: a.recv(1)) for _ in range(3)]
    parked(*waiters)
    a.close()
    for waiter in waiters:
        assert waiter.join() == (OSError, "[Errno 9] Bad file descriptor")


def test_shutdown_wakes_who_waits(pair, parked):
    a, _ = pair
    waiter = fork(a.recv, 1)
    parked(waiter)
    a.shutdown(socket.SHUT_RDWR)
    assert waiter.join() == b""


def test_a_number_that_is_used_again(parked):
    """Who waited for a socket never reads from the next one of the same number."""
    a, b = socket.socketpair()
    waiter = fork(error_of, lambda: a.recv(10))
    parked(waiter)
    number = a.fileno()
    a.close()
    c, d = socket.socketpair()
    assert number in (c.fileno(), d.fileno())
    c.send(b"to d")
    d.send(b"to c")
    assert waiter.join()[0] is OSError
    assert (c.recv(10), d.recv(10)) == (b"to c", b"to d")
    for sock in (b, c, d):
        sock.close()


# --- several on one -----------------------------------------------------------------------------

READ_ONE = {
    "os.read": lambda file: os.read(file.fileno(), 1),
    "os.readv": lambda file: os.readv(file.fileno(), [bytearray(1)]),
    "read": lambda file: file.read(1),
    "readinto": lambda file: file.readinto(bytearray(1)),
}


@pytest.mark.parametrize("start", [fork, elsewhere])
@pytest.mark.parametrize("read", READ_ONE.values(), ids=READ_ONE)
def test_one_byte_for_many_readers(read, start, until):
    """Who finds nothing any more goes on waiting: else it would block its worker."""
    r, w = os.pipe()
    with open(r, "rb", buffering=0) as file:
        readers = [(start if n % 2 else fork)(read, file) for n in range(6)]
        for n in range(6):
            left = [task for task in readers if not task.done]
            until(lambda left=left: all(task.state == "waiting" for task in left))
            os.write(w, b"x")
            until(lambda n=n: sum(task.done for task in readers) == n + 1)
    os.close(w)


@pytest.mark.parametrize("start", [fork, elsewhere])
def test_room_for_one_of_many_writers(start, until):
    r, w = os.pipe()
    os.write(w, bytes(1 << 16))
    page = bytes(select.PIPE_BUF)
    writers = [(start if n % 2 else fork)(os.write, w, page) for n in range(6)]
    for n in range(6):
        left = [task for task in writers if not task.done]
        until(lambda left=left: all(task.state == "waiting" for task in left))
        os.read(r, len(page))
        until(lambda n=n: sum(task.done for task in writers) == n + 1)
    os.close(r)
    os.close(w)


# --- names --------------------------------------------------------------------------------------


def test_names(one_worker):
    assert socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)
    assert socket.getaddrinfo(host="localhost", port=None)
    assert fork(socket.gethostbyname, "localhost").join() == "127.0.0.1"
    assert socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
        "127.0.0.1",
        "80",
    )


def test_names_that_a_program_replaces(monkeypatch, parked):
    """A test of some code replaces what that code calls, and nothing of ours."""
    listener = socket.create_server(("127.0.0.1", 0))
    full = POINTS["writev_to_a_pipe"]()
    child = os.posix_spawn(CHILD[0], [*CHILD[:-1], "import time; time.sleep(0.01)"], os.environ)
    replaced = {
        fcntl: ["fcntl"],
        os: ["close", "fstat", "getpgrp", "pidfd_open", "set_blocking", "waitid", "waitpid"],
        select: ["poll"],
        socket: ["getaddrinfo"],
    }
    with monkeypatch.context() as m:
        for module, names in replaced.items():
            for name in names:
                m.setattr(module, name, None, raising=False)
        assert os.wait() == (child, 0)
        writer = fork(full.wait)
        parked(writer)
        full.wake()
        writer.join()
        with socket.socket() as sock:
            sock.connect(("localhost", listener.getsockname()[1]))
    listener.close()
    full.close()


# --- programs -----------------------------------------------------------------------------------


def test_input(program):
    outcome = program(
        """
        import gofer, sys
        gofer.patch()
        beats = []

        def canary():
            while True:
                beats.append(1)
                gofer.gosched()

        gofer.go(canary)
        print(input(), len(beats) > 0)
        print([line for line in sys.stdin])
        """,
        stdin="first\nsecond\nthird\n",
    )
    assert outcome == (0, "first True\n['second\\n', 'third\\n']\n", "")
