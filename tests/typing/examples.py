"""What the type checkers must see. Checked by mypy and pyright, both strict; never run.

A line with `ignore` comments is a mistake that must be reported: a comment that ignores nothing is
an error itself.
"""

from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Literal, assert_type

import gofer
from gofer import (
    Chan,
    Closed,
    Cond,
    Goroutine,
    Group,
    Mutex,
    Once,
    RecvChan,
    RWMutex,
    Semaphore,
    SendChan,
    Task,
    Ticker,
    Timer,
    WaitGroup,
    after,
    after_func,
    aio,
    blocking,
    cancel_scope,
    current,
    fork,
    gather,
    go,
    gosched,
    map,
    race,
    run,
    select,
    shield,
    sleep,
    timeout,
)
from gofer.context import (
    CancelCauseFunc,
    CancelFunc,
    Context,
    background,
    cause,
    with_cancel,
    with_cancel_cause,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)
from gofer.sync import Pool, SingleFlight, atomic, once_func, once_value


def length(text: str, *, factor: int = 1) -> int:
    return len(text) * factor


class Animal: ...


class Cat(Animal): ...


# --- starting goroutines: arguments are checked, results are known ------------------------------


def starting() -> None:
    assert_type(go(length, "four"), Goroutine)
    assert_type(go(length, "four", factor=2), Goroutine)
    go(length, 4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    go(length)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    go(length, "four", fact=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    task = fork(length, "four", factor=2)
    assert_type(task, Task[int])
    assert_type(task.join(), int)
    assert_type(task.exception(), BaseException | None)
    assert_type(task.id, int)
    task.cancel()
    fork(length, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert_type(fork(partial(length, "four")).join(), int)
    assert_type(fork(lambda: 1.5).join(), float)
    assert_type(fork(sorted, [3, 1]).join(), list[int])
    assert_type(fork(b"text".decode, "ascii").join(), str)

    assert_type(run(length, "four"), int)
    run(length, factor=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    me = current()
    assert_type(me, Goroutine)
    assert_type(me.done, bool)
    me.name = "main"
    me.id = 7  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(gosched(), None)


def grouping(words: list[str]) -> None:
    with Group(limit=3) as group:
        assert_type(group, Group)
        tasks = [group.go(length, word) for word in words]
        assert_type(tasks, list[Task[int]])
        group.go(length, b"")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type(sum(task.join() for task in tasks), int)


def number() -> int:
    return 1


def word() -> str:
    return "one"


def combining(words: list[str], numbers: Chan[int], fns: list[Callable[[], bytes]]) -> None:
    assert_type(gather(number), list[int])
    assert_type(gather(number, word), list[int | str])
    assert_type(gather(number, word, gosched), list[int | str | None])
    assert_type(gather(*fns), list[bytes])
    gather(length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gather(number())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]

    assert_type(race(number), int)
    assert_type(race(number, word), int | str)
    assert_type(race(number, word, number), int | str)
    assert_type(race(*fns), bytes)
    race(number, 2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

    assert_type(map(length, words), Generator[int, None, None])
    assert_type(map(length, words, limit=3), Generator[int, None, None])
    assert_type(list(map(pow, numbers, [2.5])), list[Any])
    assert_type(list(map(lambda a, b, c: (c, b), words, numbers, words)), list[tuple[str, int]])
    map(length, numbers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    map(length)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    map(length, words, limit="3")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    map(length, words).close()


def a_task_is_covariant(task: Task[Cat]) -> Task[Animal]:
    return task


# --- channels -----------------------------------------------------------------------------------


def channels() -> None:
    numbers = Chan[int](10)
    assert_type(numbers, Chan[int])
    numbers.send(1)
    numbers.send("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(numbers.recv(), int)
    for number in numbers:
        assert_type(number, int)
    assert_type(len(numbers), int)
    assert_type(numbers.cap, int)
    assert_type(numbers.closed, bool)

    match numbers.recv_ok():
        case value, True:
            assert_type(value, int)
        case nothing, False:
            assert_type(nothing, None)

    assert_type(numbers.sender, SendChan[int])
    assert_type(numbers.receiver, RecvChan[int])
    numbers.sender.recv()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    numbers.receiver.send(1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    of_an_annotation: Chan[str] = Chan()
    assert_type(of_an_annotation.recv(), str)


def one_way(out: SendChan[int], source: RecvChan[int]) -> None:
    for number in source:
        out.send(number)


def halves(cats: Chan[Cat], animals: Chan[Animal]) -> None:
    receives_animals: RecvChan[Animal] = cats.receiver
    sends_cats: SendChan[Cat] = animals.sender
    receives_animals.recv()
    sends_cats.send(Cat())
    sends_animals: SendChan[Animal] = cats.sender  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    both: Chan[Animal] = cats  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del sends_animals, both


def selecting(jobs: Chan[str], results: SendChan[int], stop: RecvChan[None] | None) -> None:
    stopped = None if stop is None else stop.recv_ok
    assert_type(select(jobs.recv, (results.send, 1), stopped, after(1.0).recv), tuple[int, Any])
    assert_type(select(jobs.recv, default=True), tuple[int, Any])
    select(jobs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    select(results.send)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    try:
        jobs.recv()
    except Closed as closed:
        assert_type(closed.index, int | None)


# --- time ---------------------------------------------------------------------------------------


def timing() -> None:
    sleep(1)
    sleep(timedelta(seconds=1))
    sleep("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(after(0.5), RecvChan[float])
    assert_type(after_func(0.5, print, "late"), Timer)
    timer = Timer(1)
    assert_type(timer.c.recv(), float)
    assert_type(timer.stop(), bool)
    assert_type(timer.reset(2), bool)
    for now in Ticker(0.1):
        assert_type(now, float)


# --- scopes -------------------------------------------------------------------------------------


def limiting() -> int:
    with timeout(1.5) as limit, timeout(timedelta(seconds=1)), timeout(None):
        assert_type(limit, timeout)
        assert_type(limit.expired, bool)
    with cancel_scope() as scope:
        assert_type(scope, cancel_scope)
        assert_type(scope.cancel(), None)
    assert_type(scope.cancelled, bool)  # reached: a cancelled scope goes on after its block
    with shield() as guarded:
        assert_type(guarded, shield)
    timeout("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    timeout()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cancel_scope(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    limit.expired = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    with timeout(1), shield():
        return 1  # and so no return is missing here: these two let everything pass


# --- locks and friends --------------------------------------------------------------------------


def locking(mutex: Mutex, both_ways: RWMutex, permits: Semaphore, waiting: WaitGroup) -> None:
    assert_type(mutex.try_lock(), bool)
    with mutex, permits, both_ways.reading(), both_ways.writing():
        Cond(mutex).signal()
    assert_type(waiting.go(length, "four", factor=2), Goroutine)
    waiting.go(length, 4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Once().do(locking)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(once_value(lambda: "text"), Callable[[], str])
    assert_type(once_func(gosched)(), None)
    assert_type(SingleFlight[str, int]().do("key", lambda: 1), tuple[int, bool])
    assert_type(Pool(bytearray).get(), bytearray)
    assert_type(atomic.Int(1).add(2), int)
    assert_type(atomic.Ref("a").load(), str)


# --- contexts -----------------------------------------------------------------------------------
# --- calls that block, asyncio --------------------------------------------------------------------


def calling() -> None:
    assert_type(blocking(length, "four", factor=2), int)
    blocking(length, 4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(blocking.wrap(length)("four", factor=2), int)
    blocking.wrap(length)(4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(blocking.iter(["a"]), Iterator[str])
    assert_type(blocking.limit(), int)


async def crossing(numbers: Chan[int], source: RecvChan[int], sink: SendChan[int]) -> None:
    assert_type(await aio.go(length, "four", factor=2), int)
    await aio.go(length, 4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await aio.recv(numbers), int)
    assert_type(await aio.recv(source), int)
    await aio.recv(sink)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await aio.recv_ok(source), tuple[int, Literal[True]] | tuple[None, Literal[False]])
    await aio.send(numbers, 1)
    await aio.send(sink, 1)
    await aio.send(numbers.receiver, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await aio.select(source.recv, (sink.send, 1)), tuple[int, Any])
    assert_type(aio.await_(aio.recv(source)), int)
    aio.await_(length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- contexts -------------------------------------------------------------------------------------


def cancelling(numbers: Chan[int]) -> Exception | None:
    ctx, cancel = with_cancel(background())
    assert_type(ctx, Context)
    assert_type(cancel, CancelFunc)
    assert_type(ctx.done, RecvChan[None])
    assert_type(ctx.deadline(), float | None)
    assert_type(ctx.value("key"), Any)
    assert_type(cause(ctx), BaseException | None)
    assert_type(gofer.context.after_func(ctx, cancel), Callable[[], bool])
    assert_type(with_timeout(ctx, timedelta(seconds=1)), tuple[Context, CancelFunc])
    assert_type(with_value(without_cancel(ctx), "key", 1), Context)
    assert_type(with_cancel_cause(ctx)[1], CancelCauseFunc)
    cancel(ValueError())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with_cancel_cause(ctx)[1]("why")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_cancel(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_timeout(ctx, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_deadline(ctx, timedelta(seconds=1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    select(numbers.recv, ctx.done.recv_ok)
    return ctx.err()


class Custom:
    """A context of a user's own."""

    def __init__(self) -> None:
        self.done: RecvChan[None] = Chan[None]().receiver

    def err(self) -> Exception | None:
        return None

    def deadline(self) -> float | None:
        return None

    def value(self, key: object) -> object:
        return key


assert_type(with_cancel(Custom()), tuple[Context, CancelFunc])


# --- the package --------------------------------------------------------------------------------

assert_type(gofer.__version__, str)
assert_type(gofer.runtime.gomaxprocs(), int)
gofer.spawn(length)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
