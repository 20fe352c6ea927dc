"""Event loops of asyncio in goroutines.

A loop waits in its selector, which parks. Which loop and which task run, and the hooks of
asynchronous generators, are kept in the thread state and are exchanged with the goroutine
(csrc/pystate.h). What remains is

- the end of `asyncio.run` in a goroutine that is cancelled, and Ctrl-C in it;
- uvloop, which waits in C and blocks its thread. Two that run on one thread at a time would undo
  each other's handling of signals: the second is refused.
"""

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gofer import _core
from gofer.scope import shield
from gofer.stdlib._above import Above, put_all
from gofer.stdlib._imports import Imports

__all__ = ["begin", "end"]


def _begin_runners() -> Callable[[], object]:
    Runner: Any = sys.modules["asyncio.runners"].Runner
    running_loop: Any = sys.modules["asyncio.events"]._get_running_loop

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        # It handles Ctrl-C in the main thread, if nobody else does.
        in_main = threading.current_thread() is threading.main_thread()
        if in_main:
            _core.current()  # takes Ctrl-C over, if this is the first use of gofer
        done = in_main and _exchange_handlers(_core.interrupted, signal.default_int_handler)
        try:
            return running.before(self, *args, **kwargs)
        finally:
            if done:
                _exchange_handlers(signal.default_int_handler, _core.interrupted)

    def on_sigint(self: Any, signum: int, frame: Any, main_task: Any) -> None:
        if running_loop() is not self._loop:
            main_task = _FromElsewhere(main_task, self._loop)
        try:
            interrupting.before(self, signum, frame, main_task)
        except KeyboardInterrupt:  # the second: for goroutine 1, and not for whichever runs
            _core.interrupted()

    def close(self: Any) -> None:
        # It cancels its tasks and runs until they have ended: they may clean up.
        with shield():
            closing.before(self)

    running = Above(Runner, "run", run)
    interrupting = Above(Runner, "_on_sigint", on_sigint)
    closing = Above(Runner, "close", close)
    return put_all(running, interrupting, closing)


class _FromElsewhere:
    """A task, for who is not in the goroutine of its loop."""

    def __init__(self, task: Any, loop: Any) -> None:
        self.done = task.done
        self._cancel, self._loop = task.cancel, loop

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(self._cancel)


def _exchange_handlers(here: Any, other: Any) -> bool:
    if signal.getsignal(signal.SIGINT) is not here:
        return False
    with suppress(ValueError):  # as asyncio does: an interpreter may have no signals
        signal.signal(signal.SIGINT, other)
    return True


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
