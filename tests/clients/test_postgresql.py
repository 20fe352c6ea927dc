"""pg8000, psycopg, psycopg2 and the pool of SQLAlchemy against PostgreSQL."""

from pathlib import Path

import pytest

from shared import calls, servers, sql

sqlalchemy = pytest.importorskip("sqlalchemy")

MANY = 90
CONNECTIONS = 20
USER, PASSWORD = "someone", "secret"

# --- the server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address():
    """(host, port); scram, as a server that is set up today has it."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb = servers.needed("initdb", "postgresql", *places)
    program = servers.needed("postgres", "postgresql", *places)
    port = servers.free_port()
    with servers.folder("postgres") as (folder, options):
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        servers.run(
            *[initdb, "--pgdata", folder / "data", "--auth", "scram-sha-256", "--no-sync"],
            *["--username", USER, "--pwfile", folder / "password", "--encoding", "utf8"],
            cwd=folder,
            **options,
        )
        settings = {
            "fsync": "off",
            "listen_addresses": "127.0.0.1",
            "max_connections": MANY + CONNECTIONS,
            "unix_socket_directories": folder,
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [program, "-D", folder / "data", "-p", port, *words]
        with servers.serving(port, *command, cwd=folder, **options):
            yield "127.0.0.1", port


# --- the clients --------------------------------------------------------------------------------


@pytest.fixture(params=["pg8000", "psycopg", "psycopg2"])
def driver(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def connect(driver, address):
    url = sqlalchemy.URL.create(f"postgresql+{driver}", USER, PASSWORD, *address, "postgres")
    with sql.engines(url) as connect:
        yield connect


def others(engine):
    clients = "backend_type = 'client backend' and pid <> pg_backend_pid()"
    return sql.ask(engine, f"select count(*) from pg_stat_activity where {clients}")


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
