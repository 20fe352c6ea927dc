"""gofer.testing.explore: bugs that it must find, and how it tells of them.

Each planted bug is a pair: the program that has it, and the same without. What the library itself
does under many schedules: test_explore_library.py.
"""

import gc
import itertools
import re
import sys
from contextlib import suppress

import pytest

from gofer import (
    Chan,
    Cond,
    Group,
    Mutex,
    Once,
    WaitGroup,
    after,
    cancel_scope,
    fork,
    go,
    gosched,
    runtime,
    select,
    sleep,
    timeout,
)
from gofer.errors import Cancelled, Closed, Deadlock
from gofer.sync import _cond
from gofer.testing import Exploration, Livelock, bubble, explore
from gofer.time import now

from shared import in_thread

pytestmark = pytest.mark.usefixtures("nothing_left")

STRATEGIES = ["pct", "random", "exhaustive"]
strategies = pytest.mark.parametrize("strategy", STRATEGIES)

# --- planted bugs -------------------------------------------------------------------------------


class LostWakeUp:
    """Between looking and lying down somebody rings."""

    error = Deadlock

    @staticmethod
    def wrong():
        ready, sleepers = [], []

        def sleeper():
            if not ready:
                bell = Chan(1)
                sleepers.append(bell)
                bell.recv()

        go(sleeper)
        ready.append(True)
        for bell in sleepers:
            bell.send(None)

    @staticmethod
    def right():
        ready, sleepers, guard = [], [], Mutex()

        def sleeper():
            bell = None
            with guard:
                if not ready:
                    bell = Chan(1)
                    sleepers.append(bell)
            if bell:
                bell.recv()

        go(sleeper)
        with guard:
            ready.append(True)
        for bell in sleepers:
            bell.send(None)


class DoubleClose:
    """Both see that it is open."""

    error = Closed

    @staticmethod
    def wrong():
        ch = Chan()

        def shut():
            if not ch.closed:
                ch.close()

        go(shut)
        go(shut)

    @staticmethod
    def right():
        ch, once = Chan(), Once()
        go(once.do, ch.close)
        go(once.do, ch.close)


class CheckThenAct:
    """Both find enough money."""

    error = AssertionError

    @staticmethod
    def wrong():
        account = {"money": 100}

        def withdraw(amount):
            if account["money"] >= amount:
                account["money"] -= amount

        with WaitGroup() as customers:
            customers.go(withdraw, 80)
            customers.go(withdraw, 80)
        assert account["money"] == 20

    @staticmethod
    def right():
        account, guard = {"money": 100}, Mutex()

        def withdraw(amount):
            with guard:
                if account["money"] >= amount:
                    account["money"] -= amount

        with WaitGroup() as customers:
            customers.go(withdraw, 80)
            customers.go(withdraw, 80)
        assert account["money"] == 20


class OppositeOrder:
    """Each holds what the other one wants."""

    error = Deadlock

    @staticmethod
    def wrong():
        a, b = Mutex(), Mutex()

        def move(source, target):
            with source:
                with target:
                    pass

        with Group() as g:
            g.go(move, a, b)
            g.go(move, b, a)

    @staticmethod
    def right():
        a, b = Mutex(), Mutex()

        def move(*accounts):
            first, second = sorted(accounts, key=[a, b].index)
            with first:
                with second:
                    pass

        with Group() as g:
            g.go(move, a, b)
            g.go(move, b, a)


class MissedSignal:
    """It is given before somebody waits for it."""

    error = Deadlock

    @staticmethod
    def wrong():
        mutex = Mutex()
        cond = Cond(mutex)

        def consumer():
            with mutex:
                cond.wait()

        go(consumer)
        with mutex:
            cond.signal()

    @staticmethod
    def right():
        mutex, ready = Mutex(), []
        cond = Cond(mutex)

        def consumer():
            with mutex:
                while not ready:
                    cond.wait()

        go(consumer)
        with mutex:
            ready.append(True)
            cond.signal()


bugs = pytest.mark.parametrize(
    "bug", [LostWakeUp, DoubleClose, CheckThenAct, OppositeOrder, MissedSignal]
)


def fails(fn, **options):
    """The exception that it fails with, which must be in the notes and again."""
    with pytest.raises(BaseException) as caught:
        explore(fn, **options)
    return caught.value


