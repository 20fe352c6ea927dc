"""Deadlock: when it is raised, when it must not be, what it tells, and how the process ends."""

import re

import pytest

MESSAGE = "all goroutines are asleep - deadlock!"

STUCK = {
    "recv": "Chan().recv()",
    "recv_ok": "Chan().recv_ok()",
    "send": "Chan().send(1)",
    "iteration": "list(Chan())",
    "select": "select(Chan().recv, (Chan().send, 1))",
    "empty select": "select()",
    "nil cases": "select(None, None)",
    "join": "go(Chan().recv).join()",
    "task": "fork(Chan().recv).join()",
    "wait group": "wg = WaitGroup(); wg.add(1); wg.wait()",
    "mutex": "m = Mutex(); m.lock(); m.lock()",
    "semaphore": "s = Semaphore(1); s.acquire(); s.acquire()",
    "two": "a, b = Chan(), Chan(); go(lambda: (a.recv(), b.send(1))); b.recv()",
}


@pytest.mark.parametrize("how", STUCK)
def test_it_is_raised_in_main(program, how):
    result = program(f"""
        from gofer import *
        try:
            {STUCK[how]}
        except Deadlock as error:
            print(current().id, error, len(error.__notes__) >= 1)
    """)
    assert result == (0, f"1 {MESSAGE} True\n", "")


@pytest.mark.parametrize("how", STUCK)
def test_it_is_raised_inside_run(program, how):
    result = program(f"""
        from gofer import *

        def main():
            {STUCK[how]}

        try:
            run(main)
        except Deadlock as error:
            print(current().id, error)
    """)
    assert result == (0, f"1 {MESSAGE}\n", "")


def test_joining_oneself_is_refused(program):
    result = program("""
        from gofer import *
        for join in (current().join, fork(lambda: current().join()).join):
            try:
                join()
            except RuntimeError as error:
                print("joins itself" in str(error))
    """)
    assert result == (0, "True\nTrue\n", "")


def test_uncaught_without_run(program):
    result = program("""
        from gofer import *

        def worker(ch):
            ch.recv()

        ch = Chan()
        go(worker, ch)
        Chan().recv()
    """)
    assert (result.status, result.out) == (2, "")
    assert f"gofer.errors.Deadlock: {MESSAGE}\n" in result.err
    assert re.search(r"\n\ngoroutine 1 \[chan receive\]:\n<module>\(\.\.\.\)\n", result.err)
    assert re.search(
        r"\n\ngoroutine \d+ \[chan receive\]:\n"
        r"worker\(\.\.\.\)\n\t.*prog\.py:4\n"
        r"created by <module> in goroutine 1\n\t.*prog\.py:7\n",
        result.err,
    )


def test_uncaught_in_run(program):
    result = program("""
        from gofer import *

        def main():
            print("stuck")
            try:
                Chan().recv()
            finally:
                print("finally")

        run(main)
    """)
    assert (result.status, result.out) == (2, "stuck\nfinally\n")
    assert f"gofer.errors.Deadlock: {MESSAGE}\n" in result.err


def test_notes_name_every_goroutine(program):
    result = program("""
        from gofer import *

        def a(): Chan().recv()
        def b(): Chan().send(1)
        def c(): select()

        for fn in (a, b, c):
            go(fn)
        try:
            WaitGroup().add(1) or Mutex().lock() or Chan().recv()
        except Deadlock as error:
            print(len(error.__notes__))
            print(*error.__notes__, sep="")
    """)
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[0] == "4"
    heads = [re.sub(r"goroutine \d+ ", "", line) for line in lines if line.startswith("goroutine")]
    assert heads == ["[chan receive]:"] * 2 + ["[chan send]:", "[select (no cases)]:"]
    assert {"a(...)", "b(...)", "c(...)", "<module>(...)"} <= set(lines)


def test_main_can_go_on_after_it(program):
    result = program("""
        from gofer import *
        ch = Chan()
        g = go(ch.recv)
        for _ in range(3):
            try:
                Chan().recv()
            except Deadlock:
                print(g.state)
        ch.send(1)
        g.join()
        print(g.state, fork(int).join())
    """)
    assert result == (0, "waiting\n" * 3 + "dead 0\n", "")


def test_goexit_in_main_leaves_the_others_and_then_is_one(program):
    source = """
        from gofer import *

        def other():
            for n in range(3):
                sleep(0.001)
            print("other has ended")

        def main():
            go(other)
            goexit()
            print("never")

        {start}
    """
    for start in ("run(main)", "main()"):
        result = program(source.format(start=start))
        assert (result.status, result.out) == (2, "other has ended\n"), start
        assert MESSAGE in result.err


def test_goexit_in_main_and_a_goroutine_that_ends_the_program(program):
    for start in ("run(main)", "main()"):
        result = program(f"""
            import sys
            from gofer import *

            def main():
                go(sys.exit, 4)
                goexit()

            {start}
        """)
        assert (result.status, result.out) == (4, ""), start


