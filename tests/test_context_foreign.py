"""Contexts below a parent that only has the interface."""

import functools
import gc

import pytest

from gofer import (
    Chan,
    runtime,
)
from gofer.context import (
    DeadlineExceeded,
    after_func,
    background,
    cause,
    with_cancel,
    with_cancel_cause,
    with_timeout,
    with_value,
)

from shared.clock import LONG
from shared.contexts import (
    OwnDone,
    WithAfterFunc,
    Wrapper,
    assert_cancelled,
    assert_going_on,
    is_done,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


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
