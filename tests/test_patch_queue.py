"""`queue.Queue` and its like under `patch()`: what need not wait is done in C, and nobody can tell.

The oracle is the same program without `patch()`. What has run in Python is seen by a profiler.
"""

import collections
import gc
import inspect
import queue
import sys
import threading

import pytest

from gofer import fork, gosched, patch, unpatch

from shared import FREE_THREADED, Token, in_thread
from shared.queues import EVERY_REFERENCE, in_c, run_in_python

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")

MANY = 200


class Upwards(queue.Queue):
    """It has containers and methods of its own."""

    def _init(self, maxsize):
        self.queue = []

    def _put(self, item):
        self.queue.append(item)
        self.queue.sort(key=repr)

    def _get(self):
        return self.queue.pop(0)


Same = type("Same", (queue.Queue,), {})
CLASSES = [queue.Queue, queue.LifoQueue, queue.PriorityQueue, Upwards, Same]


# --- in C, and when not -------------------------------------------------------------------------

BY_NAME = {"block": True}
CALLS = {
    "by position": lambda q: (q.put(1, True, None), q.get(True, None)),
    "by name": lambda q: (q.put(item=1, block=True), q.get(block=True, timeout=None)),
    "with a limit": lambda q: (q.put(1, timeout=5), q.get(timeout=0.5)),
    "not to wait": lambda q: (q.put(1, False), q.get(block=False, timeout=-1)),
    "through the class": lambda q: (queue.Queue.put(q, 1), queue.Queue.get(q)),
    "with stars": lambda q: (q.put(*[1], **BY_NAME), q.get(*[], **BY_NAME)),
    "done": lambda q: (q.put(1), q.put(2), q.get(), q.get(), q.task_done(), q.task_done()),
}


@in_c
@pytest.mark.parametrize("made_before", [True, False])
@pytest.mark.parametrize("make", [queue.Queue, queue.LifoQueue])
@pytest.mark.parametrize("maxsize", [0, 3, -1])
@pytest.mark.parametrize("call", CALLS)
def test_what_need_not_wait_is_done_in_c(call, maxsize, make, made_before, request):
    q = make(maxsize) if made_before else None
    request.getfixturevalue("cooperative")
    q = q or make(maxsize)
    assert run_in_python(CALLS[call], q) == []
    assert in_thread(run_in_python, CALLS[call], q) == []


@in_c
def test_with_nowait(cooperative):
    q = queue.Queue()
    assert run_in_python(q.put_nowait, 1) == ["put_nowait"]
    assert run_in_python(q.get_nowait) == ["get_nowait"]
    assert run_in_python(q.get_nowait) == ["get_nowait", "get", "_qsize", "Empty"]


@in_c
@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_who_waits_is_woken_from_c(cooperative, where):
    q, got = queue.Queue(1), []

    def take():
        got.append(q.get())

    def somebody_waits(condition):
        return condition._waiters and not q.mutex.locked()

    thread = threading.Thread(target=take)
    waiting = fork(take) if where == "goroutine" else thread.start() or thread
    while not somebody_waits(q.not_empty):
        gosched()
    assert "put" not in run_in_python(q.put, 1)
    waiting.join()
    q.put(2)
    waiting = fork(q.put, 3)
    while not somebody_waits(q.not_full):
        gosched()
    assert "get" not in run_in_python(lambda: got.append(q.get()))
    waiting.join()
    assert [*got, q.get()] == [1, 2, 3]


@in_c
@pytest.mark.parametrize("make", [queue.PriorityQueue, Upwards, Same])
def test_others_stay_in_python(cooperative, make):
    q = make()
    assert "put" in run_in_python(q.put, 1)
    assert "get" in run_in_python(q.get)
    assert "task_done" in run_in_python(q.task_done)


def an_rlock(q):
    q.mutex = threading.RLock()
    q.not_empty, q.not_full, q.all_tasks_done = (threading.Condition(q.mutex) for _ in range(3))


def a_method_of_its_own(q):
    put = q._put
    q._put = lambda item: put(("its own", item))


def a_notify_of_its_own(q):
    q.notified = []
    q.not_empty.notify = lambda n=1: q.notified.append(n)


CHANGES = {
    "a bounded deque": lambda q: setattr(q, "queue", collections.deque(maxlen=2)),
    "a list": lambda q: setattr(q, "queue", []),
    "an RLock": an_rlock,
    "another lock": lambda q: setattr(q, "not_empty", threading.Condition(threading.Lock())),
    "a method": a_method_of_its_own,
    "a notify": a_notify_of_its_own,
    "a bool": lambda q: setattr(q, "unfinished_tasks", False),
    "too many": lambda q: setattr(q, "unfinished_tasks", sys.maxsize),
    "nothing": lambda q: delattr(q, "unfinished_tasks"),
    "looked at": vars,
    "more": lambda q: setattr(q, "colour", "red"),
    "shut down": lambda q: setattr(q, "is_shutdown", True),
}


