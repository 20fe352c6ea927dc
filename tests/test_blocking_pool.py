"""`blocking`: the pool of threads.

What is said of threads is looked at inside the calls, or when the pool has come to a state that
`until` waits for.
"""

import sys
import threading
from threading import get_ident

import pytest

from gofer import Group, blocking, fork

from shared.gates import Gate
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left", "pool")

module = sys.modules["gofer.blocking"]  # `blocking` is the function


# --- the pool -----------------------------------------------------------------------------------


def test_one_thread_makes_one_call_after_the_other(pool):
    threads = {blocking(get_ident) for _ in range(100)}
    assert len(threads) == len(pool._workers) == 1


def test_the_pool_grows_on_demand(pool, gate, idle, until):
    tasks = [fork(blocking, gate, n) for n in range(30)]
    until(lambda: len(gate.entered) == 30)
    gate.open()
    assert [task.join() for task in tasks] == list(range(30))
    idle(30)


def test_idle_threads_leave(pool, gate, until):
    pool.rest = 0.001
    tasks = [fork(blocking, gate, n) for n in range(10)]
    until(lambda: len(gate.entered) == 10)
    threads = [worker.thread for worker in pool._workers]
    gate.open()
    for task in tasks:
        task.join()
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert not pool._workers
    assert blocking(int) == 0


def test_idle_threads_rest_for_ten_seconds():
    assert module._Pool().rest == 10


def test_who_was_idle_last_is_the_next_at_work(gate, idle, until):
    """So that the others can leave."""
    tasks = [fork(blocking, gate) for _ in range(5)]
    until(lambda: len(gate.entered) == 5)
    gate.open()
    for task in tasks:
        task.join()
    idle(5)
    assert len({blocking(get_ident) for _ in range(50)}) == 1


def test_no_more_at_a_time_than_the_limit(pool, gate, until):
    assert blocking.limit(3) == 512
    assert blocking.limit() == 3
    tasks = [fork(blocking, gate, n) for n in range(10)]
    until(lambda: len(gate.entered) == 3 and len(pool._waiting) == 7)
    assert len(pool._workers) == 3
    gate.open()
    assert [task.join() for task in tasks] == list(range(10))


def test_first_come_first_served(pool, gate, until, parked):
    blocking.limit(1)
    first = fork(blocking, gate)
    until(lambda: gate.entered)
    order, tasks = [], []
    for n in range(20):
        tasks.append(fork(blocking, order.append, n))
        parked(tasks[-1])
    gate.open()
    for task in [first, *tasks]:
        task.join()
    assert order == list(range(20))


def test_a_higher_limit_starts_those_that_wait(pool, gate, until):
    blocking.limit(1)
    tasks = [fork(blocking, gate, n) for n in range(5)]
    until(lambda: len(pool._waiting) == 4)
    blocking.limit(4)
    until(lambda: len(gate.entered) == 4)
    assert len(pool._waiting) == 1
    gate.open()
    assert [task.join() for task in tasks] == list(range(5))


def test_a_lower_limit_holds_for_idle_threads_too(pool, gate, idle, until):
    tasks = [fork(blocking, gate) for _ in range(5)]
    until(lambda: len(gate.entered) == 5)
    gate.open()
    for task in tasks:
        task.join()
    idle(5)
    blocking.limit(2)
    again = Gate()
    tasks = [fork(blocking, again) for _ in range(5)]
    until(lambda: len(again.entered) == 2 and len(pool._waiting) == 3)
    again.open()
    for task in tasks:
        task.join()


def test_threads_beyond_a_lower_limit_leave(pool, gate, idle, until):
    tasks = [fork(blocking, gate) for _ in range(5)]
    until(lambda: len(gate.entered) == 5)
    blocking.limit(2)
    gate.open()
    for task in tasks:
        task.join()
    idle(2)


@pytest.mark.parametrize("n", [0, -1])
def test_a_limit_below_one(n):
    with pytest.raises(ValueError, match="no call could ever be made"):
        blocking.limit(n)
    assert blocking.limit() == 512


def test_thousands_of_calls_at_once(pool):
    blocking.limit(20)
    with Group() as g:
        tasks = [g.go(blocking, pow, n, 2) for n in range(3000)]
    assert [task.join() for task in tasks] == [n * n for n in range(3000)]
    assert len(pool._workers) <= 20


def test_several_workers(pool):
    tasks = [s(lambda: [blocking(int, k) for k in range(50)]) for s in (fork, elsewhere) * 4]
    assert [task.join() for task in tasks] == [list(range(50))] * 8


# --- no more threads ----------------------------------------------------------------------------


@pytest.fixture
def no_threads(monkeypatch):
    """From now on the system has no more threads."""
    refused = []

    def start(self):
        refused.append(1)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    return refused


def test_the_first_thread_can_not_be_had(pool, no_threads, monkeypatch):
    log = []
    with pytest.raises(RuntimeError, match="can't start new thread"):
        blocking(log.append, 1)
    assert (log, len(pool._workers), len(pool._waiting)) == ([], 0, 0)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_pool", pool)
    assert blocking(int) == 0


def test_those_that_are_there_do_it(pool, gate, no_threads, until, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(module, "_pool", pool)
    first = fork(blocking, gate, 0)
    until(lambda: gate.entered)
    refused = []

    def start(self):
        refused.append(self)
        raise MemoryError

    monkeypatch.setattr(threading.Thread, "start", start)
    tasks = [fork(blocking, int, n) for n in range(5)]
    until(lambda: len(pool._waiting) == 5)
    until(lambda: refused and pool._coming is None)  # who came meanwhile relied on that one
    gate.open()
    assert [first.join(), *(task.join() for task in tasks)] == [0, 0, 1, 2, 3, 4]
    assert len(pool._workers) == 1


def test_an_interrupt_while_a_thread_is_started(pool, monkeypatch):
    class Interrupt(BaseException):
        pass

    def start(self):
        raise Interrupt

    log = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(Interrupt):
            blocking(log.append, 1)
    assert (len(pool._workers), len(pool._waiting)) == (0, 0)
    blocking(log.append, 2)
    assert log == [2]


def test_an_interrupt_when_the_thread_has_started(pool, monkeypatch, until):
    class Interrupt(BaseException):
        pass

    real = threading.Thread.start

    def start(self):
        real(self)
        until(lambda: gate.entered)
        raise Interrupt

    gate = Gate()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(Interrupt):
            blocking(gate)
    gate.open()
    until(lambda: len(pool._idle) == len(pool._workers) == 1)
    assert blocking(int) == 0
