"""`gofer.aio`: goroutines that await, coroutines that wait for goroutines."""

import asyncio
import contextvars
import functools
import gc
import threading
import traceback
import warnings
import weakref

import pytest

from gofer import (
    Cancelled,
    Chan,
    Closed,
    Group,
    aio,
    cancel_scope,
    current,
    fork,
    go,
    goexit,
    gosched,
    select,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled
from gofer.testing import bubble
from gofer.time import now

from shared import Token, in_thread
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left")

LONG = 10_000  # seconds that are not meant to pass


async def add(a, b):
    await asyncio.sleep(0)
    return a + b


async def settled(*conditions):
    """Returns when all of them hold; the loop goes on meanwhile."""
    for condition in conditions:
        while not condition():
            await asyncio.sleep(0)


class Door:
    """A coroutine that stands at it can be let through from any thread."""

    def __init__(self):
        self.log = []
        self.loop = None

    async def wait(self, value=None):
        self.loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self.log.append("waits")
        try:
            await self._event.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("left")
        return value

    def open(self):
        self.loop.call_soon_threadsafe(self._event.set)


# --- await_ ---------------------------------------------------------------------------------------


def test_it_returns_what_the_coroutine_returns():
    assert aio.await_(add(1, 2)) == 3


@pytest.mark.parametrize("start", [fork, elsewhere])
def test_it_works_in_every_goroutine(start):
    assert start(lambda: aio.await_(add(1, 2))).join() == 3


def test_it_works_in_a_plain_thread():
    assert in_thread(lambda: aio.await_(add(1, 2))) == 3


def test_it_parks(until):
    door = Door()
    task = fork(lambda: aio.await_(door.wait("through")))
    until(lambda: door.log)
    assert task.state == "waiting"
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


# --- cancelling who awaits ------------------------------------------------------------------------


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


# --- go -------------------------------------------------------------------------------------------


def every_loop(test):
    """In the main thread, in another one, and on the library's own loop."""

    def here(coroutine):
        return asyncio.run(coroutine)

    def in_a_thread(coroutine):
        return in_thread(asyncio.run, coroutine)

    def on_ours(coroutine):
        return aio.await_(coroutine)

    return pytest.mark.parametrize("run", [here, in_a_thread, on_ours])(test)


@every_loop
def test_a_coroutine_runs_a_goroutine(run):
    async def main():
        assert await aio.go(int, "ff", base=16) == 255
        assert await aio.go(lambda: current().id) != current().id
        with pytest.raises(ZeroDivisionError):
            await aio.go(divmod, 1, 0)
        return await aio.go(lambda: fork(pow, 2, 3).join())

    assert run(main()) == 8


@every_loop
def test_the_loop_goes_on_meanwhile(run):
    async def main():
        gate = Chan()
        waits = asyncio.create_task(aio.go(gate.recv))
        for _ in range(10):
            await asyncio.sleep(0)
        await aio.send(gate, "opened")
        return await waits

    assert run(main()) == "opened"


@every_loop
def test_many_goroutines(run):
    async def main():
        return await asyncio.gather(*(aio.go(pow, n, 2) for n in range(300)))

    assert run(main()) == [n * n for n in range(300)]


def test_the_traceback_shows_both_sides():
    def fail():
        raise ValueError("here")

    async def main():
        await aio.go(fail)

    with pytest.raises(ValueError, match="here") as caught:
        asyncio.run(main())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert [name for name in names if name in ("main", "fail")] == ["main", "fail"]


def test_the_goroutine_has_the_context_and_a_name():
    variable = contextvars.ContextVar("variable", default="nothing")

    def look():
        return variable.get(), current().name

    async def main():
        variable.set("something")
        await asyncio.sleep(0)
        return await aio.go(look)

    assert asyncio.run(main()) == ("something", look.__qualname__)


def test_misuse_of_go():
    async def main():
        with pytest.raises(TypeError, match="it can not be called"):
            await aio.go(7)
        with pytest.raises(TypeError, match="coroutine function"):
            await aio.go(add, 1, 2)
        with pytest.raises(TypeError, match="coroutine function"):
            await aio.go(functools.partial(add, 1), 2)
        with pytest.raises(TypeError):
            await aio.go(divmod, 1)

    asyncio.run(main())


def test_outside_of_a_loop_nothing_is_started():
    ran = []
    coroutine = aio.go(ran.append, 1)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)
    assert ran == []


