"""Looking at and steering the runtime: workers, goroutines, what happens on a panic.

Everything here may be called from any goroutine or thread, and nothing but `gosched` waits.
"""

import sys
from dataclasses import dataclass
from typing import Protocol

from gofer import _report
from gofer._core import (
    gomaxprocs,
    gosched,
    lock_os_thread,
    num_goroutine,
    stats,
    unlock_os_thread,
)
from gofer._report import PanicHook, State
from gofer.goroutine import goexit

__all__ = [
    "Info",
    "PanicHook",
    "State",
    "dump",
    "goexit",
    "gomaxprocs",
    "goroutines",
    "gosched",
    "lock_os_thread",
    "num_goroutine",
    "on_panic",
    "stats",
    "unlock_os_thread",
]


class Writer(Protocol):
    """What `dump` needs of a text file."""

    def write(self, text: str, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Info:
    """One goroutine as it was at one moment."""

    id: int
    name: str
    state: State
    waiting_on: str
    """Why it waits and for which object, as "chan receive <...>"; "" unless it waits."""
    since: float | None
    """The second of `time.monotonic()` at which it began to wait; None unless it waits."""
    where: str
    """Its innermost frame, as "function at file:line"; "" when it has none yet."""
    created_at: str
    """Where it was started, as "function at file:line"; "" when no goroutine did, as for main."""
    parent: int | None
    """The id of the goroutine that started it; None when none did."""


def goroutines() -> list[Info]:
    """Every goroutine that has not ended, ordered by id.

    A picture, not a lock: on several workers the others go on while it is taken.
    """
    return [_info(row) for row in _report.rows()]


def _info(row: _report.Row) -> Info:
    goroutine, state, reason, target, since, frames, created, parent = row
    waits = state == "waiting"
    return Info(
        id=goroutine.id,
        name=goroutine.name,
        state=state,
        waiting_on=f"{reason} {target}".strip() if waits else "",
        since=since if waits else None,
        where=_report.site(frames[0]) if frames else "",
        created_at=_report.site(created) if created is not None else "",
        parent=parent if parent > 0 else None,
    )


def dump(file: Writer | None = None) -> None:
    """Write every goroutine to `file` as Go does: state, frames from the innermost, creator.

        goroutine 7 [chan receive, 2 minutes]:
        worker(...)
            prog.py:12
        created by main in goroutine 1
            prog.py:30

    file: anything with `write(str)`; None is `sys.stderr` as it is at the call.
    """
    out = sys.stderr if file is None else file
    out.write("\n\n".join(_report.dump()) + "\n")


def on_panic(hook: PanicHook | None) -> PanicHook | None:
    """Have `hook(goroutine, exception)` called on a panic in place of the printed report.

    It is called in the goroutine that panics, on its stack, and may wait (to send the report
    somewhere); its result is ignored. The process still ends with status 2 after it. If it raises,
    the usual report is printed after all, followed by what it raised.

    hook: None restores the printing.
    Returns the hook that was set before, or None.
    """
    return _report.set_panic_hook(hook)
