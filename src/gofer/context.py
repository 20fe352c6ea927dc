"""Deadlines, cancellation and values that go along with a call, as Go's package `context`.

    ctx, cancel = with_timeout(background(), 2.5)
    try:
        match select(answers.recv, ctx.done.recv_ok):
            case 0, answer: ...
            case _: raise ctx.err()
    finally:
        cancel()

A context is passed on as the first argument of a function, and to the goroutines that it starts.
Who has one can ask whether the work is still wanted. It is made from another one, its parent:

    background(), todo()                never cancelled
    with_cancel(parent)                 -> (ctx, cancel)
    with_timeout(parent, d)             -> (ctx, cancel), cancelled after `d`
    with_deadline(parent, when)         -> (ctx, cancel), cancelled at `when` of time.monotonic()
    with_value(parent, key, value)      -> ctx
    without_cancel(parent)              -> ctx with the values of its parent only
    after_func(ctx, fn)                 -> stop; calls `fn` when ctx is cancelled
    cause(ctx)                          -> why it was cancelled
    within(ctx)                         a with block whose operations observe ctx

With a context all that were made from it are cancelled. `with_cancel_cause` gives a `cancel` that
takes the reason; `with_timeout_cause` and `with_deadline_cause` are told it beforehand.

Nothing here waits, and goroutines and threads may use all of it at the same time. Call `cancel`
when the work is done: it gives back what the context holds, such as its timer. If nobody does, that
comes with the deadline, or when nothing refers to the context and its `done` any more.

What must stay true: a `_CancelCtx` has a node of its own (`_cancel` tells how nodes end), a
`_NeverCtx` none, and a `_ValueCtx` answers as its base.
"""

import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar
from weakref import ref

from gofer._cancel import (
    Node,
    Outcome,
    Pins,
    SourcedNode,
    canceled,
    check_cause,
    close_once,
    deadline_exceeded,
    first,
)
from gofer._check import refuse_coroutine_function
from gofer._core import Chan, RecvChan, chan_in, closed, go, never, select
from gofer.errors import Canceled, DeadlineExceeded
from gofer.scope import cancel_scope, shield
from gofer.time import Duration, now

__all__ = [
    "CancelCauseFunc",
    "CancelFunc",
    "Canceled",
    "Context",
    "DeadlineExceeded",
    "after_func",
    "background",
    "cause",
    "todo",
    "within",
    "with_cancel",
    "with_cancel_cause",
    "with_deadline",
    "with_deadline_cause",
    "with_timeout",
    "with_timeout_cause",
    "with_value",
    "without_cancel",
]

CancelFunc: TypeAlias = Callable[[], None]
CancelCauseFunc: TypeAlias = Callable[[BaseException | None], None]


class Context(Protocol):
    """What a context can do. Any object that does may be the parent of others.

    If it also has a method `after_func(fn) -> stop`, which has `fn` called once it is cancelled, a
    context made from it uses that; otherwise a goroutine waits for its `done`.
    """

    @property
    def done(self) -> RecvChan[None]:
        """Closed when the context is cancelled, or never; always the same channel."""
        ...

    def err(self) -> Exception | None:
        """None while `done` is open; then always the same `Canceled` or `DeadlineExceeded`."""
        ...

    def deadline(self) -> float | None:
        """When it will be cancelled, on the clock of `gofer.time.now()`; None: that is not set."""
        ...

    def value(self, key: Any, /) -> Any:
        """What the nearest `with_value` above set for `key`, or None."""
        ...


# --- contexts that are never cancelled ----------------------------------------------------------

_NEVER: Final[RecvChan[None]] = never()  # nobody has its sender
_CLOSED: Final[Chan[None]] = closed()


