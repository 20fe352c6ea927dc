"""Channels: send, recv, recv_ok, close, iteration, and in which order who waits is served.

`select` has a file of its own; many goroutines at once are in `stress/`.
"""

import itertools
import threading

import pytest

from gofer import Chan, Closed, current, fork, go
from gofer.errors import Canceled

from shared import Token, is_empty

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- without a buffer ---------------------------------------------------------------------------


def test_send_waits_for_a_receiver(parked):
    ch, after = Chan(), []
    g = go(lambda: (ch.send("value"), after.append("sent")))
    parked(g)
    assert after == []
    assert len(ch) == 0
    assert ch.recv() == "value"
    g.join()
    assert after == ["sent"]


def test_recv_waits_for_a_sender(parked):
    ch = Chan()
    task = fork(ch.recv)
    parked(task)
    assert ch.send("value") is None
    assert task.join() == "value"


def test_a_value_is_the_very_object(parked):
    values = [None, False, 0, "", (), [], Token(), Closed("x"), StopIteration(), ValueError, ...]
    for value in [*values, Chan(), Chan().sender, current()]:
        for cap in (0, 1):
            ch = Chan(cap)
            task = fork(ch.recv)
            parked(task)
            ch.send(value)
            assert task.join() is value
            task = fork(ch.recv_ok)
            parked(task)
            ch.send(value)
            got, ok = task.join()
            assert got is value
            assert ok is True
            g = go(ch.send, value)
            assert ch.recv() is value
            g.join()
            g = go(ch.send, value)
            assert next(ch) is value
            g.join()


def test_two_goroutines_play_ping_pong():
    ping, pong = Chan(), Chan()

    def answer():
        for n in ping:
            pong.send(n + 1)
        pong.close()

    g = go(answer)
    for n in range(1000):
        ping.send(n)
        assert pong.recv() == n + 1
    ping.close()
    assert pong.recv_ok() == (None, False)
    g.join()


def test_a_channel_may_be_sent_through_itself():
    ch = Chan()
    g = go(ch.send, ch)
    assert ch.recv() is ch
    g.join()


# --- with a buffer ------------------------------------------------------------------------------


def test_send_waits_only_while_it_is_full(parked):
    ch = Chan(2)
    ch.send(1)
    ch.send(2)
    assert len(ch) == 2
    g = go(ch.send, 3)
    parked(g)
    assert len(ch) == 2
    assert ch.recv() == 1
    g.join()
    assert len(ch) == 2
    assert [ch.recv(), ch.recv()] == [2, 3]
    assert len(ch) == 0


