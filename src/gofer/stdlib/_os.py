"""What of `os` takes several steps: writing much, `sendfile`, and waiting for child processes.

Reading, and writing what a pipe takes at once, is in the core (csrc/patch_fd.c), which calls what
stands here when the descriptor blocks and is none of a file.

Functions are imported by name: a test that replaces one in its module means the code it tests.
"""

import os
from collections.abc import Callable
from os import close, getpgrp, set_blocking, waitpid, write
from select import PIPE_BUF
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.errors import Cancelled

__all__ = ["STAND_INS", "write_all"]

# Not on all systems:
_pidfd_open: Any = vars(os).get("pidfd_open")
_waitid_now: Any = vars(os).get("waitid")

# --- writing ------------------------------------------------------------------------------------


def write_all(
    original: Callable[..., Any], some: Callable[[Any, Any], int | None], to: Any, data: Any
) -> Any:
    """`original(to, data)` as `some(to, piece)` for each piece that a pipe takes at once."""
    try:
        rest = memoryview(data).cast("B")
    except (TypeError, ValueError):
        return original(to, data)
    written = 0
    while True:
        try:
            taken = some(to, rest[written : written + PIPE_BUF])
        except Cancelled:
            if written:
                return written
            raise
        if taken is None:  # it does not block any more
            return written or None
        written += taken
        if written >= len(rest):
            return written


def _write(original: Callable[..., Any], fd: int, data: Any) -> Any:
    return write_all(original, write, fd, data)


def _writev(original: Callable[..., Any], *args: Any) -> Any:
    try:
        fd, buffers = args
        data = b"".join(buffers)
    except (TypeError, ValueError):
        return original(*args)
    return write_all(write, write, fd, data)


def _sendfile(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    out: Any = args[0] if args else kwargs.get("out_fd")
    set_blocking(out, False)
    try:
        while True:
            try:
                return original(*args, **kwargs)
            except BlockingIOError:
                _core.wait_fd(out, _core.FD_WRITE, None)
    finally:
        set_blocking(out, True)


# --- child processes ----------------------------------------------------------------------------


def _wait_for(kind: int, ident: int, states: int) -> None:
    """Until there is a child to report; it stays to be waited for."""
    if kind == os.P_PID and states == os.WEXITED and _pidfd_open is not None:
        try:
            pidfd = _pidfd_open(ident)
        except OSError:
            pass
        else:
            try:
                _core.wait_fd(pidfd, _core.FD_READ, None)
            finally:
                close(pidfd)
            return
    try:
        blocking(_waitid_now, kind, ident, states | os.WNOWAIT)
    except ChildProcessError:  # the caller will say so
        pass
    except (OSError, RuntimeError):  # no thread and no descriptor is to be had
        _core.sleep(0.01)


def _whom(pid: int) -> tuple[int, int]:
    if pid > 0:
        return os.P_PID, pid
    if pid == -1:
        return os.P_ALL, 0
    return os.P_PGID, -pid or getpgrp()


def _wait_in_turns(pid: int, options: int, ask: Callable[[int], Any]) -> Any:
    states = os.WEXITED
    if options & os.WUNTRACED:
        states |= os.WSTOPPED
    if options & os.WCONTINUED:
        states |= os.WCONTINUED
    while True:
        answer = ask(options | os.WNOHANG)
        if answer[0] != 0:
            return answer
        _wait_for(*_whom(pid), states)


def _waitpid(original: Callable[..., Any], *args: Any) -> Any:
    if not _are_ints(args, 2) or args[1] & os.WNOHANG:
        return original(*args)
    pid, options = args
    return _wait_in_turns(pid, options, lambda options: original(pid, options))


def _wait(original: Callable[..., Any]) -> Any:
    return waitpid(-1, 0)


def _wait3(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if kwargs or not _are_ints(args, 1) or args[0] & os.WNOHANG:
        return original(*args, **kwargs)
    return _wait_in_turns(-1, args[0], original)


def _wait4(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if kwargs or not _are_ints(args, 2) or args[1] & os.WNOHANG:
        return original(*args, **kwargs)
    pid, options = args
    return _wait_in_turns(pid, options, lambda options: original(pid, options))


def _waitid(original: Callable[..., Any], *args: Any) -> Any:
    if not _are_ints(args, 3) or args[2] & os.WNOHANG:
        return original(*args)
    kind, ident, options = args
    while True:
        answer = original(kind, ident, options | os.WNOHANG)
        if answer is not None:
            return answer
        _wait_for(kind, ident, options & (os.WEXITED | os.WSTOPPED | os.WCONTINUED))


def _system(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return blocking(original, *args, **kwargs)


def _are_ints(args: tuple[Any, ...], n: int) -> bool:
    return len(args) == n and all(isinstance(a, int) for a in args)


STAND_INS: Final[dict[str, Callable[..., Any]]] = {
    "posix.write": _write,
    "posix.writev": _writev,
    "posix.sendfile": _sendfile,
    "posix.system": _system,
    "posix.waitpid": _waitpid,
    "posix.waitid": _waitid,
    "posix.wait": _wait,
    "posix.wait3": _wait3,
    "posix.wait4": _wait4,
}
