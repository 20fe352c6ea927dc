"""Libraries that are not Python's own: psycopg2, psycopg, and those that bring what it takes.

A library can have something done when it is used under `patch()`, by an entry point of the group
`gofer.patch`: its name is that of the module, and what it refers to is called without arguments
when that has been imported. It may return a function that undoes it.
"""

import select
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.errors import Cancelled
from gofer.scope import shield, timeout
from gofer.stdlib._above import Above
from gofer.stdlib._imports import Begin, Imports

__all__ = ["begin", "end"]

_GROUP: Final = "gofer.patch"


# --- psycopg2: it has a callback for the waiting ------------------------------------------------


def _wait_for(fd: int, events: int) -> None:
    if _core.parks():
        _core.wait_fd(fd, events, None)
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN if events == _core.FD_READ else select.POLLOUT)
    poll.poll()


def _wait_psycopg2(connection: Any) -> None:
    events = {1: _core.FD_READ, 2: _core.FD_WRITE}  # POLL_READ, POLL_WRITE
    while (state := connection.poll()) != 0:  # POLL_OK
        try:
            _wait_for(connection.fileno(), events[state])
        except Cancelled:  # it closes the connection then; the server would go on
            with shield(), suppress(Exception):
                blocking(connection.cancel)
            raise


def _begin_psycopg2() -> Callable[[], object] | None:
    library: Any = sys.modules["psycopg2._psycopg"]
    if library.get_wait_callback() is not None:  # the program has one of its own
        return None
    library.set_wait_callback(_wait_psycopg2)
    return lambda: library.set_wait_callback(None)


# --- psycopg (3): it waits in C if it can -------------------------------------------------------

_ACTIVE: Final = 1  # psycopg.pq.TransactionStatus: a query is under way
_PATIENCE: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds; then the connection is closed


def _begin_psycopg_waiting() -> Callable[[], object]:
    library: Any = sys.modules["psycopg.waiting"]
    above = Above(library, "wait", getattr(library, "wait_poll", library.wait_selector))
    above.put()
    return above.take_away


def _stop_query(connection: Any, go_on: Callable[[], object]) -> None:
    """As for Ctrl-C: have the server stop it, so that the connection can be used again.

    It takes no notice if it has not begun with the query yet.
    """
    cancel = getattr(connection, "cancel_safe", blocking.wrap(connection.cancel))
    for seconds in _PATIENCE:
        try:
            cancel()
            with timeout(seconds):
                go_on()
        except TimeoutError:
            continue
        except Exception:  # that it was stopped
            pass
        break
    if connection.pgconn.transaction_status == _ACTIVE:
        connection.close()


def _begin_psycopg_connection() -> Callable[[], object]:
    def wait(self: Any, generator: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return above.before(self, generator, *args, **kwargs)
        except Cancelled:
            if self.pgconn.transaction_status == _ACTIVE:
                with shield():
                    _stop_query(self, lambda: above.before(self, generator))
            raise

    above = Above(sys.modules["psycopg.connection"].Connection, "wait", wait)
    above.put()
    return above.take_away


# --- those that bring what it takes ---------------------------------------------------------------


class _Libraries(Imports):
    """Looks for entry points, which takes time, when the first library is imported."""

    def __init__(self) -> None:
        super().__init__(
            {
                "psycopg2._psycopg": _begin_psycopg2,
                "psycopg.waiting": _begin_psycopg_waiting,
                "psycopg.connection": _begin_psycopg_connection,
            }
        )
        self._has_looked = False

    def watch(self) -> None:
        super().watch()
        if any(_is_library(name) for name in list(sys.modules)):
            self._look()

    def forget(self) -> None:
        super().forget()
        self._has_looked = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not self._has_looked and _is_library(name):
            self._look()
        return super().find_spec(name, path, target)

    def _look(self) -> None:
        self._has_looked = True
        for entry in import_module("importlib.metadata").entry_points(group=_GROUP):
            self.add(entry.name, _begin_of(entry))


def _is_library(name: str) -> bool:
    return name.partition(".")[0] not in _OURS


_OURS: Final = sys.stdlib_module_names | {"__main__", "gofer"}


def _begin_of(entry: Any) -> Begin:
    def begin() -> Callable[[], object] | None:
        undo: Callable[[], object] | None = entry.load()()
        return undo if callable(undo) else None

    return begin


_LIBRARIES: Final = _Libraries()


def begin() -> None:
    _LIBRARIES.watch()


def end() -> None:
    _LIBRARIES.forget()
