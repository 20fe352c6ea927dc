"""tonio: coroutines on a runtime of one or more threads, free-threaded builds only."""

from functools import partial
from time import perf_counter_ns

import tonio.colored as tonio
from tonio.colored.sync import Lock
from tonio.colored.sync.channel import channel

import probe

USES = {
    "chan_0": "its channel(1)",
    "chan_0_across": "its channel(1)",
    "select_2": "2 tasks that forward into one channel(1)",
    "select_8": "8 tasks that forward into one channel(1)",
    "yield_2": "yield_now",
    "yield_1000": "yield_now",
    "mutex_10": "sync.Lock and yield_now",
    "cancel_scope": "scope",
    "cancel_parked": "coroutines of a scope, each waits for an Event",
    "park": "Event",
    "park_deep": "Event, 5 coroutines deep",
    "million": "Event",
    "fork_join_1": "spawn",
    "fork_join_2": "spawn",
}
LEFT_OUT = {
    "timeout_ready": "its timeout is one of a coroutine, which it starts for that",
    "contexts": "it has scopes in place of contexts",
}
MOST = {"timers": 1_000}  # 2,000 never end

runtime = tonio.runtime(threads=probe.WORKERS)


async def nothing():
    pass


async def spawn(n, batch):
    for _ in range(n // batch):
        await tonio.spawn.without_results(*[nothing() for _ in range(batch)])


async def spawn_all(n):
    await spawn(n, n)


async def yields(n, tasks):
    async def loop(times):
        for _ in range(times):
            await tonio.yield_now()

    await tonio.spawn.without_results(*[loop(n // tasks) for _ in range(tasks)])


async def produce(sender, n):
    for i in range(n):
        await sender.send(i)


async def pass_on(n, cap):
    sender, receiver = channel(cap)
    producer = tonio.spawn.without_results(produce(sender, n))
    for _ in range(n):
        await receiver.receive()
    await producer


async def select_from(n, channels):
    async def forward(source, times):
        for _ in range(times):
            await out.send(await source.receive())

    out, merged = channel(1)
    times = n // channels
    tasks = []
    for _ in range(channels):
        sender, source = channel(1)
        tasks += [produce(sender, times), forward(source, times)]
    ends = tonio.spawn.without_results(*tasks)
    for _ in range(times * channels):
        await merged.receive()
    await ends


async def mutex(n):
    lock = Lock()
    for _ in range(n):
        async with lock:
            pass


async def mutex_contended(n, tasks=10):
    lock = Lock()

    async def loop(times):
        for _ in range(times):
            async with lock:
                await tonio.yield_now()

    await tonio.spawn.without_results(*[loop(n // tasks) for _ in range(tasks)])


async def scope(n):
    for _ in range(n):
        async with tonio.scope():
            pass


async def cancel_parked(n):
    never = tonio.Event()
    all_ready = tonio.Event()
    ready = 0

    async def wait():
        nonlocal ready
        ready += 1
        if ready == n:
            all_ready.set()
        await never.wait()

    start = perf_counter_ns()
    async with tonio.scope() as tasks:
        for _ in range(n):
            tasks.spawn(wait())
        await all_ready.wait()
        spent = perf_counter_ns() - start
        tasks.cancel()
    return spent


async def timers(n):
    await tonio.spawn.without_results(*[tonio.sleep(0.5) for _ in range(n)])
    return 500_000_000


async def park(n, frames):
    gate = tonio.Event()
    all_ready = tonio.Event()
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
    ends = tonio.spawn.without_results(*[start(*args) for _ in range(n)])
    await all_ready.wait()
    probe.parked()
    gate.set()
    await ends


async def ping_pong(n):
    async def answer():
        for _ in range(n):
            await pong.send(await ping_end.receive())

    ping, ping_end = channel(1)
    pong, pong_end = channel(1)
    other = tonio.spawn.without_results(answer())
    for i in range(n):
        await ping.send(i)
        await pong_end.receive()
    await other


async def fan_out(n, consumers=4):
    sender, receiver = channel(1000)

    async def consume():
        while await receiver.receive() is not None:
            pass

    ends = tonio.spawn.without_results(*[consume() for _ in range(consumers)])
    await produce(sender, n)
    for _ in range(consumers):
        await sender.send(None)
    await ends


async def fork_join(n):
    async def task():
        probe.work()

    await tonio.spawn(*[task() for _ in range(n)])


def function(program):
    return lambda n: runtime.run_until_complete(program(n))


OPERATIONS = {
    name: function(program)
    for name, program in {
        "spawn_1000": partial(spawn, batch=1000),
        "spawn_100000": spawn_all,
        "yield_2": partial(yields, tasks=2),
        "yield_1000": partial(yields, tasks=1000),
        "chan_0": partial(pass_on, cap=1),
        "chan_1000": partial(pass_on, cap=1000),
        "select_2": partial(select_from, channels=2),
        "select_8": partial(select_from, channels=8),
        "mutex": mutex,
        "mutex_10": mutex_contended,
        "cancel_scope": scope,
        "cancel_parked": cancel_parked,
        "timers": timers,
        "park": partial(park, frames=0),
        "park_deep": partial(park, frames=5),
        "million": partial(park, frames=0),
        "ping_pong": ping_pong,
        "chan_0_across": partial(pass_on, cap=1),
        "chan_1000_across": partial(pass_on, cap=1000),
        "fan_out": fan_out,
        "fork_join_1": fork_join,
        "fork_join_2": fork_join,
    }.items()
}
