"""What gofer prints: the report of a panic, of a deadlock, and the dump of all goroutines.

What must stay true:
- A panic ends the process with status 2, whatever goes wrong while it is reported.
- One panic is reported: a goroutine that panics while another one reports waits for the exit.
- An uncaught Deadlock sets exit status 2 and is printed by the `sys.excepthook` that was there
  before.
- Nothing here starts or ends goroutines; the core calls `panic`, `child_ended`, `swallows` and
  `deadlock_notes`.
"""

import atexit
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Literal, NoReturn, TypeAlias

from gofer import _core
from gofer.errors import Deadlock, GoroutineExit

__all__ = [
    "PanicHook",
    "Row",
    "State",
    "add_floor",
    "dump",
    "install",
    "origin",
    "panic_text",
    "rows",
    "set_panic_hook",
    "site",
]

PanicHook: TypeAlias = Callable[[_core.Goroutine, BaseException], object]

State: TypeAlias = Literal["runnable", "running", "waiting", "dead"]

Site: TypeAlias = tuple[CodeType, int]  # code object and line

# As _core.snapshot gives it: goroutine, state, wait reason, what it waits on, since when it waits,
# frames from the innermost, where it was started, id of the goroutine that started it.
Row: TypeAlias = tuple[_core.Goroutine, State, str, str, float, list[Site], Site | None, int]

EXIT_STATUS = 2  # of a panic and of a deadlock, as in Go

_hook: PanicHook | None = None
_deadlocked = False  # a Deadlock was left uncaught
_panicking = _core.Mutex()  # locked for ever by the first goroutine that panics


# --- describing goroutines --------------------------------------------------------------------


def site(place: Site) -> str:
    """`function at file:line`."""
    code, line = place
    return f"{code.co_qualname} at {code.co_filename}:{line}"


def origin(task: _core.Goroutine) -> str:
    """`task 7 'fetch', created by main in goroutine 1 at prog.py:10`."""
    text = f"task {task.id} {task.name!r}"
    born = _core.origin(task)
    if born is None:
        return text
    code, line, parent = born
    return (
        f"{text}, created by {code.co_qualname} in goroutine {parent} at {code.co_filename}:{line}"
    )


def swallows(goroutine: _core.Goroutine) -> None:
    """Name a goroutine that was cancelled, catches every `Cancelled` and goes on."""
    now = time.monotonic()
    where = [_describe(row, now) for row in rows() if row[0] is goroutine]
    _print(
        f"gofer: goroutine {goroutine.id} {goroutine.name!r} was cancelled, and has been catching "
        "Cancelled and going on for more than a second: let it through (`except Exception` does), "
        "or raise it again\n" + "".join(text + "\n" for text in where)
    )


