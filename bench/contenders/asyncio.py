"""asyncio with its own event loop; `uvloop` runs the same programs on another."""

import asyncio
from functools import partial
from time import perf_counter_ns

import probe

USES = {
    "chan_0": "asyncio.Queue(1)",
    "chan_1000": "asyncio.Queue(1000)",
    "select_2": "asyncio.wait(FIRST_COMPLETED) on 2 tasks, each a get of a Queue(1)",
    "select_8": "asyncio.wait(FIRST_COMPLETED) on 8 tasks, each a get of a Queue(1)",
    "yield_2": "asyncio.sleep(0)",
    "yield_1000": "asyncio.sleep(0)",
    "mutex_10": "asyncio.Lock and asyncio.sleep(0)",
    "cancel_scope": "asyncio.timeout(None)",
    "timeout_ready": "asyncio.timeout and an asyncio.Queue(1)",
    "cancel_parked": "Task.cancel of every task of a TaskGroup, each waits for an asyncio.Event",
    "park": "asyncio.Event",
    "park_deep": "asyncio.Event, 5 coroutines deep",
    "million": "asyncio.Event",
    "blocking": "asyncio.to_thread",
    "blocking_100": "asyncio.to_thread",
}
LEFT_OUT = {"contexts": "it has no contexts that are cancelled"}
MOST: dict[str, int] = {}


async def nothing():
    pass


async def spawn(n, batch):
    for _ in range(n // batch):
        async with asyncio.TaskGroup() as group:
            for _ in range(batch):
                group.create_task(nothing())


async def spawn_all(n):
    await spawn(n, n)


async def yields(n, tasks):
    async def loop(times):
        for _ in range(times):
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(loop(n // tasks))


async def produce(queue, n):
    for i in range(n):
        await queue.put(i)


async def channel(n, cap):
    queue = asyncio.Queue(cap)
    producer = asyncio.create_task(produce(queue, n))
    for _ in range(n):
        await queue.get()
    await producer


async def select_from(n, queues):
    sources = [asyncio.Queue(1) for _ in range(queues)]
    producers = [asyncio.create_task(produce(queue, n)) for queue in sources]
    gets = {asyncio.create_task(queue.get()): queue for queue in sources}
    received = 0
    while received < n:
        done, _ = await asyncio.wait(gets, return_when=asyncio.FIRST_COMPLETED)
        for get in done:
            get.result()
            queue = gets.pop(get)
            gets[asyncio.create_task(queue.get())] = queue
        received += len(done)
    for task in (*producers, *gets):
        task.cancel()


async def mutex(n):
    lock = asyncio.Lock()
    for _ in range(n):
        async with lock:
            pass


async def mutex_contended(n, tasks=10):
    lock = asyncio.Lock()

    async def loop(times):
        for _ in range(times):
            async with lock:
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(loop(n // tasks))


async def scope(n):
    for _ in range(n):
        async with asyncio.timeout(None):
            pass


async def timeout_ready(n):
    queue = asyncio.Queue(1)
    for i in range(n):
        await queue.put(i)
        async with asyncio.timeout(10):
            await queue.get()


async def cancel_parked(n):
    never = asyncio.Event()
    all_ready = asyncio.Event()
    ready = 0

    async def wait():
        nonlocal ready
        ready += 1
        if ready == n:
            all_ready.set()
        await never.wait()

    start = perf_counter_ns()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait()) for _ in range(n)]
        await all_ready.wait()
        spent = perf_counter_ns() - start
        for task in tasks:
            task.cancel()
    return spent


async def timers(n):
    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(asyncio.sleep(0.5))
    return 500_000_000


async def park(n, frames):
    gate = asyncio.Event()
    all_ready = asyncio.Event()
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
    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(start(*args))
        await all_ready.wait()
        probe.parked()
        gate.set()


async def blocking_calls(n, tasks):
    def nothing():
        pass

    async def loop(times):
        for _ in range(times):
            await asyncio.to_thread(nothing)

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(loop(n // tasks))


PROGRAMS = {
    "spawn_1000": partial(spawn, batch=1000),
    "spawn_100000": spawn_all,
    "yield_2": partial(yields, tasks=2),
    "yield_1000": partial(yields, tasks=1000),
    "chan_0": partial(channel, cap=1),
    "chan_1000": partial(channel, cap=1000),
    "select_2": partial(select_from, queues=2),
    "select_8": partial(select_from, queues=8),
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
}


def operations(run):
    """The programs as functions, each in an event loop of its own that `run` makes."""

    def synchronous(program):
        return lambda n: run(program(n))

    return {name: synchronous(program) for name, program in PROGRAMS.items()}


OPERATIONS = operations(asyncio.run)
