"""Channels: send, recv, recv_ok, close, iteration, the views, and whose the values are.

`select` has a file of its own; many goroutines at once are in `stress/`.
"""

import contextlib
import copy
import gc
import itertools
import pickle
import signal
import sys
import threading
import types
import weakref

import pytest

from gofer import (
    Chan,
    Closed,
    Goroutine,
    RecvChan,
    SendChan,
    current,
    fork,
    go,
    gosched,
    select,
)
from gofer.errors import Canceled

pytestmark = pytest.mark.usefixtures("nothing_left")


class Token:
    """Something that can be referred to weakly and may be part of a cycle."""

    def __init__(self, *held):
        self.held = held


def is_empty(ch):
    """Whether nothing can be received at once."""
    return select(ch.recv_ok, default=True) == (-1, None)


def in_thread(fn, *args):
    """What fn(*args) returns, called in a thread that is no worker."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(fn(*args)))
    thread.start()
    thread.join()
    return outcome[0]


# --- making one ---------------------------------------------------------------------------------


def test_unbuffered_unless_a_capacity_is_given():
    assert Chan().cap == 0
    assert Chan(0).cap == 0
    assert Chan(3).cap == 3
    assert Chan(cap=3).cap == 3


def test_a_type_for_checkers_changes_nothing():
    ch = Chan[int](10)
    assert type(ch) is Chan
    assert ch.cap == 10
    for kind in (Chan, SendChan, RecvChan):
        assert isinstance(kind[int], types.GenericAlias)
        assert kind[int].__origin__ is kind
        assert kind[int].__args__ == (int,)


def test_a_new_one_is_empty_open_and_true():
    for ch in (Chan(), Chan(2)):
        assert len(ch) == 0
        assert ch.closed is False
        assert bool(ch) is True


@pytest.mark.parametrize("cap", [-1, -2, -sys.maxsize - 1])
def test_a_negative_capacity_is_refused(cap):
    with pytest.raises(ValueError, match=rf"Chan\({cap}\).*fewer than 0"):
        Chan(cap)


@pytest.mark.parametrize("cap", [1.0, "1", b"1", None, [], object()])
def test_a_capacity_is_an_integer(cap):
    with pytest.raises(TypeError):
        Chan(cap)


def test_a_capacity_may_be_anything_with_an_index():
    class Three:
        def __index__(self):
            return 3

    assert Chan(Three()).cap == 3


@pytest.mark.parametrize("cap", [2**62, sys.maxsize, sys.maxsize // 8])
def test_a_capacity_for_which_there_is_no_memory(cap):
    with pytest.raises(MemoryError):
        Chan(cap)


@pytest.mark.parametrize("cap", [2**63, 2**200, -(2**200)])
def test_a_capacity_that_no_machine_has(cap):
    with pytest.raises(OverflowError):
        Chan(cap)


def test_other_arguments_are_refused():
    with pytest.raises(TypeError):
        Chan(1, 2)
    with pytest.raises(TypeError):
        Chan(size=1)


def test_no_subclass_can_be_made():
    for kind in (Chan, SendChan, RecvChan):
        with pytest.raises(TypeError):
            type("Sub", (kind,), {})


def test_views_are_not_made_by_hand():
    for kind in (SendChan, RecvChan):
        with pytest.raises(TypeError):
            kind()
        with pytest.raises(TypeError):
            kind(Chan())
        with pytest.raises(TypeError):
            object.__new__(kind)


def test_no_attribute_can_be_set():
    ch = Chan(1)
    for thing in (ch, ch.sender, ch.receiver):
        for name in ("cap", "closed", "send", "other"):
            with pytest.raises(AttributeError):
                setattr(thing, name, 1)
            with pytest.raises((AttributeError, TypeError)):
                delattr(thing, name)
        with pytest.raises(TypeError):
            thing.__class__ = Token


def test_copies_are_refused():
    ch = Chan(1)
    for thing in (ch, ch.sender, ch.receiver):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                duplicate(thing)


def test_repr_tells_how_full_it_is_and_whether_closed():
    ch = Chan(3)
    ch.send("x")
    assert "Chan 1/3" in repr(ch)
    assert "closed" not in repr(ch)
    ch.close()
    for thing in (ch, ch.sender, ch.receiver):
        assert type(thing).__name__ in repr(thing)
        assert "1/3 closed" in repr(thing)


def test_channels_are_equal_to_themselves_only():
    a, b = Chan(), Chan()
    assert a == a
    assert a != b
    assert len({a, b, a}) == 2


def test_weak_references():
    ch = Chan()
    alive = weakref.ref(ch)
    assert alive() is ch
    del ch
    assert alive() is None


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


# --- views --------------------------------------------------------------------------------------


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def test_each_view_has_its_half_only():
    ch = Chan()
    assert type(ch.sender) is SendChan
    assert type(ch.receiver) is RecvChan
    assert public(ch.sender) == {"send", "close", "cap", "closed"}
    assert public(ch.receiver) == {"recv", "recv_ok", "cap", "closed"}
    assert public(ch) == public(ch.sender) | public(ch.receiver) | {"sender", "receiver"}
    with pytest.raises(TypeError):
        iter(ch.sender)
    with pytest.raises(TypeError):
        next(ch.sender)


def test_views_are_of_the_same_channel():
    ch = Chan(3)
    sender, receiver = ch.sender, ch.receiver
    sender.send(1)
    ch.send(2)
    sender.send(3)
    for thing in (ch, sender, receiver):
        assert len(thing) == 3
        assert thing.cap == 3
        assert thing.closed is False
        assert bool(thing) is True
    assert receiver.recv() == 1
    assert ch.recv() == 2
    sender.close()
    for thing in (ch, sender, receiver):
        assert len(thing) == 1
        assert thing.closed is True
    assert receiver.recv_ok() == (3, True)
    assert receiver.recv_ok() == (None, False)
    assert list(receiver) == []


def test_a_view_waits_and_loops_as_the_channel(parked):
    ch = Chan()
    task = fork(list, ch.receiver)
    for n in range(5):
        ch.sender.send(n)
    ch.sender.close()
    assert task.join() == [0, 1, 2, 3, 4]
    assert iter(ch.receiver) == ch.receiver


def test_views_of_one_half_are_equal():
    ch, other = Chan(), Chan()
    assert ch.sender == ch.sender
    assert hash(ch.sender) == hash(ch.sender)
    assert ch.receiver == ch.receiver
    assert ch.sender != ch.receiver
    assert ch.sender != other.sender
    assert ch.sender != ch
    with pytest.raises(TypeError):
        ch.sender < ch.sender  # noqa: B015


def test_a_view_keeps_the_channel():
    ch = Chan(1)
    alive = weakref.ref(ch)
    sender, receiver = ch.sender, ch.receiver
    del ch
    sender.send("kept")
    del sender
    assert alive() is not None
    assert receiver.recv() == "kept"
    recv = receiver.recv
    del receiver
    assert alive() is not None
    del recv
    assert alive() is None


# --- bad input ----------------------------------------------------------------------------------


def test_arguments_that_do_not_belong():
    ch = Chan(1)
    for call in (
        lambda: ch.send(),
        lambda: ch.send(1, 2),
        lambda: ch.send(value=1),
        lambda: ch.sender.send(),
        lambda: ch.recv(1),
        lambda: ch.recv(timeout=1),
        lambda: ch.recv_ok(1),
        lambda: ch.close(1),
        lambda: ch.receiver.recv(None),
    ):
        with pytest.raises(TypeError):
            call()
    assert len(ch) == 0
    assert not ch.closed


def test_messages_name_the_method():
    with pytest.raises(TypeError, match=r"send\(\) takes exactly one argument \(0 given\)"):
        Chan().send()
    with pytest.raises(TypeError, match=r"recv\(\) takes no arguments \(1 given\)"):
        Chan().recv(1)


@pytest.mark.parametrize("thing", [None, 3, "ch", object(), [], Chan, threading.Lock()])
def test_methods_are_for_channels_only(thing):
    for kind, name, args in (
        (Chan, "send", (1,)),
        (Chan, "recv", ()),
        (Chan, "recv_ok", ()),
        (Chan, "close", ()),
        (SendChan, "send", (1,)),
        (RecvChan, "recv", ()),
        (RecvChan, "__len__", ()),
        (RecvChan, "__next__", ()),
    ):
        with pytest.raises(TypeError):
            getattr(kind, name)(thing, *args)
    with pytest.raises(TypeError):
        Chan.cap.__get__(thing)


def test_a_method_of_one_kind_is_not_for_another():
    ch = Chan(1)
    with pytest.raises(TypeError):
        Chan.send(ch.sender, 1)
    with pytest.raises(TypeError):
        SendChan.send(ch, 1)
    with pytest.raises(TypeError):
        SendChan.send(ch.receiver, 1)
    with pytest.raises(TypeError):
        RecvChan.recv(ch.sender)
    assert len(ch) == 0


# --- whose the values are -----------------------------------------------------------------------


def test_references_are_steady(parked, until):
    token = Token()
    before = sys.getrefcount(token)
    ch = Chan(2)
    ch.send(token)
    ch.send(token)
    queued = sys.getrefcount(token)
    ch.recv()
    ch.recv_ok()
    taken = sys.getrefcount(token)
    waits = fork(ch.recv)
    parked(waits)
    ch.send(token)
    waits.join()
    del waits
    until(lambda: sys.getrefcount(token) == before)  # its worker lets go of it after its end
    handed = sys.getrefcount(token)
    ch.send(token)
    del ch
    dropped = sys.getrefcount(token)
    assert (queued, taken, handed, dropped) == (before + 2, before, before, before)


def test_references_are_steady_when_a_send_fails(parked):
    token = Token()
    before = sys.getrefcount(token)
    ch = Chan()
    tasks = [fork(ch.send, token) for _ in range(3)]
    parked(*tasks)
    tasks[1].cancel()
    ch.close()
    for task in tasks:
        assert isinstance(task.exception(), (Closed, Canceled))
    for _ in range(3):
        with contextlib.suppress(Closed):
            ch.send(token)
    del task, tasks
    gc.collect()  # an exception holds its frames, and they hold it
    assert sys.getrefcount(token) == before


def test_nothing_keeps_a_value_that_was_received():
    for cap in (0, 1):
        ch = Chan(cap)
        g = go(lambda ch=ch: ch.send(Token()))
        alive = weakref.ref(ch.recv())
        g.join()
        gc.collect()  # made in one thread and dropped in another: it may be in a queue of CPython's
        assert alive() is None


def test_a_channel_that_goes_takes_its_values_with_it():
    ch = Chan(3)
    tokens = [Token() for _ in range(3)]
    alive = [weakref.ref(token) for token in tokens]
    while tokens:
        ch.send(tokens.pop())
    assert None not in [ref() for ref in alive]
    del ch
    assert [ref() for ref in alive] == [None] * 3


def test_cycles_through_a_channel_are_collected():
    def through_the_buffer():
        ch = Chan(1)
        ch.send(Token(ch))
        return ch

    def by_itself():
        ch = Chan(2)
        ch.send(ch)
        return ch

    def through_a_view():
        ch = Chan(1)
        ch.send(Token(ch.sender, ch.receiver))
        return ch

    def through_a_method():
        ch = Chan(1)
        ch.send(Token(ch.recv, ch.sender.send))
        return ch

    def through_another():
        a, b = Chan(1), Chan(1)
        a.send(b.receiver)
        b.send(a.sender)
        return a

    makers = (through_the_buffer, by_itself, through_a_view, through_a_method, through_another)
    for maker in makers:
        alive = weakref.ref(maker())
        assert alive() is not None
        gc.collect()
        assert alive() is None, maker.__name__


def test_what_is_in_use_is_not_collected(parked):
    ch = Chan(1)
    ch.send(Token(ch))
    waits = fork(Chan(0).recv)
    parked(waits)
    gc.collect()
    assert ch.recv().held == (ch,)
    waits.cancel()
    waits.exception()


def test_the_collector_meets_a_ring_that_wraps():
    ch = Chan(4)
    for n in range(3):
        ch.send(n)
    for _ in range(3):
        ch.recv()
    for _ in range(4):
        ch.send(Token(ch))
    assert len(gc.get_referents(ch)) == 4
    alive = weakref.ref(ch)
    del ch
    gc.collect()
    assert alive() is None


def test_a_value_may_use_channels_when_it_goes():
    log = Chan(10)

    class Last:
        def __init__(self, name):
            self.name = name

        def __del__(self):
            log.send(self.name)

    ch = Chan(2)
    ch.send(Last("first"))
    ch.send(Last("second"))
    del ch
    assert [log.recv(), log.recv()] == ["first", "second"]
    ch = Chan(2)
    ch.send(Last("third"))
    ch.send(ch)
    del ch
    gc.collect()
    assert log.recv() == "third"


def test_a_destructor_may_wait():
    ch, ended = Chan(), []

    class Last:
        def __del__(self):
            ch.send("the end")
            ended.append(True)

    def body():
        thing = Last()
        del thing
        ended.append("body")

    g = go(body)
    assert ch.recv() == "the end"
    g.join()
    assert ended == [True, "body"]


def test_waiting_in_the_collector_is_refused():
    ch, full, seen = Chan(), Chan(1), []
    full.send(None)

    def attempt(phase, info):
        for wait in (ch.recv, ch.recv_ok, lambda: full.send(1), lambda: next(ch), gosched):
            try:
                wait()
            except RuntimeError as error:
                seen.append(str(error))

    gc.callbacks.append(attempt)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(attempt)
    assert len(seen) == 10
    assert all("collector" in text for text in seen)
    assert len(full) == 1


def test_what_needs_no_waiting_is_done_in_the_collector():
    ch = Chan(10)

    def note(phase, info):
        ch.send(phase)

    gc.callbacks.append(note)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(note)
    assert [ch.recv(), ch.recv()] == ["start", "stop"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that signal")
def test_a_signal_handler_may_use_channels(program):
    outcome = program(
        """
        import os, signal
        from gofer import Chan, go
        asked, answers = Chan(), Chan()
        def handler(number, frame):
            asked.send("signal")                # waits: nobody listens yet
            print("handler got", answers.recv(), flush=True)
        def other():
            print("other got", asked.recv(), flush=True)
            answers.send("answer")
        signal.signal(signal.SIGUSR1, handler)
        g = go(other)
        os.kill(os.getpid(), signal.SIGUSR1)
        g.join()
        print("end")
        """
    )
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == ["other got signal", "handler got answer", "end"]


def test_a_signal_comes_while_main_waits_on_a_channel(program):
    outcome = program(
        """
        import signal
        from gofer import Chan
        ch = Chan(1)
        signal.signal(signal.SIGALRM, lambda *_: ch.send("from the handler"))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        from gofer import after
        late = after(1000)                      # so it is no deadlock
        print(ch.recv())
        """
    )
    assert (outcome.status, outcome.out, outcome.err) == (0, "from the handler\n", "")


def test_at_exit_waiting_is_refused_and_nothing_crashes(program):
    outcome = program(
        """
        import atexit
        from gofer import Chan, go, gosched
        ch, full = Chan(), Chan(1)
        full.send(1)
        class Late:
            def __del__(self):
                for wait in (ch.recv, ch.recv_ok, lambda: full.send(2)):
                    try:
                        wait()
                    except BaseException as error:
                        print(type(error).__name__, flush=True)
        late = Late()
        go(ch.recv); go(ch.send, late.__class__)
        go(full.send, 1); go(lambda: list(ch))
        gosched()
        """
    )
    assert outcome.status == 0
    assert set(outcome.out.split()) <= {"RuntimeError", "Closed", "Deadlock"}


def test_the_first_use_may_be_of_any_kind(program):
    for line in (
        "ch = Chan(); go(ch.send, 1); ch.recv()",
        "ch = Chan(1); ch.send(1); ch.close(); list(ch)",
        "ch = Chan(); go(lambda: ch.recv()); ch.sender.send(1)",
        "try: Chan().recv()\nexcept Deadlock: pass",
    ):
        source = "from gofer import Chan, Deadlock, go\n" + line + "\nprint('done')"
        outcome = program(source)
        assert (outcome.status, outcome.out, outcome.err) == (0, "done\n", "")


def test_handles_of_who_waits_are_goroutines(parked):
    ch = Chan()
    task = fork(ch.recv)
    parked(task)
    assert isinstance(task, Goroutine)
    assert in_thread(lambda: task.state) == "waiting"
    in_thread(ch.send, 1)
    assert task.join() == 1
