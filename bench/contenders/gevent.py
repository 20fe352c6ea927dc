"""gevent: greenlets on a hub with an event loop."""

from functools import partial
from time import perf_counter_ns

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.queue import Channel, SimpleQueue

import probe
from contenders import library

USES = {
    "chan_0": "gevent.queue.Channel",
    "chan_1000": "gevent.queue.SimpleQueue(1000)",
    "select_2": "2 greenlets that forward from their Channel into one",
    "select_8": "8 greenlets that forward from their Channel into one",
    "spawn_1000": "gevent.spawn and joinall",
    "spawn_100000": "gevent.spawn and joinall",
    "yield_2": "gevent.sleep(0)",
    "yield_1000": "gevent.sleep(0)",
    "mutex": "BoundedSemaphore(1)",
    "mutex_10": "BoundedSemaphore(1) and gevent.sleep(0)",
    "cancel_scope": "gevent.Timeout(None)",
    "timeout_ready": "gevent.Timeout and a SimpleQueue(1)",
    "cancel_parked": "gevent.killall, each waits for a gevent.event.Event",
    "park": "gevent.event.Event",
    "park_deep": "gevent.event.Event",
    "million": "gevent.event.Event",
    "blocking": "the hub's threadpool: spawn and get",
    "blocking_100": "the hub's threadpool: spawn and get",
}
LEFT_OUT = {"contexts": "it has no contexts"}
MOST: dict[str, int] = {}


def nothing():
    pass


def spawn(n, batch):
    for _ in range(n // batch):
        gevent.joinall([gevent.spawn(nothing) for _ in range(batch)])


def spawn_all(n):
    spawn(n, n)


def yields(n, greenlets):
    def loop(times):
        for _ in range(times):
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(loop, n // greenlets) for _ in range(greenlets)])


def produce(queue, n):
    for i in range(n):
        queue.put(i)


def channel(n, make):
    queue = make()
    gevent.spawn(produce, queue, n)
    for _ in range(n):
        queue.get()


def select_from(n, channels):
    def forward(source, times):
        for _ in range(times):
            merged.put(source.get())

    merged = Channel()
    for _ in range(channels):
        source = Channel()
        gevent.spawn(produce, source, n // channels)
        gevent.spawn(forward, source, n // channels)
    for _ in range(n // channels * channels):
        merged.get()


def mutex(n):
    lock = BoundedSemaphore(1)
    for _ in range(n):
        with lock:
            pass


def mutex_contended(n, greenlets=10):
    lock = BoundedSemaphore(1)

    def loop(times):
        for _ in range(times):
            with lock:
                gevent.sleep(0)

    gevent.joinall([gevent.spawn(loop, n // greenlets) for _ in range(greenlets)])


def scope(n):
    for _ in range(n):
        with gevent.Timeout(None):
            pass


def timeout_ready(n):
    queue = SimpleQueue(1)
    for i in range(n):
        queue.put(i)
        with gevent.Timeout(10):
            queue.get()


def cancel_parked(n):
    never = Event()
    all_ready = Event()
    ready = 0

    def wait():
        nonlocal ready
        ready += 1
        if ready == n:
            all_ready.set()
        never.wait()

    start = perf_counter_ns()
    greenlets = [gevent.spawn(wait) for _ in range(n)]
    all_ready.wait()
    spent = perf_counter_ns() - start
    gevent.killall(greenlets)
    return spent


def timers(n):
    gevent.joinall([gevent.spawn(gevent.sleep, 0.5) for _ in range(n)])
    return 500_000_000


def park(n, frames):
    gate = Event()
    all_ready = Event()
    ready = 0

    def rest():
        nonlocal ready
        ready += 1
        if ready == n:
            all_ready.set()
        gate.wait()

    def deep(level):
        name, numbers, half = "park", (level, level), level / 2
        if level > 1:
            deep(level - 1)
        else:
            rest()
        return name, numbers, half

    start, args = (deep, (frames,)) if frames else (rest, ())
    greenlets = [gevent.spawn(start, *args) for _ in range(n)]
    all_ready.wait()
    probe.parked()
    gate.set()
    gevent.joinall(greenlets)


def blocking_calls(n, greenlets):
    pool = gevent.get_hub().threadpool

    def loop(times):
        for _ in range(times):
            pool.spawn(nothing).get()

    gevent.joinall([gevent.spawn(loop, n // greenlets) for _ in range(greenlets)])


def patched(program):
    """The program with the standard library made cooperative."""

    def function(n):
        monkey.patch_all()
        program(n)

    return function


def at_once(functions):
    gevent.joinall([gevent.spawn(function) for function in functions], raise_error=True)


OPERATIONS = {
    "spawn_1000": partial(spawn, batch=1000),
    "spawn_100000": spawn_all,
    "yield_2": partial(yields, greenlets=2),
    "yield_1000": partial(yields, greenlets=1000),
    "chan_0": partial(channel, make=Channel),
    "chan_1000": partial(channel, make=partial(SimpleQueue, 1000)),
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
    "blocking": partial(blocking_calls, greenlets=1),
    "blocking_100": partial(blocking_calls, greenlets=100),
    **{name: patched(program) for name, program in library.operations(at_once).items()},
}
