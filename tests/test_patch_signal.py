"""signal.sigwait and its kin in goroutines. All signals here are sent to this process."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from gofer import Cancelled, Group, cancel_scope, context, fork, runtime, timeout

from shared import in_thread
from shared.canary import beats_under

pytestmark = [
    pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled"),
    pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="this system has none of it"),
]

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def handlers():
    """They are those of before."""
    before = {number: signal.getsignal(number) for number in (USR1, USR2, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is handler


@contextmanager
def blocked(*signals):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        while signal.sigtimedwait(signals, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def handled(number):
    """The handler appends to the list that this is."""
    calls = []
    before = signal.signal(number, lambda number, frame: calls.append(number))
    try:
        yield calls
    finally:
        signal.signal(number, before)


def send(number):
    os.kill(os.getpid(), number)


def send_here(number):
    """To this thread, which may block it; others do not, and the process would end."""
    signal.pthread_kill(threading.get_ident(), number)


WAYS = {
    "sigwait": lambda *signals: signal.sigwait(signals),
    "sigwait_iterator": lambda *signals: signal.sigwait(iter(signals)),
    "sigwaitinfo": lambda *signals: signal.sigwaitinfo(signals).si_signo,
    "sigtimedwait": lambda *signals: signal.sigtimedwait(signals, 1e6).si_signo,
}


@pytest.mark.parametrize("way", WAYS)
def test_one_that_is_blocked(one_worker, way):
    with blocked(USR1, USR2):
        assert beats_under(lambda: WAYS[way](USR1, USR2), lambda: send(USR2)) == USR2


@pytest.mark.parametrize("way", WAYS)
def test_one_that_is_not(one_worker, way):
    """It would end the process, which waits for it."""
    assert beats_under(lambda: WAYS[way](USR1, USR2), lambda: send(USR2)) == USR2


@pytest.mark.parametrize("way", WAYS)
def test_one_that_has_a_handler(one_worker, until, way):
    with handled(USR1) as calls:
        assert beats_under(lambda: WAYS[way](USR1), lambda: send(USR1)) == USR1
        assert calls == []
        send(USR1)
        until(lambda: calls == [USR1])


@pytest.mark.parametrize("way", WAYS)
def test_one_that_is_there_already(one_worker, way):
    with blocked(USR1):
        send_here(USR1)
        assert WAYS[way](USR1) == USR1
        assert signal.sigpending() == set()


def test_what_is_told_of_it(one_worker):
    for block in (blocked(USR1), blocked()):
        with block:
            info = beats_under(lambda: signal.sigwaitinfo({USR1}), lambda: send(USR1))
        assert isinstance(info, signal.struct_siginfo)
        assert (info.si_signo, info.si_code) == (USR1, 0)
        assert (info.si_pid, info.si_uid) == (os.getpid(), os.getuid())


def test_of_a_child(one_worker):
    with blocked(signal.SIGCHLD):
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        info = signal.sigwaitinfo([signal.SIGCHLD])
        assert (info.si_signo, info.si_pid, info.si_status) == (signal.SIGCHLD, process.pid, 3)
        assert process.wait() == 3


def test_sent_to_another_thread():
    """The mask is the thread's: where it is not blocked, the one who waits gets it all the same."""
    waiter = fork(signal.sigwait, [USR1])
    while waiter.state != "waiting":
        runtime.gosched()
    in_thread(lambda: signal.pthread_kill(threading.get_ident(), USR1))
    assert waiter.join() == USR1


def test_time_outs(one_worker):
    with blocked(USR1):
        assert signal.sigtimedwait([USR1], 0) is None
        assert signal.sigtimedwait([USR1], 0.01) is None
        send_here(USR1)
        assert signal.sigtimedwait([USR1], 0).si_signo == USR1
    assert signal.sigtimedwait([USR1], 0.01) is None


def test_what_is_wrong_is_said_as_ever():
    for call, error in (
        (lambda: signal.sigwait(), TypeError),
        (lambda: signal.sigwait(5), TypeError),
        (lambda: signal.sigwait([12345]), ValueError),
        (lambda: signal.sigwaitinfo([0]), ValueError),
        (lambda: signal.sigtimedwait([USR1], -1), ValueError),
        (lambda: signal.sigtimedwait([USR1], "1"), TypeError),
    ):
        with pytest.raises(error):
            call()


def test_one_after_the_other(one_worker, parked):
    for block in (blocked(), blocked(USR1)):
        with block:
            waiters = [fork(signal.sigwait, [USR1]) for _ in range(3)]
            parked(*waiters)
            for n in range(3):
                send_here(USR1)
                while sum(waiter.done for waiter in waiters) <= n:
                    runtime.gosched()
            assert [waiter.join() for waiter in waiters] == [USR1] * 3


def test_each_waits_for_its_own(parked):
    with blocked(USR1):
        ones, twos = fork(signal.sigwait, [USR1]), fork(signal.sigwait, [USR2])
        parked(ones, twos)
        send(USR2)
        assert twos.join() == USR2
        assert not ones.done
        send(USR1)
        assert ones.join() == USR1


def test_too_many(parked):
    with cancel_scope() as scope:
        waiters = [fork(signal.sigwait, [USR1]) for _ in range(64)]
        parked(*waiters)
        with pytest.raises(RuntimeError, match="64 goroutines wait for signals already"):
            signal.sigwait([USR1])
        scope.cancel()
    for waiter in waiters:
        assert isinstance(waiter.exception(), context.Canceled)


