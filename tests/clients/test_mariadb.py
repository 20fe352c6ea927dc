"""PyMySQL, and mysqlclient on threads, in the pool of SQLAlchemy, against MariaDB."""

import os

import pytest

from gofer import patch

from shared import calls, servers, sql

sqlalchemy = pytest.importorskip("sqlalchemy")

MANY = 100
CONNECTIONS = 20

# --- the server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port():
    install = servers.needed("mariadb-install-db", "mariadb-server")
    program = servers.needed("mariadbd", "mariadb-server")
    port = servers.free_port()
    user = ["--user=root"] if os.geteuid() == 0 else []  # it asks for that
    with servers.folder(None) as (folder, options):
        data = f"--datadir={folder / 'data'}"
        servers.run(
            *[install, "--no-defaults", data, *user, "--skip-test-db"],
            *["--auth-root-authentication-method=normal", "--skip-name-resolve"],
            cwd=folder,
            **options,
        )
        command = [
            *[program, "--no-defaults", data, *user, f"--socket={folder / 'socket'}"],
            *[f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"],
            *[f"--max-connections={MANY + CONNECTIONS}", f"--back-log={MANY}"],
            *["--innodb-flush-log-at-trx-commit=0", "--connect-timeout=1000"],
        ]
        with servers.serving(port, *command, cwd=folder, **options):
            yield port


# Without TLS: PyMySQL would read all authorities, each time.
DRIVERS = {
    "pymysql": ("pymysql", {"ssl_disabled": "true"}),
    "mysqldb": ("MySQLdb", {}),
}


@pytest.fixture(params=DRIVERS)
def connect(port, request):
    module, options = DRIVERS[request.param]
    pytest.importorskip(module)
    if module == "MySQLdb":
        patch.offload(module)
    url = sqlalchemy.URL.create(
        *[f"mysql+{request.param}", "root", "", "127.0.0.1", port, "mysql"], query=options
    )
    with sql.engines(url) as connect:
        yield connect


def others(engine):
    clients = "command <> 'Daemon' and id <> connection_id()"
    return sql.ask(engine, f"select count(*) from information_schema.processlist where {clients}")


# --- the tests ----------------------------------------------------------------------------------


def test_all_at_once(connect):
    sql.check_all_at_once(connect(CONNECTIONS), calls.MANY)


def test_all_waiting(connect, one_worker):
    engine, other = connect(MANY), connect(2)

    def call(n):
        assert sql.ask(engine, "select :n + get_lock(concat('lock ', :n), 1000)", n=n) == n + 1

    def waiting():
        locks = "select count(*) from information_schema.processlist where state = 'User lock'"
        return sql.ask(other, locks)

    with other.begin() as holder:
        for n in range(MANY):
            holder.execute(sqlalchemy.text("select get_lock(concat('lock ', :n), 0)"), {"n": n})
        release = sqlalchemy.text("select release_all_locks()")
        calls.all_waiting(call, MANY, waiting, lambda: holder.execute(release))
    assert engine.pool.checkedout() == 0


def test_called_off(connect, rng, until):
    sql.check_called_off(connect, rng, until, others)
