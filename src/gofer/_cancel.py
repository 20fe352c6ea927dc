"""The tree of what can be cancelled: the inside of contexts.

A `Node` ends at most once: it is cancelled itself, or a node above it is. Its **outcome** says why.

    root <── node <── node        each holds the one above it
         ╌╌>      ╌╌>             and knows those below it weakly

The tree itself is in C (`csrc/branch.c`); here is what follows when a node ends.

What must stay true:
- There is no lock: a node may be cancelled by anybody at any moment, also by a finalizer amidst
  another call. Each step is one operation of a dict, set or list, which is whole on every build.
  What stands in the `__dict__` of a node is put there by `first` and does not change any more.
- Who adds something to a node (a call, a source) has it watched and looks at the outcome
  afterwards; who ends a node sets the outcome and then has it told, if it is watched. One of the
  two sees the other.
- Ending a node may be repeated, by several at a time, and each of them returns when the whole
  subtree has its outcome and was told. So one that was interrupted half-way can be done again.
- A node is held by what ends it or shows it: its cancel function, its context, the nodes below it.
  A call that it will make and a channel that it will close hold it as well, but only while there is
  something that can end it: they stand in the **pins** of the root and of every source (a timer, a
  foreign parent) on the way there.
"""

import weakref
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from gofer._core import Branch, Chan, after_func
from gofer.errors import Canceled, Closed, DeadlineExceeded

__all__ = [
    "Call",
    "Node",
    "Outcome",
    "Pins",
    "SourcedNode",
    "canceled",
    "check_cause",
    "close_once",
    "deadline_exceeded",
    "first",
]

_T = TypeVar("_T")

Outcome: TypeAlias = tuple[Exception, BaseException | None]
"""The error, and the cause if one was given."""

Pins: TypeAlias = dict["Call | _Closing", None]


def first(of: object, name: str, value: _T) -> _T:
    """Set an attribute unless somebody was first; what it is then."""
    kept: _T = of.__dict__.setdefault(name, value)
    return kept


def canceled(cause: BaseException | None = None) -> Outcome:
    """What becomes of a node that is cancelled."""
    return Canceled("context canceled"), cause


def deadline_exceeded(cause: BaseException | None) -> Outcome:
    """What becomes of a node whose time is over."""
    return DeadlineExceeded("context deadline exceeded"), cause


def close_once(ch: Chan[None]) -> None:
    """Close a channel that others may close too."""
    if ch.closed:
        return
    try:
        ch.close()
    except Closed:  # by another just now
        return


# --- nodes --------------------------------------------------------------------------------------


class Node(Branch):
    """Something that can be cancelled; it ends with its parent from the beginning."""

    __slots__ = ("__dict__",)

    _calls: "set[Call | _Closing] | None" = None
    above: "Node | None"
    pins: Pins | None
    outcome: Outcome | None

    def cancel(self) -> None:
        """End this and everything below it. Does not wait.

        When it returns all of them have ended. May be called by anybody, any number of times.
        """
        if not self.ended:
            self.finish(canceled())

    def cancel_cause(self, cause: BaseException | None = None) -> None:
        """As `cancel`; the cause says more than the error does, unless it is None."""
        check_cause("cancel", cause)
        if not self.ended:
            self.finish(canceled(cause))

    def finish(self, outcome: Outcome) -> None:
        """End this and everything below it with that outcome; what has ended keeps its own."""
        if not self.ended:
            self.end(outcome)

    def tell(self) -> None:
        """It has its outcome, and so has everything below it: do what is to be done then."""
        if self._calls is not None:
            for call in self._calls.copy():
                call.fire()

    def call(self, fn: Callable[[], object]) -> "Call":
        """Have whoever ends this node call `fn`, once; at once if it has ended.

        `fn` must not wait and not raise. Everything below the node has its outcome by then, but
        others may not have been told yet.
        """
        call = Call(self, fn)
        self._add(call)
        return call

    def close(self, ch: Chan[None]) -> None:
        """Have `ch` closed when this node ends, if anybody but us refers to it then."""
        closing = _Closing(ch, _drop)
        closing.node = self
        self._add(closing)

    def _add(self, call: "Call | _Closing") -> None:
        holder: Node | None = self
        while holder is not None:
            if holder.pins is not None:
                holder.pins[call] = None
            holder = holder.above
        calls = self._calls
        if calls is None:
            none: set[Call | _Closing] = set()
            calls = first(self, "_calls", none)
        calls.add(call)
        self.watch()
        if self.outcome is not None:
            call.fire()

    def forget(self, call: "Call | _Closing") -> None:
        """It has been made or is not wanted any more."""
        holder: Node | None = self
        while holder is not None:
            if holder.pins is not None:
                holder.pins.pop(call, None)
            holder = holder.above
        if self._calls:
            self._calls.discard(call)


