"""The servers of socketserver, over TCP, UDP and Unix sockets; both sides in goroutines."""

import socket
import socketserver

import pytest

from gofer import go

from shared import calls
from shared.goroutine_servers import InGoroutines

# --- the servers --------------------------------------------------------------------------------


class Stream(socketserver.StreamRequestHandler):
    """Replies to each line; to "wait" when it is told to."""

    def handle(self):
        for line in self.rfile:
            if line.startswith(b"wait"):
                self.server.waiting.append(self.wfile)
            else:
                self.wfile.write(line.upper())


class Datagram(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class Server(InGoroutines):
    """`release` lets every request that waits go on."""

    def __init__(self, *args):
        super().__init__(*args)
        self.waiting = []

    def release(self):
        for file in self.waiting:
            file.write(b"released\n")


class TCP(Server, socketserver.TCPServer):
    address = "127.0.0.1", 0


class Unix(Server, socketserver.UnixStreamServer):
    pass


class UDP(Server, socketserver.UDPServer):
    address = "127.0.0.1", 0


def serve(server, until):
    with server:
        serving = go(server.serve_forever, 0.01)
        yield server
        until(lambda: not server.requests)
        server.shutdown()
        serving.join()


@pytest.fixture(params=[TCP, Unix])
def server(request, tmp_path, until):
    address = getattr(request.param, "address", str(tmp_path / "socket"))
    yield from serve(request.param(address, Stream), until)


# --- streams ------------------------------------------------------------------------------------


class Client:
    def __init__(self, server):
        self.sock = socket.socket(server.address_family)
        self.sock.connect(server.server_address)
        self.file = self.sock.makefile("rwb")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.sock.close()
        self.file.close()

    def ask(self, line):
        self.file.write(line + b"\n")
        self.file.flush()
        return self.file.readline().rstrip(b"\n")


def test_all_at_once(server):
    def call(n):
        with Client(server) as client:
            for size in 1, 100, 10_000:
                assert client.ask(b"line %d " % n * size) == b"LINE %d " % n * size

    calls.all_at_once(call)


def test_all_waiting(server, one_worker):
    def call(n):
        with Client(server) as client:
            assert client.ask(b"wait") == b"released"

    calls.all_waiting(call, calls.MANY, lambda: len(server.waiting), server.release)


def test_called_off(server, rng):
    def call(n):
        with Client(server) as client:
            for k in range(10):
                assert client.ask(b"line %d %d " % (n, k) * 100) == b"LINE %d %d " % (n, k) * 100

    calls.CallingOff(rng)(call)
    calls.all_at_once(call)


# --- datagrams ----------------------------------------------------------------------------------


@pytest.fixture
def udp(until):
    yield from serve(UDP(UDP.address, Datagram), until)


def exchange(udp, n):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(udp.server_address)
        for k in range(5):
            sock.send(b"datagram %d %d" % (n, k))
            while sock.recv(1000) != b"DATAGRAM %d %d" % (n, k):
                pass  # a late reply to one that was called off and had the same port


def test_datagrams(udp):
    calls.all_at_once(lambda n: exchange(udp, n), calls.TOGETHER)  # its buffer has room for so many


def test_datagrams_called_off(udp, rng):
    calls.CallingOff(rng)(lambda n: exchange(udp, n))
    calls.all_at_once(lambda n: exchange(udp, n), calls.TOGETHER)
