"""Files: what of `io.FileIO` takes several steps, the buffered files above it, and `input`.

What stands for methods of `io.FileIO` is called by the core (csrc/patch_fd.c) for what is no file
and blocks. The locks of buffered files are there as well (csrc/patch_file.c).
"""

import io
from collections.abc import Callable, Iterator
from operator import index
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.stdlib._os import write_all

__all__ = ["STAND_INS", "begin", "end"]

# --- io.FileIO ----------------------------------------------------------------------------------

_read_some: Final[Any] = io.FileIO.read  # not a subclass's, which may have called this
_write_some: Final[Any] = io.FileIO.write


def _readall(original: Callable[..., Any], file: Any) -> Any:
    chunks: list[bytes] = []
    while chunk := _read_some(file, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def _read(original: Callable[..., Any], file: Any, *args: Any) -> Any:
    try:
        (size,) = args or (-1,)
        size = -1 if size is None else index(size)
    except (TypeError, ValueError):
        return original(file, *args)
    return _readall(original, file) if size < 0 else _read_some(file, size)


def _write(original: Callable[..., Any], file: Any, data: Any) -> Any:
    return write_all(original, _write_some, file, data)


def _input(original: Callable[..., Any], *args: Any) -> Any:
    return blocking(original, *args)


STAND_INS: Final[dict[str, Callable[..., Any]]] = {
    "_io.FileIO.read": _read,
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