@every_loop
def test_cancelling_the_coroutine_cancels_the_goroutine(run):
    def wait():
        log.append("waits")
        try:
            Chan().recv()
        except Cancelled:
            log.append("cancelled")
            raise
        finally:
            with shield():
                sleep(0.001)
            log.append("left")

    async def main():
        task = asyncio.create_task(aio.go(wait))
        await settled(lambda: log)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        log.append("after")

    log = []
    run(main())
    assert log == ["waits", "cancelled", "left", "after"]


@every_loop
def test_time_outs_of_asyncio(run):
    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.go(sleep, LONG), 0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await aio.go(sleep, LONG)
        assert await asyncio.wait_for(aio.go(int), LONG) == 0

    run(main())


def test_a_task_group_of_asyncio():
    began, ended = [], []

    def wait():
        began.append(1)
        try:
            Chan().recv()
        finally:
            ended.append(1)

    async def fail():
        await settled(lambda: len(began) == 5)
        raise ValueError

    async def main():
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(aio.go(wait))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert len(ended) == 5


def test_a_goroutine_that_does_not_let_itself_be_cancelled():
    """Its value arrives, and the cancellation where the task waits next."""

    def stubborn():
        started.append(1)
        try:
            Chan().recv()
        except Cancelled:
            return "value"

    async def work():
        got.append(await aio.go(stubborn))
        await asyncio.sleep(LONG)

    async def main():
        task = asyncio.create_task(work())
        await settled(lambda: started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started, got = [], []
    asyncio.run(main())
    assert got == ["value"]


def test_one_that_ends_itself():
    async def main():
        with pytest.raises(Canceled, match="it has no result"):
            await aio.go(goexit)
        with pytest.raises(Canceled, match="it has no result"):
            await aio.go(lambda: current().cancel() or sleep(0))

    asyncio.run(main())


def test_a_coroutine_that_is_closed():
    def wait():
        try:
            Chan().recv()
        finally:
            ended.send(None)

    async def main():
        coroutine = aio.go(wait)
        coroutine.send(None)
        coroutine.close()
        await aio.recv(ended)

    ended = Chan(1)
    asyncio.run(main())


def test_the_loop_is_closed_meanwhile():
    """The goroutine goes on, and nobody hears of its end."""
    loop = asyncio.new_event_loop()
    gate, done = Chan(), Chan(1)

    def wait():
        gate.recv()
        done.send("done")

    async def main():
        task = asyncio.ensure_future(aio.go(wait))
        await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(main())
    loop.close()
    gate.send(None)
    assert done.recv() == "done"
    task._log_destroy_pending = False
    del task
    gc.collect()


def test_several_loops_at_a_time():
    async def talk(n):
        for k in range(20):
            await aio.send(there[n], k)
            assert await aio.recv(back[n]) == k + 1
        there[n].close()

    def answer(n):
        for k in there[n]:
            back[n].send(k + 1)

    there, back = ([Chan() for _ in range(4)] for _ in range(2))
    with Group() as g:
        for n in range(4):
            g.go(answer, n)
        threads = [threading.Thread(target=asyncio.run, args=(talk(n),)) for n in range(3)]
        for thread in threads:
            thread.start()
        g.go(lambda: aio.await_(talk(3)))
        while any(thread.is_alive() for thread in threads):
            gosched()


# --- channels -------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("cap", [0, 1, 100])
def test_values_go_both_ways(run, cap):
    def double():
        for n in there:
            back.send(2 * n)
        back.close()

    async def produce():
        for n in range(50):
            await aio.send(there, n)
        there.close()

    async def main():
        task = asyncio.create_task(produce())
        got = []
        while (pair := await aio.recv_ok(back))[1]:
            got.append(pair[0])
        await task
        return got

    there, back = Chan(cap), Chan(cap)
    worker = elsewhere(double)
    assert run(main()) == [2 * n for n in range(50)]
    worker.join()


def test_between_coroutines():
    async def main():
        ch = Chan()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(aio.recv(ch.receiver)) for _ in range(10)]
            for n in range(10):
                await aio.send(ch.sender, n)
        assert sorted(task.result() for task in tasks) == list(range(10))

    asyncio.run(main())


def test_what_can_be_done_at_once_is_done_at_once():
    async def main():
        ch = Chan(2)
        await aio.send(ch, 1)
        await aio.send(ch, None)
        assert await aio.recv(ch) == 1
        assert await aio.recv_ok(ch) == (None, True)
        ch.close()
        assert await aio.recv_ok(ch) == (None, False)

    with pytest.raises(StopIteration):  # without ever waiting
        main().send(None)


