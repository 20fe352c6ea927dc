"""Threads that wake one goroutine and end: it wakes, and is not taken for a deadlock meanwhile."""

import queue
import socket
import threading
import time
from contextlib import closing, contextmanager

import pytest

from gofer import Chan, Group, Mutex, runtime

from shared import FREE_THREADED

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative")


# Each gives what a goroutine waits in, and what a thread wakes it with. A daemon counts as one that
# may wake somebody where that somebody waits for a lock of CPython's or a descriptor.


def simple_queue():
    items = queue.SimpleQueue()
    return items.get, lambda: items.put(1)


def bounded_queue():
    items = queue.Queue()
    return items.get, lambda: items.put(1)


def event():
    happened = threading.Event()
    return happened.wait, happened.set


def lock():
    held = threading.Lock()
    held.acquire()
    return held.acquire, held.release


def semaphore():
    permits = threading.Semaphore(0)
    return permits.acquire, permits.release


def receive():
    channel = Chan()
    return channel.recv, lambda: channel.send(1)


def send():
    channel = Chan()
    return lambda: channel.send(1), channel.recv


def close():
    channel = Chan()
    return channel.recv_ok, channel.close


def mutex():
    held = Mutex()
    held.lock()
    return held.lock, held.unlock


OF_CPYTHON = [simple_queue, bounded_queue, event, lock, semaphore]
OF_GOFER = [receive, send, close, mutex]


@contextmanager
def pair():
    a, b = socket.socketpair()
    with closing(a), closing(b):
        yield lambda: a.recv(1), lambda: b.send(b"x")


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("many", [1, 3])
def test_who_is_woken_by_a_thread_that_ends(rng, much, workers, many):
    runtime.gomaxprocs(workers)

    def once(wait, wake, daemon):
        delay = rng.random() * 0.002 if rng.random() < 0.3 else 0

        def body():
            time.sleep(delay)
            wake()

        thread = threading.Thread(target=body, daemon=daemon)
        thread.start()
        wait()
        if rng.random() < 0.5:
            thread.join()

    def wait_and_wake():
        for _ in range(much(100)):
            how = rng.choice([*OF_CPYTHON, *OF_GOFER, pair])
            daemon = how not in OF_GOFER and rng.random() < 0.5
            if how is pair:
                with pair() as (wait, wake):
                    once(wait, wake, daemon)
            else:
                once(*how(), daemon)

    with Group() as g:
        for _ in range(many):
            g.go(wait_and_wake)


def test_goroutines_and_threads_empty_one_queue(much, until, spawn_thread):
    """Who finds that another has been quicker goes on waiting."""
    items, taken = queue.SimpleQueue(), []
    n = much(10_000 if FREE_THREADED else 200)  # under the GIL they take turns of 5 ms

    def take():
        while (item := items.get()) is not None:
            taken.append(item)

    threads = [spawn_thread(take) for _ in range(2)]
    with Group() as g:
        for _ in range(4):
            g.go(take)
        for item in range(n):
            items.put(item)
            until(lambda item=item: len(taken) == item + 1)
        for _ in range(6):
            items.put(None)
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(n))