def name_of_schedule(error):
    (name,) = re.findall(r"again with explore\(\.\.\., replay='(.*?)'\)", "".join(error.__notes__))
    return name


def story(error):
    (note,) = (note for note in error.__notes__ if "took turns" in note)
    return note.splitlines()[1:]


@bugs
@strategies
@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_a_planted_bug_is_found(bug, strategy, seed):
    error = fails(bug.wrong, strategy=strategy, seed=seed, schedules=300)
    assert type(error) is bug.error


@bugs
@strategies
def test_a_failure_can_be_had_again(bug, strategy):
    error = fails(bug.wrong, strategy=strategy, seed=5, schedules=300)
    for _ in range(3):
        again = fails(bug.wrong, replay=name_of_schedule(error))
        assert type(again) is bug.error
        assert name_of_schedule(again) == name_of_schedule(error)
        assert story(again) == story(error)


@bugs
def test_without_the_bug_every_schedule_is_right(bug):
    done = explore(bug.right, strategy="exhaustive", schedules=20_000)
    assert done.complete
    assert done.schedules > 1
    for strategy in ("pct", "random"):
        assert explore(bug.right, strategy=strategy, seed=3, schedules=200) == Exploration(
            200, False
        )


def test_the_story_is_told_in_the_programs_lines():
    error = fails(CheckThenAct.wrong, strategy="exhaustive")
    first = CheckThenAct.wrong.__code__.co_firstlineno
    look, act = 'if account["money"] >= amount:', 'account["money"] -= amount'
    assert [line.strip() for line in story(error) if line.startswith("[") or "amount" in line] == [
        "[1] main",
        f"test_explore.py:{first + 4}  def withdraw(amount):",
        "[2] withdraw",
        f"test_explore.py:{first + 5}  {look}",
        "[3] withdraw",
        f"test_explore.py:{first + 5}  {look}",
        f"test_explore.py:{first + 6}  {act}",
        "[2] withdraw",
        f"test_explore.py:{first + 6}  {act}",
        "[1] main",
    ]
    assert story(error)[-1].strip().endswith('assert account["money"] == 20')


def test_a_long_story_is_cut_at_its_beginning():
    def fn():
        for _ in range(500):
            pass
        raise ValueError

    lines = story(fails(fn, schedules=1))
    assert re.fullmatch(r"\.\.\. \d+ lines before", lines[0])
    assert len(lines) == 202
    assert lines[-1].endswith("raise ValueError")


def test_a_test_that_depends_on_something_else():
    times = itertools.count()

    def fn():
        if next(times) == 3:
            raise ValueError("now and then")

    error = fails(fn)
    assert "it did not fail in the same way again" in error.__notes__[-1]
    assert "The second time it ended by None" in error.__notes__[-1]


# --- every schedule -----------------------------------------------------------------------------


def orders_of(fn, **options):
    """What fn appended to the list it is given, under each schedule."""
    orders = []

    def each():
        orders.append([])
        fn(orders[-1].append)

    done = explore(each, **options)
    assert len(orders) == done.schedules
    return done, [tuple(order) for order in orders]


def three_of_one_step(happens):
    with WaitGroup() as group:
        for n in range(3):
            group.go(happens, n)


def two_of_three_steps(happens):
    def steps(n):
        happens(n)
        happens(n)
        happens(n)

    with WaitGroup() as group:
        group.go(steps, 0)
        group.go(steps, 1)


def test_every_order_of_those_that_run_to_their_end():
    done, orders = orders_of(three_of_one_step, strategy="exhaustive", bound=0)
    assert done == Exploration(schedules=6, complete=True)
    assert sorted(orders) == sorted(itertools.permutations(range(3)))


def test_every_interleaving():
    done, orders = orders_of(
        two_of_three_steps, strategy="exhaustive", bound=100, schedules=100_000
    )
    assert done.complete
    assert set(orders) == set(itertools.permutations([0, 0, 0, 1, 1, 1]))


def test_the_bound_is_how_often_one_that_could_go_on_has_to_wait():
    seen = []
    for bound in range(4):
        done, orders = orders_of(two_of_three_steps, strategy="exhaustive", bound=bound)
        assert done.complete
        seen.append(set(orders))
    assert seen[0] == {(0, 0, 0, 1, 1, 1), (1, 1, 1, 0, 0, 0)}
    assert seen[0] < seen[1] < seen[2] <= seen[3]
    switches = [sum(a != b for a, b in itertools.pairwise(order)) for order in seen[1]]
    assert max(switches) == 2  # there, and back when the other one has ended


