"""An exception that escapes from a `go` function ends the process: what is printed, and how it ends."""

import re

import pytest

NAME = r"[^\n]*prog\.py"


def test_the_report(program):
    result = program("""
        from gofer import *

        def fail(n):
            raise ValueError("the reason")

        def start():
            go(fail, 1)

        def main():
            start()
            Chan().recv()

        run(main)
    """)
    assert result.status == 2
    assert result.out == ""
    assert re.fullmatch(
        "panic: ValueError: the reason\n"
        "\n"
        r"goroutine \d+ \[running\]:"
        "\n"
        r"Traceback \(most recent call last\):"
        "\n"
        rf'  File "{NAME}", line 4, in fail'
        "\n"
        r'    raise ValueError\("the reason"\)'
        "\n"
        "ValueError: the reason\n"
        rf"created by start in goroutine 1 at {NAME}:7"
        "\n",
        result.err,
    )


def test_created_by_a_goroutine(program):
    result = program("""
        from gofer import *

        class Thing:
            def method(self):
                go(lambda: 1 / 0)
                Chan().recv()

        go(Thing().method)
        Chan().recv()
    """)
    assert result.status == 2
    assert re.search(r"^panic: ZeroDivisionError: division by zero\n\ngoroutine \d+", result.err)
    creator = re.search(r"created by (\S+) in goroutine (\d+) at (.*):5\n\Z", result.err)
    assert creator[1] == "Thing.method"
    assert int(creator[2]) > 1


def test_without_run(program):
    result = program("""
        from gofer import *
        go(lambda: 1 / 0)
        Chan().recv()
        print("never")
    """)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("panic: ZeroDivisionError: division by zero\n\ngoroutine ")


def test_main_can_not_catch_it(program):
    result = program("""
        import sys
        from gofer import *

        def main():
            try:
                go(lambda: 1 / 0)
                Chan().recv()
            except BaseException:
                print("caught")
            finally:
                print("finally")

        try:
            run(main)
        except BaseException:
            print("caught")
    """)
    assert (result.status, result.out) == (2, "")


def test_stdout_is_flushed(program):
    result = program("""
        import sys
        from gofer import *
        print("printed before", end="")
        go(lambda: 1 / 0)
        Chan().recv()
    """)
    assert (result.status, result.out) == (2, "printed before")


def test_the_cause_is_shown(program):
    result = program("""
        from gofer import *

        def fail():
            try:
                {}["key"]
            except KeyError as error:
                raise RuntimeError("second") from error

        go(fail)
        Chan().recv()
    """)
    assert result.status == 2
    assert result.err.startswith("panic: RuntimeError: second\n")
    assert "KeyError: 'key'" in result.err
    assert "direct cause" in result.err


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        ("raise KeyError('a')", "KeyError: 'a'"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit('x')", "GeneratorExit: x"),
        ("raise BaseException('odd')", "BaseException: odd"),
        ("raise Closed('it')", "gofer.errors.Closed: it"),
        ("raise ExceptionGroup('many', [ValueError(1)])", "ExceptionGroup: many (1 sub-exception)"),
        ("def f(): f()\n            f()", "RecursionError: maximum recursion depth exceeded"),
        ("exec('1 +')", "SyntaxError: invalid syntax"),
        ("assert 0, 'two\\nlines'", "AssertionError: two\nlines"),
        ("Bad.raise_it()", "Bad: <exception str() failed>"),
    ],
)
def test_headlines(program, fail, line):
    result = program(f"""
        from gofer import *

        class Bad(Exception):
            __module__ = "builtins"
            def __str__(self):
                raise ValueError
            @classmethod
            def raise_it(cls):
                raise cls

        def body():
            {fail}

        go(body)
        Chan().recv()
    """)
    assert result.status == 2
    assert result.err.startswith(f"panic: {line}")


def test_goexit_and_cancelled_are_none(program):
    result = program("""
        from gofer import *

        def cancelled():
            raise Cancelled

        def exit():
            raise GoroutineExit

        for fn in (cancelled, exit, goexit):
            go(fn).join()
        print("fine")
    """)
    assert result == (0, "fine\n", "")


def test_of_a_goroutine_started_by_a_thread(program):
    result = program("""
        import threading
        from gofer import *

        def start():
            go(lambda: 1 / 0).join()

        thread = threading.Thread(target=start)
        thread.start()
        Chan().recv()
    """)
    assert result.status == 2
    assert result.err.startswith("panic: ZeroDivisionError")


