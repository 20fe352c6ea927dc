"""requests, urllib3, httpx and http.client against http.server; both sides in goroutines."""

import ssl
from collections.abc import Callable
from typing import NamedTuple

import pytest

from shared import calls
from shared.http_server import PADDING

requests = pytest.importorskip("requests")
urllib3 = pytest.importorskip("urllib3")
httpx = pytest.importorskip("httpx")

CONNECTIONS = 20

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


def test_all_at_once(http_server, connect):
    client = connect(CONNECTIONS, block=True)

    def call(n):
        assert client.get(f"{http_server.url}/{n}") == f"/{n} {PADDING}"
        text = f"{n} " * 1000
        assert client.post(http_server.url, text) == f"{text} {PADDING}"

    calls.all_at_once(call)
    assert client.at_rest()
    assert len(http_server.connections) <= CONNECTIONS


def test_all_waiting(http_server, connect, one_worker):
    client = connect(calls.MANY, block=True)

    def call(n):
        assert client.get(f"{http_server.url}/wait/{n}") == f"/wait/{n} {PADDING}"

    calls.all_waiting(call, calls.MANY, lambda: http_server.waiting, http_server.release)
    assert client.at_rest()


def test_called_off(http_server, connect, rng, until):
    # With block=True a call of urllib3 that is called off while it waits for a connection returns
    # one to the pool, which it has not had.
    client = connect(calls.TOGETHER, block=False)

    def call(n):
        assert client.get(f"{http_server.url}/{n}") == f"/{n} {PADDING}"

    calls.CallingOff(rng)(call)
    assert client.at_rest()
    calls.all_at_once(call, calls.TOGETHER)
    assert client.at_rest()
    until(lambda: len(http_server.connections) <= calls.TOGETHER)
    client.close()
    until(lambda: not http_server.connections)
