"""psycopg2 and psycopg, which wait in C, against PostgreSQL: how they are made to park."""

import contextlib
import threading

import pytest

from gofer import Cancelled, Group, cancel_scope, context, fork, gosched, patch, timeout, unpatch

from shared import postgresql
from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("not_cancelled")

MANY = 30


@pytest.fixture(scope="module")
def server():
    """How to connect to it."""
    with postgresql.serving() as port:
        yield (
            f"host={postgresql.HOST} port={port} dbname={postgresql.DATABASE} "
            f"user={postgresql.USER} password={postgresql.PASSWORD}"
        )


@pytest.fixture(params=["psycopg2", "psycopg"])
def library(request):
    return pytest.importorskip(request.param)


@pytest.fixture
def connect(library, server):
    with contextlib.ExitStack() as stack:

        def connect():
            connection = library.connect(server)
            connection.autocommit = True
            return stack.enter_context(contextlib.closing(connection))

        yield connect


def ask(connection, query, *args):
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(query, args)
        return cursor.fetchall()


def test_waiting_parks(one_worker, connect):
    a, b = connect(), connect()
    a.autocommit = False
    ask(a, "select pg_advisory_lock(1)")
    beats_under(
        lambda: ask(b, "select pg_advisory_lock(1)"), lambda: ask(a, "select pg_advisory_unlock(1)")
    )
    ask(b, "select pg_advisory_unlock(1)")


def test_many_at_once(connect):
    def work(n):
        connection = connect()
        for k in range(5):
            assert ask(connection, "select %s + %s, pg_sleep(0.001)", n, k)[0][0] == n + k

    with Group() as g:
        for n in range(MANY):
            g.go(work, n)


def test_big_answers_and_questions(one_worker, connect):
    connection = connect()
    data = "grüße" * 500_000
    assert ask(connection, "select %s", data) == [(data,)]
    rows = ask(connection, "select generate_series(1, 200000)")
    assert rows[-1] == (200_000,)


def test_errors(library, connect):
    connection = connect()
    with pytest.raises(library.errors.DivisionByZero):
        ask(connection, "select 1 / 0")
    assert ask(connection, "select 1") == [(1,)]
    with pytest.raises(library.OperationalError):
        library.connect("host=/there/is/none")


def test_in_threads(connect):
    seen = []

    def work():
        connection = connect()
        seen.append(ask(connection, "select 1, pg_sleep(0.001)")[0][0])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1, 1]


def test_cancelled(library, connect):
    """psycopg has the server stop the query, psycopg2 closes the connection."""
    connection = connect()
    with pytest.raises(TimeoutError), timeout(0.05):
        ask(connection, "select pg_sleep(1000)")
    if library.__name__ == "psycopg":
        assert ask(connection, "select 1") == [(1,)]
    else:
        assert connection.closed
    asleep = "select count(*) from pg_stat_activity where query = 'select pg_sleep(1000)'"
    other = connect()
    while ask(other, f"{asleep} and state = 'active'") != [(0,)]:
        gosched()


def test_cancelled_at_any_moment(library, connect, rng):
    """No connection is left between two answers."""

    def work(state):
        connection = state[0]
        while True:
            n = rng.randrange(1000)
            assert ask(connection, "select %s from generate_series(1, 50)", n) == [(n,)] * 50

    states = [[connect()] for _ in range(5)]
    for _ in range(20):
        with cancel_scope() as scope:
            tasks = [fork(work, state) for state in states]
            for _ in range(rng.randrange(300)):
                gosched()
            scope.cancel()
        for task, state in zip(tasks, states, strict=True):
            assert isinstance(task.exception(), context.Canceled), task.exception()
            if state[0].closed:
                state[0] = connect()
            assert ask(state[0], "select 42") == [(42,)]


def test_transactions(connect):
    setup = connect()
    cursor = setup.cursor()
    cursor.execute("drop table if exists numbers")
    cursor.execute("create table numbers (n int)")

    def add(n):
        connection = connect()
        connection.autocommit = False
        ask(connection, "insert into numbers values (%s) returning n", n)
        gosched()
        if n % 2:
            connection.rollback()
        else:
            connection.commit()

    with Group() as g:
        for n in range(20):
            g.go(add, n)
    assert ask(setup, "select count(*), sum(n) from numbers") == [(10, 90)]


def test_undone(library, connect):
    unpatch()
    assert ask(connect(), "select 1") == [(1,)]
    patch()
    assert ask(connect(), "select 1") == [(1,)]


def test_imported_after_patch(program, server, library):
    result = program(f"""
        from gofer import fork, patch, sleep

        patch()
        import {library.__name__} as library

        beats = 0

        def beat():
            global beats
            while True:
                sleep(0.001)
                beats += 1

        fork(beat)
        with library.connect("{server}") as connection:
            with connection.cursor() as cursor:
                cursor.execute("select pg_sleep(0.05)")
        print(beats > 5)
    """)
    assert result == (0, "True\n", "")


def test_cancelled_scope_is_told(connect):
    connection = connect()
    with cancel_scope() as scope:
        scope.cancel()
        with pytest.raises(Cancelled):
            ask(connection, "select pg_sleep(1000)")
        raise Cancelled
