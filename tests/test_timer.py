"""Timer, Ticker and after_func: stopped, reset, and no longer referenced. See test_time.py."""

import gc
import math
import time
import weakref
from datetime import timedelta

import pytest

from gofer import Chan, Goroutine, RecvChan, Ticker, Timer, after, after_func, current, fork

from shared import Token, in_thread, is_empty
from shared.clock import LONG, ROUNDING, Bounds, let_fire

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- Timer --------------------------------------------------------------------------------------


def test_a_timer_delivers_the_time_once():
    before = time.monotonic()
    timer = Timer(0.001)
    assert type(timer.c) is RecvChan
    assert timer.c == timer.c
    assert before + 0.001 - ROUNDING <= timer.c.recv() <= time.monotonic() + ROUNDING
    let_fire(0.001)
    assert is_empty(timer.c)


def test_stop_tells_whether_it_was_in_time():
    timer = Timer(LONG)
    assert timer.stop() is True
    assert timer.stop() is False
    timer = Timer(0)
    timer.c.recv()
    assert timer.stop() is False


def test_nothing_stale_after_stop():
    timer = Timer(0)
    let_fire()
    assert timer.stop() is True  # as in Go 1.23: nobody had taken it
    assert is_empty(timer.c)
    assert timer.stop() is False


def test_a_stopped_timer_never_fires():
    timer = Timer(0.001)
    assert timer.stop() is True
    let_fire(0.002)
    assert is_empty(timer.c)


def test_reset_tells_whether_it_was_running():
    timer = Timer(LONG)
    assert timer.reset(LONG) is True
    timer.stop()
    assert timer.reset(0) is False
    timer.c.recv()
    assert timer.reset(0) is False
    timer.c.recv()
    assert is_empty(timer.c)


def test_nothing_stale_after_reset():
    timer = Timer(0)
    let_fire()
    assert timer.reset(LONG) is True
    assert is_empty(timer.c)
    bounds = Bounds(0.002)
    assert timer.reset(0.002) is True
    assert timer.c.recv() >= bounds.earliest


def test_reset_of_one_that_is_waited_for(parked):
    timer = Timer(LONG)
    task = fork(timer.c.recv)
    parked(task)
    bounds = Bounds(0.001)
    assert timer.reset(timedelta(milliseconds=1)) is True
    assert task.join() >= bounds.earliest


def test_stop_leaves_who_waits(parked):
    timer = Timer(LONG)
    task = fork(timer.c.recv)
    parked(task)
    timer.stop()
    timer.reset(0)
    assert isinstance(task.join(), float)


def test_repr_tells_whether_it_runs():
    timer = Timer(LONG)
    assert "running" in repr(timer)
    timer.stop()
    assert "stopped" in repr(timer)


def test_a_timer_of_a_thread():
    timer = in_thread(Timer, 0.001)
    assert isinstance(timer.c.recv(), float)
    timer = in_thread(Timer, LONG)
    assert timer.stop() is True
    timer = Timer(LONG)
    assert in_thread(timer.stop) is True
    assert in_thread(timer.reset, 0) is False
    assert isinstance(timer.c.recv(), float)
    assert isinstance(in_thread(lambda: after(0.001).recv()), float)


# --- after_func ---------------------------------------------------------------------------------


def test_after_func_calls_in_a_goroutine_of_its_own():
    done = Chan()
    before = time.monotonic()

    def fn(*args):
        done.send((current(), args, time.monotonic()))

    timer = after_func(0.001, fn, 1, "two", None, [4])
    g, args, when = done.recv()
    assert type(g) is Goroutine
    assert g is not current()
    assert args == (1, "two", None, [4])
    assert when >= before + 0.001 - ROUNDING
    assert type(timer) is Timer
    g.join()


def test_the_function_may_wait():
    ch = Chan()
    after_func(0, lambda: ch.send(ch))
    assert ch.recv() is ch


