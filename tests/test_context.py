"""gofer.context: what Go's tests of its package ask for.

Foreign contexts are in test_context_foreign.py, functions that are called for one in
test_context_calls.py, and what holds what, and cancelling by several, in test_context_lifetime.py.

Where something must not happen, the test shows that it could not any more: the timer is no longer
armed, or what would do it is gone.
"""

import functools
import math
import threading
import time
import weakref
from datetime import timedelta
from decimal import Decimal

import pytest

from gofer import (
    fork,
)
from gofer.context import (
    Canceled,
    DeadlineExceeded,
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

from shared import in_thread
from shared.clock import LONG, ROUNDING
from shared.contexts import (
    SHORT,
    Key,
    Wrapper,
    assert_cancelled,
    assert_going_on,
    assert_gone,
    is_done,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


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
