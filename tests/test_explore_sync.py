"""gofer.sync under many schedules.

What of the library is Python may be interrupted before each of its lines (`within`).
"""

from collections import Counter

import pytest

import gofer
from gofer import (
    Chan,
    Cond,
    Group,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    WaitGroup,
    _guard,
    fork,
    go,
    gosched,
    sleep,
)
from gofer.errors import Canceled
from gofer.sync import Pool, SingleFlight, atomic, once_value
from gofer.testing import wait

from shared.schedules import every, many, outcome

pytestmark = pytest.mark.usefixtures("nothing_left")

LOCKS = [gofer.sync, _guard]


# --- locks --------------------------------------------------------------------------------------


class Room:
    """Counts who is in it: any number of readers, or one writer."""

    def __init__(self):
        self.inside = Counter()

    def enter(self, kind):
        self.inside[kind] += 1
        self.check()
        self.check()
        self.inside[kind] -= 1

    def check(self):
        assert self.inside["writer"] + bool(self.inside["reader"]) <= 1


def test_a_mutex_lets_in_one():
    def fn():
        room, mutex = Room(), Mutex()

        def work():
            with mutex:
                room.enter("writer")

        def tries():
            if mutex.try_lock():
                room.enter("writer")
                mutex.unlock()

        with Group() as g:
            g.go(work)
            g.go(work)
            g.go(tries)
        assert mutex.try_lock()

    every(fn, bound=1)
    many(fn)


def test_a_mutex_outlives_a_cancelled_waiter():
    """The wake-up that it may have got goes to the next in line."""

    def fn():
        mutex = Mutex()

        def work():
            with mutex:
                return "worked"

        mutex.lock()
        tasks = [fork(work) for _ in range(3)]
        tasks[0].cancel()
        mutex.unlock()
        assert outcome(tasks[0]) in ("worked", Canceled)
        assert [outcome(task) for task in tasks[1:]] == ["worked", "worked"]
        assert mutex.try_lock()

    every(fn, bound=1)
    many(fn)


def test_a_semaphore_keeps_its_permits():
    def fn():
        semaphore, held = Semaphore(3), atomic.Int()

        def work(n):
            semaphore.acquire(n)
            assert held.add(n) <= 3
            held.add(-n)
            semaphore.release(n)
            return "worked"

        tasks = [fork(work, n) for n in (2, 3, 1)]
        tasks[1].cancel()
        assert outcome(tasks[1]) in ("worked", Canceled)
        assert [outcome(tasks[0]), outcome(tasks[2])] == ["worked", "worked"]
        assert semaphore.try_acquire(3)

    every(fn, bound=1)
    many(fn, within=LOCKS)


def test_a_wait_group_waits_for_all():
    def fn():
        group, done = WaitGroup(), atomic.Int()
        group.add(2)

        def work():
            done.add(1)
            group.done()

        def waiter():
            group.wait()
            assert done.load() == 2

        with Group() as g:
            for task in (waiter, work, waiter, work):
                g.go(task)

    every(fn, bound=1)
    many(fn, within=LOCKS)


def test_readers_and_writers():
    def fn():
        room, lock = Room(), RWMutex()

        def read():
            with lock.reading():
                room.enter("reader")
            return "read"

        def write():
            with lock.writing():
                room.enter("writer")
            return "written"

        def tries():
            if lock.try_lock():
                room.enter("writer")
                lock.unlock()
            if lock.try_rlock():
                room.enter("reader")
                lock.runlock()

        tasks = [fork(read), fork(write), fork(read), fork(write)]
        go(tries)
        tasks[1].cancel()
        assert [outcome(tasks[n]) for n in (0, 2, 3)] == ["read", "read", "written"]
        assert outcome(tasks[1]) in ("written", Canceled)
        wait()
        assert lock.try_lock()

    many(fn, within=LOCKS)


def test_misuse_of_an_rwmutex_is_told():
    """Who unlocks what another one holds for reading is refused, whatever happens meanwhile."""

    def fn():
        lock = RWMutex()
        lock.rlock()
        go(lock.runlock)
        with pytest.raises(RuntimeError):
            lock.unlock()
        wait()
        assert lock.try_lock()

    every(fn, within=LOCKS)


# --- Cond ---------------------------------------------------------------------------------------


def test_a_signal_wakes_one():
    """Of two that wait one; also if one of them gives up just then."""

    def fn():
        mutex, woken = Mutex(), []
        cond = Cond(mutex)

        def waiter(n):
            with mutex:
                ready.send(None)
                cond.wait()
                woken.append(n)

        ready = Chan(2)
        tasks = [fork(waiter, n) for n in range(2)]
        for _ in tasks:
            ready.recv()
        with mutex:
            pass  # now both of them wait
        go(tasks[0].cancel)
        cond.signal()
        wait()
        if tasks[0].done and outcome(tasks[0]) is Canceled:
            assert woken == [1]
        else:
            assert woken == [0]
            cond.signal()
        assert outcome(tasks[1]) is None
        assert mutex.try_lock()

    every(fn, bound=1, within=LOCKS)
    many(fn, within=LOCKS)


