"""redis-py against Redis."""

import contextlib

import pytest

from shared import calls, servers

redis = pytest.importorskip("redis")

CONNECTIONS = 20


@pytest.fixture(scope="module")
def port():
    program, port = servers.needed("redis-server", "redis-server"), servers.free_port()
    quiet = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--maxclients", "2000"]
    with servers.serving(port, program, "--port", port, *quiet):
        yield port


@pytest.fixture
def connect(port):
    """connect(n): a client with a pool of n connections, for which calls wait."""
    with contextlib.ExitStack() as stack:

        def connect(connections):
            pool = redis.BlockingConnectionPool(
                max_connections=connections, timeout=None, host="127.0.0.1", port=port
            )
            return stack.enter_context(redis.Redis.from_pool(pool))

        with connect(1) as client:
            client.flushall()
        yield connect


def at_rest(client):
    """No connection is in use, and none is missing."""
    pool = client.connection_pool
    return pool.pool.qsize() == pool.max_connections


def others(client):
    """How many connections the server has, but the one that asks."""
    return len(client.client_list()) - 1


def test_all_at_once(connect):
    client = connect(CONNECTIONS)

    def call(n):
        assert client.set(f"key {n}", f"value {n}" * 100)
        assert client.get(f"key {n}") == f"value {n}".encode() * 100
        with client.pipeline() as pipe:
            for k in range(10):
                pipe.hset(f"hash {n}", k, n * k)
            pipe.hgetall(f"hash {n}")
            assert pipe.execute()[-1] == {b"%d" % k: b"%d" % (n * k) for k in range(10)}

    calls.all_at_once(call)
    assert at_rest(client)
    assert client.dbsize() == 2 * calls.MANY


def test_all_waiting(connect, one_worker):
    client, other = connect(calls.MANY), connect(1)

    def call(n):
        assert client.blpop(f"list {n}") == (f"list {n}".encode(), f"item {n}".encode())

    def waiting():
        return int(other.info("clients")["blocked_clients"])

    def release():
        for n in range(calls.MANY):
            other.rpush(f"list {n}", f"item {n}")

    calls.all_waiting(call, calls.MANY, waiting, release)
    assert at_rest(client)


def test_messages(connect):
    client = connect(2 * calls.MANY)

    def call(n):
        with client.pubsub() as channel:
            channel.subscribe(f"channel {n}")
            assert channel.get_message(timeout=None)["type"] == "subscribe"
            assert client.publish(f"channel {n}", f"message {n}") == 1
            assert channel.get_message(timeout=None)["data"] == f"message {n}".encode()

    calls.all_at_once(call)
    assert at_rest(client)


def test_called_off(connect, rng, until):
    client, other = connect(CONNECTIONS), connect(1)

    def call(n):
        key = f"key {n}"
        with client.pipeline() as pipe:
            pipe.set(key, n)
            pipe.incrby(key, 1)
            pipe.get(key)
            assert pipe.execute() == [True, n + 1, b"%d" % (n + 1)]
        assert client.echo(key) == key.encode()
        assert client.delete(key) == 1

    calls.CallingOff(rng)(call)
    assert at_rest(client)
    calls.all_at_once(call)
    assert at_rest(client)
    until(lambda: others(other) <= CONNECTIONS)
    client.close()
    until(lambda: others(other) == 0)
