"""timeout: when it is over, and that each TimeoutError is told apart from every other."""

import math
import threading
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import pytest

from gofer import (
    Cancelled,
    Chan,
    cancel_scope,
    go,
    gosched,
    shield,
    sleep,
    timeout,
)

from shared.clock import LONG
from shared.groups import wait_for_ever
from shared.scopes import is_cancelled

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


def test_it_raises_timeout_error():
    with pytest.raises(TimeoutError, match=r"^timeout\(0\.001\) expired$") as caught:
        with timeout(0.001) as limit:
            wait_for_ever()
    assert isinstance(caught.value.__cause__, Cancelled)
    assert limit.expired
    assert not is_cancelled()


def test_in_time_it_does_nothing():
    with timeout(LONG) as limit:
        sleep(0.001)
    assert not limit.expired


def test_over_when_nothing_waits_any_more_it_raises_nothing():
    with timeout(0) as limit:
        pass
    assert limit.expired
    with timeout(0.001) as limit:
        with shield():
            while not limit.expired:
                gosched()
    assert limit.expired


def test_over_it_lets_other_exceptions_pass():
    with pytest.raises(KeyError):
        with timeout(0):
            raise KeyError


@pytest.mark.parametrize("d", [0, -1, 0.0, -0.0, -math.inf, timedelta(0), timedelta(-1), False])
def test_no_time_at_all(d):
    log = []
    with pytest.raises(TimeoutError, match=r"^timeout\(0\.0\) expired$"):
        with timeout(d) as limit:
            log.append(limit.expired)
            Chan(1).send("needs no waiting")
            wait_for_ever()
    assert log == [True]


@pytest.mark.parametrize("d", [None, math.inf, 1e300, 1e10])
def test_no_limit(d):
    with timeout(d) as limit:
        assert not is_cancelled()
    assert not limit.expired
    assert repr(limit).startswith("<timeout(None) left at ")


@pytest.mark.parametrize(
    "d", [0.001, timedelta(milliseconds=1), timedelta(microseconds=1), 1e-9, Decimal("0.001")]
)
def test_ways_to_say_how_long(d):
    with pytest.raises(TimeoutError):
        with timeout(d):
            wait_for_ever()


@pytest.mark.parametrize("d", ["1", b"1", [1], (), 1j, object()])
def test_what_is_no_time(d):
    with pytest.raises(TypeError, match="timeout takes seconds as a number or a timedelta"):
        timeout(d)


def test_not_a_number():
    with pytest.raises(ValueError, match="not nan"):
        timeout(math.nan)


def test_wrong_arguments():
    for call in (
        timeout,
        lambda: timeout(1, 2),
        lambda: timeout(d=1),
        lambda: timeout.__new__(timeout),
        lambda: cancel_scope(1),
        lambda: cancel_scope(x=1),
        lambda: shield(None),
        lambda: shield.__new__(shield, 1),
        lambda: cancel_scope().__exit__(),
        lambda: cancel_scope().cancel(1),
    ):
        with pytest.raises(TypeError):
            call()


def test_they_can_not_be_derived_from():
    for base in (cancel_scope, timeout, shield):
        with pytest.raises(TypeError):
            type("Mine", (base,), {})


@pytest.mark.parametrize(("first", "second"), [(0.001, LONG), (LONG, 0.001)])
def test_the_nearest_deadline_wins(first, second):
    log = []
    with pytest.raises(TimeoutError, match=r"timeout\(0\.001\)"):
        with timeout(first) as outer:
            try:
                with timeout(second) as inner:
                    wait_for_ever()
            except BaseException as error:
                log.append(type(error))
                raise
    assert (outer.expired, inner.expired) == (first == 0.001, second == 0.001)
    assert log == [Cancelled if outer.expired else TimeoutError]


