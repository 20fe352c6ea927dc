"""`gofer.aio.go`: coroutines that wait for goroutines."""

import asyncio
import contextvars
import functools
import gc
import threading
import traceback

import pytest

from gofer import Cancelled, Chan, Group, aio, current, fork, goexit, gosched, shield, sleep
from gofer.errors import Canceled

from shared.clock import LONG
from shared.coroutines import add, every_loop, settled

pytestmark = pytest.mark.usefixtures("nothing_left")


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


def test_nothing_is_started_on_the_thread_of_the_loop():
    """It would stand still with every wait of the loop, and this one may wait for it."""

    async def main():
        tasks = [asyncio.create_task(aio.go(threading.get_ident)) for _ in range(100)]
        await asyncio.sleep(0)
        for _ in range(100):  # lets this worker look for something to do
            sleep(0)
        return await asyncio.gather(*tasks)

    assert threading.get_ident() not in asyncio.run(main())


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
