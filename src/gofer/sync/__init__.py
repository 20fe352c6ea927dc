"""Locks and what else goroutines share memory with, after Go's `sync`.

Goroutines of every worker and plain threads may share all of these. What waits raises `Cancelled`
in a cancelled scope and has taken nothing then; `KeyboardInterrupt` likewise in goroutine 1.
Waiters are served in order of arrival. Misuse, as unlocking what is not locked, is a
`RuntimeError`.

    WaitGroup       waits until a count is zero. add(n=1), done(), wait(), go(fn, ...); a negative
                    count is a ValueError; `with` waits at its end
    Mutex           lock(), unlock(), try_lock(), `with`; belongs to no one: another goroutine than
                    the one that locked it may unlock it, and it is not reentrant
    RWMutex         many readers or one writer
    Once            runs a function once; once_func and once_value make such a function
    Cond            waits until somebody says that a condition may hold
    Semaphore       n permits. acquire(n=1), release(n=1), try_acquire(n=1), `with`; more than there
                    are is a ValueError, releasing too many a RuntimeError
    SingleFlight    callers that ask for the same at the same time share one call
    Pool            keeps objects for reuse
    atomic          Int and Ref: one value, changed in one step
"""

from gofer._core import Mutex, Semaphore, WaitGroup
from gofer.sync import atomic
from gofer.sync._cond import Cond
from gofer.sync._once import Once, once_func, once_value
from gofer.sync._pool import Pool
from gofer.sync._rwmutex import RWMutex
from gofer.sync._singleflight import SingleFlight

__all__ = [
    "Cond",
    "Mutex",
    "Once",
    "Pool",
    "RWMutex",
    "Semaphore",
    "SingleFlight",
    "WaitGroup",
    "atomic",
    "once_func",
    "once_value",
]
