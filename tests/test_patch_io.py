"""Sockets, select, pipes and child processes of the standard library, in goroutines and threads.

As in test_patch_threading: a point waits for ever in `wait`, and `wake` lets it go on.
"""

import contextlib
import gc
import http.client
import http.server
import os
import select
import selectors
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from typing import NamedTuple

import pytest

from gofer import (
    Cancelled,
    Group,
    cancel_scope,
    fork,
    go,
    gosched,
    patch,
    patched,
    timeout,
    unpatch,
)

from shared import in_thread
from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

MANY = 30


@pytest.fixture
def cooperative():
    patch()
    yield
    unpatch()


@pytest.fixture
def closing():
    """`closing(thing)` returns it, and closes it in the end."""
    with contextlib.ExitStack() as stack:

        def close_later(*things):
            for thing in things:
                stack.enter_context(contextlib.closing(thing))
            return things[0]

        yield close_later


@pytest.fixture
def pair(closing):
    a, b = socket.socketpair()
    closing(a, b)
    return a, b


class Point(NamedTuple):
    wait: object
    wake: object
    sockets: tuple = ()
    close: object = lambda: None


def fill(sock):
    """Send until there is no room; the mode is as before."""
    limit = sock.gettimeout()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(100_000))
    sock.settimeout(limit)


def drain(sock):
    limit = sock.gettimeout()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1_000_000):
            pass
    sock.settimeout(limit)


POINTS = {}


def point(make):
    POINTS[make.__name__] = make
    return make


def receiving(name, call):
    def make():
        a, b = socket.socketpair()
        return Point(lambda: call(a), lambda: b.send(b"hello"), (a, b))

    POINTS[name] = make


receiving("recv", lambda a: a.recv(10))
receiving("recv_into", lambda a: a.recv_into(bytearray(10)))
receiving("recv_into_with_names", lambda a: a.recv_into(buffer=bytearray(10), nbytes=5))
receiving("recvfrom", lambda a: a.recvfrom(10))
receiving("recvfrom_into", lambda a: a.recvfrom_into(bytearray(10)))
receiving("recvmsg", lambda a: a.recvmsg(10, 100))
receiving("recvmsg_into", lambda a: a.recvmsg_into([bytearray(10)]))
receiving("recvmsg_into_of_an_iterator", lambda a: recvmsg_into_of_an_iterator(a))
receiving("makefile", lambda a: a.makefile("rb").read(5))
receiving("select_read", lambda a: select.select([a], [], []))
receiving("select_of_an_iterator", lambda a: select.select(iter([a]), iter([]), ()))
receiving("wait_for_one", lambda a: selected(selectors.DefaultSelector, a))
receiving("wait_by_poll", lambda a: selected(selectors.PollSelector, a))
receiving("wait_by_select", lambda a: selected(selectors.SelectSelector, a))


def recvmsg_into_of_an_iterator(a):
    assert a.recvmsg_into(iter([bytearray(3), bytearray(10)]))[0] == 5


def selected(kind, a):
    with kind() as selector:
        selector.register(a, selectors.EVENT_READ, "data")
        assert [key.data for key, _ in selector.select()] == ["data"]


def sending(name, call):
    def make():
        a, b = socket.socketpair()
        fill(a)
        return Point(lambda: call(a), lambda: drain(b), (a, b))

    POINTS[name] = make


sending("send", lambda a: a.send(b"hello"))
sending("sendall", lambda a: a.sendall(b"hello"))
sending("sendmsg", lambda a: a.sendmsg([b"hel", b"lo"]))
sending("sendmsg_of_iterators", lambda a: sendmsg_of_iterators(a))
sending("select_write", lambda a: select.select([], [a.fileno()], []))


def sendmsg_of_iterators(a):
    assert a.sendmsg(iter([b"hel", b"lo"]), iter([])) == 5


@point
def sendto():
    a, b = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    b.bind("")  # an address of its own, from the system
    name = b.getsockname()
    a.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            a.sendto(bytes(1000), name)
    a.settimeout(None)
    return Point(lambda: a.sendto(b"hello", name), lambda: drain(b), (a, b))


@point
def accept():
    a = socket.create_server(("127.0.0.1", 0))
    callers = []

    def wake():
        callers.append(socket.create_connection(a.getsockname()))

    def close():
        for caller in callers:
            caller.close()

    def wait():
        a.accept()[0].close()

    return Point(wait, wake, (a,), close)


@point
def connect_to_a_full_one():
    a = socket.socket(socket.AF_UNIX)
    a.bind("")
    a.listen(0)
    callers = []

    def caller():
        callers.append(socket.socket(socket.AF_UNIX))
        return callers[-1]

    with contextlib.suppress(BlockingIOError):
        while True:
            one = caller()
            one.setblocking(False)
            one.connect(a.getsockname())

    def wake():
        for _ in callers:
            a.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                a.accept()[0].close()

    def close():
        for one in callers:
            one.close()

    return Point(lambda: caller().connect(a.getsockname()), wake, (a,), close)


