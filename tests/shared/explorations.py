"""What gofer.testing.explore says, and programs whose steps can be told apart."""

import re

import pytest

from gofer import Chan, Group, WaitGroup, after, select, timeout
from gofer.testing import explore

STRATEGIES = ["pct", "random", "exhaustive"]
strategies = pytest.mark.parametrize("strategy", STRATEGIES)


def fails(fn, **options):
    """The exception that it fails with, which must be in the notes and again."""
    with pytest.raises(BaseException) as caught:
        explore(fn, **options)
    return caught.value


def name_of_schedule(error):
    (name,) = re.findall(r"again with explore\(\.\.\., replay='(.*?)'\)", "".join(error.__notes__))
    return name


def orders_of(fn, **options):
    """What fn appended to the list it is given, under each schedule."""
    orders = []

    def each():
        orders.append([])
        fn(orders[-1].append)

    done = explore(each, **options)
    assert len(orders) == done.schedules
    return done, [tuple(order) for order in orders]


def two_of_three_steps(happens):
    def steps(n):
        happens(n)
        happens(n)
        happens(n)

    with WaitGroup() as group:
        group.go(steps, 0)
        group.go(steps, 1)


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
