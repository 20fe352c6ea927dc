"""To and from asyncio: goroutines that await, coroutines that wait for goroutines.

    page = aio.await_(client.get(url))      # in a goroutine: parks it

    total = await aio.go(sum_up, rows)      # in a coroutine: runs a goroutine
    job = await aio.recv(jobs)
    await aio.send(results, total)
    index, value = await aio.select(jobs.recv, done.recv_ok)

`await_` runs what it is given on an event loop of the library, in a thread of its own: uvloop's if
that is installed. The loop is started when it is first needed and lives as long as the program, so
a client that was made in one call can be used in the next. The others are for coroutines of any
loop, in any thread; goroutines go on meanwhile, and so does the loop.

Cancellation crosses both ways. Who is cancelled while he waits for the other side cancels it and
waits until it has ended. If it has ended with a value all the same, that value is what he gets and
nothing is lost; the cancellation comes at the next place where he waits.

What must stay true:
- What belongs to a loop (`_Errand`, the task of an `_Await`) is touched in the thread of that loop
  only; goroutines tell it by `call_soon_threadsafe`.
- A goroutine that works for a coroutine tells its end in every case, also when it is ended before
  it has begun.
- While a task of our loop lives there is no deadlock: it may wake somebody.
- A loop may run on the thread of a worker and block it: nothing that it waits for is started there.
"""

import asyncio
import atexit
import os
from asyncio import AbstractEventLoop, CancelledError, Future, Task
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import copy_context
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar

from gofer import _core
from gofer._check import refuse_coroutine_function
from gofer._guard import Guard
from gofer._threads import OwnThread
from gofer.chan import Chan, RecvChan, SendChan
from gofer.errors import Canceled, Cancelled, Closed, GoroutineExit
from gofer.scope import shield

__all__ = ["await_", "go", "recv", "recv_ok", "select", "send"]

_T = TypeVar("_T")
_P = ParamSpec("_P")

_RECHECK: Final = 0.04  # seconds: as soon as that it is seen that the end of a task left a deadlock

# --- from goroutines: a loop of our own -----------------------------------------------------------


class _OwnLoop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._ending = False
        self._rings = False
        if find_spec("uvloop") is not None:
            self.loop: AbstractEventLoop = import_module("uvloop").new_event_loop()
        else:
            self.loop = asyncio.new_event_loop()
        self.loop.set_task_factory(self._new_task)
        self._thread = OwnThread(self._serve, name="gofer.aio")
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            self.loop.close()
            raise

    def end(self) -> None:
        """Cancel what still runs on it and close it; wait a moment for that."""
        self._ending = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(1)

    def _serve(self) -> None:
        _core.thread_rests()
        while not self._ending:
            # They come out of the loop when a task raises them; whoever awaits it gets them too.
            with suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
        try:
            self.loop.run_until_complete(self._wind_up())
        finally:
            self.loop.close()

    async def _wind_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()

    def _new_task(self, loop: AbstractEventLoop, coroutine: Any, /, **kwargs: Any) -> Task[Any]:
        task: Task[Any] = Task(coroutine, loop=loop, **kwargs)
        under_way = _core.call_under_way()

        def over(_: Task[Any]) -> None:
            _core.call_over(under_way)
            if not self._rings:
                self._rings = True
                loop.call_later(_RECHECK, self._ring)

        task.add_done_callback(over)
        return task

    def _ring(self) -> None:
        self._rings = False
        _core.look_for_deadlock()


_own: _OwnLoop | None = None
_guard = Guard()
_lost: list[_OwnLoop | None] = []  # the parent's, in the child of a fork: closing one would harm it


def _own_loop() -> AbstractEventLoop:
    global _own
    if _own is None:
        with _guard:
            if _own is None:
                _own = _OwnLoop()
    return _own.loop


def _after_fork() -> None:
    global _own, _guard
    _lost.append(_own)
    _own, _guard = None, Guard()


_exiting = False


def _at_exit() -> None:
    global _exiting
    _exiting = True
    if _own is not None:
        _own.end()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


