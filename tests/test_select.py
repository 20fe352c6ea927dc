"""select: which case, what it returns, what becomes of the others, and how fair the choice is.

The tests of fairness count choices. They allow 8 standard deviations around the mean, which a fair
choice oversteps with a probability below 1e-14 each.
"""

import contextlib
import functools
import gc
import sys
import threading
import weakref

import pytest

from gofer import Chan, Closed, Mutex, after, current, fork, select
from gofer.errors import Canceled

from shared import Token
from shared.channels import closed, full

pytestmark = pytest.mark.usefixtures("nothing_left")


def has_no_receiver(ch):
    return select((ch.send, None), default=True) == (-1, None)


def has_no_sender(ch):
    return select(ch.recv_ok, default=True) == (-1, None)


# --- what it returns ----------------------------------------------------------------------------


def test_the_value_is_what_the_call_would_return():
    assert select(full("a").recv) == (0, "a")
    assert select(full("a").recv_ok) == (0, ("a", True))
    assert select(closed().recv_ok) == (0, (None, False))
    assert select((Chan(1).send, "a")) == (0, None)
    assert select(full(None).recv) == (0, None)
    assert type(select(full("a").recv)) is tuple


def test_the_index_counts_all_cases():
    ready, never = full("a"), Chan()
    assert select(None, never.recv, ready.recv, (never.send, 1)) == (2, "a")


def test_views_are_channels():
    ch = Chan(1)
    assert select((ch.sender.send, "a")) == (0, None)
    assert select(ch.receiver.recv) == (0, "a")
    assert select((ch.send, "b"), ch.receiver.recv_ok) == (0, None)
    assert select((ch.sender.send, "c"), ch.receiver.recv_ok) == (1, ("b", True))


def test_the_example_of_the_documents():
    def choose(jobs, results, done, limit):
        match select(jobs.recv, (results.send, "out"), done.recv_ok, after(limit).recv):
            case 0, job:
                return job
            case 1, _:
                return "sent"
            case 2, (_, ok):
                return ok
            case 3, _:
                return "late"

    assert choose(full("job"), Chan(), Chan(), 1000) == "job"
    assert choose(Chan(), Chan(1), Chan(), 1000) == "sent"
    assert choose(Chan(), Chan(), closed(), 1000) is False
    assert choose(Chan(), Chan(), full(1), 1000) is True
    assert choose(Chan(), Chan(), Chan(), 0) == "late"


def test_it_waits_until_a_case_is_ready(parked):
    a, b = Chan(), Chan()
    for do, expected in (
        (lambda: a.send("x"), (0, "x")),
        (lambda: b.send("y"), (1, ("y", True))),
        (lambda: a.recv(), (2, None)),
    ):
        task = fork(select, a.recv, b.recv_ok, (a.send, "z"))
        parked(task)
        do()
        assert task.join() == expected


def test_what_a_waiting_select_offered_arrives(parked):
    a, b = Chan(), Chan()
    task = fork(select, (a.send, "to a"), (b.send, "to b"))
    parked(task)
    assert b.recv() == "to b"
    assert task.join() == (1, None)
    assert has_no_sender(a)


def test_one_done_of_the_others_nothing():
    a, b, c, d = full(1), full(2), Chan(1), Chan(1)
    index, _ = select(a.recv, b.recv, (c.send, 3), (d.send, 4))
    lengths = [len(a), len(b), len(c), len(d)]
    assert lengths == [1 ^ (index == 0), 1 ^ (index == 1), index == 2, index == 3]


def test_a_thread_may_select(until):
    a, b, known, outcome = Chan(), Chan(), Chan(), Chan(1)

    def body():
        known.send(current())
        outcome.send(select(a.recv, (b.send, "b")))

    for do, expected in ((lambda: a.send("a"), (0, "a")), (b.recv, (1, None))):
        thread = threading.Thread(target=body)
        thread.start()
        me = known.recv()
        until(lambda me=me: "select" in repr(me))
        do()
        assert outcome.recv() == expected
        thread.join()
        assert has_no_receiver(a)
        assert has_no_sender(b)


