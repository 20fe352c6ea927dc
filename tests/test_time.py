"""sleep, after, after_func, Timer, Ticker.

No test expects that something happens soon. What is tested is order: a time delivered lies between
the moments that bound it, and what has the earlier deadline comes first. Where a test must know
that a timer has fired, it waits for a second one with a later deadline.
"""

import math
import threading
import time
from datetime import timedelta

import pytest

from gofer import Chan, RecvChan, Ticker, Timer, after, after_func, current, fork, go, select, sleep
from gofer.errors import Canceled

from shared import Token, is_empty
from shared.clock import DURATIONS, LONG, ROUNDING, Bounds, assert_in_order, let_fire

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- sleep --------------------------------------------------------------------------------------


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
def test_sleepers_wake_in_the_order_of_their_deadlines(until, rng):
    log, sleepers = [], []

    def body(bounds):
        sleep(bounds.d)
        log.append((bounds, time.monotonic()))

    for _ in range(100):
        bounds = Bounds(rng.uniform(0.001, 0.05))
        sleepers.append(go(body, bounds))
        until(lambda: sleepers[-1].state in ("waiting", "dead"))
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


@pytest.mark.parametrize("n", [1, 2, 3, 60, 61])
@pytest.mark.usefixtures("one_worker")
def test_goroutines_that_only_start_others_and_end_hold_up_no_timer(n):
    def chain():
        if not stopped:
            go(chain)

    stopped = []
    for _ in range(n):
        go(chain)
    sleep(0.001)
    stopped.append(True)


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
