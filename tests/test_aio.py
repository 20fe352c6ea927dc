"""`gofer.aio.await_`: goroutines that await."""

import asyncio
import contextvars
import gc
import threading
import traceback
import warnings
import weakref

import pytest

from gofer import Cancelled, Chan, Group, aio, cancel_scope, fork, go, shield, sleep, timeout
from gofer.errors import Canceled
from gofer.testing import bubble
from gofer.time import now

from shared import Token, in_thread
from shared.clock import LONG
from shared.coroutines import Door, add
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- await_ -------------------------------------------------------------------------------------


def test_it_returns_what_the_coroutine_returns():
    assert aio.await_(add(1, 2)) == 3


@pytest.mark.parametrize("start", [fork, elsewhere])
def test_it_works_in_every_goroutine(start):
    assert start(lambda: aio.await_(add(1, 2))).join() == 3


def test_it_works_in_a_plain_thread():
    assert in_thread(lambda: aio.await_(add(1, 2))) == 3


def test_it_parks(until, parked):
    door = Door()
    task = fork(lambda: aio.await_(door.wait("through")))
    until(lambda: door.log)
    parked(task)
    door.open()
    assert task.join() == "through"


def test_many_at_once():
    async def meet():
        nonlocal there
        there += 1
        while there < 500:
            await asyncio.sleep(0)
        return there

    there = 0
    tasks = [fork(lambda: aio.await_(meet())) for _ in range(500)]
    assert {task.join() for task in tasks} == {500}


def test_all_run_on_one_loop():
    async def loop():
        return asyncio.get_running_loop(), threading.current_thread()

    seen = {aio.await_(loop()) for _ in range(5)}
    assert len(seen) == 1
    ((_, thread),) = seen
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_what_was_made_in_one_call_can_be_used_in_the_next():
    async def make():
        return asyncio.Queue()

    queue = aio.await_(make())
    task = fork(lambda: aio.await_(queue.get()))
    aio.await_(queue.put("item"))
    assert task.join() == "item"