# --- default, None, and no case -----------------------------------------------------------------


def test_default_is_taken_only_when_no_case_is_ready():
    never = Chan()
    assert select(never.recv, (never.send, 1), None, default=True) == (-1, None)
    assert select(never.recv, full("a").recv, default=True) == (1, "a")
    assert select(never.recv_ok, closed().recv_ok, default=True) == (1, (None, False))
    assert select(default=True) == (-1, None)
    assert select(None, default=True) == (-1, None)


def test_default_leaves_nothing_behind():
    ch = Chan()
    select(ch.recv, (ch.send, 1), default=True)
    assert has_no_receiver(ch)
    assert has_no_sender(ch)


@pytest.mark.parametrize("yes", [True, 1, "yes", [0]])
@pytest.mark.parametrize("no", [False, 0, "", None])
def test_default_may_be_anything_true(yes, no, parked):
    ch = Chan()
    assert select(ch.recv, default=yes) == (-1, None)
    task = fork(select, ch.recv, default=no)
    parked(task)
    ch.send("a")
    assert task.join() == (0, "a")


def test_what_default_raises_comes_out():
    class Bad:
        def __bool__(self):
            raise ZeroDivisionError

    ch = full(1)
    with pytest.raises(ZeroDivisionError):
        select(ch.recv, default=Bad())
    assert len(ch) == 1


def test_a_none_case_is_never_ready(parked):
    assert select(None, full("a").recv, None) == (1, "a")
    ch = Chan()
    task = fork(select, None, ch.recv, None)
    parked(task)
    ch.send("b")
    assert task.join() == (1, "b")


@pytest.mark.parametrize("cases", [(), (None,), (None, None, None)])
def test_without_a_case_that_can_be_it_waits_for_ever(parked, cases):
    task = fork(select, *cases)
    parked(task)
    assert not task.done
    task.cancel()
    with pytest.raises(Canceled):
        task.join()


def test_for_ever_is_a_deadlock(program):
    outcome = program(
        """
        from gofer import select
        select()
        """
    )
    assert outcome.status == 2
    assert "all goroutines are asleep - deadlock!" in outcome.err
    assert "select (no cases)" in outcome.err


# --- closed channels ----------------------------------------------------------------------------


def closed_index(*cases):
    with pytest.raises(Closed) as caught:
        select(*cases)
    return caught.value.index


def test_closed_tells_the_case():
    never, shut = Chan(), closed()
    assert closed_index(shut.recv) == 0
    assert closed_index(never.recv, None, shut.recv) == 2
    assert closed_index(never.recv, (shut.send, 1)) == 1
    assert closed_index(None, shut.receiver.recv) == 1
    assert closed_index(None, (shut.sender.send, 1)) == 1


def test_the_message_says_what_was_done_to_which():
    with pytest.raises(Closed, match=r"select.*send.*<Chan 0/0"):
        select((closed().send, 1))
    with pytest.raises(Closed, match=r"select.*recv.*<Chan 0/0"):
        select(closed().recv)


def test_closed_is_not_masked_by_default():
    with pytest.raises(Closed):
        select(closed().recv, default=True)


def test_what_is_queued_comes_before_the_end():
    ch = closed(1, 2)
    assert select(ch.recv) == (0, 1)
    assert select(ch.recv_ok) == (0, (2, True))
    assert select(ch.recv_ok) == (0, (None, False))
    assert closed_index(ch.recv) == 0


def test_close_while_it_waits(parked):
    for number in range(4):
        a, b = Chan(), full(None)
        cases = [a.recv, a.recv_ok, (b.send, 1), None]
        task = fork(select, *cases[number % 2 :])
        parked(task)
        shut = b if number < 2 else a
        shut.close()
        error = task.exception()
        if shut is b:
            assert type(error) is Closed
            assert error.index == 2 - number % 2
        elif number % 2 or error is None:  # of the two cases of a either may be it
            assert task.join() == (1 - number % 2, (None, False))
        else:
            assert type(error) is Closed
            assert error.index == 0


