"""The end of the interpreter: goroutines are abandoned, nothing crashes, nothing hangs.

GOFER_TEST_EXIT_PARKED says how many goroutines are parked when it exits; the full number is a
million.
"""

import os
import sys

import pytest

PARKED = int(os.environ.get("GOFER_TEST_EXIT_PARKED", "50000"))

PARK = """
    from gofer import *
    import atexit, gc, os, sys, threading, time

    def park(n):
        gate = Chan()
        for _ in range(n):
            go(gate.recv)
        while runtime.num_goroutine() <= n or any(
            info.state != "waiting" for info in runtime.goroutines()[1:]
        ):
            gosched()
        return gate
"""


def test_with_many_parked(program):
    result = program(f"""
        import sys
        from gofer import *

        def body():
            ready.done()
            kept = ["local"]
            gate.recv()
            return kept

        gate, ready = Chan(), WaitGroup()
        ready.add({PARKED})
        for _ in range({PARKED}):
            go(body)
        ready.wait()
        print("parked", runtime.num_goroutine() >= {PARKED})
    """)
    assert result == (0, "parked True\n", "")


def test_with_many_parked_after_run(program):
    result = program(f"""
        from gofer import *

        def body():
            ready.done()
            try:
                gate.recv()
            finally:
                unwound.append(1)

        def main():
            ready.add({PARKED})
            for _ in range({PARKED}):
                go(body)
            ready.wait()

        gate, ready, unwound = Chan(), WaitGroup(), []
        run(main)
        print(len(unwound), runtime.num_goroutine())
    """)
    assert result == (0, f"{PARKED} 1\n", "")


def test_with_many_that_have_not_started(program):
    result = program(f"""
        from gofer import *
        for _ in range({PARKED}):
            go(print, end="")
        print("end")
    """)
    assert result == (0, "end\n", "")


