"""grpcio, whose calls are made on threads, against its own server."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gofer import patch

from shared import calls

grpc = pytest.importorskip("grpc")

MANY = 100
PATH = "/test/"


class Server(grpc.GenericRpcHandler):
    """`reverse` answers when `gate` is open, `count` with as many messages as it is told."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = 0

    def service(self, details):
        methods = {
            "reverse": grpc.unary_unary_rpc_method_handler(self.reverse),
            "count": grpc.unary_stream_rpc_method_handler(self.count),
            "join": grpc.stream_unary_rpc_method_handler(self.join),
        }
        return methods.get(details.method.removeprefix(PATH))

    def reverse(self, request, context):
        self.waiting += 1
        self.gate.wait()
        self.waiting -= 1
        return request[::-1]

    def count(self, request, context):
        for n in range(int(request)):
            yield b"%d" % n

    def join(self, requests, context):
        return b" ".join(requests)


@pytest.fixture
def offloaded():
    patch.offload("grpc")


@pytest.fixture
def server():
    handler = Server()
    threads = ThreadPoolExecutor(MANY + 10)
    server = grpc.server(threads)
    server.add_generic_rpc_handlers((handler,))
    handler.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler
    server.stop(None).wait()
    threads.shutdown()


@pytest.fixture
def channel(offloaded, server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


def check(channel, n):
    text = b"text %d" % n
    assert channel.unary_unary(f"{PATH}reverse")(text) == text[::-1]
    parts = [b"%d" % k for k in range(n % 10)]
    assert list(channel.unary_stream(f"{PATH}count")(b"%d" % len(parts))) == parts
    assert channel.stream_unary(f"{PATH}join")(iter(parts)) == b" ".join(parts)


def test_all_at_once(channel):
    calls.all_at_once(lambda n: check(channel, n))


def test_all_waiting(channel, server, one_worker):
    server.gate.clear()
    reverse = channel.unary_unary(f"{PATH}reverse")

    def call(n):
        assert reverse(b"%04d" % n) == (b"%04d" % n)[::-1]

    calls.all_waiting(call, MANY, lambda: server.waiting, server.gate.set)


def test_called_off(channel, rng):
    calls.CallingOff(rng)(lambda n: check(channel, n))
    calls.all_at_once(lambda n: check(channel, n))
