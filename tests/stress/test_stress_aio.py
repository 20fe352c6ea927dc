"""asyncio and goroutines with cancellation at random: no value is lost, nobody waits for ever."""

import asyncio
import contextlib
import threading
from collections import Counter

import pytest

from gofer import Cancelled, Chan, Group, aio, cancel_scope, fork, go, gosched, select, timeout
from gofer.errors import Canceled

pytestmark = pytest.mark.usefixtures("nothing_left")


def drained(ch):
    left = []
    while (got := select(ch.recv, default=True))[0] == 0:
        left.append(got[1])
    return left


# What was sent for certain goes into `sent`, what was received into `got`; both are checked when
# everybody has ended and what is left in the channel has been taken out.


async def send_some(ch, values, sent, rng):
    for value in values:
        if rng.random() < 0.5:
            await aio.send(ch, value)
        else:
            await aio.select((ch.send, value), Chan().recv)
        sent.append(value)


async def receive_some(ch, n, got, rng):
    for _ in range(n):
        way = rng.randrange(3)
        if way == 0:
            got.append(await aio.recv(ch))
        elif way == 1:
            got.append((await aio.recv_ok(ch))[0])
        else:
            got.append((await aio.select(Chan().recv, ch.recv))[1])


def asyncio_run(coroutine):
    asyncio.run(coroutine)


def in_a_thread(coroutine):
    thread = threading.Thread(target=asyncio.run, args=(coroutine,))
    thread.start()
    while thread.is_alive():
        gosched()


@pytest.mark.parametrize("run", [asyncio_run, in_a_thread, aio.await_])
@pytest.mark.parametrize("cap", [0, 1, 10])
def test_no_value_is_lost(rng, much, run, cap):
    async def cancel_at_random(tasks):
        while not all(task.done() for task in tasks):
            for task in rng.sample(tasks, min(len(tasks), 2)):
                if rng.random() < 0.3:
                    task.cancel()
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)

    async def main(ch, sent, got):
        tasks = []
        for k in range(6):
            values = [(k, n) for n in range(10)]
            tasks.append(asyncio.create_task(send_some(ch, values, sent, rng)))
            tasks.append(asyncio.create_task(receive_some(ch, 10, got, rng)))
        await cancel_at_random(tasks)
        assert all(task.cancelled() or task.exception() is None for task in tasks)

    for _ in range(much(3)):
        ch, sent, got = Chan(cap), [], []
        run(main(ch, sent, got))
        assert Counter(got + drained(ch)) == Counter(sent)


def test_goroutines_and_coroutines_share_a_channel(rng, much):
    """Some of either are cancelled."""

    def send(ch, values, sent):
        with contextlib.suppress(Cancelled):
            for value in values:
                ch.send(value)
                sent.append(value)

    def receive(ch, got):
        with contextlib.suppress(Cancelled):
            while True:
                got.append(ch.recv())

    async def receive_all(ch, got):
        while True:
            got.append(await aio.recv(ch))

    def await_(coroutine):
        with contextlib.suppress(Canceled, Cancelled):
            aio.await_(coroutine)

    for _ in range(much(5)):
        ch, sent, got = Chan(rng.choice([0, 1, 5])), [], []
        with Group() as g:
            for k in range(4):
                g.go(send, ch, [(k, n) for n in range(50)], sent)
                g.go(await_, send_some(ch, [(-k, -n - 1) for n in range(50)], sent, rng))
                g.go(receive, ch, got)
                g.go(await_, receive_all(ch, got))
            for _ in range(rng.randrange(200)):
                gosched()
            if rng.random() < 0.5:
                while len(sent) < rng.randrange(100):
                    gosched()
            g.cancel()
        assert Counter(got + drained(ch)) == Counter(sent)


def test_awaiting_with_cancellation_at_random(rng, much):
    """Whoever is cancelled has either a result or the coroutine has been cancelled."""

    async def work(log):
        try:
            for _ in range(rng.randrange(5)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        log.append("done")
        return "done"

    def call(log):
        with cancel_scope() as scope:
            if rng.random() < 0.5:
                go(scope.cancel)
            log.append(aio.await_(work(log)))

    logs = []
    for _ in range(much(20)):
        with Group() as g:
            for _ in range(20):
                logs.append([])
                g.go(call, logs[-1])
    assert {tuple(log) for log in logs} <= {("done", "done"), ("cancelled",), ()}


def test_goroutines_for_coroutines_with_cancellation_at_random(rng, much):
    def work(log):
        try:
            for _ in range(rng.randrange(5)):
                gosched()
        except Cancelled:
            log.append("cancelled")
            raise
        log.append("done")
        return "done"

    async def call(log):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rng.choice([0, 1e-4, 10])):
                log.append(await aio.go(work, log))

    async def main():
        for _ in range(much(10)):
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    logs.append([])
                    group.create_task(call(logs[-1]))

    logs = []
    asyncio.run(main())
    assert {tuple(log) for log in logs} <= {("done", "done"), ("cancelled",), ()}


def test_there_and_back_and_there(rng, much):
    """A goroutine awaits a coroutine that waits for a goroutine, and so on; time-outs anywhere."""

    limits = [100, 1e-3]

    async def up(n):
        return await asyncio.wait_for(aio.go(down, n), rng.choice(limits))

    def down(n):
        if n == 0:
            return 0
        with timeout(rng.choice(limits)):
            return 1 + aio.await_(up(n - 1))

    def call():
        with contextlib.suppress(TimeoutError):
            assert down(4) == 4

    for task in [fork(call) for _ in range(much(30))]:
        task.join()
    while not all_quiet():
        gosched()
    limits.pop()
    assert down(10) == 10


def all_quiet():
    """Only what asks is left on the loop."""

    async def tasks():
        return len(asyncio.all_tasks())

    return aio.await_(tasks()) == 1
