"""The standard library, cooperative: `patch()`.

What must stay true:
- Behaviour is replaced and not names. Almost all of it are C functions, exchanged in place by the
  core (csrc/patch.h); where none can be, an attribute of the Python class above it (`_above`).
  Methods of `queue.Queue` are led to C, for speed alone.
- In a thread that runs no goroutines everything does what it did before.
- A part is patched as a whole or not at all.

The module of a part, `gofer.stdlib._part`, is imported when it is patched: with it comes what it
is about. It has STAND_INS, functions that are called in place of C functions, and, where it needs
them, ABOVE, `begin()` and `end()`.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from gofer import _core
from gofer.stdlib import _offload

__all__ = ["patch", "patched", "unpatch"]

_PARTS: Final = (
    "time",
    "threading",
    "queue",
    "socket",
    "ssl",
    "select",
    "os",
    "io",
    "signal",
    "multiprocessing",
    "asyncio",
    "libraries",
)
_IN_C: Final = frozenset({"time", "multiprocessing"})  # nothing of these is in Python

_patched: dict[str, Any] = {}  # the module of each part that is; None: it has none


class _Patch:
    """The function `patch`, with what goes with it."""

    __slots__ = ()

    def __call__(self, *, only: Iterable[str] | None = None, exclude: Iterable[str] = ()) -> None:
        """Make the standard library cooperative: what blocks a thread parks the goroutine instead.

        Behaviour is replaced, not names: every reference that was ever taken, `from time import
        sleep` too, and every lock, queue and socket that exists already is cooperative from then
        on. Plain threads see no difference, and may share all of it with goroutines. May be called
        at any time, from anywhere, and again. It does not wait.

        `only` names the parts to patch, by default all, and `exclude` those to leave alone:
        `patched()` lists those there are. `ValueError` for a name that is none.
        """
        wanted = _names("only", _PARTS if only is None else only) - _names("exclude", exclude)
        for part in _PARTS:
            if part in wanted and part not in _patched:
                _begin(part)

    offload = staticmethod(_offload.offload)


patch: Final = _Patch()


def unpatch() -> None:
    """Undo `patch()` and `patch.offload()`.

    `RuntimeError` while goroutines wait in something that is patched. A lock that remembers who
    holds it (`threading.RLock`) should be free: it would not know its goroutine again.
    """
    if _core.patch_waits():
        raise RuntimeError(
            "unpatch() while goroutines wait in what is patched: nobody would wake them any more; "
            "let them end first"
        )
    _offload.end()
    for part in reversed(_PARTS):
        if part in _patched:
            _end(part)


def patched() -> dict[str, bool]:
    """The parts that `patch()` knows, and whether each is patched now; and what is offloaded."""
    parts = {part: part in _patched for part in _PARTS}
    return parts | dict.fromkeys(_offload.offloaded(), True)


def _begin(part: str) -> None:
    module: Any = None if part in _IN_C else import_module(f"gofer.stdlib._{part}")
    for name, stand_in in getattr(module, "STAND_INS", {}).items():
        _core.patch_leaf(name, stand_in)
    getattr(module, "begin", _nothing)()
    _core.patch_part(part, True)
    for above in getattr(module, "ABOVE", ()):
        above.put()
    _patched[part] = module


def _end(part: str) -> None:
    module = _patched[part]
    _core.patch_part(part, False)
    for above in getattr(module, "ABOVE", ()):
        above.take_away()
    getattr(module, "end", _nothing)()
    del _patched[part]


def _nothing() -> None:
    pass


def _names(what: str, names: Iterable[str]) -> set[str]:
    if isinstance(names, str):
        raise TypeError(
            f"patch({what}={names!r}): it takes several names; write {what}=[{names!r}]"
        )
    chosen = set(names)
    for name in sorted(chosen - set(_PARTS)):
        raise ValueError(f"patch({what}=...): {name!r} is no part; there are {', '.join(_PARTS)}")
    return chosen
