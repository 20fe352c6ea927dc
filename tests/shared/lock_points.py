"""Places where the standard library waits for a thread or goroutine.

A point is something that waits. `wait` does it where it would take for ever, `wake` lets one that
waits go on, from a goroutine or a thread, and `limited(seconds)` waits for so long at most.
"""

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from gofer import Chan, go, gosched


class Point(NamedTuple):
    wait: object
    wake: object
    limited: object = None
    late: object = None  # what limited() returns, or the exception it raises


POINTS = {}


def point(make):
    POINTS[make.__name__] = make
    return make


@point
def lock():
    it = threading.Lock()
    it.acquire()
    return Point(it.acquire, it.release, lambda s: it.acquire(timeout=s), False)


@point
def lock_in_a_with():
    it = threading.Lock()
    it.acquire()

    def wait():
        with it:
            assert it.locked()
        it.acquire()

    return Point(wait, it.release)


@point
def rlock():
    it = threading.RLock()
    gate, held = Chan(1), Chan()

    def hold():
        with it, it:
            held.send(None)
            gate.recv()

    go(hold)
    held.recv()

    def wait(seconds=-1):
        if not it.acquire(timeout=seconds):
            return False
        with it:
            it.release()
        return True

    return Point(wait, lambda: gate.send(None), wait, False)


def notify(condition):
    """One that waits, or is about to."""
    while True:
        with condition:
            if condition._waiters:
                condition.notify()
                return
        gosched()


@point
def condition():
    it = threading.Condition()

    def wait(seconds=None):
        with it:
            return it.wait(seconds)

    return Point(wait, lambda: notify(it), wait, False)


@point
def condition_of_a_lock():
    it = threading.Condition(threading.Lock())

    def wait(seconds=None):
        with it:
            return it.wait(seconds)

    return Point(wait, lambda: notify(it), wait, False)


@point
def event():
    it = threading.Event()
    return Point(it.wait, it.set, it.wait, False)


@point
def semaphore():
    it = threading.Semaphore(0)
    return Point(it.acquire, it.release, lambda s: it.acquire(timeout=s), False)


@point
def barrier():
    it = threading.Barrier(2)
    return Point(it.wait, it.wait)


@point
def queue_get():
    it = queue.Queue()
    return Point(it.get, lambda: it.put(1), lambda s: it.get(timeout=s), queue.Empty)


@point
def queue_put():
    it = queue.Queue(1)
    it.put(1)
    return Point(lambda: it.put(2), it.get, lambda s: it.put(2, timeout=s), queue.Full)


@point
def queue_join():
    it = queue.Queue()
    it.put(1)
    return Point(it.join, it.task_done)


@point
def simple_queue():
    it = queue.SimpleQueue()
    return Point(it.get, lambda: it.put(1), lambda s: it.get(timeout=s), queue.Empty)


@point
def simple_queue_by_position():
    it = queue.SimpleQueue()
    return Point(
        lambda: it.get(True), lambda: it.put_nowait(1), lambda s: it.get(True, s), queue.Empty
    )


@point
def future():
    it = Future()
    return Point(it.result, lambda: it.set_result(1), it.result, TimeoutError)


@point
def thread_join():
    end = threading.Event()
    it = threading.Thread(target=end.wait, daemon=True)
    it.start()
    return Point(it.join, end.set, it.join, None)


@point
def executor_shutdown():
    it, end = ThreadPoolExecutor(1), threading.Event()
    it.submit(end.wait)
    return Point(it.shutdown, end.set)


NO_LIMIT = {"lock_in_a_with", "barrier", "queue_join", "executor_shutdown"}


def made(name):
    """The point, which is woken in the end: threads and goroutines wait for that."""
    it = POINTS[name]()
    woken = []

    def wake():
        woken.append(it.wake)
        it.wake()

    yield it._replace(wake=wake)
    if not woken and name not in ("barrier", "condition", "condition_of_a_lock"):
        it.wake()
