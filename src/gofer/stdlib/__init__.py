"""The standard library, cooperative: `patch()`.

What must stay true:
- Behaviour is replaced and not names. Almost all of it are C functions, exchanged in place by the
  core (csrc/patch.h); where none can be, a method of the Python class above it (`_above`).
- In a thread that runs no goroutines everything does what it did before.
- A part is patched as a whole or not at all.
"""

from collections.abc import Iterable
from typing import Final

from gofer import _core
from gofer.stdlib import _os, _select, _socket, _threading
from gofer.stdlib._above import Above

__all__ = ["patch", "patched", "unpatch"]

_PARTS: Final = ("time", "threading", "queue", "socket", "select", "os")
_ABOVE: Final[dict[str, tuple[Above, ...]]] = {"threading": _threading.ABOVE}

_patched: set[str] = set()

for _stand_ins in (_os.STAND_INS, _select.STAND_INS, _socket.STAND_INS, _threading.STAND_INS):
    for _name, _stand_in in _stand_ins.items():
        _core.patch_leaf(_name, _stand_in)


def patch(*, only: Iterable[str] | None = None, exclude: Iterable[str] = ()) -> None:
    """Make the standard library cooperative: what blocks a thread parks the goroutine instead.

    Behaviour is replaced, not names: every reference that was ever taken, `from time import sleep`
    too, and every lock and queue that exists already is cooperative from then on. Plain threads see
    no difference, and may share all of it with goroutines. May be called at any time, from anywhere,
    and again.

    `only` names the parts to patch, by default all, and `exclude` those to leave alone: `patched()`
    lists those there are. `ValueError` for a name that is none.
    """
    wanted = _names("only", _PARTS if only is None else only) - _names("exclude", exclude)
    for part in _PARTS:
        if part in wanted and part not in _patched:
            _core.patch_part(part, True)
            for method in _ABOVE.get(part, ()):
                method.put()
            if part == "threading":
                _core.patch_locals(True)
            _patched.add(part)


def unpatch() -> None:
    """Undo `patch()`.

    `RuntimeError` while goroutines wait in something that is patched. A lock that remembers who
    holds it (`threading.RLock`) should be free: it would not know its goroutine again.
    """
    if _core.patch_waits():
        raise RuntimeError(
            "unpatch() while goroutines wait in what is patched: nobody would wake them any more; "
            "let them end first"
        )
    for part in reversed(_PARTS):
        if part in _patched:
            _core.patch_part(part, False)
            for method in _ABOVE.get(part, ()):
                method.take_away()
            if part == "threading":
                _core.patch_locals(False)
            if part == "socket":
                _socket.restore()
            _patched.discard(part)


def patched() -> dict[str, bool]:
    """The parts that `patch()` knows, and whether each is patched now."""
    return {part: part in _patched for part in _PARTS}


def _names(what: str, names: Iterable[str]) -> set[str]:
    if isinstance(names, str):
        raise TypeError(f"patch({what}={names!r}): it takes several names; write {what}=[{names!r}]")
    chosen = set(names)
    for name in sorted(chosen - set(_PARTS)):
        raise ValueError(f"patch({what}=...): {name!r} is no part; there are {', '.join(_PARTS)}")
    return chosen
