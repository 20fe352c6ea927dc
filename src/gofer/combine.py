"""Running several functions, and having their results: `gather`, `race`, `map`.

    size, page = gather(measure, fetch)
    answer = race(ask_here, ask_there)
    for page in map(fetch, urls, limit=8):
        ...

What must stay true:
- What was started here has ended when the call has returned or raised, and when the iterator of
  `map` has ended, failed or been abandoned: except where the garbage collector does that, since
  nobody can wait there. It is cancelled all the same.
- `map` has as many permits as places. One is taken before an input is, and given back when the
  consumer has the result; so what lies between the two fits into `order`.
- Whoever consumes a `map` is in none of its scopes between two results, and who feeds it does not
  know the iterator: so that can be abandoned.
- A failure is not held by the frame that raises it, which it holds itself.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar, overload

from gofer._check import check_function
from gofer._core import Chan, Semaphore, Task, cancel_scope, fork, gosched, shield
from gofer.errors import Canceled
from gofer.goroutine import Group

__all__ = ["gather", "map", "race"]

_T = TypeVar("_T")
_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")


@overload
def gather(a: Callable[[], _A], b: Callable[[], _B], /) -> list[_A | _B]: ...
@overload
def gather(
    a: Callable[[], _A], b: Callable[[], _B], c: Callable[[], _C], /
) -> list[_A | _B | _C]: ...
@overload
def gather(*fns: Callable[[], _T]) -> list[_T]: ...
def gather(*fns: Callable[[], Any]) -> list[Any]:
    """Run the functions at the same time; return their results in the order of the functions.

    They are a `Group`: the first failure cancels the others, and when all have ended an
    `ExceptionGroup` is raised. The result of one that ended by `goexit()` is None; for one that
    ended by a `Cancelled` of its own `Canceled` is raised, when all have ended.

    Raises `Cancelled` in a cancelled scope, as they do. `TypeError` for what can not be called.
    """
    for fn in fns:
        check_function("gather", fn)
    tasks: list[Task[Any]] = []
    with Group() as group:
        tasks += [group.go(fn) for fn in fns]
    try:
        return [task.join() for task in tasks]
    except Canceled:
        gosched()  # raises Cancelled if they were cancelled together with us
        raise


@overload
def race(a: Callable[[], _A], b: Callable[[], _B], /) -> _A | _B: ...
@overload
def race(a: Callable[[], _A], b: Callable[[], _B], c: Callable[[], _C], /) -> _A | _B | _C: ...
@overload
def race(*fns: Callable[[], _T]) -> _T: ...
def race(*fns: Callable[[], Any]) -> Any:
    """Run the functions at the same time; return the result of the first one that returns.

    The others are cancelled then, and have ended before this returns; what has not begun does not
    begin. Who fails is out of the race. If all do, an `ExceptionGroup` of the failures is raised,
    in the order of the functions; if one wins, those of the others are dropped. What is no
    `Exception` ends the race as it ends a `Group`.

    Raises `Cancelled` in a cancelled scope, as they do. `ValueError` without functions, `TypeError`
    for what can not be called.
    """
    if not fns:
        raise ValueError("race() of no functions: nobody could win it")
    for fn in fns:
        check_function("race", fn)
    won: list[Any] = []
    failed: dict[int, Exception] = {}

    def entrant(place: int, fn: Callable[[], object]) -> Callable[[], None]:
        def call() -> None:
            if won:
                return
            try:
                won.append(fn())
            except Exception as error:
                failed[place] = error
            else:
                group.cancel()

        return _named(call, fn)

    try:
        with Group() as group:
            for place, fn in enumerate(fns):
                group.go(entrant(place, fn))
        if won:
            return won[0]
        if len(failed) < len(fns):
            gosched()  # raises Cancelled if they were cancelled together with us
        if not failed:
            raise Canceled("race() in which all were cancelled or left: it has no result")
        raise ExceptionGroup("all functions of a race failed", [failed[n] for n in sorted(failed)])
    finally:
        failed.clear()


@overload
def map(
    fn: Callable[[_A], _T], a: Iterable[_A], /, *, limit: int = ...
) -> Generator[_T, None, None]: ...
@overload
def map(
    fn: Callable[[_A, _B], _T], a: Iterable[_A], b: Iterable[_B], /, *, limit: int = ...
) -> Generator[_T, None, None]: ...
@overload
def map(
    fn: Callable[[_A, _B, _C], _T],
    a: Iterable[_A],
    b: Iterable[_B],
    c: Iterable[_C],
    /,
    *,
    limit: int = ...,
) -> Generator[_T, None, None]: ...
@overload
def map(
    fn: Callable[..., _T],
    a: Iterable[Any],
    b: Iterable[Any],
    c: Iterable[Any],
    d: Iterable[Any],
    /,
    *more: Iterable[Any],
    limit: int = ...,
) -> Generator[_T, None, None]: ...
def map(
    fn: Callable[..., _T], iterable: Iterable[Any], /, *iterables: Iterable[Any], limit: int = 32
) -> Generator[_T, None, None]:
    """As the builtin `map`, with up to `limit` calls of `fn` at the same time, each a goroutine.

        for page in map(fetch, urls, limit=8):
            ...

    The results come in the order of the inputs. It begins when the first one is asked for. An input
    is taken only while fewer than `limit` calls run or have a result that nobody has taken yet, so
    the inputs may be without end, and `limit` is also how far it runs ahead. They are taken in a
    goroutine of their own: one that is long in coming holds up no result.

    A failure of `fn` is raised in its place in the order, as it is; that of an input after all
    results before it. With it, and when the iterator is abandoned (a `break`, `close()`, the
    garbage collector), what still runs is cancelled and waited for, and its failures are dropped;
    calls that have not begun do not begin. One that ends by `goexit()` has the result None, for one
    that was cancelled in another way `Canceled` is raised.

    What runs is in the scopes in which the first result was asked for. To wait for one raises
    `Cancelled` in a cancelled scope, which ends the iterator.

    limit: at least 1 (`ValueError`). 32 suits functions that wait for something.
    """
    check_function("map", fn)
    if limit < 1:
        raise ValueError(f"map(limit={limit}) could never run anything: it must be at least 1")
    inputs = zip(iterable, *iterables, strict=False)
    return _results(fn, inputs, Semaphore(limit), Chan[Task[_T]](limit))


def _results(
    fn: Callable[..., _T],
    inputs: Iterator[tuple[Any, ...]],
    places: Semaphore,
    order: Chan[Task[_T]],
) -> Generator[_T, None, None]:
    scope = cancel_scope()

    def call(*args: Any) -> Any:
        return None if scope.cancelled else fn(*args)

    def feed() -> None:
        try:
            with scope:
                places.acquire()
                while not scope.cancelled and (args := next(inputs, None)) is not None:
                    order.send(fork(named, *args))
                    places.acquire()
        finally:
            order.close()

    named = _named(call, fn)
    task: Task[_T] | None = None
    feeder = fork(feed)
    try:
        for task in order:
            result = task.join()
            places.release()
            yield result
        feeder.join()
    except Canceled:
        gosched()  # raises Cancelled if it was cancelled together with us
        raise
    finally:
        scope.cancel()
        with suppress(RuntimeError), shield():  # the collector lets nobody wait
            if task is not None:
                task.exception()  # seen: not to be reported
            for task in order:
                task.exception()
            feeder.exception()
        del task, feeder


def _named(call: Callable[..., _T], fn: Callable[..., object]) -> Callable[..., _T]:
    """`call`, under the name of what it calls: that is what its goroutine is called."""
    call.__qualname__ = getattr(fn, "__qualname__", call.__qualname__)
    return call
