"""Sharing one call among those who want the same at the same time.

What must stay true:
- `_calls` and every field of a `_Call` but the outcome are changed under the guard.
- A call is in `_calls` while it can be joined: from before it runs until it has ended or was
  forgotten.
- Whoever put it there runs it, and closes `ended` after the outcome is set and it can not be
  joined any more, however it ends.
"""

from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Generic, TypeVar

from gofer._core import Chan
from gofer._guard import Guard

__all__ = ["SingleFlight"]

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")


class _Call(Generic[_T]):
    __slots__ = ("ended", "error", "shared", "trace", "value", "whole")

    value: _T

    def __init__(self) -> None:
        self.ended: Chan[None] = Chan()
        self.shared = False
        self.whole = False  # ended with a value or an Exception
        self.error: Exception | None = None
        self.trace: TracebackType | None = None

    def run(self, fn: Callable[[], _T]) -> None:
        try:
            self.value = fn()
        except Exception as error:
            self.error = error
            self.trace = error.__traceback__
        self.whole = True

    def outcome(self) -> tuple[_T, bool]:
        if self.error is not None:
            raise self.error.with_traceback(self.trace)
        return self.value, self.shared


class SingleFlight(Generic[_K, _T]):
    """Of several callers that ask for one key at one time, one works and all get its result.

        users = SingleFlight[int, User]()
        user, shared = users.do(42, lambda: load_user(42))

    Nothing is kept once the call has ended: this is no cache.
    """

    __slots__ = ("__weakref__", "_calls", "_guard")

    def __init__(self) -> None:
        self._guard = Guard()
        self._calls: dict[_K, _Call[_T]] = {}

    def do(self, key: _K, fn: Callable[[], _T]) -> tuple[_T, bool]:
        """Call `fn()`, or wait for the call that is under way for `key`.

        Returns `(value, shared)`: what `fn` returned, and whether several callers got it. An
        `Exception` of `fn` is raised in all of them. What is no `Exception` (`Cancelled`,
        `GoroutineExit`, `KeyboardInterrupt`) concerns only the caller whose `fn` was running:
        another one that waits calls its own.

        Who waits raises `Cancelled` in a cancelled scope; the call goes on for the others. A `do`
        of the same key inside `fn` waits for itself. `TypeError` for a key that can not be hashed.
        """
        while True:
            mine: _Call[_T] | None = None
            try:
                with self._guard:
                    call = self._calls.get(key)
                    if call is None:
                        call = mine = self._calls[key] = _Call()
                    else:
                        call.shared = True
                if mine is not None:
                    mine.run(fn)
            finally:
                if mine is not None:
                    self._end(key, mine)
            if mine is None:
                call.ended.recv_ok()
            if call.whole:
                return call.outcome()

    def forget(self, key: _K) -> None:
        """Let the next `do` of `key` call its function also while an earlier call is under way.

        Does not wait. Those who wait for the earlier call still get its result.
        """
        with self._guard:
            self._calls.pop(key, None)

    def _end(self, key: _K, call: _Call[_T]) -> None:
        try:
            with self._guard:
                if self._calls.get(key) is call:
                    del self._calls[key]
        finally:
            call.ended.close()