@point
def read_of_a_pipe():
    r, w = os.pipe()
    return Point(lambda: os.read(r, 10), lambda: os.write(w, b"hello"), (), closes(r, w))


@point
def write_to_a_pipe():
    r, w = os.pipe()
    os.write(w, bytes(1 << 16))
    return Point(lambda: os.write(w, b"hello"), lambda: os.read(r, 1 << 16), (), closes(r, w))


@point
def a_file_of_a_pipe():
    r, w = os.pipe()
    file = os.fdopen(r, "rb")
    return Point(file.readline, lambda: os.write(w, b"hello\n"), (file,), closes(w))


@point
def poll():
    r, w = os.pipe()
    it = select.poll()
    it.register(r, select.POLLIN)
    return Point(it.poll, lambda: os.write(w, b"hello"), (), closes(r, w))


@point
def poll_for_the_end():
    r, w = os.pipe()
    it = select.poll()
    it.register(r, 0)
    return Point(it.poll, lambda: os.close(w), (), closes(r))


@point
def epoll():
    r, w = os.pipe()
    it = select.epoll()
    it.register(r, select.EPOLLIN)
    return Point(it.poll, lambda: os.write(w, b"hello"), (it,), closes(r, w))


def closes(*fds):
    def close():
        for fd in fds:
            os.close(fd)

    return close


CHILD = [sys.executable, "-c", "import sys; sys.stdin.read(1)"]


def waiting_for_a_child(name, call):
    def make():
        child = subprocess.Popen(CHILD, stdin=subprocess.PIPE)
        return Point(lambda: call(child), child.stdin.close, (), lambda: ends(child))

    POINTS[name] = make


def ends(child):
    child.stdin.close()
    if child.returncode is None:
        with contextlib.suppress(ChildProcessError):
            child.wait()
    child.returncode = 0


waiting_for_a_child("child_wait", lambda child: child.wait())
waiting_for_a_child("waitpid", lambda child: os.waitpid(child.pid, 0))
waiting_for_a_child("waitpid_of_any", lambda child: os.waitpid(-1, 0))
waiting_for_a_child("wait4", lambda child: os.wait4(child.pid, 0))
waiting_for_a_child("waitid", lambda child: os.waitid(os.P_PID, child.pid, os.WEXITED))


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


def cancelled_wait(point):
    with cancel_scope() as scope:
        go(scope.cancel)
        with pytest.raises(Cancelled):
            point.wait()


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


# --- the modes of sockets -----------------------------------------------------------------------


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


def error_of(fn):
    try:
        fn()
    except Exception as error:
        return type(error), str(error)


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


def test_select_sees_what_fileno_changes_and_nothing_later(parked, closing):
    a, b = map(closing, socket.socketpair())

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


# --- in the collector ---------------------------------------------------------------------------


def in_the_collector(wait):
    """What it returns."""
    seen = []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            seen.append(wait())

    Cycle()
    gc.collect()
    return seen


def polled(r):
    it = select.poll()
    it.register(r, select.POLLIN)
    return it.poll(1)


def child():
    return subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"]).wait()


def test_a_finalizer_in_the_collector_waits_as_a_thread_does(closing):
    a, b = map(closing, socket.socketpair())
    assert in_the_collector(lambda: time.sleep(0.001)) == [None]
    assert in_the_collector(lambda: select.select([a], [], [], 0.001)) == [([], [], [])]
    assert in_the_collector(lambda: polled(a)) == [[]]
    assert in_the_collector(child) == [7]
    for limit in (None, 1000):
        a.settimeout(limit)
        thread = threading.Timer(0.01, b.sendall, [b"x"])
        thread.start()
        assert in_the_collector(lambda: a.recv(5)) == [b"x"]
        thread.join()


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


# --- much ---------------------------------------------------------------------------------------

BIG = bytes(range(256)) * 8000


def read_all(sock, n):
    data = bytearray()
    while len(data) < n:
        data += sock.recv(100_000)
    return bytes(data)


@pytest.mark.parametrize("limit", [None, 100])
@pytest.mark.parametrize("send", ["send", "sendall"])
def test_more_than_there_is_room_for(pair, limit, send):
    a, b = pair
    a.settimeout(limit)

    def write():
        rest = memoryview(BIG)
        while rest:
            n = getattr(a, send)(rest)
            if limit is None and send == "send":
                assert n == len(BIG)  # on a socket that blocks
            rest = rest[len(rest) if n is None else n :]

    writer = fork(write)
    assert read_all(b, len(BIG)) == BIG
    writer.join()
    writer = threading.Thread(target=write)
    writer.start()
    assert read_all(b, len(BIG)) == BIG
    writer.join()


