"""Threads of the operating system, with the standard library's locks and queues."""

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import probe
from contenders import library

USES = {
    "chan_0": "queue.Queue(1)",
    "chan_1000": "queue.Queue(1000)",
    "select_2": "2 threads that forward from their Queue(1) into one",
    "select_8": "8 threads that forward from their Queue(1) into one",
    "yield_2": "time.sleep(0)",
    "yield_1000": "time.sleep(0)",
    "mutex_10": "threading.Lock and time.sleep(0)",
    "timeout_ready": "SimpleQueue.get with a timeout",
    "park": "threading.Event",
    "park_deep": "threading.Event",
    "ping_pong": "two SimpleQueues",
    "chan_0_across": "two SimpleQueues: an item, and that it was taken",
    "chan_1000_across": "SimpleQueue (not bounded)",
    "fan_out": "SimpleQueue (not bounded), 4 threads",
    "fork_join_1": "1 bare thread",
    "fork_join_2": "2 bare threads, half of the tasks each",
    "blocking": "ThreadPoolExecutor: submit and result",
    "blocking_100": "ThreadPoolExecutor: submit and result",
}
LEFT_OUT = {
    "cancel_scope": "threads can not be cancelled",
    "cancel_parked": "threads can not be cancelled",
    "contexts": "threads can not be cancelled",
    "million": "a kernel does not run a million threads",
}
MOST = {"spawn_100000": 10_000, "timers": 5_000, "park": 5_000, "park_deep": 5_000}


def nothing():
    pass


def run_all(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def spawn(n, batch):
    for _ in range(n // batch):
        run_all([threading.Thread(target=nothing) for _ in range(batch)])


def spawn_all(n):
    spawn(n, n)


def yields(n, threads):
    def loop(times):
        for _ in range(times):
            time.sleep(0)

    run_all([threading.Thread(target=loop, args=(n // threads,)) for _ in range(threads)])


def produce(out, n):
    for i in range(n):
        out.put(i)


def channel(n, make):
    items = make()
    producer = threading.Thread(target=produce, args=(items, n))
    producer.start()
    for _ in range(n):
        items.get()
    producer.join()


def select_from(n, queues):
    def forward(source, times):
        for _ in range(times):
            merged.put(source.get())

    merged = queue.Queue(1)
    times = n // queues
    threads = []
    for _ in range(queues):
        source = queue.Queue(1)
        threads.append(threading.Thread(target=produce, args=(source, times)))
        threads.append(threading.Thread(target=forward, args=(source, times)))
    for thread in threads:
        thread.start()
    for _ in range(times * queues):
        merged.get()
    for thread in threads:
        thread.join()


def mutex(n):
    lock = threading.Lock()
    for _ in range(n):
        with lock:
            pass


def mutex_contended(n, threads=10):
    lock = threading.Lock()

    def loop(times):
        for _ in range(times):
            with lock:
                time.sleep(0)

    run_all([threading.Thread(target=loop, args=(n // threads,)) for _ in range(threads)])


def timeout_ready(n):
    source = queue.SimpleQueue()
    for i in range(n):
        source.put(i)
        source.get(timeout=10)


def timers(n):
    run_all([threading.Thread(target=time.sleep, args=(0.5,)) for _ in range(n)])
    return 500_000_000


def park(n, frames):
    gate = threading.Event()
    ready = threading.Semaphore(0)

    def rest():
        ready.release()
        gate.wait()

    def deep(level):
        name, numbers, half = "park", (level, level), level / 2
        if level > 1:
            deep(level - 1)
        else:
            rest()
        return name, numbers, half

    start, args = (deep, (frames,)) if frames else (rest, ())
    threads = [threading.Thread(target=start, args=args) for _ in range(n)]
    for thread in threads:
        thread.start()
    for _ in range(n):
        ready.acquire()
    probe.parked()
    gate.set()
    for thread in threads:
        thread.join()


# --- two of them, without the GIL ---------------------------------------------------------------


def ping_pong(n):
    ping, pong = queue.SimpleQueue(), queue.SimpleQueue()

    def answer():
        for _ in range(n):
            pong.put(ping.get())

    other = threading.Thread(target=answer)
    other.start()
    for i in range(n):
        ping.put(i)
        pong.get()
    other.join()


def acknowledged(n):
    items, taken = queue.SimpleQueue(), queue.SimpleQueue()

    def produce():
        for i in range(n):
            items.put(i)
            taken.get()

    producer = threading.Thread(target=produce)
    producer.start()
    for _ in range(n):
        items.get()
        taken.put(None)
    producer.join()


def fan_out(n, consumers=4):
    items = queue.SimpleQueue()

    def consume():
        while items.get() is not None:
            pass

    threads = [threading.Thread(target=consume) for _ in range(consumers)]
    for thread in threads:
        thread.start()
    produce(items, n)
    for _ in threads:
        items.put(None)
    for thread in threads:
        thread.join()


def fork_join(n):
    def loop(times):
        for _ in range(times):
            probe.work()

    workers = probe.WORKERS
    run_all([threading.Thread(target=loop, args=(n // workers,)) for _ in range(workers)])


def blocking_calls(n, callers):
    with ThreadPoolExecutor() as pool:

        def loop(times):
            for _ in range(times):
                pool.submit(nothing).result()

        run_all([threading.Thread(target=loop, args=(n // callers,)) for _ in range(callers)])


def at_once(functions):
    started = [threading.Thread(target=function) for function in functions]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


OPERATIONS = {
    "spawn_1000": partial(spawn, batch=1000),
    "spawn_100000": spawn_all,
    "yield_2": partial(yields, threads=2),
    "yield_1000": partial(yields, threads=1000),
    "chan_0": partial(channel, make=partial(queue.Queue, 1)),
    "chan_1000": partial(channel, make=partial(queue.Queue, 1000)),
    "select_2": partial(select_from, queues=2),
    "select_8": partial(select_from, queues=8),
    "mutex": mutex,
    "mutex_10": mutex_contended,
    "timeout_ready": timeout_ready,
    "timers": timers,
    "park": partial(park, frames=0),
    "park_deep": partial(park, frames=5),
    "blocking": partial(blocking_calls, callers=1),
    "blocking_100": partial(blocking_calls, callers=100),
    "ping_pong": ping_pong,
    "chan_0_across": acknowledged,
    "chan_1000_across": partial(channel, make=queue.SimpleQueue),
    "fan_out": fan_out,
    "fork_join_1": fork_join,
    "fork_join_2": fork_join,
    **library.operations(at_once),
}
