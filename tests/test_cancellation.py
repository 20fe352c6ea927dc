"""What cancellation does to each operation that waits.

That nothing is lost by it is in test_cancellation_loss.py.
"""

import threading
from functools import partial

import pytest

from gofer import (
    Cancelled,
    Chan,
    Goroutine,
    Group,
    Mutex,
    WaitGroup,
    cancel_scope,
    current,
    fork,
    go,
    gosched,
    run,
    shield,
    sleep,
    timeout,
)

from shared.points import POINTS, Gate, locked, wait_for

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(params=POINTS)
def at(request):
    gate = Gate()
    yield POINTS[request.param](gate)
    gate.close()


def test_it_raises_when_it_would_wait_again_and_again(at):
    with cancel_scope() as scope:
        scope.cancel()
        for _ in range(3):
            with pytest.raises(Cancelled):
                at.wait()


def test_it_is_done_when_it_need_not_wait(at):
    with cancel_scope() as scope:
        scope.cancel()
        at.at_once()


def test_it_is_woken(at):
    def body():
        with cancel_scope() as scope:
            scopes.send(scope)
            with pytest.raises(Cancelled):
                at.wait()
            with pytest.raises(Cancelled):
                at.wait()
        return scope

    scopes = Chan()
    task = fork(body)
    scope = scopes.recv()
    wait_for(task)
    scope.cancel()
    assert task.join() is scope


def test_a_timeout_ends_it(at):
    with timeout(0.001) as limit:
        pass
    assert not limit.expired
    with pytest.raises(TimeoutError):
        with timeout(0.001) as limit:
            at.wait()
    assert limit.expired


def test_a_shield_holds_it_off(at):
    """What is shielded waits on: only a scope inside the shield ends it."""
    log = []

    def body():
        with cancel_scope() as outer:
            with shield():
                with cancel_scope() as inner:
                    scopes.send((outer, inner))
                    try:
                        at.wait()
                    finally:
                        log.append(inner.cancelled)
            with pytest.raises(Cancelled):
                at.wait()

    scopes = Chan()
    task = fork(body)
    outer, inner = scopes.recv()
    wait_for(task)
    outer.cancel()
    assert task.state == "waiting"
    inner.cancel()
    task.join()
    assert log == [True]


def test_task_cancel_ends_it(at):
    task = fork(at.wait)
    wait_for(task)
    task.cancel()
    Goroutine.join(task)
    assert type(task.exception()).__name__ == "Canceled"


def test_a_plain_thread_is_woken(at):
    log, scopes = [], Chan()

    def body():
        with cancel_scope() as scope:
            scopes.send((scope, current()))
            try:
                at.wait()
            except Cancelled:
                log.append("cancelled")
                raise

    thread = threading.Thread(target=body)
    thread.start()
    scope, goroutine = scopes.recv()
    wait_for(goroutine)
    scope.cancel()
    while thread.is_alive():
        gosched()
    assert log == ["cancelled"]


def test_it_waits_on_after_a_cancelled_scope(at):
    """Cancelled once, the point works again: the same wait is woken a second time."""
    with cancel_scope() as scope:
        scope.cancel()
        at.wait()
    task = fork(at.wait)
    wait_for(task)
    task.cancel()
    Goroutine.join(task)


@pytest.mark.parametrize("turn", [gosched, partial(sleep, 0), partial(sleep, -1)])
def test_giving_way_raises_too(turn):
    with cancel_scope() as scope:
        scope.cancel()
        for _ in range(3):
            with pytest.raises(Cancelled):
                turn()
    turn()


def test_giving_way_raises_when_cancelled_meanwhile():
    with cancel_scope() as scope:
        go(scope.cancel)
        with pytest.raises(Cancelled):
            while True:
                gosched()
    assert scope.cancelled


def test_run_inside_a_scope():
    def main(log):
        inner = fork(Chan().recv)
        wait_for(inner)
        scope.cancel()
        try:
            Chan().recv()
        finally:
            log.append("main")

    log = []
    with cancel_scope() as scope:
        run(main, log)
        log.append("not here")
    assert log == ["main"]


def test_run_that_does_not_wait_returns_in_a_cancelled_scope():
    with cancel_scope() as scope:
        scope.cancel()
        assert run(int) == 0


def test_closing_wakes_and_does_not_wait():
    ch = Chan()
    task = fork(ch.recv_ok)
    wait_for(task)
    with cancel_scope() as scope:
        scope.cancel()
        ch.close()
    assert task.join() == (None, False)


def test_starting_does_not_wait():
    ran = Chan(4)
    with cancel_scope() as scope:
        scope.cancel()
        go(ran.send, 1)
        fork(ran.send, 2)
        WaitGroup().go(ran.send, 3)
        with Group() as g:
            g.go(ran.send, 4)
    assert sorted(ran.recv() for _ in range(4)) == [1, 2, 3, 4]


def test_a_lock_that_is_free_is_taken_although_others_queue():
    """After an unlock the mutex is free for a moment, while its next owner is on the way."""
    mutex, log = locked(Mutex()), []

    def queued():
        with mutex:
            log.append("queued")

    tasks = [fork(queued) for _ in range(3)]
    for task in tasks:
        wait_for(task)
    with cancel_scope() as scope:
        scope.cancel()
        mutex.unlock()
        try:
            taken = mutex.try_lock()
            if taken:
                mutex.unlock()
                mutex.lock()  # as free as it was for try_lock
                mutex.unlock()
        except Cancelled:
            log.append("raised")
    for task in tasks:
        task.join()
    assert log == ["queued"] * 3