def test_the_first_so_many():
    done = explore(lambda: three_of_one_step(int), strategy="exhaustive", schedules=5)
    assert done == Exploration(schedules=5, complete=False)


def test_every_choice_of_a_select():
    def fn(happens):
        first, second, third = Chan(1), Chan(1), Chan(1)
        first.send(None)
        third.send(None)
        happens(select(first.recv, second.recv, third.recv, (second.send, None))[0])

    done, orders = orders_of(fn, strategy="exhaustive")
    assert done == Exploration(schedules=3, complete=True)
    assert sorted(orders) == [(0,), (2,), (3,)]
    for strategy in ("pct", "random"):
        assert set(orders_of(fn, strategy=strategy, schedules=50, seed=1)[1]) == set(orders)


def test_who_yields_lets_another_one_go_first():
    """It waits for somebody; so going on is no choice."""

    def fn(happens):
        flag = []

        def waits():
            while not flag:
                gosched()
            happens("seen")

        with WaitGroup() as group:
            group.go(waits)
            group.go(flag.append, True)

    for strategy in STRATEGIES:
        assert set(orders_of(fn, strategy=strategy, schedules=500)[1]) == {("seen",)}


# --- the same again -----------------------------------------------------------------------------


def something_of_everything(happens):
    ch, stop = Chan(1), Chan()

    def producer(n):
        for k in range(3):
            match select((ch.send, (n, k)), stop.recv_ok, after(5).recv):
                case 0, _:
                    happens(("sent", n, k))
                case 1, _:
                    happens(("stopped", n))
                    return
                case 2, _:
                    happens(("late", n))

    def consumer():
        with timeout(3) as scope:
            for _ in range(4):
                happens(ch.recv())
        happens(scope.expired)
        stop.close()

    with Group() as g:
        for n in range(3):
            g.go(producer, n)
        g.go(consumer)


@pytest.mark.parametrize("strategy", ["pct", "random"])
def test_a_seed_means_the_same_schedules(strategy):
    options = {"strategy": strategy, "schedules": 100}
    first = orders_of(something_of_everything, seed=1, **options)[1]
    assert orders_of(something_of_everything, seed=1, **options)[1] == first
    assert orders_of(something_of_everything, seed=1000, **options)[1] != first
    assert len(set(first)) > 30
    without = orders_of(something_of_everything, **options)[1]
    assert orders_of(something_of_everything, **options)[1] != without


def test_a_collection_makes_no_difference():
    options = {"strategy": "random", "schedules": 50, "seed": 1}
    first = orders_of(something_of_everything, **options)[1]
    garbage = [[] for _ in range(100_000)]
    for a in garbage:
        a.append(a)
    del garbage, a
    assert orders_of(something_of_everything, **options)[1] == first


# --- the promise of "pct" -----------------------------------------------------------------------


def test_a_bug_of_depth_two_is_found_as_often_as_promised():
    """One of n goroutines and k choices, at least 1 / (n * k) of the runs."""
    runs, hits = 3000, []

    def fn():
        steps = []

        def walker():
            for n in range(12):
                steps.extend([n])

        def watcher():
            found = len(steps)
            hits.append(found == 7)

        with WaitGroup() as group:
            group.go(walker)
            group.go(watcher)

    explore(fn, schedules=runs, depth=2, seed=1)

    def failing():
        fn()
        assert not hits[-1]

    name = name_of_schedule(fails(failing, depth=2, seed=1, schedules=runs))
    choices = int(re.fullmatch(r"pct:2:(\d+):\d+", name)[1])
    assert choices >= 24
    assert sum(hits[:runs]) >= runs / (3 * choices)


def test_a_bug_of_depth_one_needs_no_luck():
    """The second of two comes first if the other one has the least priority of all three."""
    orders = orders_of(two_of_three_steps, depth=1, schedules=600, seed=1)[1]
    assert 600 / 3 - 35 < orders.count((1, 1, 1, 0, 0, 0)) < 600 / 3 + 35  # three sigmas
    assert set(orders) == {(0, 0, 0, 1, 1, 1), (1, 1, 1, 0, 0, 0)}


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
