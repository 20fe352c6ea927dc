"""Calls that block their thread, on threads of their own.

    rows = blocking(cursor.fetchall)

    @blocking.wrap
    def hash_password(password: str) -> str: ...

    for line in blocking.iter(sys.stdin): ...

What must stay true of the pool:
- `_guard` protects all that the pool knows: the threads, who of them is idle, busy or coming, and
  the jobs that wait. Nothing waits under it.
- A job waits in `_waiting` until a thread takes it. Of those that have none, at most one thread is
  **coming**: it was rung or started, and has not looked yet. Who looks takes a job and sees to it
  that the next one comes if more can be begun. So short calls are made by few threads, one after
  the other, and one that blocks holds up nobody.
- `_call_one` is asked whenever its answer may have changed: a job was added, somebody has looked,
  is not busy any more, may be started now.
- A call that waits for goroutines steps aside, it is not busy any more: those may be about to make
  a call themselves.
- A thread in `_idle` sleeps on its `bell`. An interrupt may come between taking it out and ringing:
  then it looks when its rest is over.
- A thread is idle, or has its next job, before it tells that a call is done: who hears that often
  makes the next one.
- From `submit` to its end a call counts as under way, and is no deadlock.
"""

import atexit
import os
import threading
import time
from _thread import allocate_lock
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from gofer import _core
from gofer._check import refuse_coroutine_function
from gofer._guard import Guard
from gofer._threads import OwnThread

__all__ = ["blocking"]

_T = TypeVar("_T")
_P = ParamSpec("_P")

_REST: Final = 10.0  # seconds after which an idle thread ends
_MOST: Final = 512  # threads, unless set

_END: Final = object()


class _Job:
    """One call on its way, and what became of it."""

    __slots__ = ("_call", "_context", "_under_way", "done", "error", "name", "result", "wanted")

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._call = fn, args, kwargs
        self._context = copy_context()
        self._under_way: object = _core.call_under_way()
        self.done = _core.chan_in(0, 1)  # in no bubble; room for the word: sending it never waits
        self.error: BaseException | None = None
        self.name = _core.current().name
        self.result: Any = None
        self.wanted = True

    def run(self) -> None:
        """Make the call, unless nobody wants it any more."""
        if self.wanted:
            fn, args, kwargs = self._call
            try:
                self.result = self._context.run(fn, *args, **kwargs)
            except BaseException as error:
                self.error = error
        del self._call, self._context  # what they hold is not to wait for the next job

    def finish(self) -> None:
        """Tell whoever waits."""
        self.done.send(None)
        self.over()

    def over(self) -> None:
        """It is not under way any more."""
        _core.call_over(self._under_way)
        if not self.wanted:
            _core.look_for_deadlock()


class _Worker:
    """A thread of the pool."""

    __slots__ = ("armed", "begun", "bell", "calling", "dropped", "thread")

    thread: threading.Thread

    def __init__(self) -> None:
        self.armed = False  # will hear when it is about to wait
        self.begun = self.dropped = False  # its thread runs, or is not to
        self.bell = allocate_lock()
        self.bell.acquire()
        self.calling = False


