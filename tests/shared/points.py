"""The ways to wait.

A point is one of them: `wait` does it where it would take for ever, `at_once` where it needs no
waiting. `gate` is what the goroutines that make it so wait for.
"""

from contextlib import suppress
from functools import partial
from typing import NamedTuple

from gofer import (
    Chan,
    Cond,
    Goroutine,
    Group,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    Ticker,
    Timer,
    WaitGroup,
    after,
    current,
    fork,
    go,
    gosched,
    select,
    shield,
    sleep,
)
from gofer.sync import SingleFlight, once_value

from shared.clock import LONG


class Point(NamedTuple):
    wait: object
    at_once: object


POINTS = {}


def point(make):
    POINTS[make.__name__] = make
    return make


def full():
    ch = Chan(1)
    ch.send(1)
    return ch


def locked(lock):
    lock.lock()
    return lock


def closed():
    ch = Chan()
    ch.close()
    return ch


def enter(manager):
    with manager:
        pass


@point
def send(gate):
    return Point(partial(Chan().send, 1), partial(Chan(1).send, 1))


@point
def send_to_a_full_channel(gate):
    return Point(partial(full().send, 1), partial(Chan(1).send, 1))


@point
def recv(gate):
    return Point(Chan().recv, full().recv)


@point
def recv_ok(gate):
    return Point(Chan().recv_ok, closed().recv_ok)


@point
def iteration(gate):
    return Point(partial(list, Chan()), partial(list, closed()))


@point
def views(gate):
    return Point(Chan().receiver.recv, partial(Chan(1).sender.send, 1))


@point
def select_of_two(gate):
    return Point(
        partial(select, Chan().recv, (full().send, 1)), partial(select, Chan().recv, full().recv)
    )


@point
def select_of_nothing(gate):
    return Point(select, partial(select, default=True))


@point
def select_of_never_ready_ones(gate):
    return Point(partial(select, None, None), partial(select, None, closed().recv_ok))


@point
def mutex(gate):
    return Point(locked(Mutex()).lock, Mutex().lock)


@point
def with_mutex(gate):
    return Point(partial(enter, locked(Mutex())), partial(enter, Mutex()))


@point
def write_lock(gate):
    return Point(locked(RWMutex()).lock, RWMutex().lock)


@point
def write_lock_behind_a_reader(gate):
    rw = RWMutex()
    rw.rlock()
    return Point(rw.lock, RWMutex().lock)


@point
def read_lock(gate):
    return Point(locked(RWMutex()).rlock, RWMutex().rlock)


@point
def with_reading(gate):
    return Point(partial(enter, locked(RWMutex()).reading()), partial(enter, RWMutex().reading()))


@point
def with_writing(gate):
    return Point(partial(enter, locked(RWMutex()).writing()), partial(enter, RWMutex().writing()))


@point
def acquire(gate):
    sema = Semaphore(1)
    sema.acquire()
    return Point(sema.acquire, Semaphore(1).acquire)


@point
def acquire_several(gate):
    sema = Semaphore(3)
    sema.acquire(2)
    return Point(partial(sema.acquire, 2), partial(Semaphore(3).acquire, 3))


@point
def acquire_behind_one_that_wants_more(gate):
    sema = Semaphore(3)
    sema.acquire()
    first = fork(sema.acquire, 3)
    wait_for(first)
    gate.at_close(sema.release)
    return Point(sema.acquire, Semaphore(1).acquire)


@point
def wait_group(gate):
    wg = WaitGroup()
    wg.add()
    return Point(wg.wait, WaitGroup().wait)


@point
def with_wait_group(gate):
    wg = WaitGroup()
    wg.add()
    return Point(partial(enter, wg), partial(enter, WaitGroup()))


@point
def join(gate):
    return Point(go(gate.wait).join, ended(go(int)).join)


@point
def join_of_a_task(gate):
    return Point(fork(gate.wait).join, ended(fork(int)).join)


@point
def exception_of_a_task(gate):
    return Point(fork(gate.wait).exception, ended(fork(int)).exception)


@point
def cond(gate):
    mutex = Mutex()
    cond = Cond(mutex)

    def wait():
        with mutex:
            try:
                cond.wait()
            finally:
                assert not mutex.try_lock()

    return Point(wait, cond.signal)


@point
def once(gate):
    once = Once()
    wait_for(fork(once.do, gate.wait))
    done = Once()
    done.do(int)
    return Point(partial(once.do, int), partial(done.do, int))


@point
def value_made_once(gate):
    value, quick = once_value(gate.wait), once_value(int)
    wait_for(fork(value))
    return Point(value, quick)


@point
def single_flight(gate):
    flight = SingleFlight()
    wait_for(fork(flight.do, 1, gate.wait))
    return Point(partial(flight.do, 1, int), partial(flight.do, 2, int))


@point
def sleep_long(gate):
    return Point(partial(sleep, LONG), current)


@point
def after_long(gate):
    return Point(after(LONG).recv, fired(after(0)).recv)


@point
def timer(gate):
    return Point(Timer(LONG).c.recv, fired(Timer(0).c).recv)


@point
def ticker(gate):
    return Point(partial(next, Ticker(LONG)), current)


@point
def place_in_a_group(gate):
    groups = Chan()

    def owner():
        with Group(limit=1) as g:
            g.go(gate.wait)
            groups.send(g)

    go(owner)
    with Group(limit=1) as roomy:
        pass
    g = groups.recv()

    def at_once():
        with suppress(RuntimeError):
            roomy.go(int)

    return Point(partial(g.go, int), at_once)


@point
def edge_of_a_group(gate):
    def member(owner):
        try:
            Chan().recv()
        finally:
            with shield():
                wait_for(owner)

    def wait():
        with Group() as g:
            g.go(member, current())

    return Point(wait, partial(enter, Group()))


class Gate:
    """Holds until it is closed, whatever becomes of who waits for it."""

    def __init__(self):
        self._ch = Chan()
        self._closers = []

    def wait(self):
        with shield():
            self._ch.recv_ok()

    def at_close(self, fn):
        self._closers.append(fn)

    def close(self):
        self._ch.close()
        for fn in self._closers:
            fn()


def wait_for(goroutine):
    while goroutine.state != "waiting":
        gosched()


def ended(goroutine):
    Goroutine.join(goroutine)
    return goroutine


def fired(ch):
    sleep(0.001)  # has the later deadline, in the same heap
    return ch
