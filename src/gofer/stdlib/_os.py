"""Reading and writing descriptors that are no files, and waiting for child processes.

A descriptor that the program has made non-blocking is left alone. One that blocks is waited for,
and then used in a way that it does not block in: a pipe that is ready takes PIPE_BUF bytes.
"""

import os
import select
import stat
from collections.abc import Callable
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.errors import Cancelled

__all__ = ["STAND_INS"]

_CHUNK: Final = select.PIPE_BUF


def _waits(fd: Any) -> bool:
    """Whether reading or writing it may block its thread for long."""
    if not isinstance(fd, int):
        return False
    try:
        mode = os.fstat(fd).st_mode
        waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
        return waits and os.get_blocking(fd)
    except OSError:
        return False


# --- reading and writing ------------------------------------------------------------------------


def _read(original: Callable[..., Any], *args: Any) -> Any:
    if args and _waits(args[0]):
        _core.wait_fd(args[0], _core.FD_READ, None)
    return original(*args)


def _write(original: Callable[..., Any], *args: Any) -> Any:
    if len(args) != 2 or not _waits(args[0]):
        return original(*args)
    fd, data = args
    try:
        rest = memoryview(data).cast("B")
    except (TypeError, ValueError):
        return original(*args)
    written = 0
    while True:
        try:
            _core.wait_fd(fd, _core.FD_WRITE, None)
        except Cancelled:
            if written:
                return written
            raise
        written += original(fd, rest[written : written + _CHUNK])
        if written >= len(rest):
            return written


def _sendfile(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    out: Any = args[0] if args else kwargs.get("out_fd")
    if not _waits(out):
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


# --- io.FileIO ----------------------------------------------------------------------------------


def _file_read(original: Callable[..., Any], file: Any, *args: Any, **kwargs: Any) -> Any:
    if not file.closed and _waits(file.fileno()):
        _core.wait_fd(file.fileno(), _core.FD_READ, None)
    return original(file, *args, **kwargs)


def _file_readall(original: Callable[..., Any], file: Any, *args: Any) -> Any:
    if args or file.closed or not _waits(file.fileno()):
        return original(file, *args)
    chunks: list[bytes] = []
    while chunk := file.read(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def _file_read_some(original: Callable[..., Any], file: Any, *args: Any) -> Any:
    size = args[0] if args else -1
    if size is None or (isinstance(size, int) and size < 0):
        return _file_readall(original, file)
    return _file_read(original, file, *args)


def _input(original: Callable[..., Any], *args: Any) -> Any:
    return blocking(original, *args)


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


def _are_ints(args: tuple[Any, ...], n: int) -> bool:
    return len(args) == n and all(isinstance(a, int) for a in args)


STAND_INS: Final[dict[str, Callable[..., Any]]] = {
    "posix.read": _read,
    "posix.write": _write,
    "posix.sendfile": _sendfile,
    "_io.FileIO.readinto": _file_read,
    "_io.FileIO.read": _file_read_some,
    "_io.FileIO.readall": _file_readall,
    "builtins.input": _input,
    "posix.waitpid": _waitpid,
    "posix.waitid": _waitid,
    "posix.wait": _wait,
    "posix.wait3": _wait3,
    "posix.wait4": _wait4,
}