class SourcedNode(Node):
    """A node that is ended from outside of the tree as well: by a timer, or a foreign parent.

    Such a source must hold the pins, and the node itself weakly.
    """

    __slots__ = ("_stops", "_unlinks")

    def __init__(self, _parent: Node | None) -> None:
        self.pins = {}
        self._stops: list[Callable[[], object]] = []
        self._unlinks: list[Callable[[], object]] = []
        self.watch()

    def __del__(self) -> None:  # knows no globals: at the end of the interpreter they are gone
        self.stop_sources()

    def finish_after(self, seconds: float, cause: BaseException | None) -> None:
        """Let it end in so many seconds, with `DeadlineExceeded`."""
        if self.outcome is None:
            timer = after_func(seconds, _expire, weakref.ref(self), self.pins, cause)
            self.add_source(timer.stop)

    def add_source(self, stop: Callable[[], object]) -> None:
        """`stop` is called when the node has ended, or nobody refers to it any more.

        The collector may call it, amidst anything: so it must be one of ours.
        """
        self._stops.append(stop)
        if self.outcome is not None:
            self.stop_sources()

    def add_link(self, unlink: Callable[[], object]) -> None:
        """`unlink` is called when the node has ended by something else than that link."""
        self._unlinks.append(unlink)
        if self.outcome is not None:
            self._call_each(self._unlinks)

    def finish_by_link(self, outcome: Outcome) -> None:
        """The foreign parent has ended, and this with it."""
        self._unlinks.clear()
        self.finish(outcome)

    def tell(self) -> None:
        self.stop_sources()
        super().tell()
        self._call_each(self._unlinks)

    def stop_sources(self) -> None:
        """Stop what would still end it from outside of the tree."""
        self._call_each(self._stops)

    @staticmethod
    def _call_each(fns: list[Callable[[], object]]) -> None:
        """Each of them once, also if several are at it."""
        while True:
            try:
                fn = fns.pop()
            except IndexError:
                return
            fn()


def _expire(node: "weakref.ref[Node]", _pins: Pins | None, cause: BaseException | None) -> None:
    late = node()
    if late is not None:
        late.finish(deadline_exceeded(cause))


def check_cause(what: str, cause: object) -> None:
    """`TypeError` unless it is an exception or None."""
    if cause is not None and not isinstance(cause, BaseException):
        raise TypeError(f"{what}() takes an exception as the cause, or None, not {cause!r}")


# --- what happens when a node ends ----------------------------------------------------------------


class Call:
    """A function to be called when a node ends."""

    __slots__ = ("_fn", "_node")

    def __init__(self, node: Node, fn: Callable[[], object]) -> None:
        self._node = node
        self._fn = [fn]  # who takes it out calls it

    def fire(self) -> None:
        """Call it now, unless that has been done or prevented."""
        fn = self._take()
        if fn is not None:
            fn()

    def stop(self) -> bool:
        """Prevent the call; whether that was in time."""
        return self._take() is not None

    def _take(self) -> Callable[[], object] | None:
        try:
            fn = self._fn.pop()
        except IndexError:
            return None
        self._node.forget(self)
        return fn


class _Closing(weakref.ref[Chan[None]]):
    """A channel to be closed when a node ends. Who waits on it refers to it, so weak is enough."""

    __slots__ = ("node",)

    node: Node

    def fire(self) -> None:
        ch = self()
        if ch is not None:
            close_once(ch)
            self.node.forget(self)


def _drop(closing: _Closing) -> None:
    """The channel is gone. Knows no globals, as `__del__`."""
    closing.node.forget(closing)
