"""`gofer.aio`: channels in coroutines."""

import asyncio

import pytest

from gofer import Chan, Closed, aio, select

from shared.clock import LONG
from shared.coroutines import every_loop
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- channels -----------------------------------------------------------------------------------


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


# --- cancellation and values --------------------------------------------------------------------


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
