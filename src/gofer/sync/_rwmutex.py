"""A lock for many readers or one writer.

What must stay true: `_gate` is a semaphore of `_ALL` permits; a reader holds one of them, a writer
all. So the core's semaphore does everything: first come, first served means that a waiting writer
stops new readers, and one that gives up lets those behind it pass. `_writing` is true only while a
writer holds all permits; it is there to tell a misuse.

Go counts readers itself and lets all waiting readers pass when a writer unlocks, before the next
writer; here a writer that came first goes first.
"""

from contextlib import AbstractContextManager

from gofer._core import Semaphore

__all__ = ["RWMutex"]

_ALL = 1 << 30  # readers at one time, as in Go


class RWMutex:
    """Many may read at one time, or one may write.

        with rw.reading():
            use(table)
        with rw.writing():
            table[key] = value

    First come, first served: while a writer waits, new readers wait behind it. So a goroutine that
    reads must not start to read again inside: with a writer waiting between, it would wait for
    itself. It belongs to no one, as a `Mutex`: what one goroutine locked another may unlock.
    """

    __slots__ = ("__weakref__", "_gate", "_writing")

    def __init__(self) -> None:
        self._gate = Semaphore(_ALL)
        self._writing = False

    def lock(self) -> None:
        """Lock for writing; waits for the readers and writers that came before.

        `Cancelled` in a cancelled scope.
        """
        self._gate.acquire(_ALL)
        self._writing = True

    def try_lock(self) -> bool:
        """Lock for writing if that needs no waiting; whether it was done."""
        if not self._gate.try_acquire(_ALL):
            return False
        self._writing = True
        return True

    def unlock(self) -> None:
        """Give up writing. `RuntimeError` if it is not locked for writing."""
        if not self._writing:
            raise RuntimeError(
                "RWMutex.unlock() of one that is not locked for writing: "
                "lock() it first; a reader calls runlock()"
            )
        self._writing = False
        self._gate.release(_ALL)

    def rlock(self) -> None:
        """Lock for reading; waits for a writer that has it or came before.

        `Cancelled` in a cancelled scope.
        """
        self._gate.acquire()

    def try_rlock(self) -> bool:
        """Lock for reading if that needs no waiting; whether it was done."""
        return self._gate.try_acquire()

    def runlock(self) -> None:
        """Give up reading. `RuntimeError` if it is not locked for reading."""
        if not self._writing:
            try:
                self._gate.release()
                return
            except RuntimeError:
                pass
        raise RuntimeError(
            "RWMutex.runlock() of one that is not locked for reading: "
            "rlock() it first; a writer calls unlock()"
        )

    def reading(self) -> AbstractContextManager[None]:
        """`with rw.reading():` holds it for reading; waits and raises as `rlock`."""
        return self._gate

    def writing(self) -> AbstractContextManager[None]:
        """`with rw.writing():` holds it for writing; waits and raises as `lock`."""
        return _Writing(self)


class _Writing:
    __slots__ = ("_rw",)

    def __init__(self, rw: RWMutex) -> None:
        self._rw = rw

    def __enter__(self) -> None:
        self._rw.lock()

    def __exit__(self, *exc: object) -> None:
        self._rw.unlock()