def test_an_exception_has_the_traceback_of_both_sides():
    async def fail():
        await asyncio.sleep(0)
        raise ValueError("here")

    def call():
        aio.await_(fail())

    with pytest.raises(ValueError, match="here") as caught:
        call()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert [name for name in names if name in ("call", "fail")] == ["call", "fail"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_would_end_a_loop_arrives_too(kind):
    async def fail():
        raise kind

    with pytest.raises(kind):
        aio.await_(fail())
    assert aio.await_(add(1, 2)) == 3


def test_one_that_was_cancelled_over_there():
    async def end():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(Canceled, match="it has no result"):
        aio.await_(end())


def test_context_variables_are_those_of_the_caller():
    variable = contextvars.ContextVar("variable", default="nothing")

    async def look():
        await asyncio.sleep(0)
        return variable.get()

    def call(value):
        variable.set(value)
        return aio.await_(look())

    tasks = [fork(call, n) for n in range(10)]
    assert [task.join() for task in tasks] == list(range(10))
    assert aio.await_(look()) == "nothing"


def test_any_awaitable():
    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "awaited"

    async def task():
        return asyncio.ensure_future(add(1, 2))

    assert aio.await_(Awaitable()) == "awaited"
    assert aio.await_(aio.await_(task())) == 3
    assert aio.await_(asyncio.wait_for(add(1, 2), LONG)) == 3


def test_an_async_iterator_value_by_value():
    async def count():
        for n in range(3):
            await asyncio.sleep(0)
            yield n

    numbers = count()
    assert [aio.await_(anext(numbers)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        aio.await_(anext(numbers))


@pytest.mark.parametrize("what", [None, 7, add, lambda: None, (n for n in "ab")])
def test_what_can_not_be_awaited(what):
    with pytest.raises(TypeError, match="it can not be awaited"):
        aio.await_(what)


def test_a_future_of_another_loop(until):
    async def serve():
        loop = asyncio.get_running_loop()
        futures.append(loop.create_future())
        futures.append(loop.create_future())
        futures[0].set_result("first")
        await asyncio.sleep(0)
        loop.call_soon(futures[1].set_exception, ValueError("second"))
        stop.append(asyncio.Event())
        await stop[0].wait()

    futures, stop = [], []
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    until(lambda: stop)
    assert aio.await_(futures[0]) == "first"
    with pytest.raises(ValueError, match="second"):
        aio.await_(futures[1])
    futures[0].get_loop().call_soon_threadsafe(stop[0].set)
    until(lambda: not thread.is_alive())
    with pytest.raises(RuntimeError, match="closed"):
        aio.await_(futures[0])


def test_in_a_coroutine_of_that_loop_it_is_refused():
    async def call():
        aio.await_(add(1, 2))

    with pytest.raises(RuntimeError, match="write `await` there"):
        aio.await_(call())

    async def main():
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(RuntimeError, match="write `await` there"):
            aio.await_(future)

    asyncio.run(main())


def test_in_a_coroutine_of_another_loop_it_stops_that_one():
    async def main():
        return aio.await_(add(1, 2))

    assert asyncio.run(main()) == 3


def test_nothing_of_it_is_kept():
    async def give(token):
        await asyncio.sleep(0)
        return [token]

    token = Token()
    ref = weakref.ref(token)
    assert aio.await_(give(token))[0] is token
    del token
    aio.await_(add(1, 2))
    aio.await_(add(1, 2))
    gc.collect()
    assert ref() is None


def test_the_clock_of_a_bubble_waits_for_it():
    log = []
    with bubble():
        go(lambda: (sleep(1), log.append("slept")))
        start = now()
        assert aio.await_(asyncio.sleep(0.001, "result")) == "result"
        assert (log, now()) == ([], start)
        sleep(2)
    assert log == ["slept"]


# --- cancelling who awaits ----------------------------------------------------------------------


def test_cancelling_the_goroutine_cancels_the_task(until):
    door = Door()
    with cancel_scope() as scope:
        go(lambda: (until(lambda: door.log), scope.cancel()))
        try:
            aio.await_(door.wait())
        finally:
            door.log.append("after")
    assert door.log == ["waits", "cancelled", "left", "after"]


def test_a_time_out():
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            aio.await_(asyncio.sleep(LONG))


def test_a_task_that_does_not_let_itself_be_cancelled():
    async def stubborn():
        started.send(None)
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            return "value"

    started = Chan(1)
    with cancel_scope() as scope:
        go(lambda: (started.recv(), scope.cancel()))
        got = aio.await_(stubborn())  # nothing is lost
        with pytest.raises(Cancelled):
            sleep(0)
    assert got == "value"


def test_a_task_that_fails_when_it_is_cancelled():
    async def fail():
        started.send(None)
        try:
            await asyncio.sleep(LONG)
        finally:
            raise ValueError("cleaning up")

    started = Chan(1)
    with pytest.raises(ValueError, match="cleaning up"):
        with cancel_scope() as scope:
            go(lambda: (started.recv(), scope.cancel()))
            aio.await_(fail())


def test_in_a_cancelled_scope_nothing_is_started():
    async def log():
        ran.append(1)

    ran = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with cancel_scope() as scope:
            scope.cancel()
            with pytest.raises(Cancelled):
                aio.await_(log())
            with shield():
                aio.await_(log())
    assert ran == [1]


def test_the_others_of_a_group_are_cancelled():
    doors = [Door() for _ in range(5)]

    async def fail():
        while not all(door.log for door in doors):
            await asyncio.sleep(0)
        raise ValueError

    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            for door in doors:
                g.go(lambda door=door: aio.await_(door.wait()))
            g.go(lambda: aio.await_(fail()))
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert {door.log[-1] for door in doors} == {"left"}
