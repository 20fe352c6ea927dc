"""Goroutines for CPython: `go`, channels, `select`.

    from gofer import Chan, go

    def count(ch: Chan[int]) -> None:
        for n in range(3):
            ch.send(n)
        ch.close()

    numbers = Chan[int]()
    go(count, numbers)
    for n in numbers:
        print(n)

The modules: `gofer.goroutine` (starting goroutines), `gofer.combine` (`gather`, `race`, `map`),
`gofer.chan` (channels and `select`), `gofer.time`, `gofer.sync`, `gofer.scope` (calling things
off), `gofer.context`, `gofer.runtime`, `gofer.errors`. Everything common stands here too.
"""

from typing import TYPE_CHECKING

from gofer import _platform as _platform  # first: says where gofer can not run
from gofer import context, runtime, sync
from gofer import time as time  # not in __all__: a star import leaves the standard module alone
from gofer.blocking import blocking
from gofer.chan import Chan, RecvChan, SendChan, select
from gofer.combine import gather, race
from gofer.combine import map as map  # not in __all__: a star import leaves the builtin alone
from gofer.errors import Cancelled, Closed, Deadlock, GoroutineExit
from gofer.goroutine import Goroutine, Group, Task, current, fork, go, goexit, gosched, run
from gofer.scope import cancel_scope, shield, timeout
from gofer.stdlib import patch, patched, unpatch
from gofer.sync import Cond, Mutex, Once, RWMutex, Semaphore, WaitGroup
from gofer.time import Ticker, Timer, after, after_func, sleep

__all__ = [
    "Cancelled",
    "Chan",
    "Closed",
    "Cond",
    "Deadlock",
    "Goroutine",
    "GoroutineExit",
    "Group",
    "Mutex",
    "Once",
    "RWMutex",
    "RecvChan",
    "Semaphore",
    "SendChan",
    "Task",
    "Ticker",
    "Timer",
    "WaitGroup",
    "after",
    "after_func",
    "blocking",
    "cancel_scope",
    "context",
    "current",
    "fork",
    "gather",
    "go",
    "goexit",
    "gosched",
    "patch",
    "patched",
    "race",
    "run",
    "runtime",
    "select",
    "shield",
    "sleep",
    "sync",
    "timeout",
    "unpatch",
]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        # `__version__` when it is asked for: importlib.metadata takes longer to import than gofer.
        if name == "__version__":
            from importlib.metadata import version

            return version("gofer")
        raise AttributeError(f"module 'gofer' has no attribute {name!r}")
