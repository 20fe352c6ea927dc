"""`blocking`: calls on a pool of threads, what they return, and how they are called off."""

import contextvars
import functools
import gc
import sys
import threading
import time
import traceback
import weakref
from threading import get_ident

import pytest

from gofer import (
    Cancelled,
    Chan,
    Group,
    WaitGroup,
    blocking,
    cancel_scope,
    current,
    fork,
    go,
    gosched,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

from shared import Token, in_thread
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left", "pool")

module = sys.modules["gofer.blocking"]  # `blocking` is the function


# --- what it returns and raises -----------------------------------------------------------------


def test_it_returns_what_the_function_returns():
    assert blocking(divmod, 7, 2) == (3, 1)
    assert blocking(int, "ff", base=16) == 255
    assert blocking(lambda: None) is None


def test_another_thread_makes_the_call():
    assert blocking(get_ident) != get_ident()


def test_the_others_go_on_meanwhile(gate, until, parked):
    task = fork(blocking, gate, "through")
    until(lambda: gate.entered)
    parked(task)
    gate.open()
    assert task.join() == "through"


def test_it_works_on_every_worker(gate):
    task = elsewhere(blocking, gate, 1)
    gate.open()
    assert task.join() == 1


def test_an_exception_has_the_traceback_of_both_sides():
    def fail():
        raise ValueError("here")

    def call():
        blocking(fail)

    with pytest.raises(ValueError, match="here") as caught:
        call()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert [name for name in names if name in ("call", "fail")] == ["call", "fail"]


@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, Cancelled]
)
def test_any_exception_arrives(kind):
    def fail():
        raise error

    error = kind("word")
    with pytest.raises(kind) as caught:
        blocking(fail)
    assert caught.value is error


def test_an_exception_is_not_kept():
    def fail(token):
        raise ValueError(token)

    token = Token()
    ref = weakref.ref(token)
    with pytest.raises(ValueError):
        blocking(fail, token)
    del token
    gc.collect()
    assert ref() is None


def test_nothing_of_a_call_is_kept(until):
    token = Token()
    ref = weakref.ref(token)
    assert blocking(lambda x: [x], token)[0] is token
    del token
    until(lambda: gc.collect() >= 0 and ref() is None)  # its thread may still be about to rest


def test_a_waiting_call_that_is_cancelled_is_not_kept(pool, gate, until):
    blocking.limit(1)
    first = fork(blocking, gate)
    until(lambda: gate.entered)
    token = Token()
    ref = weakref.ref(token)
    second = fork(blocking, print, token)
    until(lambda: pool._waiting)
    del token
    second.cancel()
    with pytest.raises(Canceled):
        second.join()
    del second
    gc.collect()
    assert ref() is None
    gate.open()
    first.join()


def test_misuse():
    with pytest.raises(TypeError, match=r"blocking\(\) of 7: it can not be called"):
        blocking(7)
    with pytest.raises(TypeError):
        blocking()

    async def coroutine():
        pass

    with pytest.raises(TypeError, match=r"coroutine function .*coroutine"):
        blocking(coroutine)
    with pytest.raises(TypeError, match="coroutine function"):
        blocking(functools.partial(coroutine))
    with pytest.raises(TypeError, match="coroutine function"):
        blocking.wrap(coroutine)
    with pytest.raises(TypeError):
        blocking(divmod, 1)


# --- what is carried over -----------------------------------------------------------------------

variable = contextvars.ContextVar("variable", default="nothing")


def test_context_variables_are_those_of_the_caller():
    def call(value):
        variable.set(value)
        gosched()
        seen = blocking(lambda: (variable.get(), variable.set("there")))[0]
        return seen, variable.get()

    tasks = [fork(call, n) for n in range(20)]
    assert [task.join() for task in tasks] == [(n, n) for n in range(20)]
    assert blocking(variable.get) == "nothing"


def test_the_thread_has_the_name_of_the_goroutine():
    def name():
        return threading.current_thread().name

    assert blocking(name) == current().name

    def call():
        current().name = "a name of its own"
        return blocking(name)

    assert fork(call).join() == "a name of its own"


# --- calls in calls -----------------------------------------------------------------------------


def test_a_call_in_a_call_is_made_right_there():
    def inner(n):
        return [get_ident()] if n == 0 else [get_ident(), *blocking(inner, n - 1)]

    blocking.limit(1)
    assert len(set(blocking(inner, 5))) == 1


def test_in_a_plain_thread_it_is_made_right_there():
    assert in_thread(lambda: blocking(get_ident) == get_ident())
    with pytest.raises(ZeroDivisionError):
        in_thread(blocking, divmod, 1, 0)


def test_calls_in_calls_through_goroutines():
    """Who waits for goroutines gives them his place."""

    def down(n):
        return 0 if n == 0 else 1 + fork(blocking, down, n - 1).join()

    blocking.limit(1)
    assert blocking(down, 20) == 20


