"""Who waits for a lock of threading hears of a cancellation only after a while."""

import threading

import pytest

from gofer import cancel_scope, fork
from gofer.testing import bubble, wait
from gofer.time import now

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")


@pytest.fixture(params=[threading.Lock, threading.RLock], ids=["lock", "rlock"])
def mutex(request):
    """A mutex that goroutine 1 holds, in a bubble: time passes there only when all wait."""
    it = request.param()
    with bubble():
        it.acquire()
        yield it


def take_in_a_cancelled_scope(mutex, *limit):
    with cancel_scope() as scope:
        scope.cancel()
        taken = mutex.acquire(True, *limit)
        if taken:
            mutex.release()
        return taken
    return "cancelled"


def test_cleaning_up_takes_a_lock_that_another_holds_for_a_moment(mutex):
    task = fork(take_in_a_cancelled_scope, mutex)
    wait()
    mutex.release()
    assert task.join() is True


def test_a_lock_that_is_waited_for_when_the_cancellation_comes(mutex):
    def take():
        with scope, mutex:
            taken.append(True)

    scope, taken = cancel_scope(), []
    task = fork(take)
    wait()
    scope.cancel()
    wait()
    mutex.release()
    task.join()
    assert taken == [True]


def test_a_lock_that_stays_locked_is_given_up(mutex):
    start = now()
    task = fork(take_in_a_cancelled_scope, mutex)
    assert task.join() == "cancelled"
    assert now() - start == pytest.approx(1)
    mutex.release()
    assert take_in_a_cancelled_scope(mutex) is True


@pytest.mark.parametrize(("seconds", "outcome"), [(0.5, False), (5, "cancelled")])
def test_a_limit_of_its_own_and_a_cancellation(mutex, seconds, outcome):
    start = now()
    task = fork(take_in_a_cancelled_scope, mutex, seconds)
    assert task.join() == outcome
    assert now() - start == pytest.approx(min(seconds, 1))


def test_a_signal_handler_waits_meanwhile(program):
    """It waits for a lock, in a goroutine that waits for one patiently."""
    outcome = program(
        """
        import signal, threading
        import gofer
        gofer.patch()
        one, two, handling = threading.Lock(), threading.Lock(), gofer.Chan()

        def until(condition):
            while not condition():
                gofer.gosched()

        def hold_both():
            with one:
                with two:
                    until(lambda: main.state == "waiting")
                    signal.setitimer(signal.ITIMER_REAL, 0.01)
                    handling.recv()  # now all wait
                    until(lambda: main.state == "waiting")
                until(lambda: main.state == "waiting")

        def handler(*_):
            with gofer.shield():
                handling.send(None)
                with two:
                    print("handled")

        main = gofer.current()
        signal.signal(signal.SIGALRM, handler)
        holder = gofer.fork(hold_both)
        until(two.locked)
        with gofer.cancel_scope() as scope:
            scope.cancel()
            with one:
                pass
        holder.join()
        """
    )
    assert outcome == (0, "handled\n", "")


def test_what_is_no_lock_is_given_up_at_once():
    event = threading.Event()
    with bubble(), cancel_scope() as scope:
        start = now()
        scope.cancel()
        try:
            event.wait()
        finally:
            assert now() == start
    assert scope.cancelled