def test_a_refused_send_keeps_no_value():
    token = Token()
    before = sys.getrefcount(token)
    with contextlib.suppress(Closed):
        select((closed().send, token))
    assert sys.getrefcount(token) == before


# --- one channel in several cases ---------------------------------------------------------------


def test_a_select_does_not_meet_itself(parked):
    ch = Chan()
    task = fork(select, (ch.send, "mine"), ch.recv)
    parked(task)
    assert select((ch.send, "x"), ch.recv, default=True) in ((0, None), (1, "mine"))
    assert task.join() in ((1, "x"), (0, None))
    assert has_no_receiver(ch)
    assert has_no_sender(ch)


def test_two_that_send_and_receive_meet(parked):
    ch = Chan()
    for _ in range(50):
        one = fork(select, (ch.send, "from one"), ch.recv)
        two = fork(select, (ch.send, "from two"), ch.recv)
        outcomes = {one.join(), two.join()}
        assert outcomes in ({(0, None), (1, "from one")}, {(0, None), (1, "from two")})
        assert has_no_receiver(ch)
        assert has_no_sender(ch)


def test_a_waiting_select_takes_one_value_only(parked):
    ch = Chan()
    task = fork(select, ch.recv, ch.recv, ch.recv_ok, ch.receiver.recv)
    parked(task)
    ch.send("one")
    assert has_no_receiver(ch)
    index, value = task.join()
    assert value == (("one", True) if index == 2 else "one")


def test_a_waiting_select_gives_one_value_only(parked):
    ch = Chan()
    task = fork(select, *[(ch.send, n) for n in range(5)])
    parked(task)
    value = ch.recv()
    assert task.join() == (value, None)
    assert has_no_sender(ch)


def test_both_sides_of_a_buffered_channel():
    ch = Chan(1)
    assert select(ch.recv, (ch.send, "a")) == (1, None)
    assert select(ch.recv, (ch.send, "b")) == (0, "a")


# --- the losers ---------------------------------------------------------------------------------


def test_a_select_that_was_served_stands_nowhere_else(parked):
    chans = [Chan() for _ in range(20)]
    for winner in chans:
        task = fork(select, *[ch.recv for ch in chans])
        parked(task)
        winner.send("x")
        assert task.join() == (chans.index(winner), "x")
        assert all(has_no_receiver(ch) for ch in chans)


def test_a_cancelled_select_stands_nowhere(parked):
    a, b = Chan(), Chan()
    task = fork(select, a.recv, (b.send, 1), a.recv_ok, None)
    parked(task)
    task.cancel()
    with pytest.raises(Canceled):
        task.join()
    assert has_no_receiver(a)
    assert has_no_sender(b)


def test_losers_do_not_hold_up_the_line(parked):
    a, b = Chan(), Chan()
    first = fork(select, a.recv, b.recv)
    parked(first)
    second = fork(a.recv)
    parked(second)
    b.send("b")
    a.send("a")
    assert first.join() == (1, "b")
    assert second.join() == "a"


def test_arrival_counts_for_select_as_well(parked):
    ch, never = Chan(), Chan()
    tasks = []
    for n in range(9):
        tasks.append(fork(ch.recv) if n % 3 else fork(select, never.recv, ch.recv))
        parked(tasks[-1])
    for n in range(9):
        ch.send(n)
    got = [task.join() for task in tasks]
    assert got == [n if n % 3 else (1, n) for n in range(9)]


def test_values_not_sent_are_given_up(parked):
    token = Token()
    before = sys.getrefcount(token)
    a, b = Chan(), Chan()
    task = fork(select, a.recv, (b.send, token), (b.send, token), (a.send, token))
    parked(task)
    a.send("x")
    task.join()
    del task
    select(full(1).recv, (b.send, token))
    select((b.send, token), default=True)
    assert sys.getrefcount(token) == before