class _Pool:
    def __init__(self, most: int = _MOST, rest: float = _REST) -> None:
        self.most = most
        self.rest = rest
        self._lost = False  # we are the child of a fork: its threads do not exist here
        self._closed = False
        self._guard = Guard()
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []  # who came last goes first, so that the others may end
        self._busy: set[_Worker] = set()
        self._coming: _Worker | None = None
        self._waiting: OrderedDict[_Job, None] = OrderedDict()

    # --- for who makes a call ---

    def submit(self, job: _Job) -> None:
        with self._guard:
            self._waiting[job] = None
            too_few = self._call_one()
        if too_few:
            self._start_one()

    def withdraw(self, job: _Job) -> None:
        """Nobody waits for it any more: if it has not begun, it never will."""
        job.wanted = False
        if self._lost:
            return
        with self._guard:
            unbegun = job in self._waiting
            if unbegun:
                del self._waiting[job]
        if unbegun:
            job.over()

    def set_most(self, most: int) -> None:
        with self._guard:
            self.most = most
            too_few = self._call_one()
        if too_few:
            self._start_one()

    # --- having threads come ---

    def _needs_one(self) -> bool:
        return bool(self._waiting) and self._coming is None and len(self._busy) < self.most

    def _call_one(self) -> bool:
        """Ring an idle thread if a job can be begun; True if one has to be started for that."""
        if not self._needs_one():
            return False
        if not self._idle:
            return True
        worker = self._idle.pop()
        worker.bell.release()
        self._coming = worker
        return False

    def _start_one(self) -> None:
        """Start a thread, which others may rely on: nothing that the caller meets is in the way."""
        _core.hold_end()
        try:
            with _core.shield():
                self._start()
        finally:
            _core.release_end()

    def _start(self) -> None:
        worker = _Worker()
        try:
            with self._guard:
                if not self._needs_one():
                    return
                self._workers.add(worker)
                self._coming = worker
            _core.expect_threads()
            worker.thread = OwnThread(self._work, worker)
            worker.thread.start()
        except (RuntimeError, MemoryError, OSError) as error:  # the system has no more of them
            self._give_up(worker)
            self._strand(error)
        except BaseException:
            self._give_up(worker)
            raise

    def _give_up(self, worker: _Worker) -> None:
        """It could not be started, unless it has begun: those that are there must do."""
        with self._guard:
            if worker.begun:
                return
            worker.dropped = True
            self._workers.discard(worker)
            if self._coming is worker:
                self._coming = None
            self._call_one()

    def _strand(self, error: BaseException) -> None:
        """Without a single thread nobody would ever make the calls that wait."""
        with self._guard:
            if self._workers:
                return
            stranded = list(self._waiting)
            self._waiting.clear()
        for job in stranded:
            job.error = error
            job.finish()

    def step_aside(self, worker: _Worker) -> None:
        """The call that it makes is about to wait for others."""
        worker.armed = False
        if not worker.calling or self._lost:
            return
        with self._guard:
            self._busy.discard(worker)
            too_few = self._call_one()
        if too_few:
            self._start_one()

    # --- what a thread does ---

    def _work(self, worker: _Worker) -> None:
        _attach()
        with self._guard:
            if worker.dropped:
                return
            worker.begun = True
        job = self._look(worker, None)
        while worker in self._workers and not self._lost:
            if job is None:
                self._rest(worker)
            else:
                self._call(worker, job)
            # In this order, so that nothing of a job is kept by who rests.
            done, job = job, None
            job = self._look(worker, done)
            del done

    def _call(self, worker: _Worker, job: _Job) -> None:
        try:
            worker.thread.name = job.name
            if not worker.armed:
                worker.armed = True
                _core.before_wait(lambda: self.step_aside(worker))
            worker.calling = True
            job.run()
        except BaseException as error:  # there is no memory
            job.error = error
        worker.calling = False

    def _look(self, worker: _Worker, done: _Job | None) -> _Job | None:
        """Take the next job, or be idle, or leave; then tell that the last one is done."""
        if self._lost:
            return None
        job: _Job | None = None
        with self._guard:
            self._busy.discard(worker)
            if self._coming is worker:
                self._coming = None
            if worker not in self._workers:
                pass  # its rest was over
            elif self._waiting and len(self._busy) < self.most:
                job, _ = self._waiting.popitem(last=False)
                self._busy.add(worker)
            elif self._closed or len(self._workers) > self.most:
                self._workers.discard(worker)
            else:
                self._idle.append(worker)
            too_few = self._call_one()
        if done is not None:
            done.finish()
        if too_few:
            with suppress(BaseException):  # there is no memory; who is there does what there is
                self._start_one()
        return job

    def _rest(self, worker: _Worker) -> None:
        """Sleep until the bell rings; if that takes long, leave."""
        if worker.bell.acquire(timeout=self.rest):
            return
        with self._guard:
            if worker in self._idle:
                self._idle.remove(worker)
                self._workers.discard(worker)
            else:  # it was rung a moment ago, or who was going to was interrupted
                worker.bell.acquire(blocking=False)

    # --- the end ---

    def close(self) -> None:
        """End the idle threads, and those at work when they are done."""
        if not self._workers:
            return
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
            self._workers.difference_update(idle)
        for worker in idle:
            worker.bell.release()
        for worker in idle:
            worker.thread.join(1)

    def lose(self) -> "_Pool":
        """In the child of a fork: the pool that takes the place of this one."""
        self._lost = True
        return _Pool(self.most, self.rest)


def _attach() -> None:
    """Have the library know this thread: one that it does not know could tell nobody."""
    while True:
        try:
            _core.thread_rests()
            return
        except (MemoryError, RuntimeError):  # there will be room again
            time.sleep(0.01)


_pool = _Pool()


def _after_fork() -> None:
    global _pool
    _pool = _pool.lose()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _pool.close())


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
        A call that waits for goroutines or channels itself does not count from then on. When there
        is no thread and none can be started, what the system says is raised: `RuntimeError`,
        `MemoryError` or `OSError`.
        `TypeError` if `fn` can not be called or is a coroutine function.
        """
        if not callable(fn):
            raise TypeError(
                f"blocking() of {fn!r}: it can not be called; pass a function and its arguments "
                "(blocking(f, x), not blocking(f(x)))"
            )
        refuse_coroutine_function("blocking", fn)
        if not _core.may_wait():
            return fn(*args, **kwargs)
        job = _Job(fn, args, kwargs)
        pool = _pool
        try:
            pool.submit(job)
            job.done.recv()
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
        pool = _pool
        before = pool.most
        if n is not None:
            if n < 1:
                raise ValueError(
                    f"blocking.limit({n}): no call could ever be made; it is 1 or more"
                )
            pool.set_most(n)
        return before


blocking: Final = _Blocking()
