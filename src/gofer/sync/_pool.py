"""Keeping objects for reuse.

What must stay true: an object that was put is given out at most once until it is put again:
appending to and popping from a list are one step each, on every build. So a pool needs no lock and
never waits.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Pool"]

_T = TypeVar("_T")


class Pool(Generic[_T]):
    """Objects that are costly to make, kept for whoever needs one next.

        buffers = Pool(lambda: bytearray(65536))
        buffer = buffers.get()
        try: ...
        finally: buffers.put(buffer)

    It grows to as many as were in use at one time, and is emptied only with the pool itself; Go's
    loses its objects to the collector.

    new: called without arguments to make one when none is left.
    """

    __slots__ = ("__weakref__", "_idle", "_new")

    def __init__(self, new: Callable[[], _T]) -> None:
        self._new = new
        self._idle: list[_T] = []

    def get(self) -> _T:
        """The object put last, as it was put, else `new()`. Does not wait itself."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        return self._new()

    def put(self, value: _T) -> None:
        """Give an object to whoever gets one next; do not use it any more. Does not wait."""
        self._idle.append(value)
