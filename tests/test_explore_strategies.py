"""Which schedules gofer.testing.explore tries."""

import itertools
import re

import pytest

from gofer import (
    Chan,
    WaitGroup,
    gosched,
    select,
)
from gofer.testing import Exploration, explore

from shared.explorations import (
    STRATEGIES,
    fails,
    name_of_schedule,
    orders_of,
    something_of_everything,
    two_of_three_steps,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- every schedule -----------------------------------------------------------------------------


def three_of_one_step(happens):
    with WaitGroup() as group:
        for n in range(3):
            group.go(happens, n)


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
