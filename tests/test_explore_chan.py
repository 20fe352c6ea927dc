"""Channels and select under many schedules."""

import pytest

from gofer import (
    Chan,
    Group,
    fork,
    select,
)
from gofer.errors import Canceled, Closed

from shared.schedules import every, many, outcome

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize("cap", [0, 1, 2])
def test_each_value_arrives_once_and_in_order(cap):
    def fn():
        ch, got = Chan(cap), []

        def send(n):
            for k in range(3):
                ch.send((n, k))

        with Group() as senders:
            for n in range(2):
                senders.go(send, n)
            got.extend(ch.recv() for _ in range(6))
        assert sorted(got) == [(n, k) for n in range(2) for k in range(3)]
        for n in range(2):
            assert [k for m, k in got if m == n] == [0, 1, 2]

    every(fn, bound=1)
    many(fn)


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_what_was_sent_before_a_close_arrives(cap):
    def fn():
        ch, sent = Chan(cap), []

        def send(n):
            try:
                for k in range(3):
                    ch.send((n, k))
                    sent.append((n, k))
            except Closed:
                pass

        with Group() as g:
            receivers = [g.go(list, ch) for _ in range(2)]
            for n in range(2):
                g.go(send, n)
            g.go(ch.close)
        assert sorted(v for r in receivers for v in r.join()) == sorted(sent)
        assert ch.recv_ok() == (None, False)

    many(fn)


@pytest.mark.parametrize("cap", [0, 1])
def test_a_select_that_is_cancelled_takes_all_or_nothing(cap):
    """A value that races with a cancellation is received, or stays with the channel or sender."""

    def fn():
        inbox, outbox = Chan(cap), Chan(cap)
        selects = fork(lambda: select(inbox.recv, (outbox.send, "out")))
        sender = fork(inbox.send, "in")
        receiver = fork(outbox.recv)
        selects.cancel()
        match outcome(selects):
            case (0, "in"):
                assert outcome(sender) is None
                receiver.cancel()
                assert outcome(receiver) is Canceled
            case (1, None):
                assert outcome(receiver) == "out"
                assert inbox.recv() == "in"
            case other:
                assert other is Canceled
                assert inbox.recv() == "in"
                receiver.cancel()
                assert outcome(receiver) is Canceled
        assert select(inbox.recv, outbox.recv, default=True) == (-1, None)

    every(fn)
    many(fn)


def test_a_receiver_that_is_cancelled_loses_nothing():
    def fn():
        ch = Chan()
        first, second = fork(ch.recv), fork(ch.recv)
        sender = fork(ch.send, "value")
        first.cancel()
        if outcome(first) == "value":
            second.cancel()
            assert outcome(second) is Canceled
        else:
            assert outcome(second) == "value"
        assert outcome(sender) is None

    every(fn)


def test_a_select_of_two_that_select():
    """Each can do either side: they meet, and do the same thing."""

    def fn():
        a, b = Chan(), Chan()
        left = fork(lambda: select((a.send, 1), b.recv))
        right = fork(lambda: select(a.recv, (b.send, 2)))
        assert {outcome(left), outcome(right)} in ({(0, None), (0, 1)}, {(1, 2), (1, None)})

    every(fn)


def test_a_channel_as_a_semaphore():
    def fn():
        free, inside = Chan(2), []

        def work(n):
            free.send(n)
            inside.append(n)
            assert len(inside) <= 2
            inside.remove(n)
            free.recv()

        with Group() as g:
            for n in range(3):
                g.go(work, n)
        assert len(free) == 0

    every(fn, bound=1)
    many(fn)