class _Await(Generic[_T]):
    """One `await_`, and what became of it."""

    def __init__(self, awaitable: Awaitable[_T], loop: AbstractEventLoop) -> None:
        self._awaitable = [awaitable]  # whoever takes it starts it, or sees to it that nobody does
        self._done = _core.chan_in(0, 1)  # room for the word, so that sending it never waits
        self._error: BaseException | None = None
        self._loop = loop
        self._task: Future[_T] | None = None
        self._under_way = _core.call_under_way()
        self._value: Any = None

    def wait(self) -> _T:
        cancelled: Cancelled | None = None
        try:
            self._loop.call_soon_threadsafe(self._start, context=copy_context())
            try:
                self._done.recv()
            except Cancelled as arrived:
                cancelled = arrived
                self._cancel()
                with shield():
                    self._done.recv()
        except BaseException:
            self._give_up()
            raise
        error, self._error = self._error, None
        try:
            if error is None:
                value: _T = self._value
                return value
            if isinstance(error, CancelledError):
                if cancelled is not None:
                    raise cancelled
                raise Canceled(
                    "await_() of something that was cancelled: it has no result"
                ) from error
            raise error
        finally:
            del error, cancelled  # they hold this frame

    def _give_up(self) -> None:
        """Ctrl-C, or the loop is closed. It may have been started."""
        try:
            awaitable = self._awaitable.pop()
        except IndexError:
            self._cancel()
            return
        _core.call_over(self._under_way)
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # it will not be awaited, and need not complain of that

    def _cancel(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._cancel_task)
        except RuntimeError:  # the loop is closed: nothing will ever come
            self._finish(CancelledError())

    # --- in the thread of the loop ---

    def _start(self) -> None:
        try:
            awaitable = self._awaitable.pop()
        except IndexError:
            return
        try:
            self._task = asyncio.ensure_future(awaitable, loop=self._loop)
            self._task.add_done_callback(self._ended)
        except BaseException as error:
            self._finish(error)

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: "Future[_T]") -> None:
        if task.cancelled():
            if not _exiting:  # else the goroutine has been left where it waits, as all of them
                self._finish(CancelledError())
            return
        error = task.exception()
        if error is None:
            self._value = task.result()
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        self._error = error
        index, _ = _core.select((self._done.send, None), default=True)
        if index == 0:  # and not the second time: the loop may have been closed meanwhile
            _core.call_over(self._under_way)


def await_(awaitable: Awaitable[_T], /) -> _T:
    """Run an awaitable on an event loop, and park until it is done; its result.

    A coroutine runs as a task of the library's own loop, with the context variables of the caller;
    a task or future is awaited on the loop that it belongs to. Raises what it raises, and
    `context.Canceled` if it was cancelled over there.

    Cancelling the goroutine cancels the task and waits for its end. If it ends with a result or
    another exception nevertheless, that is what happens here. In a cancelled scope the coroutine is
    not started. In a plain thread it works too and blocks the thread.

    `RuntimeError` in a coroutine of the very loop it would have to wait for: use `await` there.
    """
    if not isinstance(awaitable, Awaitable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"await_() of {awaitable!r}: it can not be awaited; pass what a call of a coroutine "
            "function returns (await_(f(x)), not await_(f))"
        )
    try:
        loop: AbstractEventLoop
        loop = awaitable.get_loop() if isinstance(awaitable, Future) else _own_loop()
        _refuse_own_loop(loop, on_worker=_core.may_wait())
        call = _Await(awaitable, loop)
    except BaseException:
        if isinstance(awaitable, Coroutine):
            awaitable.close()
        raise
    return call.wait()


def _refuse_own_loop(loop: AbstractEventLoop, *, on_worker: bool) -> None:
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        return
    # A goroutine may share its thread with one that runs the loop, and is in no task of it.
    if here and not (on_worker and asyncio.current_task(loop) is None):
        raise RuntimeError(
            "await_() in a coroutine would stop the loop that it waits for: write `await` there"
        )


# --- from coroutines ------------------------------------------------------------------------------


