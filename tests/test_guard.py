"""Guards: what protects the library's own state is given back, however a goroutine ends."""

import pytest

from gofer import cancel_scope, fork, go, gosched, run
from gofer._guard import Guard
from gofer.errors import GoroutineExit

pytestmark = pytest.mark.usefixtures("nothing_left")


def wait_for(guard, log):
    try:
        with guard:
            log.append("inside")
    except BaseException as error:
        log.append(type(error))
        raise
    finally:
        log.append("over")


@pytest.mark.usefixtures("one_worker")
def test_the_end_comes_while_a_guard_is_waited_for():
    """It is handed over to a goroutine that is to end: that one has it, and gives it back."""

    def main():
        with guard:
            task = go(wait_for, guard, log)
            while task.state != "waiting":
                gosched()

    guard, log = Guard(), []
    run(main)
    assert log == ["inside", GoroutineExit, "over"]
    with guard:  # or nobody could ever have it again
        pass


@pytest.mark.usefixtures("one_worker")
def test_the_end_waits_while_a_guard_is_held():
    def work():
        try:
            with guard:
                gosched()  # the others end meanwhile
                log.append("inside")
            log.append("not reached")
        finally:
            log.append("over")

    guard, log = Guard(), []
    run(lambda: go(work) and gosched())
    assert log == ["inside", "over"]
    with guard:
        pass


@pytest.mark.usefixtures("one_worker")
def test_who_waits_while_the_end_is_held_off_lets_the_holder_go_on():
    def hold():
        with guard:
            for _ in range(3):
                gosched()
            log.append("held")

    def main():
        go(hold)
        gosched()
        go(wait_for, guard, log)
        gosched()

    guard, log = Guard(), []
    run(main)
    assert log == ["held", "inside", GoroutineExit, "over"]


@pytest.mark.usefixtures("one_worker")
def test_guards_in_guards():
    def work():
        with outer:
            with inner:
                gosched()
            log.append("inner")
        log.append("not reached")

    outer, inner, log = Guard(), Guard(), []
    run(lambda: go(work) and gosched())
    assert log == ["inner"]
    for guard in (outer, inner):
        with guard:
            pass


@pytest.mark.usefixtures("one_worker")
def test_cleaning_up_takes_guards_too():
    def work():
        try:
            gosched()
        finally:
            for _ in range(3):
                wait_for(guard, log)

    guard, log = Guard(), []
    run(lambda: go(work) and gosched())
    assert log == ["inside", "over"] * 3


def test_a_cancellation_waits_while_a_guard_is_waited_for():
    def work():
        with cancel_scope() as scope:
            scopes.append(scope)
            wait_for(guard, log)

    guard, log, scopes = Guard(), [], []
    with guard:
        task = fork(work)
        while task.state != "waiting":
            gosched()
        scopes[0].cancel()
        gosched()
    task.join()
    assert log == ["inside", "over"]


def test_many_that_end_at_once(rng):
    """However far each of them has come, the guard is free in the end."""
    for _ in range(50):
        guard, log = Guard(), []

        def work(turns, guard=guard, log=log):
            for _ in range(turns):
                wait_for(guard, log)
                gosched()

        def main(work=work):
            for _ in range(20):
                go(work, rng.randrange(1, 5))
            for _ in range(rng.randrange(5)):
                gosched()

        run(main)
        with guard:
            pass
        assert log.count("over") >= log.count("inside")