ENDINGS = {
    "end of script": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "exception": ("1 / 0", 1),
    "os._exit": ("sys.stdout.flush(); os._exit(4)", 4),
    "sys.exit in a goroutine": ("go(sys.exit, 5); Chan().recv()", 5),
    "abrupt in a goroutine": ("go(lambda: (sys.stdout.flush(), os._exit(6))); Chan().recv()", 6),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_endings(program, how):
    ending, status = ENDINGS[how]
    result = program(
        PARK
        + f"""
    gate = park(100)
    print("parked")
    {ending}
    """
    )
    assert (result.status, result.out) == (status, "parked\n")
    assert result.err == "" or "ZeroDivisionError" in result.err


def test_with_workers_that_run(program):
    result = program("""
        from gofer import *

        def compute():
            while True:
                for _ in range(1000):
                    pass
                gosched()

        for _ in range(20):
            go(compute)
        for _ in range(50):
            gosched()
        print("end")
    """)
    assert result == (0, "end\n", "")


@pytest.mark.skipif("sys.version_info < (3, 13)", reason="needs a free-threaded build")
def test_with_workers_that_never_wait(program):
    result = program(
        """
        import sys
        from gofer import *

        def compute():
            started.append(1)
            while True:
                pass

        started = []
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            go(compute)
            while not started:
                pass
        print("end")
        """,
        GOFER_MAXPROCS="2",
    )
    assert result == (0, "end\n", "")


def test_with_foreign_daemon_threads(program):
    result = program("""
        from gofer import *
        import threading, time

        def wait():
            ready.send(1)
            Chan().recv()

        def churn():
            ready.send(1)
            ch = Chan()
            while True:
                go(ch.send, 1)
                ch.recv()

        def spin():
            ready.send(1)
            while True:
                gosched()

        def begin(fn):
            current()
            begun.release()  # from then on it counts as one that may wake others
            fn()

        ready, begun = Chan(), threading.Semaphore(0)
        for fn in (wait, churn, spin) * 3:
            threading.Thread(target=begin, args=[fn], daemon=True).start()
        begun.acquire()
        for _ in range(9):
            ready.recv()
        print("end")
    """)
    assert result == (0, "end\n", "")


def test_with_threads_that_end_later(program):
    """The interpreter waits for them, and they may still use goroutines."""
    result = program("""
        from gofer import *
        import threading, time

        def late():
            ready.send(1)
            time.sleep(0.2)
            ch = Chan()
            go(ch.send, "from a goroutine")
            print(ch.recv())

        ready = Chan()
        threading.Thread(target=late).start()
        ready.recv()
        print("end of main")
    """)
    assert result == (0, "end of main\nfrom a goroutine\n", "")


def test_timers_keep_nothing_alive(program):
    result = program("""
        from gofer import *
        after_func(1000, print)
        ticker = Ticker(0.001)
        ticker.c.recv()
        go(sleep, 1000)
        gosched()
        print("end")
    """)
    assert result == (0, "end\n", "")


# --- atexit -------------------------------------------------------------------------------------


def test_atexit_functions_may_use_it(program):
    """Registered before or after the import, they run before the runtime is gone or are refused."""
    for first, second in (("import gofer", ""), ("", "import gofer")):
        result = program(f"""
            import atexit
            {first}

            @atexit.register
            def use():
                from gofer import Chan, Group, fork, go
                try:
                    ch = Chan(1)
                    go(ch.send, 1)
                    fork(int).join()
                    with Group() as g:
                        g.go(int)
                    print("used")
                except RuntimeError as error:
                    print("refused")

            {second}
            from gofer import *
            gate = Chan()
            for _ in range(10):
                go(gate.recv)
            gosched()
            print("end")
        """)
        assert result.status == 0
        assert result.err == ""
        assert result.out in ("end\nused\n", "end\nrefused\n")


def test_atexit_in_a_program_that_ran(program):
    result = program("""
        import atexit
        from gofer import *

        @atexit.register
        def use():
            print("atexit", current().id)
            print(runtime.num_goroutine() >= 1)

        run(lambda: fork(int).join())
        print("end")
    """)
    assert result == (0, "end\natexit 1\nTrue\n", "")


def test_atexit_function_that_would_wait_for_ever(program):
    result = program("""
        import atexit
        from gofer import *

        @atexit.register
        def wait():
            try:
                Chan().recv()
            except (Deadlock, RuntimeError) as error:
                print(type(error).__name__)

        go(int).join()
    """)
    assert result.status in (0, 2)
    assert result.out in ("Deadlock\n", "RuntimeError\n")


# --- after finalization has begun ---------------------------------------------------------------


def test_destructors_that_use_it_while_modules_are_torn_down(program):
    result = program("""
        import os, sys
        import gofer
        from gofer import Chan, current, fork, go, gosched, sleep

        class Last:
            def __init__(self):
                self.use = [
                    lambda: go(int),
                    lambda: fork(int).join(),
                    lambda ch=Chan(): ch.recv(),
                    lambda ch=Chan(1): ch.send(1),
                    lambda: gosched(),
                    lambda: sleep(0.001),
                    lambda: current(),
                ]

            def __del__(self, write=os.write):
                for fn in self.use:
                    try:
                        fn()
                    except:  # the names of exceptions may be gone
                        pass
                write(1, b"last\\n")

        sys.last_one = Last()
        Last.keep = Last()
        gate = Chan()
        go(gate.recv)
        gosched()
        print("end", flush=True)
    """)
    # A free-threaded Python that has had a second thread leaks what only a class of __main__ holds.
    leaks = not getattr(sys, "_is_gil_enabled", lambda: True)()
    assert result.status == 0
    assert result.out in ["end\nlast\nlast\n"] + ["end\nlast\n"] * leaks


def test_parked_goroutines_with_destructors_in_their_frames(program):
    result = program("""
        from gofer import *

        class Thing:
            def __del__(self):
                go(int)
                gosched()

        def body():
            thing = Thing()
            with open(__file__) as file:
                try:
                    gate.recv()
                finally:
                    print("not at exit")
            return thing

        gate = Chan()
        gs = [go(body) for _ in range(10)]
        while not all(g.state == "waiting" for g in gs):
            gosched()
        print("end")
    """)
    assert (result.status, result.out) == (0, "end\n")


def test_generators_of_parked_goroutines_at_exit(program):
    result = program("""
        from gofer import *

        def generator():
            try:
                yield gate.recv()
            finally:
                print("closed")

        def body(gen):
            return next(gen)

        gate = Chan()
        gens = [generator() for _ in range(10)]
        tasks = [fork(body, gen) for gen in gens]
        while not all(task.state == "waiting" for task in tasks):
            gosched()
        print("end")
    """)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("end\n")


def test_a_failed_task_at_exit(program):
    result = program("""
        from gofer import *
        task = fork(lambda: 1 / 0)
        while not task.done:
            gosched()
    """)
    assert result.status == 0


# --- GoroutineExit that is never let through ----------------------------------------------------


def test_one_that_catches_every_exit_is_abandoned(program):
    result = program("""
        from gofer import *

        def stubborn():
            while True:
                try:
                    Chan().recv()
                except GoroutineExit:
                    pass

        def main():
            g = go(stubborn)
            while g.state != "waiting":
                gosched()
            return "value"

        print(run(main))
        print(fork(int).join())
    """)
    assert result == (0, "value\n0\n", "")


def test_one_that_yields_for_ever_is_abandoned(program):
    result = program("""
        from gofer import *

        def stubborn():
            while True:
                try:
                    gosched()
                except GoroutineExit:
                    pass

        def main():
            go(stubborn)
            for _ in range(10):
                gosched()
            return "value"

        print(run(main))
        print(fork(int).join())
    """)
    assert result == (0, "value\n0\n", "")


def test_another_thread_ends_the_program(program):
    """Goroutine 1 may be about to wait: it must not raise, and so end the program a second time."""
    result = program("""
        import atexit, threading
        from gofer import *

        def body():
            current()
            atexit._run_exitfuncs()
            exiting.set()
            while main.state != "waiting":
                pass
            ch.send("served")

        main, ch, exiting = current(), Chan(), threading.Event()
        threading.Thread(target=body, daemon=True).start()
        exiting.wait()
        print(ch.recv())
    """)
    assert result == (0, "served\n", "")


@pytest.mark.parametrize("forked", [False, True], ids=["", "in a child"])
def test_c_code_ends_the_program_in_a_goroutine(program, forked):
    """The interpreter is taken down with what the goroutine has in the thread state.

    In the main thread: CPython 3.13t crashes when another one calls Py_Exit, with or without us.
    """
    pytest.importorskip("ctypes")
    source = f"""
        import ctypes, os
        from gofer import *

        def body():
            if {forked} and (pid := os.fork()):
                os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
            ctypes.pythonapi.Py_Exit(3)

        go(Chan().recv)
        fork(body).join()
    """
    flags = ["-W", "ignore::DeprecationWarning"]  # of a fork beside other threads
    assert program(source, flags=flags, GOFER_MAXPROCS="1") == (3, "", "")
