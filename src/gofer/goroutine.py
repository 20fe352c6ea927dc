"""Starting goroutines, and what becomes of their failures.

Three ways to start one differ in what happens to an exception that the function lets escape:
`go` makes it a panic, which ends the program; `fork` keeps it for whoever joins the task; in a
`Group` it cancels the siblings and the `with` raises it. `run` makes a function goroutine 1.

    with Group() as g:
        page = g.go(fetch, url)
        size = g.go(measure, url)
    print(page.join(), size.join())

What must stay true of a `Group`:
- Its scope (`_core.group_scope`) counts the members until each has quite ended, and closes when the
  edge has seen none: nothing starts behind the back of the edge.
- Body and members are in that scope, so `cancel` reaches those that are there and those that come.
- A failed member is in `_failures` before the siblings and the body learn of it.
"""

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, TypeVar

from gofer import _core, _report
from gofer._check import refuse_coroutine_function
from gofer._core import Goroutine, Semaphore, Task, current, fork, go, gosched
from gofer.errors import Cancelled, Deadlock, GoroutineExit
from gofer.scope import shield

__all__ = [
    "Goroutine",
    "Group",
    "Task",
    "current",
    "fork",
    "go",
    "goexit",
    "gosched",
    "run",
]

_T = TypeVar("_T")
_P = ParamSpec("_P")

_report.install()


