"""Channels, select, locks and wait groups against models: small random programs, many schedules."""

import pytest

from gofer import Chan, Closed, Mutex, Semaphore, WaitGroup, select
from gofer.sync import atomic

from shared.histories import Model, Operation, check, is_explained
from shared.schedules import SLOW, many

pytestmark = pytest.mark.usefixtures("nothing_left")

PROGRAMS = 4 if SLOW else 16
SCHEDULES = 15 if SLOW else 40


def explore_programs(rng, make):
    """`make(rng)` returns a model, programs, and a function that makes one to carry them out."""
    for _ in range(PROGRAMS):
        model, programs, fresh = make(rng)
        cancelled = rng.sample(range(len(programs)), rng.randrange(len(programs)))

        def fn(model=model, programs=programs, cancelled=cancelled, fresh=fresh):
            check(model, programs, cancelled, fresh())

        many(fn, schedules=SCHEDULES)


def split(rng, operations, most=4):
    """They are done by up to so many tasks."""
    programs = [[] for _ in range(rng.randint(2, most))]
    for what in operations:
        rng.choice(programs).append(what)
    return programs


# --- channels -----------------------------------------------------------------------------------


class Channels(Model):
    """Of each its values, and whether it is closed.

    An operation is what `select` may choose from: `("send", ch, value)`, `("recv", ch)` or
    `("close", ch)`. Unbuffered, a value that has been sent must be received next.
    """

    def __init__(self, caps):
        self.caps = caps
        self.start = (((), False),) * len(caps)

    def after(self, state, what, result):
        index, value = result
        kind, ch, *sent = what[index]
        values, closed = state[ch]
        if not self.rests(state) and not (values and kind == "recv" and self.caps[ch] == 0):
            return None
        if closed and (kind != "recv" or not values):
            return state if value is Closed else None
        if value is Closed:
            return None
        if kind == "close":
            return self._changed(state, ch, values, True)
        if kind == "send":
            fits = len(values) < max(self.caps[ch], 1)
            return self._changed(state, ch, (*values, *sent), closed) if fits else None
        if not values or values[0] != value:
            return None
        return self._changed(state, ch, values[1:], closed)

    def _changed(self, state, ch, *to):
        return (*state[:ch], to, *state[ch + 1 :])

    def rests(self, state):
        return not any(
            values and cap == 0 for (values, _), cap in zip(state, self.caps, strict=True)
        )

    def is_stuck(self, state, pending):
        return not any(
            self._is_ready(state, case, [c for w in pending if w is not what for c in w])
            for what in pending
            for case in what
        )

    def _is_ready(self, state, case, others):
        kind, ch, *_ = case
        values, closed = state[ch]
        if kind == "send":
            met = any(other[:2] == ("recv", ch) for other in others)
            return closed or len(values) < self.caps[ch] or met
        return closed or values or any(other[:2] == ("send", ch) for other in others)


def channels(caps, cases):
    """Programs of selects with up to so many cases."""

    def make(rng):
        def case(n):
            ch = rng.randrange(len(caps))
            return ("send", ch, n) if rng.random() < 0.5 else ("recv", ch)

        def fresh():
            chans = [Chan(cap) for cap in caps]

            def carry_out(what):
                if what[0][0] == "close":
                    closes = chans[what[0][1]]
                    try:
                        closes.close()
                    except Closed:
                        return 0, Closed
                    return 0, None
                args = [
                    (chans[ch].send, *sent) if kind == "send" else chans[ch].recv
                    for kind, ch, *sent in what
                ]
                try:
                    return select(*args)
                except Closed as closed:
                    return closed.index, Closed

            return carry_out

        operations = [tuple(case((n, k)) for k in range(rng.randint(1, cases))) for n in range(7)]
        if rng.random() < 0.5:
            operations.append((("close", rng.randrange(len(caps))),))
        rng.shuffle(operations)
        return Channels(caps), split(rng, operations), fresh

    return make


@pytest.mark.parametrize("cap", [0, 1, 2])
def test_a_channel(cap, rng):
    explore_programs(rng, channels([cap], 1))


@pytest.mark.parametrize("caps", [[0, 0], [0, 1], [1, 2]])
def test_select(caps, rng):
    explore_programs(rng, channels(caps, 3))


# --- locks --------------------------------------------------------------------------------------


