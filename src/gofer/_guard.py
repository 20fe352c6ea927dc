"""Locking where failing to lock is not an option.

What must stay true:
- When `lock_surely` returns, the lock is held. A cancellation waits until then. An interrupt
  (Ctrl-C, or the SystemExit of another goroutine) that came meanwhile is returned: the caller
  raises it when it is done.
- A `Guard` protects a few lines of the library's own state. Nothing that waits is done under it, so
  waiting for it is short; it may be taken where a Cancelled could not be raised (while giving
  something back) or would surprise (in an atomic operation).
- In a goroutine that `run` unwinds a `Guard` holds off its GoroutineExit as well, which otherwise
  may come between any two bytecodes: also between locking and the block that unlocks. Before
  the first `Guard`, or when it is done, it comes.
- Deadlock comes through, and `lock_surely` lets GoroutineExit through; the lock is not held then.

A `threading.Lock` will not do: a goroutine can be made to yield while it holds one, and the next
goroutine of that worker would block the very thread that has to go on.
"""

from typing import Protocol

from gofer._core import Mutex, hold_end, release_end, shield
from gofer.errors import Cancelled

__all__ = ["Guard", "Locker", "lock_surely"]


class Locker(Protocol):
    """What can be locked and unlocked: a `Mutex`, or an `RWMutex` taken for writing."""

    def lock(self) -> None: ...
    def unlock(self) -> None: ...


def lock_surely(lock: Locker) -> BaseException | None:
    """Lock `lock`, waiting for it also in a cancelled goroutine; return the interrupt held off."""
    try:
        lock.lock()
    except (Cancelled, KeyboardInterrupt, SystemExit) as first:
        return _lock_holding_off(lock, first)
    return None


def _lock_holding_off(lock: Locker, raised: BaseException) -> BaseException | None:
    interrupt = None if isinstance(raised, Cancelled) else raised
    with shield():
        while True:
            try:
                lock.lock()
            except (KeyboardInterrupt, SystemExit) as again:
                interrupt = again
            else:
                return interrupt


class Guard:
    """`with guard:` around a few lines that never wait."""

    __slots__ = ("_interrupt", "_mutex")

    def __init__(self) -> None:
        self._mutex = Mutex()
        self._interrupt: BaseException | None = None  # held off by the goroutine that is inside

    def __enter__(self) -> None:
        hold_end()
        try:
            self._interrupt = lock_surely(self._mutex)
        except BaseException:
            release_end()
            raise

    def __exit__(self, *exc: object) -> None:
        interrupt, self._interrupt = self._interrupt, None
        self._mutex.unlock()
        release_end()
        if interrupt is not None:
            raise interrupt
