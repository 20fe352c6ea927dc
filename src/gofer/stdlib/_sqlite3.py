"""What `patch.offload("sqlite3")` does.

A connection belongs to the thread that made it, unless it is told otherwise; and its calls must not
be made at a time: SQLite waits for a lock of the connection while it holds the GIL, which a
function of Python's that it calls needs. So a connection that is made from now on may be used by
any thread, and goroutines use it in turns. One that was made before is left alone.

What must stay true: the turn ends when the call does, also when nobody waits for it any more.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking

__all__ = ["EVERYWHERE", "STAND_INS"]

_classes: Final[dict[type, type]] = {}  # of connections, by their bases


def _with_turns(base: Any) -> Any:
    """A class of connections that goroutines use in turns."""
    if base not in _classes:

        class Connection(base):  # type: ignore[misc]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self._turn = _core.Mutex()
                base.__init__(self, *args, **kwargs)

        Connection.__qualname__ = base.__qualname__
        Connection.__module__ = base.__module__
        _classes[base] = Connection
    return _classes[base]


def _connect(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    names = ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory")
    kwargs.update(zip(names, args[1:6], strict=False))
    factory = kwargs.get("factory", import_module("sqlite3").Connection)
    if isinstance(factory, type):
        kwargs.update(factory=_with_turns(factory), check_same_thread=False)
    args = (*args[:1], *args[6:])
    return blocking(original, *args, **kwargs) if _core.parks() else original(*args, **kwargs)


def _in_turns(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    turn = getattr(getattr(self, "connection", self), "_turn", None)
    if turn is None:
        return original(self, *args, **kwargs)
    turn.lock()
    ending = [turn.unlock]  # who takes it out does it

    def call() -> Any:
        end = ending.pop()
        try:
            return original(self, *args, **kwargs)
        finally:
            end()

    try:
        return blocking(call)
    except BaseException:
        with suppress(IndexError):  # it has begun
            ending.pop()()
        raise


_CONNECTION: Final = (
    "execute executemany executescript commit rollback backup blobopen close __exit__"
)
_CURSOR: Final = "execute executemany executescript fetchone fetchmany fetchall"

STAND_INS: Final[dict[str, Callable[..., Any]]] = {
    "connect": _connect,
    **{f"Connection.{name}": _in_turns for name in _CONNECTION.split()},
    **{f"Cursor.{name}": _in_turns for name in _CURSOR.split()},
}
EVERYWHERE: Final = {_connect}  # in plain threads, too
