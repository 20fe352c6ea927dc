"""Destructors and weakref callbacks may wait, also in chains, and may raise."""

import gc
import sys
import threading
import weakref

import pytest

from gofer import Group, fork, gosched

from shared.parking import MANY, Park

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- destructors --------------------------------------------------------------------------------


def test_parking_in_a_chain_of_destructors():
    """Long chains are taken apart by the trashcan, which must belong to the goroutine."""
    log = []

    class Link:
        def __init__(self, next_one):
            self.next = next_one

        def __del__(self):
            log.append(1)
            gosched()

    def body():
        chain = None
        for _ in range(1000):
            chain = Link((chain,))
        del chain

    with Group() as g:
        for _ in range(5):
            g.go(body)
    gc.collect()
    assert len(log) == 5000


def test_destructors_of_another_threads_objects():
    log, done = [], []

    class Thing:
        def __del__(self):
            log.append(1)
            gosched()

    box = [[Thing() for _ in range(20)] for _ in range(10)]

    def drop():
        box.clear()
        done.append(1)

    def spin():
        while not done:
            gosched()

    thread = threading.Thread(target=drop)
    with Group() as g:
        for _ in range(3):
            g.go(spin)
        thread.start()
    thread.join()
    while len(log) < 200:
        gosched()
        gc.collect()
    assert len(log) == 200


def test_exceptions_in_destructors_and_callbacks(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(type(args.exc_value)))

    class Thing:
        def __del__(self):
            park()
            raise KeyError

    def body():
        thing = Thing()
        ref = weakref.ref(thing, lambda _: (park(), 1 / 0))
        del thing
        return ref()

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == [None] * MANY
    assert sorted(seen, key=str) == sorted([KeyError, ZeroDivisionError] * MANY, key=str)