def test_a_broadcast_wakes_all():
    def fn():
        mutex, open_now = Mutex(), []
        cond = Cond(mutex)

        def waiter():
            with mutex:
                while not open_now:
                    cond.wait()
            return "in"

        tasks = [fork(waiter) for _ in range(3)]
        with mutex:
            open_now.append(True)
        cond.broadcast()
        tasks[1].cancel()
        assert [outcome(tasks[0]), outcome(tasks[2])] == ["in", "in"]
        assert outcome(tasks[1]) in ("in", Canceled)

    many(fn, within=LOCKS)


def test_a_queue_made_of_a_cond():
    def fn():
        mutex, items = Mutex(), []
        not_empty, not_full = Cond(mutex), Cond(mutex)

        def put(item):
            with mutex:
                while len(items) == 1:
                    not_full.wait()
                items.append(item)
                not_empty.signal()

        def get():
            with mutex:
                while not items:
                    not_empty.wait()
                item = items.pop()
                not_full.signal()
            return item

        with Group() as g:
            getters = [g.go(get) for _ in range(3)]
            for n in range(3):
                g.go(put, n)
        assert sorted(task.join() for task in getters) == [0, 1, 2]

    many(fn, within=LOCKS)


# --- doing something once -----------------------------------------------------------------------


def test_once_is_once_and_done_when_it_returns():
    def fn():
        once, steps = Once(), []

        def first():
            steps.append("begun")
            gosched()
            steps.append("done")

        def caller():
            once.do(first)
            assert steps == ["begun", "done"]

        with Group() as g:
            for _ in range(3):
                g.go(caller)

    every(fn, bound=1, within=LOCKS)
    many(fn, within=LOCKS)


def test_a_value_whose_first_caller_is_cancelled():
    """The next one makes it, and all get the same."""

    def fn():
        calls = []

        @once_value
        def value():
            calls.append(None)
            sleep(1)
            return len(calls)

        tasks = [fork(value) for _ in range(3)]
        go(tasks[0].cancel)
        first, *others = map(outcome, tasks)
        assert others in ([1, 1], [2, 2])
        assert first in (Canceled, others[0])

    every(fn, bound=1, within=LOCKS)
    many(fn, within=LOCKS)


def test_single_flight_shares_one_call():
    def fn():
        flights, calls = SingleFlight(), atomic.Int()

        def load():
            n = calls.add(1)
            gosched()
            return n

        def caller():
            value, shared = flights.do("key", load)
            return value, shared

        with Group() as g:
            tasks = [g.go(caller) for _ in range(3)]
        got = Counter(task.join() for task in tasks)
        for (value, shared), times in got.items():
            assert shared == (times > 1), got
            assert (value, not shared) not in got
        assert sorted({value for value, _ in got}) == [*range(1, calls.load() + 1)]
        assert flights._calls == {}

    every(fn, bound=1, within=LOCKS)
    many(fn, within=LOCKS)


def test_single_flight_whose_worker_is_cancelled():
    def fn():
        flights, calls = SingleFlight(), []

        def load():
            calls.append(None)
            if len(calls) == 1:
                sleep(1)
            return "loaded"

        tasks = [fork(lambda: flights.do("key", load)[0]) for _ in range(3)]
        go(tasks[0].cancel)
        go(flights.forget, "key")
        assert outcome(tasks[0]) in ("loaded", Canceled)
        assert [outcome(task) for task in tasks[1:]] == ["loaded", "loaded"]
        assert flights._calls == {}

    many(fn, within=LOCKS)


def test_atomic_changes_are_whole():
    def fn():
        number, ref = atomic.Int(), atomic.Ref("nobody")

        def work(name):
            number.add(1)
            while True:
                old = number.load()
                if number.compare_and_swap(old, old + 10):
                    break
            return ref.compare_and_swap("nobody", name)

        with Group() as g:
            tasks = [g.go(work, name) for name in ("a", "b", "c")]
        assert number.load() == 33
        assert [task.join() for task in tasks].count(True) == 1

    many(fn, within=LOCKS)


def test_a_pool_gives_each_object_to_one():
    def fn():
        made, held = [], []

        def make():
            it = object()
            made.append(it)
            return it

        pool = Pool(make)

        def work():
            for _ in range(2):
                it = pool.get()
                assert it not in held
                held.append(it)
                held.remove(it)
                pool.put(it)

        with Group() as g:
            for _ in range(3):
                g.go(work)
        assert len(made) <= 3
        assert {pool.get() for _ in made} == set(made)
        assert len(pool._idle) == 0

    many(fn, within=LOCKS)
