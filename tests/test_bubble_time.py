"""Timers, scopes and contexts in a bubble: they live by its clock."""

from contextlib import ExitStack

import pytest

from gofer import (
    Cancelled,
    Chan,
    Group,
    Ticker,
    Timer,
    after,
    after_func,
    cancel_scope,
    context,
    fork,
    go,
    gosched,
    select,
    sleep,
    timeout,
)
from gofer.errors import DeadlineExceeded
from gofer.sync import atomic
from gofer.testing import bubble, wait
from gofer.time import now

from shared import is_empty
from shared.bubbles import HOUR

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- timers -------------------------------------------------------------------------------------


def test_a_timer_delivers_its_time():
    with bubble():
        start = now()
        assert Timer(5).c.recv() == start + 5
        early = Timer(1)
        sleep(3)
        assert early.c.recv() == start + 6
        assert after(2).recv() == start + 10 == now()


def test_timers_are_reset_and_stopped():
    with bubble():
        start = now()
        timer = Timer(1)
        assert timer.c.recv() == start + 1
        assert not timer.reset(2)
        assert timer.c.recv() == start + 3
        timer.reset(3)
        sleep(1)
        assert timer.reset(3)
        assert timer.c.recv() == start + 7
        timer.reset(1)
        sleep(2)
        assert timer.stop()
        sleep(HOUR)
        assert is_empty(timer.c)


def test_a_timer_of_no_time_has_fired_at_once():
    with bubble():
        start = now()
        timer = Timer(0)
        assert select(timer.c.recv, default=True) == (0, start)
        timer.reset(-1)
        assert select(timer.c.recv, default=True) == (0, start)
        assert select(after(0).recv, default=True) == (0, start)


def test_after_func_of_no_time_does_not_wait_for_the_others_to_block():
    with bubble():
        ran = atomic.Int()
        timer = after_func(0, ran.add, 1)
        while not ran.load():
            gosched()
        timer.reset(0)
        while ran.load() == 1:
            gosched()
        start = now()
        wait()
        assert (ran.load(), now()) == (2, start)


def test_a_timer_reset_to_no_time_again_and_again():
    with bubble():
        timer, done = Timer(0), Chan()

        def receive():
            while select(timer.c.recv, done.recv_ok)[0] == 0:
                pass

        go(receive)
        wait()
        timer.reset(0)
        wait()
        done.close()


def test_functions_of_timers_are_in_the_bubble(elapsed):
    with bubble():
        elapsed()
        seen = []

        def later():
            seen.append(elapsed())
            go(still_later)

        def still_later():
            sleep(1)
            seen.append(elapsed())

        after_func(1, later)
        sleep(3)
        assert seen == [1, 2]


def test_functions_of_timers_can_be_stopped_and_moved(elapsed):
    with bubble():
        elapsed()
        seen = []
        moved = after_func(1, lambda: seen.append(elapsed()))
        stopped = after_func(2, seen.append, "stopped")
        sleep(0.5)
        assert moved.reset(10)
        assert stopped.stop()
        sleep(HOUR)
        assert seen == [10.5]
        assert not moved.reset(1)
        sleep(HOUR)
        assert seen == [10.5, HOUR + 1.5]


def test_timers_that_start_timers():
    for _ in range(20):
        with bubble():
            started = atomic.Int()
            for _ in range(100):
                after_func(1, after_func, 0, started.add, 1)
            sleep(2)
            wait()
            assert started.load() == 100


def test_a_timer_that_is_left_over_does_not_fire():
    ran = []
    with bubble():
        after_func(1, ran.append, 1)
        Timer(1)
        left = Ticker(1)
    sleep(0.001)
    assert ran == []
    assert is_empty(left.c)


def test_ticks_come_on_a_grid():
    with bubble():
        start = now()
        ticker = Ticker(10)
        assert [ticker.c.recv() - start for _ in range(3)] == [10, 20, 30]
        sleep(25)  # one is kept, one is dropped
        assert [ticker.c.recv() - start for _ in range(2)] == [40, 60]
        ticker.reset(1)
        assert ticker.c.recv() == start + 61
        ticker.stop()
        assert list(ticker) == []


