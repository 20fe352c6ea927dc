"""Event loops of asyncio in goroutines.

A loop waits in its selector, which parks. Which loop and which task run, and the hooks of
asynchronous generators, are kept in the thread state and are exchanged with the goroutine
(csrc/pystate.h). What remains is

- the end of `asyncio.run` in a goroutine that is cancelled;
- uvloop, which waits in C and blocks its thread. Two that run on one thread at a time would undo
  each other's handling of signals: the second is refused.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

from gofer.scope import shield
from gofer.stdlib._above import Above
from gofer.stdlib._imports import Imports

__all__ = ["begin", "end"]


def _begin_runners() -> Callable[[], object]:
    def close(self: Any) -> None:
        # It cancels its tasks and runs until they have ended: they may clean up.
        with shield():
            above.before(self)

    above = Above(sys.modules["asyncio.runners"].Runner, "close", close)
    above.put()
    return above.take_away


def _begin_uvloop() -> Callable[[], object]:
    Loop: Any = sys.modules["uvloop"].Loop
    before = Loop.run_forever
    running: set[int] = set()

    def run_forever(self: Any) -> None:
        thread = threading.get_native_id()
        if thread in running:
            raise RuntimeError(
                "a loop of uvloop runs on this thread already, in a goroutine that has parked in "
                "one of its coroutines: use asyncio's own loop in goroutines, or gofer.aio"
            )
        running.add(thread)
        try:
            before(self)
        finally:
            running.discard(thread)

    Loop.run_forever = run_forever
    return lambda: delattr(Loop, "run_forever")


_IMPORTS = Imports({"asyncio.runners": _begin_runners, "uvloop": _begin_uvloop})


def begin() -> None:
    _IMPORTS.watch()


def end() -> None:
    _IMPORTS.forget()
