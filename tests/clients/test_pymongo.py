"""PyMongo against SecantusDB, which speaks MongoDB's protocol."""

import contextlib
import sys
from pathlib import Path

import pytest

from gofer.sync import atomic

from shared import calls, servers

pymongo = pytest.importorskip("pymongo")
monitoring = pytest.importorskip("pymongo.monitoring")
pytest.importorskip("secantus")

MANY = 100
CONNECTIONS = 20


class Connections(monitoring.ConnectionPoolListener):
    """Counts those of one client that are open, and those that are in use."""

    def __init__(self):
        self.open, self.used = atomic.Int(0), atomic.Int(0)

    def connection_created(self, event):
        self.open.add(1)

    def connection_closed(self, event):
        self.open.add(-1)

    def connection_checked_out(self, event):
        self.used.add(1)

    def connection_checked_in(self, event):
        self.used.add(-1)

    def _unused(self, event):
        pass

    pool_created = pool_ready = pool_cleared = pool_closed = _unused
    connection_ready = connection_check_out_started = connection_check_out_failed = _unused


@pytest.fixture(scope="module")
def port():
    beside = Path(sys.executable).parent
    program, port = servers.needed("secantusd-py", "none", beside), servers.free_port()
    with servers.folder(None) as (folder, _):
        storage = ["--storage-path", folder / "data", "--session-max", 2000]
        with servers.serving(port, program, "--port", port, *storage, cwd=folder):
            yield port


@pytest.fixture
def connect(port):
    """connect(n): a client with a pool of n connections, and their count."""
    with contextlib.ExitStack() as stack:

        def connect(connections):
            count = Connections()
            client = pymongo.MongoClient(
                *["127.0.0.1", port],
                directConnection=True,
                maxPoolSize=connections,
                event_listeners=[count],
            )
            return stack.enter_context(client), count

        client, _ = connect(1)
        client.drop_database("tests")
        client.tests.numbers.create_index("n")
        yield connect


def check(numbers, n):
    """One document's life, and a cursor that is read in several pieces."""
    numbers.insert_many([{"n": n, "k": k, "text": f"{n} {k} " * 100} for k in range(10)])
    with numbers.find({"n": n}, batch_size=3, sort=[("k", 1)]) as found:
        assert [one["text"] for one in found] == [f"{n} {k} " * 100 for k in range(10)]
    changed = numbers.find_one_and_update(
        {"n": n, "k": 7}, {"$inc": {"k": 100}}, return_document=True
    )
    assert (changed["n"], changed["k"]) == (n, 107)


def test_all_at_once(connect):
    client, count = connect(CONNECTIONS)
    numbers = client.tests.numbers
    calls.all_at_once(lambda n: check(numbers, n), MANY)
    assert count.used.load() == 0
    assert count.open.load() <= CONNECTIONS
    assert numbers.count_documents({}) == 10 * MANY


def test_all_waiting(connect, one_worker):
    client, count = connect(MANY)
    other, _ = connect(1)
    numbers = client.tests.numbers

    def call(n):
        mine = [{"$match": {"fullDocument.n": n}}]
        with numbers.watch(mine, max_await_time_ms=1000_000) as changes:
            assert next(changes)["fullDocument"]["text"] == f"item {n}"

    def waiting():
        under_way = other.admin.command("currentOp")["inprog"]
        return sum(operation.get("op") == "getMore" for operation in under_way)

    def release():
        other.tests.numbers.insert_many([{"n": n, "text": f"item {n}"} for n in range(MANY)])

    calls.all_waiting(call, MANY, waiting, release)
    assert count.used.load() == 0


def test_called_off(connect, rng, until):
    client, count = connect(CONNECTIONS)
    numbers = client.tests.numbers

    def call(n):
        check(numbers, n)
        assert numbers.delete_many({"n": n}).deleted_count == 10

    calls.CallingOff(rng)(call)
    until(lambda: count.used.load() == 0)
    numbers.delete_many({})
    calls.all_at_once(call, MANY)
    assert count.used.load() == 0
    assert count.open.load() <= CONNECTIONS
    client.close()
    until(lambda: count.open.load() == 0)
