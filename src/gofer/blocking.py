"""Calls that block their thread, on threads of their own.

    rows = blocking(cursor.fetchall)

    @blocking.wrap
    def hash_password(password: str) -> str: ...

    for line in blocking.iter(sys.stdin): ...

What must stay true of the pool:
- `_guard` protects `_idle`, `_waiting`, `_threads` and the `job` of who is in `_idle`. Nothing
  waits under it.
- A thread in `_idle` sleeps on its `bell`. Who takes it out gives it a job and rings, once; a
  thread whose sleep is over ends only if it finds itself still there.
- A job waits only while as many threads as may be are at work, and a thread rests only while no job
  waits: first come, first served.
- An idle thread does not keep `Deadlock` from being raised, one at work does.
"""

import os
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from gofer import _core
from gofer._check import refuse_coroutine_function
from gofer._guard import Guard

__all__ = ["blocking"]

_T = TypeVar("_T")
_P = ParamSpec("_P")

_REST: Final = 10.0  # seconds after which an idle thread ends
_MOST: Final = 512  # threads, unless set

_END: Final = object()


class _Job:
    """One call on its way, and what became of it."""

    __slots__ = ("_call", "_context", "done", "error", "name", "result", "wanted")

    def __init__(self, call: Callable[[], Any], name: str) -> None:
        self._call = call
        self._context = copy_context()
        self.done = _core.outside_chan(1)  # room for the word, so that sending it never waits
        self.error: BaseException | None = None
        self.name = name
        self.result: Any = None
        self.wanted = True

    def run(self) -> None:
        if self.wanted:
            try:
                self.result = self._context.run(self._call)
            except BaseException as error:
                self.error = error
        del self._call, self._context  # what they hold is not to wait for the next job
        self.done.send(None)


class _Worker:
    """A thread of the pool."""

    __slots__ = ("bell", "job")

    def __init__(self, job: _Job) -> None:
        self.bell = allocate_lock()
        self.bell.acquire()
        self.job: _Job | None = job


class _Pool:
    def __init__(self) -> None:
        self.most = _MOST
        self._guard = Guard()
        self._idle: list[_Worker] = []  # who came last goes first, so that the others may end
        self._waiting: deque[_Job] = deque()
        self._threads = 0

    def submit(self, job: _Job) -> None:
        with self._guard:
            if self._idle:
                worker = self._idle.pop()
                worker.job = job
                worker.bell.release()
                return
            if self._threads >= self.most:
                self._waiting.append(job)
                return
            self._threads += 1
        worker = _Worker(job)
        try:
            threading.Thread(target=self._work, args=(worker,), daemon=True).start()
        except BaseException:
            with self._guard:
                self._threads -= 1
            raise

    def withdraw(self, job: _Job) -> None:
        """Nobody waits for it any more: if it has not begun, it never will."""
        job.wanted = False
        with self._guard:
            if job in self._waiting:
                self._waiting.remove(job)

    def _work(self, worker: _Worker) -> None:
        thread = threading.current_thread()
        while True:
            job, worker.job = worker.job, None
            if job is not None:
                thread.name = job.name
                job.run()
                del job
            if not self._next(worker):
                return

    def _next(self, worker: _Worker) -> bool:
        """Wait for a job; False when none has come for long."""
        with self._guard:
            if self._waiting:
                worker.job = self._waiting.popleft()
                return True
            self._idle.append(worker)
            threading.current_thread().name = "gofer blocking (idle)"
        _core.thread_rests(True)
        rung = worker.bell.acquire(timeout=_REST)
        _core.thread_rests(False)
        if rung:
            return True
        with self._guard:
            if worker in self._idle:
                self._idle.remove(worker)
                self._threads -= 1
                return False
        worker.bell.acquire()  # somebody has taken it out a moment ago
        return True


_pool = _Pool()


def _after_fork() -> None:
    """The threads of the parent do not exist in the child."""
    global _pool
    most, _pool = _pool.most, _Pool()
    _pool.most = most


os.register_at_fork(after_in_child=_after_fork)


class _Blocking:
    """The function `blocking`, with what goes with it."""

    __slots__ = ()

    def __call__(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call `fn(*args, **kwargs)` on a thread of a pool, and park until it returns.

        For what blocks its thread and knows nothing of goroutines: a C library, a long computation
        that lets go of the GIL, a file on a slow disk. The other goroutines go on meanwhile.

        Returns what `fn` returns and raises what it raises, with the traceback of both sides.
        Context variables are those of the caller, and the thread has its name. In a plain thread
        `fn` is called right there, so calls may lie in each other.

        Cancelling ends the waiting with `Cancelled`. A call that has begun goes on to its end, and
        its result is thrown away; one that has not is never made.

        As many calls at a time as `blocking.limit` says, the others wait, first come, first served.
        `TypeError` if `fn` can not be called or is a coroutine function.
        """
        if not callable(fn):
            raise TypeError(
                f"blocking() of {fn!r}: it can not be called; pass a function and its arguments "
                "(blocking(f, x), not blocking(f(x)))"
            )
        refuse_coroutine_function("blocking", fn)
        if not _core.on_worker():
            return fn(*args, **kwargs)
        job = _Job(lambda: fn(*args, **kwargs), _core.current().name)
        pool = _pool
        pool.submit(job)
        try:
            _core.wait_for_call(job.done)
        except BaseException:
            pool.withdraw(job)
            raise
        error, job.error = job.error, None
        if error is None:
            return job.result  # type: ignore[no-any-return]
        try:
            raise error
        finally:
            del error  # it holds this frame

    def wrap(self, fn: Callable[_P, _T], /) -> Callable[_P, _T]:
        """A function that always runs as `blocking(fn, ...)`; also as a decorator."""
        refuse_coroutine_function("blocking.wrap", fn)

        @wraps(fn)
        def on_a_thread(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            return self(fn, *args, **kwargs)

        return on_a_thread

    def iter(self, iterable: Iterable[_T], /) -> Iterator[_T]:
        """Iterate over what blocks in `next`: each item is fetched by a call of `blocking`."""
        iterator = self(iter, iterable)
        while True:
            item: Any = self(next, iterator, _END)
            if item is _END:
                return
            yield item

    def limit(self, n: int | None = None) -> int:
        """How many threads there may be; set it to `n`, at least 1, unless that is None.

        Returns what it was before. At the beginning it is 512. Those beyond a smaller one end when
        they are idle. `ValueError` if `n` is smaller than 1.
        """
        before = _pool.most
        if n is not None:
            if n < 1:
                raise ValueError(
                    f"blocking.limit({n}): no call could ever be made; it is 1 or more"
                )
            _pool.most = n
        return before


blocking: Final = _Blocking()
