"""Doing something once.

What must stay true: the function runs under the mutex, so who comes meanwhile waits until it has
returned. The flag is set last, before the mutex is unlocked; seen without the mutex it means that
everything the function did is done. What is no `Exception` ended the caller and not the work: it
does not set the flag, so the cancellation of one caller can not leave the others without it.
"""

from collections.abc import Callable
from functools import update_wrapper
from types import TracebackType
from typing import Generic, TypeVar

from gofer._core import Mutex

__all__ = ["Once", "once_func", "once_value"]

_T = TypeVar("_T")


class Once:
    """`once.do(fn)` calls the first `fn` it is given; later calls do nothing."""

    __slots__ = ("__weakref__", "_done", "_mutex")

    def __init__(self) -> None:
        self._done = False
        self._mutex = Mutex()

    def do(self, fn: Callable[[], object]) -> None:
        """Call `fn()` if this is the first call of `do`; else return once that first call has.

        As in Go: a call that raises an `Exception` is done too, and only its caller sees it; a `do`
        of the same Once inside `fn` waits for itself. What is no `Exception` (`Cancelled`,
        `GoroutineExit`, `KeyboardInterrupt`) concerns the caller rather than the work: the next
        call of `do` calls its `fn`. Who waits for the first call raises `Cancelled` in a cancelled
        scope.
        """
        if self._done:
            return
        with self._mutex:
            if self._is_done():
                return
            try:
                fn()
            except Exception:
                self._done = True
                raise
            self._done = True

    def _is_done(self) -> bool:
        """Asked again: somebody else may have been quicker."""
        return self._done


def once_func(fn: Callable[[], object]) -> Callable[[], None]:
    """A function that calls `fn` the first time it is called, and then no more.

    Waiting and failures as for `once_value`.
    """
    once = _OnceValue(fn)

    def call() -> None:
        once()

    return _named(call, fn)


def once_value(fn: Callable[[], _T]) -> Callable[[], _T]:
    """A function that calls `fn` the first time it is called, and returns that value every time.

    Who calls meanwhile waits for the first call, and raises `Cancelled` in a cancelled scope. If
    `fn` raises an `Exception`, every call raises it again, as in Go. What is no `Exception`
    (`Cancelled`, `GoroutineExit`, `KeyboardInterrupt`) concerns the caller rather than the value:
    it is raised there, and the next call runs `fn` again.
    """
    once = _OnceValue(fn)

    def call() -> _T:
        return once()

    return _named(call, fn)


def _named(call: Callable[[], _T], fn: Callable[[], object]) -> Callable[[], _T]:
    named = update_wrapper(call, fn)
    del named.__wrapped__  # it would keep fn, and what that holds, after the call
    return named


class _OnceValue(Generic[_T]):
    __slots__ = ("_done", "_error", "_fn", "_mutex", "_trace", "_value")

    _value: _T

    def __init__(self, fn: Callable[[], _T]) -> None:
        self._fn: Callable[[], _T] | None = fn
        self._error: Exception | None = None
        self._trace: TracebackType | None = None
        self._done = False
        self._mutex = Mutex()

    def __call__(self) -> _T:
        if not self._done:
            with self._mutex:
                self._run()
        if self._error is not None:
            raise self._error.with_traceback(self._trace)
        return self._value

    def _run(self) -> None:
        fn = self._fn
        if fn is None:
            return
        try:
            self._value = fn()
        except Exception as error:
            self._error = error
            self._trace = error.__traceback__
        self._fn = None  # what it holds is not needed any more
        self._done = True
