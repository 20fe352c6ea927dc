"""select under load: one case is done, all of it, and the others not at all."""

import itertools
import threading
from collections import Counter

import pytest

from gofer import Cancelled, Chan, Closed, WaitGroup, after, fork, go, gosched, select
from gofer.errors import Canceled

pytestmark = pytest.mark.usefixtures("nothing_left")


def assert_nobody_waits(chans):
    for ch in chans:
        while select(ch.recv_ok, default=True)[0] == 0 and not ch.closed:
            pass  # what is queued
        if ch.closed:
            continue
        if ch.cap == 0:
            assert select((ch.send, None), default=True) == (-1, None)
            assert select(ch.recv, default=True) == (-1, None)
        for _ in range(ch.cap):
            assert select((ch.send, None), default=True) == (0, None)
        assert len(ch) == ch.cap


def trader(chans, seed, steps, stop, log):
    """Sends and receives in random selects; logs what was certainly sent, and received."""
    from random import Random

    rng, numbers = Random(seed), itertools.count()
    try:
        for _ in range(steps):
            cases, kinds = [stop.recv_ok], [None]
            for _ in range(rng.randrange(1, 6)):
                ch = rng.choice(chans)
                if rng.random() < 0.5:
                    value = (seed, next(numbers))
                    cases.append((rng.choice([ch, ch.sender]).send, value))
                    kinds.append(value)
                else:
                    cases.append(rng.choice([ch.recv, ch.receiver.recv, ch.recv_ok]))
                    kinds.append(None)
            default = rng.random() < 0.2
            index, got = select(*cases, default=default)
            if index == 0:
                return
            if index < 0:
                assert default
                gosched()
            elif kinds[index] is not None:
                assert got is None
                log.append(("sent", kinds[index]))
            else:
                value = got[0] if "recv_ok" in cases[index].__name__ else got
                log.append(("got", value))
    except (Cancelled, Closed):
        pass


def balance(logs, chans):
    sent, got = Counter(), Counter()
    for what, value in itertools.chain(*logs):
        (sent if what == "sent" else got)[value] += 1
    for ch in chans:
        while True:
            index, (value, ok) = select(ch.recv_ok, default=True) if len(ch) else (-1, (0, False))
            if index < 0 or not ok:
                break
            got[value] += 1
    assert set(got.values()) <= {1}
    assert sent == got


@pytest.mark.parametrize("caps", [[0, 0, 0], [0, 1, 2], [5, 5, 5], [0]])
def test_all_that_is_sent_arrives_once(caps, much, rng):
    chans, stop = [Chan(cap) for cap in caps], Chan()
    logs = [[] for _ in range(50)]
    seeds = rng.sample(range(2**30), 50)
    tasks = [
        fork(trader, chans, seed, much(100), stop, log)
        for seed, log in zip(seeds, logs, strict=True)
    ]
    for _ in range(much(100)):
        gosched()
    stop.close()  # who is left alone waits for ever else
    for task in tasks:
        task.join()
    balance(logs, chans)
    assert_nobody_waits(chans)


@pytest.mark.parametrize("caps", [[0, 0, 0], [0, 1, 2], [0]])
def test_cancellation_loses_and_doubles_nothing(caps, much, rng):
    for _ in range(much(8)):
        chans, stop = [Chan(cap) for cap in caps], Chan()
        logs = [[] for _ in range(40)]
        tasks = [fork(trader, chans, rng.randrange(2**30), 10**9, stop, log) for log in logs]
        for task in rng.sample(tasks, len(tasks)):
            for _ in range(rng.randrange(3)):
                gosched()
            task.cancel()
        for task in tasks:
            task.join()
        balance(logs, chans)
        assert_nobody_waits(chans)


def test_close_in_the_middle_loses_and_doubles_nothing(much, rng):
    for _ in range(much(8)):
        chans, stop = [Chan(cap) for cap in (0, 1, 3)], Chan()
        logs = [[] for _ in range(40)]
        tasks = [fork(trader, chans, rng.randrange(2**30), 10**9, stop, log) for log in logs]
        for _ in range(rng.randrange(20)):
            gosched()
        for ch in rng.sample(chans, 3):
            ch.close()
        stop.close()
        for task in tasks:
            task.join()
        sent = [value for log in logs for what, value in log if what == "sent"]
        got = [value for log in logs for what, value in log if what == "got" and value]
        for ch in chans:
            got += list(ch)
        assert Counter(sent) == Counter(got)


