"""trio."""

from functools import partial
from time import perf_counter_ns

import trio

import probe

USES = {
    "chan_0": "memory channel (0)",
    "chan_1000": "memory channel (1000)",
    "select_2": "2 tasks of a nursery that forward into one memory channel (0)",
    "select_8": "8 tasks of a nursery that forward into one memory channel (0)",
    "yield_2": "trio.lowlevel.checkpoint",
    "yield_1000": "trio.lowlevel.checkpoint",
    "mutex_10": "trio.Lock and a checkpoint",
    "cancel_scope": "trio.CancelScope",
    "timeout_ready": "trio.move_on_after and a memory channel (1)",
    "cancel_parked": "tasks of a nursery in trio.sleep_forever",
    "park": "trio.Event",
    "park_deep": "trio.Event, 5 coroutines deep",
    "million": "trio.Event",
}
LEFT_OUT = {"contexts": "it has scopes in place of contexts"}
MOST: dict[str, int] = {}


async def nothing():
    pass


async def spawn(n, batch):
    for _ in range(n // batch):
        async with trio.open_nursery() as nursery:
            for _ in range(batch):
                nursery.start_soon(nothing)


async def spawn_all(n):
    await spawn(n, n)


async def yields(n, tasks):
    async def loop(times):
        for _ in range(times):
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(loop, n // tasks)


async def produce(sender, n):
    async with sender:
        for i in range(n):
            await sender.send(i)


async def channel(n, cap):
    sender, receiver = trio.open_memory_channel(cap)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce, sender, n)
        async for _ in receiver:
            pass


async def select_from(n, channels):
    async def forward(source, out):
        async with out:
            async for value in source:
                await out.send(value)

    out, merged = trio.open_memory_channel(0)
    async with trio.open_nursery() as nursery:
        async with out:
            for _ in range(channels):
                sender, source = trio.open_memory_channel(0)
                nursery.start_soon(produce, sender, n // channels)
                nursery.start_soon(forward, source, out.clone())
        async for _ in merged:
            pass


async def mutex(n):
    lock = trio.Lock()
    for _ in range(n):
        async with lock:
            pass


async def mutex_contended(n, tasks=10):
    lock = trio.Lock()

    async def loop(times):
        for _ in range(times):
            async with lock:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(loop, n // tasks)


async def scope(n):
    for _ in range(n):
        with trio.CancelScope():
            pass


async def timeout_ready(n):
    sender, receiver = trio.open_memory_channel(1)
    for i in range(n):
        await sender.send(i)
        with trio.move_on_after(10):
            await receiver.receive()


async def cancel_parked(n):
    all_ready = trio.Event()
    ready = 0

    async def wait():
        nonlocal ready
        ready += 1
        if ready == n:
            all_ready.set()
        await trio.sleep_forever()

    start = perf_counter_ns()
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(wait)
        await all_ready.wait()
        spent = perf_counter_ns() - start
        nursery.cancel_scope.cancel()
    return spent


async def timers(n):
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(trio.sleep, 0.5)
    return 500_000_000


async def park(n, frames):
    gate = trio.Event()
    all_ready = trio.Event()
    ready = 0

    async def rest():
        nonlocal ready
        ready += 1
        if ready == n:
            all_ready.set()
        await gate.wait()

    async def deep(level):
        name, numbers, half = "park", (level, level), level / 2
        if level > 1:
            await deep(level - 1)
        else:
            await rest()
        return name, numbers, half

    start, args = (deep, (frames,)) if frames else (rest, ())
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(start, *args)
        await all_ready.wait()
        probe.parked()
        gate.set()


async def blocking_calls(n, tasks):
    def nothing():
        pass

    async def loop(times):
        for _ in range(times):
            await trio.to_thread.run_sync(nothing)

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(loop, n // tasks)


OPERATIONS = {
    name: partial(trio.run, program)
    for name, program in {
        "spawn_1000": partial(spawn, batch=1000),
        "spawn_100000": spawn_all,
        "yield_2": partial(yields, tasks=2),
        "yield_1000": partial(yields, tasks=1000),
        "chan_0": partial(channel, cap=0),
        "chan_1000": partial(channel, cap=1000),
        "select_2": partial(select_from, channels=2),
        "select_8": partial(select_from, channels=8),
        "mutex": mutex,
        "mutex_10": mutex_contended,
        "cancel_scope": scope,
        "timeout_ready": timeout_ready,
        "cancel_parked": cancel_parked,
        "timers": timers,
        "park": partial(park, frames=0),
        "park_deep": partial(park, frames=5),
        "million": partial(park, frames=0),
        "blocking": partial(blocking_calls, tasks=1),
        "blocking_100": partial(blocking_calls, tasks=100),
    }.items()
}
