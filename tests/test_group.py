"""Group: members that end together, and one failure for all of them."""

import functools
import gc
import sys
import threading
import weakref
from contextlib import suppress

import pytest

from gofer import (
    Cancelled,
    Chan,
    Deadlock,
    Goroutine,
    GoroutineExit,
    Group,
    Task,
    current,
    go,
    goexit,
    gosched,
    run,
    timeout,
)

from shared.groups import fail, fail_at_the_end, kinds, wait_for_ever

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


# --- the good end -------------------------------------------------------------------------------


def test_all_have_ended_after_it():
    with Group() as g:
        tasks = [g.go(pow, n, 2) for n in range(100)]
    assert all(task.done for task in tasks)
    assert [task.join() for task in tasks] == [n * n for n in range(100)]


def test_members_are_tasks():
    with Group() as g:
        task = g.go(lambda *args, **kwargs: (args, kwargs), 1, 2, a=3)
    assert isinstance(task, Task)
    assert task.join() == ((1, 2), {"a": 3})


def test_an_empty_group_ends():
    with Group() as g:
        assert isinstance(g, Group)


def test_it_waits_for_those_that_wait(parked):
    gate, log = Chan(), []

    def member():
        gate.recv()
        log.append("member")

    def release():
        parked(owner)
        log.append("released")
        gate.close()

    owner = current()
    with Group() as g:
        gates = [g.go(lambda: gate.recv_ok()) for _ in range(3)]
        go(release)
    assert log == ["released"]
    assert [task.join() for task in gates] == [(None, False)] * 3


def test_members_may_start_members():
    log = Chan(1000)

    def member(depth):
        if depth:
            g.go(member, depth - 1)
            g.go(member, depth - 1)
        log.send(depth)

    with Group() as g:
        g.go(member, 6)
    assert len(log) == 127


def test_strangers_may_start_members(parked):
    gate, log = Chan(), []

    def stranger():
        g.go(log.append, 1)
        gate.close()

    with Group() as g:
        g.go(gate.recv_ok)
        go(stranger)
    assert log == [1]


def test_a_thread_may_start_members():
    log = []
    with Group() as g:
        thread = threading.Thread(target=lambda: g.go(log.append, 1))
        thread.start()
        thread.join()
    assert log == [1]


def test_groups_nest():
    def inner(n):
        with Group() as g:
            tasks = [g.go(pow, n, k) for k in range(10)]
        return sum(task.join() for task in tasks)

    with Group() as g:
        tasks = [g.go(inner, n) for n in range(1, 10)]
    assert [task.join() for task in tasks] == [sum(n**k for k in range(10)) for n in range(1, 10)]


# --- failures -----------------------------------------------------------------------------------


def test_a_failure_cancels_siblings_and_body():
    log = []

    def sibling():
        try:
            wait_for_ever()
        except Cancelled:
            log.append("sibling")
            raise

    error = ValueError("reason")
    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            tasks = [g.go(sibling) for _ in range(5)]
            for task in tasks:
                while task.state != "waiting":
                    gosched()
            g.go(fail, error)
            try:
                wait_for_ever()
            except Cancelled:
                log.append("body")
                raise
    assert caught.value.exceptions == (error,)
    assert caught.value.__cause__ is None
    assert sorted(log) == ["body"] + ["sibling"] * 5
    assert all(task.done for task in tasks)


def test_all_failures_are_raised_together():
    def member(n):
        try:
            wait_for_ever()
        finally:
            raise KeyError(n)

    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            for n in range(3):
                task = g.go(member, n)
                while task.state != "waiting":
                    gosched()
            g.go(fail, ValueError("first"))
    assert kinds(caught.value) == [KeyError] * 3 + [ValueError]
    assert repr(caught.value.exceptions[0]) == "ValueError('first')"


def test_a_failure_of_the_body_counts_as_a_members():
    error = KeyError("body")
    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            task = g.go(wait_for_ever)
            raise error
    assert caught.value.exceptions == (error,)
    assert task.done


def test_body_and_members_fail():
    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            task = g.go(fail_at_the_end)
            while task.state != "waiting":
                gosched()
            raise KeyError
    assert kinds(caught.value) == [KeyError, ValueError]


def test_what_is_no_exception_makes_a_base_exception_group():
    class Odd(BaseException):
        pass

    with pytest.raises(BaseExceptionGroup) as caught:
        with Group() as g:
            g.go(fail, Odd())
    assert not isinstance(caught.value, ExceptionGroup)
    assert kinds(caught.value) == [Odd]


def test_except_star_takes_them_apart():
    log = []
    try:
        with Group() as g:
            g.go(fail, ValueError("a"))
            g.go(fail, KeyError("b"))
    except* ValueError as group:
        log += group.exceptions
    except* KeyError as group:
        log += group.exceptions
    assert log
    assert {type(error) for error in log} <= {ValueError, KeyError}


def test_a_failed_member_is_not_reported_again(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_value))
    with pytest.raises(ExceptionGroup):
        with Group() as g:
            g.go(fail, ValueError())
    del g
    gc.collect()
    assert seen == []


def test_a_member_keeps_its_failure():
    error = ValueError()
    with pytest.raises(ExceptionGroup):
        with Group() as g:
            task = g.go(fail, error)
    assert task.exception() is error


def test_a_member_that_is_joined_fails_the_joiner_too():
    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            g.go(fail, ValueError("x")).join()
    assert ValueError in kinds(caught.value)


@pytest.mark.parametrize("ending", [Cancelled, GoroutineExit])
def test_some_endings_are_no_failure(ending):
    with Group() as g:
        g.go(fail, ending())
        task = g.go(int)
    assert task.join() == 0


def test_goexit_of_a_member_ends_only_itself():
    with Group() as g:
        g.go(goexit)
        task = g.go(int)
    assert task.join() == 0