class _NeverCtx:
    """background and todo."""

    __slots__ = ("__weakref__", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def done(self) -> RecvChan[None]:
        return _NEVER

    def err(self) -> Exception | None:
        return None

    def deadline(self) -> float | None:
        return None

    def value(self, key: Any, /) -> Any:
        return _value(self, key)

    def __repr__(self) -> str:
        return _words(self)

    def word(self) -> str:
        return self._name


class _WithoutCancelCtx(_NeverCtx):
    __slots__ = ("parent",)

    def __init__(self, parent: Context) -> None:
        super().__init__("without_cancel")
        self.parent = parent


_BACKGROUND: Final = _NeverCtx("background")
_TODO: Final = _NeverCtx("todo")


def background() -> Context:
    """The root of all contexts: never cancelled, no deadline, no values."""
    return _BACKGROUND


def todo() -> Context:
    """As `background`; says that it is not clear yet which context belongs here."""
    return _TODO


def without_cancel(parent: Context) -> Context:
    """A context with the values of `parent` that is not cancelled with it; it has no deadline."""
    _base("without_cancel", parent)
    return _WithoutCancelCtx(parent)


# --- values -------------------------------------------------------------------------------------


class _ValueCtx:
    __slots__ = ("__weakref__", "base", "kept", "key", "parent")

    def __init__(self, parent: Context, base: Context, key: Any, value: Any) -> None:
        self.parent = parent
        self.base = base
        self.key = key
        self.kept = value

    @property
    def done(self) -> RecvChan[None]:
        return self.base.done

    def err(self) -> Exception | None:
        return self.base.err()

    def deadline(self) -> float | None:
        return self.base.deadline()

    def value(self, key: Any, /) -> Any:
        return _value(self, key)

    def __repr__(self) -> str:
        return _words(self)

    def word(self) -> str:
        return f"with_value({_short(self.key)}, {_short(self.kept)})"


def with_value(parent: Context, key: Any, value: Any) -> Context:
    """A context in which `value(key)` is `value`, and all else is as in `parent`.

    For what belongs to a request and passes through functions that do not know of it; not for
    optional arguments. Keys are compared as in a dict. Make one that nobody else has, an
    `object()` or a class of yours, and functions that set and get the value with it.

    `TypeError` for a key that is None or can not be hashed.
    """
    base = _base("with_value", parent)
    if key is None:
        raise TypeError("with_value() with the key None: pass a key of your own, such as object()")
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(f"with_value() takes a key that can be hashed: {error}") from None
    return _ValueCtx(parent, base, key, value)


_OWNER: Final = object()
"""The key under which a context finds the nearest `_CancelCtx`, through foreign contexts too."""


def _value(ctx: Context, key: Any) -> Any:
    while True:
        if isinstance(ctx, _ValueCtx):
            if key is not _OWNER and (ctx.key is key or ctx.key == key):
                return ctx.kept
            ctx = ctx.parent
        elif isinstance(ctx, _CancelCtx):
            if key is _OWNER:
                return ctx
            ctx = ctx.parent
        elif isinstance(ctx, _WithoutCancelCtx):
            if key is _OWNER:
                return None
            ctx = ctx.parent
        elif isinstance(ctx, _NeverCtx):
            return None
        else:
            return ctx.value(key)


# --- contexts that can be cancelled -------------------------------------------------------------


class _CancelCtx:
    __slots__ = ("__dict__", "__weakref__", "_deadline", "node", "parent")

    _chan: Chan[None] | None = None  # by `first`; made when somebody asks for it
    _done: RecvChan[None] | None = None

    def __init__(self, parent: Context, node: Node, deadline: float | None) -> None:
        self.parent = parent
        self.node = node
        self._deadline = deadline

    @property
    def done(self) -> RecvChan[None]:
        return self._done or self._make_done()

    def err(self) -> Exception | None:
        outcome = self.node.outcome
        if outcome is None:
            return None
        close_once(first(self, "_chan", _CLOSED))  # who sees the error finds `done` closed
        return outcome[0]

    def deadline(self) -> float | None:
        return self._deadline

    def value(self, key: Any, /) -> Any:
        return _value(self, key)

    def __repr__(self) -> str:
        return _words(self)

    def word(self) -> str:
        return "with_cancel"

    def _make_done(self) -> RecvChan[None]:
        if self.node.outcome is None:
            mine: Chan[None] = chan_in(self.node.bubble, 0)
            self.node.close(mine)
        else:
            mine = _CLOSED
            close_once(mine)
        return first(self, "_done", first(self, "_chan", mine).receiver)


class _DeadlineCtx(_CancelCtx):
    __slots__ = ("_given", "when")

    def __init__(self, parent: Context, node: Node, when: float, given: str) -> None:
        super().__init__(parent, node, when)
        self.when = when
        self._given = given

    def word(self) -> str:
        return f"{self._given} [{self.when - now():.3f} s left])"


def with_cancel(parent: Context) -> tuple[Context, CancelFunc]:
    """A context that is cancelled when `cancel()` is called, or with `parent`."""
    ctx = _with_cancel("with_cancel", parent)
    return ctx, ctx.node.cancel


def with_cancel_cause(parent: Context) -> tuple[Context, CancelCauseFunc]:
    """As `with_cancel`, with a `cancel(cause)`: `cause(ctx)` returns that exception then.

    `err()` is `Canceled` all the same. None is no cause.
    """
    ctx = _with_cancel("with_cancel_cause", parent)
    return ctx, ctx.node.cancel_cause


def with_timeout(parent: Context, d: Duration) -> tuple[Context, CancelFunc]:
    """A context that is cancelled `d` seconds (or a timedelta) from now, or before that.

    `err()` is `DeadlineExceeded` then. Nothing is later than the deadline of `parent`.
    """
    return with_timeout_cause(parent, d, None)


def with_timeout_cause(
    parent: Context, d: Duration, cause: BaseException | None
) -> tuple[Context, CancelFunc]:
    """As `with_timeout`; if the time runs out, `cause(ctx)` returns that exception."""
    what = "with_timeout"
    check_cause(what, cause)
    if isinstance(d, timedelta):
        d = d.total_seconds()
    d = _seconds(what, "seconds as a number or a timedelta", d)
    return _with_deadline(what, parent, now() + d, cause, f"with_timeout({d:g}")


def with_deadline(parent: Context, when: float) -> tuple[Context, CancelFunc]:
    """As `with_timeout`, at a time of the clock `gofer.time.now()`, which is `time.monotonic()`.

    Inside a bubble of `gofer.testing` it is the clock of the bubble.
    """
    return with_deadline_cause(parent, when, None)


def with_deadline_cause(
    parent: Context, when: float, cause: BaseException | None
) -> tuple[Context, CancelFunc]:
    """As `with_deadline`; if that time comes, `cause(ctx)` returns that exception."""
    what = "with_deadline"
    check_cause(what, cause)
    when = _seconds(what, "a time of time.monotonic()", when)
    return _with_deadline(what, parent, when, cause, f"with_deadline({when:.3f}")


def _with_cancel(what: str, parent: Context) -> _CancelCtx:
    if isinstance(parent, _CancelCtx):  # as most are: the short way to the same
        return _CancelCtx(parent, Node(parent.node), parent.deadline())
    base = _base(what, parent)
    return _CancelCtx(parent, _child(base, Node), base.deadline())


def _with_deadline(
    what: str, parent: Context, when: float, cause: BaseException | None, word: str
) -> tuple[Context, CancelFunc]:
    base = _base(what, parent)
    earlier = base.deadline()
    if earlier is not None and earlier <= when:
        ctx = _with_cancel(what, parent)
        return ctx, ctx.node.cancel
    node = _child(base, SourcedNode)
    left = when - now()
    if left <= 0:
        node.finish(deadline_exceeded(cause))
    elif left < math.inf:
        node.finish_after(left, cause)
    return _DeadlineCtx(parent, node, when, word), node.cancel


# --- what happens when a context is cancelled -----------------------------------------------------


def after_func(ctx: Context, fn: Callable[[], object]) -> Callable[[], bool]:
    """Call `fn()` in a goroutine of its own once `ctx` is cancelled; at once if it is already.

    Returns `stop`, which prevents that; whether it was in time. It does not wait for `fn` to end.
    What `fn` lets escape is a panic, as with `go`.
    """
    if not callable(fn):
        raise TypeError(f"after_func() of {fn!r}: it can not be called; pass a function")
    refuse_coroutine_function("after_func", fn)
    return _when_done("after_func", ctx, partial(_go_unscoped, fn))


def _go_unscoped(fn: Callable[..., object], /, *args: Any) -> None:
    """A goroutine that is not cancelled with whoever happens to start it."""
    with shield():
        go(fn, *args)


class within:
    """A with block whose operations observe `ctx`, as if it were a `cancel_scope` or `timeout`.

        with within(ctx):
            answer = answers.recv()

    When `ctx` is done, every operation inside that would have to wait raises `Cancelled`, and so do
    those in goroutines that were started inside; the end of the block raises `ctx.err()` instead.
    It can be used once.
    """

    __slots__ = ("_ctx", "_scope", "_stop")

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._scope = cancel_scope()
        self._stop = when_done(ctx, self._scope.cancel)

    def __enter__(self) -> Context:
        self._scope.__enter__()
        return self._ctx

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        self._stop()
        if self._scope.__exit__(kind, error, trace):
            raise self._ctx.err() or Canceled("context canceled") from error
        return False


def when_done(ctx: Context, fn: Callable[[], object]) -> Callable[[], bool]:
    """`after_func` without the goroutine, for gofer itself: whoever cancels `ctx` calls `fn`.

    It must neither wait nor raise. Every context below `ctx` says that it is cancelled by then.
    """
    return _when_done("when_done", ctx, fn)


def _when_done(what: str, ctx: Context, fn: Callable[[], object]) -> Callable[[], bool]:
    base = _base(what, ctx)
    if isinstance(base, _CancelCtx):
        return base.node.call(fn).stop
    node = _child(base, Node)
    call = node.call(fn)

    def stop() -> bool:
        in_time = call.stop()
        if in_time:
            node.cancel()  # so that a foreign parent forgets it
        return in_time

    return stop


def cause(ctx: Context) -> BaseException | None:
    """Why `ctx` was cancelled: the cause that was given, else `ctx.err()`; None while it is not."""
    err = ctx.err()
    if err is None:
        return None
    owner = ctx.value(_OWNER)
    outcome = owner.node.outcome if isinstance(owner, _CancelCtx) else None
    if outcome is None:  # a foreign context has been cancelled, and nothing above it
        return err
    return outcome[0] if outcome[1] is None else outcome[1]


# --- below a parent -------------------------------------------------------------------------------


def _base(what: str, ctx: Context) -> Context:
    """What ends when `ctx` does: a `_CancelCtx`, a `_NeverCtx` or a foreign one.

    `TypeError` for what is no context.
    """
    if isinstance(ctx, (_CancelCtx, _NeverCtx)):
        return ctx
    if isinstance(ctx, _ValueCtx):
        return ctx.base
    for name in ("done", "err", "deadline", "value"):
        if not hasattr(ctx, name):
            raise TypeError(
                f"{what}() takes a context, not {ctx!r}, which has no {name!r}; "
                "if there is no context yet, pass background() or todo()"
            )
    return ctx


_N = TypeVar("_N", bound=Node)


def _child(base: Context, kind: type[_N]) -> _N | SourcedNode:
    """A new node that ends with `base`."""
    if isinstance(base, _CancelCtx):
        return kind(base.node)
    if isinstance(base, _NeverCtx):
        return kind(None)
    done = base.done
    if done == _NEVER:
        return kind(None)
    if select(done.recv_ok, default=True)[0] == 0:
        node = kind(None)
        node.finish(_outcome(base))
        return node
    owner = base.value(_OWNER)
    if isinstance(owner, _CancelCtx) and owner.done == done:  # base only wraps it
        return _child(owner, kind)
    linked = SourcedNode(None)
    _link(linked, base, done)
    return linked


def _link(node: SourcedNode, parent: Context, done: RecvChan[None]) -> None:
    """Have the node end with a foreign parent, without keeping it alive for that."""
    end = partial(_end_with, parent, ref(node), node.pins)
    register: Callable[[Callable[[], object]], Callable[[], object]] | None
    register = getattr(parent, "after_func", None)
    if register is not None:
        node.add_link(register(end))
    else:
        gone: Chan[None] = Chan()
        node.add_source(gone.close)
        _go_unscoped(_watch, done, gone, end)


def _end_with(parent: Context, node: "ref[SourcedNode]", _pins: Pins | None) -> None:
    child = node()
    if child is not None:
        child.finish_by_link(_outcome(parent))


def _outcome(parent: Context) -> Outcome:
    """Of a foreign context, whose `done` is closed."""
    err = parent.err() or canceled()[0]
    why = cause(parent)
    return err, None if why is err else why


def _watch(done: RecvChan[None], gone: Chan[None], end: Callable[[], None]) -> None:
    index, _ = select(done.recv_ok, gone.recv_ok)
    if index == 0:
        end()


# --- arguments ------------------------------------------------------------------------------------


def _seconds(what: str, takes: str, given: Any) -> float:
    try:
        seconds = math.fsum((given,))  # unlike float() it takes no text
    except TypeError:
        kind = type(given).__name__
        raise TypeError(f"{what}() takes {takes}, not {kind}") from None
    if math.isnan(seconds):
        raise ValueError(f"{what}() takes {takes}, not nan")
    return seconds


# --- in words -------------------------------------------------------------------------------------


def _words(ctx: Context) -> str:
    words: list[str] = []
    while isinstance(ctx, (_CancelCtx, _ValueCtx, _WithoutCancelCtx)):
        words.append(ctx.word())
        ctx = ctx.parent
    if isinstance(ctx, _NeverCtx):
        words.append(ctx.word())
    else:
        plain = type(ctx).__repr__ is object.__repr__
        words.append(type(ctx).__qualname__ if plain else repr(ctx))
    return ".".join(reversed(words))


def _short(it: object) -> str:
    """The kind of what could be long, or lead back here."""
    return repr(it) if it is None or isinstance(it, (str, int, float)) else type(it).__qualname__
