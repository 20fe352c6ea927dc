"""gofer.testing.explore: livelocks, and what it does to the rest of the process."""

import gc
import itertools
import sys
from contextlib import suppress

import pytest

from gofer import (
    Chan,
    Cond,
    Group,
    Mutex,
    cancel_scope,
    fork,
    go,
    gosched,
    runtime,
    sleep,
)
from gofer.errors import Cancelled
from gofer.sync import _cond
from gofer.testing import Exploration, Livelock, bubble, explore
from gofer.time import now

from shared import in_thread
from shared.explorations import (
    fails,
    name_of_schedule,
    orders_of,
    something_of_everything,
    strategies,
    two_of_three_steps,
)
from shared.planted import CheckThenAct

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- livelocks ----------------------------------------------------------------------------------


def spins_without_a_wait():
    flag = []

    def spin():
        while not flag:
            pass

    go(spin)
    while not flag:
        pass


def spins_politely():
    flag = []
    while not flag:
        gosched()


def ping_pong():
    there, back = Chan(), Chan()

    def pong():
        while True:
            back.send(there.recv())

    go(pong)
    while True:
        there.send(1)
        back.recv()


def swallows():
    def again():
        while True:
            try:
                Chan().recv()
            except Cancelled:
                if done.append(1) or len(done) > 50:
                    raise

    done = []
    go(again)
    spins_without_a_wait()


@strategies
@pytest.mark.parametrize("fn", [spins_without_a_wait, spins_politely, ping_pong, swallows])
def test_a_livelock(fn, strategy):
    error = fails(fn, strategy=strategy, steps=500, seed=1)
    assert type(error) is Livelock
    assert "more than 500 steps" in str(error)
    assert type(fails(fn, replay=name_of_schedule(error), steps=500)) is Livelock


# --- what it does to the rest -------------------------------------------------------------------


def test_everything_is_as_before():
    def tracer(frame, event, arg):
        return None

    before = sys.gettrace()
    workers = runtime.gomaxprocs(3)
    there_are = runtime.gomaxprocs()
    sys.settrace(tracer)
    try:
        for fn in (int, lambda: 1 / 0, spins_without_a_wait):
            with suppress(ZeroDivisionError, Livelock):
                explore(fn, schedules=2, steps=200)
            assert sys.gettrace() is tracer
            assert runtime.gomaxprocs() == there_are
            assert gc.isenabled()
        gc.disable()
        explore(int, schedules=2)
        assert not gc.isenabled()
    finally:
        sys.settrace(before)
        gc.enable()
        runtime.gomaxprocs(workers)


def test_others_go_on_while_it_explores():
    """Goroutines of the outside, on this worker and on others."""
    counter, stop = [0], []

    def outsider():
        while not stop:
            counter[0] += 1
            sleep(0)

    g = go(outsider)
    explore(something_of_everything_quietly, schedules=100, seed=1)
    stop.append(True)
    g.join()
    assert counter[0] > 0


def something_of_everything_quietly():
    something_of_everything(lambda what: None)


def test_time_is_that_of_a_bubble():
    def fn():
        start = now()
        with Group() as g:
            for n in range(5):
                g.go(sleep, 3600 * n)
        assert now() == start + 4 * 3600

    explore(fn, schedules=50)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_comes_from_outside_is_no_failure(kind):
    ran = []

    def fn():
        ran.append(1)
        raise kind

    error = fails(fn)
    assert type(error) is kind
    assert not hasattr(error, "__notes__")
    assert ran == [1]


def test_a_cancellation_from_outside():
    ran = []

    def fn():
        ran.append(1)
        scope.cancel()
        Chan().recv()

    with cancel_scope() as scope:
        explore(fn)
        raise AssertionError("not reached")
    assert ran == [1]
    with cancel_scope() as scope:
        go(scope.cancel)
        explore(int, schedules=10**9)
        raise AssertionError("not reached")


def test_a_tracer_that_is_taken_off_and_set_again():
    def fn(happens):
        traced = sys.gettrace()
        sys.settrace(None)
        sys.settrace(traced)
        two_of_three_steps(happens)

    options = {"strategy": "exhaustive", "bound": 100, "schedules": 100_000}
    done, orders = orders_of(fn, **options)
    assert done.complete
    assert set(orders) == set(itertools.permutations([0, 0, 0, 1, 1, 1]))


def test_they_do_not_lie_in_each_other():
    with bubble():
        with pytest.raises(RuntimeError, match=r"explore\(\) inside of a bubble"):
            explore(int)
    inner = fails(lambda: explore(int), schedules=1)
    assert type(inner) is RuntimeError
    assert "explore() inside of a bubble" in str(inner)
    assert type(fails(CheckThenAct.wrong, seed=1)) is AssertionError


def test_they_come_one_after_the_other():
    """Another goroutine may have one; at the same time it is refused, and the first goes on."""
    outcome = []

    def outsider():
        try:
            explore(int)
        except RuntimeError as error:
            outcome.append(str(error))

    turn, done = Chan(), Chan()

    def helper():
        turn.recv()
        outsider()
        done.close()

    g = go(helper)
    ran = []

    def fn():
        if not ran:
            ran.append(1)
            turn.send(None)
            done.recv_ok()
        CheckThenAct.wrong()

    assert type(fails(fn, seed=1)) is AssertionError
    g.join()
    assert outcome == [
        "explore: another one is under way: they come one after the other",
    ]
    assert fork(explore, int, schedules=1).join() == Exploration(1, False)


def test_not_in_a_thread():
    with pytest.raises(RuntimeError, match="this is a plain thread"):
        in_thread(explore, int)


@pytest.mark.parametrize(
    "options",
    [{"schedules": 0}, {"depth": 0}, {"bound": -1}, {"steps": 0}, {"strategy": "all"}],
    ids=str,
)
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match=r"explore\(.*it is"):
        explore(int, **options)


@pytest.mark.parametrize(
    "name", ["", "random", "random:x", "pct:1:2", "exhaustive:1", "exhaustive:1:2.x", "best:1"]
)
def test_names_of_no_schedule(name):
    with pytest.raises(ValueError, match="not the name of a schedule"):
        explore(int, replay=name)


def test_within():
    """In gofer's own modules nothing else goes on, unless it is told so."""

    def fn(happens):
        mutex = Mutex()
        cond = Cond(mutex)

        def consumer():
            with mutex:
                cond.wait()
            happens("woken")

        g = go(consumer)
        while not cond._waiters or g.state != "waiting":
            gosched()
        cond.signal()
        happens("signalled")

    options = {"strategy": "exhaustive", "bound": 1, "schedules": 5000}
    few, orders = orders_of(fn, **options)
    many, more = orders_of(fn, **options, within=[_cond])
    assert few.complete
    assert many.complete
    assert many.schedules > few.schedules
    assert set(orders) <= set(more)
