"""Scopes in programs of their own: who swallows Cancelled, deadlines behind a stuck worker, the end."""

import sys

import pytest

# --- who swallows Cancelled ---------------------------------------------------------------------

SWALLOWS = """
    from gofer import *
    import sys, time

    def stubborn():
        while not done:
            try:
                Chan().recv()
            except BaseException:
                pass

    def other():
        for n in range(1000):
            gosched()
        turns.append(1000)

    done, turns = [], []
    with cancel_scope() as scope:
        g = go(stubborn)
        g.name = "stubborn one"
        scope.cancel()
    others = [go(other) for _ in range(3)]
    for o in others:
        o.join()
    print(turns)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        gosched()
    done.append(True)
    g.join()
    print("ended")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_named_once_and_lets_others_run(program, workers):
    result = program(SWALLOWS, GOFER_MAXPROCS=str(workers))
    assert (result.status, result.out) == (0, "[1000, 1000, 1000]\nended\n")
    assert result.err.count("'stubborn one' was cancelled, and has been catching") == 1
    assert "stubborn(...)\n" in result.err
    assert "created by <module> in goroutine 1\n" in result.err


def test_goroutine_1_and_threads_are_named_too(program):
    result = program("""
        from gofer import *
        import threading, time

        def stubborn():
            until = time.monotonic() + 1.5
            with cancel_scope() as scope:
                scope.cancel()
                while time.monotonic() < until:
                    try:
                        gosched()
                    except BaseException:
                        pass

        stubborn()
        thread = threading.Thread(target=stubborn)
        thread.start()
        thread.join()
        print("ended")
    """)
    assert (result.status, result.out) == (0, "ended\n")
    assert result.err.count("was cancelled, and has been catching") == 2
    assert "goroutine 1 'main' was" in result.err
    assert "'thread' was" in result.err


def test_who_is_cancelled_many_times_and_goes_on_in_between_is_not_named(program):
    """A server that gives each request a time-out gets many Cancelled, and swallows none."""
    result = program("""
        from gofer import *
        import time

        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            try:
                with timeout(0):
                    Chan().recv()
            except TimeoutError:
                pass
        print("ended")
    """)
    assert result == (0, "ended\n", "")


def test_ctrl_c_ends_who_swallows_cancelled(program):
    result = program("""
        from gofer import *
        import os, signal, threading

        with cancel_scope() as scope:
            scope.cancel()
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
            while True:
                try:
                    Chan().recv()
                except Cancelled:
                    pass
    """)
    assert result.status != 0
    assert result.err.endswith("KeyboardInterrupt\n")


# --- deadlines behind a stuck worker ------------------------------------------------------------

STUCK = """
    from gofer import *
    import threading, time

    def computes(event):
        while not event.is_set():
            sum(range(1000))

    def blocks(event):
        event.wait()

    event = threading.Event()
    {body}
    {how}(event)
    print("done")
