"""websockets, its client and its server, both of them the kind without asyncio.

They start threads for each connection, which share it with the goroutine of the client.
"""

import pytest

from gofer import go, shield

from shared import calls

pytest.importorskip("websockets")
from websockets.sync.client import connect
from websockets.sync.server import serve

MANY = 100


class Echo:
    """Replies to each message; to "wait" with what is told then to all that have asked."""

    def __init__(self):
        self.waiting = []
        self.connections = set()

    def __call__(self, connection):
        self.connections.add(connection)
        try:
            for message in connection:
                if message == "wait":
                    self.waiting.append(connection)
                else:
                    connection.send(message)
        finally:
            self.connections.discard(connection)

    def release(self):
        for connection in self.waiting:
            connection.send("released")


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def url(echo):
    with serve(echo, "127.0.0.1", 0) as server:
        serving = go(server.serve_forever)
        yield "ws://{}:{}".format(*server.socket.getsockname())
        server.shutdown()
        serving.join()


def test_all_at_once(url, echo, until):
    def call(n):
        with connect(url) as connection:
            for size in 1, 1000, 100_000:
                message = f"{n} " * size
                connection.send(message)
                assert connection.recv() == message
            connection.send([b"%d" % n, b" in ", b"fragments"])
            assert connection.recv() == b"%d in fragments" % n

    calls.all_at_once(call, MANY)
    until(lambda: not echo.connections)


def test_all_waiting(url, echo, one_worker, until):
    def call(n):
        with connect(url) as connection:
            connection.send("wait")
            assert connection.recv() == "released"

    calls.all_waiting(call, MANY, lambda: len(echo.waiting), echo.release)
    until(lambda: not echo.connections)


def test_called_off(url, echo, rng, until):
    def call(n):
        with shield():  # when that is called off the library forgets the socket, and a thread
            connection = connect(url)
        with connection:
            for k in range(20):
                connection.send(f"message {n} {k}")
                assert connection.recv() == f"message {n} {k}"

    calls.CallingOff(rng)(call)
    calls.all_at_once(call, calls.TOGETHER)
    until(lambda: not echo.connections)
