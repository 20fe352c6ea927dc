"""Every exception of gofer.

What must stay true: this module imports nothing of gofer. The C core imports it for its classes, so
it is complete before anything else of the package exists.

`Closed` and `Deadlock` are errors of the program and derive from `Exception`, as do `Canceled` and
`DeadlineExceeded`, which tell why something else is over. `Cancelled` and `GoroutineExit` are how
the runtime ends something from outside: they derive from `BaseException`, so that
`except Exception` lets them pass.
"""

__all__ = ["Canceled", "Cancelled", "Closed", "Deadlock", "DeadlineExceeded", "GoroutineExit"]


class Closed(Exception):
    """A channel is closed, so this can not be done with it.

    Raised by `send` on a channel that is closed or becomes so while the sender waits, by `recv`
    once the channel is closed and drained, by a second `close` (in Go these two are panics), and
    by `select` when the case it chose is one of these. `recv_ok` and iteration end without it.
    """

    index: int | None = None
    """The position of the case in `select`; None when a single operation raised it."""


class Deadlock(Exception):
    """All goroutines are asleep and nothing outside can wake one.

    Raised in goroutine 1, the only place that can still do something about it. The notes
    (`__notes__`, printed below the message) show every goroutine: what it waits for, where it
    stands and who started it. Uncaught, the process ends with status 2, as in Go, with and without
    `run`.

    There is no deadlock while a timer is running, I/O or a `blocking` call is under way, or another
    thread that could wake somebody is alive: one that is no daemon, or has used gofer. The last
    note names the daemons that did not count.
    """


class Canceled(Exception):
    """What was waited for has been cancelled, as Go's `context.Canceled`.

    Raised by `join` of a task that ended because it was cancelled. Who joins it has not been
    cancelled: that would be `Cancelled`. What `err()` of a context says when its cancel function,
    or that of a parent, was called.
    """


class DeadlineExceeded(TimeoutError):
    """What `err()` of a context says when its deadline has passed, as in Go."""


class Cancelled(BaseException):
    """What this goroutine is doing has been cancelled; to be let through.

    Raised by an operation that would have to wait inside a cancelled scope (`timeout`,
    `cancel_scope`, `Group`) or in a cancelled `Task`, and by every further one until the scope is
    left; never between two bytecodes. An operation that can be done at once is done. `finally` and
    `with` blocks run as for any exception. The scope that was cancelled stops it at its edge, so
    catch it only to clean up, and raise it again.
    """


class GoroutineExit(BaseException):
    """This goroutine ends here; to be let through.

    Raised by `goexit()`, and in every goroutine that is still alive when `run` ends. `finally` and
    `with` blocks run; then the goroutine is gone, which is no failure and is not reported.
    """