def _describe(row: Row, now: float) -> str:
    goroutine, state, reason, _, since, frames, created, parent = row
    doing = reason if state == "waiting" and reason else state
    minutes = int((now - since) // 60) if state == "waiting" else 0
    if minutes >= 1:
        doing += f", {minutes} minutes"
    lines = [f"goroutine {goroutine.id} [{doing}]:"]
    for code, line in frames:
        lines.append(f"{code.co_qualname}(...)\n\t{code.co_filename}:{line}")
    if created is not None:
        code, line = created
        lines.append(f"created by {code.co_qualname} in goroutine {parent}")
        lines.append(f"\t{code.co_filename}:{line}")
    return "\n".join(lines)


def rows() -> list[Row]:
    """Every goroutine that has not ended, by id: main first. Without the frames of gofer itself."""
    return sorted(map(_without_us, _core.snapshot()), key=_id)


def _id(row: Row) -> int:
    return row[0].id


_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_floor: tuple[str, ...] = (_HERE + "__main__.py",)  # where `gofer run` begins


def add_floor(*files: str) -> None:
    """What lies outside of a frame from these files or folders is not the program's."""
    global _floor
    _floor += files


def _without_us(row: Row) -> Row:
    frames = row[5]
    for at, (code, _) in enumerate(frames):
        if at and code.co_filename.startswith(_floor):
            frames = frames[:at]
            break
    theirs = [place for place in frames if not place[0].co_filename.startswith(_HERE)]
    return (*row[:5], theirs, *row[6:])


def dump() -> list[str]:
    """Every goroutine as Go dumps it: what it does, frames from the innermost, creator."""
    now = time.monotonic()
    return [_describe(row, now) for row in rows()]


def deadlock_notes(threads: bool, /) -> list[str]:
    """The notes of a Deadlock: one for each goroutine, with an empty line before each.

    With `threads`, which do not matter in a bubble, one more if there are some that might have been
    about to wake somebody, and do not count.
    """
    texts = dump()
    if threads and (names := _threads_that_do_not_count()):
        texts.append(
            "Not counted on: daemon threads that have not used gofer yet, here "
            f"{', '.join(names)}. If one was about to wake a goroutine, do not make it a daemon."
        )
    return ["\n" + text for text in texts]


def _threads_that_do_not_count() -> list[str]:
    threading = sys.modules.get("threading")
    if threading is None:
        return []
    threads = list(threading._active.values())  # enumerate() might wait for its lock
    return [repr(t.name) for t in threads if t.daemon and not hasattr(t, "of_gofer")]


# --- panics -----------------------------------------------------------------------------------


def set_panic_hook(hook: PanicHook | None) -> PanicHook | None:
    """Set what is called instead of printing a panic; return what was set before."""
    global _hook
    previous, _hook = _hook, hook
    return previous


def panic(goroutine: _core.Goroutine, exception: BaseException) -> None:
    """Report the exception that escaped from a `go` function, and end the process."""
    if not _panicking.try_lock():
        _core.park_forever()
    try:
        hook = _hook
        if hook is None:
            _print(panic_text(goroutine, exception))
        else:
            try:
                hook(goroutine, exception)
            except BaseException as failure:
                _print(panic_text(goroutine, exception))
                _print("\nthe hook of runtime.on_panic failed too:\n" + _trace(failure))
    finally:
        try:
            _flush()
        finally:
            os._exit(EXIT_STATUS)


def panic_text(goroutine: _core.Goroutine, exception: BaseException) -> str:
    """What is printed of a panic."""
    text = f"panic: {_headline(exception)}\n\ngoroutine {goroutine.id} [running]:\n"
    text += _trace(exception)
    for row in _core.snapshot():
        if row[0] is goroutine and row[6] is not None:
            code, line = row[6]
            text += f"created by {code.co_qualname} in goroutine {row[7]}"
            text += f" at {code.co_filename}:{line}\n"
    return text


def _headline(exception: BaseException) -> str:
    """The line `Type: message`; a SyntaxError has its source before it, notes come after it."""
    lines = traceback.format_exception_only(exception)
    return next((line for line in lines if not line.startswith(" ")), lines[0]).rstrip("\n")


def _trace(exception: BaseException) -> str:
    return "".join(traceback.format_exception(exception))


def _print(text: str) -> None:
    if sys.stderr is not None:  # it may have been taken away
        sys.stderr.write(text)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # closed, broken or absent: the exit matters more
            continue


# --- what reaches the top of the program --------------------------------------------------------


def child_ended(exception: BaseException | None) -> NoReturn:
    """End the child of a fork whose goroutine has returned, or let `exception` escape.

    As a program ends: what is left uncaught is printed, threads are waited for, exit functions are
    called; the interpreter itself is not taken down.
    """
    status = 1
    try:
        status = 0 if exception is None else _uncaught(exception)
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    finally:
        try:
            _flush()
        finally:
            os._exit(status)


def _uncaught(exception: BaseException) -> int:
    """Print it as Python would; return the exit status."""
    if isinstance(exception, SystemExit):
        if exception.code is None or isinstance(exception.code, int):
            return exception.code or 0
        _print(f"{exception.code}\n")
        return 1
    try:
        sys.excepthook(type(exception), exception, exception.__traceback__)
    except SystemExit as exit:  # raised by another goroutine, after goexit() in this one
        return _uncaught(exit)
    return EXIT_STATUS if _deadlocked else 1


def install() -> None:
    """Give the core its hooks and chain `sys.excepthook`. Called once, when gofer is imported."""
    _core.set_hooks(
        panic=panic,
        child_ended=child_ended,
        deadlock_notes=deadlock_notes,
        swallows=swallows,
        home=_HERE,
    )
    install_excepthook()


def install_excepthook() -> None:
    """Make an uncaught Deadlock exit with status 2, and `goexit()` in main wait for the others.

    Not in interactive mode: there nothing is uncaught at the end, and the prompt stays.
    """
    if sys.flags.interactive or sys.flags.inspect or hasattr(sys, "ps1"):
        return
    previous = sys.excepthook

    def excepthook(
        kind: type[BaseException], exception: BaseException, trace: TracebackType | None
    ) -> None:
        global _deadlocked
        if isinstance(exception, GoroutineExit):
            try:
                _core.park_forever()
            except (Deadlock, KeyboardInterrupt) as end:  # SystemExit from here ends the program
                kind, exception, trace = type(end), end, end.__traceback__
        previous(kind, exception, trace)
        if isinstance(exception, Deadlock):
            _deadlocked = True
            _core.set_exit_status(EXIT_STATUS)

    sys.excepthook = excepthook