def test_threads_take_part(much, rng, spawn_thread):
    chans, stop, ended = [Chan(cap) for cap in (0, 0, 1)], Chan(), WaitGroup()
    logs = [[] for _ in range(20)]
    ended.add(len(logs))

    def body(seed, log):
        trader(chans, seed, much(100), stop, log)
        ended.done()

    for n, log in enumerate(logs):
        (spawn_thread if n % 3 == 0 else go)(body, rng.randrange(2**30), log)
    for _ in range(much(300)):
        gosched()
    stop.close()
    ended.wait()
    balance(logs, chans)
    assert_nobody_waits(chans)


def test_of_two_senders_and_a_cancellation_one_wins(much, parked):
    for _ in range(much(800)):
        a, b = Chan(), Chan()
        task = fork(select, a.recv, b.recv)
        parked(task)
        one = fork(select, (a.send, "a"), default=True)
        two = fork(select, (b.send, "b"), default=True)
        task.cancel()
        outcomes = [one.join()[0], two.join()[0]]
        if task.exception() is None:
            index, value = task.join()
            assert value == "ab"[index]
            assert outcomes[index] == 0
            assert outcomes[1 - index] == -1
        else:
            assert isinstance(task.exception(), Canceled)
            assert outcomes == [-1, -1]
        assert_nobody_waits([a, b])


def test_two_selects_meet_once(much):
    a, b = Chan(), Chan()
    for n in range(much(1500)):
        one = fork(select, (a.send, ("one", n)), b.recv)
        two = fork(select, a.recv, (b.send, ("two", n)))
        outcomes = [one.join(), two.join()]
        assert outcomes in (
            [(0, None), (0, ("one", n))],
            [(1, ("two", n)), (1, None)],
        )
    assert_nobody_waits([a, b])


def test_a_crowd_that_sends_and_receives_on_one_channel(much, rng):
    """Each meets exactly one other; with an even crowd nobody is left."""
    ch, n = Chan(), 2 * much(1000)
    tasks = [fork(select, (ch.send, k), ch.recv) for k in range(n)]
    sent, got = set(), set()
    for k, task in enumerate(tasks):
        index, value = task.join()
        if index == 0:
            sent.add(k)
        else:
            got.add(value)
            assert value != k
    assert len(sent) == n // 2
    assert sent == got


def test_timeouts_and_values_race(much):
    """A value either arrives or stays with its sender, however the race with the timer ends."""
    ch, arrived = Chan(), []

    def receive():
        return select(ch.recv, after(0.0005).recv)

    for n in range(much(500)):
        receiver = fork(receive)
        sender = fork(select, (ch.send, n), after(0.0005).recv)
        index, value = receiver.join()
        taken = sender.join()[0] == 0
        assert (index == 0) == taken
        if taken:
            arrived.append(value)
    assert arrived == sorted(arrived)
    assert_nobody_waits([ch])


def test_a_busy_channel_does_not_starve_the_others(much):
    """A stop is seen although other cases are always ready."""
    busy, stop, rounds = Chan(1), Chan(), [0]

    def spin():
        while True:
            index, _ = select((busy.send, 1), busy.recv, stop.recv_ok)
            rounds[0] += 1
            if index == 2:
                return

    for _ in range(much(20)):
        stop = Chan()
        tasks = [fork(spin) for _ in range(3)]
        stop.close()
        for task in tasks:
            task.join()
    assert rounds[0] > 0


def test_ten_thousand_wait_in_selects(much, until):
    n = much(10_000)
    chans, stop = [Chan() for _ in range(5)], Chan()
    tasks = [fork(select, *[ch.recv for ch in chans], stop.recv_ok) for _ in range(n)]
    until(lambda: all(task.state == "waiting" for task in tasks))
    for k in range(n // 2):
        chans[k % 5].send(k)
    stop.close()
    outcomes = [task.join() for task in tasks]
    assert sorted(value for index, value in outcomes if index < 5) == list(range(n // 2))
    assert sum(index == 5 for index, _ in outcomes) == n - n // 2
    assert_nobody_waits(chans)


def test_many_threads_wait_in_selects(spawn_thread, until):
    a, b, outcomes, started = Chan(), Chan(), Chan(50), WaitGroup()
    started.add(50)

    def body():
        started.done()
        outcomes.send(select(a.recv, b.recv_ok))

    for _ in range(50):
        spawn_thread(body)
    started.wait()
    for n in range(25):
        a.send(n)
    b.close()
    got = [outcomes.recv() for _ in range(50)]
    assert sorted(value for index, value in got if index == 0) == list(range(25))
    assert got.count((1, (None, False))) == 25
    assert threading.active_count() >= 1
