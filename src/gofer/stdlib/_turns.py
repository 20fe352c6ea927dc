"""Objects of a library that goroutines use in turns, because it does not bear two calls at a time.

What must stay true: the turn ends when the call does, also when nobody waits for it any more.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gofer import _core
from gofer.blocking import blocking

__all__ = ["Turn", "in_turns"]


class Turn:
    """Who has it may call again: a function that the library calls may do so."""

    def __init__(self) -> None:
        self._mutex = _core.Mutex()
        self._owner: object = None
        self._last: list[Callable[[], object]] = []  # for when nobody has it

    def is_mine(self) -> bool:
        return self._owner is _core.current()

    def begin(self) -> Callable[[], None]:
        """Wait for it; what ends it."""
        self._mutex.lock()
        return self.end

    def end(self) -> None:
        self._mutex.unlock()
        self._do_last()

    def __enter__(self) -> None:
        self._mutex.lock()
        self._owner = _core.current()

    def __exit__(self, *exc: object) -> None:
        self._owner = None
        self.end()

    def last(self, call: Callable[[], object]) -> object:
        """Make the call now, or let the one who has the turn make it; it does not wait."""
        if self._mutex.try_lock():
            try:
                return call()
            finally:
                self.end()
        self._last.append(call)
        self._do_last()  # the turn may have ended
        return None

    def _do_last(self) -> None:
        while self._last and self._mutex.try_lock():
            try:
                with suppress(Exception):  # it would have been told to who is gone
                    self._last.pop()()
            finally:
                self._mutex.unlock()


def in_turns(turn_of: Callable[[Any], Turn | None]) -> Callable[..., Any]:
    """What stands in for a method: it is called on the pool, when it is its object's turn.

    An object without one, as `turn_of` says, is left alone.
    """

    def stand_in(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        turn = turn_of(self)
        if turn is None or turn.is_mine():
            return original(self, *args, **kwargs)
        ending = [turn.begin()]  # who takes it out does it

        def call() -> Any:
            end = ending.pop()
            try:
                return original(self, *args, **kwargs)
            finally:
                end()

        try:
            return blocking(call)
        except BaseException:
            with suppress(IndexError):  # it has begun
                ending.pop()()
            raise

    return stand_in
