"""Groups, scopes and contexts under many schedules.

What of the library is Python may be interrupted before each of its lines (`within`).
"""

import pytest

from gofer import (
    Chan,
    Group,
    Ticker,
    _cancel,
    _guard,
    after_func,
    cancel_scope,
    context,
    go,
    goroutine,
    shield,
    sleep,
    timeout,
)
from gofer import time as gofer_time
from gofer.errors import Canceled, Cancelled
from gofer.testing import wait
from gofer.time import now

from shared.schedules import every, many

pytestmark = pytest.mark.usefixtures("nothing_left")

CONTEXTS = [context, _cancel]


# --- groups and scopes --------------------------------------------------------------------------


def test_a_group_ends_with_its_members():
    def fn():
        ended = []

        def member(n):
            try:
                if n == 1:
                    raise ValueError(n)
                sleep(n)
            finally:
                ended.append(n)

        def body():
            with Group() as g:
                for n in range(4):
                    g.go(member, n)
                Chan().recv()

        with pytest.raises(ExceptionGroup) as caught:
            body()
        assert [type(error) for error in caught.value.exceptions] == [ValueError]
        assert sorted(ended) == [*range(4)]

    many(fn, within=[goroutine])


def test_a_group_with_a_limit():
    def fn():
        running, most = [], []

        def member(n):
            running.append(n)
            most.append(len(running))
            sleep(n % 2)
            running.remove(n)

        with Group(limit=2) as g:
            for n in range(5):
                g.go(member, n)
        assert len(most) == 5
        assert max(most) <= 2

    every(fn, bound=0, within=[goroutine])
    many(fn, within=[goroutine])


def test_a_group_that_somebody_cancels():
    def fn():
        started, ended = [], []

        def member(n):
            started.append(n)
            try:
                sleep(100)
            finally:
                ended.append(n)

        with Group(limit=2) as g:
            go(g.cancel)
            for n in range(3):
                g.go(member, n)
        assert now() < start + 200
        assert sorted(started) == sorted(ended)

    start = now()
    many(fn, within=[goroutine])


def test_members_that_start_members_while_it_ends():
    """Whoever may still start one is a member itself, so the edge sees all of them."""

    def fn():
        ended = []

        def member(depth):
            if depth:
                g.go(member, depth - 1)
                g.go(member, depth - 1)
            ended.append(depth)

        with Group() as g:
            g.go(member, 2)
        assert sorted(ended) == [0, 0, 0, 0, 1, 1, 2]
        with pytest.raises(RuntimeError):
            g.go(int)

    many(fn, within=[goroutine])


def test_a_cancel_reaches_who_starts_and_enters_meanwhile():
    def fn():
        ended = []

        def child():
            with timeout(1000):
                with cancel_scope():
                    try:
                        Chan().recv()
                    except Cancelled:
                        ended.append("child")
                        raise

        def parent():
            with cancel_scope():
                go(child)
                Chan().recv()

        with cancel_scope() as scope:
            go(scope.cancel)
            go(parent)
            Chan().recv()
        wait()
        assert ended == ["child"]

    every(fn)
    many(fn)


def test_a_shield_holds_until_its_end():
    def fn():
        steps = []

        def careful():
            try:
                with shield():
                    sleep(1)
                    steps.append("shielded")
                sleep(1)
                steps.append("not reached")
            finally:
                steps.append("ended")

        with cancel_scope() as scope:
            go(scope.cancel)
            careful()
        assert steps == ["shielded", "ended"]

    every(fn)


def test_a_timeout_and_a_cancel_at_the_same_moment():
    def fn():
        outer, inner = [], []

        def body():
            try:
                with timeout(1) as limit:
                    sleep(2)
            except TimeoutError:
                inner.append(limit.expired)

        with cancel_scope() as scope:
            after_func(1, scope.cancel)
            body()
            outer.append("went on")
            sleep(1)
            outer.append("not reached")
        assert (inner, outer) in (([True], ["went on"]), ([], []))

    every(fn)


# --- contexts and tickers -----------------------------------------------------------------------


def test_a_context_ends_with_all_below_it():
    def fn():
        root, cancel = context.with_cancel(context.background())
        below = []

        def derive():
            ctx, _ = context.with_cancel(root)
            leaf, _ = context.with_timeout(ctx, 1000)
            below.extend([ctx, leaf])
            leaf.done.recv_ok()
            assert isinstance(leaf.err(), Canceled)

        with Group() as g:
            g.go(derive)
            g.go(derive)
            g.go(cancel)
        assert all(isinstance(ctx.err(), Canceled) for ctx in below)
        assert all(ctx.done.closed for ctx in below)
        assert root.err() is below[0].err() is below[3].err()

    every(fn, bound=1)
    many(fn, within=CONTEXTS)


def test_the_function_of_a_context_is_called_or_stopped():
    def fn():
        ctx, cancel = context.with_cancel(context.background())
        calls, stopped = [], []

        def register():
            stop = context.after_func(ctx, lambda: calls.append(True))
            stopped.append(stop())
            assert not stop()

        with Group() as g:
            g.go(register)
            g.go(cancel)
        wait()
        assert [*calls, *stopped].count(True) == 1

    every(fn, within=CONTEXTS, schedules=60_000)


def test_a_cause_is_that_of_the_first():
    def fn():
        ctx, cancel = context.with_cancel_cause(context.background())
        errors = [ValueError("one"), ValueError("two")]
        below, _ = context.with_cancel(ctx)
        with Group() as g:
            for error in errors:
                g.go(cancel, error)
            seen = g.go(lambda: [below.done.recv_ok(), context.cause(below)][1])
        assert context.cause(ctx) in errors
        assert context.cause(ctx) is context.cause(below) is seen.join()

    every(fn, bound=1, within=CONTEXTS)
    many(fn, within=CONTEXTS)


def test_a_deadline_and_a_cancel_at_the_same_moment():
    def fn():
        ctx, cancel = context.with_timeout(context.background(), 1)
        after_func(1, cancel)
        ctx.done.recv_ok()
        first = ctx.err()
        assert first is not None
        wait()
        assert ctx.err() is first

    every(fn, bound=1, within=CONTEXTS)
    many(fn, within=CONTEXTS)


def test_a_ticker_that_is_stopped_while_somebody_iterates():
    def fn():
        ticker, ticks = Ticker(1), []

        def iterate():
            ticks.extend(ticker)

        with Group() as g:
            g.go(iterate)
            g.go(iterate)
            sleep(3)
            ticker.stop()
        assert len(ticks) <= 3

    every(fn, bound=1, within=[gofer_time, _guard])
    many(fn, within=[gofer_time, _guard])
