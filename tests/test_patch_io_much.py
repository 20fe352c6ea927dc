"""Much data, and servers and clients as they are in real use, of the standard library."""

import http.client
import http.server
import os
import socket
import socketserver
import threading
import time
import urllib.request

import pytest

from gofer import Group, cancel_scope, fork, go, gosched, timeout

from shared import error_of, in_thread
from shared.scopes import until_though_cancelled

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

MANY = 30


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
    half = len(BIG) // 2
    assert os.write(w, BIG[:half]) == half
    assert os.writev(w, [b"", BIG[half:-3], memoryview(BIG)[-3:]]) == len(BIG) - half
    os.close(w)
    assert reader.join() == BIG
    os.close(r)


def test_random_cancellation_loses_nothing(pair, rng):
    """Each frame is received once, whole, and in order."""
    a, b = pair
    seen = []

    def receive():
        seen.append(int.from_bytes(a.recv(4, socket.MSG_WAITALL), "big"))

    receiver = fork(until_though_cancelled, lambda: len(seen) >= 500, receive, rng)
    for n in range(500):
        b.sendall(n.to_bytes(4, "big"))
        if rng.random() < 0.5:
            gosched()
    receiver.join()
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
