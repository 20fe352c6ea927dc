"""Waiting until somebody says that a condition may hold.

What must stay true:
- A waiter is a ticket, a channel for one word, in `_waiters`; the first in line is on the left. It
  is there before the mutex is unlocked, so a signal given after that finds it.
- Who signals takes a ticket out of the line, which nobody else can do, and sends the word: that
  never waits, the word fits.
- Who gives up closes its ticket. Close and send are ordered by the channel: either the signal
  meets a closed ticket and goes to the next in line, or it came before, and who gives up finds it
  and passes it on. A broadcast is not passed on: it was for those who waited then.
- `wait` ends with the lock held, however it ends.
"""

from collections import deque
from contextlib import suppress

from gofer._core import Chan, chan_in, here
from gofer._guard import Locker, lock_surely
from gofer.errors import Closed

__all__ = ["Cond"]

_SIGNAL, _BROADCAST = "signal", "broadcast"


class Cond:
    """A place to wait for changes of what a lock protects.

        with mutex:
            while not ready:
                cond.wait()

    mutex: the `Mutex` (or an `RWMutex`, used for writing) that who waits holds.
    """

    __slots__ = ("__weakref__", "_bubble", "_lock", "_waiters")

    def __init__(self, mutex: Locker) -> None:
        self._lock = mutex
        self._bubble = here()
        self._waiters: deque[Chan[str]] = deque()

    def wait(self) -> None:
        """Unlock the mutex, wait for a signal or broadcast, and lock the mutex again.

        The mutex must be locked: `RuntimeError` else. First come, first served. There are no
        wake-ups without cause, but the condition may not hold any more when the mutex is locked
        again: wait in a loop. Raises `Cancelled` in a cancelled scope (and `KeyboardInterrupt` in
        goroutine 1): the mutex is locked again first, and a signal already received goes to the
        next waiter.
        """
        ticket: Chan[str] = chan_in(self._bubble, 1)
        self._waiters.append(ticket)
        try:
            self._lock.unlock()
        except BaseException:
            self._withdraw(ticket)
            raise
        try:
            word = ticket.recv()
        except BaseException:
            self._withdraw(ticket)
            self._lock_again()
            raise
        try:
            self._lock_again()
        except BaseException:
            if word is _SIGNAL:
                self.signal()
            raise

    def signal(self) -> None:
        """Wake who has waited longest, if any. Does not wait; the mutex need not be held."""
        while True:
            try:
                ticket = self._waiters.popleft()
            except IndexError:
                return
            if _tell(ticket, _SIGNAL):
                return

    def broadcast(self) -> None:
        """Wake all who wait now. Does not wait; the mutex need not be held."""
        for _ in range(len(self._waiters)):  # a copy could not be had in one step
            try:
                ticket = self._waiters.popleft()
            except IndexError:  # somebody signalled them, or they gave up
                return
            _tell(ticket, _BROADCAST)

    def _lock_again(self) -> None:
        """Lock; what was held off meanwhile is raised with the lock held."""
        interrupt = lock_surely(self._lock)
        if interrupt is not None:
            raise interrupt

    def _withdraw(self, ticket: Chan[str]) -> None:
        ticket.close()
        word, told = ticket.recv_ok()  # closed: does not wait
        if not told:
            with suppress(ValueError):  # somebody has it in hand, and will find it closed
                self._waiters.remove(ticket)
        elif word is _SIGNAL:
            self.signal()


def _tell(ticket: Chan[str], word: str) -> bool:
    """Whether the waiter was still there."""
    try:
        ticket.send(word)
    except Closed:
        return False
    return True