def test_values_come_out_in_the_order_they_went_in():
    for cap in (1, 2, 3, 7, 64):
        ch = Chan(cap)
        numbers, got = itertools.count(), []
        for amount in [cap, 1, cap - 1, cap // 2, cap]:  # so the ring wraps
            while len(ch) < amount:
                ch.send(next(numbers))
            got += [ch.recv() for _ in range(amount)]
        while len(ch):
            got.append(ch.recv())
        assert got == list(range(next(numbers)))


def test_who_waits_to_send_comes_after_what_is_queued(parked):
    ch = Chan(2)
    ch.send(0)
    ch.send(1)
    senders = []
    for n in (2, 3, 4):
        senders.append(go(ch.send, n))
        parked(senders[-1])
    assert [ch.recv() for _ in range(5)] == [0, 1, 2, 3, 4]
    for g in senders:
        g.join()


def test_a_large_buffer():
    ch = Chan(100_000)
    for n in range(100_000):
        ch.send(n)
    assert len(ch) == 100_000
    ch.close()
    assert sum(ch) == sum(range(100_000))


def test_who_waits_to_receive_gets_it_past_the_buffer(parked):
    ch = Chan(5)
    task = fork(ch.recv)
    parked(task)
    ch.send("value")
    assert len(ch) == 0
    assert task.join() == "value"


# --- order of arrival ---------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_receivers_are_served_in_order_of_arrival(parked, cap):
    ch = Chan(cap)
    tasks = []
    for kind in (ch.recv, ch.recv_ok, ch.__next__, ch.receiver.recv) * 3:
        tasks.append(fork(kind))
        parked(tasks[-1])
    for n in range(len(tasks)):
        ch.send(n)
    got = [task.join() for task in tasks]
    assert [v[0] if isinstance(v, tuple) else v for v in got] == list(range(len(tasks)))


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_senders_are_served_in_order_of_arrival(parked, cap):
    ch = Chan(cap)
    for n in range(cap):
        ch.send(n)
    senders = []
    for n in range(cap, cap + 10):
        senders.append(go(ch.send if n % 2 else ch.sender.send, n))
        parked(senders[-1])
    assert [ch.recv() for _ in range(cap + 10)] == list(range(cap + 10))
    for g in senders:
        g.join()


def test_threads_and_goroutines_stand_in_one_line(parked, until):
    ch, known, got, tasks = Chan(), Chan(), [], []

    def in_line(n):
        known.send(current())
        got.append((n, ch.recv()))

    for n in range(10):
        start = fork if n % 2 else lambda *call: threading.Thread(target=call[0], args=call[1:])
        tasks.append(start(in_line, n))
        if n % 2 == 0:
            tasks[-1].start()
        me = known.recv()
        until(lambda me=me: me.state == "waiting" and any_waits_on(ch, me))
    for n in range(10):
        ch.send(n)
    for task in tasks:
        task.join()
    assert sorted(got) == [(n, n) for n in range(10)]


def any_waits_on(ch, g):
    """Whether g waits, by its repr: first it waited to be known."""
    return "chan receive" in repr(g)


def test_one_that_gives_up_leaves_the_line(parked):
    ch = Chan()
    tasks = []
    for _ in range(5):
        tasks.append(fork(ch.recv))
        parked(tasks[-1])
    for at in (0, 2, 4):
        tasks[at].cancel()
        with pytest.raises(Canceled):
            tasks[at].join()
    ch.send("first")
    ch.send("second")
    assert tasks[1].join() == "first"
    assert tasks[3].join() == "second"
    senders = []
    for n in range(5):
        senders.append(fork(ch.send, n))
        parked(senders[-1])
    for at in (0, 2, 4):
        senders[at].cancel()
        with pytest.raises(Canceled):
            senders[at].join()
    assert [ch.recv(), ch.recv()] == [1, 3]
    assert is_empty(ch)


# --- close --------------------------------------------------------------------------------------


def test_after_close_what_is_queued_can_be_received():
    ch = Chan(3)
    ch.send(1)
    ch.send(2)
    assert ch.close() is None
    assert ch.closed is True
    assert len(ch) == 2
    assert ch.recv() == 1
    assert ch.recv_ok() == (2, True)
    assert ch.recv_ok() == (None, False)
    assert ch.recv_ok() == (None, False)
    with pytest.raises(Closed):
        ch.recv()
    assert list(ch) == []
    assert ch.closed is True


def test_none_is_told_from_the_end():
    ch = Chan(1)
    ch.send(None)
    ch.close()
    assert ch.recv_ok() == (None, True)
    assert ch.recv_ok() == (None, False)


@pytest.mark.parametrize("cap", [0, 2])
def test_send_on_a_closed_channel_raises(cap):
    ch = Chan(cap)
    ch.close()
    for send in (ch.send, ch.sender.send):
        with pytest.raises(Closed, match=r"send.*<Chan 0/\d"):
            send(1)
    assert len(ch) == 0


def test_recv_on_a_closed_channel_raises():
    ch = Chan()
    ch.close()
    for recv in (ch.recv, ch.receiver.recv):
        with pytest.raises(Closed, match=r"recv.*<Chan 0/0"):
            recv()


def test_a_second_close_raises():
    ch = Chan()
    ch.close()
    for close in (ch.close, ch.sender.close):
        with pytest.raises(Closed, match=r"close.*<Chan 0/0"):
            close()
    assert ch.closed


def test_the_index_of_closed_is_for_select():
    ch = Chan()
    ch.close()
    with pytest.raises(Closed) as caught:
        ch.recv()
    assert caught.value.index is None
    assert isinstance(caught.value, Exception)


def test_close_wakes_all_who_receive(parked):
    ch = Chan()
    loud = [fork(ch.recv) for _ in range(10)]
    quiet = [fork(ch.recv_ok) for _ in range(10)]
    loops = [fork(list, ch) for _ in range(10)]
    parked(*loud, *quiet, *loops)
    ch.close()
    for task in loud:
        with pytest.raises(Closed, match="recv"):
            task.join()
    assert [task.join() for task in quiet] == [(None, False)] * 10
    assert [task.join() for task in loops] == [[]] * 10


@pytest.mark.parametrize("cap", [0, 2])
def test_close_wakes_all_who_send_and_keeps_what_is_queued(parked, cap):
    ch = Chan(cap)
    for n in range(cap):
        ch.send(n)
    tasks = [fork(ch.send, "too late") for _ in range(10)]
    parked(*tasks)
    ch.close()
    for task in tasks:
        with pytest.raises(Closed, match="send"):
            task.join()
    assert list(ch) == list(range(cap))


def test_close_wakes_threads_as_well(until):
    ch, known, outcomes = Chan(), Chan(), Chan(10)

    def body():
        known.send(current())
        outcomes.send(ch.recv_ok())

    threads = [threading.Thread(target=body) for _ in range(10)]
    for thread in threads:
        thread.start()
    handles = [known.recv() for _ in threads]
    until(lambda: all(any_waits_on(ch, g) for g in handles))
    ch.close()
    assert [outcomes.recv() for _ in threads] == [(None, False)] * 10
    for thread in threads:
        thread.join()


def test_only_one_of_many_closers_succeeds():
    ch = Chan()
    tasks = [fork(ch.close) for _ in range(50)]
    failures = [task.exception() for task in tasks]
    assert failures.count(None) == 1
    assert {type(e) for e in failures if e is not None} == {Closed}


# --- iteration ----------------------------------------------------------------------------------


def test_iteration_lasts_until_closed_and_drained(parked):
    ch = Chan(2)
    task = fork(list, ch)
    for n in range(10):
        ch.send(n)
    parked(task)
    ch.close()
    assert task.join() == list(range(10))


def test_leaving_a_loop_leaves_the_rest():
    ch = Chan(5)
    for n in range(5):
        ch.send(n)
    for n in ch:
        if n == 2:
            break
    assert iter(ch) is ch
    assert next(ch) == 3
    ch.close()
    assert list(ch) == [4]
    with pytest.raises(StopIteration):
        next(ch)


def test_several_loops_share_the_values():
    ch = Chan()
    tasks = [fork(list, ch) for _ in range(5)]
    for n in range(1000):
        ch.send(n)
    ch.close()
    parts = [task.join() for task in tasks]
    assert sorted(itertools.chain(*parts)) == list(range(1000))
    for part in parts:
        assert part == sorted(part)


def test_a_generator_can_be_fed_from_a_channel():
    ch = Chan()

    def doubled():
        for n in ch:
            yield 2 * n

    def feed():
        for n in range(10):
            ch.send(n)
        ch.close()

    g = go(feed)
    assert list(doubled()) == [2 * n for n in range(10)]
    g.join()
