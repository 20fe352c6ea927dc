"""What `patch.offload("sqlite3")` does.

A connection belongs to the thread that made it, unless it is told otherwise; and its calls must not
be made at a time: SQLite waits for a lock of the connection while it holds the GIL, which a
function of Python's that it calls needs. So a connection that is made from now on may be used by
any thread, and goroutines use it in turns. One that was made before is left alone.
"""

import sys
from collections.abc import Callable
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.stdlib._turns import Turn, in_turns

__all__ = ["EVERYWHERE", "STAND_INS"]


def _sqlite3() -> Any:
    return sys.modules["sqlite3"]


_classes: Final[dict[type, type]] = {}  # of connections and cursors, by their bases


def _with_turns(base: Any) -> Any:
    """A class of connections that goroutines use in turns."""
    if base in _classes:
        return _classes[base]

    class Connection(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._turn = Turn()
            base.__init__(self, *args, **kwargs)

        def cursor(self, *factories: Any, **named: Any) -> Any:
            (factory,) = factories or named.values() or (_sqlite3().Cursor,)
            is_class = isinstance(factory, type)
            return base.cursor(self, _iterating_in_turns(factory) if is_class else factory)

        # As documented; in C they make a cursor of another class.
        def execute(self, *args: Any) -> Any:
            return self.cursor().execute(*args)

        def executemany(self, *args: Any) -> Any:
            return self.cursor().executemany(*args)

        def executescript(self, *args: Any) -> Any:
            return self.cursor().executescript(*args)

    _classes[base] = _named_as(base, Connection)
    return _classes[base]


def _iterating_in_turns(base: Any) -> Any:
    """Its rows come without a thread: that is quick, if not always."""
    if base in _classes:
        return _classes[base]

    class Cursor(base):  # type: ignore[misc]
        def __next__(self) -> Any:
            turn = _turn_of(self)
            if turn is None or not _core.parks() or turn.is_mine():
                return base.__next__(self)
            with turn:
                return base.__next__(self)

    _classes[base] = _named_as(base, Cursor)
    return _classes[base]


def _named_as(base: type, derived: type) -> type:
    derived.__name__, derived.__qualname__ = base.__name__, base.__qualname__
    derived.__module__ = base.__module__
    return derived


def _turn_of(connection_or_cursor: Any) -> Turn | None:
    """None: it was made before."""
    return getattr(getattr(connection_or_cursor, "connection", connection_or_cursor), "_turn", None)


def _connect(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    names = ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory")
    kwargs.update(zip(names, args[1:6], strict=False))
    factory = kwargs.get("factory", _sqlite3().Connection)
    if isinstance(factory, type):
        kwargs.update(factory=_with_turns(factory), check_same_thread=False)
    args = (*args[:1], *args[6:])
    return blocking(original, *args, **kwargs) if _core.parks() else original(*args, **kwargs)


_in_turns: Final = in_turns(_turn_of)

# All that SQLite may wait in, on any version.
_CONNECTION: Final = (
    "execute executemany executescript commit rollback backup blobopen close __exit__ "
    "create_function create_aggregate create_window_function create_collation set_authorizer "
    "set_progress_handler set_trace_callback load_extension serialize deserialize"
)
_CURSOR: Final = "execute executemany executescript fetchone fetchmany fetchall"

STAND_INS: Final[dict[str, Callable[..., Any]]] = {
    "connect": _connect,
    **{f"Connection.{name}": _in_turns for name in _CONNECTION.split()},
    **{f"Cursor.{name}": _in_turns for name in _CURSOR.split()},
}
EVERYWHERE: Final = {_connect}  # in plain threads, too
