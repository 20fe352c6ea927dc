"""sleep, after, after_func, Timer, Ticker.

No test expects that something happens soon. What is tested is order: a time delivered lies between
the moments that bound it, and what has the earlier deadline comes first. Where a test must know
that a timer has fired, it waits for a second one with a later deadline.
"""

import gc
import math
import threading
import time
import weakref
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from gofer import (
    Chan,
    Goroutine,
    RecvChan,
    Ticker,
    Timer,
    after,
    after_func,
    current,
    fork,
    go,
    select,
    sleep,
)
from gofer.errors import Canceled

pytestmark = pytest.mark.usefixtures("nothing_left")

LONG = 10_000  # what is not meant to happen while the tests run
ROUNDING = 1e-6  # of seconds as a float


class Token:
    """Something that can be referred to weakly."""


def is_empty(ch):
    return select(ch.recv, default=True) == (-1, None)


def let_fire(seconds=0):
    """Returns when every timer of this worker with an earlier deadline has fired."""
    after(seconds).recv()
    sleep(0.0001)


def in_thread(fn, *args):
    """What fn(*args) returns, called in a thread that is no worker."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(fn(*args)))
    thread.start()
    thread.join()
    return outcome[0]


class Bounds:
    """When something that is to happen `d` from now may happen, at the earliest and latest."""

    def __init__(self, d):
        self.d = d
        self.earliest = time.monotonic() + d - ROUNDING

    def set(self):
        """It has been armed by now."""
        self.latest = time.monotonic() + self.d + ROUNDING


def assert_in_order(events):
    """events: (bounds, time it happened), in the order in which they did."""
    for bounds, happened in events:
        assert happened >= bounds.earliest
    latest = -math.inf
    for bounds, _ in reversed(events):  # none may come after one that was certainly due later
        if latest != -math.inf:
            assert bounds.earliest <= latest
        latest = bounds.latest if latest == -math.inf else min(latest, bounds.latest)


# --- sleep --------------------------------------------------------------------------------------


DURATIONS = [0.002, 0, timedelta(milliseconds=2), Fraction(1, 500), Decimal("0.002"), True * 0]


@pytest.mark.parametrize("d", DURATIONS)
def test_sleep_does_not_return_early(d):
    seconds = d.total_seconds() if isinstance(d, timedelta) else float(d)
    before = time.monotonic()
    assert sleep(d) is None
    assert time.monotonic() >= before + seconds - ROUNDING


@pytest.mark.usefixtures("one_worker")
@pytest.mark.parametrize("d", [0, 0.0, -1, -0.5, timedelta(0), timedelta(days=-1), -math.inf])
def test_sleeping_for_nothing_lets_the_others_run(d):
    log = []
    g = go(log.append, "other")
    sleep(d)
    log.append("main")
    assert log == ["other", "main"]
    g.join()


@pytest.mark.usefixtures("one_worker")
def test_sleepers_wake_in_the_order_of_their_deadlines(parked, rng):
    log, sleepers = [], []

    def body(bounds):
        sleep(bounds.d)
        log.append((bounds, time.monotonic()))

    for _ in range(100):
        bounds = Bounds(rng.uniform(0.001, 0.05))
        sleepers.append(go(body, bounds))
        parked(sleepers[-1]) if bounds.d > 0.02 else sleep(0)
        bounds.set()
    for g in sleepers:
        g.join()
    assert len(log) == 100
    assert_in_order(log)


@pytest.mark.parametrize("d", [math.inf, 1e300, 10**15, timedelta.max])
def test_sleep_for_ever_can_be_cancelled(parked, d):
    task = fork(sleep, d)
    parked(task)
    task.cancel()
    with pytest.raises(Canceled):
        task.join()


def test_a_cancelled_task_does_not_sleep():
    def body():
        current().cancel()
        sleep(LONG)

    assert isinstance(fork(body).exception(), Canceled)


def test_a_thread_sleeps_while_goroutines_go_on():
    ch = Chan()

    def body():
        before = time.monotonic()
        sleep(0.005)
        ch.send(time.monotonic() - before)

    thread = threading.Thread(target=body)
    thread.start()
    assert ch.recv() >= 0.005 - ROUNDING
    thread.join()


def test_sleeping_is_no_deadlock(program):
    outcome = program(
        """
        from gofer import Chan, go, sleep
        ch = Chan()
        go(lambda: (sleep(0.02), ch.send("awake")))
        print(ch.recv())
        """
    )
    assert (outcome.status, outcome.out, outcome.err) == (0, "awake\n", "")


# --- bad input ----------------------------------------------------------------------------------


def timer_func(d):
    return after_func(d, int)


TAKES_A_DURATION = {
    "sleep": sleep,
    "after": after,
    "after_func": timer_func,
    "Timer": Timer,
    "Timer.reset": lambda d: Timer(LONG).reset(d),
    "Ticker": Ticker,
    "Ticker.reset": lambda d: Ticker(LONG).reset(d),
}


@pytest.mark.parametrize("what", TAKES_A_DURATION)
@pytest.mark.parametrize("d", ["1", b"1", None, [], (1,), 1j, object(), Token])
def test_a_duration_is_a_number_or_a_timedelta(what, d):
    with pytest.raises(TypeError, match=rf"{what}.*seconds.*timedelta"):
        TAKES_A_DURATION[what](d)


@pytest.mark.parametrize("what", TAKES_A_DURATION)
@pytest.mark.parametrize("d", [math.nan, -math.nan])
def test_nan_is_no_duration(what, d):
    with pytest.raises(ValueError, match=what):
        TAKES_A_DURATION[what](d)


@pytest.mark.parametrize("what", TAKES_A_DURATION)
def test_a_number_too_large_for_a_float(what):
    with pytest.raises(OverflowError):
        TAKES_A_DURATION[what](10**400)


@pytest.mark.parametrize("what", TAKES_A_DURATION)
def test_what_a_number_raises_comes_out(what):
    class Bad:
        def __float__(self):
            raise ZeroDivisionError

        def __gt__(self, other):
            return True

    with pytest.raises(ZeroDivisionError):
        TAKES_A_DURATION[what](Bad())


def test_arguments_that_do_not_belong():
    for call in (
        lambda: sleep(),
        lambda: sleep(1, 2),
        lambda: sleep(d=1),
        lambda: after(),
        lambda: after(1, 2),
        lambda: Timer(),
        lambda: Timer(1, 2),
        lambda: Timer(d=1),
        lambda: Timer(1).stop(1),
        lambda: Timer(1).reset(),
        lambda: after_func(),
        lambda: after_func(1),
        lambda: after_func(1, int, base=3),
        lambda: Ticker(),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("thing", [None, 3, "fn", object()])
def test_after_func_takes_a_function(thing):
    with pytest.raises(TypeError, match="after_func"):
        after_func(LONG, thing)


def test_after_func_refuses_a_coroutine_function():
    async def coroutine():
        pass

    with pytest.raises(TypeError, match=r"gofer\.aio"):
        after_func(0, coroutine)


def test_no_subclass_can_be_made():
    with pytest.raises(TypeError):
        type("Sub", (Timer,), {})


# --- after --------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [*DURATIONS, -1, timedelta(seconds=-1)])
def test_after_delivers_the_time_once(d):
    seconds = d.total_seconds() if isinstance(d, timedelta) else float(d)
    before = time.monotonic()
    ch = after(d)
    assert type(ch) is RecvChan
    tick = ch.recv()
    assert type(tick) is float
    assert before + max(0, seconds) - ROUNDING <= tick <= time.monotonic() + ROUNDING
    let_fire(0.001)
    assert is_empty(ch)
    assert not ch.closed


def test_a_timer_channel_looks_unbuffered():
    for ch in (after(0), Timer(0).c, Ticker(0.0001).c):
        let_fire()
        assert len(ch) == 0
        assert ch.cap == 0
        assert bool(ch)


def test_after_in_select():
    never = Chan()
    assert select(never.recv, after(0).recv)[0] == 1
    assert select(never.recv, after(0).recv_ok)[1][1] is True
    assert select(never.recv, after(LONG).recv, default=True) == (-1, None)


def test_many_can_wait_for_one(parked):
    ch = Timer(LONG)
    tasks = [fork(ch.c.recv) for _ in range(3)]
    parked(*tasks)
    for n in range(1, 4):
        ch.reset(0)
        let_fire()
        while sum(task.done for task in tasks) < n:
            sleep(0)
        assert sum(task.done for task in tasks) == n


def test_for_ever_never_comes():
    for d in (math.inf, 1e300, timedelta.max):
        timer = Timer(d)
        let_fire()
        assert is_empty(timer.c)
        assert timer.stop() is True


def test_ticks_come_in_the_order_of_their_deadlines(rng):
    armed = []
    for _ in range(1000):
        bounds = Bounds(rng.uniform(0, 0.05))
        armed.append((bounds, after(bounds.d)))
        bounds.set()
    events = [(bounds, ch.recv()) for bounds, ch in armed]
    events.sort(key=lambda event: (event[1], event[0].earliest))
    assert_in_order(events)


def test_timers_stopped_and_moved_do_not_confuse_the_others(rng):
    armed = {}
    for _ in range(600):
        bounds = Bounds(rng.uniform(0.005, 0.05))
        timer = Timer(bounds.d)
        bounds.set()
        armed[timer] = bounds
    stopped, events = [], []
    for timer in rng.sample(list(armed), 400):
        if rng.random() < 0.5:
            timer.stop()
            del armed[timer]
            stopped.append(timer)
        else:
            bounds = Bounds(rng.choice([0, 0.001, 0.03, 0.06]))
            timer.reset(bounds.d)
            bounds.set()
            armed[timer] = bounds
    for timer, bounds in armed.items():
        events.append((bounds, timer.c.recv()))
    events.sort(key=lambda event: (event[1], event[0].earliest))
    assert_in_order(events)
    let_fire(0.001)
    assert all(is_empty(timer.c) for timer in armed)
    assert all(is_empty(timer.c) for timer in stopped)
    assert not any(timer.stop() for timer in stopped)


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