# --- cancelled ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_cancelled(one_worker, way):
    with cancel_scope() as scope:
        with pytest.raises(Cancelled):
            beats_under(lambda: WAYS[way](USR1), scope.cancel)
        raise Cancelled
    with pytest.raises(TimeoutError), timeout(0.01):
        WAYS[way](USR1)


@pytest.mark.parametrize("is_blocked", [True, False])
def test_none_is_lost_when_it_is_cancelled(one_worker, until, is_blocked):
    """It was given in the moment of the cancellation: then it goes where it would have gone."""
    with handled(USR1) as calls, blocked(*[USR1] * is_blocked):
        for turn in range(20):
            calls.clear()
            with cancel_scope() as scope:
                waiter = fork(signal.sigwait, [USR1])
                while waiter.state != "waiting":
                    runtime.gosched()
                for step in (scope.cancel, lambda: send_here(USR1))[:: 1 if turn % 2 else -1]:
                    step()
            taken = waiter.exception() is None
            if not is_blocked and not taken:
                until(lambda: calls)
            if is_blocked:
                assert taken is (signal.sigtimedwait([USR1], 0) is None)
            else:
                assert calls == [] if taken else calls == [USR1]


def test_the_handler_is_back(parked, until):
    with handled(USR1) as calls:
        with cancel_scope() as scope:
            waiters = [fork(signal.sigwait, [USR1, USR2]) for _ in range(3)]
            parked(*waiters)
            scope.cancel()
        for waiter in waiters:
            waiter.exception()
        send(USR1)
        until(lambda: calls == [USR1])


def test_a_handler_that_is_set_meanwhile_stays(parked, until):
    with blocked(USR1):
        waiter = fork(signal.sigwait, [USR1, USR2])
        parked(waiter)
        with handled(USR2) as calls:
            send(USR1)
            assert waiter.join() == USR1
            send(USR2)
            until(lambda: calls == [USR2])


# --- pause --------------------------------------------------------------------------------------


def test_pause(one_worker, until):
    with handled(USR1) as calls:
        beats_under(signal.pause, lambda: send(USR1))
        until(lambda: calls == [USR1])


def test_all_that_pause_go_on(parked, until):
    with handled(USR1) as calls:
        pausing = [fork(signal.pause) for _ in range(3)]
        parked(*pausing)
        send(USR1)
        for one in pausing:
            one.join()
        until(lambda: calls == [USR1])


def test_pause_is_ended_by_what_the_handler_raises(program):
    result = program("""
        import os, signal
        from gofer import go, patch, sleep

        patch()
        go(lambda: (sleep(0.05), os.kill(os.getpid(), signal.SIGINT)))
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert result == (0, "interrupted\n", "")


# --- programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_server_that_waits_for_its_end(program, name):
    """Unblocked, as most programs do it, with threads of all kinds about."""
    result = program(
        f"""
        import os, signal, threading, time
        from gofer import blocking, fork, go, patch, sleep

        patch()
        blocking(int)
        stop = threading.Event()
        threading.Thread(target=stop.wait, daemon=True).start()
        ticks = []

        def serve():
            while True:
                time.sleep(0.001)
                ticks.append(1)
                if len(ticks) == 20:
                    os.kill(os.getpid(), signal.{name})

        go(serve)
        print(signal.sigwait([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]).name)
        stop.set()
        """
    )
    assert result == (0, f"{name}\n", "")


def test_the_next_one_does_what_it_did(program):
    result = program("""
        import os, signal
        from gofer import fork, patch

        patch()
        waiter = fork(signal.sigwait, [signal.SIGTERM])
        while waiter.state != "waiting":
            pass_on = fork(int).join()
        os.kill(os.getpid(), signal.SIGTERM)
        print(waiter.join().name, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        print("not reached")
    """)
    assert result == (-signal.SIGTERM, "SIGTERM\n", "")


def test_two_at_once_and_one_who_waits(program):
    """The second is nobody's: when nobody waits any more, it ends the process."""
    result = program("""
        import os, signal
        from gofer import fork, patch

        patch()
        waiter = fork(signal.sigwait, [signal.SIGTERM])
        while waiter.state != "waiting":
            pass_on = fork(int).join()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        waiter.join()
        print("not reached")
    """)
    assert result == (-signal.SIGTERM, "", "")


def test_in_the_child_of_a_fork_nobody_waits(program):
    result = program(
        """
        import os, signal
        from gofer import fork, patch

        patch()
        waiter = fork(signal.sigwait, [signal.SIGTERM])
        while waiter.state != "waiting":
            pass_on = fork(int).join()
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.kill(os.getpid(), signal.SIGTERM)
        print(waiter.join().name)
        """,
        flags=["-W", "ignore"],  # there is a second thread
    )
    assert result == (0, f"{-signal.SIGTERM}\nSIGTERM\n", "")


def test_many_signals_and_many_goroutines(one_worker, rng):
    """Each that is sent is taken once, or stays."""
    signals = [USR1, USR2, signal.SIGHUP]
    taken = []

    def take():
        taken.append(signal.sigwait(signals))

    with blocked(*signals):
        for _ in range(50):
            taken.clear()
            chosen = rng.sample(signals, rng.randint(1, 3))
            with Group() as g:
                for _ in chosen:
                    g.go(take)
                for number in chosen:
                    if rng.random() < 0.5:
                        runtime.gosched()
                    send_here(number)
            assert sorted(taken) == sorted(chosen)
