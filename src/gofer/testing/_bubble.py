"""Tests of hours in milliseconds: a clock that jumps when nothing else can happen.

What must stay true of a `bubble`:
- When the `with` has ended, so have all goroutines that were started inside it, unless they caught
  `Cancelled` again and again.
- An exception that would have been a panic ends the `with` instead of the program.
"""

from types import TracebackType

from gofer import _core
from gofer.errors import Cancelled
from gofer.scope import shield

__all__ = ["bubble", "wait"]


class bubble:
    """A with block whose goroutines live by a clock of their own, as Go's `testing/synctest`.

        with bubble():
            start = time.now()
            sleep(3600)  # takes no time
            assert time.now() == start + 3600

    The block and all goroutines that are started inside are in the bubble. Their `sleep`, timers,
    time-outs and deadlines run on its clock. It starts at the next full second of
    `time.monotonic()` and stands still until every goroutine of the bubble is durably blocked; then
    it jumps to the next timer. `gofer.time.now()` tells it; the functions of Python's `time` do not
    know of it.

    *Durably blocked* is who waits for what only the bubble can bring about: a channel, lock or wait
    group that was made inside it, its timers, the end of one of its goroutines. Who waits for
    something made outside holds up the clock.

    When all are durably blocked and there is no timer, `Deadlock` is raised in the block, with the
    place of every goroutine.

    The end of the block waits until all the others have ended. As in Go the clock stops there: if
    they wait for it or for each other, that is a `Deadlock`, which names them. An exception that
    ends the block, and such a `Deadlock`, cancels them, and the clock goes on for what they do on
    their way out. An exception that escapes from a `go` function is no panic here: it cancels the
    bubble and is raised by the block (an `ExceptionGroup` if there are several).

    `RuntimeError` inside another bubble. Works with any number of workers.
    """

    __slots__ = ("__weakref__", "_panics", "_root", "_scope")

    def __init__(self) -> None:
        self._panics: list[BaseException] = []
        self._scope = _core.bubble()
        self._root: _core.Goroutine | None = None

    def __enter__(self) -> "bubble":
        self._scope.enter(self._panicked)
        self._root = _core.current()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._root is not _core.current():
            return self._scope.leave(error)  # which refuses
        self._root = None
        if error is not None:
            self._scope.cancel()
        interrupt = self._wait_for_the_others()
        ours = self._scope.leave(error)
        panics, self._panics = self._panics, []
        try:
            if panics and (error is None or isinstance(error, (Exception, Cancelled))):
                if isinstance(error, Exception):
                    panics.insert(0, error)
                if len(panics) == 1:
                    raise panics[0]
                raise BaseExceptionGroup("panics in a bubble", panics)
            if error is None and interrupt is not None:
                raise interrupt
            return ours
        finally:
            del error, interrupt, panics  # they hold this frame

    def _wait_for_the_others(self) -> BaseException | None:
        """Return what came instead of their end the first time; the second time it gives up."""
        interrupt: BaseException | None = None
        try:
            with shield():
                for _ in range(2):
                    try:
                        self._scope.join()
                        break
                    except BaseException as arrived:
                        interrupt = interrupt or arrived
                        self._scope.cancel()
            return interrupt
        finally:
            del interrupt  # it holds this frame

    def _panicked(self, goroutine: _core.Goroutine, exception: BaseException) -> None:
        self._panics.append(exception)
        self._scope.cancel()


def wait() -> None:
    """Wait until every other goroutine of the bubble is durably blocked.

    For what has been set going to come to rest, without a sleep: the clock does not move. Raises
    `Cancelled` in a cancelled scope; `RuntimeError` outside of a bubble.
    """
    _core.bubble_wait()