def test_ticks_that_nobody_takes_cost_nothing():
    """As many steps of the clock as microseconds in a year would take days."""
    with bubble():
        start = now()
        ticker = Ticker(1e-6)
        sleep(365 * 24 * HOUR)
        assert now() == start + 365 * 24 * HOUR
        assert ticker.c.recv() < start + 1
        assert ticker.c.recv() > start + 364 * 24 * HOUR
        ticker.stop()


def test_many_tickers():
    with bubble():
        start = now()
        counts = dict.fromkeys([1, 2, 3, 5, 7], 0)

        def count(period):
            for _ in Ticker(period):
                counts[period] += 1
                if now() >= start + 210:
                    return

        with Group() as g:
            for period in counts:
                g.go(count, period)
        assert counts == {period: 210 // period for period in counts}


# --- scopes and contexts ------------------------------------------------------------------------


def test_a_timeout_runs_by_its_clock(elapsed):
    with bubble():
        elapsed()
        with pytest.raises(TimeoutError):
            with timeout(HOUR):
                Chan().recv()
        assert elapsed() == HOUR
        with timeout(HOUR) as scope:
            sleep(HOUR - 1)
        assert not scope.expired
        sleep(HOUR)
        assert elapsed() == 3 * HOUR - 1


def test_the_first_of_several_timeouts(elapsed):
    with bubble():
        elapsed()
        with pytest.raises(TimeoutError):
            with timeout(2 * HOUR), timeout(3 * HOUR):
                with pytest.raises(TimeoutError):
                    with timeout(HOUR):
                        sleep(4 * HOUR)
                assert elapsed() == HOUR
                sleep(4 * HOUR)
        assert elapsed() == 2 * HOUR


def test_a_scope_that_somebody_cancels_later(elapsed):
    with bubble():
        elapsed()
        with cancel_scope() as scope:
            after_func(5, scope.cancel)
            sleep(HOUR)
        assert elapsed() == 5


def test_a_bubble_in_a_timeout_of_the_world_outside():
    """Its time is not that of the bubble."""
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            with bubble():
                sleep(HOUR)
                outside.recv()
    with timeout(HOUR):
        with bubble():
            sleep(2 * HOUR)


outside = Chan()


def test_many_with_one_deadline(elapsed):
    """In each other the outermost one is over; side by side each is over for itself."""

    def limited(n):
        with pytest.raises(TimeoutError), timeout(HOUR):
            sleep(HOUR + n)
        return elapsed()

    with bubble():
        elapsed()
        limits = [timeout(HOUR) for _ in range(100)]
        with pytest.raises(TimeoutError) as caught, ExitStack() as stack:
            for limit in limits:
                stack.enter_context(limit)
            sleep(2 * HOUR)
        assert isinstance(caught.value.__cause__, Cancelled)  # that no inner one took for its own
        assert all(limit.expired for limit in limits)
        assert elapsed() == HOUR
        tasks = [fork(limited, n) for n in range(1, 1000)]
        assert {task.join() for task in tasks} == {2 * HOUR}


def test_deadlines_of_contexts(elapsed):
    with bubble():
        elapsed()
        ctx, cancel = context.with_timeout(context.background(), HOUR)
        below, cancel_below = context.with_deadline(ctx, now() + 2 * HOUR)
        assert below.deadline() == now() + HOUR
        sleep(HOUR - 1)
        assert ctx.err() is None
        assert below.done.recv_ok() == (None, False)
        assert elapsed() == HOUR
        assert isinstance(below.err(), DeadlineExceeded)
        cancel_below()
        cancel()
        late, cancel = context.with_deadline(context.background(), now())
        assert isinstance(late.err(), DeadlineExceeded)
        cancel()


def test_functions_of_contexts(elapsed):
    with bubble():
        elapsed()
        seen = []
        ctx, cancel = context.with_timeout(context.background(), 5)
        context.after_func(ctx, lambda: seen.append(elapsed()))
        wait()
        assert seen == []
        sleep(6)
        assert seen == [5]
        cancel()


def test_a_context_that_is_never_done_does_not_stop_the_clock():
    with bubble():
        start = now()
        done = context.background().done
        assert select(after(HOUR).recv, done.recv_ok) == (0, start + HOUR)
        assert select(after(1).recv, context.todo().done.recv_ok)[0] == 0