def test_values_of_a_cancelled_select_are_given_up(parked):
    a = Chan()
    token = Token()
    alive = weakref.ref(token)
    task = fork(select, a.recv, (a.send, token))
    del token
    parked(task)
    task.cancel()
    task.exception()
    del task
    gc.collect()
    assert alive() is None


def test_a_value_received_is_kept_by_nobody_else():
    token = Token()
    ch = full(token)
    before = sys.getrefcount(token)
    index, got = select(ch.recv, (Chan().send, 1))
    held = sys.getrefcount(token)
    assert (index, got) == (0, token)
    assert held == before  # ours instead of the channel's


# --- malformed cases ----------------------------------------------------------------------------


class Imitation:
    def recv(self):
        raise AssertionError("called")


MALFORMED = {
    "a channel": lambda ch: ch,
    "a view": lambda ch: ch.receiver,
    "send alone": lambda ch: ch.send,
    "close": lambda ch: ch.close,
    "next": lambda ch: ch.__next__,
    "unbound recv": lambda ch: type(ch).recv,
    "unbound pair": lambda ch: (type(ch).send, 1),
    "a lambda": lambda ch: lambda: None,
    "a partial": lambda ch: functools.partial(ch.recv),
    "a partial send": lambda ch: (functools.partial(ch.send), 1),
    "a number": lambda ch: 3,
    "a string": lambda ch: "recv",
    "true": lambda ch: True,
    "an empty tuple": lambda ch: (),
    "send without a value": lambda ch: (ch.send,),
    "send with two values": lambda ch: (ch.send, 1, 2),
    "a list": lambda ch: [ch.send, 1],
    "recv with a value": lambda ch: (ch.recv, 1),
    "recv_ok with a value": lambda ch: (ch.recv_ok, 1),
    "close with a value": lambda ch: (ch.close, 1),
    "none with a value": lambda ch: (None, 1),
    "a channel with a value": lambda ch: (ch, 1),
    "value first": lambda ch: (1, ch.send),
    "another's recv": lambda ch: Imitation().recv,
    "another's send": lambda ch: ([].append, 1),
    "a lock": lambda ch: Mutex().lock,
    "a builtin": lambda ch: len,
    "a generator": lambda ch: (case for case in [ch.recv]),
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_malformed_case_is_refused_before_anything_is_done(what, at):
    ch, ready = Chan(1), full("a")
    cases = [ready.recv] * 5
    cases.insert(at, MALFORMED[what](ch))
    for default in (False, True):
        with pytest.raises(TypeError, match=rf"select\(\) case {at} is "):
            select(*cases, default=default)
    assert len(ready) == 1
    assert len(ch) == 0


def test_the_message_shows_what_was_given_and_what_to_give():
    with pytest.raises(TypeError, match=r"is <Chan 0/0.*ch\.recv.*\(ch\.send, value\).*None"):
        select(Chan())


def test_a_case_that_can_not_be_shown():
    class Hidden:
        def __repr__(self):
            raise ZeroDivisionError

    with pytest.raises((ZeroDivisionError, TypeError)):
        select(Hidden())


def test_other_keywords_are_refused():
    ch = full(1)
    for words in ({"timeout": 1}, {"default": True, "timeout": 1}, {"cases": [ch.recv]}):
        with pytest.raises(TypeError, match="select"):
            select(ch.recv, **words)
    assert len(ch) == 1


# --- many cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 3000])
def test_many_cases(parked, n):
    chans = [Chan() for _ in range(n)]
    task = fork(select, *[ch.recv for ch in chans])
    parked(task)
    chans[-1].send("last")
    assert task.join() == (n - 1, "last")
    assert all(has_no_receiver(ch) for ch in chans)
    task = fork(select, *[(ch.send, at) for at, ch in enumerate(chans)])
    parked(task)
    assert chans[n // 2].recv() == n // 2
    assert task.join() == (n // 2, None)
    assert all(has_no_sender(ch) for ch in chans)