def run(main: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `main(*args, **kwargs)` as goroutine 1; return what it returns or raise what it raises.

    The calling thread becomes the first worker. When main ends, the program ends, as in Go: every
    goroutine started since is unwound (`GoroutineExit` is raised where it waits, its `finally` and
    `with` blocks run) before `run` returns. None of them can stop `run` from returning; what they
    raise while being unwound goes to `sys.unraisablehook`.

    If main calls `goexit()`, the others go on, and when they are done `Deadlock` is raised. Also
    raised from here: `Deadlock` when all goroutines are asleep, `KeyboardInterrupt` on Ctrl-C, and
    `SystemExit` when any goroutine raises it.

    Inside a `run` of goroutine 1 another one is possible: it unwinds what was started in it.
    `RuntimeError` if the caller is a goroutine other than 1, or a thread other than the main one;
    `TypeError` if `main` is a coroutine function.
    """
    refuse_coroutine_function("run", main)
    outer = _core.begin_run()
    try:
        try:
            return main(*args, **kwargs)
        except GoroutineExit:
            pass
        _core.park_forever()
    finally:
        _core.end_run(outer)


def goexit() -> NoReturn:
    """End the calling goroutine; its `finally` and `with` blocks run, other goroutines go on.

    Works by raising `GoroutineExit`, so it must not be swallowed on the way. In goroutine 1 the
    program does not end with it: the others go on, and when they are done it is a deadlock, as in
    Go.
    """
    raise GoroutineExit


# --- groups -------------------------------------------------------------------------------------

_NEW, _OPEN, _CLOSED = "new", "open", "closed"


class Group:
    """Goroutines that belong together: the `with` ends when all of them have.

        with Group(limit=8) as g:
            tasks = [g.go(fetch, url) for url in urls]

    The first failure, of a member or of the body of the `with`, cancels the other members, and the
    body if it waits: every operation that would have to wait raises `Cancelled` in them. When all
    have ended, the `with` raises an `ExceptionGroup` of the failures (a `BaseExceptionGroup` if one
    is no `Exception`). A member that ends by `Cancelled` or `goexit()` has not failed.

    Some things end the `with` as they are, after the members were cancelled and have ended:
    `KeyboardInterrupt`, `SystemExit`, `GoroutineExit`, `Deadlock` and every other exception of the
    body that is no `Exception`. A failed member is then reported as any task that nobody joins.
    A `Cancelled` from an outer scope does the same, but failures are raised in its place.

    limit: how many members may run at once, at least 1 (`ValueError`); `go` waits for one to end.
        None: as many as are started.

    A group can be used for one `with` only.
    """

    __slots__ = ("_failed", "_failures", "_scope", "_slots", "_state")

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(
                f"Group(limit={limit}) could never run anything: "
                "the limit must be at least 1, or None for as many as are started"
            )
        self._state = _NEW
        self._scope = _core.group_scope()
        self._slots = None if limit is None else Semaphore(limit)
        self._failed: list[Task[Any]] = []
        self._failures: list[BaseException] = []

    def __enter__(self) -> "Group":
        if self._state is not _NEW:
            raise RuntimeError(
                f"with Group: this one is {'in use' if self._state is _OPEN else 'finished'}; "
                "a group is good for one with block, make a new Group()"
            )
        self._scope.enter()
        self._state = _OPEN
        return self

    def go(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Task[_T]:
        """Start `fn(*args, **kwargs)` as a member; its value is that of `task.join()`.

        May be called by the body, by members and by others while the `with` lasts. With a limit it
        waits while so many members are running, and raises `Cancelled` there if the caller is
        cancelled; nothing was started then. In a cancelled group the member starts, and is
        cancelled where it first would have to wait.

        `RuntimeError` before and after the `with`; `TypeError` if `fn` is a coroutine function.
        """
        if not callable(fn):
            raise TypeError(f"Group.go() of {fn!r}: it can not be called; pass a function")
        refuse_coroutine_function("Group.go", fn)
        if self._state is not _OPEN:
            raise self._not_open("go")
        if self._slots is None:
            return self._scope.go(self._member, fn, args, kwargs)
        self._slots.acquire()
        try:
            return self._scope.go(self._member, fn, args, kwargs)
        except BaseException:
            self._slots.release()
            raise

    def cancel(self) -> None:
        """Cancel the members and the body of the `with`; to end by that is no failure.

        Every operation of theirs that would have to wait raises `Cancelled` from now on. Members
        started later are cancelled too. May be called from anywhere, any number of times; after the
        `with` it does nothing. Does not wait. `RuntimeError` before the `with`.
        """
        if self._state is _NEW:
            raise self._not_open("cancel")
        if self._state is _OPEN:
            self._scope.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        passes: BaseException | None = None  # raised as it is, whatever else happened
        interrupt: BaseException | None = None
        cancelled: BaseException | None = None
        stray = not self._scope.cancelled  # a Cancelled of the body, and nobody has cancelled it
        failures, failed = self._failures, self._failed
        place = len(failures)  # of the body's failure among the members'
        try:
            try:
                # First of all: whatever may fail is only done when all have ended.
                interrupt, arrived = self._wait_for_members(cancel=error is not None)
                if error is not None and _core.is_cancellation(error, False):
                    cancelled = error
                else:
                    stray = False
                    cancelled = arrived
                    if not isinstance(error, Exception) or isinstance(error, Deadlock):
                        passes = error
                del arrived
            finally:
                self._state = _CLOSED
                ours = self._scope.leave(cancelled)
                self._failures, self._failed = [], []
            passes = passes or interrupt
            if isinstance(error, Exception) and cancelled is not error and passes is not error:
                failures.insert(place, error)
            if passes is None and failures:
                for task in failed:
                    task.exception()  # seen: not to be reported again
                raise BaseExceptionGroup("unhandled errors in a Group", failures) from None
            if passes is None and (stray or not ours):
                passes = cancelled
            if passes is not None and passes is not error:
                raise passes
            return passes is None and cancelled is not None and cancelled is error
        finally:
            # The exceptions hold this frame: break the circle.
            del error, passes, cancelled, interrupt, failures, failed

    # --- inside ---

    def _member(self, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
        """What a member runs."""
        try:
            return fn(*args, **kwargs)
        except BaseException as error:
            if _core.is_cancellation(error, True):
                raise
            with suppress(Exception):  # an exception may be of any class
                error.add_note(f"in {_report.origin(current())}")
            # extend: when memory is short, CPython 3.15 drops twice what it can not append
            self._failed.extend([_this_task()])
            self._failures.extend([error])
            self.cancel()
            raise
        finally:
            if self._slots is not None:
                self._slots.release()

    def _wait_for_members(
        self, *, cancel: bool
    ) -> tuple[BaseException | None, BaseException | None]:
        """Cancel the members, if so told; wait until every member has ended, and close the group.

        Whatever arrives meanwhile cancels the members and does not end the waiting. Returned: the
        first thing that arrived and was no Cancelled, and the first Cancelled. Only GoroutineExit
        and Deadlock are raised when they come again: `run` is over and unwinds the members itself,
        or they do not end although they are cancelled.
        """
        interrupt: BaseException | None = None
        cancelled: BaseException | None = None
        try:
            try:
                if cancel:
                    self._scope.cancel()
                self._scope.wait()
                return None, None
            except Cancelled as arrived:
                cancelled = arrived
            except BaseException as arrived:
                interrupt = arrived
            self._scope.cancel()
            while True:
                try:
                    with shield():
                        self._scope.wait()
                    return interrupt, cancelled
                except BaseException as arrived:  # of shield() too, without memory
                    if interrupt is None:
                        interrupt = arrived
                    elif isinstance(arrived, (GoroutineExit, Deadlock)):
                        raise
        finally:
            del interrupt, cancelled  # they hold this frame

    def _not_open(self, what: str) -> RuntimeError:
        if self._state is _NEW:
            return RuntimeError(
                f"Group.{what}() before the with: write `with Group() as g:` and use g inside it"
            )
        return RuntimeError(
            f"Group.{what}() after the with: its members have all ended and nobody would wait for "
            "this one; start it inside the with, or use go() or fork()"
        )


def _this_task() -> Task[Any]:
    task = current()
    assert isinstance(task, Task)
    return task  # pyright: ignore[reportUnknownVariableType]
