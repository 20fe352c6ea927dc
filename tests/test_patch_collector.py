"""The standard library in a finalizer that the collector calls, where no goroutine can park."""

import gc
import select
import subprocess
import sys
import threading
import time

import pytest

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")


def in_the_collector(wait):
    """What it returns."""
    seen = []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            seen.append(wait())

    Cycle()
    gc.collect()
    return seen


def polled(r):
    it = select.poll()
    it.register(r, select.POLLIN)
    return it.poll(1)


def child():
    return subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"]).wait()


def test_it_waits_as_a_thread_does(pair):
    a, b = pair
    assert in_the_collector(lambda: time.sleep(0.001)) == [None]
    assert in_the_collector(lambda: select.select([a], [], [], 0.001)) == [([], [], [])]
    assert in_the_collector(lambda: polled(a)) == [[]]
    assert in_the_collector(child) == [7]
    for limit in (None, 1000):
        a.settimeout(limit)
        thread = threading.Timer(0.01, b.sendall, [b"x"])
        thread.start()
        assert in_the_collector(lambda: a.recv(5)) == [b"x"]
        thread.join()