def test_a_call_waits_for_those_that_have_no_place_yet(pool, until):
    blocking.limit(1)
    ch = Chan()

    def receive():
        while not pool._waiting:
            time.sleep(0)  # gosched would step aside
        return ch.recv()

    receiver = fork(blocking, receive)
    until(lambda: pool._busy)
    sender = fork(blocking, lambda: ch.send("value"))
    assert receiver.join() == "value"
    sender.join()


def test_who_has_stepped_aside_is_counted_again_for_the_next_call(pool, gate, idle, until):
    blocking.limit(1)
    ch = Chan()
    task = fork(blocking, ch.recv)
    until(lambda: pool._workers and not pool._busy and not pool._idle and not pool._coming)
    ch.send(None)
    task.join()
    idle(1)
    tasks = [fork(blocking, gate) for _ in range(2)]
    until(lambda: len(gate.entered) == 1 and len(pool._waiting) == 1)
    gate.open()
    for task in tasks:
        task.join()


def test_a_call_uses_everything_of_the_library():
    def call():
        ch, wg = Chan(), WaitGroup()
        for n in range(10):
            wg.go(ch.send, n)
        got = sorted(ch.recv() for _ in range(10))
        wg.wait()
        with timeout(1000):
            sleep(0.001)
        with Group() as g:
            tasks = [g.go(blocking, pow, n, 2) for n in got]
        return [task.join() for task in tasks]

    assert blocking(call) == [n * n for n in range(10)]


# --- cancellation -------------------------------------------------------------------------------


def test_a_call_that_has_begun_goes_on_and_its_result_is_thrown_away(gate, idle, until):
    log = []
    with cancel_scope() as scope:
        go(lambda: (until(lambda: gate.entered), scope.cancel()))
        blocking(lambda: (gate(), log.append("done")))
        pytest.fail("not cancelled")
    assert log == []
    gate.open()
    idle(1)
    assert log == ["done"]


def test_its_exception_is_thrown_away_too(gate, idle, until, unraisable):
    with cancel_scope() as scope:
        go(lambda: (until(lambda: gate.entered), scope.cancel()))
        blocking(lambda: (gate(), 1 / 0))
    gate.open()
    idle(1)
    assert unraisable == []


def test_one_that_has_not_begun_is_never_made(pool, gate, until):
    blocking.limit(1)
    log = []
    first = fork(blocking, gate)
    until(lambda: gate.entered)
    second = fork(blocking, log.append, 2)
    third = fork(blocking, log.append, 3)
    until(lambda: len(pool._waiting) == 2)
    second.cancel()
    with pytest.raises(Canceled):
        second.join()
    gate.open()
    third.join()
    first.join()
    assert log == [3]


def test_in_a_cancelled_scope_no_call_is_made():
    log = []
    with cancel_scope() as scope:
        scope.cancel()
        for _ in range(3):
            with pytest.raises(Cancelled):
                blocking(log.append, 1)
        with shield():
            blocking(log.append, 2)
    assert log == [2]


def test_a_time_out(gate):
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            blocking(gate)


def test_the_pool_is_whole_after_many_cancellations(pool, rng, until):
    blocking.limit(4)
    ran = []
    for _ in range(20):
        with Group() as g:
            for n in range(20):
                g.go(blocking, ran.append, n)
            for _ in range(rng.randrange(5)):
                gosched()
            g.cancel()
    until(lambda: len(pool._idle) == len(pool._workers))
    assert not pool._waiting
    assert len(pool._workers) <= 4
    assert blocking(pow, 2, 3) == 8


# --- wrap and iter ------------------------------------------------------------------------------


def test_a_function_that_always_runs_so():
    @blocking.wrap
    def work(n: int, *, times: int = 1) -> tuple:
        """Says where."""
        return n * times, get_ident()

    assert work(3, times=2)[0] == 6
    assert work(3)[1] != get_ident()
    assert (work.__name__, work.__doc__) == ("work", "Says where.")
    with pytest.raises(TypeError):
        work()


def test_a_method_that_always_runs_so():
    class Store:
        @blocking.wrap
        def where(self):
            return self, get_ident()

    store = Store()
    assert store.where()[0] is store
    assert store.where()[1] != get_ident()


def test_iterating_over_what_blocks():
    places = []

    def items():
        for n in range(5):
            places.append(get_ident())
            yield n

    assert list(blocking.iter(items())) == list(range(5))
    assert get_ident() not in places
    assert list(blocking.iter([])) == []
    assert list(blocking.iter([None, module._END.__class__])) == [None, object]


def test_what_an_iterator_raises():
    def items():
        yield 1
        raise ValueError("enough")

    iterator = blocking.iter(items())
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="enough"):
        next(iterator)
    with pytest.raises(TypeError):
        next(blocking.iter(7))


def test_iterating_lets_the_others_go_on(gate, until, parked):
    def items():
        yield gate(1)

    task = fork(lambda: list(blocking.iter(items())))
    until(lambda: gate.entered)
    parked(task)
    gate.open()
    assert task.join() == [1]
