"""Sleeping, timers and tickers on the monotonic clock.

Durations are seconds as `float` or `datetime.timedelta`.

    sleep(d)                   waits; `d <= 0` lets the others run once
    after(d)                   a `RecvChan[float]` that delivers the time once, `d` seconds from now
    after_func(d, fn, *args)   calls `fn(*args)` in a goroutine of its own; returns its `Timer`
    Timer(d)                   `.c` delivers the time once; `.stop()` and `.reset(d)` return
                               whether it was still running
    Ticker(d)                  `.c` delivers the time every `d` seconds
    now()                      `time.monotonic()`, or the clock of the bubble (`gofer.testing`)

`sleep` raises `Cancelled` in a cancelled scope; the rest does not wait. The times delivered are
those of `time.monotonic()`. As in Go 1.23: a stopped or reset timer never delivers a stale value,
a tick that nobody takes is dropped, and a timer that nothing references is collected.

What must stay true of a `Ticker`: outside the guard, the timer runs if and only if `_stopped` is
open.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import TypeAlias

from gofer._core import Chan, RecvChan, Timer, after, after_func, now, select, sleep, ticker
from gofer._guard import Guard

__all__ = ["Duration", "Ticker", "Timer", "after", "after_func", "now", "sleep"]

Duration: TypeAlias = float | timedelta


class Ticker:
    """Delivers the time every `d` seconds on `.c`, and as an iterator until it is stopped.

        for now in Ticker(1.0):
            poll()

    A tick is dropped when the one before has not been taken: a slow receiver does not pile them up.

    d: the period in seconds or as a `timedelta`; `ValueError` unless it is greater than 0.
    """

    __slots__ = ("__weakref__", "_guard", "_stopped", "_timer")

    def __init__(self, d: Duration) -> None:
        _check_period("Ticker", d)
        self._timer = ticker(d)
        self._stopped: Chan[None] = Chan()  # closed by stop; reset makes a new one
        self._guard = Guard()

    @property
    def c(self) -> RecvChan[float]:
        """The channel of the ticks, the `time.monotonic()` of each. Never closed, as in Go."""
        return self._timer.c

    def stop(self) -> None:
        """No more ticks; who iterates over the ticker is done. Does not wait; may be repeated."""
        with self._guard:
            self._timer.stop()
            if not self._stopped.closed:
                self._stopped.close()

    def reset(self, d: Duration) -> None:
        """Tick every `d` seconds from now on; a stopped ticker runs again. Does not wait.

        `ValueError` unless `d` is greater than 0; the ticker goes on as it was then.
        """
        _check_period("Ticker.reset", d)
        with self._guard:
            self._timer.reset(d)
            if self._stopped.closed:
                self._stopped = Chan()

    def __iter__(self) -> Iterator[float]:
        return self

    def __next__(self) -> float:
        """Wait for the next tick and return its time; ends once the ticker is stopped.

        Raises `Cancelled` in a cancelled scope. A tick goes to one of those who wait for it.
        """
        index, now = select(self._timer.c.recv, self._stopped.recv_ok)
        if index == 1:
            raise StopIteration
        tick: float = now
        return tick


def _check_period(what: str, d: Duration) -> None:
    seconds = d.total_seconds() if isinstance(d, timedelta) else d
    try:
        positive = seconds > 0
    except TypeError:
        given = type(d).__name__
        raise TypeError(f"{what} takes seconds as a number or a timedelta, not {given}") from None
    if not positive:
        raise ValueError(f"{what}({d!r}): the period must be greater than 0 seconds")
