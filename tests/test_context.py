"""gofer.context: what Go's tests of its package ask for, and what Go leaves to the collector.

Where something must not happen, the test shows that it could not any more: the timer is no longer
armed, or what would do it is gone.
"""

import functools
import gc
import math
import threading
import time
import weakref
from datetime import timedelta
from decimal import Decimal

import pytest

from gofer import (
    Chan,
    Closed,
    WaitGroup,
    _cancel,
    cancel_scope,
    context,
    current,
    fork,
    go,
    gosched,
    runtime,
    select,
    sleep,
)
from gofer.context import (
    Canceled,
    DeadlineExceeded,
    after_func,
    background,
    cause,
    todo,
    when_done,
    with_cancel,
    with_cancel_cause,
    with_deadline,
    with_deadline_cause,
    with_timeout,
    with_timeout_cause,
    with_value,
    without_cancel,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

LONG = 10_000  # what is not meant to happen while the tests run
SHORT = 0.002
ROUNDING = 1e-6  # of seconds as a float


def is_done(ctx):
    """Whether a receive on its `done` returns at once."""
    return select(ctx.done.recv_ok, default=True) == (0, (None, False))


def assert_cancelled(ctx, error=Canceled):
    assert is_done(ctx)
    assert type(ctx.err()) is error


def assert_going_on(ctx):
    assert not is_done(ctx)
    assert ctx.err() is None
    assert cause(ctx) is None


def in_thread(fn, *args):
    """Calls fn(*args) in a thread that is no worker; returns when it has ended."""
    thread = threading.Thread(target=fn, args=args)
    thread.start()
    thread.join()


class Wrapper:
    """A foreign context that passes everything on to another one."""

    def __init__(self, inner):
        self.inner = inner

    @property
    def done(self):
        return self.inner.done

    def err(self):
        return self.inner.err()

    def deadline(self):
        return self.inner.deadline()

    def value(self, key):
        return self.inner.value(key)


class OwnDone(Wrapper):
    """A foreign context that has a `done` of its own, to be closed by its `cancel`."""

    def __init__(self, inner):
        super().__init__(inner)
        self.chan = Chan()
        self.error = None

    @property
    def done(self):
        return self.chan.receiver

    def err(self):
        return self.error

    def cancel(self, error=None):
        self.error = error or Canceled("by its own")
        self.chan.close()


class WithAfterFunc(OwnDone):
    """A foreign context that calls back. As in Go it does so under its lock."""

    def __init__(self, inner):
        super().__init__(inner)
        self.functions = []
        self.lock = threading.Lock()

    def after_func(self, fn):
        with self.lock:
            self.functions.append(fn)

        def stop():
            with self.lock:
                if fn not in self.functions:
                    return False
                self.functions.remove(fn)
                return True

        return stop

    def cancel(self, error=None):
        super().cancel(error)
        with self.lock:
            for fn in self.functions:
                fn()
            self.functions.clear()


# --- the roots ----------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [background, todo])
def test_the_roots_are_never_cancelled(root):
    ctx = root()
    assert ctx is root()
    assert repr(ctx) == root.__name__
    assert_going_on(ctx)
    assert ctx.deadline() is None
    assert ctx.value("key") is None
    assert ctx.done == background().done


def test_waiting_for_the_background_is_a_deadlock(program):
    outcome = program(
        """
        from gofer.context import background
        background().done.recv()
        """
    )
    assert outcome.status == 2
    assert "all goroutines are asleep" in outcome.err


# --- cancelling ---------------------------------------------------------------------------------


def test_cancel_is_seen_at_once_by_all_below():
    ctx, cancel = with_cancel(background())
    wrapped = Wrapper(ctx)
    below, _ = with_cancel(wrapped)
    valued = with_value(below, "key", "value")
    timed, _ = with_timeout(valued, LONG)
    contexts = [ctx, wrapped, below, valued, timed]
    for each in contexts:
        assert_going_on(each)
    cancel()
    for each in contexts:
        assert_cancelled(each)
        assert each.err() is each.err()
        assert cause(each) is each.err()
    assert str(ctx.err()) == "context canceled"


def test_done_is_always_the_same_channel():
    ctx, cancel = with_cancel(background())
    before = ctx.done
    assert ctx.done is before
    assert with_value(ctx, "key", 1).done is before
    cancel()
    assert ctx.done is before
    cancelled, cancel = with_cancel(background())
    cancel()
    assert cancelled.done is cancelled.done


def test_cancel_wakes_all_that_wait(parked):
    ctx, cancel = with_cancel(background())
    waiting = [fork(ctx.done.recv_ok) for _ in range(10)]
    parked(*waiting)
    cancel()
    assert [task.join() for task in waiting] == [(None, False)] * 10


def test_a_thread_can_wait_and_cancel(until):
    ctx, cancel = with_cancel(background())
    seen = []
    thread = threading.Thread(target=lambda: seen.append((ctx.done.recv_ok(), ctx.err())))
    thread.start()
    in_thread(cancel)
    until(lambda: not thread.is_alive())
    thread.join()
    assert seen == [((None, False), ctx.err())]


def test_cancel_may_be_repeated():
    ctx, cancel = with_cancel(background())
    cancel()
    error = ctx.err()
    cancel()
    assert ctx.err() is error


def test_a_child_that_is_cancelled_leaves_its_parent_alone():
    parent, cancel_parent = with_cancel(background())
    child, cancel = with_cancel(parent)
    sibling, _ = with_cancel(parent)
    cancel()
    assert_cancelled(child)
    assert_going_on(parent)
    assert_going_on(sibling)
    cancel_parent()
    assert_cancelled(sibling)


@pytest.mark.parametrize("derive", [with_cancel, lambda parent: with_timeout(parent, LONG)])
def test_below_a_cancelled_parent(derive):
    why = ValueError("why")
    parent, cancel = with_cancel_cause(background())
    cancel(why)
    for above in [parent, with_value(parent, "key", 1), Wrapper(parent)]:
        child, _ = derive(above)
        assert_cancelled(child)
        assert child.err() is parent.err()
        assert cause(child) is why


def test_what_was_cancelled_before_its_parent_keeps_its_reason():
    first, second = ValueError("first"), ValueError("second")
    parent, cancel_parent = with_cancel_cause(background())
    child, cancel = with_cancel_cause(parent)
    grandchild, _ = with_cancel(child)
    cancel(first)
    cancel_parent(second)
    assert [cause(ctx) for ctx in (parent, child, grandchild)] == [second, first, first]


def test_a_tree_of_ten_thousand_is_cancelled():
    root, cancel = with_cancel(background())
    contexts = [root]
    for n in range(10_000):
        child, _ = with_cancel(contexts[n // 10])
        contexts.append(child)
    done = [ctx.done for ctx in contexts]
    cancel()
    assert all(ctx.err() is root.err() for ctx in contexts)
    assert all(ch.closed for ch in done)


@pytest.mark.parametrize("derive", ["with_cancel", "with_timeout", "with_value", "without_cancel"])
def test_a_chain_may_be_deep(derive):
    """Neither the C stack nor Python's limit has a say."""
    root, cancel = with_cancel(with_value(background(), "key", "value"))
    ctx = root
    for n in range(100_000):
        if derive == "with_cancel":
            ctx = with_cancel(ctx)[0]
        elif derive == "with_timeout":
            ctx = with_timeout(ctx, 2 * LONG - n / 100)[0]  # each has a timer: it is the soonest
        elif derive == "with_value":
            ctx = with_value(ctx, n, n)
        else:
            ctx = without_cancel(ctx)
    assert ctx.value("key") == "value"
    assert repr(ctx).startswith("background.with_value('key', 'value').with_cancel.")
    calls = []
    stop = when_done(ctx, functools.partial(calls.append, "called"))
    ctx.deadline()
    done = ctx.done
    cancel()
    assert is_done(ctx) is done.closed is (derive != "without_cancel")
    assert len(calls) == (derive != "without_cancel")
    assert stop() is (derive == "without_cancel")
    leaf = weakref.ref(ctx)
    del ctx, root, cancel, stop
    assert_gone([leaf])


# --- causes -------------------------------------------------------------------------------------


def test_a_cause():
    why = ValueError("why")
    ctx, cancel = with_cancel_cause(background())
    child, _ = with_timeout(ctx, LONG)
    cancel(why)
    for each in (ctx, child):
        assert_cancelled(each)
        assert cause(each) is why


def test_no_cause():
    ctx, cancel = with_cancel_cause(background())
    cancel(None)
    assert_cancelled(ctx)
    assert cause(ctx) is ctx.err()


def test_the_first_cause_counts():
    first = ValueError("first")
    ctx, cancel = with_cancel_cause(background())
    cancel(first)
    cancel(ValueError("second"))
    assert cause(ctx) is first


@pytest.mark.parametrize("parent_first", [True, False])
def test_the_cause_of_the_parent_and_of_the_child(parent_first):
    ours, theirs = ValueError("ours"), ValueError("theirs")
    parent, cancel_parent = with_cancel_cause(background())
    child, cancel = with_cancel_cause(parent)
    steps = [lambda: cancel_parent(theirs), lambda: cancel(ours)]
    for step in steps if parent_first else reversed(steps):
        step()
    assert cause(child) is (theirs if parent_first else ours)


def test_the_cause_of_a_timeout():
    slow = ValueError("slow")
    late, cancel = with_timeout_cause(background(), 0, slow)
    cancel()
    assert_cancelled(late, DeadlineExceeded)
    assert cause(late) is slow
    in_time, cancel = with_timeout_cause(background(), LONG, slow)
    cancel()
    assert_cancelled(in_time)
    assert cause(in_time) is in_time.err()
    when = time.monotonic() + SHORT
    waited, _ = with_deadline_cause(background(), when, slow)
    waited.done.recv_ok()
    assert cause(waited) is slow


def test_the_cause_of_a_timeout_below_another_reason():
    slow, early = ValueError("slow"), ValueError("early")
    parent, cancel = with_cancel_cause(background())
    late, _ = with_timeout_cause(parent, 0, slow)
    in_time, _ = with_timeout_cause(parent, LONG, slow)
    cancel(early)
    assert_cancelled(late, DeadlineExceeded)
    assert cause(late) is slow
    assert_cancelled(in_time)
    assert cause(in_time) is early


def test_a_cause_may_be_any_exception():
    ctx, cancel = with_cancel_cause(background())
    why = KeyboardInterrupt()
    cancel(why)
    assert cause(ctx) is why


# --- deadlines ----------------------------------------------------------------------------------


def test_the_error_of_a_deadline():
    ctx, _ = with_timeout(background(), 0)
    assert isinstance(ctx.err(), TimeoutError)
    assert not isinstance(ctx.err(), Canceled)
    assert str(ctx.err()) == "context deadline exceeded"


@pytest.mark.parametrize("wrap", [lambda ctx: ctx, Wrapper], ids=["plain", "wrapped"])
@pytest.mark.parametrize("below", [False, True])
def test_a_deadline_comes(wrap, below):
    ctx, _ = with_timeout(background(), SHORT)
    ctx = wrap(ctx)
    if below:
        ctx, _ = with_timeout(ctx, LONG)
    when = ctx.deadline()
    assert ctx.done.recv_ok() == (None, False)
    assert time.monotonic() >= when - ROUNDING
    assert_cancelled(ctx, DeadlineExceeded)


@pytest.mark.parametrize("d", [0, -1, -math.inf, timedelta(0), timedelta(days=-1)])
def test_a_deadline_that_has_passed(d):
    ctx, cancel = with_timeout(background(), d)
    assert_cancelled(ctx, DeadlineExceeded)
    cancel()
    assert_cancelled(ctx, DeadlineExceeded)


@pytest.mark.parametrize("d", [SHORT, timedelta(milliseconds=2), Decimal("0.002"), True])
def test_the_deadline_is_on_the_monotonic_clock(d):
    seconds = d.total_seconds() if isinstance(d, timedelta) else float(d)
    before = time.monotonic()
    ctx, cancel = with_timeout(background(), d)
    assert before + seconds - ROUNDING <= ctx.deadline() <= time.monotonic() + seconds + ROUNDING
    cancel()


def test_deadlines_are_inherited():
    when = time.monotonic() + LONG
    ctx, cancel = with_deadline(background(), when)
    below, _ = with_cancel(with_value(Wrapper(ctx), "key", 1))
    assert ctx.deadline() == below.deadline() == with_value(below, "k", 2).deadline() == when
    assert without_cancel(ctx).deadline() is None
    later, _ = with_deadline(ctx, when + 1)
    sooner, _ = with_deadline(ctx, when - 1)
    assert (later.deadline(), sooner.deadline()) == (when, when - 1)
    cancel()


def test_a_deadline_far_away():
    for d in (math.inf, 1e300, timedelta.max):
        ctx, cancel = with_timeout(background(), d)
        assert_going_on(ctx)
        cancel()
        assert_cancelled(ctx)


def test_cancelled_before_its_deadline():
    parent, _ = with_timeout(background(), LONG)
    ctx, cancel = with_timeout(Wrapper(parent), 2 * LONG)
    cancel()
    assert_cancelled(ctx)
    assert_going_on(parent)


def test_the_deadline_of_a_thread():
    errors = []

    def body():
        ctx, _ = with_timeout(background(), SHORT)
        ctx.done.recv_ok()
        errors.append(type(ctx.err()))

    in_thread(body)
    assert errors == [DeadlineExceeded]


@pytest.mark.parametrize(
    "release",
    [
        "ctx, cancel = with_timeout(parent, 5000); cancel()",
        "ctx, cancel = with_timeout(parent, 5000); cancel_parent()",
        "ctx, cancel = with_timeout(parent, 5000); ctx.done; del ctx, cancel",
        "ctx, cancel = with_timeout(parent, 0.001); ctx.done.recv_ok()",
        "ctx, cancel = with_timeout(parent, float('inf'))",
    ],
    ids=["cancelled", "with its parent", "dropped", "expired", "never"],
)
def test_timers_are_released(program, release):
    """While a timer is armed there is no deadlock."""
    outcome = program(
        f"""
        from gofer import Chan, Deadlock
        from gofer.context import background, with_cancel, with_timeout

        parent, cancel_parent = with_cancel(background())
        {release}
        try:
            Chan().recv()
        except Deadlock:
            print("no timer")
        """
    )
    assert (outcome.status, outcome.out) == (0, "no timer\n")


# --- values -------------------------------------------------------------------------------------


class Key:
    """A key of its own, as in Go."""


def test_values():
    one, two = Key(), Key()
    empty = background()
    first = with_value(empty, one, "first")
    both = with_value(first, two, "second")
    hidden = with_value(both, one, None)
    expected = {
        empty: (None, None),
        first: ("first", None),
        both: ("first", "second"),
        hidden: (None, "second"),
    }
    for ctx, values in expected.items():
        for each in (ctx, Wrapper(ctx), with_cancel(ctx)[0], without_cancel(ctx)):
            assert (each.value(one), each.value(two)) == values
    assert with_value(Wrapper(first), two, "x").value(one) == "first"
    assert both.value("first") is None


def test_keys_are_compared_as_in_a_dict():
    nan = math.nan
    ctx = with_value(with_value(background(), (1, "a"), "tuple"), nan, "nan")
    assert ctx.value((1.0, "a")) == "tuple"
    assert ctx.value(nan) == "nan"
    assert ctx.value(None) is None


def test_a_key_may_compare_as_it_likes():
    class Greedy:
        def __eq__(self, other):
            return True

        __hash__ = object.__hash__

    parent, cancel = with_cancel_cause(background())
    ctx = with_value(parent, Greedy(), "mine")
    child, _ = with_cancel(Wrapper(ctx))
    why = ValueError()
    cancel(why)
    assert cause(child) is why
    assert ctx.value("whatever") == "mine"


# --- after_func ---------------------------------------------------------------------------------


def test_after_func_runs_in_a_goroutine_of_its_own():
    ctx, cancel = with_cancel(background())
    ran = Chan()
    stop = after_func(ctx, lambda: ran.send(current()))
    cancel()  # does not wait for it
    assert ran.recv() is not current()
    assert not stop()


def test_after_func_of_a_cancelled_context():
    ctx, cancel = with_cancel(background())
    cancel()
    ran = Chan()
    stop = after_func(ctx, ran.close)
    assert not stop()
    assert ran.recv_ok() == (None, False)


def test_after_func_of_a_deadline():
    ctx, _ = with_timeout(background(), SHORT)
    ran = Chan()
    after_func(ctx, lambda: ran.send(ctx.err()))
    assert isinstance(ran.recv(), DeadlineExceeded)


def test_after_func_that_was_stopped_does_not_run():
    ctx, cancel = with_cancel(background())
    fn = Key().__init__
    refers = weakref.ref(fn.__self__)
    stop = after_func(ctx, fn)
    assert stop()
    assert not stop()
    del fn
    gc.collect()
    assert refers() is None  # nobody has it any more, so nobody can run it
    cancel()


def test_each_after_func_runs():
    ctx, cancel = with_cancel(background())
    ran = WaitGroup()
    ran.add(100)
    for _ in range(100):
        after_func(with_value(ctx, "key", 1), ran.done)
    cancel()
    ran.wait()


def test_after_func_of_what_is_never_cancelled():
    stop = after_func(background(), pytest.fail)
    assert stop()
    assert not stop()
    assert after_func(without_cancel(with_cancel(background())[0]), pytest.fail)()


def test_when_done_is_called_by_who_cancels():
    ctx, cancel = with_cancel(background())
    child, _ = with_cancel(ctx)
    log = []
    when_done(ctx, lambda: log.append((current(), type(ctx.err()), type(child.err()))))
    assert not log
    cancel()
    assert log == [(current(), Canceled, Canceled)]
    when_done(ctx, lambda: log.append("at once"))
    assert log[1:] == ["at once"]


def test_when_done_may_cancel_others_and_register():
    one, cancel_one = with_cancel(background())
    two, cancel_two = with_cancel(background())
    log = []
    when_done(one, cancel_two)
    when_done(two, cancel_one)
    when_done(two, lambda: when_done(one, lambda: log.append("both")))
    cancel_one()
    assert_cancelled(two)
    assert log == ["both"]


# --- without_cancel -----------------------------------------------------------------------------


def test_without_cancel():
    parent, cancel = with_timeout(with_value(background(), "key", "value"), LONG)
    ctx = without_cancel(parent)
    child, cancel_child = with_cancel(ctx)
    cancel()
    assert_going_on(ctx)
    assert_going_on(child)
    assert ctx.deadline() is None
    assert ctx.value("key") == "value"
    assert ctx.done == background().done
    cancel_child()
    assert_cancelled(child)


# --- foreign contexts ---------------------------------------------------------------------------


def goroutines_started(fn, *args):
    before = runtime.num_goroutine()
    result = fn(*args)
    return result, runtime.num_goroutine() - before


def test_a_parent_that_only_wraps_one_of_ours_needs_no_goroutine():
    parent, cancel = with_cancel(background())
    (child, _), started = goroutines_started(with_cancel, Wrapper(Wrapper(parent)))
    assert started == 0
    assert goroutines_started(with_cancel, Wrapper(background()))[1] == 0
    cancel()
    assert_cancelled(child)  # at once


def test_a_foreign_parent_is_waited_for():
    parent = OwnDone(background())
    (child, _), started = goroutines_started(with_timeout, parent, LONG)
    assert started == 1
    grandchild, _ = with_cancel(child)
    assert_going_on(child)
    parent.cancel()
    child.done.recv_ok()
    assert child.err() is parent.error
    assert cause(grandchild) is parent.error


def test_the_goroutine_ends_with_the_child(until):
    before = runtime.num_goroutine()
    parent = OwnDone(background())
    _, cancel = with_cancel(parent)
    cancel()
    until(lambda: runtime.num_goroutine() == before)
    dropped = with_cancel(parent)
    del dropped
    gc.collect()
    until(lambda: runtime.num_goroutine() == before)


def test_below_a_foreign_parent_that_is_cancelled():
    parent = OwnDone(background())
    parent.cancel(DeadlineExceeded("its own"))
    (child, _), started = goroutines_started(with_cancel, parent)
    assert started == 0
    assert child.err() is parent.error
    valued = with_value(parent, "key", 1)
    assert valued.err() is parent.error
    assert valued.done is not None
    assert is_done(valued)


def test_a_foreign_parent_that_forgets_its_error():
    parent = OwnDone(background())
    parent.chan.close()
    child, _ = with_cancel(parent)
    assert_cancelled(child)


def test_the_cause_through_a_foreign_context():
    why = ValueError("why")
    root, cancel = with_cancel_cause(background())
    parent = OwnDone(root)
    child, _ = with_cancel(parent)
    cancel(why)
    assert cause(parent) is None
    parent.cancel()
    child.done.recv_ok()
    assert cause(parent) is why
    assert cause(child) is why
    assert child.err() is parent.error


def test_the_cause_of_a_foreign_context():
    parent = OwnDone(background())
    child, cancel = with_cancel_cause(parent)
    why = ValueError("why")
    cancel(why)
    assert cause(child) is why
    assert cause(parent) is None
    parent.cancel()
    assert cause(child) is why
    assert cause(parent) is parent.error


def test_a_foreign_parent_with_after_func():
    parent = WithAfterFunc(background())
    (child, _), started = goroutines_started(with_timeout, parent, LONG)
    assert (started, len(parent.functions)) == (0, 1)
    parent.cancel()
    assert child.err() is parent.error
    assert is_done(child)


def test_a_foreign_parent_forgets_what_was_cancelled():
    parent = WithAfterFunc(background())
    for derive in (with_cancel, functools.partial(with_timeout, d=LONG)):
        _, cancel = derive(parent)
        assert len(parent.functions) == 1
        cancel()
        assert parent.functions == []
    stop = after_func(parent, pytest.fail)
    assert len(parent.functions) == 1
    assert stop()
    assert not stop()
    assert parent.functions == []


@pytest.mark.parametrize("kind", [OwnDone, WithAfterFunc])
def test_after_func_of_a_foreign_context(kind):
    parent = kind(background())
    ran = Chan()
    after_func(parent, lambda: ran.send(parent.err()))
    gc.collect()
    parent.cancel()
    assert ran.recv() is parent.error


# --- what holds what ----------------------------------------------------------------------------


def family(*roots):
    """Weak references to what the contexts below these consist of."""
    return [weakref.ref(part) for ctx in roots for part in (ctx, ctx.node)]


def assert_gone(references):
    gc.collect()
    assert [ref() for ref in references] == [None] * len(references)


@pytest.mark.parametrize("derive", [with_cancel, functools.partial(with_timeout, d=LONG)])
@pytest.mark.parametrize("asked", [False, True])
def test_a_parent_does_not_keep_dropped_children(derive, asked):
    parent, _ = with_cancel(background())
    child, cancel = derive(parent)
    grandchild, _ = derive(child)
    if asked:
        assert not grandchild.done.closed
        assert not child.done.closed
    parts = family(child, grandchild)
    del child, cancel, grandchild, _
    assert_gone(parts)
    assert not parent.node.pins


def test_children_that_come_and_go_leave_nothing_with_their_parent():
    parent, cancel_parent = with_cancel(background())
    kept = []
    for n in range(1000):
        child, cancel = with_cancel(parent)
        assert not child.done.closed
        if n % 2:
            when_done(child, lambda: None)
            cancel()
        if n % 100 == 0:
            kept.append(child)
    del child, cancel
    gc.collect()
    assert len(parent.node.pins) == len(kept)
    cancel_parent()
    for child in kept:
        assert_cancelled(child)
    assert not parent.node.pins


def test_a_cancelled_tree_is_freed():
    root, cancel = with_cancel(background())
    child, _ = with_timeout(root, LONG)
    when_done(child, lambda: None)
    waited = child.done
    parts = family(root, child)
    cancel()
    del root, child, cancel, _
    assert_gone(parts)
    assert waited.closed


def test_cancel_works_when_the_context_is_dropped():
    ctx, cancel = with_cancel(background())
    done = ctx.done
    del ctx
    gc.collect()
    cancel()
    assert done.closed


@pytest.mark.parametrize("foreign", [OwnDone, WithAfterFunc, None])
def test_who_waits_is_woken_when_all_contexts_between_are_dropped(foreign, parked):
    root, cancel = with_cancel(background())
    if foreign:
        root = foreign(background())
        cancel = root.cancel
    between, _ = with_cancel(root)
    ctx, _ = with_timeout(with_value(between, "key", 1), LONG)
    task = fork(ctx.done.recv_ok)
    parked(task)
    del between, ctx, _
    gc.collect()
    cancel()
    assert task.join() == (None, False)


def test_a_deadline_wakes_who_waits_when_all_contexts_are_dropped():
    def done():
        root, _ = with_cancel(background())
        timed, _ = with_timeout(root, SHORT)
        ctx, _ = with_cancel(timed)
        return ctx.done

    ch = done()
    gc.collect()
    assert ch.recv_ok() == (None, False)


@pytest.mark.parametrize("how", ["cancel", "deadline", OwnDone, WithAfterFunc])
def test_after_func_runs_when_all_contexts_are_dropped(how):
    ran = Chan()
    root, cancel = with_cancel(background())
    if how == "deadline":
        root, _ = with_timeout(root, SHORT)
    elif how != "cancel":
        root = how(background())
        cancel = root.cancel
    ctx, _ = with_timeout(with_cancel(root)[0], LONG)
    after_func(ctx, ran.close)
    del ctx, root, _
    gc.collect()
    if how != "deadline":
        cancel()
    assert ran.recv_ok() == (None, False)


def test_after_func_that_nobody_can_cause_is_collected():
    ctx, cancel = with_cancel(with_cancel(background())[0])
    key = Key()
    after_func(ctx, functools.partial(pytest.fail, key))
    parts = [*family(ctx), weakref.ref(key)]
    del ctx, cancel, key
    assert_gone(parts)


def test_a_finalizer_may_cancel():
    """It may run anywhere, also inside of a cancel of the same context."""

    class Cancels:
        def __init__(self, cancel):
            self.cancel = cancel

        def __del__(self):
            self.cancel()

    ctx, cancel = with_cancel(background())
    children = [with_cancel(ctx)[0] for _ in range(10)]
    cancels = Cancels(cancel)
    when_done(ctx, functools.partial(id, cancels))  # whose end drops it
    del cancels
    cancel()
    for child in children:
        assert_cancelled(child)


def test_contexts_at_the_end_of_the_program(program):
    """Also those that are freed when the modules are gone already."""
    outcome = program(
        """
        from gofer import Chan, context, go, gosched

        class Foreign:
            done = Chan().receiver
            err = deadline = lambda self: None
            value = lambda self, key: None

        kept = [context.with_timeout(Foreign(), 100) for _ in range(10)]
        circle = [context.with_timeout(Foreign(), 100), context.with_timeout(kept[0][0], 50)]
        circle.append(circle)
        context.after_func(kept[1][0], print)
        kept += [kept[2][0].done]
        go(kept[3][0].done.recv_ok)
        gosched()
        print("end")
        """
    )
    assert (outcome.status, outcome.out, outcome.err) == (0, "end\n", "")


# --- several at a time --------------------------------------------------------------------------


def test_a_tree_is_cancelled_from_everywhere(rng):
    root, cancel = with_cancel(background())
    contexts, cancels = [root], [cancel]
    for n in range(200):
        ctx, cancel = with_cancel(contexts[n // 4])
        contexts.append(ctx)
        cancels.append(cancel)
    rng.shuffle(cancels)
    threads = [threading.Thread(target=cancel) for cancel in cancels[:10]]
    for thread in threads:
        thread.start()
    with WaitGroup() as cancelling:
        for cancel in cancels[10:]:
            cancelling.go(cancel)
        for ctx in rng.sample(contexts, len(contexts)):
            ctx.done.recv_ok()
            assert isinstance(ctx.err(), Canceled)
    for thread in threads:
        thread.join()


def test_a_child_of_a_parent_that_is_being_cancelled():
    why = ValueError("why")
    for _ in range(200):
        parent, cancel = with_cancel_cause(background())
        cancelling = go(cancel, why)
        child, _ = with_cancel(parent)
        timed, _ = with_timeout(parent, LONG)
        assert child.done.recv_ok() == timed.done.recv_ok() == (None, False)
        assert cause(child) is cause(timed) is why
        cancelling.join()


def test_who_sees_the_error_finds_done_closed():
    for _ in range(50):
        parent, cancel = with_cancel(background())
        ctx, _ = with_cancel(parent)
        asked_before = ctx.done
        unasked, _ = with_cancel(parent)
        cancelling = go(cancel)
        while ctx.err() is None or unasked.err() is None:
            gosched()
        assert asked_before.closed
        assert ctx.done.closed
        assert unasked.done.closed
        cancelling.join()


def amidst_of_a_cancel(look):
    """Calls look(cancel, child) in the course of a cancel, before the child's `done` is closed.

    So it plays another thread.
    """
    root, cancel = with_cancel(background())
    child, _ = with_cancel(root)
    before, log = child.done, []

    def call():
        log.append(before.closed)
        log.append(look(cancel, child))

    when_done(root, call)
    cancel()
    assert log[0] is False
    return log[1]


def test_amidst_of_a_cancel_who_sees_the_error_finds_done_closed():
    assert amidst_of_a_cancel(lambda _, child: (type(child.err()), child.done.closed)) == (
        Canceled,
        True,
    )


def test_amidst_of_a_cancel_another_one_does_all_of_it():
    assert amidst_of_a_cancel(lambda cancel, child: (cancel(), child.done.closed)) == (None, True)


def test_a_cancel_amidst_of_making_a_child(monkeypatch):
    parent, cancel = with_cancel(background())
    inner = _cancel.after_func
    timers = []

    def cancel_before(*args):
        cancel()
        timers.append(inner(*args))
        return timers[-1]

    monkeypatch.setattr(_cancel, "after_func", cancel_before)
    child, _ = with_timeout(parent, LONG)
    assert_cancelled(child)
    assert child.err() is parent.err()
    (timer,) = timers
    assert not timer.stop()  # it has been stopped


def test_a_cancel_amidst_of_asking_for_done(monkeypatch):
    for step in ("chan_in", "first"):
        parent, cancel = with_cancel(background())
        child, _ = with_cancel(parent)
        inner = getattr(context, step)

        def cancel_before(*args, cancel=cancel, inner=inner):
            cancel()
            return inner(*args)

        monkeypatch.setattr(context, step, cancel_before)
        done = child.done
        monkeypatch.undo()
        assert done.closed
        assert child.done is done


def test_an_end_that_was_interrupted_can_be_done_again():
    root, cancel = with_cancel(background())
    children = [with_cancel(root)[0] for _ in range(10)]
    waiting = [child.done for child in children]

    def interrupt():
        raise KeyboardInterrupt

    when_done(root, interrupt)  # called once, and before any child is told
    with pytest.raises(KeyboardInterrupt):
        cancel()
    assert not any(done.closed for done in waiting)
    cancel()
    assert all(done.closed for done in waiting)
    for child in children:
        assert_cancelled(child)


def test_who_is_woken_cancels_the_child():
    parent, cancel_parent = with_cancel(background())
    child, cancel = with_cancel(parent)

    def body():
        parent.done.recv_ok()
        cancel()

    waiting = go(body)
    cancel_parent()
    assert_cancelled(child)
    waiting.join()


def test_a_cancel_in_a_cancelled_goroutine():
    """It does not wait, so it is not cancelled itself."""
    ctx, cancel = with_cancel(background())
    child, _ = with_timeout(OwnDone(ctx), LONG)

    def body():
        current().cancel()
        cancel()
        with_cancel(ctx)[1]()
        return "whole"

    assert fork(body).join() == "whole"
    assert_cancelled(ctx)
    assert_going_on(child)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn",
    [
        with_cancel,
        with_cancel_cause,
        without_cancel,
        functools.partial(with_timeout, d=1),
        functools.partial(with_deadline, when=1),
        functools.partial(with_value, key=1, value=1),
        functools.partial(after_func, fn=int),
    ],
)
@pytest.mark.parametrize("parent", [None, 1, with_cancel])
def test_a_parent_is_a_context(fn, parent):
    with pytest.raises(TypeError, match=r"takes a context, not .*background\(\)"):
        fn(parent)


@pytest.mark.parametrize("key", [None, [], {}, ([],)])
def test_a_key_can_be_hashed(key):
    with pytest.raises(TypeError, match=r"^with_value\(\) .* key"):
        with_value(background(), key, 1)


@pytest.mark.parametrize("d", ["1", b"1", None, [], 1j])
def test_a_duration_is_a_number_or_a_timedelta(d):
    with pytest.raises(
        TypeError, match=r"with_timeout\(\) takes seconds as a number or a timedelta"
    ):
        with_timeout(background(), d)


@pytest.mark.parametrize("when", ["1", None, timedelta(1)])
def test_a_deadline_is_a_number(when):
    with pytest.raises(TypeError, match=r"with_deadline\(\) takes a time of time.monotonic\(\)"):
        with_deadline(background(), when)


def test_nan_is_no_time():
    with pytest.raises(ValueError, match="nan"):
        with_timeout(background(), math.nan)
    with pytest.raises(ValueError, match="nan"):
        with_deadline(background(), math.nan)


@pytest.mark.parametrize("why", ["text", ValueError, 0])
def test_a_cause_is_an_exception(why):
    ctx, cancel = with_cancel_cause(background())
    with pytest.raises(TypeError, match="an exception as the cause"):
        cancel(why)
    assert_going_on(ctx)
    with pytest.raises(TypeError, match="an exception as the cause"):
        with_timeout_cause(background(), 1, why)
    with pytest.raises(TypeError, match="an exception as the cause"):
        with_deadline_cause(background(), 1, why)


def test_after_func_takes_a_function():
    async def coroutine_function():
        pass

    with pytest.raises(TypeError, match=r"after_func\(\) of 1: it can not be called"):
        after_func(background(), 1)
    with pytest.raises(TypeError, match=r"after_func\(\) of the coroutine function .*gofer.aio"):
        after_func(background(), coroutine_function)


# --- in words -----------------------------------------------------------------------------------


def test_repr():
    ctx, _ = with_cancel(background())
    assert repr(ctx) == "background.with_cancel"
    valued = with_value(with_value(todo(), "name", "value"), Key(), None)
    assert repr(valued) == "todo.with_value('name', 'value').with_value(Key, None)"
    assert repr(with_cancel(Wrapper(ctx))[0]) == "Wrapper.with_cancel"
    assert repr(without_cancel(ctx)) == "background.with_cancel.without_cancel"
    timed, cancel = with_timeout(ctx, 5000)
    start, left = repr(timed).split(" [")
    assert start == "background.with_cancel.with_timeout(5000"
    assert 0 < float(left.removesuffix(" s left])")) <= 5000
    cancel()
    when = time.monotonic() - 5
    assert repr(with_deadline(ctx, when)[0]).startswith(
        f"background.with_cancel.with_deadline({when:.3f} [-"
    )


def test_everything_public_is_there():
    assert all(hasattr(context, name) for name in context.__all__)


# --- within: operations that observe a context -------------------------------------------------


def test_within_raises_what_ended_the_context():
    ctx, cancel = context.with_cancel(context.background())
    waits = fork(Chan().recv)
    started = []

    def body():
        with context.within(ctx) as same:
            assert same is ctx
            started.append(fork(Chan().recv))
            go(cancel)
            Chan().recv()

    with pytest.raises(context.Canceled):
        body()
    (inner,) = started
    with pytest.raises(context.Canceled):
        inner.join()
    waits.cancel()  # it was started outside, and waits until now
    waits.exception()


def test_within_a_deadline_is_a_timeout():
    ctx, cancel = context.with_timeout(context.background(), 0)
    with pytest.raises(TimeoutError), context.within(ctx):
        Chan().recv()
    cancel()


def test_within_what_ends_in_time_raises_nothing():
    ctx, cancel = context.with_cancel(context.background())
    ch = Chan(1)
    with context.within(ctx):
        cancel()
        ch.send(1)  # need not wait
        assert ch.recv() == 1
    with context.within(ctx):
        pass


def test_after_within_the_context_cancels_nothing_there():
    ctx, cancel = context.with_cancel(context.background())
    with context.within(ctx):
        waits = fork(Chan().recv)
    cancel()
    ch = Chan()
    go(ch.send, 1)  # waits are still possible there
    ch.recv()
    waits.cancel()
    waits.exception()


def test_after_func_is_not_cancelled_with_who_cancels():
    ran = Chan(1)

    def clean_up():
        sleep(0)
        ran.send("cleaned up")

    ctx, cancel = context.with_cancel(context.background())
    context.after_func(ctx, clean_up)
    with cancel_scope() as scope:
        scope.cancel()
        cancel()
    assert ran.recv() == "cleaned up"


def test_a_foreign_parent_reaches_children_made_in_a_cancelled_scope():
    class Foreign:
        def __init__(self):
            self.ended = Chan()
            self.done = self.ended.receiver

        def deadline(self):
            return None

        def value(self, key):
            return None

        def err(self):
            return context.Canceled("foreign") if self.ended.closed else None

    parent = Foreign()
    with cancel_scope() as scope:
        scope.cancel()
        ctx, cancel = context.with_cancel(parent)
    parent.ended.close()
    with pytest.raises(Closed):
        ctx.done.recv()
    cancel()
