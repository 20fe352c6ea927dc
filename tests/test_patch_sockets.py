"""Sockets: MSG_WAITALL, addresses with names, and descriptors that leave their socket."""

import os
import socket
import threading

import pytest

from gofer import Cancelled, Chan, Group, cancel_scope, fork, gosched, timeout

from shared import in_thread
from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

BIG = 3_000_000
ALL = socket.MSG_WAITALL


# --- MSG_WAITALL --------------------------------------------------------------------------------


def recv(sock, n):
    return sock.recv(n, ALL)


def recv_into(sock, n):
    buffer = bytearray(n)
    return bytes(buffer[: sock.recv_into(buffer, 0, ALL)])


def recv_into_by_name(sock, n):
    buffer = bytearray(n + 5)
    return bytes(buffer[: sock.recv_into(buffer, nbytes=n, flags=ALL)])


WAYS = [recv, recv_into, recv_into_by_name]


def in_pieces(sock, data, size=1000):
    for at in range(0, len(data), size):
        sock.sendall(data[at : at + size])
        gosched()


@pytest.mark.parametrize("way", WAYS)
def test_waits_for_all(one_worker, pair, way):
    a, b = pair
    b.send(b"012")
    assert beats_under(lambda: way(a, 10), lambda: b.sendall(b"3456789rest")) == b"0123456789"
    assert a.recv(100) == b"rest"


@pytest.mark.parametrize("way", WAYS)
def test_in_pieces_and_the_end(one_worker, pair, way):
    a, b = pair
    data = os.urandom(BIG)

    def send():
        in_pieces(b, data, 100_000)
        b.close()

    sending = fork(send)
    assert way(a, BIG - 10) == data[:-10]
    assert way(a, 100) == data[-10:]
    assert way(a, 100) == b""
    sending.join()


@pytest.mark.parametrize("way", WAYS)
def test_in_a_thread_after_a_goroutine_has_used_it(pair, way):
    a, b = pair
    b.send(b"x")
    assert a.recv(1) == b"x"
    got = []
    thread = threading.Thread(target=lambda: got.append(way(a, 10)))
    thread.start()
    in_pieces(b, b"0123456789", 3)
    thread.join()
    assert got == [b"0123456789"]


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_in_the_middle_nothing_is_lost(one_worker, pair, way):
    a, b = pair
    b.send(b"01234")
    with cancel_scope() as scope:
        got = beats_under(lambda: way(a, 10), scope.cancel)
        assert got == b"01234"
        with pytest.raises(Cancelled):
            way(a, 10)
        raise Cancelled
    b.send(b"56789")
    assert way(a, 5) == b"56789"


def test_others_are_as_they_were(pair):
    a, b = pair
    b.send(b"0123")
    assert a.recv(10, socket.MSG_PEEK | ALL) == b"0123"
    a.settimeout(10)
    assert a.recv(10, ALL) == b"0123"  # with a time-out the system has never waited for all
    a.setblocking(False)
    with pytest.raises(BlockingIOError):
        a.recv(10, ALL)
    a.setblocking(True)
    for wrong in (lambda: a.recv(-1, ALL), lambda: a.recv_into(bytearray(5), 10, ALL)):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(TypeError):
        a.recv_into(b"constant", 0, ALL)


def test_datagrams_come_one_at_a_time():
    a, b = socket.socketpair(type=socket.SOCK_DGRAM)
    with a, b:
        b.send(b"one")
        b.send(b"two")
        assert a.recv(10, ALL) == b"one"
        assert a.recv(10, ALL) == b"two"


def test_send_that_is_cancelled_says_how_much_has_gone(one_worker, pair):
    a, b = pair
    with cancel_scope() as scope:
        sent = beats_under(lambda: a.send(bytes(BIG)), scope.cancel)
        assert 0 < sent < BIG
        with pytest.raises(Cancelled):
            a.sendall(bytes(BIG))
        raise Cancelled
    a.close()
    received = 0
    while data := b.recv(BIG):
        received += len(data)
    assert received >= sent


# --- names --------------------------------------------------------------------------------------


