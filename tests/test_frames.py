"""Frames of parked goroutines, and what they refer to, can be looked at and outlive them."""

import functools
import gc
import sys
import threading
import traceback
import weakref

import pytest

from gofer import Chan, fork, gosched

from shared.parking import MANY, Park, scrub

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- frames -------------------------------------------------------------------------------------


def names_from(frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        assert frame.f_lineno is None or frame.f_lineno > 0
        frame = frame.f_back
    return names


def test_frames_of_parked_goroutines_can_be_walked():
    frames = []

    def leaf(n):
        frames.append(sys._getframe())
        park()
        return n

    def key(n):
        return max([n], key=lambda m: leaf(m))

    def top(n):
        return sorted([n], key=key)

    def look():
        assert [names_from(frame) for frame in frames] == [
            ["leaf", "<lambda>", "key", "top"]
        ] * MANY
        assert [frame.f_locals["n"] for frame in frames] == list(range(MANY))
        assert [frame.f_back.f_back.f_back.f_locals["n"] for frame in frames] == list(range(MANY))

    park = Park(between=look)
    tasks = []
    for n in range(MANY):
        tasks.append(fork(top, n))
        while tasks[-1].state != "waiting":
            gosched()
    park.release(tasks)
    assert [task.join() for task in tasks] == [[n] for n in range(MANY)]


def test_frames_of_generators_can_be_walked():
    gens, gate = [], Chan()

    def count():
        yield gate.recv()

    def drive():
        gen = count()
        gens.append(gen)
        return [next(gen) for _ in range(1)]

    def outer():
        return functools.reduce(lambda a, b: drive(), [1, 2])

    task = fork(outer)
    while task.state != "waiting":
        gosched()
    for _ in range(3):
        scrub()
        names = names_from(gens[0].gi_frame)
        assert names[0] == "count"
        assert names[-3:] == ["drive", "<lambda>", "outer"]
        assert gens[0].gi_running
        gc.collect()
    gate.send(7)
    assert task.join() == [7]


def test_a_parked_frame_can_not_be_cleared():
    frames, gate = [], Chan()

    def body():
        local = [1, 2, 3]
        frames.append(sys._getframe())
        gate.recv()
        return local

    task = fork(body)
    while task.state != "waiting":
        gosched()
    with pytest.raises(RuntimeError):
        frames[0].clear()
    assert frames[0].f_locals["local"] == [1, 2, 3]
    gate.send(None)
    assert task.join() == [1, 2, 3]


def test_frames_outlive_their_goroutine():
    class Thing:
        pass

    frames, refs = [], []

    def body():
        thing = Thing()
        refs.append(weakref.ref(thing))
        frames.append(sys._getframe())
        park()

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    gc.collect()
    scrub()
    alive = {id(ref()) for ref in refs}
    assert {id(frame.f_locals["thing"]) for frame in frames} == alive
    for frame in frames:
        assert names_from(frame) == ["body"]
    frames.clear()
    tasks.clear()
    del frame
    gc.collect()
    assert [ref() for ref in refs] == [None] * MANY


def test_locals_of_parked_goroutines_live():
    class Thing:
        pass

    refs = []

    def body():
        thing = Thing()
        refs.append(weakref.ref(thing))
        park()
        assert refs
        return type(thing)

    def look():
        assert all(ref() is not None for ref in refs)

    park = Park(between=look)
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    del tasks
    gc.collect()
    assert all(ref() is None for ref in refs)


def test_current_frames_can_be_walked_while_others_are_parked():
    def body():
        return sorted([1], key=lambda n: park())

    def look():
        frames = sys._current_frames()
        assert frames[threading.get_ident()].f_code.co_name == "look"
        for frame in frames.values():
            assert names_from(frame)

    park = Park(between=look)
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)


def test_a_stack_ends_at_the_function_of_the_goroutine():
    def inner():
        return [entry.name for entry in traceback.extract_stack()]

    def outer():
        gosched()
        return inner()

    assert fork(outer).join() == ["outer", "inner"]


def test_functions_redefined_while_goroutines_are_in_them():
    """A reload drops a function that a parked goroutine is still in."""
    source = """
def work(self, park, n):
    kept = (n, "a" * 3, {n}.0, "x%d")
    park()
    return [kept, n * {n}, "value %d" % n, sorted([3, {n}, 1]), (lambda m: m + n)(1)]
"""

    def define(n):
        namespace = {}
        exec(source.replace("{n}", str(1000 + n)), namespace)
        return namespace["work"]

    classes = [type(f"Class{n}", (), {"work": define(n)}) for n in range(100)]
    expected = [cls().work(lambda: 7, n) for n, cls in enumerate(classes)]
    functions = [weakref.ref(cls.work) for cls in classes]
    park = Park()
    tasks = [fork(lambda cls=cls, n=n: cls().work(park, n)) for n, cls in enumerate(classes)]
    while not all(task.state == "waiting" for task in tasks):
        gosched()
    for cls in classes:
        del cls.work
    classes.clear()
    del cls
    gc.collect()
    gc.collect()
    junk = [define(5000 + n) for n in range(200)]
    park.release(tasks)
    assert [task.join() for task in tasks] == expected
    assert len(junk) == 200
    del tasks
    gc.collect()
    unused = weakref.ref(define(0))
    gc.collect()
    if unused() is None:  # free-threaded 3.13 keeps it for ever once there was a second thread
        assert [ref() for ref in functions if ref() is not None] == []


def test_a_function_lives_until_its_goroutine_has_run(program):
    # In a process of its own: here other threads have used the library, and then a worker that is
    # busy for long, as with collecting, is relieved of what it has not started.
    result = program(
        """
        import gc, weakref
        from gofer import *

        log, functions = [], []

        def start(n):
            def function():
                log.append(n)

            functions.append(weakref.ref(function))
            return go(function)

        gs = [start(n) for n in range(100)]
        gc.collect()
        gc.collect()
        junk = [(lambda n=n: n) for n in range(1000)]
        assert log == []
        for g in gs:
            g.join()
        assert log == list(range(100))
        assert len(junk) == 1000
        del g, gs
        gc.collect()
        assert [ref() for ref in functions if ref() is not None] == []
        print("done")
        """,
        GOFER_MAXPROCS="1",
    )
    assert result == (0, "done\n", "")