def test_send_that_is_cancelled_says_how_much_has_gone(pair, parked):
    a, b = pair
    with cancel_scope() as scope:
        writer = fork(a.send, BIG)
        parked(writer)
        scope.cancel()
    sent = writer.join()
    assert 0 < sent < len(BIG)
    a.close()
    assert b"".join(iter(lambda: b.recv(100_000), b"")) == BIG[:sent]


def test_a_thread_sends_all_on_what_a_goroutine_has_used(pair):
    a, b = pair
    with pytest.raises(TimeoutError):
        with timeout(0.01):
            a.recvmsg(1)
    assert not os.get_blocking(a.fileno())
    writer = threading.Thread(target=a.sendall, args=(BIG,))
    writer.start()
    assert read_all(b, len(BIG)) == BIG
    writer.join()


@pytest.mark.parametrize("size", [1, 1000, 65_536, 65_537, 1 << 20])
def test_receiving_as_much_as_there_is(pair, size):
    a, b = pair
    data = os.urandom(1000)

    def into():
        buffer = bytearray(size)
        return bytes(buffer[: a.recv_into(buffer)])

    for receive in (lambda: a.recv(size), into):
        task = fork(receive)
        gosched()
        b.sendall(data)
        assert task.join() == data[:size]
        a.settimeout(0)
        while size < 1000:
            try:
                a.recv(1000)
            except BlockingIOError:
                break
        a.settimeout(None)


@pytest.mark.parametrize("receive", [lambda s: s.recv(10), lambda s: s.recv_into(bytearray(10))])
def test_receiving_leaves_the_mode_alone(pair, receive, until):
    a, b = pair
    task = fork(receive, a)
    until(lambda: task.state == "waiting")
    assert os.get_blocking(a.fileno())
    b.send(b"x")
    assert task.join() in (b"x", 1)
    b.close()
    assert receive(a) in (b"", 0)


@pytest.mark.parametrize("receive", [lambda s: s.recv(10), lambda s: s.recv_into(bytearray(10))])
def test_a_socket_that_is_made_non_blocking_while_somebody_receives(pair, receive, until):
    """Who finds nothing goes by the new mode then, and says so."""
    a, b = pair

    def ends(task):
        try:
            return task.join()
        except BlockingIOError:
            return None

    others = fork(receive, a), fork(receive, a)
    until(lambda: all(task.state == "waiting" for task in others))
    a.setblocking(False)
    b.send(b"x")  # for one of them; whether the other looks as well is up to chance
    until(lambda: any(task.done for task in others))
    b.close()
    first, second = [ends(task) for task in others]
    assert first in (b"x", 1) or second in (b"x", 1)
    assert {first, second} & {None, b"", 0}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: s.recv(-1),
        lambda s: s.recv(1 << 70),
        lambda s: s.recv("1"),
        lambda s: s.recv(),
        lambda s: s.recv_into(b"read only"),
        lambda s: s.recv_into(bytearray(2), -1),
        lambda s: s.recv_into(bytearray(2), 3),
        lambda s: s.recv_into(1),
    ],
)
def test_receiving_what_can_not_be(pair, wrong):
    a, _ = pair
    before = in_thread(error_of, lambda: wrong(a))
    assert before
    assert error_of(lambda: wrong(a)) == before


def test_receiving_nothing(pair):
    a, _ = pair
    assert a.recv(0) == b""


def test_pipes_that_are_full():
    r, w = os.pipe()
    reader = fork(lambda: b"".join(iter(lambda: os.read(r, 1 << 20), b"")))
    assert os.write(w, BIG) == len(BIG)
    os.close(w)
    assert reader.join() == BIG
    os.close(r)


def test_random_cancellation_loses_nothing(pair, rng):
    """Each frame is received once, whole, and in order."""
    a, b = pair
    over, seen, scopes = False, [], []

    def annoy():
        while not over:
            if scopes:
                scopes.pop().cancel()
            for _ in range(rng.randrange(3)):
                gosched()

    def receive():
        while len(seen) < 500:
            with cancel_scope() as scope:
                scopes.append(scope)
                seen.append(int.from_bytes(a.recv(4, socket.MSG_WAITALL), "big"))

    annoyer, receiver = fork(annoy), fork(receive)
    for n in range(500):
        b.sendall(n.to_bytes(4, "big"))
        if rng.random() < 0.5:
            gosched()
    receiver.join()
    over = True
    annoyer.join()
    assert seen == list(range(500))