"""


@pytest.mark.parametrize("how", ["computes", "blocks"])
@pytest.mark.parametrize(
    "body",
    [
        # a thread waits for a timer of the worker that is stuck
        """
    tick = after(0.02)
    threading.Thread(target=lambda: (tick.recv(), event.set())).start()""",
        """
    ticker = Ticker(0.01)
    threading.Thread(target=lambda: ([next(ticker) for _ in range(3)], event.set())).start()""",
        # a goroutine is started when it is stuck
        """
    after_func(0.02, event.set)
    threading.Thread(target=fork(int).join).start()""",
        # its scope's deadline passes, for one that another worker has taken over
        """
    def waits():
        try:
            Chan().recv()
        finally:
            event.set()
    threading.Thread(target=current).start()
    timeout(0.05).__enter__()
    go(waits)""",
    ],
    ids=["after", "ticker", "after_func", "timeout"],
)
def test_timers_of_a_stuck_worker_are_fired(program, body, how):
    """Nobody but what they wake ends the program. Who computes keeps its worker: there is another."""
    source = STUCK.format(body=body, how=how)
    assert program(source, GOFER_MAXPROCS="2") == (0, "done\n", "")


def test_what_was_fired_for_a_stuck_worker_runs_first(program):
    """The worker itself fires the later ones, at a look around that may come before it is told."""
    result = program("""
        from gofer import *
        import threading, time

        def sleeper(d):
            sleep(d)
            log.append(d)

        runtime.gomaxprocs(1)             # or one of them may be on another worker, that is not stuck
        orders = set()
        for phase in range(70):
            log = []
            gs = [go(sleeper, d) for d in (0.001, 0.02)]
            until = time.monotonic() + 0.021
            tick, event = after(0.002), threading.Event()
            threading.Thread(target=lambda: (tick.recv(), event.set())).start()
            for _ in range(phase):
                gosched()
            event.wait()
            while time.monotonic() < until:
                pass
            for g in gs:
                g.join()
            orders.add(tuple(log))
        print(orders)
    """)
    assert result == (0, "{(0.001, 0.02)}\n", "")


# --- deadlock and the end -----------------------------------------------------------------------


def test_a_deadlock_in_scopes_without_a_deadline(program):
    result = program("""
        from gofer import *
        import math

        try:
            with cancel_scope(), timeout(None), timeout(math.inf), shield():
                Chan().recv()
        except Deadlock as error:
            print(error)
    """)
    assert result == (0, "all goroutines are asleep - deadlock!\n", "")


def test_a_deadline_comes_before_a_deadlock(program):
    result = program("""
        from gofer import *

        try:
            with timeout(0.01):
                Chan().recv()
        except TimeoutError as error:
            print(error)
        try:
            Chan().recv()
        except Deadlock as error:
            print(error)
    """)
    out = "timeout(0.01) expired\nall goroutines are asleep - deadlock!\n"
    assert result == (0, out, "")


def test_the_end_of_run_unwinds_what_is_in_scopes(program):
    result = program("""
        from gofer import *

        def body(n):
            try:
                with timeout(1000), cancel_scope(), shield():
                    Chan().recv()
            finally:
                log.append(n)

        def main():
            with cancel_scope():
                gs = [go(body, n) for n in range(5)]
                while not all(g.state == "waiting" for g in gs):
                    gosched()

        log = []
        run(main)
        print(sorted(log))
        run(main)
        print(len(log))
    """)
    assert result == (0, "[0, 1, 2, 3, 4]\n10\n", "")


def test_the_program_ends_inside_scopes(program):
    result = program("""
        from gofer import *

        def body():
            with timeout(1000), cancel_scope() as scope:
                kept.append(scope)
                Chan().recv()

        kept = []
        timeout(1000).__enter__()
        cancel_scope().__enter__()
        gs = [go(body) for _ in range(5)]
        while not all(g.state == "waiting" for g in gs):
            gosched()
        print("end")
    """)
    assert result == (0, "end\n", "")


def test_to_end_by_cancelled_is_no_panic(program):
    result = program("""
        from gofer import *

        def two_handlers():
            try:
                raise ExceptionGroup("", [KeyError(), ValueError()])
            except* KeyError:
                Chan().recv()
            except* ValueError:
                Chan().recv()

        with cancel_scope() as scope:
            scope.cancel()
            gs = [go(Chan().recv), go(two_handlers)]
        for g in gs:
            g.join()
        print("end")
    """)
    assert result == (0, "end\n", "")


def test_a_cancelled_that_nobody_stops_ends_the_program_as_any_exception(program):
    result = program("""
        from gofer import *

        scope = cancel_scope()
        scope.__enter__()
        scope.cancel()
        Chan().recv()
    """)
    assert result.status == 1
    assert result.err.endswith("gofer.errors.Cancelled\n")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the limit counts C calls before")
def test_scopes_in_each_other_take_no_stack(program):
    result = program("""
        from gofer import *
        from contextlib import ExitStack
        import sys

        sys.setrecursionlimit(60)

        def body():
            with ExitStack() as stack:
                outermost = stack.enter_context(cancel_scope())
                for n in range(100_000):
                    stack.enter_context(timeout(1000))
                go(outermost.cancel)
                Chan().recv()
            return "left"

        print(fork(body).join())
    """)
    assert result == (0, "left\n", "")
