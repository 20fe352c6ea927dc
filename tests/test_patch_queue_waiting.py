"""`queue.Queue` and its like under `patch()`: waiting, cancelling, threads with goroutines."""

import contextlib
import queue
import sys
import threading

import pytest

from gofer import Cancelled, Group, cancel_scope, fork, gosched, patch, unpatch

from shared import FREE_THREADED, in_thread
from shared.queues import EVERY_REFERENCE, in_c, run_in_python

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")

MANY = 200

# --- join, cancellation, unpatch ----------------------------------------------------------------


def test_join(cooperative, parked):
    q = queue.Queue()
    for n in range(MANY):
        q.put(n)
    joining = [fork(q.join) for _ in range(3)]
    thread = threading.Thread(target=q.join)
    thread.start()
    parked(*joining)
    for _ in range(MANY - 1):
        q.get()
        q.task_done()
        assert not any(task.done for task in joining)
    q.task_done()
    for waiting in [*joining, thread]:
        waiting.join()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()
    assert q.unfinished_tasks == 0


def test_in_a_cancelled_scope(cooperative):
    q = queue.Queue(2)
    with cancel_scope() as scope:
        scope.cancel()
        q.put(1)
        q.put(2)
        with pytest.raises(Cancelled):
            q.put(3)
        with pytest.raises(queue.Full):
            q.put_nowait(3)
        assert [q.get(), q.get(timeout=1)] == [1, 2]
        q.task_done()
        with pytest.raises(Cancelled):
            q.get()
        with pytest.raises(queue.Empty):
            q.get_nowait()
    assert q.unfinished_tasks == 1
    assert not q.not_empty._waiters
    assert not q.not_full._waiters


def test_references_over_patch_and_unpatch():
    q = queue.Queue(5)
    taken_before = [q.put, q.get, queue.Queue.put, queue.Queue.get]
    for _ in range(3):
        patch()
        taken_meanwhile = [q.put, q.get, queue.Queue.put, queue.Queue.get]
        if EVERY_REFERENCE and not FREE_THREADED:
            assert run_in_python(taken_before[0], 0) == []
            assert run_in_python(taken_before[3], q) == []
        for put, get, put_to, get_from in (taken_before, taken_meanwhile):
            task = fork(get)
            while not q.not_empty._waiters:
                gosched()
            put(1)
            assert task.join() == 1
            put_to(q, 2)
            assert get_from(q) == 2
        unpatch()
        for put, get, put_to, get_from in (taken_before, taken_meanwhile):
            assert run_in_python(put, 3) == ["put", "_qsize", "_put"]
            assert get(timeout=1) == 3
            put_to(q, 4)
            assert in_thread(get_from, q) == 4


# --- all at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_threads_and_goroutines_at_once(cooperative, make, rng):
    q, got, refused = make(rng.choice([1, 2, 7, 1000])), [], []
    sides = ["goroutine", "thread"] * 2
    seeds = [rng.random() for _ in range(8)]

    def produce(me, seed):
        mine = type(rng)(seed)
        for n in range(MANY):
            if mine.random() < 0.2:
                with contextlib.suppress(queue.Full):
                    q.put_nowait((me, n))
                    continue
                refused.append(n)
            q.put((me, n), timeout=None if mine.random() < 0.5 else 60)

    def consume(me, seed):
        mine = type(rng)(seed)
        for _ in range(MANY):
            if mine.random() < 0.2:
                with contextlib.suppress(queue.Empty):
                    got.append(q.get(False))
                    q.task_done()
                    continue
            got.append(q.get(timeout=None if mine.random() < 0.5 else 60))
            q.task_done()

    threads, tasks = [], []
    for me, (side, seed) in enumerate(zip(sides * 2, seeds, strict=True)):
        body = produce if me < 4 else consume
        if side == "goroutine":
            tasks.append(fork(body, me, seed))
        else:
            threads.append(threading.Thread(target=body, args=(me, seed)))
            threads[-1].start()
    for each in tasks + threads:
        each.join()
    q.join()
    assert sorted(got) == [(me, n) for me in range(4) for n in range(MANY)]
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)
    assert not q.not_empty._waiters
    assert not q.not_full._waiters


@in_c
def test_a_pair_is_mostly_in_c(cooperative, one_worker):
    q, entered = queue.Queue(100), []

    def profile(frame, event, arg):
        if event == "call" and frame.f_globals is vars(queue):
            entered.append(frame.f_code.co_name)

    def produce():
        for n in range(20 * MANY):
            q.put(n)

    def consume():
        assert [q.get() for _ in range(20 * MANY)] == list(range(20 * MANY))

    def count():
        return sum(entered.count(name) for name in ("put", "get"))

    sys.setprofile(profile)
    try:
        with Group() as g:
            g.go(produce)
            g.go(consume)
    finally:
        sys.setprofile(None)
    assert count() < 4 * MANY
