"""gather and race: results, failures, and that nothing is left running."""

import functools
import gc

import pytest

from gofer import (
    Cancelled,
    Chan,
    cancel_scope,
    fork,
    gather,
    goexit,
    gosched,
    map,
    race,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

from shared import in_thread
from shared.groups import REFUSED, Odd, fails, kinds, wait_for_ever

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


# --- gather -------------------------------------------------------------------------------------


def test_gather_returns_results_in_order():
    def one():
        second.recv()
        return 1

    def two():
        second.send(None)
        return 2

    second = Chan()
    assert gather(one, two, int, lambda: None) == [1, 2, 0, None]


def test_gather_of_nothing():
    assert gather() == []


def test_the_first_failure_of_gather_cancels_the_others(until):
    log = []

    def waits():
        log.append("waits")
        try:
            wait_for_ever()
        finally:
            log.append("ended")

    def fails_later():
        until(lambda: len(log) == 2)
        raise ValueError

    with pytest.raises(ExceptionGroup) as caught:
        gather(waits, waits, fails_later)
    assert kinds(caught.value) == [ValueError]
    assert log == ["waits"] * 2 + ["ended"] * 2


def test_goexit_in_gather_is_a_result_of_none():
    assert gather(goexit, int) == [None, 0]


def test_a_cancelled_of_its_own_leaves_the_others_alone():
    log = []
    with pytest.raises(Canceled):
        gather(fails(Cancelled()), lambda: [gosched(), log.append(1)])
    assert log == [1]


@pytest.mark.parametrize("start", [gather, race])
def test_cancelled_with_the_scope_around_it(start, parked):
    log = []

    def waits():
        try:
            wait_for_ever()
        finally:
            log.append("ended")

    def body():
        with cancel_scope() as scope:
            scopes.send(scope)
            start(waits, waits)
            log.append("not here")
        return "left"

    scopes = Chan()
    task = fork(body)
    scope = scopes.recv()
    parked(task)
    scope.cancel()
    assert task.join() == "left"
    assert len(log) <= 2  # one that has not begun ends where it would wait
    assert set(log) <= {"ended"}


@pytest.mark.parametrize("start", [gather, race])
@pytest.mark.parametrize("refused", REFUSED)
def test_what_can_not_run_is_refused_before_anything_begins(start, refused):
    log = []
    with pytest.raises(TypeError, match=start.__name__):
        start(lambda: log.append(1), refused)
    gosched()
    assert log == []


@pytest.mark.parametrize("start", [gather, race])
def test_an_ending_that_is_no_exception(start):
    with pytest.raises(BaseExceptionGroup) as caught:
        start(wait_for_ever, fails(Odd()), wait_for_ever)
    assert kinds(caught.value) == [Odd]


def test_in_a_thread():
    assert in_thread(gather, int, str) == [0, ""]
    assert in_thread(race, int, wait_for_ever) == 0
    assert in_thread(lambda: list(map(abs, [1, -2]))) == [1, 2]


# --- race ---------------------------------------------------------------------------------------


def test_the_first_to_return_wins():
    log = []

    def slow():
        ready.send(None)
        try:
            wait_for_ever()
        finally:
            with shield():
                gosched()
            log.append("ended")

    def quick():
        ready.recv()
        return "quick"

    ready = Chan()
    assert race(slow, quick) == "quick"
    assert log == ["ended"]


@pytest.mark.parametrize("result", [None, False, ()])
def test_any_result_wins(result):
    assert race(wait_for_ever, lambda: result) is result


def test_race_alone():
    assert race(lambda: 5) == 5
    with pytest.raises(ExceptionGroup):
        race(fails(KeyError()))


def test_a_failure_does_not_end_the_race(until):
    log = []

    def fails_first():
        log.append("fails")
        raise ValueError

    def wins():
        until(lambda: log)
        gosched()
        sleep(0)  # raises if cancelled
        return "wins"

    assert race(fails_first, wins) == "wins"


def test_if_all_fail_all_failures_are_raised_in_order():
    errors = [ValueError(), KeyError(), OSError()]

    def first():
        last.recv_ok()
        raise errors[0]

    def second():
        try:
            raise errors[1]
        finally:
            last.close()

    last = Chan()
    with pytest.raises(ExceptionGroup) as caught:
        race(first, second, fails(errors[2]))
    assert caught.value.exceptions == tuple(errors)


def test_race_of_nobody():
    with pytest.raises(ValueError, match="no functions"):
        race()


@pytest.mark.usefixtures("one_worker")
def test_who_has_not_begun_when_somebody_has_won_does_not_begin():
    log = []
    assert race(lambda: 1, lambda: log.append("begun")) == 1
    assert log == []


def test_failures_of_those_who_lost_are_dropped(unraisable, until):
    begun = []

    def loses():
        begun.append(1)
        try:
            wait_for_ever()
        finally:
            raise ValueError

    def wins():
        until(lambda: begun)
        return "won"

    assert race(loses, wins) == "won"
    gc.collect()
    assert unraisable == []


@pytest.mark.parametrize("leave", [goexit, fails(Cancelled())])
def test_who_leaves_neither_wins_nor_fails(leave):
    assert race(leave, lambda: [gosched()]) == [None]
    with pytest.raises(ExceptionGroup) as caught:
        race(leave, fails(KeyError()))
    assert kinds(caught.value) == [KeyError]
    with pytest.raises(Canceled):
        race(leave, leave)


def test_races_in_a_race():
    def inner():
        return race(wait_for_ever, wait_for_ever)

    assert race(inner, lambda: race(wait_for_ever, lambda: 7), inner) == 7


def test_a_timeout_around_a_race():
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            race(wait_for_ever, wait_for_ever)


def test_a_timeout_is_one_of_the_racers():
    def limited():
        with timeout(0.001):
            wait_for_ever()

    with pytest.raises(ExceptionGroup) as caught:
        race(limited, limited)
    assert kinds(caught.value) == [TimeoutError] * 2


@pytest.mark.parametrize("start", [gather, race])
def test_storm_of_timeouts(start, rng):
    def waits(steps):
        for _ in range(steps):
            gosched()
        sleep(1)

    for _ in range(100):
        with pytest.raises(TimeoutError):
            with timeout(rng.random() * 0.001):
                start(*[functools.partial(waits, rng.randrange(5)) for _ in range(3)])


def test_storm_of_races(rng):
    for _ in range(100):
        steps = [rng.randrange(6) for _ in range(rng.randrange(1, 6))]
        end = rng.choice([int, fails(KeyError()), wait_for_ever])

        def runner(n, steps=steps, ends=end):
            for _ in range(steps[n]):
                gosched()
            return n if n % 2 else ends()

        racers = [functools.partial(runner, n) for n in range(len(steps))]
        try:
            with timeout(0.005):
                assert race(*racers) in range(len(steps))
        except* (KeyError, TimeoutError):
            pass
