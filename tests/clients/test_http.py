"""requests, urllib3, httpx and http.client against http.server; both sides in goroutines."""

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Callable
from typing import NamedTuple

import pytest

from gofer import go

from shared import calls
from shared.certificates import certificate

requests = pytest.importorskip("requests")
urllib3 = pytest.importorskip("urllib3")
httpx = pytest.importorskip("httpx")

CONNECTIONS = 20
PADDING = "x" * 3000

# --- the server ---------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/wait"):
            with self.server.arrived:
                self.server.waiting += 1
                self.server.arrived.wait_for(lambda: self.server.released)
        self.reply(self.path)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.reply(body.decode())

    def reply(self, text):
        body = f"{text} {PADDING}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1000

    def __init__(self, context):
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = context
        self.arrived = threading.Condition()
        self.waiting, self.released = 0, False
        self.connections = set()

    @property
    def url(self):
        return f"http{'s' if self.context else ''}://localhost:{self.server_port}"

    def process_request(self, request, client_address):
        go(self.process_request_thread, request, client_address)

    def finish_request(self, request, client_address):
        self.connections.add(request)
        try:
            secure = self.context and self.context.wrap_socket(request, server_side=True)
            super().finish_request(secure or request, client_address)
        except (OSError, ValueError):
            pass  # the client has been called off
        finally:
            self.connections.discard(request)

    def hang_up(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def release(self):
        with self.arrived:
            self.released = True
            self.arrived.notify_all()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def authority(certificates):
    return str(certificates[1])


@pytest.fixture(params=["http", "https"])
def server(request, certificates, until):
    context = None
    if request.param == "https":
        key, public = certificates
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(public, key)
    with Server(context) as it:
        serving = go(it.serve_forever, 0.01)
        yield it
        it.hang_up()
        until(lambda: not it.connections)
        it.shutdown()
        serving.join()


# --- the clients --------------------------------------------------------------------------------


class Client(NamedTuple):
    get: Callable[[str], str]
    post: Callable[[str, str], str]
    at_rest: Callable[[], bool]  # no connection is in use, and none is missing
    close: Callable[[], None]


def of_requests(authority, connections, block):
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(1, connections, pool_block=block)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.trust_env = False
    session.verify = authority
    return Client(
        lambda url: session.get(url).text,
        lambda url, text: session.post(url, data=text.encode()).text,
        lambda: pools_are_full(adapter.poolmanager, connections),
        session.close,
    )


def of_urllib3(authority, connections, block):
    trusting = ssl.create_default_context(cafile=authority)
    manager = urllib3.PoolManager(maxsize=connections, block=block, ssl_context=trusting)
    return Client(
        lambda url: manager.request("GET", url).data.decode(),
        lambda url, text: manager.request("POST", url, body=text.encode()).data.decode(),
        lambda: pools_are_full(manager, connections),
        manager.clear,
    )


def of_httpx(authority, connections, block):
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    trusting = ssl.create_default_context(cafile=authority)
    client = httpx.Client(verify=trusting, limits=limits, timeout=None, trust_env=False)
    pool = client._transport._pool

    def call(method, url, **more):
        while True:
            try:
                return client.request(method, url, **more).text
            except TypeError as error:
                # Free-threaded, httpcore asks when a connection expires and compares, while
                # another thread takes it into use: None by then.
                if "instances of 'float' and 'NoneType'" not in str(error):
                    raise

    return Client(
        lambda url: call("GET", url),
        lambda url, text: call("POST", url, content=text.encode()),
        lambda: not pool._requests and all(c.is_idle() or c.is_closed() for c in pool.connections),
        client.close,
    )


def pools_are_full(manager, connections):
    keys = manager.pools.keys()  # it can not be iterated over
    return all(manager.pools[key].pool.qsize() == connections for key in keys)


MAKERS = [of_requests, of_urllib3, of_httpx]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__.removeprefix("of_"))
def connect(request, authority):
    """connect(n): a client that keeps n connections; block: it never has more, calls wait."""
    clients = []

    def connect(connections, *, block):
        clients.append(request.param(authority, connections, block))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


# --- the tests ----------------------------------------------------------------------------------


def test_all_at_once(server, connect):
    client = connect(CONNECTIONS, block=True)

    def call(n):
        assert client.get(f"{server.url}/{n}") == f"/{n} {PADDING}"
        text = f"{n} " * 1000
        assert client.post(server.url, text) == f"{text} {PADDING}"

    calls.all_at_once(call)
    assert client.at_rest()
    assert len(server.connections) <= CONNECTIONS


def test_all_waiting(server, connect, one_worker):
    client = connect(calls.MANY, block=True)

    def call(n):
        assert client.get(f"{server.url}/wait/{n}") == f"/wait/{n} {PADDING}"

    calls.all_waiting(call, calls.MANY, lambda: server.waiting, server.release)
    assert client.at_rest()


def test_called_off(server, connect, rng, until):
    # With block=True a call of urllib3 that is called off while it waits for a connection returns
    # one to the pool, which it has not had.
    client = connect(calls.TOGETHER, block=False)

    def call(n):
        assert client.get(f"{server.url}/{n}") == f"/{n} {PADDING}"

    calls.CallingOff(rng)(call)
    assert client.at_rest()
    calls.all_at_once(call, calls.TOGETHER)
    assert client.at_rest()
    until(lambda: len(server.connections) <= calls.TOGETHER)
    client.close()
    until(lambda: not server.connections)
