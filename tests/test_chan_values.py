"""Whose the values of a channel are, and channels in destructors, signal handlers and the like."""

import contextlib
import gc
import signal
import sys
import weakref

import pytest

from gofer import Chan, Closed, Goroutine, fork, go, gosched
from gofer.errors import Canceled

from shared import Token, in_thread

pytestmark = pytest.mark.usefixtures("nothing_left")


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
