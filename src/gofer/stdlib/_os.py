"""Reading and writing descriptors that are no files, and waiting for child processes.

A descriptor that the program has made non-blocking is left alone. One that blocks is waited for,
and then used in a way that it does not block in.
"""

import fcntl
import os
import select
import stat
from collections.abc import Callable
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.errors import Cancelled

__all__ = [
    "CHUNK",
    "STAND_INS",
    "has_room",
    "may_wait_to_read",
    "may_wait_to_write",
    "write_all",
]

CHUNK: Final = select.PIPE_BUF  # a pipe that is ready takes so many bytes


def may_wait_to_read(fd: Any) -> bool:
    """Whether reading it may block its thread for long."""
    return _waits(fd, os.O_WRONLY)


def may_wait_to_write(fd: Any) -> bool:
    return _waits(fd, os.O_RDONLY)


def _waits(fd: Any, useless: int) -> bool:
    """It is no file, it blocks, and it was not opened for the other only, which is an error."""
    if not isinstance(fd, int):
        return False
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
            return False
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        return False
    return not flags & os.O_NONBLOCK and flags & os.O_ACCMODE != useless


# --- reading and writing ------------------------------------------------------------------------


def _read(original: Callable[..., Any], *args: Any) -> Any:
    if args and may_wait_to_read(args[0]):
        _core.wait_fd(args[0], _core.FD_READ, None)
    return original(*args)


def _write(original: Callable[..., Any], *args: Any) -> Any:
    if len(args) != 2 or not may_wait_to_write(args[0]):
        return original(*args)
    return write_all(original, args[0], *args)


def has_room(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def write_all(original: Callable[..., Any], fd: int, to: Any, data: Any) -> Any:
    """`original(to, data)`, in pieces, each when there is room for it."""
    try:
        rest = memoryview(data).cast("B")
    except (TypeError, ValueError):
        return original(to, data)
    written = 0
    while True:
        try:
            if not has_room(fd):
                _core.wait_fd(fd, _core.FD_WRITE, None)
        except Cancelled:
            if written:
                return written
            raise
        written += original(to, rest[written : written + CHUNK])
        if written >= len(rest):
            return written


def _writev(original: Callable[..., Any], *args: Any) -> Any:
    if len(args) != 2 or not may_wait_to_write(args[0]):
        return original(*args)
    fd, buffers = args
    try:
        data = b"".join(buffers)
    except TypeError:
        return original(fd, buffers)

    def write(fd: int, piece: memoryview) -> Any:
        return original(fd, [piece])

    return write_all(write, fd, fd, data)


def _sendfile(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    out: Any = args[0] if args else kwargs.get("out_fd")
    if not may_wait_to_write(out):
        return original(*args, **kwargs)
    os.set_blocking(out, False)
    try:
        while True:
            try:
                return original(*args, **kwargs)
            except BlockingIOError:
                _core.wait_fd(out, _core.FD_WRITE, None)
    finally:
        os.set_blocking(out, True)


# --- child processes ----------------------------------------------------------------------------


def _wait_for(kind: int, ident: int, states: int) -> None:
    """Until there is a child to report; it stays to be waited for."""
    if kind == os.P_PID and states == os.WEXITED and hasattr(os, "pidfd_open"):
        try:
            pidfd = os.pidfd_open(ident)
        except OSError:
            pass
        else:
            try:
                _core.wait_fd(pidfd, _core.FD_READ, None)
            finally:
                os.close(pidfd)
            return
    try:
        blocking(_waitid_in_thread, kind, ident, states | os.WNOWAIT)
    except ChildProcessError:  # the caller will say so
        pass
    except (OSError, RuntimeError):  # no thread and no descriptor is to be had
        _core.sleep(0.01)


def _waitid_in_thread(kind: int, ident: int, options: int) -> Any:
    return os.waitid(kind, ident, options)


def _whom(pid: int) -> tuple[int, int]:
    if pid > 0:
        return os.P_PID, pid
    if pid == -1:
        return os.P_ALL, 0
    return os.P_PGID, -pid or os.getpgrp()


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
    return os.waitpid(-1, 0)


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
    "posix.read": _read,
    "posix.write": _write,
    "posix.readv": _read,
    "posix.writev": _writev,
    "posix.sendfile": _sendfile,
    "posix.system": _system,
    "posix.waitpid": _waitpid,
    "posix.waitid": _waitid,
    "posix.wait": _wait,
    "posix.wait3": _wait3,
    "posix.wait4": _wait4,
}