def test_a_closed_channel():
    async def main():
        ch = Chan()
        waiting = [asyncio.create_task(aio.recv(ch)) for _ in range(2)]
        waiting.append(asyncio.create_task(aio.recv_ok(ch)))
        await asyncio.sleep(0)
        ch.close()
        for task in waiting[:2]:
            with pytest.raises(Closed) as caught:
                await task
            assert caught.value.index is None
        assert await waiting[2] == (None, False)
        for operation in (aio.recv(ch), aio.send(ch, 1)):
            with pytest.raises(Closed) as caught:
                await operation
            assert caught.value.index is None
        with pytest.raises(Closed) as caught:
            await aio.select(None, ch.recv)
        assert caught.value.index == 1

    asyncio.run(main())


def test_select():
    async def main():
        a, b = Chan(), Chan(1)
        assert await aio.select(a.recv, default=True) == (-1, None)
        assert await aio.select(default=True) == (-1, None)
        assert await aio.select(a.recv, (b.send, 1)) == (1, None)
        assert await aio.select(a.recv, b.recv_ok) == (1, (1, True))
        waits = asyncio.create_task(aio.select(None, b.recv, a.recv_ok))
        await asyncio.sleep(0)
        await aio.send(a, "value")
        assert await waits == (2, ("value", True))
        with pytest.raises(TypeError):
            await aio.select(7)

    asyncio.run(main())


def test_misuse_of_channels():
    async def main():
        with pytest.raises(AttributeError):
            await aio.recv(7)
        with pytest.raises(AttributeError):
            await aio.recv(Chan().sender)
        with pytest.raises(AttributeError):
            await aio.send(Chan().receiver, 1)

    asyncio.run(main())


# --- cancellation and values ----------------------------------------------------------------------


@every_loop
def test_who_is_cancelled_has_neither_sent_nor_received(run):
    async def main():
        ch = Chan()
        operations = [
            lambda: aio.recv(ch),
            lambda: aio.recv_ok(ch),
            lambda: aio.select(ch.recv, Chan().recv),
            lambda: aio.select(),
        ]
        for operation in operations:
            task = asyncio.create_task(operation())
            for _ in range(3):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            sends = asyncio.create_task(aio.send(ch, "value"))
            assert await aio.recv(ch) == "value"
            await sends
        sends = asyncio.create_task(aio.send(ch, "lost"))
        for _ in range(3):
            await asyncio.sleep(0)
        sends.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sends
        assert select(ch.recv, default=True) == (-1, None)

    run(main())


async def deliver(ch, value):
    """To one that waits, at a moment when it can not have been told yet."""
    while select((ch.send, value), default=True)[0] < 0:
        await asyncio.sleep(0)


@every_loop
def test_a_value_that_has_arrived_is_not_lost(run):
    """The cancellation comes where the task waits next."""

    async def receive():
        got.append(await aio.recv(ch))
        await asyncio.sleep(LONG)
        got.append("not cancelled")

    async def main():
        task = asyncio.create_task(receive())
        await deliver(ch, "value")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    ch, got = Chan(), []
    run(main())
    assert got == ["value"]


@every_loop
def test_a_value_in_the_last_moment_of_a_time_out(run):
    """If the block is left with it, there was no time-out, and nothing is cancelled later."""

    async def main():
        async with asyncio.timeout(LONG) as limit:
            waits = asyncio.current_task()
            loop = asyncio.get_running_loop()

            def at_once():
                if select((ch.send, "value"), default=True)[0] < 0:
                    loop.call_soon(at_once)
                else:
                    limit.reschedule(loop.time())

            loop.call_soon(at_once)
            value = await aio.recv(ch)
        assert value == "value"
        for _ in range(5):
            await asyncio.sleep(0)
        assert waits.cancelling() == 0

    ch = Chan()
    run(main())


# --- programs of their own ------------------------------------------------------------------------


def test_who_awaits_is_no_deadlock_and_who_has_awaited_is_one(program):
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio

        print(aio.await_(asyncio.sleep(0.1, "slept")))
        try:
            Chan().recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "slept\ndeadlock\n", "")


def test_a_task_that_nobody_awaits_may_wake_somebody(program):
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio

        async def later():
            await asyncio.sleep(0.1)
            await aio.send(ch, "later")

        async def start():
            tasks.append(asyncio.create_task(later()))

        ch, tasks = Chan(), []
        aio.await_(start())
        print(ch.recv())
        try:
            ch.recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "later\ndeadlock\n", "")


