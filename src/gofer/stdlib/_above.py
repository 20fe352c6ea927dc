"""Where no C function can be exchanged: an attribute of the Python class or module above it."""

from collections.abc import Callable
from typing import Any

__all__ = ["Above", "put_all"]


class Above:
    """One attribute, what stands for it while it is patched, and what was there."""

    def __init__(self, owner: Any, name: str, stand_in: Any) -> None:
        self._owner = owner
        self._name = name
        self._stand_in = stand_in
        self._before: Any = None

    @property
    def before(self) -> Any:
        """What it was; called where all is to be as before."""
        return self._before

    def put(self) -> None:
        self._before = vars(self._owner)[self._name]
        setattr(self._owner, self._name, self._stand_in)

    def take_away(self) -> None:
        setattr(self._owner, self._name, self._before)


def put_all(*aboves: Above) -> Callable[[], None]:
    """What undoes it."""
    for above in aboves:
        above.put()

    def take_all_away() -> None:
        for above in aboves:
            above.take_away()

    return take_all_away