def outcome_of(fn, *args, **kwargs):
    try:
        return fn(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


def state_of(q):
    kept = ("maxsize", "unfinished_tasks", "notified", "is_shutdown")
    return [list(q.queue), q.mutex.locked() if hasattr(q.mutex, "locked") else None] + [
        getattr(q, name, "-") for name in kept
    ]


def story(make, change):
    """What happens to a queue that somebody has changed."""
    q = make(4)
    q.put(0)
    CHANGES[change](q)
    told = []
    for n in range(1, 5):
        told += [outcome_of(q.put, n, False), *state_of(q)]
    for _ in range(6):
        told += [outcome_of(q.get, timeout=0), *state_of(q)]
        told += [outcome_of(q.task_done), *state_of(q)]
    return told


@pytest.mark.parametrize("make", [queue.Queue, queue.LifoQueue])
@pytest.mark.parametrize("change", CHANGES)
def test_a_queue_that_was_changed(make, change, request):
    expected = story(make, change)
    request.getfixturevalue("cooperative")
    assert story(make, change) == expected


@pytest.mark.parametrize(
    ("owner", "name"),
    [(queue.Queue, "_put"), (queue.Queue, "_qsize"), (threading.Condition, "notify")],
)
def test_a_class_that_was_changed(cooperative, monkeypatch, owner, name):
    q, calls = queue.Queue(3), []
    before = vars(owner)[name]

    def other(self, *args):
        calls.append(name)
        return before(self, *args)

    def both():
        q.put(1)
        q.get()

    both()
    with monkeypatch.context() as changed:
        changed.setattr(owner, name, other)
        both()
        assert calls
    calls.clear()
    assert run_in_python(both) == [] or FREE_THREADED
    assert not calls


def test_a_class_that_was_wrapped(cooperative, monkeypatch):
    """`put_nowait` calls what it finds."""
    before, calls = queue.Queue.put, []

    def put(self, *args, **kwargs):
        calls.append(args)
        before(self, *args, **kwargs)

    monkeypatch.setattr(queue.Queue, "put", put)
    q = queue.Queue()
    q.put_nowait(1)
    q.put(2)
    assert calls == [(1,), (2,)]
    assert [q.get(), q.get()] == [1, 2]


def test_a_class_that_has_changed_a_thousand_times(program):
    """CPython gives it no version any more."""
    result = program("""
        import queue, sys, threading
        from gofer import patch

        for cls in (queue.Queue, threading.Condition):
            for _ in range(1100):
                cls.spare = None
                hasattr(cls, "spare")
                del cls.spare
        patch()
        q, entered = queue.Queue(), []
        sys.setprofile(lambda frame, event, arg: entered.append(frame.f_code.co_name))
        q.put_nowait(7)
        seven = q.get_nowait()
        sys.setprofile(None)
        print(seven, "_put" in entered)
    """)
    assert result == (0, f"7 {FREE_THREADED}\n", "")


def test_another_class_in_its_place(program):
    outcome = program(
        """
        import queue, gofer
        queue.Queue = object
        gofer.patch()
        q = queue.LifoQueue()
        q.put("in Python")
        print(q.get())
        gofer.unpatch()
        """
    )
    assert outcome == (0, "in Python\n", "")


def test_it_looks_as_before():
    names = ("put", "get", "task_done")
    functions = [vars(queue.Queue)[name] for name in names]
    signatures = [inspect.signature(function) for function in functions]
    patch()
    try:
        for name, signature in zip(names, signatures, strict=True):
            if EVERY_REFERENCE:
                assert inspect.signature(getattr(queue.Queue, name)) == signature
            assert getattr(queue.Queue, name).__qualname__ == f"Queue.{name}"
            assert inspect.signature(getattr(queue.Queue(), name)) == inspect.signature(
                getattr(queue.PriorityQueue(), name)
            )
        if EVERY_REFERENCE:
            assert [vars(queue.Queue)[name] for name in names] == functions
    finally:
        unpatch()
    assert [vars(queue.Queue)[name] for name in names] == functions


# --- the same answers ---------------------------------------------------------------------------

LIMITS = [None, 0, 0.0, 1, 2.5, -1, -0.5, float("nan"), True, "soon", 10**400, 1e308]
BLOCKS = [True, False, 0, 1, None, [], "yes"]


def random_arguments(rng, full):
    """Arguments but the item with which a call does not wait; full: it would have to."""
    block, limit = rng.choice(BLOCKS), rng.choice(LIMITS)
    waits = limit is None or (limit != "soon" and not limit <= 0)
    if full and block and waits:
        block, limit = False, None
    form = rng.randrange(5)
    if form == 0 and not full:
        return (), {}
    if form == 1:
        return (block, limit), {}
    if form == 2:
        return (block,), {"timeout": limit}
    if form == 3:
        return (), {"timeout": limit, "block": block}
    return rng.choice(
        [((False,), {}), ((), {"block": False}), ((True, 0, 1, 2), {}), ((), {"blok": False})]
    )


def random_story(make, rng):
    """What a random program that never waits is told."""
    q = make(rng.choice([0, 1, 3, 50]))
    told = []
    for n in range(MANY):
        size = len(q.queue)
        full, step = 0 < q.maxsize <= size, rng.randrange(12)
        if step < 5:
            args, kwargs = random_arguments(rng, full)
            if rng.random() < 0.1:
                args, kwargs = (), {"item": n, "block": False}
            else:
                args = (n, *args)
            told.append(outcome_of(q.put, *args, **kwargs))
        elif step < 9:
            args, kwargs = random_arguments(rng, not size)
            told.append(outcome_of(q.get, *args, **kwargs))
        elif step == 9:
            told.append(outcome_of(q.task_done))
        elif step == 10:
            told.append(outcome_of(q.get_nowait))
            told.append(outcome_of(q.put_nowait, n))
        elif hasattr(q, "shutdown") and rng.random() < 0.05:
            told.append(outcome_of(q.shutdown, rng.random() < 0.5))
        told.append(state_of(q))
    return told


@pytest.mark.parametrize("make", CLASSES)
def test_the_same_answers(make, rng):
    for _ in range(20):
        start = rng.getstate()
        expected = random_story(make, rng)
        rng.setstate(start)
        patch()
        try:
            assert random_story(make, rng) == expected
        finally:
            unpatch()


def test_the_same_errors(request):
    def errors():
        q = queue.Queue(1)
        return [
            outcome_of(q.put),
            outcome_of(queue.Queue.put) if EVERY_REFERENCE else None,
            outcome_of(q.put, 1, item=2),
            outcome_of(q.get, 1, 2, 3),
            outcome_of(q.get, item=1),
            outcome_of(q.task_done, 1),
            outcome_of(q.task_done),
            outcome_of(queue.Queue.put, Token(), 1),
            outcome_of(q.put, 1, timeout=-1),
            outcome_of(q.put, 1, timeout=None),
            outcome_of(q.put, 2, timeout=-1),
            outcome_of(q.put, 2, False),
            outcome_of(q.get, timeout=-1),
        ]

    expected = errors()
    request.getfixturevalue("cooperative")
    assert errors() == expected


# --- references and destructors -----------------------------------------------------------------


@pytest.mark.parametrize("make", [queue.Queue, queue.LifoQueue])
def test_references(cooperative, make):
    q, item, number = make(), Token(), int("100000")
    counts = [sys.getrefcount(each) for each in (item, number)]
    q.unfinished_tasks = number
    for _ in range(MANY):
        q.put(item)
    for _ in range(MANY):
        assert q.get() is item
        q.task_done()
    assert [sys.getrefcount(each) for each in (item, number)] == counts


def test_a_destructor_uses_the_queue(cooperative, unraisable):
    """While something drops its last reference, the queue is whole."""
    q = queue.Queue()

    class Again:
        def __init__(self, left):
            self.left = left

        def __del__(self):
            gc.collect()
            if self.left:
                q.put(Again(self.left - 1))
                q.put(q.get())
            raise RuntimeError("nobody hears that")

    q.put(Again(10))
    while q.queue:
        q.get()
        q.task_done()
    assert len(unraisable) == 11
    assert q.unfinished_tasks >= 0
    assert not q.mutex.locked()


def test_a_bounded_deque_drops_under_the_mutex(cooperative):
    q, held = queue.Queue(), []
    q.queue = collections.deque(maxlen=1)

    class Dropped:
        def __del__(self):
            held.append(q.mutex.locked())

    q.put(Dropped())
    q.put(None)
    assert held == [True]


# --- who holds the mutex ------------------------------------------------------------------------


def test_the_mutex_is_respected(cooperative, parked):
    q = queue.Queue()
    with q.mutex:
        tasks = [fork(q.put, 1), fork(q.get)]
        parked(*tasks)
        assert not q.queue
        assert q.unfinished_tasks == 0
    assert [task.join() for task in tasks] == [None, 1]
    with q.mutex:
        done = fork(q.task_done)
        parked(done)
        assert q.unfinished_tasks == 1
    done.join()
    assert q.unfinished_tasks == 0


def test_without_the_locks(parked):
    """Who patches the queue and not what it stands on has what there was."""
    patch(only=["queue"])
    try:
        q = queue.Queue(2)
        q.put(1)
        assert q.get(timeout=1) == 1
        q.task_done()
        assert "put" in run_in_python(q.put, 2)
    finally:
        unpatch()
