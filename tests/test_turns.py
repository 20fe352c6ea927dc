"""Objects of libraries that goroutines use in turns, as patch.offload has it."""

import pytest

from gofer import Chan, blocking, cancel_scope, fork
from gofer.context import Canceled
from gofer.stdlib._turns import Turn, in_turns


class Thing:
    """Bears one call at a time."""

    def __init__(self):
        self.turn = Turn()
        self.calls, self.busy = [], False

    def call(self, n, gate=None):
        assert not self.busy
        self.busy = True
        if gate:
            gate.recv()
        self.busy = False
        self.calls.append(n)
        return n


stand_in = in_turns(lambda thing: thing.turn)


def call(thing, *args):
    return stand_in(Thing.call, thing, *args)


def test_one_after_the_other(parked):
    thing, gate = Thing(), Chan()
    tasks = [fork(call, thing, n, gate) for n in range(5)]
    parked(*tasks)
    for _ in tasks:
        gate.send(None)
    assert [task.join() for task in tasks] == sorted(thing.calls) == [0, 1, 2, 3, 4]


def test_a_call_that_is_cancelled_keeps_its_turn_to_its_end(until):
    thing, gate = Thing(), Chan()
    with cancel_scope() as scope:
        first = fork(call, thing, 1, gate)
        until(lambda: thing.busy)
        second = fork(call, thing, 2)
        scope.cancel()
    for task in (first, second):
        assert isinstance(task.exception(), Canceled)
    third = fork(call, thing, 3)
    gate.send(None)
    assert third.join() == 3
    assert thing.calls == [1, 3]


def test_what_is_last_does_not_wait(until):
    thing, gate, log = Thing(), Chan(), []
    assert thing.turn.last(lambda: log.append("free") or 7) == 7
    task = fork(call, thing, 1, gate)
    until(lambda: thing.busy)
    assert thing.turn.last(lambda: log.append(thing.calls == [1])) is None
    thing.turn.last(lambda: 1 / 0)  # nobody is there to hear of it
    assert log == ["free"]
    gate.send(None)
    task.join()
    until(lambda: len(log) == 2)
    assert log == ["free", True]
    assert call(thing, 2) == 2
    with pytest.raises(ZeroDivisionError):
        thing.turn.last(lambda: 1 / 0)


def test_what_is_last_comes_once(rng):
    """Whoever ends a turn at that moment."""
    for _ in range(200):
        turn, log = Turn(), []

        def end(turn=turn):
            with turn:
                pass

        tasks = [fork(blocking, end) for _ in range(rng.randrange(4))]
        tasks += [fork(blocking, turn.last, lambda log=log: log.append(1)) for _ in range(3)]
        for task in tasks:
            task.join()
        assert log == [1, 1, 1]
