"""The standard library as it is used: the same program for all that make it cooperative.

They differ in how they start two functions at once, `both`, or many, `at_once`; all return when the
functions have.
"""

import os
import queue
import threading


def lock(n):
    held = threading.Lock()
    for _ in range(n):
        with held:
            pass


def through(items, n, both):
    def produce():
        for i in range(n):
            items.put(i)

    def consume():
        for _ in range(n):
            items.get()

    both([produce, consume])


def operations(at_once):
    """name -> function(n); at_once(functions) runs them and returns when all have returned."""

    def requests_get(n):
        import requests

        url = f"http://127.0.0.1:{os.environ['BENCH_PORT']}/bench"
        got = []
        at_once([lambda: got.append(requests.get(url, timeout=60).text)] * n)
        if got != ["hello from /bench\n"] * n:
            raise RuntimeError("not all were answered")

    return {
        "requests": requests_get,
        "lock": lock,
        "queue": lambda n: through(queue.Queue(1000), n, at_once),
        "simple_queue": lambda n: through(queue.SimpleQueue(), n, at_once),
    }
