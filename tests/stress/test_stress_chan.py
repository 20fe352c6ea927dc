"""Channels under load: nothing is lost, doubled or reordered, and nobody sleeps for ever."""

import gc
import itertools
import queue
from collections import Counter

import pytest

from gofer import Cancelled, Chan, Closed, WaitGroup, current, fork, go, gosched, select
from gofer.errors import Canceled

pytestmark = pytest.mark.usefixtures("nothing_left")

CAPACITIES = [0, 1, 2, 17, 1000]


def drained(ch):
    """What is left in a channel that nobody uses any more."""
    left = []
    while True:
        index, got = select(ch.recv_ok, default=True)
        if index < 0 or not got[1]:
            return left
        left.append(got[0])


def send_all(ch, values, log):
    """Sends until cancelled or refused; what was sent for certain is in the log."""
    try:
        for value in values:
            ch.send(value)
            log.append(value)
    except (Cancelled, Closed):
        pass


def recv_all(ch, log):
    try:
        for value in ch:
            log.append(value)
    except Cancelled:
        pass


# --- conservation -------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", CAPACITIES)
def test_all_that_is_sent_arrives(cap, much):
    ch, each = Chan(cap), much(1500)
    senders = [fork(send_all, ch, range(n * each, (n + 1) * each), []) for n in range(8)]
    logs = [[] for _ in range(8)]
    receivers = [fork(recv_all, ch, log) for log in logs]
    for task in senders:
        task.join()
    ch.close()
    for task in receivers:
        task.join()
    assert sorted(itertools.chain(*logs)) == list(range(8 * each))
    for log in logs:  # of one sender each receiver sees a rising sequence
        for n in range(8):
            part = [value for value in log if value // each == n]
            assert part == sorted(part)


@pytest.mark.parametrize("cap", CAPACITIES)
def test_it_can_be_looked_at_meanwhile(cap, much):
    ch, each = Chan(cap), much(1500)

    def look():
        while not ch.closed:
            assert 0 <= len(ch) <= cap
            n = int(repr(ch).split()[1].split("/")[0])
            assert 0 <= n <= cap
            gosched()

    lookers = [fork(look) for _ in range(2)]
    senders = [fork(send_all, ch, range(each), []) for _ in range(2)]
    log = []
    receiver = fork(recv_all, ch, log)
    for task in senders:
        task.join()
    ch.close()
    for task in [receiver, *lookers]:
        task.join()
    assert len(log) == 2 * each


@pytest.mark.parametrize("cap", CAPACITIES)
def test_threads_and_goroutines_share_a_channel(cap, much, spawn_thread):
    ch, each = Chan(cap), much(200)
    senders = WaitGroup()
    logs, done = [[] for _ in range(8)], WaitGroup()

    def send(n):
        send_all(ch, range(n * each, (n + 1) * each), [])
        senders.done()

    def recv(log):
        recv_all(ch, log)
        done.done()

    senders.add(8)
    done.add(8)
    for n in range(8):
        (spawn_thread if n % 2 else go)(send, n)
        (spawn_thread if n % 4 < 2 else go)(recv, logs[n])
    senders.wait()
    ch.close()
    done.wait()
    assert sorted(itertools.chain(*logs)) == list(range(8 * each))


@pytest.mark.parametrize("cap", CAPACITIES)
def test_cancellation_loses_and_doubles_nothing(cap, much, rng):
    for _ in range(much(12)):
        ch, each, n = Chan(cap), 20, 60
        sent, got = [[] for _ in range(n)], [[] for _ in range(n)]
        tasks = [fork(send_all, ch, range(k * each, (k + 1) * each), sent[k]) for k in range(n)]
        tasks += [fork(recv_all, ch, got[k]) for k in range(n)]
        rng.shuffle(tasks)
        for task in tasks[: n // 2]:
            if rng.random() < 0.3:
                gosched()
            task.cancel()
        closes = rng.random() < 0.5
        if closes:
            ch.close()
        for task in tasks[n // 2 :]:
            if rng.random() < 0.1:
                gosched()
            task.cancel()
        for task in tasks:
            task.join()
        left = drained(ch)
        assert Counter(itertools.chain(*sent)) == Counter(itertools.chain(left, *got))


@pytest.mark.parametrize("cap", CAPACITIES)
def test_close_in_the_middle_loses_and_doubles_nothing(cap, much, rng, spawn_thread):
    for _ in range(much(12)):
        ch, each, n = Chan(cap), 50, 20
        sent, got = [[] for _ in range(n)], [[] for _ in range(n)]
        tasks = [fork(send_all, ch, range(k * each, (k + 1) * each), sent[k]) for k in range(n)]
        tasks += [fork(recv_all, ch, got[k]) for k in range(n)]
        for _ in range(rng.randrange(10)):
            gosched()
        (spawn_thread if rng.random() < 0.2 else fork)(ch.close)
        for task in tasks:
            task.join()
        left = drained(ch)
        assert left == []  # the receivers were there until it was drained
        assert Counter(itertools.chain(*sent)) == Counter(itertools.chain(*got))


# --- who wins -----------------------------------------------------------------------------------


def test_of_a_wake_and_a_cancellation_one_wins(much, parked):
    value = object()
    for _ in range(much(1500)):
        ch = Chan()
        receiver = fork(ch.recv)
        parked(receiver)
        wake = fork(select, (ch.send, value), default=True)
        receiver.cancel()
        index, _ = wake.join()
        if receiver.exception() is None:
            assert receiver.join() is value
            assert index == 0
        else:
            assert isinstance(receiver.exception(), Canceled)
            assert index == -1


def test_of_a_receiver_and_a_cancellation_one_wins(much, parked):
    value = object()
    for _ in range(much(1500)):
        ch = Chan()
        sender = fork(ch.send, value)
        parked(sender)
        wake = fork(select, ch.recv, default=True)
        sender.cancel()
        taken = wake.join()
        if sender.exception() is None:
            assert taken == (0, value)
        else:
            assert isinstance(sender.exception(), Canceled)
            assert taken == (-1, None)


def test_of_a_close_and_a_send_one_wins(much, parked):
    for _ in range(much(1500)):
        ch = Chan()
        receiver = fork(ch.recv_ok)
        parked(receiver)
        sender, closer = fork(ch.send, "x"), fork(ch.close)
        closer.join()
        if sender.exception() is None:
            assert receiver.join() == ("x", True)
        else:
            assert isinstance(sender.exception(), Closed)
            assert receiver.join() == (None, False)


def test_a_receiver_in_a_thread_and_two_senders(much, spawn_thread):
    ch, out = Chan(), Chan(10)
    n = much(1000)
    spawn_thread(lambda: [out.send(ch.recv()) for _ in range(2 * n)])
    tasks = [fork(lambda k=k: [ch.send((k, i)) for i in range(n)]) for k in range(2)]
    got = [out.recv() for _ in range(2 * n)]
    for task in tasks:
        task.join()
    for k in range(2):
        assert [i for who, i in got if who == k] == list(range(n))


# --- many at once -------------------------------------------------------------------------------


def test_a_hundred_thousand_wait_and_close_wakes_them(much, until):
    n, ch, ended = much(100_000), Chan(), WaitGroup()
    waiting = [ended.go(ch.recv_ok) for _ in range(n)]
    until(lambda: waiting[-1].state == "waiting")
    until(lambda: all(g.state == "waiting" for g in waiting))
    ch.close()
    ended.wait()
    for g in waiting:
        g.join()


def test_a_hundred_thousand_wait_and_each_gets_a_value(much, until):
    n, ch, sums = much(100_000), Chan(), Chan(1000)
    waiting = [go(lambda: sums.send(ch.recv())) for _ in range(n)]
    until(lambda: all(g.state == "waiting" for g in waiting))

    def feed():
        for value in range(n):
            ch.send(value)

    g = go(feed)
    assert sum(sums.recv() for _ in range(n)) == n * (n - 1) // 2
    g.join()
    for g in waiting:
        g.join()


def test_a_hundred_thousand_wait_to_send(much, until):
    n, ch = much(100_000), Chan()
    waiting = [go(ch.send, value) for value in range(n)]
    until(lambda: all(g.state == "waiting" for g in waiting))
    assert sum(ch.recv() for _ in range(n)) == n * (n - 1) // 2
    for g in waiting:
        g.join()


def test_a_chain_of_channels(much):
    n = much(5000)
    first = last = Chan()
    tasks = []
    for _ in range(n):
        nxt = Chan()
        tasks.append(fork(lambda a=last, b=nxt: b.send(a.recv() + 1)))
        last = nxt
    first.send(0)
    assert last.recv() == n
    for task in tasks:
        task.join()


def test_a_storm_of_messages_loses_no_wake_up(much, rng):
    """Each message hops from inbox to inbox; all that end are counted."""
    n, hops = 40, much(300)
    inboxes = [Chan(rng.choice([4, 8, 100])) for _ in range(n)]
    ended = Chan(n)

    def node(me, seed):
        at = seed
        for left in inboxes[me]:
            if left == 0:
                ended.send(me)
                continue
            at = (at * 48271 + me) % 2147483647
            go(inboxes[at % n].send, left - 1)

    nodes = [go(node, me, rng.randrange(1, 2**31)) for me in range(n)]
    for inbox in inboxes:
        inbox.send(hops)
    for _ in range(n):
        ended.recv()
    for inbox in inboxes:
        inbox.close()
    for g in nodes:
        g.join()


def test_ping_pong_between_all_kinds(much, spawn_thread):
    """Each pair hands one value back and forth: a lost wake-up stops it."""
    n, rounds, ended = 16, much(400), WaitGroup()

    def answer(mine, other):
        for _ in range(rounds):
            other.send(mine.recv() + 1)
        ended.done()

    def ask(mine, other):
        value = 0
        for _ in range(rounds):
            other.send(value)
            value = mine.recv()
        assert value == rounds
        ended.done()

    for k in range(n):
        a, b = Chan(k % 2), Chan(k % 3 % 2)
        ended.add(2)
        (spawn_thread if k % 5 == 0 else go)(answer, a, b)
        (spawn_thread if k % 7 == 0 else go)(ask, b, a)
    ended.wait()


def test_the_collector_in_between(much, spawn_thread):
    """The thread collects in step with what arrives: one that never pauses starves all others on a
    free-threaded Python, where the world stops again before they have begun to run."""
    ch, n = Chan(3), much(300)
    turns = queue.SimpleQueue()

    def litter(k):
        for i in range(n):
            ring = [k, i]
            ring.append(ring)
            ch.send(ring)
            if i % 50 == k:
                gc.collect()

    def collect():
        while turns.get():
            gc.collect()

    spawn_thread(collect)
    tasks = [fork(litter, k) for k in range(10)]
    seen = Counter()
    for i in range(10 * n):
        ring = ch.recv()
        assert ring[2] is ring
        seen[ring[0]] += 1
        if i % 10 == 0 and turns.empty():
            turns.put(True)
        if i % 100 == 0:
            gc.collect()
    turns.put(False)
    for task in tasks:
        task.join()
    assert seen == dict.fromkeys(range(10), n)


def test_cycles_are_collected_while_goroutines_wait_in_them(much):
    """Channels that go while many others are in use: nothing of theirs is mixed up."""

    def lives(k):
        for _ in range(much(20)):
            ch, other = Chan(2), Chan()
            ch.send([ch, other.sender])
            g = go(other.send, k)
            assert other.recv() == k
            g.join()
            gosched()
        return current().id

    tasks = [fork(lives, k) for k in range(200)]
    for _ in range(5):
        gc.collect()
        gosched()
    assert len({task.join() for task in tasks}) == 200
