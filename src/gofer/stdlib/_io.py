"""Files: `io.FileIO` on pipes, sockets and terminals, the buffered files above it, and `input`.

What stands for the methods of `io.FileIO` is called for what is no file and blocks, see `_os`. The
locks of buffered files are in the core (csrc/patch_file.c).
"""

import io
from collections.abc import Callable, Iterator
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.stdlib._os import CHUNK, has_room, write_all

__all__ = ["STAND_INS", "begin", "end"]

# --- io.FileIO ----------------------------------------------------------------------------------


_fd: Final = io.FileIO.fileno  # also of a subclass that says another


def _read(original: Callable[..., Any], file: Any, *args: Any, **kwargs: Any) -> Any:
    _core.wait_fd(_fd(file), _core.FD_READ, None)
    return original(file, *args, **kwargs)


def _readall(original: Callable[..., Any], file: Any, *args: Any) -> Any:
    if args:
        return original(file, *args)
    chunks: list[bytes] = []
    while chunk := file.read(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def _read_some(original: Callable[..., Any], file: Any, *args: Any) -> Any:
    size = args[0] if args else -1
    if size is None or (isinstance(size, int) and size < 0):
        return _readall(original, file)
    return _read(original, file, *args)


def _write(original: Callable[..., Any], file: Any, *args: Any) -> Any:
    if len(args) != 1 or file.isatty() or (_is_short(args[0]) and has_room(_fd(file))):
        return original(file, *args)
    return write_all(original, _fd(file), file, *args)


def _is_short(data: Any) -> bool:
    try:
        return memoryview(data).nbytes <= CHUNK
    except TypeError:
        return True


def _input(original: Callable[..., Any], *args: Any) -> Any:
    return blocking(original, *args)


STAND_INS: Final[dict[str, Callable[..., Any]]] = {
    "_io.FileIO.readinto": _read,
    "_io.FileIO.read": _read_some,
    "_io.FileIO.readall": _readall,
    "_io.FileIO.write": _write,
    "builtins.input": _input,
}

# --- buffered files -----------------------------------------------------------------------------


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    subclasses: list[type] = kind.__subclasses__()
    for derived in subclasses:
        yield from _with_subclasses(derived)


def _exchange_iteration(on: bool) -> None:
    for kind in (io.BufferedReader, io.BufferedRandom):
        for derived in _with_subclasses(kind):
            _core.patch_lines(derived, on)


def begin() -> None:
    _exchange_iteration(True)


def end() -> None:
    _exchange_iteration(False)
