"""Databases through SQLAlchemy and its pool."""

import contextlib
import gc

from shared import calls


@contextlib.contextmanager
def engines(url):
    """connect(n): an engine with a pool of n connections, for which calls wait."""
    import sqlalchemy

    with contextlib.ExitStack() as stack:

        def connect(connections):
            engine = sqlalchemy.create_engine(
                url, pool_size=connections, max_overflow=0, pool_timeout=1000
            )
            stack.callback(engine.dispose)
            return engine

        yield connect


def run(engine, *statements, **values):
    """Statements without a result, in one transaction."""
    from sqlalchemy import text

    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def ask(engine, query, **values):
    """The one value that it returns."""
    from sqlalchemy import text

    with engine.begin() as connection:
        return connection.execute(text(query), values).scalar_one()


def check_all_at_once(engine, many):
    run(engine, "drop table if exists t", "create table t (n int primary key, text text)")

    def call(n):
        run(engine, "insert into t values (:n, :text)", n=n, text=f"text {n} " * 100)
        text = ask(engine, "select text from t where n = :n for update", n=n)
        assert text == f"text {n} " * 100

    calls.all_at_once(call, many)
    assert ask(engine, "select count(*) from t") == many
    assert engine.pool.checkedout() == 0


def check_called_off(connect, rng, until, others):
    """others(engine): how many connections the server has, but the one that asks."""
    connections = 20
    engine, other = connect(connections), connect(1)
    run(other, "drop table if exists t", "create table t (n int primary key, balance int)")
    run(other, "insert into t values (0, 0), (1, 0)")

    def call(n):
        move = "update t set balance = balance + :amount where n = {}"
        run(engine, move.format(0), move.format(1).replace("+", "-"), amount=n)
        text = "x" * (n % 7 * 1000)
        reply = ask(engine, "select replace(:text, 'y', :n)", n=str(n), text=f"{text}y")
        assert reply == f"{text}{n}"

    calls.CallingOff(rng)(call)
    assert engine.pool.checkedout() == 0
    calls.all_at_once(call, 2 * connections)
    assert engine.pool.checkedout() == 0
    gc.collect()  # a connection that was called off half-made may be part of a cycle
    until(lambda: others(other) <= connections)
    assert ask(other, "select sum(balance) from t") == 0  # both are changed or none
    engine.dispose()
    until(lambda: others(other) == 0)
