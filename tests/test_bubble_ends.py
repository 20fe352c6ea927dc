"""gofer.testing.bubble: deadlocks, panics and exceptions, what is left over, several at a time."""

import gc
import os
import signal
import sys
import weakref

import pytest

from gofer import (
    Chan,
    Group,
    Mutex,
    Ticker,
    WaitGroup,
    after,
    after_func,
    cancel_scope,
    current,
    fork,
    go,
    goexit,
    gosched,
    run,
    select,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Cancelled, Deadlock
from gofer.sync import atomic
from gofer.testing import bubble, wait
from gofer.time import now

from shared import Token, in_thread
from shared.bubbles import HOUR

pytestmark = pytest.mark.usefixtures("nothing_left")

ASLEEP = "all goroutines of the bubble are asleep"
OVER = "the bubble's block has ended"


def wait_for_ever():
    Chan().recv()


# --- deadlocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait_for_ever",
    [
        lambda: Chan().recv(),
        lambda: Chan().send(1),
        select,
        lambda: select(Chan().recv, Chan().recv),
        lambda: fork(wait_for_ever).join(),
        lambda: [lock := Mutex(), lock.lock(), lock.lock()],
        lambda: [group := WaitGroup(), group.add(), group.wait()],
    ],
)
def test_a_deadlock_of_the_block(wait_for_ever):
    with pytest.raises(Deadlock, match=ASLEEP):
        with bubble():
            wait_for_ever()


def test_a_deadlock_shows_where_every_goroutine_is():
    def philosopher(mine, other):
        with mine:
            wait()
            with other:
                pass

    with pytest.raises(Deadlock, match=ASLEEP) as caught:
        with bubble():
            one, other = Mutex(), Mutex()
            with Group() as g:
                g.go(philosopher, one, other)
                g.go(philosopher, other, one)
    notes = "\n".join(caught.value.__notes__)
    assert notes.count("[mutex lock]:\n") == 2
    assert notes.count(f"philosopher(...)\n\t{__file__}:") == 2
    assert "test_a_deadlock_shows_where_every_goroutine_is(...)" in notes
    assert "created by test_a_deadlock_shows_where_every_goroutine_is" in notes


def test_a_deadlock_can_be_survived():
    with bubble():
        start = now()
        for _ in range(3):
            with pytest.raises(Deadlock, match=ASLEEP):
                wait_for_ever()
            sleep(1)
        assert now() == start + 3


def test_a_deadlock_is_none_while_there_is_a_timer():
    with bubble():
        ch = Chan()
        after_func(HOUR, ch.send, 1)
        assert ch.recv() == 1


@pytest.mark.parametrize(
    "stay",
    [
        wait_for_ever,
        lambda: sleep(HOUR),
        lambda: list(Ticker(1)),
        lambda: after(HOUR).recv(),
        lambda: run_in_timeout(wait_for_ever),
    ],
    ids=["receive", "sleep", "ticks", "timer", "timeout"],
)
def test_who_still_waits_at_the_end_of_the_block(stay):
    """The clock stops there, as in Go: ticks would come for ever."""
    ended = []

    def named():
        try:
            stay()
        finally:
            ended.append(now())

    with pytest.raises(Deadlock, match=OVER) as caught:
        with bubble():
            start = now()
            go(named)
    assert ended == [start]
    notes = "\n".join(caught.value.__notes__)
    assert f"named(...)\n\t{__file__}:" in notes
    assert "created by test_who_still_waits_at_the_end_of_the_block in goroutine" in notes


def run_in_timeout(fn):
    with timeout(HOUR):
        fn()


def test_who_can_end_without_the_clock_is_waited_for():
    done = []
    with bubble():
        ch = Chan()

        def work(n):
            for _ in range(n):
                gosched()
            done.append(ch.recv())

        for n in range(5):
            go(work, n)
            go(ch.send, n)
    assert sorted(done) == [*range(5)]


def test_cleaning_up_may_take_time():
    """Whoever is cancelled at the end has the clock again."""
    took = []

    def slow():
        start = now()
        try:
            wait_for_ever()
        finally:
            with shield():
                sleep(HOUR)
            took.append(now() - start)

    with pytest.raises(Deadlock, match=OVER):
        with bubble():
            go(slow)
    with pytest.raises(ZeroDivisionError):
        with bubble():
            go(slow)
            wait()
            1 / 0  # noqa: B018
    assert took == [HOUR, HOUR]


def test_one_that_can_not_be_cancelled_is_given_up(unraisable):
    def stubborn():
        with shield():
            inner.recv()

    with pytest.raises(Deadlock, match=OVER):
        with bubble():
            inner = Chan()
            left = go(stubborn)
    assert left.state == "waiting"
    inner.send("at last")
    left.join()
    assert unraisable == []


