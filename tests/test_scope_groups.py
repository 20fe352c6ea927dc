"""Scopes with a Group in them, and with groups of exceptions."""

from contextlib import suppress

import pytest

from gofer import (
    Cancelled,
    Chan,
    GoroutineExit,
    Group,
    cancel_scope,
    fork,
    go,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

from shared.groups import wait_for_ever
from shared.scopes import ended, is_cancelled

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


# --- with a Group -------------------------------------------------------------------------------


def test_a_timeout_around_a_group():
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            with Group() as g:
                tasks = [g.go(wait_for_ever) for _ in range(10)]
    assert all(task.done for task in tasks)


def test_a_timeout_in_a_member_is_a_failure_of_the_group():
    def member():
        with timeout(0.001):
            wait_for_ever()

    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            other = g.go(wait_for_ever)
            g.go(member)
    assert [type(error) for error in caught.value.exceptions] == [TimeoutError]
    assert other.done


def test_a_timeout_in_the_body_that_is_caught_there():
    with Group() as g:
        task = g.go(sleep, 0.002)
        with suppress(TimeoutError), timeout(0.001):
            wait_for_ever()
    assert task.join() is None


def test_a_group_in_a_shield_in_a_cancelled_scope():
    with cancel_scope() as scope:
        scope.cancel()
        with shield():
            with Group() as g:
                tasks = [g.go(sleep, 0.001) for _ in range(3)]
    assert [task.join() for task in tasks] == [None] * 3


def test_a_shielded_member_is_waited_for():
    log = []

    def member():
        with shield():
            gate.recv()
        log.append("member")

    def body():
        with suppress(TimeoutError), timeout(0.001):
            with Group() as g:
                g.go(member)
        log.append("edge")

    gate = Chan()
    task = fork(body)
    sleep(0.003)
    assert log == []
    gate.send(None)
    task.join()
    assert log == ["member", "edge"]


def test_a_group_left_in_the_wrong_order():
    scope = cancel_scope()
    scope.__enter__()
    g = Group()
    g.__enter__()
    task = g.go(int)
    with pytest.raises(RuntimeError, match="reverse order"):
        scope.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="not in it"):
        g.__exit__(None, None, None)
    ended(task)
    assert not is_cancelled()


def test_a_group_left_by_another_goroutine():
    with cancel_scope():
        g = Group()
        g.__enter__()
        with pytest.raises(RuntimeError):
            fork(g.__exit__, None, None, None).join()
        with pytest.raises(RuntimeError):
            g.go(int)
        with suppress(RuntimeError):
            g.__exit__(None, None, None)
    assert not is_cancelled()


# --- an except* that waits ----------------------------------------------------------------------


def raise_two():
    raise ExceptionGroup("two", [KeyError(), ValueError()])


def wait_in_two_handlers():
    try:
        raise_two()
    except* KeyError:
        wait_for_ever()
    except* ValueError:
        wait_for_ever()


def wait_in_one_handler():
    try:
        raise_two()
    except* KeyError:
        wait_for_ever()


def test_a_group_of_nothing_but_cancelled_is_stopped():
    with cancel_scope() as scope:
        scope.cancel()
        wait_in_two_handlers()
    with pytest.raises(TimeoutError):
        with timeout(0):
            wait_in_two_handlers()
    with pytest.raises(TimeoutError):
        with timeout(0):
            raise BaseExceptionGroup("", [Cancelled(), BaseExceptionGroup("", [Cancelled()])])


def test_a_group_with_anything_else_passes():
    with pytest.raises(BaseExceptionGroup) as caught:
        with cancel_scope() as scope:
            scope.cancel()
            wait_in_one_handler()
    assert {type(error) for error in caught.value.exceptions} == {Cancelled, ExceptionGroup}
    with pytest.raises(ExceptionGroup):
        with cancel_scope() as scope:
            scope.cancel()
            raise_two()


def test_to_end_by_such_a_group_is_no_failure():
    with Group() as g:
        task = g.go(wait_in_two_handlers)
        g.cancel()
    assert isinstance(task.exception(), Canceled)
    with cancel_scope() as scope:
        scope.cancel()
        with pytest.raises(Canceled):
            with shield():
                fork_in_cancelled(wait_in_two_handlers).join()
    ended(go(raise_group_of_exits))
    with Group() as g:
        g.cancel()
        wait_in_two_handlers()


def raise_group_of_exits():
    raise BaseExceptionGroup("", [GoroutineExit(), Cancelled()])


def fork_in_cancelled(fn):
    with cancel_scope() as scope:
        scope.cancel()
        return fork(fn)


def test_a_group_as_deep_as_the_stack_is_judged_too():
    error = Cancelled()
    for _ in range(100_000):
        error = BaseExceptionGroup("", [error])
    with suppress(BaseExceptionGroup), cancel_scope() as scope:
        scope.cancel()
        raise error
    parts = []
    while isinstance(error, BaseExceptionGroup):  # one after the other, or Python itself overflows
        parts.append(error)
        error = error.exceptions[0]
    while parts:
        parts.pop()
