"""cancel_scope and shield: what is in them, who cancels, and what passes through.

What each operation that waits does in a cancelled scope is in test_cancellation.py, time-outs are
in test_timeout.py, and how scopes end in test_scope_lifetime.py.
"""

import threading
from contextlib import ExitStack, suppress

import pytest

from gofer import (
    Cancelled,
    Chan,
    Goroutine,
    GoroutineExit,
    Group,
    Mutex,
    Semaphore,
    WaitGroup,
    after_func,
    cancel_scope,
    fork,
    go,
    gosched,
    run,
    runtime,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

pytestmark = pytest.mark.usefixtures("nothing_left")

LONG = 10_000  # seconds that are not meant to pass


@pytest.fixture(autouse=True)
def in_no_scope():
    """Whatever a test did to its own goroutine, it is in no cancelled scope afterwards."""
    yield
    sleep(0)


def wait_for_ever():
    Chan().recv()


def is_cancelled():
    try:
        gosched()
    except Cancelled:
        return True
    return False


def waiting(fn, *args):
    """A task that has come to wait."""
    task = fork(fn, *args)
    while task.state != "waiting":
        gosched()
    return task


def ended(goroutine):
    Goroutine.join(goroutine)
    return goroutine


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


def body_that_waits(scopes):
    with cancel_scope() as scope:
        scopes.send(scope)
        wait_for_ever()
    return "left"


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


# --- shield -------------------------------------------------------------------------------------


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


# --- what is started inside ---------------------------------------------------------------------


def start_with_go(fn):
    return go(fn)


def start_with_fork(fn):
    return fork(fn)


def start_in_wait_group(fn):
    return WaitGroup().go(fn)


STARTS = [start_with_go, start_with_fork, start_in_wait_group]


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
