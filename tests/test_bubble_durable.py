"""What is durable in a bubble: for whom its clock may move."""

import threading

import pytest

from gofer import (
    Chan,
    Cond,
    Group,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    Ticker,
    Timer,
    WaitGroup,
    after,
    after_func,
    context,
    current,
    fork,
    go,
    gosched,
    select,
    sleep,
)
from gofer.sync import SingleFlight
from gofer.testing import bubble

from shared import is_empty
from shared.bubbles import HOUR, release_from_outside

pytestmark = pytest.mark.usefixtures("nothing_left")


def waits_for_send():
    ch = Chan()
    return lambda: ch.send(1), ch.recv


def waits_for_recv():
    ch = Chan()
    return ch.recv, lambda: ch.send(1)


def waits_for_close():
    ch = Chan()
    return ch.recv_ok, ch.close


def waits_for_room():
    ch = Chan(1)
    ch.send(0)
    return lambda: ch.send(1), ch.recv


def waits_in_select():
    one, other = Chan(), Chan()
    return lambda: select(one.recv, (other.send, 2)), other.recv


def waits_for_mutex():
    mutex = Mutex()
    mutex.lock()
    return mutex.lock, mutex.unlock


def waits_to_read():
    lock = RWMutex()
    lock.lock()
    return lock.rlock, lock.unlock


def waits_to_write():
    lock = RWMutex()
    lock.rlock()
    return lock.lock, lock.runlock


def waits_for_semaphore():
    semaphore = Semaphore(2)
    semaphore.acquire()
    return lambda: semaphore.acquire(2), semaphore.release


def waits_for_wait_group():
    group = WaitGroup()
    group.add()
    return group.wait, group.done


def waits_for_cond():
    mutex = Mutex()
    cond = Cond(mutex)

    def waiter():
        with mutex:
            cond.wait()

    return waiter, cond.signal


def waits_for_goroutine():
    gate = Chan()
    return go(gate.recv).join, lambda: gate.send(1)


def waits_for_task():
    gate = Chan()
    return fork(gate.recv).exception, lambda: gate.send(1)


def waits_for_once():
    gate, once = Chan(), Once()
    first = go(once.do, gate.recv)
    while first.state != "waiting":
        gosched()
    return lambda: once.do(int), lambda: gate.send(1)


def waits_for_single_flight():
    gate, flights = Chan(), SingleFlight()
    first = go(flights.do, 1, gate.recv)
    while first.state != "waiting":
        gosched()
    return lambda: flights.do(1, int), lambda: gate.send(1)


def waits_for_context():
    ctx, cancel = context.with_cancel(context.background())
    return lambda: ctx.done.recv_ok(), cancel


WAYS = [value for name, value in globals().items() if name.startswith("waits_")]


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_for_what_was_made_inside_lets_time_pass(way, elapsed):
    with bubble():
        elapsed()
        waiter, release = way()

        def later():
            sleep(HOUR)
            release()

        go(later)
        waiter()
        assert elapsed() == HOUR


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_for_what_was_made_outside_holds_up_the_clock(way, elapsed):
    waiter, release = way()
    actor = release_from_outside(release)
    with bubble():
        elapsed()
        late = after(HOUR)
        waiter()
        assert elapsed() == 0
        assert is_empty(late)
    actor.join()


def test_a_select_with_one_case_from_outside_holds_up_the_clock(elapsed):
    ch = Chan()
    actor = release_from_outside(ch.close)
    with bubble():
        elapsed()
        assert select(ch.recv_ok, Chan().recv, after(HOUR).recv) == (0, (None, False))
        assert elapsed() == 0
    actor.join()


def test_others_sleep_on_while_one_waits_for_the_outside(elapsed):
    """The clock stands for all, and then goes on."""
    gate = Chan()
    with bubble():
        elapsed()
        with Group() as g:
            sleepers = [g.go(sleep, n * HOUR) for n in range(1, 4)]
            waiter = g.go(gate.recv)
            opener.send(gate)
            waiter.join()
            assert elapsed() == 0
            sleepers[2].join()
        assert elapsed() == 3 * HOUR


opener = Chan(1)


@pytest.fixture(autouse=True)
def somebody_outside():
    """Opens the gate that it is sent, once, when somebody has come to it."""

    def open_gate():
        gate = opener.recv()
        if gate is not None:
            gate.send("open")

    g = go(open_gate)
    yield
    if not g.done:
        opener.send(None)
    g.join()


def test_a_timer_from_outside(elapsed):
    timer = Timer(0.001)
    with bubble():
        elapsed()
        late = after(HOUR)
        timer.c.recv()
        assert (elapsed(), is_empty(late)) == (0, True)
        timer.reset(0.001)  # of the time outside, as ever
        timer.c.recv()
        assert (elapsed(), is_empty(late)) == (0, True)


def test_a_timer_taken_out_of_its_bubble():
    with bubble():
        timers = [Timer(HOUR), after_func(HOUR, int), Timer(0)]
        ticker = Ticker(HOUR)
    for timer in timers[:2]:
        assert not timer.stop()
    assert timers[2].stop()
    for timer in timers:
        with pytest.raises(RuntimeError, match=r"reset\(\) of a timer outside of the bubble"):
            timer.reset(1)
    with pytest.raises(RuntimeError, match="outside of the bubble"):
        ticker.reset(1)
    with bubble():
        with pytest.raises(RuntimeError, match="outside of the bubble"):
            timers[0].reset(1)


def test_a_thread_outside_acts(elapsed):
    ch = Chan()
    main = current()

    def act():
        while main.state != "waiting":
            sleep(0)
        ch.send("from a thread")

    thread = threading.Thread(target=act)
    thread.start()
    with bubble():
        elapsed()
        late = after(HOUR)
        assert ch.recv() == "from a thread"
        assert (elapsed(), is_empty(late)) == (0, True)
    while thread.is_alive():
        gosched()
    thread.join()
