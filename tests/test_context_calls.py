"""after_func, when_done and within: what happens when a context is cancelled."""

import gc
import weakref

import pytest

from gofer import (
    Chan,
    Closed,
    Cond,
    Mutex,
    WaitGroup,
    cancel_scope,
    context,
    current,
    fork,
    go,
    sleep,
)
from gofer.context import (
    Canceled,
    DeadlineExceeded,
    after_func,
    background,
    cause,
    when_done,
    with_cancel,
    with_cancel_cause,
    with_timeout,
    with_value,
    without_cancel,
)

from shared.contexts import SHORT, Key, assert_cancelled

pytestmark = pytest.mark.usefixtures("nothing_left")


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


def test_a_context_that_ends_with_either_of_two(parked):
    """after_func hands the end of one on to the other."""

    def merged(one, other):
        ctx, cancel = with_cancel_cause(one)
        return ctx, after_func(other, lambda: cancel(cause(other)))

    for first in (0, 1):
        pair = [with_cancel_cause(background()) for _ in range(2)]
        ctx, stop = merged(*(ctx for ctx, _ in pair))
        waiting = fork(ctx.done.recv_ok)
        parked(waiting)
        why = ValueError("why")
        pair[first][1](why)
        assert waiting.join() == (None, False)
        assert cause(ctx) is why
        assert stop() == (first == 0)
        pair[1 - first][1]()


def test_waiting_for_a_condition_until_a_context_ends(parked):
    lock = Mutex()
    changed = Cond(lock)
    ctx, cancel = with_cancel(background())
    others, cancel_others = with_cancel(background())

    def broadcast():
        with lock:
            changed.broadcast()

    def wait(ctx):
        stop = after_func(ctx, broadcast)
        with lock:
            while ctx.err() is None:
                changed.wait()
        stop()  # the broadcast of another one may have woken this
        return type(ctx.err())

    tasks = [fork(wait, ctx) for _ in range(4)]
    stays = fork(wait, others)
    parked(*tasks, stays)
    cancel()
    assert [task.join() for task in tasks] == [Canceled] * 4
    parked(stays)
    cancel_others()
    assert stays.join() is Canceled


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
