"""gofer, by its public interface."""

from functools import partial
from time import perf_counter_ns

from gofer import (
    Chan,
    Mutex,
    WaitGroup,
    blocking,
    cancel_scope,
    fork,
    go,
    gosched,
    patch,
    select,
    sleep,
    timeout,
)
from gofer.context import background, with_cancel
from gofer.runtime import gomaxprocs

import probe
from contenders import library

USES = {
    "cancel_scope": "cancel_scope",
    "timeout_ready": "timeout and a buffered channel",
    "cancel_parked": "goroutines of a cancel_scope that wait for a channel",
    "contexts": "with_cancel, 10 below each",
}
LEFT_OUT: dict[str, str] = {}
MOST: dict[str, int] = {}

gomaxprocs(probe.WORKERS)


def nothing():
    pass


def spawn(n, batch):
    for _ in range(n // batch):
        wg = WaitGroup()
        for _ in range(batch):
            wg.go(nothing)
        wg.wait()


def spawn_all(n):
    spawn(n, n)


def yields(n, goroutines):
    def loop(times):
        for _ in range(times):
            gosched()

    with WaitGroup() as wg:
        for _ in range(goroutines):
            wg.go(loop, n // goroutines)


def produce(ch, n):
    for i in range(n):
        ch.send(i)
    ch.close()


def channel(n, cap):
    ch = Chan(cap)
    go(produce, ch, n)
    for _ in ch:
        pass


def select_from(n, channels):
    stopped = []

    def keep_sending(ch):
        while not stopped:
            ch.send(n)
        ch.close()

    chans = [Chan() for _ in range(channels)]
    for ch in chans:
        go(keep_sending, ch)
    cases = [ch.recv for ch in chans]
    for _ in range(n):
        select(*cases)
    stopped.append(True)
    for ch in chans:
        for _ in ch:
            pass


def mutex(n):
    lock = Mutex()
    for _ in range(n):
        with lock:
            pass


def mutex_contended(n, goroutines=10):
    lock = Mutex()

    def loop(times):
        for _ in range(times):
            with lock:
                gosched()

    with WaitGroup() as wg:
        for _ in range(goroutines):
            wg.go(loop, n // goroutines)


def scope(n):
    for _ in range(n):
        with cancel_scope():
            pass


def timeout_ready(n):
    ch = Chan(1)
    for i in range(n):
        ch.send(i)
        with timeout(10):
            ch.recv()


def cancel_parked(n):
    never = Chan()
    ready = WaitGroup()

    def wait():
        ready.done()
        never.recv()

    start = perf_counter_ns()
    ready.add(n)
    with WaitGroup() as ends, cancel_scope() as scope:
        for _ in range(n):
            ends.go(wait)
        ready.wait()
        spent = perf_counter_ns() - start
        scope.cancel()
    return spent


def contexts(n):
    root, cancel = with_cancel(background())
    level = [root]
    left = n
    while left:
        level = [with_cancel(level[k // 10])[0] for k in range(min(10 * len(level), left))]
        left -= len(level)
    cancel()
    if level[-1].err() is None:
        raise RuntimeError("it was not cancelled")


def timers(n):
    with WaitGroup() as wg:
        for _ in range(n):
            wg.go(sleep, 0.5)
    return 500_000_000


def park(n, frames):
    gate = Chan()
    ready = WaitGroup()

    def rest():
        ready.done()
        gate.recv_ok()

    def deep(level):
        name, numbers, half = "park", (level, level), level / 2
        if level > 1:
            deep(level - 1)
        else:
            rest()
        return name, numbers, half

    start, args = (deep, (frames,)) if frames else (rest, ())
    ready.add(n)
    with WaitGroup() as ends:
        for _ in range(n):
            ends.go(start, *args)
        ready.wait()
        probe.parked()
        gate.close()


def blocking_calls(n, goroutines):
    def loop(times):
        for _ in range(times):
            blocking(nothing)

    with WaitGroup() as wg:
        for _ in range(goroutines):
            wg.go(loop, n // goroutines)


# --- two workers --------------------------------------------------------------------------------


def elsewhere(fn, *args):
    """Starts fn on another worker: this one is not given up before it runs."""
    started = []

    def start():
        started.append(True)
        fn(*args)

    go(start)
    while not started:
        pass


def ping_pong(n):
    ping, pong = Chan(), Chan()

    def answer():
        for value in ping:
            pong.send(value)

    elsewhere(answer)
    for i in range(n):
        ping.send(i)
        pong.recv()
    ping.close()


def channel_across(n, cap):
    ch = Chan(cap)
    elsewhere(produce, ch, n)
    for _ in ch:
        pass


def fan_out(n, consumers=4):
    ch = Chan(1000)

    def consume():
        for _ in ch:
            pass

    with WaitGroup() as wg:
        for _ in range(consumers):
            wg.go(consume)
        produce(ch, n)


def fork_join(n):
    for task in [fork(probe.work) for _ in range(n)]:
        task.join()


def patched(program):
    """The program with the standard library made cooperative."""

    def function(n):
        patch()
        program(n)

    return function


def at_once(functions):
    with WaitGroup() as wg:
        for function in functions:
            wg.go(function)


OPERATIONS = {
    "spawn_1000": partial(spawn, batch=1000),
    "spawn_100000": spawn_all,
    "yield_2": partial(yields, goroutines=2),
    "yield_1000": partial(yields, goroutines=1000),
    "chan_0": partial(channel, cap=0),
    "chan_1000": partial(channel, cap=1000),
    "select_2": partial(select_from, channels=2),
    "select_8": partial(select_from, channels=8),
    "mutex": mutex,
    "mutex_10": mutex_contended,
    "cancel_scope": scope,
    "timeout_ready": timeout_ready,
    "cancel_parked": cancel_parked,
    "contexts": contexts,
    "timers": timers,
    "park": partial(park, frames=0),
    "park_deep": partial(park, frames=5),
    "million": partial(park, frames=0),
    "blocking": partial(blocking_calls, goroutines=1),
    "blocking_100": partial(blocking_calls, goroutines=100),
    "ping_pong": ping_pong,
    "chan_0_across": partial(channel_across, cap=0),
    "chan_1000_across": partial(channel_across, cap=1000),
    "fan_out": fan_out,
    "fork_join_1": fork_join,
    "fork_join_2": fork_join,
    **{name: patched(program) for name, program in library.operations(at_once).items()},
}