@pytest.fixture
def resolver(monkeypatch):
    """Asks the test: (the name, what to answer)."""
    asked = Chan()

    def getaddrinfo(host, port, family=0, *args):
        answer = Chan()
        asked.send((host, answer))
        return [(family, 0, 0, "", (answer.recv(), port))]

    monkeypatch.setattr("gofer.stdlib._socket.getaddrinfo", getaddrinfo)
    return asked


def answer(resolver, name, number):
    host, reply = resolver.recv()
    assert host == name
    reply.send(number)


@pytest.mark.parametrize("flags", [(), (0,)])
def test_sendto(one_worker, resolver, flags):
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        b.bind(("127.0.0.1", 0))
        port = b.getsockname()[1]
        sent = beats_under(
            lambda: a.sendto(b"hello", *flags, ("there.example", port)),
            lambda: answer(resolver, "there.example", "127.0.0.1"),
        )
        assert sent == 5
        assert b.recv(10) == b"hello"
        assert a.sendto(b"again", *flags, ("127.0.0.1", port)) == 5
        assert b.recv(10) == b"again"
        a.setblocking(False)
        sent = beats_under(
            lambda: a.sendto(b"at once", *flags, ("there.example", port)),
            lambda: answer(resolver, "there.example", "127.0.0.1"),
        )
        assert b.recv(10) == b"at once"


@pytest.mark.parametrize("limit", [None, 100, 0])
def test_bind_and_connect(one_worker, resolver, limit):
    with socket.socket() as server, socket.socket() as client:
        beats_under(
            lambda: server.bind(("here.example", 0)),
            lambda: answer(resolver, "here.example", "127.0.0.1"),
        )
        server.listen()
        client.settimeout(limit)
        code = beats_under(
            lambda: client.connect_ex(("here.example", server.getsockname()[1])),
            lambda: answer(resolver, "here.example", "127.0.0.1"),
        )
        assert (code == 0) is (limit != 0)
        server.accept()[0].close()


def test_cancelled_while_it_asks(one_worker, resolver):
    with socket.socket(type=socket.SOCK_DGRAM) as a:
        with pytest.raises(TimeoutError), timeout(0.01):
            a.sendto(b"hello", ("there.example", 9))


def test_names_that_are_none():
    with socket.socket(type=socket.SOCK_DGRAM) as a:
        a.bind(("", 0))
        a.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        with socket.socket(type=socket.SOCK_DGRAM) as b:
            with pytest.raises(PermissionError):  # an address, which needs a permission
                b.connect(("<broadcast>", 9))
        with pytest.raises(TypeError):
            a.sendto(b"hello")
        with pytest.raises(TypeError):
            a.sendto(b"hello", "localhost")
        with pytest.raises(TypeError):
            a.bind()
    with socket.socket(socket.AF_UNIX) as c, pytest.raises(FileNotFoundError):
        c.connect("/there/is/none")


def test_localhost():
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        b.bind(("localhost", 0))
        assert a.sendto(b"hello", ("localhost", b.getsockname()[1])) == 5
        assert b.recvfrom(10)[0] == b"hello"
        in_thread(a.sendto, b"again", ("localhost", b.getsockname()[1]))
        assert b.recv(10) == b"again"


def test_many_ask_at_once():
    with socket.socket(type=socket.SOCK_DGRAM) as b:
        b.bind(("localhost", 0))

        def send(n):
            with socket.socket(type=socket.SOCK_DGRAM) as a:
                a.sendto(b"%d" % n, ("localhost", b.getsockname()[1]))

        with Group() as g:
            for n in range(20):
                g.go(send, n)
            assert sorted(int(b.recv(10)) for _ in range(20)) == list(range(20))


# --- leaving the socket -------------------------------------------------------------------------


def test_a_descriptor_that_is_detached_blocks_again(one_worker, pair):
    a, b = pair
    b.send(b"x")
    assert a.recv(1) == b"x"
    fd = a.detach()
    try:
        assert os.get_blocking(fd)
        assert beats_under(lambda: os.read(fd, 10), lambda: b.send(b"hello")) == b"hello"
    finally:
        os.close(fd)


def test_one_with_a_time_out_does_not(pair):
    a, _ = pair
    a.settimeout(5)
    fd = a.detach()
    try:
        assert not os.get_blocking(fd)
    finally:
        os.close(fd)