def test_stop_prevents_the_call():
    done = Chan(10)
    timer = after_func(0.001, done.send, "called")
    assert timer.stop() is True
    assert timer.stop() is False
    let_fire(0.002)
    assert len(done) == 0


def test_stop_of_one_that_was_called():
    done = Chan()
    timer = after_func(0, done.send, "called")
    assert done.recv() == "called"
    assert timer.stop() is False


def test_stop_from_inside():
    box, done = Chan(1), Chan()
    timer = after_func(0.001, lambda: done.send(box.recv().stop()))
    box.send(timer)
    assert done.recv() is False


def test_reset_calls_again(until):
    done = Chan(10)
    timer = after_func(LONG, done.send, "called")
    assert timer.reset(0) is True
    assert done.recv() == "called"
    for d in (0, 0.001, timedelta(milliseconds=1)):
        assert timer.reset(d) is False
        assert done.recv() == "called"
    assert timer.reset(LONG) is False
    assert timer.reset(LONG) is True
    assert timer.stop() is True
    let_fire()
    assert len(done) == 0


def test_the_timer_of_a_function_has_no_channel():
    timer = after_func(LONG, int)
    with pytest.raises(AttributeError, match="after_func"):
        timer.c  # noqa: B018
    assert not hasattr(timer, "c")
    timer.stop()


def test_a_failing_function_is_a_panic(program):
    outcome = program(
        """
        from gofer import after_func, sleep
        def fail():
            raise ValueError("no")
        after_func(0, fail)
        sleep(1000)
        """
    )
    assert outcome.status == 2
    assert outcome.err.startswith("panic: ValueError: no\n")


def test_a_function_that_will_be_called_is_no_deadlock(program):
    outcome = program(
        """
        from gofer import Chan, after_func
        ch = Chan()
        after_func(0.02, ch.send, "called")
        print(ch.recv())
        """
    )
    assert (outcome.status, outcome.out, outcome.err) == (0, "called\n", "")


def test_a_thread_may_call_after_func():
    done = Chan()
    in_thread(after_func, 0.001, done.send, "called")
    assert done.recv() == "called"


# --- Ticker -------------------------------------------------------------------------------------


def test_a_ticker_ticks(rng):
    period = 0.001
    before = time.monotonic()
    ticker = Ticker(period)
    assert type(ticker.c) is RecvChan
    last = before
    for n in range(1, 20):
        tick = ticker.c.recv()
        assert tick >= before + n * period - ROUNDING
        assert tick >= last
        last = tick
    ticker.stop()


def test_a_tick_nobody_takes_is_dropped():
    ticker = Ticker(0.0005)
    let_fire(0.01)
    asked = time.monotonic()
    first = ticker.c.recv()
    second = ticker.c.recv()
    ticker.stop()
    assert first <= asked + ROUNDING  # it lay there
    assert second >= asked - ROUNDING  # and only it


def test_a_stopped_ticker_is_silent():
    ticker = Ticker(0.0005)
    let_fire(0.001)
    assert ticker.stop() is None
    assert is_empty(ticker.c)
    let_fire(0.001)
    assert is_empty(ticker.c)
    assert not ticker.c.closed
    ticker.stop()


def test_reset_of_a_ticker():
    ticker = Ticker(0.0005)
    let_fire(0.001)
    assert ticker.reset(LONG) is None
    assert is_empty(ticker.c)
    let_fire(0.001)
    assert is_empty(ticker.c)
    before = time.monotonic()
    ticker.reset(timedelta(milliseconds=2))
    assert ticker.c.recv() >= before + 0.002 - ROUNDING
    assert ticker.c.recv() >= before + 0.004 - ROUNDING
    ticker.stop()
    ticker.reset(0.001)
    ticker.c.recv()
    ticker.stop()


def test_iteration_lasts_until_it_is_stopped():
    ticker, ticks = Ticker(0.0005), []
    for tick in ticker:
        ticks.append(tick)
        if len(ticks) == 5:
            ticker.stop()
    assert len(ticks) == 5
    assert ticks == sorted(ticks)
    assert list(ticker) == []
    assert iter(ticker) is ticker