@pytest.mark.parametrize("expiring", range(5))
def test_each_timeout_is_told_apart(expiring):
    """Of five in each other one expires: it alone raises, and the others go on."""
    limits, log = [], []

    def nest(level):
        if level == 5:
            wait_for_ever()
        limits.append(timeout(0.001 if level == expiring else LONG))
        try:
            with limits[level]:
                nest(level + 1)
        except TimeoutError:
            log.append(level)
            assert not is_cancelled()

    nest(0)
    assert log == [expiring]
    assert [limit.expired for limit in limits] == [level == expiring for level in range(5)]


def test_an_outer_one_fires_while_the_inner_ones_error_is_in_flight():
    """What is in flight stays what it is; nothing has waited since."""
    with pytest.raises(TimeoutError, match=r"timeout\(0\.0\) expired"):
        with timeout(0.001) as outer:
            try:
                with timeout(0):
                    wait_for_ever()
            finally:
                with shield():
                    while not outer.expired:
                        gosched()
    assert outer.expired


def test_an_outer_one_fires_in_a_finally_of_the_inner_ones_error():
    with pytest.raises(TimeoutError, match=r"timeout\(0\.001\) expired") as caught:
        with timeout(0.001):
            try:
                with timeout(0):
                    wait_for_ever()
            finally:
                wait_for_ever()
    cancelled = caught.value.__cause__
    assert isinstance(cancelled, Cancelled)
    assert "timeout(0.0)" in str(cancelled.__context__)


def test_an_inner_one_expires_in_a_finally_of_an_outer_one():
    """In the cleanup after an expired one no other time-out is mistaken for it."""
    log = []
    with pytest.raises(TimeoutError, match=r"timeout\(0\.001\) expired"):
        with timeout(0.001) as outer:
            try:
                wait_for_ever()
            finally:
                with shield():
                    try:
                        with timeout(0.002):
                            wait_for_ever()
                    except TimeoutError as error:
                        log.append(str(error))
                try:
                    with timeout(LONG):
                        gosched()
                except TimeoutError:
                    log.append("not mine")
    assert outer.expired
    assert log == ["timeout(0.002) expired"]


def test_the_error_of_an_inner_one_is_not_taken_for_ones_own():
    """`except TimeoutError` around an inner block sees only that block's."""
    log = []
    with pytest.raises(TimeoutError, match=r"timeout\(0\.001\)"):
        with timeout(0.001):
            for _ in range(1000):
                try:
                    with timeout(LONG):
                        wait_for_ever()
                except TimeoutError:
                    log.append("mistaken")
    assert log == []


def test_a_timeout_error_of_the_body_is_left_alone():
    error = TimeoutError("the body's own")
    with pytest.raises(TimeoutError) as caught:
        with timeout(0):
            raise error
    assert caught.value is error


def test_a_timeout_in_a_scope_that_is_cancelled_at_the_same_time():
    with cancel_scope() as outer:
        with timeout(0):
            outer.cancel()
            wait_for_ever()
        pytest.fail("the outer one takes it")
    assert outer.cancelled


def test_suppressed_timeouts_in_a_loop():
    """A server that serves who comes, and looks around once in a while."""
    ch, got, idle = Chan(), [], 0
    waiting_sender = go(ch.send, 1)
    while len(got) < 1 or idle < 3:
        try:
            with timeout(0.001):
                got.append(ch.recv())
        except TimeoutError:
            idle += 1
    waiting_sender.join()
    assert got == [1]


def test_in_a_plain_thread():
    log = []

    def body():
        try:
            with timeout(0.001) as limit:
                wait_for_ever()
        except TimeoutError:
            log.append(limit.expired)
        with timeout(LONG):
            with suppress(TimeoutError), timeout(0.001):
                sleep(LONG)
            log.append(is_cancelled())
        with pytest.raises(TimeoutError), timeout(0):
            with timeout(LONG):
                wait_for_ever()
        log.append(is_cancelled())

    thread = threading.Thread(target=body)
    thread.start()
    while thread.is_alive():
        gosched()
    assert log == [True, False, False]
