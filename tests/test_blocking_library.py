"""`blocking` with the rest of the library."""

import gc
import time

import pytest

from gofer import Chan, blocking, fork, go, sleep
from gofer.testing import bubble
from gofer.time import now

from shared import Token

pytestmark = pytest.mark.usefixtures("nothing_left", "pool")


# --- with the rest of the library ---------------------------------------------------------------


def test_it_waits_for_no_bubble(gate):
    """A call belongs to the world: the clock of a bubble stands still meanwhile."""
    log = []
    with bubble():
        go(lambda: (sleep(1), log.append("slept")))
        start = now()
        assert blocking(lambda: (time.sleep(0.001), 7)[1]) == 7
        assert (log, now()) == ([], start)
        sleep(2)
    assert log == ["slept"]


def test_a_call_may_use_what_was_made_in_a_bubble():
    with bubble():
        ch = Chan()
        task = fork(ch.recv)
        blocking(ch.send, 5)
        assert task.join() == 5


def test_garbage_is_collected_meanwhile(gate, until):
    tasks = [fork(blocking, gate, Token()) for _ in range(5)]
    until(lambda: len(gate.entered) == 5)
    gc.collect()
    gate.open()
    assert all(isinstance(task.join(), Token) for task in tasks)


def test_a_call_that_is_not_waited_for_is_no_deadlock_either(program):
    """It may still wake somebody, though it has not used the library so far."""
    result = program("""
        import threading, time
        from gofer import *

        def late(ch):
            begun.set()
            time.sleep(0.05)
            ch.send("late")

        def cancel():
            blocking(begun.wait)
            scope.cancel()

        ch, begun = Chan(), threading.Event()
        with cancel_scope() as scope:
            go(cancel)
            blocking(late, ch)
        print(ch.recv())
        try:
            ch.recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "late\ndeadlock\n", "")


def test_when_the_last_call_is_over_it_is_a_deadlock(program):
    result = program("""
        import threading
        from gofer import *

        began, stop = threading.Event(), threading.Event()
        ch = Chan()
        with cancel_scope() as scope:
            go(lambda: (blocking(began.wait), scope.cancel()))
            blocking(lambda: (began.set(), stop.wait(0.1)))
        try:
            ch.recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "deadlock\n", "")


def test_idle_threads_are_no_hope(program):
    result = program("""
        from gofer import *

        tasks = [fork(blocking, sleep, 0.001) for _ in range(5)]
        for task in tasks:
            task.join()
        try:
            Chan().recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "deadlock\n", "")


def test_a_call_that_waits_for_ever_is_no_deadlock(program):
    """The thread is at work, whatever it does."""
    result = program("""
        from gofer import *

        def call():
            with timeout(0.1):
                Chan().recv()

        try:
            blocking(call)
        except TimeoutError:
            print("no deadlock")
    """)
    assert result == (0, "no deadlock\n", "")


def test_ctrl_c_while_a_call_is_under_way(program):
    result = program("""
        import os, signal, threading
        from gofer import *

        def call():
            os.kill(os.getpid(), signal.SIGINT)
            stop.wait()
            return "done"

        stop = threading.Event()
        try:
            blocking(call)
        except KeyboardInterrupt:
            print("interrupted")
        stop.set()
        print(blocking(str, "works"))
    """)
    assert result == (0, "interrupted\nworks\n", "")


@pytest.mark.parametrize("main", ["run(main)", "main()"])
def test_the_end_with_calls_under_way(program, main):
    result = program(f"""
        import threading
        from gofer import *

        began = Chan(5)

        def call():
            began.send(None)
            threading.Event().wait()

        def main():
            for _ in range(5):
                go(blocking, call)
            for _ in range(5):
                began.recv()
            print("end")

        {main}
    """)
    assert result == (0, "end\n", "")


def test_run_unwinds_who_waits_for_a_call(program):
    result = program("""
        import threading
        from gofer import *

        def wait():
            try:
                blocking(stop.wait)
            finally:
                print("unwound")

        def main():
            go(wait)
            gosched()
            gosched()

        stop = threading.Event()
        run(main)
        stop.set()
        print(run(blocking, str, "again"))
    """)
    assert result == (0, "unwound\nagain\n", "")


def test_no_idle_thread_is_left_at_exit(program):
    result = program("""
        import atexit, threading

        def left():
            print(len([t for t in threading.enumerate() if t is not threading.main_thread()]))

        atexit.register(left)  # first in, last out

        import sys
        from gofer import *

        for task in [fork(blocking, sleep, 0.001) for _ in range(5)]:
            task.join()
        pool = sys.modules["gofer.blocking"]._pool
        while len(pool._idle) < len(pool._workers):
            gosched()
        print(len(pool._idle) > 0)
    """)
    assert result == (0, "True\n0\n", "")


def test_it_is_used_while_the_program_exits(program):
    """What can not be done any more says so, and the program ends."""
    result = program("""
        import atexit
        from gofer import *

        def late():
            try:
                print(blocking(int))
            except RuntimeError:
                print("too late")

        atexit.register(late)
        print(blocking(int))
    """)
    assert (result.status, result.err) == (0, "")
    assert result.out in ("0\n0\n", "0\ntoo late\n")


# --- fork ---------------------------------------------------------------------------------------

FORK = """
    import os, sys, threading, warnings
    from gofer import *

    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads

    def status(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_child_has_a_pool_of_its_own(program):
    result = program(f"""{FORK}
    stop, entered = threading.Event(), Chan(3)
    blocking.limit(7)
    tasks = [fork(blocking, lambda: (entered.send(None), stop.wait())) for _ in range(3)]
    for _ in range(3):
        entered.recv()
    print(blocking(int))
    pid = os.fork()
    if pid == 0:
        assert blocking.limit() == 7
        assert [blocking(int, n) for n in range(5)] == list(range(5))
        try:
            Chan().recv()
        except Deadlock:
            os._exit(42)
    print(status(pid))
    stop.set()
    for task in tasks:
        task.join()
    print(blocking(int))
    """)
    assert result == (0, "0\n42\n0\n", "")


def test_a_call_that_forks(program):
    """In the child the call returns into nothing, and the process ends as a forked thread does."""
    result = program(f"""{FORK}
    print(status(blocking(os.fork)))
    print(blocking(int))
    """)
    assert result == (0, "0\n0\n", "")


def test_a_call_that_forks_and_goes_on_in_the_child(program):
    result = program(f"""{FORK}
    def call():
        pid = os.fork()
        if pid == 0:
            os._exit(blocking(int, "5"))
        return pid

    print(status(blocking(call)))
    print(blocking(int))
    """)
    assert result == (0, "5\n0\n", "")
