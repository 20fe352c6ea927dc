"""What of `threading` is in Python: conditions, joining threads, the threads that goroutines seem.

The locks below, `get_ident` and `threading.local` are exchanged in the core (csrc/patch_thread.c).
"""

import threading
from collections.abc import Callable
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.scope import shield
from gofer.stdlib._above import Above

__all__ = ["ABOVE", "STAND_INS", "begin", "end"]

# Attributes that typeshed does not know.
_threading: Any = threading


# --- conditions ---------------------------------------------------------------------------------


def _take_again(condition: Any, state: Any) -> BaseException | None:
    """Take its lock, whatever happens meanwhile; the interrupt that came."""
    interrupt = None
    with shield():
        while True:
            try:
                condition._acquire_restore(state)
            except (KeyboardInterrupt, SystemExit) as error:
                interrupt = error
            else:
                return interrupt


def _wait(self: Any, timeout: float | None = None) -> bool:
    # As CPython's, but that the lock is held again also in a goroutine that is cancelled, and that
    # a notification which has come too late for it goes on to the next.
    if not _core.parks():
        return _CONDITION.before(self, timeout)  # type: ignore[no-any-return]
    if not self._is_owned():
        raise RuntimeError("cannot wait on un-acquired lock")
    waiter = threading.Lock()
    waiter.acquire()
    self._waiters.append(waiter)
    state = self._release_save()
    notified = gone = False
    try:
        if timeout is None or timeout > 0:
            notified = _core.await_lock(waiter, timeout)
        else:
            notified = waiter.acquire(False)
    except BaseException:
        gone = True
        raise
    finally:
        interrupt = _take_again(self, state)
        if not notified:
            try:
                self._waiters.remove(waiter)
            except ValueError:
                if gone:
                    self.notify()
        if interrupt is not None:
            raise interrupt
    return notified


_CONDITION: Final = Above(threading.Condition, "wait", _wait)


# --- joining ------------------------------------------------------------------------------------


def _join_handle(original: Callable[..., None], *args: Any) -> None:
    """`_ThreadHandle.join`: from 3.13 on threads end without a lock that could be waited for."""
    blocking(original, *args)


STAND_INS: Final = {"_thread._ThreadHandle.join": _join_handle}


def _wait_for_end(self: Any, block: bool = True, timeout: float = -1) -> None:
    # Up to 3.12 a thread frees a lock after its last Python code: nobody would tell a goroutine.
    before = _END.before
    if block and timeout != 0 and _core.parks():
        blocking(before, self, block, timeout)
    else:
        before(self, block, timeout)


_END: Final = Above(threading.Thread, "_wait_for_tstate_lock", _wait_for_end)


# --- goroutines as threads ----------------------------------------------------------------------


_active: dict[int, Any] = _threading._active
_local = threading.local()
_Dummy: Any = _threading._DummyThread


class _Tracker:
    """Lives as long as the goroutine: in its `threading.local`."""

    def __init__(self, thread: Any) -> None:
        self._thread = thread

    def __del__(self, active: dict[int, Any] = _active) -> None:
        ident = self._thread.ident
        if active.get(ident) is self._thread:
            active.pop(ident, None)


class _DummyThread(_Dummy):  # type: ignore[misc]
    """What `threading.current_thread()` is in a goroutine; elsewhere as its base class."""

    def __init__(self) -> None:
        if not _core.parks():
            _Dummy.__init__(self)
            return
        with shield():  # for its lock: who one is can be told in a cancelled scope, too
            _Dummy.__init__(self)
            self._name = f"goroutine {_core.current().id}"
            self._daemonic = False  # as it is for the threads that it starts
            _track(self)


def _track(thread: Any) -> None:
    """Forget it when the goroutine ends."""
    theirs: Any = getattr(_threading, "_thread_local_info", None)
    if theirs is not None:  # from 3.13 on, and it fails at the very end of the program
        theirs.__dict__.pop("_track_dummy_thread_ref", None)
    _active[thread.ident] = thread
    _local.tracker = _Tracker(thread)


_DUMMY: Final = Above(threading, "_DummyThread", _DummyThread)


# --- the end ------------------------------------------------------------------------------------


def _shutdown() -> None:
    """The main thread waits for the others, and runs no goroutines meanwhile."""
    _core.patch_end()
    _SHUTDOWN.before()


_SHUTDOWN: Final = Above(threading, "_shutdown", _shutdown)

ABOVE: Final = (
    _CONDITION,
    _DUMMY,
    _SHUTDOWN,
    *([_END] if hasattr(threading.Thread, "_wait_for_tstate_lock") else []),
)


def begin() -> None:
    _core.patch_locals(True)


def end() -> None:
    _core.patch_locals(False)