class _Errand(Generic[_T]):
    """A goroutine that runs `fn(*args, **kwargs)` for the coroutine that waits for it."""

    def __init__(
        self,
        fn: Callable[..., _T],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self._error: BaseException | None = GoroutineExit()  # until it has begun
        self._future: Future[None] | None = None
        self._over = False
        self._value: Any = None
        self.loop = asyncio.get_running_loop()

    def run(self, fn: Callable[..., _T]) -> None:
        try:
            self._value = fn(*self._args, **self._kwargs)
            self._error = None
        except BaseException as error:
            self._error = error

    def tell(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self.loop.call_soon_threadsafe(self.hear)

    # --- in the thread of the loop ---

    def hear(self) -> None:
        self._over = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> _T:
        reserved = _core.reserve()  # what it started here would stand still while the loop waits
        goroutine = _core.fork_apart(self.tell, self.run, self._fn)
        cancelled: CancelledError | None = None
        try:
            while not self._over:
                self._future = self.loop.create_future()
                try:
                    await self._future
                except CancelledError as arrived:
                    cancelled = arrived
                    goroutine.cancel()
        except BaseException:
            goroutine.cancel()
            raise
        finally:
            del reserved
        error, self._error = self._error, None
        try:
            if cancelled is not None:
                if _is_cancellation(error):
                    raise cancelled
                _cancel_again()
            if error is None:
                value: _T = self._value
                return value
            if isinstance(error, GoroutineExit) or _is_cancellation(error):
                raise Canceled(
                    "the goroutine was ended from elsewhere: it has no result"
                ) from error
            raise error
        finally:
            del error, cancelled  # they hold this frame


def _is_cancellation(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        group: BaseExceptionGroup[BaseException] = error  # pyright: ignore[reportUnknownVariableType]
        return group.split(Cancelled)[1] is None
    return isinstance(error, Cancelled)


def _cancel_again() -> None:
    """The cancellation came too late for this wait: let the next one of the task have it.

    Not before the task waits: a time-out that asked for it may be left until then, and takes its
    request back.
    """
    task = asyncio.current_task()
    if task is None:
        return
    requests = task.cancelling()

    def again() -> None:
        if not task.done() and task.cancelling() >= requests > 0:
            task.uncancel()
            task.cancel()

    task.get_loop().call_soon(again)


async def go(fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `fn(*args, **kwargs)` in a goroutine; its result, or what it raises.

    The goroutine has the context variables of the caller. Cancelling cancels it, as `Task.cancel`
    does, and waits for its end: a `CancelledError` comes when it has ended by that. `Canceled` if
    it was ended by `goexit()` or the end of `run`.

    `TypeError` if `fn` can not be called or is a coroutine function.
    """
    if not callable(fn):
        raise TypeError(
            f"aio.go() of {fn!r}: it can not be called; pass a function and its arguments "
            "(aio.go(f, x), not aio.go(f(x)))"
        )
    refuse_coroutine_function("aio.go", fn)
    return await _Errand(fn, args, kwargs).wait()


_Case = Callable[[], Any] | tuple[Callable[[Any], None], Any] | None


def _at_once(case: _Case) -> tuple[bool, Any]:
    try:
        index, value = _core.select(case, default=True)
    except Closed as closed:
        closed.index = None  # this is no select
        raise
    return index == 0, value


async def send(ch: Chan[_T] | SendChan[_T], value: _T, /) -> None:
    """`ch.send(value)`; if it is cancelled, the value was not sent."""
    done, _ = _at_once((ch.send, value))
    if not done:
        await _Errand(ch.send, (value,)).wait()


async def recv(ch: Chan[_T] | RecvChan[_T], /) -> _T:
    """`ch.recv()`; if it is cancelled, nothing was received."""
    done, value = _at_once(ch.recv)
    if done:
        received: _T = value
        return received
    return await _Errand(ch.recv).wait()


async def recv_ok(
    ch: Chan[_T] | RecvChan[_T], /
) -> tuple[_T, Literal[True]] | tuple[None, Literal[False]]:
    """`ch.recv_ok()`; if it is cancelled, nothing was received."""
    done, value = _at_once(ch.recv_ok)
    if done:
        received: tuple[_T, Literal[True]] | tuple[None, Literal[False]] = value
        return received
    return await _Errand(ch.recv_ok).wait()


async def select(*cases: _Case, default: bool = False) -> tuple[int, Any]:
    """`gofer.select`; if it is cancelled, nothing was sent or received."""
    index, value = _core.select(*cases, default=True)
    if index >= 0 or default:
        return index, value
    return await _Errand(_core.select, cases).wait()