def test_ctrl_c_in_who_awaits(program):
    result = program("""
        import asyncio, os, signal
        from gofer import aio

        async def interrupt():
            os.kill(os.getpid(), signal.SIGINT)
            try:
                await asyncio.sleep(1000)
            finally:
                print("cancelled", flush=True)
                ended.set()

        import threading
        ended = threading.Event()
        try:
            aio.await_(interrupt())
        except KeyboardInterrupt:
            ended.wait()
            print("interrupted")
        print(aio.await_(asyncio.sleep(0, "works")))
    """)
    assert result == (0, "cancelled\ninterrupted\nworks\n", "")


def test_ctrl_c_in_who_runs_a_loop(program):
    """asyncio.run cancels its main task, and that the goroutine."""
    result = program("""
        import asyncio, os, signal
        from gofer import *
        from gofer import aio

        def wait():
            os.kill(os.getpid(), signal.SIGINT)
            try:
                Chan().recv()
            finally:
                print("cancelled")

        try:
            asyncio.run(aio.go(wait))
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert result == (0, "cancelled\ninterrupted\n", "")


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_the_end_of_the_program_by_a_coroutine(program, error):
    result = program(f"""
        from gofer import aio

        async def fail():
            raise {error}

        aio.await_(fail())
    """)
    assert result.status == (3 if "3" in error else -2) or result.status == 130
    assert result.out == ""


def test_at_exit_the_tasks_are_cancelled(program):
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio

        async def wait():
            try:
                await asyncio.sleep(1000)
            finally:
                print("cancelled")

        async def start():
            tasks.append(asyncio.create_task(wait()))
            await asyncio.sleep(0)

        tasks = []
        aio.await_(start())
        go(lambda: aio.await_(asyncio.sleep(1000)))
        gosched()
        print("end", flush=True)
    """)
    assert result == (0, "end\ncancelled\n", "")


def test_the_end_of_run(program):
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio

        async def wait():
            try:
                started.send(None)
                await asyncio.sleep(1000)
            finally:
                ended.send(None)

        def call():
            try:
                aio.await_(wait())
            finally:
                print("unwound")

        def main():
            go(call)
            started.recv()

        started, ended = Chan(1), Chan(1)
        run(main)
        ended.recv()
        print(run(lambda: aio.await_(asyncio.sleep(0, "again"))))
    """)
    assert result == (0, "unwound\nagain\n", "")


def test_the_end_of_run_ends_what_works_for_coroutines(program):
    """They hear of it, also if it had not begun."""
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio
        from gofer.errors import Canceled

        async def receive():
            try:
                await aio.recv(Chan())
            except Canceled:
                ended.send(None)

        async def start():
            for _ in range(20):
                tasks.append(asyncio.create_task(receive()))
            await asyncio.sleep(0)

        tasks, ended = [], Chan(20)
        run(lambda: aio.await_(start()))
        for _ in range(20):
            ended.recv()
        print("all")
    """)
    assert result == (0, "all\n", "")


def test_a_child_of_a_fork_has_a_loop_of_its_own(program):
    result = program("""
        import asyncio, os, warnings
        from gofer import *
        from gofer import aio

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads
        print(aio.await_(asyncio.sleep(0, "before")), flush=True)
        waits = fork(lambda: aio.await_(asyncio.sleep(0.2, "parent")))
        gosched()
        pid = os.fork()
        if pid == 0:
            print(aio.await_(asyncio.sleep(0, "child")), flush=True)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(waits.join())
        print(aio.await_(asyncio.sleep(0, "after")))
    """)
    assert result == (0, "before\nchild\n0\nparent\nafter\n", "")


def test_importing_it_starts_nothing(program):
    result = program("""
        import threading
        from gofer import aio
        print(threading.active_count())
    """)
    assert result == (0, "1\n", "")


def test_the_loop_is_uvloops_if_there_is_one(program, tmp_path):
    (tmp_path / "uvloop.py").write_text(
        "import asyncio\nclass Loop(asyncio.SelectorEventLoop): pass\nnew_event_loop = Loop\n"
    )
    result = program("""
        import asyncio
        from gofer import aio

        async def name():
            return type(asyncio.get_running_loop()).__module__

        print(aio.await_(name()))
    """)
    assert result == (0, "uvloop\n", "")