def test_of_an_after_func(program):
    result = program("""
        from gofer import *
        after_func(0.001, lambda: 1 / 0)
        sleep(100)
    """)
    assert result.status == 2
    assert result.err.startswith("panic: ZeroDivisionError")


def test_while_others_work(program):
    result = program("""
        from gofer import *

        def spin():
            while True:
                gosched()

        for _ in range(10):
            go(spin)
        go(lambda: 1 / 0)
        spin()
    """)
    assert result.status == 2
    assert result.err.startswith("panic: ZeroDivisionError")


def test_many_at_once_report_one(program):
    result = program("""
        from gofer import *
        for n in range(20):
            go(lambda n=n: {}[n])
        Chan().recv()
    """)
    assert result.status == 2
    assert result.err.count("panic:") == 1


def test_while_run_unwinds_is_no_panic(program):
    result = program("""
        from gofer import *

        def body():
            try:
                Chan().recv()
            finally:
                raise ValueError("late")

        def main():
            g = go(body)
            while g.state != "waiting":
                gosched()
            return "value"

        print(run(main))
    """)
    assert (result.status, result.out) == (0, "value\n")
    assert "ValueError: late" in result.err
    assert "panic" not in result.err


# --- the hook -----------------------------------------------------------------------------------


def test_the_hook_replaces_the_report(program):
    result = program("""
        from gofer import *

        def hook(goroutine, exception):
            print("hook", goroutine is started, repr(exception), current() is goroutine)

        def fail():
            raise ValueError("reason")

        runtime.on_panic(hook)
        started = go(fail)
        Chan().recv()
    """)
    assert result == (2, "hook True ValueError('reason') True\n", "")


def test_the_hook_may_wait(program):
    result = program("""
        from gofer import *

        def hook(goroutine, exception):
            sent, received = Chan(), Chan()
            go(lambda: received.send(sent.recv()))
            sent.send("sent somewhere")
            sleep(0.001)
            print(received.recv())

        runtime.on_panic(hook)
        go(lambda: 1 / 0)
        Chan().recv()
    """)
    assert result == (2, "sent somewhere\n", "")


def test_a_hook_that_fails_is_reported_too(program):
    result = program("""
        from gofer import *

        def hook(goroutine, exception):
            raise KeyError("hook")

        runtime.on_panic(hook)
        go(lambda: 1 / 0)
        Chan().recv()
    """)
    assert result.status == 2
    assert result.err.startswith("panic: ZeroDivisionError")
    assert "created by <module> in goroutine 1" in result.err
    assert result.err.endswith("KeyError: 'hook'\n")


@pytest.mark.parametrize("ending", ["sys.exit(0)", "goexit()", "raise KeyboardInterrupt"])
def test_a_hook_can_not_change_the_exit(program, ending):
    result = program(f"""
        import sys
        from gofer import *

        def hook(goroutine, exception):
            {ending}

        runtime.on_panic(hook)
        go(lambda: 1 / 0)
        Chan().recv()
    """)
    assert result.status == 2


def test_the_hook_can_be_taken_back(program):
    result = program("""
        from gofer import *
        runtime.on_panic(print)
        runtime.on_panic(None)
        go(lambda: 1 / 0)
        Chan().recv()
    """)
    assert result.status == 2
    assert result.err.startswith("panic: ZeroDivisionError")


def test_broken_streams_do_not_stop_it(program):
    result = program("""
        import sys
        from gofer import *

        class Broken:
            def write(self, text):
                raise OSError
            def flush(self):
                raise OSError

        def fail():
            sys.stdout = sys.stderr = Broken()
            raise ValueError

        go(fail)
        Chan().recv()
    """)
    assert result.status == 2


# --- SystemExit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["go", "fork"])
@pytest.mark.parametrize("wait", ["Chan().recv()", "[gosched() for _ in iter(int, 1)]"])
@pytest.mark.parametrize(
    ("status", "expected", "err"),
    [("3", 3, ""), ("None", 0, ""), ("'reason'", 1, "reason\n"), ("True", 1, "")],
)
def test_system_exit_ends_the_program(program, start, wait, status, expected, err):
    result = program(f"""
        import sys
        from gofer import *

        def main():
            {start}(sys.exit, {status})
            {wait}

        try:
            run(main)
        finally:
            print("finally")
    """)
    assert result == (expected, "finally\n", err)


def test_system_exit_without_run(program):
    result = program("""
        import atexit, sys
        from gofer import *
        atexit.register(print, "atexit")
        go(sys.exit, 5)
        Chan().recv()
    """)
    assert result == (5, "atexit\n", "")
