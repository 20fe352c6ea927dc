"""TLS in goroutines: handshakes, data, the end, time-outs, cancellation, threads."""

import socket
import threading

import pytest

from gofer import Cancelled, Group, cancel_scope, fork, gosched, timeout

from shared.canary import beats_under
from shared.certificates import certificate
from shared.scopes import until_though_cancelled

ssl = pytest.importorskip("ssl")

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

BIG = bytes(range(256)) * 3000


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    key, public = certificate(tmp_path_factory.mktemp("tls"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(public, key)
    return server, ssl.create_default_context(cafile=public)


class Pair:
    """The two ends of a connection; not shaken hands yet."""

    def __init__(self, contexts, limit=None):
        a, b = socket.socketpair()
        a.settimeout(limit)
        b.settimeout(limit)
        server, client = contexts
        self.server = server.wrap_socket(a, server_side=True, do_handshake_on_connect=False)
        self.client = client.wrap_socket(
            b, server_hostname="localhost", do_handshake_on_connect=False
        )

    def shake(self):
        task = fork(self.server.do_handshake)
        self.client.do_handshake()
        task.join()
        return self

    def close(self):
        self.server.close()
        self.client.close()


@pytest.fixture(params=[None, 1000], ids=["without limit", "with a limit"])
def pair(request, contexts):
    it = Pair(contexts, request.param)
    yield it
    it.close()


def read(sock, n):
    data = bytearray()
    while len(data) < n:
        data += sock.recv(100_000)
    return bytes(data)


# --- one that fails -----------------------------------------------------------------------------


def test_the_failure_of_one_is_not_told_to_another(pair, contexts, parked):
    other = Pair(contexts).shake()
    pair.shake()
    waiting = fork(other.client.recv, 10)
    parked(waiting)
    pair.client.close()
    with pytest.raises(OSError):  # a broken pipe, a reset or the end, as the version has it
        while True:
            pair.server.sendall(BIG)
    late = fork(other.server.recv, 10)
    parked(late)
    other.server.sendall(b"hello")
    other.client.sendall(b"world")
    assert (waiting.join(), late.join()) == (b"hello", b"world")
    other.close()


# --- waiting ------------------------------------------------------------------------------------


def test_the_handshake_parks(pair, one_worker):
    tasks = []
    beats_under(pair.client.do_handshake, lambda: tasks.append(fork(pair.server.do_handshake)))
    tasks[0].join()


def test_reading_parks(pair, one_worker):
    pair.shake()
    assert beats_under(lambda: pair.client.recv(10), lambda: pair.server.send(b"hello")) == b"hello"


def test_writing_parks(pair, one_worker):
    pair.shake()
    readers = []
    beats_under(
        lambda: pair.client.sendall(BIG * 3),
        lambda: readers.append(fork(read, pair.server, 3 * len(BIG))),
    )
    assert readers[0].join() == BIG * 3


def test_the_end_parks(pair, one_worker):
    pair.shake()
    tasks = []
    beats_under(pair.client.unwrap, lambda: tasks.append(fork(pair.server.unwrap)))
    tasks[0].join()


def test_what_is_below_goes_on_in_the_clear(pair):
    pair.shake()
    task = fork(pair.server.unwrap)
    client = pair.client.unwrap()
    server = task.join()
    assert client is pair.client
    assert server is pair.server
    task = fork(server.recv, 10)
    client.sendall(b"in clear")
    assert task.join() == b"in clear"


def test_both_ways_at_once(pair):
    pair.shake()

    def echo():
        for _ in range(20):
            pair.server.sendall(read(pair.server, 1000))

    task = fork(echo)
    for n in range(20):
        pair.client.sendall(bytes([n]) * 1000)
        assert read(pair.client, 1000) == bytes([n]) * 1000
    task.join()


def test_closing_wakes_who_waits(pair, parked):
    pair.shake()
    waiter = fork(pair.client.recv, 1)
    parked(waiter)
    pair.client.close()
    with pytest.raises((OSError, ValueError)):
        waiter.join()


# --- threads ------------------------------------------------------------------------------------


def test_a_thread_on_the_other_side(pair):
    def serve():
        pair.server.do_handshake()
        pair.server.sendall(read(pair.server, len(BIG)))
        pair.server.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    pair.client.do_handshake()
    pair.client.sendall(BIG)
    assert read(pair.client, len(BIG)) == BIG
    pair.client.unwrap()
    thread.join()


def test_a_thread_goes_on_where_a_goroutine_was(pair):
    """It waits in the system, also where a goroutine has made the descriptor non-blocking."""
    pair.shake()
    got = []
    thread = threading.Thread(target=lambda: got.append(pair.client.recv(10)))
    thread.start()
    for _ in range(20):
        gosched()
    assert not got
    pair.server.send(b"hello")
    thread.join()
    assert got == [b"hello"]


# --- time-outs and cancellation -------------------------------------------------------------------


def test_its_own_timeout(contexts):
    pair = Pair(contexts, 0.02)
    with pytest.raises(TimeoutError, match="handshake operation timed out"):
        pair.client.do_handshake()
    pair.close()
    pair = Pair(contexts, 100).shake()
    pair.client.settimeout(0.02)
    with pytest.raises(TimeoutError, match="read operation timed out"):
        pair.client.recv(1)
    with pytest.raises(TimeoutError, match="write operation timed out"):
        pair.client.sendall(BIG * 10)
    pair.close()


def test_non_blocking_ones_are_left_alone(contexts):
    pair = Pair(contexts, 100).shake()
    pair.client.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.recv(1)
    pair.server.send(b"hello")
    assert read(pair.client, 5) == b"hello"
    pair.close()


def test_cancelled(pair):
    pair.shake()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            with timeout(0.01):
                pair.client.recv(10)
    pair.server.send(b"hello")
    assert pair.client.recv(10) == b"hello"


def test_random_cancellation_loses_nothing(pair, rng):
    pair.shake()
    seen, sent = bytearray(), bytearray()

    def receive():
        seen.extend(pair.client.recv(7))

    receiver = fork(until_though_cancelled, lambda: len(seen) >= 2000, receive, rng)
    for n in range(500):
        part = n.to_bytes(4, "big")
        pair.server.sendall(part)
        sent += part
        if rng.random() < 0.5:
            gosched()
    receiver.join()
    assert seen == sent


def test_errors(contexts):
    pair = Pair(contexts, 100)
    client = ssl.create_default_context()  # it knows nothing of the certificate
    a, b = socket.socketpair()
    server = contexts[0].wrap_socket(a, server_side=True, do_handshake_on_connect=False)
    task = fork(server.do_handshake)
    with pytest.raises(ssl.SSLCertVerificationError):
        client.wrap_socket(b, server_hostname="localhost")
    with pytest.raises((ssl.SSLError, OSError)):
        task.join()
    for it in (server, b, pair):
        it.close()


# --- many ---------------------------------------------------------------------------------------


def test_many_connections(contexts):
    listener = socket.create_server(("127.0.0.1", 0))
    server, client = contexts

    def serve(n):
        for _ in range(n):
            sock, _ = listener.accept()
            group.go(answer, sock)

    def answer(sock):
        with server.wrap_socket(sock, server_side=True) as tls:
            while data := tls.recv(100_000):
                tls.sendall(data)

    def call(n):
        with socket.create_connection(
            listener.getsockname(), timeout=100 if n % 2 else None
        ) as sock:
            with client.wrap_socket(sock, server_hostname="localhost") as tls:
                for k in range(5):
                    message = bytes([n, k]) * 5000
                    tls.sendall(message)
                    assert read(tls, len(message)) == message

    with Group() as group:
        group.go(serve, 30)
        for n in range(30):
            group.go(call, n)
    listener.close()


def test_memory_bios_are_left_alone(contexts):
    _, client = contexts
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    assert outgoing.read()
    with cancel_scope() as scope:
        scope.cancel()
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        with pytest.raises(Cancelled):
            gosched()
