"""shield: what arrives in it, and what does not."""

from contextlib import ExitStack

import pytest

from gofer import (
    Chan,
    Goroutine,
    Group,
    Semaphore,
    cancel_scope,
    fork,
    gosched,
    run,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

from shared.clock import LONG
from shared.groups import wait_for_ever
from shared.scopes import ended, is_cancelled, waiting

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


def test_nothing_from_outside_arrives_in_it():
    with cancel_scope() as scope:
        scope.cancel()
        assert is_cancelled()
        with shield():
            assert not is_cancelled()
            sleep(0.001)
            assert fork(is_cancelled).join() is False
        assert is_cancelled()
    assert not is_cancelled()


def test_what_was_held_off_arrives_after_it():
    log = []
    with cancel_scope() as scope:
        with shield():
            scope.cancel()
            log.append(is_cancelled())
        log.append("after")
        gosched()
        log.append("not here")
    assert log == [False, "after"]


def test_a_shield_in_a_shield():
    with cancel_scope() as scope:
        scope.cancel()
        with shield():
            with shield():
                assert not is_cancelled()
            assert not is_cancelled()
            with cancel_scope() as inner:
                with shield():
                    inner.cancel()
                    assert not is_cancelled()
                assert is_cancelled()
            assert not is_cancelled()


def test_scopes_in_a_shield_work():
    with cancel_scope() as scope:
        scope.cancel()
        with shield():
            with cancel_scope() as inner:
                inner.cancel()
                wait_for_ever()
            with pytest.raises(TimeoutError), timeout(0.001):
                wait_for_ever()
            with Group() as g:
                task = g.go(wait_for_ever)
                g.cancel()
            assert task.done
            assert not is_cancelled()


def test_it_holds_off_task_cancel():
    log = []

    def body():
        with shield():
            with shield(), cancel_scope():
                gate.recv()
                log.append(is_cancelled())
            log.append(is_cancelled())
        log.append(is_cancelled())

    gate = Chan()
    task = waiting(body)
    task.cancel()
    assert task.state == "waiting"
    gate.send(None)
    task.join()
    assert log == [False, False, True]


def test_who_is_cancelled_in_a_shield_keeps_its_place():
    def body(n):
        with shield(), sema:
            log.append(n)

    sema, log = Semaphore(1), []
    sema.acquire()
    tasks = [waiting(body, n) for n in range(4)]
    for task in tasks[:2]:
        task.cancel()
    sema.release()
    for task in tasks:
        Goroutine.join(task)
    assert log == [0, 1, 2, 3]


@pytest.mark.parametrize("inside", [1, 2])
def test_a_shield_that_was_left_holds_off_no_task_cancel(inside):
    def body():
        with ExitStack() as stack:
            for _ in range(inside):
                stack.enter_context(shield())
            stack.enter_context(timeout(LONG))
        with cancel_scope():
            wait_for_ever()

    task = waiting(body)
    task.cancel()
    assert isinstance(task.exception(), Canceled)


def test_task_cancel_of_what_was_started_in_a_shield_arrives():
    with shield():
        task = waiting(wait_for_ever)
        task.cancel()
        assert isinstance(task.exception(), Canceled)


def test_a_shield_of_another_holds_off_no_task_cancel():
    """A goroutine started in a shield may be cancelled by name: that shield is its starter's."""
    log = []

    def child():
        with cancel_scope():
            try:
                wait_for_ever()
            finally:
                log.append(is_cancelled())
                with shield():
                    log.append(is_cancelled())

    with shield():
        task = waiting(child)
    task.cancel()
    ended(task)
    assert log == [True, False]


def test_what_is_started_in_a_shield_stays_shielded():
    def child():
        gate.recv()
        return is_cancelled()

    gate = Chan()
    with cancel_scope() as scope:
        with shield():
            task = waiting(child)
        scope.cancel()
        with shield():
            gate.send(None)
            assert task.join() is False


def test_however_a_shield_is_made():
    for make in (lambda: shield.__new__(shield), lambda: type.__call__(shield)):
        with cancel_scope() as scope:
            scope.cancel()
            with make():
                assert not is_cancelled()


def test_a_killed_goroutine_leaves_its_shield(until):
    log = []

    def main():
        def body():
            try:
                with shield():
                    wait_for_ever()
            finally:
                log.append("unwound")

        waiting(body)

    run(main)
    assert log == ["unwound"]