# --- real use -----------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.001)
        body = self.path.encode() * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class GoroutineServer(socketserver.TCPServer):
    request_queue_size = 100

    def process_request(self, request, address):
        go(self.work, request, address)

    def work(self, request, address):
        try:
            self.finish_request(request, address)
        except ConnectionError:
            pass  # the client has gone
        finally:
            self.shutdown_request(request)


@pytest.fixture(params=["goroutines", "threads"])
def server(request):
    kind = GoroutineServer if request.param == "goroutines" else http.server.ThreadingHTTPServer
    it = kind(("127.0.0.1", 0), Handler)
    if request.param == "goroutines":
        serving = fork(it.serve_forever, 0.01)
    else:
        it.daemon_threads = True
        serving = threading.Thread(target=it.serve_forever, args=(0.01,))
        serving.start()
    yield it.server_address[1]
    it.shutdown()
    serving.join()
    it.server_close()


def ask(port, n):
    with urllib.request.urlopen(
        f"http://localhost:{port}/{n}", timeout=50 if n % 2 else None
    ) as reply:
        return reply.read()


def test_http(server):
    def keep_asking(n):
        connection = http.client.HTTPConnection("127.0.0.1", server)
        for k in range(3):
            connection.request("GET", f"/{n}.{k}")
            assert connection.getresponse().read() == f"/{n}.{k}".encode() * 1000
        connection.close()

    def check(n):
        assert ask(server, n) == f"/{n}".encode() * 1000

    with Group() as group:
        for n in range(MANY):
            group.go(keep_asking, n)
            group.go(check, n)


def test_http_clients_that_are_cancelled(server, rng):
    """The server goes on, and every client that was not cancelled has its answer."""
    asked = [fork(ask, server, n) for n in range(MANY)]
    for _ in range(rng.randrange(MANY)):
        gosched()
    for task in asked[::2]:
        task.cancel()
    for n, task in list(enumerate(asked))[1::2]:
        assert task.join() == f"/{n}".encode() * 1000
    for task in asked[::2]:
        while not task.done:
            gosched()
    assert ask(server, 7) == b"/7" * 1000


def test_udp(closing):
    server = closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))

    def serve():
        for _ in range(MANY):
            data, address = server.recvfrom(100)
            server.sendto(data.upper(), address)

    def call(n):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(f"call {n}".encode(), server.getsockname())
            assert sock.recv(100) == f"CALL {n}".encode()

    serving = fork(serve)
    with Group() as group:
        for n in range(MANY):
            group.go(call, n)
    serving.join()


def test_descriptors_that_are_passed(pair):
    a, b = pair
    r, w = os.pipe()
    receiver = fork(socket.recv_fds, b, 10, 1)
    socket.send_fds(a, [b"x"], [r])
    message, fds, *_ = receiver.join()
    assert message == b"x"
    os.write(w, b"through it")
    assert os.read(fds[0], 100) == b"through it"
    for fd in (r, w, fds[0]):
        os.close(fd)


def test_sendfile(pair, tmp_path):
    a, b = pair
    (tmp_path / "file").write_bytes(BIG)
    reader = fork(read_all, b, len(BIG))
    with open(tmp_path / "file", "rb") as file:
        assert a.sendfile(file) == len(BIG)
    assert reader.join() == BIG


# --- child processes ----------------------------------------------------------------------------


def test_subprocesses():
    code = "import sys, time; time.sleep(0.01); print(sys.stdin.read().upper()); sys.exit(3)"

    def child(n):
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            input=f"n {n}",
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, f"N {n}\n", "")

    with Group(limit=4) as group:
        for n in range(12):
            group.go(child, n)


def test_children_that_are_killed_or_stop(parked):
    child = subprocess.Popen(CHILD, stdin=subprocess.PIPE)
    stopped = fork(os.waitpid, child.pid, os.WUNTRACED)
    parked(stopped)
    os.kill(child.pid, signal.SIGSTOP)
    assert os.WIFSTOPPED(stopped.join()[1])
    waiter = fork(child.wait)
    parked(waiter)
    child.kill()
    assert waiter.join() == -signal.SIGKILL
    child.stdin.close()


def test_a_child_is_not_lost_to_who_was_cancelled():
    child = subprocess.Popen(CHILD, stdin=subprocess.PIPE)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            with timeout(0.01):
                os.waitpid(-1, 0)
    child.stdin.close()
    assert child.wait() == 0


def test_subprocess_timeout():
    child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.02)
    with pytest.raises(subprocess.TimeoutExpired):
        child.communicate(timeout=0.02)
    child.kill()
    assert child.communicate() == (b"", None)


# --- names --------------------------------------------------------------------------------------


def test_names(one_worker):
    assert socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)
    assert socket.getaddrinfo(host="localhost", port=None)
    assert fork(socket.gethostbyname, "localhost").join() == "127.0.0.1"
    assert socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
        "127.0.0.1",
        "80",
    )


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
