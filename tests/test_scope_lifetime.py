"""How scopes end: outlived, misused, in great numbers; and that nothing is left of them."""

import contextlib
import copy
import gc
import sys
import threading
import weakref
from contextlib import ExitStack, suppress

import pytest

from gofer import (
    Cancelled,
    Chan,
    Group,
    cancel_scope,
    current,
    fork,
    go,
    goexit,
    gosched,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

from shared.clock import LONG
from shared.groups import wait_for_ever
from shared.scopes import body_that_waits, ended, is_cancelled, waiting

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")

# --- outliving a scope --------------------------------------------------------------------------


def test_it_goes_on_when_the_scope_was_left_uncancelled():
    gate = Chan()
    with timeout(0.001):
        task = waiting(lambda: (gate.recv(), is_cancelled())[1])
    sleep(0.003)
    gate.send(None)
    assert task.join() is False


def test_the_scope_around_still_reaches_it():
    with cancel_scope() as outer:
        with cancel_scope():
            with timeout(LONG):
                task = waiting(wait_for_ever)
        outer.cancel()
    assert isinstance(task.exception(), Canceled)


def test_it_is_cancelled_when_its_scope_was():
    gate = Chan()

    def child():
        gate.recv()
        return is_cancelled(), fork(is_cancelled).join

    with cancel_scope() as scope:
        with shield():
            task = waiting(child)
        other = waiting(wait_for_ever)
        scope.cancel()
    assert isinstance(other.exception(), Canceled)
    gate.send(None)
    assert task.join()[0] is False


def test_it_is_cancelled_when_its_scope_is_later():
    with cancel_scope() as scope:
        task = waiting(wait_for_ever)
    assert not is_cancelled()
    scope.cancel()
    assert isinstance(task.exception(), Canceled)


def test_what_it_starts_is_in_the_scope_that_was_left():
    def parent():
        gate.recv()
        child = fork(wait_for_ever)
        children.send(child)

    gate, children = Chan(), Chan()
    with cancel_scope() as scope:
        task = waiting(parent)
    gate.send(None)
    child = children.recv()
    task.join()
    while child.state != "waiting":
        gosched()
    scope.cancel()
    assert isinstance(child.exception(), Canceled)


def test_a_goroutine_that_ends_inside_its_scopes_leaves_them():
    """Manually entered, never left: its deadline dies with it, and nobody else is in them."""
    kept, log = [], []

    def careless():
        kept.extend([cancel_scope(), timeout(0.002), shield()])
        for scope in kept[-3:]:
            scope.__enter__()
        log.append(fork(sleep, 0.005))

    for _ in range(10):
        ended(fork(careless))
    for task in log:
        task.join()
    assert not any(scope.expired for scope in kept[1::3])
    while {repr(scope).split()[1] for scope in kept} != {"left"}:  # just after who joins is woken
        gosched()
    for scope in kept[::3]:
        scope.cancel()
    assert not is_cancelled()


@pytest.mark.parametrize("how", ["error", "goexit", "cancel"])
def test_it_leaves_them_however_it_ends(how):
    def careless():
        scope.__enter__()
        if how == "error":
            raise KeyError
        if how == "goexit":
            goexit()
        wait_for_ever()

    scope = cancel_scope()
    task = fork(careless)
    if how == "cancel":
        while task.state != "waiting":
            gosched()
        task.cancel()
    ended(task).exception()
    while not repr(scope).startswith("<cancel_scope left at "):  # just after who joins is woken
        gosched()


def test_a_thread_that_ends_inside_its_scopes_leaves_them():
    kept, alive = [], []

    def careless():
        alive.append(current())  # somebody may know its object after its end
        kept.extend([timeout(0.001), timeout(LONG), cancel_scope()])
        for scope in kept:
            scope.__enter__()

    thread = threading.Thread(target=careless)
    thread.start()
    thread.join()
    while not alive[0].done:
        gosched()
    assert [repr(scope).split()[1] for scope in kept] == ["left"] * 3


# --- misuse -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [cancel_scope, lambda: timeout(LONG), shield])
def test_a_scope_is_good_for_one_block(make):
    scope = make()
    with scope:
        with pytest.raises(RuntimeError, match="one with block"):
            scope.__enter__()
        assert not is_cancelled()
    with pytest.raises(RuntimeError, match="one with block"):
        scope.__enter__()
    with pytest.raises(RuntimeError, match="only once"):
        scope.__exit__(None, None, None)


def test_one_that_was_never_begun_can_not_be_left():
    with pytest.raises(RuntimeError, match="is left by a goroutine that is not in it"):
        cancel_scope().__exit__(None, None, None)


def test_two_can_not_begin_the_same():
    scope = cancel_scope()
    log = []

    def begin():
        try:
            with scope:
                wait_for_ever()
            log.append("left")
        except RuntimeError:
            log.append("refused")

    tasks = [fork(begin) for _ in range(3)]
    while len(log) < 2:
        gosched()
    scope.cancel()
    for task in tasks:
        task.join()
    assert sorted(log) == ["left", "refused", "refused"]


def test_left_by_another_goroutine():
    scopes = Chan()
    task = fork(body_that_waits, scopes)
    scope = scopes.recv()
    with pytest.raises(RuntimeError, match="not in it"):
        scope.__exit__(None, None, None)
    scope.cancel()
    assert task.join() == "left"


def test_left_by_what_was_started_inside():
    with cancel_scope() as scope:
        with pytest.raises(RuntimeError, match="not in it"):
            fork(scope.__exit__, None, None, None).join()
        scope.cancel()
        assert is_cancelled()
    assert not is_cancelled()


def test_left_by_a_thread():
    log = []

    def body(scope):
        try:
            scope.__exit__(None, None, None)
        except RuntimeError:
            log.append("refused")

    with cancel_scope() as scope:
        thread = threading.Thread(target=body, args=[scope])
        thread.start()
        thread.join()
    assert log == ["refused"]


def test_left_in_the_wrong_order():
    outer, inner, innermost = cancel_scope(), timeout(LONG), cancel_scope()
    outer.__enter__()
    inner.__enter__()
    innermost.__enter__()
    with pytest.raises(RuntimeError, match="left before a scope that was entered inside it"):
        outer.__exit__(None, None, None)
    for scope in (inner, innermost, outer):
        with pytest.raises(RuntimeError, match="not in it"):
            scope.__exit__(None, None, None)
    assert not is_cancelled()
    for scope in (outer, innermost):
        scope.cancel()
    assert not is_cancelled()


def test_left_in_the_wrong_order_with_its_cancelled():
    with pytest.raises(RuntimeError, match="reverse order") as caught:
        with ExitStack() as stack:
            outer = stack.enter_context(cancel_scope())
            cancel_scope().__enter__()
            outer.cancel()
            wait_for_ever()
    assert isinstance(caught.value.__context__, Cancelled)
    assert not is_cancelled()


def test_what_runs_in_scopes_left_in_the_wrong_order_is_still_reached():
    with cancel_scope() as around:
        outer, inner = cancel_scope(), cancel_scope()
        outer.__enter__()
        inner.__enter__()
        task, other = waiting(wait_for_ever), waiting(wait_for_ever)
        with pytest.raises(RuntimeError):
            outer.__exit__(None, None, None)
        around.cancel()
    assert isinstance(task.exception(), Canceled)
    assert isinstance(other.exception(), Canceled)


def test_the_wrong_order_does_not_leave_what_is_around():
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            outer, inner = cancel_scope(), cancel_scope()
            outer.__enter__()
            inner.__enter__()
            with pytest.raises(RuntimeError):
                outer.__exit__(None, None, None)
            wait_for_ever()


def holding(scope):
    with scope:
        yield 1
        yield 2


def test_a_generator_that_is_finished_in_order():
    scope = cancel_scope()
    with cancel_scope():
        for _ in holding(scope):
            scope.cancel()  # while it is suspended its scope holds for who drives it
            assert is_cancelled()
        assert not is_cancelled()


def test_a_generator_that_is_closed_in_order():
    steps = holding(cancel_scope())
    with cancel_scope():
        next(steps)
        steps.close()
    assert not is_cancelled()


def test_a_generator_that_outlives_the_scope_around():
    steps = holding(timeout(LONG))
    with pytest.raises(RuntimeError, match="reverse order"):
        with cancel_scope():
            next(steps)
    with pytest.raises(RuntimeError, match="not in it"):
        steps.close()
    assert not is_cancelled()


def test_a_generator_that_is_finished_by_another_goroutine():
    steps = holding(timeout(0.001))

    def begin():
        next(steps)
        with pytest.raises(Cancelled):
            wait_for_ever()

    task = fork(begin)
    task.join()
    with pytest.raises(RuntimeError, match="not in it"):
        next(steps) and next(steps)
    assert not is_cancelled()


def test_a_generator_that_is_thrown_away(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(type(args.exc_value)))

    def begin():
        holdings.append(holding(cancel_scope()))
        next(holdings[0])

    holdings = []
    fork(begin).join()
    holdings.clear()
    gc.collect()
    assert seen == [RuntimeError]
    assert not is_cancelled()


def test_a_contextmanager_around_a_scope():
    @contextlib.contextmanager
    def limited(d):
        with timeout(d) as limit:
            yield limit

    with pytest.raises(TimeoutError):
        with limited(0.001) as limit:
            wait_for_ever()
    assert limit.expired


def test_copies_are_new_scopes_or_refused():
    with cancel_scope() as scope:
        with suppress(TypeError):
            other = copy.copy(scope)
            assert repr(other).startswith("<cancel_scope new at ")
            other.cancel()
        assert not is_cancelled()


def test_what_they_look_like():
    scope = cancel_scope()
    assert repr(scope).startswith("<cancel_scope new at 0x")
    with scope:
        assert repr(scope).startswith("<cancel_scope entered at 0x")
        scope.cancel()
        assert repr(scope).startswith("<cancel_scope entered cancelled at 0x")
    assert repr(scope).startswith("<cancel_scope left cancelled at 0x")
    assert repr(timeout(2.5)).startswith("<timeout(2.5) new at 0x")
    assert repr(timeout(-1)).startswith("<timeout(0.0) new at 0x")
    assert repr(shield()).startswith("<shield new at 0x")


# --- many, and what is left of them -------------------------------------------------------------


def test_a_hundred_thousand_in_each_other():
    with cancel_scope() as outermost:
        with ExitStack() as stack:
            for _ in range(100_000):
                stack.enter_context(cancel_scope())
            assert not is_cancelled()
            outermost.cancel()
            assert is_cancelled()
    assert not is_cancelled()


def test_a_hundred_thousand_that_a_goroutine_ends_in():
    def careless():
        for _ in range(100_000):
            cancel_scope().__enter__()

    task = fork(careless)
    task.join()


def test_a_hundred_thousand_parents_one_after_the_other():
    """A chain of goroutines, each with a scope inside that of the one before it, that then ends."""

    def link(n, ends):
        with cancel_scope():
            if n:
                go(link, n - 1, ends)
            else:
                ends.send(waiting(wait_for_ever))

    ends = Chan(1)
    with cancel_scope() as scope:
        go(link, 100_000, ends)
        last = ends.recv()
        scope.cancel()
    assert isinstance(last.exception(), Canceled)


def test_nothing_refers_to_a_scope_that_was_left():
    with cancel_scope() as outer:
        for make in (cancel_scope, lambda: timeout(LONG), shield):
            scope = make()
            before = sys.getrefcount(scope)
            with scope:
                ended(go(int))
                assert sys.getrefcount(scope) > before
            while sys.getrefcount(scope) > before:  # another worker may be about to drop its own
                gosched()
            assert sys.getrefcount(scope) == before
    assert repr(outer).startswith("<cancel_scope left at")


def test_what_is_cancelled_leaves_no_circle():
    class Token:
        pass

    def body():
        token = Token()
        alive.append(weakref.ref(token))
        with suppress(TimeoutError), timeout(0):
            wait_for_ever()
        with cancel_scope() as scope:
            scope.cancel()
            wait_for_ever()
        with suppress(ExceptionGroup):
            with Group() as g:
                g.go(wait_for_ever)
                g.go(int, "x")

    alive = []
    gc.collect()
    gc.disable()
    try:
        body()
        assert alive[0]() is None
    finally:
        gc.enable()


def test_locals_go_when_it_is_cancelled():
    class Token:
        pass

    def body():
        token = Token()
        alive.append(weakref.ref(token))
        wait_for_ever()

    alive = []
    with Group() as g:
        task = g.go(body)
        while task.state != "waiting":
            gosched()
        g.cancel()
    while alive[0]() is not None:
        gosched()