def test_excepthook_of_the_program_is_called(program):
    result = program("""
        import sys
        from gofer import *

        def hook(kind, error, trace):
            print("mine", kind.__name__)

        sys.excepthook = hook
        Chan().recv()
    """)
    assert result.out == "mine Deadlock\n"


def test_a_group_that_is_stuck(program):
    result = program("""
        from gofer import *
        try:
            with Group() as g:
                g.go(Chan().recv)
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "deadlock\n", "")


# --- what may still wake somebody ---------------------------------------------------------------

ALIVE = {
    "a timer": "ch = after(0.05); ch.recv()",
    "a sleeper": "go(lambda: (sleep(0.05), ch.send(1))); ch.recv()",
    "a function after a time": "after_func(0.05, ch.send, 1); ch.recv()",
    "a ticker": "t = Ticker(0.02); t.c.recv(); t.c.recv()",
    "a thread": "threading.Thread(target=slowly, args=[ch.send, 1]).start(); ch.recv()",
    "a daemon that has used us": """
t = threading.Thread(target=lambda: (current(), used.set(), slowly(ch.send, 1)), daemon=True)
t.start(); used.wait(); ch.recv()""",
    "a thread that waits for us": """
t = threading.Thread(target=lambda: (current(), used.set(), ready.recv(), ch.send(1)), daemon=True)
t.start(); used.wait(); ready.send(1); ch.recv()""",
    "a thread that starts goroutines": """
t = threading.Thread(target=lambda: slowly(go, ch.send, 1))
t.start(); ch.recv()""",
}


@pytest.mark.parametrize("how", ALIVE)
def test_it_must_not_be_raised(program, how):
    result = program(
        "from gofer import *\n"
        "import threading, time\n"
        "def slowly(fn, *args):\n"
        "    time.sleep(0.3)\n"
        "    fn(*args)\n"
        "ch, ready, used = Chan(), Chan(1), threading.Event()\n"
        f"{ALIVE[how].strip()}\n"
        "print('ok')\n"
    )
    assert result == (0, "ok\n", "")


def test_raised_once_the_last_thread_has_ended(program):
    result = program("""
        from gofer import *
        import threading, time

        def stranger():
            time.sleep(0.2)
            ended.append("stranger")

        def user():
            gosched()
            time.sleep(0.2)
            ended.append("user")

        ended = []
        for fn in stranger, user:
            threading.Thread(target=fn).start()
        try:
            Chan().recv()
        except Deadlock:
            # is_alive() may be true yet: a thread is done a little later than it is off the list
            print(sorted(ended), threading.active_count())
    """)
    assert result == (0, "['stranger', 'user'] 1\n", "")


def test_a_daemon_that_never_used_us_does_not_count(program):
    result = program("""
        from gofer import *
        import threading, time

        threading.Thread(target=time.sleep, args=[10000], daemon=True, name="a sleeper").start()
        blocking(int)
        try:
            Chan().recv()
        except Deadlock as error:
            print(error.__notes__[-1].strip())
    """)
    told = "Not counted on: daemon threads that have not used gofer yet, here 'a sleeper'."
    assert result.status == 0
    assert result.out.startswith(told)


def test_in_a_bubble_no_thread_counts_and_none_is_named(program):
    result = program("""
        from gofer import *
        from gofer.testing import bubble
        import threading, time

        threading.Thread(target=time.sleep, args=[10000], daemon=True).start()
        try:
            with bubble():
                Chan().recv()
        except Deadlock as error:
            print(any("Not counted on" in note for note in error.__notes__))
    """)
    assert result == (0, "False\n", "")


def test_a_daemon_that_has_only_imported_us_does_not_count(program):
    result = program("""
        import threading

        def body():
            import gofer, gofer.context, gofer.runtime, gofer.sync, gofer.testing, gofer.time
            imported.set()
            threading.Event().wait()

        imported = threading.Event()
        threading.Thread(target=body, daemon=True).start()
        imported.wait()
        from gofer import Chan
        Chan().recv()
    """)
    assert result.status == 2
    assert MESSAGE in result.err


def test_a_stopped_timer_does_not_count(program):
    result = program("""
        from gofer import *
        t = Timer(1000)
        t.stop()
        try:
            t.c.recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "deadlock\n", "")


def test_a_busy_goroutine_counts(program):
    result = program("""
        from gofer import *

        def busy():
            for _ in range(100_000):
                gosched()
            ch.send("done")

        ch = Chan()
        go(busy)
        print(ch.recv())
    """)
    assert result == (0, "done\n", "")


def test_a_daemon_that_has_just_begun_and_wakes_somebody(program):
    """It counts while it begins; it wakes who has started it, and from then on does not count."""
    result = program("""
        from threading import Thread
        import gofer

        def start_many():
            for _ in range(6000):
                Thread(target=int, daemon=True).start()

        gofer.runtime.gomaxprocs(2)
        gofer.patch()
        gofer.fork(start_many).join()
        print("done")
    """)
    assert result == (0, "done\n", "")
