"""asyncpg and its pool, by `aio.await_` against PostgreSQL."""

import pytest

from gofer.aio import await_

from shared import calls, postgresql

asyncpg = pytest.importorskip("asyncpg")

MANY = 90
CONNECTIONS = 20


@pytest.fixture(scope="module")
def port():
    with postgresql.serving(max_connections=MANY + CONNECTIONS) as port:
        yield port


@pytest.fixture
def connect(port):
    """connect(n): a pool of n connections, for which calls wait."""
    pools = []

    async def pool(connections):
        return await asyncpg.create_pool(
            host=postgresql.HOST,
            port=port,
            user=postgresql.USER,
            password=postgresql.PASSWORD,
            database=postgresql.DATABASE,
            min_size=0,
            max_size=connections,
        )

    def connect(connections):
        pools.append(await_(pool(connections)))
        return pools[-1]

    yield connect
    for pool in pools:
        await_(pool.close())


def at_rest(pool):
    return pool.get_idle_size() == pool.get_size()


def test_all_at_once(connect):
    pool = connect(CONNECTIONS)
    await_(pool.execute("drop table if exists t"))
    await_(pool.execute("create table t (n int primary key, text text)"))

    def call(n):
        text = f"text {n} " * 100
        await_(pool.execute("insert into t values ($1, $2)", n, text))
        assert await_(pool.fetchval("select text from t where n = $1", n)) == text

    calls.all_at_once(call)
    assert await_(pool.fetchval("select count(*) from t")) == calls.MANY
    assert at_rest(pool)


def test_all_waiting(connect, one_worker):
    pool, other = connect(MANY), connect(2)

    def call(n):
        query = "select $1 + count(pg_advisory_xact_lock_shared(1))"
        assert await_(pool.fetchval(query, n)) == n + 1

    def waiting():
        return await_(other.fetchval("select count(*) from pg_locks where not granted"))

    holder = await_(other.acquire())
    await_(holder.execute("select pg_advisory_lock(1)"))

    def release():
        assert await_(holder.fetchval("select pg_advisory_unlock(1)"))

    calls.all_waiting(call, MANY, waiting, release)
    await_(other.release(holder))
    assert at_rest(pool)


def test_called_off(connect, rng, until):
    pool, other = connect(CONNECTIONS), connect(1)
    await_(other.execute("drop table if exists t"))
    await_(other.execute("create table t (n int primary key, balance bigint)"))
    await_(other.execute("insert into t values (0, 0), (1, 0)"))

    async def move(amount):
        async with pool.acquire() as connection:
            async with connection.transaction():
                add = "update t set balance = balance + $1 where n = $2"
                await connection.execute(add, amount, 0)
                await connection.execute(add, -amount, 1)
            return await connection.fetchval("select $1::int", amount)

    def call(n):
        assert await_(move(n)) == n

    calls.CallingOff(rng)(call)
    until(lambda: at_rest(pool))
    calls.all_at_once(call, 2 * CONNECTIONS)
    assert at_rest(pool)
    assert await_(other.fetchval("select sum(balance) from t")) == 0  # both are changed or none
    until(lambda: await_(other.fetchval(postgresql.OTHERS)) <= CONNECTIONS)