@pytest.mark.usefixtures("one_worker")  # another thread frees its objects when it next runs
def test_failures_hold_no_circle():
    class Mine(Exception):
        def __init__(self):
            alive.append(weakref.ref(self))

    alive = []

    def member():
        raise Mine

    def body():
        try:
            with Group() as g:
                Goroutine.join(g.go(member))
        except ExceptionGroup:
            pass

    gc.disable()
    try:
        body()
        while alive[0]() is not None:
            gosched()
    finally:
        gc.enable()


def test_the_chain_of_a_failure_ends():
    """Raised while another one is handled, and handled while another one is raised."""

    def chain(error):
        seen = []
        while error is not None:
            assert all(error is not other for other in seen)
            seen.append(error)
            if isinstance(error, BaseExceptionGroup):
                for part in error.exceptions:
                    chain(part)
            error = error.__context__
        return [type(error) for error in seen]

    def member():
        try:
            raise KeyError
        except KeyError:
            fail(ValueError())

    with pytest.raises(ExceptionGroup) as caught:
        try:
            raise OSError
        except OSError:
            with Group() as outer:
                outer.go(wait_for_ever)
                try:
                    with Group() as inner:
                        inner.go(member)
                finally:
                    with suppress(TimeoutError), timeout(0):
                        wait_for_ever()
    assert chain(caught.value)[-1] is OSError
    assert kinds(caught.value) == [ExceptionGroup]


def test_nested_groups_hand_failures_on():
    def member():
        with Group() as inner:
            inner.go(wait_for_ever)
            inner.go(fail, KeyError("inner"))

    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            g.go(wait_for_ever)
            g.go(member)
    assert kinds(caught.value) == [ExceptionGroup]
    assert kinds(caught.value.exceptions[0]) == [KeyError]


def test_a_failure_outside_passes_through_an_inner_group():
    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            with Group() as inner:
                task = inner.go(wait_for_ever)
                while task.state != "waiting":
                    gosched()
                g.go(fail, ValueError())
    assert kinds(caught.value) == [ValueError]
    assert task.done


# --- what passes as it is -----------------------------------------------------------------------


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, GoroutineExit, GeneratorExit, Deadlock, Odd]
)
def test_some_exceptions_of_the_body_pass_as_they_are(kind):
    error = kind("reason")
    with pytest.raises(kind) as caught:
        with Group() as g:
            task = g.go(wait_for_ever)
            raise error
    assert caught.value is error
    assert task.done


def test_it_lets_a_generator_be_closed():
    tasks = []

    def generator():
        with Group() as g:
            tasks.append(g.go(wait_for_ever))
            yield

    gen = generator()
    next(gen)
    gen.close()
    assert tasks[0].done


# --- misuse -------------------------------------------------------------------------------------


def test_before_the_with():
    g = Group()
    for call in (functools.partial(g.go, int), g.cancel):
        with pytest.raises(RuntimeError, match="before the with"):
            call()


def test_after_the_with():
    with Group() as g:
        pass
    with pytest.raises(RuntimeError, match="after the with"):
        g.go(int)


def test_one_with_only():
    g = Group()
    with g:
        with pytest.raises(RuntimeError, match="in use"):
            g.__enter__()
    with pytest.raises(RuntimeError, match="finished"):
        g.__enter__()


async def coroutine_function():
    pass


@pytest.mark.parametrize(
    "method", [coroutine_function, functools.partial(coroutine_function)], ids=["plain", "partial"]
)
def test_a_coroutine_function_is_refused(method):
    with Group() as g:
        with pytest.raises(TypeError, match=r"gofer\.aio"):
            g.go(method)


def test_what_can_not_be_called_is_refused():
    with Group(limit=1) as g:
        for thing in (None, 3, [int]):
            with pytest.raises(TypeError):
                g.go(thing)
        with pytest.raises(TypeError):
            g.go()
        assert g.go(int).join() == 0


# --- storms -------------------------------------------------------------------------------------


def test_storm_of_failures_and_cancels(rng):
    def member(kind):
        for _ in range(rng.randrange(4)):
            gosched()
        if kind == "fails":
            raise ValueError
        if kind == "waits":
            wait_for_ever()
        if kind == "cancels":
            g.cancel()

    def stranger(group, steps):
        for _ in range(steps):
            gosched()
        group.cancel()

    for _ in range(60):
        kinds = rng.choices(["fails", "waits", "cancels", "ends"], k=rng.randrange(20))
        tasks = []
        try:
            with Group(limit=rng.choice([None, 1, 3, 8])) as g:
                go(stranger, g, rng.randrange(30))
                for kind in kinds:
                    tasks.append(g.go(member, kind))
        except* ValueError:
            pass
        assert all(task.done for task in tasks)


def test_storm_of_strangers(rng):
    """Goroutines outside keep starting members while the group ends."""
    for _ in range(40):
        ran, refused = [], []

        def stranger(g, ran, refused):
            for n in range(20):
                try:
                    g.go(ran.append, n)
                except RuntimeError:
                    refused.append(n)

        with Group() as g:
            strangers = [go(stranger, g, ran, refused) for _ in range(3)]
            for _ in range(rng.randrange(5)):
                gosched()
        at_edge = len(ran)
        for s in strangers:
            s.join()
        assert len(ran) == at_edge
        assert len(ran) + len(refused) == 60


def test_storm_of_trees_that_fail(rng):
    def tree(depth):
        if depth == 0:
            if rng.random() < 0.1:
                raise KeyError
            return
        with Group() as g:
            g.go(tree, depth - 1)
            g.go(tree, depth - 1)

    for _ in range(30):
        try:
            run(tree, 4)
        except* KeyError:
            pass
