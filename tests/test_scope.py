"""cancel_scope: what is in it, who cancels it, and what passes through.

What each operation that waits does in a cancelled scope is in test_cancellation.py, shields are in
test_shield.py, time-outs in test_timeout.py, how scopes end in test_scope_lifetime.py, and scopes
with groups in test_scope_groups.py.
"""

import threading

import pytest

from gofer import (
    Cancelled,
    Chan,
    Goroutine,
    Group,
    Mutex,
    after_func,
    cancel_scope,
    fork,
    go,
    gosched,
    runtime,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

from shared.clock import LONG
from shared.groups import wait_for_ever
from shared.scopes import STARTS, body_that_waits, ended, is_cancelled, waiting

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


# --- cancel_scope -------------------------------------------------------------------------------


def test_a_scope_that_nobody_cancels_does_nothing():
    with cancel_scope() as scope:
        assert not is_cancelled()
    assert not scope.cancelled


def test_it_stops_its_own_cancelled():
    with cancel_scope() as scope:
        scope.cancel()
        wait_for_ever()
        pytest.fail("not here")
    assert scope.cancelled
    assert not is_cancelled()


def test_cancelled_when_nothing_waits_any_more_does_nothing():
    with cancel_scope() as scope:
        scope.cancel()
    assert scope.cancelled
    assert not is_cancelled()


def test_again_and_again_until_it_is_left():
    with cancel_scope() as scope:
        scope.cancel()
        for _ in range(1000):
            with pytest.raises(Cancelled):
                gosched()
    assert not is_cancelled()


def test_other_exceptions_pass():
    error = KeyError()
    with pytest.raises(KeyError) as caught:
        with cancel_scope() as scope:
            scope.cancel()
            raise error
    assert caught.value is error


def test_a_cancelled_that_became_something_else_passes():
    with pytest.raises(ValueError) as caught:
        with cancel_scope() as scope:
            scope.cancel()
            try:
                wait_for_ever()
            finally:
                raise ValueError
    assert isinstance(caught.value.__context__, Cancelled)


def test_a_cancelled_that_nobody_asked_for_passes():
    with pytest.raises(Cancelled):
        with cancel_scope():
            raise Cancelled


def test_cancel_may_be_repeated():
    with cancel_scope() as scope:
        for _ in range(3):
            scope.cancel()
        wait_for_ever()
    scope.cancel()
    assert not is_cancelled()


def test_cancelled_before_it_begins():
    log = []
    scope = cancel_scope()
    scope.cancel()
    with scope:
        log.append("begun")
        wait_for_ever()
        log.append("not here")
    assert log == ["begun"]


def test_cancelled_after_it_has_ended():
    with cancel_scope() as scope:
        pass
    assert not scope.cancelled
    scope.cancel()
    assert scope.cancelled
    assert not is_cancelled()


def test_cancelled_and_never_begun():
    scope = cancel_scope()
    scope.cancel()
    assert not is_cancelled()


def test_return_break_and_continue_leave_it():
    def leave():
        with cancel_scope() as scope:
            scope.cancel()
            return 1

    assert leave() == 1
    for n in range(3):
        with cancel_scope() as scope:
            scope.cancel()
            if n == 1:
                continue
            if n == 2:
                break
    assert not is_cancelled()


# --- who cancels --------------------------------------------------------------------------------


def by_a_goroutine(scope):
    go(scope.cancel)


def by_a_thread(scope):
    thread = threading.Thread(target=scope.cancel)
    thread.start()
    thread.join()


def by_a_timer(scope):
    after_func(0.001, scope.cancel)


def by_another_scope(scope):
    """From inside a cancelled scope: cancelling does not wait."""
    with cancel_scope() as mine:
        mine.cancel()
        scope.cancel()


@pytest.mark.parametrize("cancel", [by_a_goroutine, by_a_thread, by_a_timer, by_another_scope])
def test_who_waits_is_woken(cancel):
    scopes = Chan()
    task = fork(body_that_waits, scopes)
    scope = scopes.recv()
    while task.state != "waiting":
        gosched()
    cancel(scope)
    assert task.join() == "left"


def test_by_itself_from_its_finally():
    with cancel_scope() as scope:
        try:
            pass
        finally:
            scope.cancel()
            assert is_cancelled()


def test_one_that_computes_is_cancelled_at_its_next_wait():
    """Never between two bytecodes: a thread cancels, and the loop goes on until it waits."""
    with cancel_scope() as scope:
        thread = threading.Thread(target=scope.cancel)
        thread.start()
        thread.join()
        done = sum(range(1000))
        assert is_cancelled()
    assert done == 499500


def test_many_cancel_at_a_time():
    for _ in range(20):
        scopes, task = Chan(), None
        task = fork(body_that_waits, scopes)
        scope = scopes.recv()
        threads = [threading.Thread(target=scope.cancel) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            go(scope.cancel)
        assert task.join() == "left"
        for thread in threads:
            thread.join()


# --- scopes in scopes ---------------------------------------------------------------------------


def test_the_outer_one_reaches_in():
    log = []
    with cancel_scope() as outer:
        with cancel_scope() as inner:
            outer.cancel()
            assert is_cancelled()
            assert not inner.cancelled
            try:
                wait_for_ever()
            finally:
                log.append("passed")
        log.append("not here")
    assert log == ["passed"]


def test_the_inner_one_does_not_reach_out():
    with cancel_scope():
        with cancel_scope() as inner:
            inner.cancel()
            wait_for_ever()
        assert not is_cancelled()


def test_of_two_that_are_cancelled_the_outer_one_stops_it():
    log = []
    with cancel_scope():
        with cancel_scope() as second:
            with cancel_scope() as third:
                third.cancel()
                second.cancel()
                wait_for_ever()
            log.append("not here")
        log.append("here")
        assert not is_cancelled()
    assert log == ["here"]


def test_an_outer_one_that_is_cancelled_on_the_way_out():
    """The inner one's Cancelled is in flight; from then on it is the outer one's."""
    log = []
    with cancel_scope() as outer:
        with cancel_scope() as inner:
            inner.cancel()
            try:
                wait_for_ever()
            finally:
                outer.cancel()
        log.append("not here")
    assert log == []


def test_a_scope_begun_in_a_cancelled_one_is_cancelled():
    with cancel_scope() as outer:
        outer.cancel()
        with cancel_scope() as inner:
            assert is_cancelled()
            assert not inner.cancelled
        with pytest.raises(Cancelled):
            with timeout(LONG):
                wait_for_ever()
    assert not is_cancelled()


def test_siblings_do_not_reach_each_other():
    scopes = Chan()
    with cancel_scope():
        first, second = fork(body_that_waits, scopes), fork(body_that_waits, scopes)
        one, other = scopes.recv(), scopes.recv()
        one.cancel()
        while not (first.done or second.done):
            gosched()
        assert not (first.done and second.done)
        other.cancel()
        assert [first.join(), second.join()] == ["left"] * 2


# --- what is started inside ---------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
def test_it_is_cancelled_with_the_scope(start):
    log = Chan(10)

    def child():
        try:
            wait_for_ever()
        finally:
            log.send(is_cancelled())

    with cancel_scope() as scope:
        child_goroutine = start(child)
        while child_goroutine.state != "waiting":
            gosched()
        scope.cancel()
    child_goroutine.join() if type(child_goroutine) is Goroutine else ended(child_goroutine)
    assert log.recv() is True


@pytest.mark.parametrize("start", STARTS)
def test_it_is_born_cancelled_in_a_cancelled_scope(start):
    log = Chan(10)
    with cancel_scope() as scope:
        scope.cancel()
        goroutine = start(lambda: log.send(is_cancelled()))
    ended(goroutine)
    assert log.recv() is True


def test_members_of_a_group_are_in_the_scope_around_it():
    def member():
        try:
            wait_for_ever()
        finally:
            log.append("member")

    log = []
    with cancel_scope() as scope:
        with Group() as g:
            task = g.go(member)
            while task.state != "waiting":
                gosched()
            scope.cancel()
        log.append("not here")
    assert log == ["member"]


def test_generations_are_reached():
    def generation(n):
        with timeout(LONG):
            try:
                fork(generation, n - 1).join() if n else wait_for_ever()
            finally:
                log.append(n)

    log = []
    with cancel_scope() as scope:
        first = fork(generation, 20)
        while len(runtime.goroutines()) < 22:
            gosched()
        scope.cancel()
    ended(first)
    while len(log) < 21:
        gosched()
    assert sorted(log) == list(range(21))


def test_who_starts_it_is_what_counts_not_who_runs_it():
    """A goroutine is in the scope in which it was started, not in that of who waits for it."""
    gate = Chan()
    outside = waiting(gate.recv)
    with cancel_scope() as scope:
        scope.cancel()
        with pytest.raises(Cancelled):
            outside.join()
    gate.send("unharmed")
    assert outside.join() == "unharmed"


def test_task_cancel_stays_with_the_task():
    """What it has started goes on: a Group or a scope is for cancelling those too."""

    def parent():
        children.send(fork(gate.recv))
        wait_for_ever()

    gate, children = Chan(), Chan()
    task = fork(parent)
    child = children.recv()
    while task.state != "waiting" or child.state != "waiting":
        gosched()
    task.cancel()
    ended(task)
    gate.send("unharmed")
    assert child.join() == "unharmed"


def test_what_a_timer_starts_is_in_no_scope():
    log = Chan()
    with cancel_scope() as scope:
        scope.cancel()
        after_func(0, lambda: log.send(is_cancelled()))
    assert log.recv() is False


# --- storms -------------------------------------------------------------------------------------


def test_storm_of_scopes(rng):
    """Random trees of scopes; whoever is cancelled knows by which scope, and others are not."""
    seen = {"stopped": 0, "expired": 0, "whole": 0}
    lock = Mutex()

    def visit(depth, above):
        kind = rng.choice(["scope", "timeout", "shield"])
        if kind == "scope":
            mine = cancel_scope()
        else:
            mine = timeout(rng.choice([0, 0.0005, LONG])) if kind == "timeout" else shield()
        path = [*above, mine] if kind != "shield" else [mine]
        try:
            with mine:
                if depth:
                    tasks = [fork(visit, depth - 1, path) for _ in range(rng.randrange(3))]
                    if rng.random() < 0.3:
                        rng.choice(
                            [s for s in path if hasattr(s, "cancel")] or [cancel_scope()]
                        ).cancel()
                    for task in tasks:
                        Goroutine.join(task)
                else:
                    sleep(rng.choice([0, 0.001]))
            reached = "stopped" if getattr(mine, "cancelled", False) else "whole"
        except TimeoutError:
            assert mine.expired
            reached = "expired"
        except Cancelled:
            assert any(
                getattr(s, "cancelled", False) or getattr(s, "expired", False) for s in above
            )
            raise
        with shield(), lock:
            seen[reached] += 1

    for _ in range(60):
        for task in [fork(visit, 4, []) for _ in range(4)]:
            Goroutine.join(task)
            assert task.exception() is None or isinstance(task.exception(), Canceled)
    assert all(seen.values()), seen