def test_a_deadlock_in_the_bubble_of_another_goroutine():
    def lonely():
        with pytest.raises(Deadlock, match=ASLEEP):
            with bubble():
                wait_for_ever()
        return "raised there"

    assert fork(lonely).join() == "raised there"


def test_a_deadlock_of_the_whole_program(program):
    """Who waits for the outside holds up the clock, and outside there is nobody."""
    result = program(
        """
        from gofer import *
        from gofer.testing import bubble
        outside = Chan()
        with bubble():
            after_func(1, print, "not reached")
            outside.recv()
        """
    )
    assert (result.status, result.out) == (2, "")
    assert "\ngofer.errors.Deadlock: all goroutines are asleep - deadlock!" in result.err
    assert "goroutine 1 [chan receive]" in result.err


# --- panics and exceptions ----------------------------------------------------------------------


def test_a_panic_is_raised_by_the_block():
    with pytest.raises(ZeroDivisionError):
        with bubble():
            go(divmod, 1, 0)
            sleep(HOUR)
            raise AssertionError("not reached")
    with pytest.raises(ZeroDivisionError):
        with bubble():
            go(divmod, 1, 0)


def test_a_panic_cancels_the_others():
    ended = []

    def other():
        try:
            sleep(HOUR)
        finally:
            ended.append(now())

    with pytest.raises(ZeroDivisionError):
        with bubble():
            start = now()
            go(other)
            after_func(60, divmod, 1, 0)
            wait_for_ever()
    assert ended == [start + 60]


def test_several_panics():
    def fail(error):
        raise error

    with pytest.raises(ExceptionGroup, match="panics in a bubble") as caught:
        with bubble():
            for error in (ValueError("one"), KeyError("two")):
                after_func(1, fail, error)
            sleep(HOUR)
    assert sorted(map(repr, caught.value.exceptions)) == ["KeyError('two')", "ValueError('one')"]


def test_a_panic_and_an_exception_of_the_block():
    with pytest.raises(ExceptionGroup) as caught:
        with bubble():
            go(divmod, 1, 0)
            try:
                sleep(HOUR)
            except Cancelled:
                raise ValueError("mine") from None
    assert [type(error) for error in caught.value.exceptions] == [ValueError, ZeroDivisionError]


def test_an_exception_of_the_block_is_raised_as_it_is():
    error = ValueError("mine")
    with pytest.raises(ValueError) as caught:
        with bubble():
            go(sleep, HOUR)
            raise error
    assert caught.value is error
    assert error.__cause__ is error.__context__ is None


