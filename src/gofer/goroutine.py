"""Starting goroutines, and what becomes of their failures.

Three ways to start one differ in what happens to an exception that the function lets escape:
`go` makes it a panic, which ends the program; `fork` keeps it for whoever joins the task; in a
`Group` it cancels the siblings and the `with` raises it. `run` makes a function goroutine 1.

    with Group() as g:
        page = g.go(fetch, url)
        size = g.go(measure, url)
    print(page.join(), size.join())

What must stay true of a `Group`:
- `_running` counts members, and calls of `go` and `cancel` that are under way. Whoever adds to it
  looks at `_state` afterwards; the edge waits for zero, closes the group and waits for zero again.
  So nothing starts behind the back of the edge, and nobody disturbs the body after it.
- The body is cancelled at most once (`_first_cancel`), and gets that back at the edge.
- `_cancelled` is set before the members are walked, and read after a member was added to `_live`:
  each member is cancelled by one of the two.
- `_live` keeps every member that has not ended, and a bounded number of those that have.
- A failed member is in `_failed` before the siblings and the body learn of it.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, TypeVar

from gofer import _core, _report
from gofer._check import refuse_coroutine_function
from gofer._core import Goroutine, Mutex, Semaphore, Task, WaitGroup, current, fork, go, gosched
from gofer.errors import Cancelled, Deadlock, GoroutineExit

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

_KEEP_ENDED = 32  # so many ended members may stay in _live, or as many as are alive


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

    __slots__ = (
        "_body",
        "_cancelled",
        "_failed",
        "_failures",
        "_first_cancel",
        "_live",
        "_running",
        "_slots",
        "_state",
        "_tidy_at",
    )

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(
                f"Group(limit={limit}) could never run anything: "
                "the limit must be at least 1, or None for as many as are started"
            )
        self._state = _NEW
        self._body: Goroutine | None = None
        self._slots = None if limit is None else Semaphore(limit)
        self._running = WaitGroup()
        self._live: set[Task[Any]] = set()
        self._tidy_at = _KEEP_ENDED
        self._failed: list[Task[Any]] = []
        self._failures: list[BaseException] = []
        self._cancelled = False
        self._first_cancel = Mutex()  # locked by the first that cancels, for ever

    def __enter__(self) -> "Group":
        if self._state is not _NEW:
            raise RuntimeError(
                f"with Group: this one is {'in use' if self._state is _OPEN else 'finished'}; "
                "a group is good for one with block, make a new Group()"
            )
        self._body = current()
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
        if self._slots is not None:
            self._slots.acquire()
        self._running.add(2)  # the member and this call
        try:
            try:
                if self._state is not _OPEN:
                    raise self._not_open("go")
                task = fork(self._member, fn, args, kwargs)
            except BaseException:
                self._leave()
                raise
            self._live.add(task)
            if self._cancelled:
                task.cancel()
            if len(self._live) > self._tidy_at:
                self._tidy()
            return task
        finally:
            self._running.done()

    def cancel(self) -> None:
        """Cancel the members and the body of the `with`; to end by that is no failure.

        Every operation of theirs that would have to wait raises `Cancelled` from now on. Members
        started later are cancelled too. May be called from anywhere, any number of times; after the
        `with` it does nothing. Does not wait. `RuntimeError` before the `with`.
        """
        if self._state is _NEW:
            raise self._not_open("cancel")
        self._running.add()
        try:
            if self._state is _CLOSED:
                return
            self._cancelled = True
            if self._first_cancel.try_lock() and self._body is not None:
                _core.cancel(self._body)
            for task in list(self._live):
                task.cancel()
        finally:
            self._running.done()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        passes: BaseException | None = None  # raised as it is, whatever else happened
        outer: BaseException | None = None  # the Cancelled of an outer scope
        place = -1  # of the body's failure among the members'
        if isinstance(error, Cancelled):
            outer = None if self._cancelled else error
        elif isinstance(error, Exception) and not isinstance(error, Deadlock):
            place = len(self._failures)
        else:
            passes = error
        interrupt, cancelled = self._wait_for_members(cancel=error is not None)
        if passes is None:
            passes = interrupt
        failures, self._failures = self._failures, []
        failed, self._failed = self._failed, []
        try:
            if place >= 0 and error is not None:
                failures.insert(place, error)
            if passes is None and failures:
                for task in failed:
                    task.exception()  # seen: not to be reported again
                raise BaseExceptionGroup("unhandled errors in a Group", failures) from None
            if passes is None:
                passes = outer if outer is not None else cancelled
            if passes is not None and passes is not error:
                raise passes
            return passes is None and isinstance(error, Cancelled)
        finally:
            # The exceptions hold this frame: break the circle.
            del error, passes, outer, interrupt, cancelled, failures, failed

    # --- inside ---

    def _member(self, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
        """What a member runs."""
        try:
            return fn(*args, **kwargs)
        except (Cancelled, GoroutineExit):
            raise
        except BaseException as error:
            # extend: when memory is short, CPython 3.15 drops twice what it can not append
            self._failed.extend([_this_task()])
            self._failures.extend([error])
            self.cancel()
            raise
        finally:
            self._leave()

    def _wait_for_members(
        self, *, cancel: bool
    ) -> tuple[BaseException | None, BaseException | None]:
        """Cancel the members, if so told; wait until every member has ended, and close the group.

        Whatever arrives meanwhile cancels the members and does not end the waiting. Returned: the
        first thing that arrived and was no Cancelled, and the Cancelled of an outer scope. Only
        GoroutineExit and Deadlock are raised when they come again: `run` is over and unwinds the
        members itself, or they do not end although they are cancelled.
        """
        me = current()
        interrupt: BaseException | None = None
        cancelled: BaseException | None = None
        held_off = 0
        try:
            while True:
                try:
                    if cancel:
                        self.cancel()
                        cancel = False
                    self._running.wait()
                    self._state = _CLOSED
                    self._running.wait()
                    for task in self._live:  # they may still be in their last few instructions
                        Goroutine.join(task)
                    break
                except Cancelled as arrived:
                    _core.uncancel(me)
                    held_off += 1
                    cancelled = arrived
                except BaseException as arrived:
                    if isinstance(arrived, (GoroutineExit, Deadlock)) and interrupt is not None:
                        raise
                    if interrupt is None:
                        interrupt = arrived
                cancel = True
        finally:
            self._live.clear()
            for _ in range(held_off):
                _core.cancel(me)
            if self._cancelled and self._body is not None:
                _core.uncancel(self._body)
        ours = 1 if self._cancelled and me is self._body else 0
        try:
            return interrupt, cancelled if held_off > ours else None
        finally:
            del interrupt, cancelled  # they hold this frame

    def _leave(self) -> None:
        if self._slots is not None:
            self._slots.release()
        self._running.done()

    def _tidy(self) -> None:
        """Forget the members that have ended. Several goroutines may be at it."""
        for task in list(self._live):
            if task.done:
                self._live.discard(task)
        self._tidy_at = 2 * len(self._live) + _KEEP_ENDED

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
