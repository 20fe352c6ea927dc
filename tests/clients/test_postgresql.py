"""pg8000, psycopg, psycopg2 and the pool of SQLAlchemy against PostgreSQL."""

import pytest

from shared import calls, postgresql, sql

sqlalchemy = pytest.importorskip("sqlalchemy")

MANY = 90
CONNECTIONS = 20


@pytest.fixture(scope="module")
def address():
    with postgresql.serving(max_connections=MANY + CONNECTIONS) as port:
        yield postgresql.HOST, port


# --- the clients --------------------------------------------------------------------------------


@pytest.fixture(params=["pg8000", "psycopg", "psycopg2"])
def driver(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def connect(driver, address):
    user = postgresql.USER, postgresql.PASSWORD
    url = sqlalchemy.URL.create(f"postgresql+{driver}", *user, *address, postgresql.DATABASE)
    with sql.engines(url) as connect:
        yield connect


def others(engine):
    return sql.ask(engine, postgresql.OTHERS)


# --- the tests ----------------------------------------------------------------------------------


def test_all_at_once(connect):
    sql.check_all_at_once(connect(CONNECTIONS), calls.MANY)


def test_all_waiting(connect, one_worker):
    engine, other = connect(MANY), connect(2)

    def call(n):
        assert sql.ask(engine, "select :n + count(pg_advisory_xact_lock_shared(1))", n=n) == n + 1

    def waiting():
        return sql.ask(other, "select count(*) from pg_locks where not granted")

    with other.begin() as holder:
        holder.execute(sqlalchemy.text("select pg_advisory_xact_lock(1)"))
        calls.all_waiting(call, MANY, waiting, holder.commit)
    assert engine.pool.checkedout() == 0


def test_called_off(connect, rng, until):
    sql.check_called_off(connect, rng, until, others)
