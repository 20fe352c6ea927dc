"""runloom: fibers on a stack each; one hub, or several on a free-threaded build."""

from functools import partial
from time import perf_counter_ns

import runloom
import runloom.monkey
from runloom import Chan, WaitGroup
from runloom.context import Background, WithCancel
from runloom.sync import Lock

import probe
from contenders import library

USES = {
    "spawn_1000": "runloom.run(1) runs the batch to its end; cheaper than its WaitGroup",
    "spawn_100000": "runloom.run(1) runs them to their end; cheaper than its WaitGroup",
    "mutex": "runloom.sync.Lock",
    "mutex_10": "runloom.sync.Lock and yield_now",
    "cancel_scope": "context.WithCancel",
    "cancel_parked": "each waits for the done of a context",
    "contexts": "context.WithCancel, 10 below each",
    "fork_join_1": "gather",
    "fork_join_2": "gather",
}
LEFT_OUT = {"timeout_ready": "a WithTimeout leaves a fiber that sleeps until its time is over"}
MOST = dict.fromkeys(
    ("spawn_100000", "timers", "park", "park_deep"), 20_000
)  # Linux allows 65,530 mappings


def nothing():
    pass


def main_fiber(program):
    """The program as a function that runs it as the main fiber."""

    def function(n):
        ends = []

        def main():
            try:
                program(n)
                ends.append(None)
            except BaseException as error:
                ends.append(error)

        runloom.run(probe.WORKERS, main)  # it also returns when only stuck fibers are left
        if not ends:
            raise RuntimeError("the main fiber is stuck")
        if ends[0]:
            raise ends[0]

    return function


def spawn(n, batch):
    for _ in range(n // batch):
        for _ in range(batch):
            runloom.fiber(nothing)
        runloom.run(1)


def spawn_all(n):
    spawn(n, n)


def yields(n, fibers):
    def loop():
        for _ in range(times):
            runloom.yield_now()

    times = n // fibers
    for _ in range(fibers):
        runloom.fiber(loop)
    runloom.run(1)


def produce(ch, n):
    for i in range(n):
        ch.send(i)
    ch.close()


def channel(n, cap):
    ch = Chan(cap)
    runloom.fiber(produce, ch, n)
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
        runloom.fiber(keep_sending, ch)
    cases = [("recv", ch) for ch in chans]
    for _ in range(n):
        runloom.select(cases)
    stopped.append(True)
    for ch in chans:
        for _ in ch:
            pass


def mutex(n):
    lock = Lock()
    for _ in range(n):
        with lock:
            pass


def mutex_contended(n, fibers=10):
    lock = Lock()

    def loop():
        for _ in range(times):
            with lock:
                runloom.yield_now()

    times = n // fibers
    for _ in range(fibers):
        runloom.fiber(loop)
    runloom.run(1)


def scope(n):
    root = Background()
    for _ in range(n):
        _, cancel = WithCancel(root)
        cancel()


def cancel_parked(n):
    ctx, cancel = WithCancel(Background())
    all_ready, all_ended = Chan(1), Chan(1)
    ready = ended = 0

    def wait():
        nonlocal ready, ended
        ready += 1
        if ready == n:
            all_ready.send(True)
        ctx.done.recv()
        ended += 1
        if ended == n:
            all_ended.send(True)

    start = perf_counter_ns()
    for _ in range(n):
        runloom.fiber(wait)
    all_ready.recv()
    spent = perf_counter_ns() - start
    cancel()
    all_ended.recv()
    return spent


def contexts(n):
    root, cancel = WithCancel(Background())
    level = [root]
    left = n
    while left:
        level = [WithCancel(level[k // 10])[0] for k in range(min(10 * len(level), left))]
        left -= len(level)
    cancel()
    if level[-1].err() is None:
        raise RuntimeError("it was not cancelled")


def timers(n):
    def sleeper():
        runloom.sleep(0.5)

    for _ in range(n):
        runloom.fiber(sleeper)
    runloom.run(1)
    return 500_000_000


def blocking_calls(n, fibers):
    def loop():
        for _ in range(times):
            runloom.blocking(nothing)

    times = n // fibers
    for _ in range(fibers):
        runloom.fiber(loop)
    runloom.run(1)


def park(n, frames):
    gate = Chan()
    all_ready = Chan(1)
    ready = 0

    def rest():
        nonlocal ready
        ready += 1
        if ready == n:
            all_ready.send(True)
        gate.recv()

    def deep(level):
        name, numbers, half = "park", (level, level), level / 2
        if level > 1:
            deep(level - 1)
        else:
            rest()
        return name, numbers, half

    start = partial(deep, frames) if frames else rest
    for _ in range(n):
        runloom.fiber(start)
    all_ready.recv()
    probe.parked()
    gate.close()


# --- two workers --------------------------------------------------------------------------------


def elsewhere(fn, *args):
    """Starts fn on another hub: this one is not given up before it runs."""
    started = []

    def start():
        started.append(True)
        fn(*args)

    runloom.fiber(start)
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
    wg = WaitGroup()

    def consume():
        for _ in ch:
            pass
        wg.done()

    wg.add(consumers)
    for _ in range(consumers):
        runloom.fiber(consume)
    produce(ch, n)
    wg.wait()


def fork_join(n):
    runloom.gather(*[probe.work] * n)


def patched(program):
    """The program with the standard library made cooperative."""

    def function(n):
        runloom.monkey.patch()
        program(n)

    return main_fiber(function)


def at_once(functions):
    wg = WaitGroup()
    wg.add(len(functions))

    def run(function):
        function()
        wg.done()

    for function in functions:
        runloom.fiber(partial(run, function))
    wg.wait()


OPERATIONS = {
    "spawn_1000": partial(spawn, batch=1000),
    "spawn_100000": spawn_all,
    "yield_2": partial(yields, fibers=2),
    "yield_1000": partial(yields, fibers=1000),
    "chan_0": main_fiber(partial(channel, cap=0)),
    "chan_1000": main_fiber(partial(channel, cap=1000)),
    "select_2": main_fiber(partial(select_from, channels=2)),
    "select_8": main_fiber(partial(select_from, channels=8)),
    "mutex": main_fiber(mutex),
    "mutex_10": mutex_contended,
    "cancel_scope": main_fiber(scope),
    "cancel_parked": main_fiber(cancel_parked),
    "contexts": main_fiber(contexts),
    "timers": timers,
    "park": main_fiber(partial(park, frames=0)),
    "park_deep": main_fiber(partial(park, frames=5)),
    "million": main_fiber(partial(park, frames=0)),
    "blocking": partial(blocking_calls, fibers=1),
    "blocking_100": partial(blocking_calls, fibers=100),
    "ping_pong": main_fiber(ping_pong),
    "chan_0_across": main_fiber(partial(channel_across, cap=0)),
    "chan_1000_across": main_fiber(partial(channel_across, cap=1000)),
    "fan_out": main_fiber(fan_out),
    "fork_join_1": main_fiber(fork_join),
    "fork_join_2": main_fiber(fork_join),
    **{name: patched(program) for name, program in library.operations(at_once).items()},
}
