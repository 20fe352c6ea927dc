"""Contexts: what holds what, and several that cancel at a time."""

import functools
import gc
import threading
import weakref

import pytest

from gofer import (
    Chan,
    WaitGroup,
    _cancel,
    context,
    current,
    fork,
    go,
    gosched,
)
from gofer.context import (
    Canceled,
    after_func,
    background,
    cause,
    when_done,
    with_cancel,
    with_cancel_cause,
    with_timeout,
    with_value,
)

from shared.clock import LONG
from shared.contexts import (
    SHORT,
    Key,
    OwnDone,
    WithAfterFunc,
    assert_cancelled,
    assert_going_on,
    assert_gone,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- what holds what ----------------------------------------------------------------------------


def family(*roots):
    """Weak references to what the contexts below these consist of."""
    return [weakref.ref(part) for ctx in roots for part in (ctx, ctx.node)]


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