def test_stop_wakes_who_iterates(parked):
    ticker = Ticker(LONG)
    tasks = [fork(list, ticker) for _ in range(3)]
    parked(*tasks)
    ticker.stop()
    assert [task.join() for task in tasks] == [[], [], []]


def test_a_ticker_can_be_iterated_again_after_reset():
    ticker = Ticker(LONG)
    ticker.stop()
    ticker.reset(0.0005)
    assert next(ticker) <= next(ticker)
    ticker.stop()
    with pytest.raises(StopIteration):
        next(ticker)


@pytest.mark.parametrize("d", [0, -1, 0.0, -math.inf, timedelta(0), timedelta(seconds=-1)])
def test_a_period_is_greater_than_zero(d):
    with pytest.raises(ValueError, match=r"Ticker\(.*greater than 0"):
        Ticker(d)
    ticker = Ticker(0.0005)
    with pytest.raises(ValueError, match=r"Ticker\.reset\(.*greater than 0"):
        ticker.reset(d)
    ticker.c.recv()
    ticker.stop()


def test_the_smallest_period():
    ticker = Ticker(5e-324)
    assert ticker.c.recv() <= ticker.c.recv()
    ticker.stop()


# --- what nothing references --------------------------------------------------------------------


@pytest.mark.parametrize("make", [Timer, Ticker])
def test_a_timer_that_nothing_references_goes(make):
    timer = make(LONG)
    alive = weakref.ref(timer)
    del timer
    gc.collect()
    assert alive() is None


def test_its_channel_does_not_need_the_timer():
    ch = Timer(0.001).c
    gc.collect()
    assert isinstance(ch.recv(), float)
    ch = Ticker(0.0005).c
    gc.collect()
    assert ch.recv() <= ch.recv()


@pytest.mark.parametrize("line", ["after(LONG)", "Timer(LONG)", "Ticker(0.001)", "Timer(LONG).c"])
def test_a_timer_that_nothing_references_wakes_nobody(program, line):
    outcome = program(
        f"""
        from gofer import Chan, Deadlock, Ticker, Timer, after
        LONG = {LONG}
        {line}
        try:
            Chan().recv()
        except Deadlock:
            print("deadlock")
        """
    )
    assert (outcome.status, outcome.out, outcome.err) == (0, "deadlock\n", "")


def test_after_func_is_called_though_nothing_references_its_timer():
    done = Chan()
    after_func(0.001, done.send, "called")
    gc.collect()
    assert done.recv() == "called"


def test_what_a_call_holds_is_given_up_after_it(until):
    done, token = Chan(), Token()
    alive = weakref.ref(token)
    after_func(0, lambda token: done.send(None), token)
    del token
    done.recv()
    until(lambda: gc.collect() is None or alive() is None)


def test_what_a_stopped_call_holds_goes_with_its_timer():
    token = Token()
    alive = weakref.ref(token)
    timer = after_func(LONG, id, token)
    del token
    gc.collect()
    assert alive() is not None
    timer.stop()
    del timer
    gc.collect()
    assert alive() is None


def test_a_cycle_through_a_stopped_call_is_collected():
    box = []
    timer = after_func(LONG, id, box)
    box.append(timer)
    alive = weakref.ref(timer)
    timer.stop()
    del timer, box
    gc.collect()
    assert alive() is None


def test_a_cycle_through_a_call_that_was_made_is_collected(until):
    done, box = Chan(), []
    timer = after_func(0, lambda box: done.send(None), box)
    box.append(timer)
    alive = weakref.ref(timer)
    done.recv()
    del timer, box
    until(lambda: gc.collect() is None or alive() is None)


def test_timers_leave_no_memory_behind():
    for _ in range(3000):
        Timer(LONG)
        after(LONG)
        after_func(LONG, int).stop()
    assert sum(type(thing) is Timer for thing in gc.get_objects()) < 100
