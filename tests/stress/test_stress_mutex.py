"""Mutex and RWMutex under load: they exclude, nobody waits for ever, also under cancellation."""

import pytest

from gofer import Cancelled, Chan, Mutex, RWMutex, WaitGroup, current, fork, go, gosched
from gofer.errors import Canceled
from gofer.sync import atomic

pytestmark = pytest.mark.usefixtures("nothing_left")


class Counted:
    """Sees whether those inside are as many as may be. Changed only under the lock it watches."""

    def __init__(self):
        self.inside = 0
        self.most = 0
        self.entered = 0

    def __enter__(self):
        inside = self.inside + 1
        self.inside = inside
        self.most = max(self.most, inside)
        self.entered += 1

    def __exit__(self, *exc):
        self.inside -= 1


# --- Mutex --------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["nothing", "yields", "waits"])
def test_a_mutex_excludes(inside, much, spawn_thread):
    mutex, seen, rounds, ended = Mutex(), Counted(), much(500), WaitGroup()
    pipe = Chan(1)

    def body():
        for _ in range(rounds):
            with mutex, seen:
                if inside == "yields":
                    gosched()
                elif inside == "waits":
                    pipe.send(None)
                    pipe.recv()
        ended.done()

    for n in range(12):
        ended.add()
        (spawn_thread if n % 4 == 0 else go)(body)
    ended.wait()
    assert (seen.inside, seen.most, seen.entered) == (0, 1, 12 * rounds)
    assert mutex.try_lock()


def test_all_ways_to_lock_exclude_each_other(much, rng):
    mutex, seen, rounds = Mutex(), Counted(), much(500)

    def body(seed):
        for n in range(rounds):
            if (seed + n) % 3 == 0:
                while not mutex.try_lock():
                    gosched()
            else:
                mutex.lock()
            with seen:
                if (seed + n) % 5 == 0:
                    gosched()
            mutex.unlock()

    tasks = [fork(body, n) for n in range(16)]
    for task in tasks:
        task.join()
    assert (seen.inside, seen.most, seen.entered) == (0, 1, 16 * rounds)


def test_a_mutex_is_handed_from_one_to_another(much):
    """Locked by one goroutine and unlocked by the next: a baton."""
    n, rounds = 20, much(200)
    batons = [Mutex() for _ in range(n)]
    for baton in batons:
        baton.lock()

    def runner(k):
        for _ in range(rounds):
            batons[k].lock()
            batons[(k + 1) % n].unlock()

    tasks = [fork(runner, k) for k in range(n)]
    batons[0].unlock()
    for task in tasks:
        task.join()
    assert batons[0].try_lock()


def test_a_cancelled_waiter_takes_no_lock_and_no_wake_up_with_it(much, rng):
    for _ in range(much(60)):
        mutex, seen, n = Mutex(), Counted(), 60
        finished = []

        def body(mutex=mutex, seen=seen, finished=finished):
            try:
                for _ in range(20):
                    with mutex, seen:
                        if rng.random() < 0.2:
                            gosched()
            except Cancelled:
                return
            finished.append(current())

        tasks = [fork(body) for _ in range(n)]
        cancelled = rng.sample(tasks, n // 2)
        for task in cancelled:
            if rng.random() < 0.5:
                gosched()
            task.cancel()
        for task in tasks:
            task.join()
        assert set(tasks) - set(cancelled) <= set(finished)
        assert (seen.inside, seen.most) == (0, 1)
        assert mutex.try_lock()


def test_an_unlock_and_a_cancellation_race(much, parked):
    """Whoever wins, the one behind gets the mutex."""
    for _ in range(much(1500)):
        mutex = Mutex()
        mutex.lock()
        first = fork(mutex.lock)
        parked(first)
        second = fork(mutex.lock)
        parked(second)
        unlocker = fork(mutex.unlock)
        first.cancel()
        unlocker.join()
        if first.exception() is None:
            assert second.state == "waiting"
            mutex.unlock()
        else:
            assert isinstance(first.exception(), Canceled)
        second.join()
        assert not mutex.try_lock()


def test_nobody_waits_for_ever_for_a_mutex(much):
    """Some take it again at once, all the time; the others come in all the same."""
    mutex, stop, served = Mutex(), [False], WaitGroup()

    def greedy():
        while not stop[0]:
            with mutex:
                gosched()

    def modest():
        for _ in range(much(20)):
            with mutex:
                pass
            gosched()
        served.done()

    hogs = [fork(greedy) for _ in range(4)]
    served.add(10)
    for _ in range(10):
        go(modest)
    served.wait()
    stop[0] = True
    for task in hogs:
        task.join()


# --- RWMutex ------------------------------------------------------------------------------------


def test_writers_exclude_all_and_readers_writers(much, spawn_thread):
    rw, ended = RWMutex(), WaitGroup()
    readers, writers = atomic.Int(), atomic.Int()
    table = [0, 0]

    def read():
        for n in range(much(200)):
            with rw.reading():
                readers.add(1)
                assert writers.load() == 0
                assert table[0] == table[1]
                if n % 3 == 0:
                    gosched()
                readers.add(-1)
        ended.done()

    def write():
        for n in range(much(50)):
            with rw.writing():
                assert writers.add(1) == 1
                assert readers.load() == 0
                table[0] += 1
                if n % 3:
                    gosched()
                table[1] += 1
                writers.add(-1)
        ended.done()

    ended.add(16)
    for n in range(16):
        (spawn_thread if n % 5 == 0 else go)(write if n % 4 == 0 else read)
    ended.wait()
    assert table == [4 * much(50)] * 2
    assert rw.try_lock()


def test_readers_and_writers_under_cancellation(much, rng):
    for _ in range(much(40)):
        rw, n = RWMutex(), 40

        def body(k, rw=rw):
            try:
                for _ in range(20):
                    with rw.writing() if k % 4 == 0 else rw.reading():
                        gosched()
            except Cancelled:
                return None
            return k

        tasks = [fork(body, k) for k in range(n)]
        cancelled = rng.sample(tasks, n // 2)
        for task in cancelled:
            gosched()
            task.cancel()
        for k, task in enumerate(tasks):
            assert task.join() in ((k, None) if task in cancelled else (k,))
        assert rw.try_lock()
