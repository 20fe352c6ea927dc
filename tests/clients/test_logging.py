"""logging from many goroutines: into a file, over a socket, through a queue."""

import logging
import logging.handlers
import pickle
import queue
import socketserver
import struct
from collections import Counter

import pytest

from gofer import go

from shared import calls

RECORDS = 10


class Receiver(socketserver.StreamRequestHandler):
    """Takes what a SocketHandler sends."""

    def handle(self):
        while head := self.rfile.read(4):
            record = pickle.loads(self.rfile.read(struct.unpack(">L", head)[0]))
            self.server.seen.append(logging.makeLogRecord(record).getMessage())


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 1000

    def process_request(self, request, client_address):
        go(self.process_request_thread, request, client_address)


@pytest.fixture
def receiver():
    with Server(("127.0.0.1", 0), Receiver) as server:
        server.seen = []
        serving = go(server.serve_forever, 0.01)
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def logger():
    logger = logging.Logger("of the test", logging.INFO)
    yield logger
    for handler in logger.handlers:
        handler.close()


def log(logger):
    def call(n):
        for k in range(RECORDS):
            logger.info("record %d of %d: %s", k, n, "x" * (n % 1000))

    return call


def expected(many):
    return Counter(
        f"record {k} of {n}: {'x' * (n % 1000)}" for n in range(many) for k in range(RECORDS)
    )


def test_into_a_file(logger, tmp_path):
    path = tmp_path / "log"
    logger.addHandler(logging.FileHandler(path))
    calls.all_at_once(log(logger))
    assert Counter(path.read_text().splitlines()) == expected(calls.MANY)


def test_over_a_socket(logger, receiver, until):
    logger.addHandler(logging.handlers.SocketHandler(*receiver.server_address))
    calls.all_at_once(log(logger))
    until(lambda: len(receiver.seen) == RECORDS * calls.MANY)
    assert Counter(receiver.seen) == expected(calls.MANY)


def test_through_a_queue(logger, receiver, until):
    """A listener, a thread, sends what goroutines have put."""
    records = queue.Queue()
    handler = logging.handlers.SocketHandler(*receiver.server_address)
    listener = logging.handlers.QueueListener(records, handler)
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener.start()
    calls.all_at_once(log(logger))
    listener.stop()
    until(lambda: len(receiver.seen) == RECORDS * calls.MANY)
    assert Counter(receiver.seen) == expected(calls.MANY)
    handler.close()


# --- datagrams, for which there is not always room ----------------------------------------------


class Datagrams(socketserver.UnixDatagramServer):
    def process_request(self, request, client_address):
        self.seen.append(request[0].decode().rstrip("\0"))


@pytest.fixture
def datagrams(tmp_path):
    with Datagrams(str(tmp_path / "socket"), None) as server:
        server.seen = []
        serving = go(server.serve_forever, 0.01)
        yield server
        server.shutdown()
        serving.join()


def test_called_off(logger, datagrams, rng, until):
    """Each record arrives once, or not at all when it was called off."""
    handler = logging.handlers.SysLogHandler(datagrams.server_address)
    logger.addHandler(handler)
    calls.CallingOff(rng)(log(logger))
    logger.info("the last one")
    until(lambda: any("the last one" in line for line in datagrams.seen))
    seen = Counter(line.partition(">")[2] for line in datagrams.seen)
    assert set(seen.values()) == {1}
    del seen["the last one"]
    for line in seen:
        k, n = (int(word) for word in line.split(":")[0].split()[1::2])
        assert line == f"record {k} of {n}: {'x' * (n % 1000)}"