def test_tasks_keep_their_failures():
    with bubble():
        task = fork(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            task.join()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_of_the_block_goes_through(kind):
    ended = []

    def other():
        try:
            sleep(HOUR)
        finally:
            ended.append(True)

    with pytest.raises(kind):
        with bubble():
            go(other)
            wait()
            raise kind
    assert ended == [True]


def test_ctrl_c_while_all_wait_for_the_outside():
    """And at the end, for one that waits for the outside."""
    outside = Chan()
    main = current()

    def interrupt():
        while main.state != "waiting":
            gosched()
        os.kill(os.getpid(), signal.SIGINT)

    for block in (outside.recv, int):
        interrupter = go(interrupt)
        with pytest.raises(KeyboardInterrupt):
            with bubble():
                go(outside.recv)
                block()
        interrupter.join()


def test_goexit_of_the_block():
    def leaves():
        with bubble():
            go(sleep, HOUR)
            goexit()

    go(leaves).join()


def test_the_end_of_run_in_a_bubble():
    ended = []

    def stays():
        try:
            with bubble():
                outside.recv()
        finally:
            ended.append(True)

    outside = Chan()

    def main():
        g = go(stays)
        while g.state != "waiting":
            gosched()

    run(main)
    assert ended == [True]


def test_a_cancellation_from_outside_ends_it():
    with cancel_scope() as scope:
        with bubble():
            go(scope.cancel)
            outside = go(wait_for_ever)
            wait_for_ever()
            raise AssertionError("not reached")
        raise AssertionError("not reached")
    assert outside.done


# --- where it can be used -----------------------------------------------------------------------


def test_a_bubble_is_not_for_bubbles():
    with bubble():
        with pytest.raises(RuntimeError, match=r"bubble\(\) inside of a bubble"):
            with bubble():
                raise AssertionError("not reached")
        with pytest.raises(RuntimeError, match=r"bubble\(\) inside of a bubble"):
            fork(bubble().__enter__).join()


def test_a_bubble_is_good_for_one_block():
    used = bubble()
    with used:
        pass
    with pytest.raises(RuntimeError, match="good for one with block"):
        with used:
            raise AssertionError("not reached")


def test_a_block_ends_where_it_began():
    unended = bubble()
    with unended:
        with pytest.raises(RuntimeError, match="left by a goroutine that is not in it"):
            fork(unended.__exit__, None, None, None).join()
        sleep(HOUR)  # it has not been cancelled
    with pytest.raises(RuntimeError, match="left by a goroutine that is not in it"):
        unended.__exit__(None, None, None)


def test_goroutines_of_the_outside_are_not_in_it():
    asked, told = Chan(), Chan()
    start = now()

    def outsider():
        told.send((asked.recv(), now()))

    g = go(outsider)
    with bubble():
        sleep(HOUR)
        asked.send(None)
        _, there = told.recv()
        assert there < start + HOUR <= now()
    g.join()


def test_several_at_a_time_have_clocks_of_their_own():
    def lives(hours):
        with bubble():
            start = now()
            with Group() as g:
                for n in range(hours):
                    g.go(sleep, n * HOUR)
                g.go(gosched)
            return round(now() - start)

    tasks = [fork(lives, hours) for hours in range(1, 30)]
    assert [task.join() for task in tasks] == [n * HOUR for n in range(29)]


def test_many_bubbles_with_many_goroutines():
    def one():
        with bubble():
            gate, group, got = Chan(), WaitGroup(), atomic.Int()
            for _ in range(100):
                group.go(lambda: (gate.recv_ok(), got.add(1)))
            wait()
            assert got.load() == 0
            gate.close()
            group.wait()
            assert got.load() == 100

    with Group() as g:
        for _ in range(30):
            g.go(one)


def test_between_workers_no_wake_up_is_lost(rng):
    """Goroutines that hand values around, sleep and time out, on as many workers as there are."""

    def node(ch, then, hops):
        for n in ch:
            sleep(n % 7)
            if n == hops:
                return then.close() or True
            then.send(n + 1)
        then.close()
        return False

    for _ in range(20):
        with bubble():
            start, size, hops = now(), rng.randrange(2, 9), rng.randrange(20, 200)
            ring = [Chan() for _ in range(size)]
            with Group() as g:
                tasks = [g.go(node, ring[k], ring[(k + 1) % size], hops) for k in range(size)]
                ring[0].send(0)
                tasks[hops % size].join()
                g.cancel()
            assert now() - start == sum(n % 7 for n in range(hops + 1))


def test_a_thread_may_have_one():
    def body():
        start, seen = now(), []
        with bubble():
            begin = now()
            after_func(1, seen.append, "in time")
            with Group() as g:
                g.go(sleep, HOUR)
            assert (seen, now() - begin) == (["in time"], HOUR)
            with pytest.raises(TimeoutError):
                with timeout(5):
                    wait_for_ever()
            wait()
            with pytest.raises(Deadlock, match=ASLEEP):
                wait_for_ever()
            with pytest.raises(ZeroDivisionError):
                fork(divmod, 1, 0).join()
        with pytest.raises(Deadlock, match=OVER):
            with bubble():
                go(wait_for_ever)
        return now() < start + HOUR

    assert in_thread(body)


def test_threads_that_are_started_inside_are_outside():
    with bubble():
        start = now()
        assert in_thread(now) < start + 10
        ch = Chan()
        assert in_thread(lambda: fork(ch.close).join()) is None
        assert ch.closed


# --- what it leaves behind ----------------------------------------------------------------------


def test_collections_inside():
    with bubble():
        token = Token()
        cycle = [token]
        cycle.append(cycle)
        gone = weakref.ref(token)
        del token, cycle
        task = fork(sleep, HOUR)
        wait()
        gc.collect()
        assert gone() is None
        task.join()


def test_nothing_refers_to_it_afterwards():
    def use(fail):
        used, token = bubble(), Token()
        with used:
            fork(sleep, HOUR).join()
            go(lambda: token and None)
            after_func(HOUR, lambda: token)
            if fail:
                raise ValueError
        return weakref.ref(used), weakref.ref(token)

    for _ in range(3):
        assert [gone() for gone in use(False)] == [None, None]
    with pytest.raises(ValueError):
        use(True)
    unused = weakref.ref(bubble())
    assert unused() is None
    with bubble():
        refused = bubble()
        with pytest.raises(RuntimeError):
            refused.__enter__()
        refused = weakref.ref(refused)
    assert refused() is None


def test_references_are_steady():
    def once():
        with pytest.raises(ZeroDivisionError):
            with bubble():
                with pytest.raises(TimeoutError):
                    with timeout(1):
                        wait_for_ever()
                go(divmod, 1, 0)
                sleep(1)

    for _ in range(20):
        once()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(200):
        once()
    gc.collect()
    assert sys.getallocatedblocks() - before < 100
