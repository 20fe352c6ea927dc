"""Bare greenlet: no scheduler, no queues; the program itself says who runs next.

So its numbers are what a switch costs, and the least that anything built on it can cost.
"""

from collections import deque
from functools import partial

from greenlet import getcurrent, greenlet

import probe

USES = {
    "spawn_1000": "each is switched to, and ends",
    "spawn_100000": "each is switched to, and ends",
    "yield_2": "switch to the other one",
    "yield_1000": "switch to the next of a ring",
    "chan_0": "switch(value) to the consumer and back",
    "chan_1000": "a bounded queue written for it: deque, and a switch when it is full or empty",
    "park": "switch to the parent",
    "park_deep": "switch to the parent",
    "million": "switch to the parent",
}
LEFT_OUT = {
    "select_2": "it has no channels",
    "select_8": "it has no channels",
    "mutex": "it has no locks",
    "mutex_10": "it has no locks",
    "cancel_scope": "it has no cancellation",
    "timeout_ready": "it has no timers",
    "cancel_parked": "it has no cancellation",
    "contexts": "it has no cancellation",
    "timers": "it has no timers",
}
MOST: dict[str, int] = {}


def nothing():
    pass


def spawn(n, batch):
    for _ in range(n // batch):
        for new in [greenlet(nothing) for _ in range(batch)]:
            new.switch()


def spawn_all(n):
    spawn(n, n)


def yields(n, greenlets):
    def loop(index):
        switch = ring[(index + 1) % greenlets].switch
        main.switch()
        for _ in range(n // greenlets):
            switch()

    main = getcurrent()
    ring = [greenlet(partial(loop, index)) for index in range(greenlets)]
    for member in ring:  # each starts
        member.switch()
    for member in ring:  # the first runs all to their last switch; then each ends
        member.switch()


def unbuffered(n):
    def consume(_):
        back = main.switch
        for _ in range(n):
            back()

    main = getcurrent()
    consumer = greenlet(consume)
    send = consumer.switch
    send(None)
    for i in range(n):
        send(i)


class Queue:
    """Between two greenlets, of which the one knows the other."""

    def __init__(self, cap):
        self.cap = cap
        self.items = deque()

    def put(self, item):
        if len(self.items) >= self.cap:
            self.consumer.switch()
        self.items.append(item)

    def get(self):
        if not self.items:
            self.producer.switch()
        return self.items.popleft()


def buffered(n):
    def produce():
        for i in range(n):
            queue.put(i)
        queue.consumer.switch()

    queue = Queue(1000)
    queue.consumer, queue.producer = getcurrent(), greenlet(produce)
    for _ in range(n):
        queue.get()


def park(n, frames):
    main = getcurrent()

    def rest():
        main.switch()

    def deep(level):
        name, numbers, half = "park", (level, level), level / 2
        if level > 1:
            deep(level - 1)
        else:
            rest()
        return name, numbers, half

    start, args = (deep, (frames,)) if frames else (rest, ())
    waiting = [greenlet(start) for _ in range(n)]
    for one in waiting:
        one.switch(*args)
    probe.parked()
    for one in waiting:
        one.switch()


OPERATIONS = {
    "spawn_1000": partial(spawn, batch=1000),
    "spawn_100000": spawn_all,
    "yield_2": partial(yields, greenlets=2),
    "yield_1000": partial(yields, greenlets=1000),
    "chan_0": unbuffered,
    "chan_1000": buffered,
    "park": partial(park, frames=0),
    "park_deep": partial(park, frames=5),
    "million": partial(park, frames=0),
}
