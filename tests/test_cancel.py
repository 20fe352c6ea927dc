"""Cancelling a task, and endings that are no failure."""

import pytest

from gofer import Cancelled, Chan, Goroutine, current, fork, go, goexit, gosched, sleep
from gofer.errors import Canceled

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- cancelling a task --------------------------------------------------------------------------


def test_cancel_ends_a_task_that_waits(parked):
    log = []

    def wait():
        try:
            Chan().recv()
        except Cancelled:
            log.append("cancelled")
            raise
        finally:
            log.append("finally")

    task = fork(wait)
    parked(task)
    task.cancel()
    Goroutine.join(task)
    assert log == ["cancelled", "finally"]
    with pytest.raises(Canceled):
        task.join()
    assert isinstance(task.exception(), Canceled)


WAITS = {
    "recv": lambda other: Chan().recv(),
    "recv_ok": lambda other: Chan().recv_ok(),
    "send": lambda other: Chan().send(1),
    "full": lambda other: [full.send(n) for full in [Chan(2)] for n in range(3)],
    "iteration": lambda other: list(Chan()),
    "sleep": lambda other: sleep(1000),
    "sleep(0)": lambda other: sleep(0),
    "gosched": lambda other: gosched(),
    "join": lambda other: other.join(),
    "exception": lambda other: other.exception(),
}


@pytest.mark.parametrize("before", [True, False], ids=["before it waits", "while it waits"])
@pytest.mark.parametrize("how", WAITS)
def test_cancel_reaches_every_way_to_wait(how, before, parked):
    log = []

    def body():
        if before:
            current().cancel()
        try:
            while True:
                WAITS[how](other)
        except Cancelled:
            log.append("cancelled")
            raise

    other = fork(Chan().recv)
    task = fork(body)
    if not before:
        if how not in ("sleep(0)", "gosched"):
            parked(other, task)
        task.cancel()
    Goroutine.join(task)
    assert log == ["cancelled"]
    other.cancel()
    Goroutine.join(other)


def test_cancelled_what_can_be_done_at_once_is_done():
    ready, room, result = Chan(1), Chan(1), []
    ready.send("value")

    def body():
        result.append(ready.recv())
        room.send(1)
        result.append(room.recv_ok())
        try:
            room.recv()
        except Cancelled:
            result.append("cancelled")
        try:
            room.recv()
        except Cancelled:
            result.append("again")
        raise Cancelled

    task = fork(body)
    task.cancel()
    Goroutine.join(task)
    assert result == ["value", (1, True), "cancelled", "again"]


def test_cancel_of_a_task_that_never_waits():
    task = fork(sum, range(10))
    task.cancel()
    assert task.join() == 45


def test_cancel_of_a_finished_task_changes_nothing():
    task = fork(int)
    assert task.join() == 0
    task.cancel()
    assert task.join() == 0


def test_a_task_can_cancel_itself():
    def body():
        current().cancel()
        Chan().recv()

    task = fork(body)
    Goroutine.join(task)
    assert task.exception() is not None


def test_cancelling_does_not_spread_to_the_joiner(parked):
    inner = fork(Chan().recv)
    outer = fork(Goroutine.join, inner)
    parked(inner, outer)
    inner.cancel()
    assert outer.join() is None


def test_a_lost_race_loses_no_value(rng):
    """A send meets a receiver that is being cancelled: the value is received or still there."""
    for _ in range(200):
        ch, got = Chan(), []

        def receive(ch=ch, got=got):
            got.append(ch.recv())

        task = fork(receive)
        for _ in range(rng.randrange(3)):
            gosched()
        sender = fork(ch.send, "value")
        for _ in range(rng.randrange(3)):
            gosched()
        task.cancel()
        Goroutine.join(task)
        if not got:
            assert ch.recv() == "value"
        sender.join()


# --- endings that are no failure ----------------------------------------------------------------


@pytest.mark.parametrize("start", [go, fork])
def test_goexit_runs_finally_blocks(start):
    log = []

    class Context:
        def __enter__(self):
            log.append("enter")

        def __exit__(self, kind, error, trace):
            log.append(kind.__name__)

    def leave():
        try:
            with Context():
                deeper()
        finally:
            log.append("finally")

    def deeper():
        goexit()

    g = start(leave)
    Goroutine.join(g)
    assert log == ["enter", "GoroutineExit", "finally"]


@pytest.mark.parametrize("ending", [Cancelled, goexit])
def test_it_is_no_panic_to_end_by(ending):
    def body():
        if ending is goexit:
            goexit()
        raise ending

    g = go(body)
    g.join()
    assert g.done
