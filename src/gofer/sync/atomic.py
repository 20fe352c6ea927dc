"""Values that are changed in one step, seen whole by every goroutine and thread.

What must stay true: everything that writes holds the guard, so a change that depends on the value
it replaces is not mixed with another. Reading needs none: a slot is read in one step. Nothing here
waits for more than another change, and nothing is interrupted by a cancellation.
"""

from operator import index
from typing import Generic, TypeVar

from gofer._guard import Guard

__all__ = ["Int", "Ref"]

_T = TypeVar("_T")


class Int:
    """An integer of any size. `TypeError` for what is no integer."""

    __slots__ = ("__weakref__", "_guard", "_value")

    def __init__(self, value: int = 0) -> None:
        self._value = index(value)
        self._guard = Guard()

    def load(self) -> int:
        """The value now."""
        return self._value

    def store(self, value: int) -> None:
        """Set the value."""
        value = index(value)
        with self._guard:
            self._value = value

    def add(self, n: int) -> int:
        """Add `n`, which may be negative; return the new value."""
        n = index(n)
        with self._guard:
            self._value = value = self._value + n
        return value

    def swap(self, value: int) -> int:
        """Set the value; return the one it replaces."""
        value = index(value)
        with self._guard:
            old, self._value = self._value, value
        return old

    def compare_and_swap(self, old: int, new: int) -> bool:
        """Set the value to `new` if it is `old`; whether it was."""
        new = index(new)
        with self._guard:
            if self._value != old:
                return False
            self._value = new
        return True

    def __repr__(self) -> str:
        return f"atomic.Int({self._value})"


class Ref(Generic[_T]):
    """A reference to any object. Compares by identity: `is`, not `==`."""

    __slots__ = ("__weakref__", "_guard", "_value")

    def __init__(self, value: _T) -> None:
        self._value = value
        self._guard = Guard()

    def load(self) -> _T:
        """The object referred to now."""
        return self._value

    def store(self, value: _T) -> None:
        """Refer to `value`."""
        self.swap(value)

    def swap(self, value: _T) -> _T:
        """Refer to `value`; return the object referred to before."""
        with self._guard:
            old, self._value = self._value, value
        return old

    def compare_and_swap(self, old: _T, new: _T) -> bool:
        """Refer to `new` if it refers to the very object `old`; whether it did."""
        with self._guard:
            replaced = self._value
            if replaced is not old:
                return False
            self._value = new
        return True

    def __repr__(self) -> str:
        return f"atomic.Ref({self._value!r})"
