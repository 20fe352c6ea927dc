"""Time-outs."""

from gofer import _core

__all__ = ["Limit"]


class Limit:
    """What is left of a time-out in seconds; None: no end."""

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else _core.now() + seconds

    @property
    def left(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - _core.now())
