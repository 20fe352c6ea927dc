"""A gate that calls on threads wait at."""

import threading


class Gate:
    """Calls of `gate(x)` return x when it is opened; `entered` counts them."""

    def __init__(self):
        self.entered = []
        self._open = threading.Event()

    def __call__(self, value=None):
        self.entered.append(value)
        self._open.wait()
        return value

    def open(self):
        self._open.set()
