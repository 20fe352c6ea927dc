"""Letting many goroutines park in the middle of something.

While they are parked, garbage is collected and the stack below is overwritten. What Python does
without goroutines is the oracle.
"""

import gc
import json

from gofer import Chan, gosched

MANY = 12


def scrub(depth=60):
    """Overwrites the stack below with other frames and other data."""
    nested = []
    for _ in range(depth):
        nested = [nested]
    repr(nested)
    sorted(range(3), key=lambda n: json.dumps([n, "x" * 50]))


class Park:
    """`park()` waits for `park.release(tasks)`, and both return 7.

    release() waits until all tasks are parked here or have ended, looks at the garbage, and lets
    every parked one go on; again, until all have ended.
    """

    def __init__(self, between=lambda: None):
        self.gate = Chan()
        self.parked = []
        self.between = between

    def __call__(self):
        self.parked.append(1)
        return self.gate.recv()

    def release(self, tasks):
        while not all(task.done for task in tasks):
            while not all(task.done or task.state == "waiting" for task in tasks):
                gosched()
            waiting = sum(not task.done for task in tasks)
            if not waiting:
                break
            gc.collect()
            scrub()
            self.between()
            for _ in range(waiting):
                self.gate.send(7)
        return len(self.parked)
