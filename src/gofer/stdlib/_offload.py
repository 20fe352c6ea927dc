"""`patch.offload`: functions of libraries that block in C are called on the pool of `blocking`.

A function or method in C is exchanged in place, as those of the standard library are; one in Python
is replaced where it stands, and references that were taken before escape.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from gofer import _core
from gofer.blocking import blocking
from gofer.stdlib._imports import Imports
from gofer.stdlib._known import EVERYWHERE, KNOWN, StandIn, on_pool

__all__ = ["end", "offload", "offloaded"]

_Undo = Callable[[], object]

_imports: Imports | None = None
_done: Final[dict[str, set[str]]] = {}


def offload(module: str, *names: str) -> None:
    """Have functions of a library called on the pool of `blocking` when a goroutine calls them.

        patch.offload("sqlite3")
        patch.offload("fcntl", "flock", "lockf")

    `module` is named as it is imported, now or later, and `names` are its functions, and methods of
    its classes, that block. Without names it is a library that gofer knows the functions of:
    confluent_kafka, grpc, MySQLdb, sqlite3. In plain threads they do what they did. `unpatch()`
    undoes it.

    `ValueError` for a library that is not known or a name that it does not have, `TypeError` for
    one that is neither a function nor a method; of a library that is imported later, it is raised
    by the import.
    """
    global _imports
    library = KNOWN.get(module)
    if not names and library is None:
        raise ValueError(
            f"patch.offload({module!r}): it is not known which of its functions block; name them: "
            f'patch.offload({module!r}, "connect", "Connection.execute")'
        )
    if _imports is None:
        _imports = Imports({})
        _imports.watch()
    known: Mapping[str, StandIn] = library.stand_ins if library else {}
    where = library.module if library and not names else module
    for name in names or known:
        stand_in = known.get(name, on_pool)
        begin = _begin if names else _begin_if_there
        if name not in _done.setdefault(module, set()):
            _imports.add(where, partial(begin, where, name, stand_in))
            _done[module].add(name)


def offloaded() -> list[str]:
    return list(_done)


def end() -> None:
    global _imports
    if _imports is not None:
        _imports.forget()
        _imports = None
    _done.clear()


def _begin_if_there(module: str, name: str, stand_in: StandIn) -> _Undo | None:
    """What is known of a library is known of all its versions."""
    try:
        _find(module, name)
    except AttributeError:
        return None
    return _begin(module, name, stand_in)


def _begin(module: str, name: str, stand_in: StandIn) -> _Undo:
    said = f"patch.offload({module!r}, {name!r})"
    try:
        owner, last, o = _find(module, name)
    except AttributeError:
        raise ValueError(f"{said}: {module} has no {name}") from None
    if isinstance(o, type) or not callable(o):
        raise TypeError(f"{said}: it is neither a function nor a method: {o!r}")
    if _core.patch_function(o, stand_in, stand_in in EVERYWHERE):
        return partial(_core.patch_function_back, o)
    return _replace(said, owner, last, o)


def _find(module: str, name: str) -> tuple[Any, str, Any]:
    """Whose it is, its own name, and what stands there, bound to nothing."""
    owner: Any = sys.modules[module]
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    if not isinstance(owner, type):
        return owner, last, getattr(owner, last)
    for base in owner.__mro__:
        if last in vars(base):
            return owner, last, vars(base)[last]
    raise AttributeError(last)


def _replace(said: str, owner: Any, name: str, function: Any) -> _Undo:
    its_own = name in vars(owner)
    try:
        setattr(owner, name, blocking.wrap(function))
    except TypeError as error:
        raise TypeError(f"{said}: it can not be replaced: {error}") from None
    return partial(setattr, owner, name, function) if its_own else partial(delattr, owner, name)