class Permits(Model):
    """How many are free."""

    def __init__(self, n):
        self.start = n

    def after(self, free, what, result):
        kind, n = what
        left = free + n if kind == "release" else free - n
        return left if left >= 0 else None

    def is_stuck(self, free, pending):
        """Who stands first has to wait; others may, behind it, though they want less."""
        return not pending or any(n > free for _, n in pending)


def holders(rng, most):
    """Programs that take permits and give them back."""
    programs = []
    for _ in range(rng.randint(2, 4)):
        takes = [rng.randint(1, most) for _ in range(rng.randint(1, 2))]
        programs.append([(kind, n) for n in takes for kind in ("acquire", "release")])
    return programs


def semaphore(rng):
    size = rng.randint(1, 3)

    def fresh():
        permits, inside = Semaphore(size), atomic.Int()

        def carry_out(what):
            kind, n = what
            if kind == "release":
                inside.add(-n)
                permits.release(n)
            else:
                permits.acquire(n)
                assert inside.add(n) <= size

        return carry_out

    return Permits(size), holders(rng, size), fresh


def mutex(rng):
    def fresh():
        lock, inside = Mutex(), []

        def carry_out(what):
            if what[0] == "release":
                inside.pop()
                lock.unlock()
            else:
                lock.lock()
                inside.append(what)
                assert len(inside) == 1

        return carry_out

    return Permits(1), holders(rng, 1), fresh


@pytest.mark.parametrize("make", [semaphore, mutex])
def test_locks(make, rng):
    explore_programs(rng, make)


# --- wait groups --------------------------------------------------------------------------------


class Counter(Model):
    """How many are not done."""

    def __init__(self, n):
        self.start = n

    def after(self, n, what, result):
        if what == "wait":
            return n if n == 0 else None
        return n - 1

    def is_stuck(self, n, pending):
        return not pending or n > 0


def wait_group(rng):
    n = rng.randint(1, 4)

    def fresh():
        group = WaitGroup()
        group.add(n)
        return lambda what: getattr(group, what)()

    operations = ["done"] * rng.randint(n - 1, n) + ["wait"] * 3
    rng.shuffle(operations)
    return Counter(n), split(rng, operations), fresh


def test_a_wait_group(rng):
    explore_programs(rng, wait_group)


# --- the models themselves ----------------------------------------------------------------------


def history(*operations):
    """Each (what, result), one after the other."""
    return [Operation(what, 2 * n, 2 * n + 1, r) for n, (what, r) in enumerate(operations)]


SEND = ((("send", 0, "x"),), (0, None))
RECV = ((("recv", 0),), (0, "x"))
CLOSE = ((("close", 0),), (0, None))
REFUSED = ((("send", 0, "x"),), (0, Closed))


@pytest.mark.parametrize(
    ("cap", "right", "pending"),
    [
        (1, [SEND, RECV], []),
        (1, [SEND, CLOSE, RECV, REFUSED], []),
        (2, [SEND, SEND, RECV], []),
        (1, [SEND], [(("send", 0, "y"),)]),
        (1, [SEND, RECV], [(("recv", 0),)]),
    ],
)
def test_a_history_that_can_be(cap, right, pending):
    assert is_explained(Channels([cap]), history(*right), pending)


@pytest.mark.parametrize(
    ("cap", "wrong", "pending"),
    [
        (1, [RECV, SEND], []),  # before it was sent
        (1, [SEND, RECV, RECV], []),  # twice
        (1, [SEND, SEND], []),  # no room
        (0, [SEND, RECV], [(("send", 0, 1),), (("recv", 0),)]),  # they should have met
        (0, [SEND], []),  # to nobody
        (1, [SEND], [(("recv", 0),)]),  # not woken
        (1, [CLOSE], [(("recv", 0),)]),
        (1, [CLOSE, SEND], []),
        (1, [REFUSED], []),
    ],
)
def test_a_history_that_can_not_be(cap, wrong, pending):
    assert not is_explained(Channels([cap]), history(*wrong), pending)


@pytest.mark.parametrize(
    ("model", "wrong", "pending"),
    [
        (Permits(1), [(("acquire", 1), None)] * 2, []),
        (Permits(1), [(("acquire", 1), None), (("release", 1), None)], [("acquire", 1)]),
        (Counter(1), [("wait", None)], []),
        (Counter(1), [("done", None)], ["wait"]),
    ],
)
def test_locks_that_were_wrong(model, wrong, pending):
    assert not is_explained(model, history(*wrong), pending)
