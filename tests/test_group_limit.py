"""`Group(limit=n)`: how many run at a time, and who waits for a place."""

import threading
import weakref

import pytest

from gofer import Chan, Goroutine, Group, fork, gosched

from shared.groups import fail, kinds, wait_for_ever

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_limit_holds(limit, rng):
    running, most, lock = 0, 0, threading.Lock()

    def member(steps):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        for _ in range(steps):
            gosched()
        with lock:
            running -= 1

    with Group(limit=limit) as g:
        for _ in range(200):
            g.go(member, rng.randrange(5))
    assert running == 0
    assert 1 <= most <= limit


def test_go_waits_for_a_place(parked):
    gate, log = Chan(), []

    def starter():
        task = g.go(gate.recv)
        log.append("started")
        return task

    with Group(limit=2) as g:
        g.go(gate.recv)
        g.go(gate.recv)
        late = fork(starter)
        parked(late)
        assert log == []
        gate.send(None)
        late.join()
        assert log == ["started"]
        for _ in range(2):
            gate.send(None)


def test_go_that_is_cancelled_while_it_waits_starts_nothing(parked):
    gate, log = Chan(), []
    with Group(limit=1) as g:
        g.go(gate.recv_ok)
        late = fork(g.go, log.append, "started")
        parked(late)
        late.cancel()
        Goroutine.join(late)
        gate.close()
    assert log == []


def test_a_failure_frees_those_that_wait_for_a_place():
    with pytest.raises(ExceptionGroup) as caught:
        with Group(limit=2) as g:
            task = g.go(wait_for_ever)
            while task.state != "waiting":
                gosched()
            g.go(fail, ValueError())
            for _ in range(5):
                g.go(wait_for_ever)
    assert kinds(caught.value) == [ValueError]


def test_a_failed_member_gives_its_place_back():
    log = []
    with pytest.raises(ExceptionGroup):
        with Group(limit=1) as g:
            g.go(fail, ValueError())
            g.go(log.append, 1)
    assert log in ([], [1])


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(ValueError, match="at least 1"):
        Group(limit=limit)


def test_memory_does_not_grow_with_members_that_ended():
    class Big:
        pass

    alive = []
    with Group(limit=4) as g:
        for _ in range(500):
            big = Big()
            alive.append(weakref.ref(big))
            g.go(id, big)
            del big
        assert sum(ref() is not None for ref in alive) < 250
