"""HTTP by the clients of asyncio, httpx and aiohttp, awaited by goroutines.

They live on gofer's own loop, which is uvloop's where that is installed.
"""

import ssl
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import pytest

from gofer.aio import await_

from shared import calls
from shared.http_server import PADDING

CONNECTIONS = 20


class Client(NamedTuple):
    get: Callable[[str], Coroutine[Any, Any, str]]
    post: Callable[[str, str], Coroutine[Any, Any, str]]
    at_rest: Callable[[], bool]  # no connection is in use
    close: Callable[[], Coroutine[Any, Any, None]]
    forgets: bool  # the connections of calls that are called off


async def of_httpx(httpx, trusting, connections):
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    client = httpx.AsyncClient(verify=trusting, limits=limits, timeout=None, trust_env=False)
    pool = client._transport._pool

    async def get(url):
        return (await client.get(url)).text

    async def post(url, text):
        return (await client.post(url, content=text.encode())).text

    def at_rest():
        return not pool._requests and all(c.is_idle() or c.is_closed() for c in pool.connections)

    return Client(get, post, at_rest, client.aclose, forgets=True)  # in plain asyncio too


async def of_aiohttp(aiohttp, trusting, connections):
    connector = aiohttp.TCPConnector(limit=connections, ssl=trusting)
    session = aiohttp.ClientSession(connector=connector)

    async def get(url):
        async with session.get(url) as reply:
            return await reply.text()

    async def post(url, text):
        async with session.post(url, data=text.encode()) as reply:
            return await reply.text()

    def at_rest():
        return not connector._acquired

    return Client(get, post, at_rest, session.close, forgets=False)


@pytest.fixture(params=[of_httpx, of_aiohttp], ids=lambda make: make.__name__.removeprefix("of_"))
def connect(request, authority):
    """connect(n): a client that has no more than n connections, for which calls wait."""
    library = pytest.importorskip(request.param.__name__.removeprefix("of_"))
    trusting = ssl.create_default_context(cafile=authority)
    clients = []

    def connect(connections):
        clients.append(await_(request.param(library, trusting, connections)))
        return clients[-1]

    yield connect
    for client in clients:
        await_(client.close())


def test_all_at_once(http_server, connect):
    client = connect(CONNECTIONS)

    def call(n):
        assert await_(client.get(f"{http_server.url}/{n}")) == f"/{n} {PADDING}"
        text = f"{n} " * 1000
        assert await_(client.post(http_server.url, text)) == f"{text} {PADDING}"

    calls.all_at_once(call)
    assert client.at_rest()
    assert len(http_server.connections) <= CONNECTIONS


def test_all_waiting(http_server, connect, one_worker):
    client = connect(calls.MANY)

    def call(n):
        assert await_(client.get(f"{http_server.url}/wait/{n}")) == f"/wait/{n} {PADDING}"

    calls.all_waiting(call, calls.MANY, lambda: http_server.waiting, http_server.release)
    assert client.at_rest()


def test_called_off(http_server, connect, rng, until):
    client = connect(CONNECTIONS)
    if client.forgets:
        client = connect(10 * calls.CALLED_OFF)

    def call(n):
        assert await_(client.get(f"{http_server.url}/{n}")) == f"/{n} {PADDING}"

    calls.CallingOff(rng)(call)
    assert client.at_rest() or client.forgets
    calls.all_at_once(call, calls.TOGETHER)
    assert client.at_rest() or client.forgets
    await_(client.close())
    until(lambda: not http_server.connections)
