"""The plugin of pytest: fixtures, who is left behind, what is shown of a hang and of a panic.

Each test runs pytest in a process of its own, which finds the plugin as any pytest does.
"""

import re
import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester):
    """`run(source, *words)` runs pytest on the source as a file of tests."""

    def run_pytest(source, *words):
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *words, timeout=100)

    return run_pytest


def text(result):
    return "\n".join([*result.outlines, *result.errlines])


# --- fixtures -----------------------------------------------------------------------------------


def test_bubble(run):
    result = run(
        """
        import pytest
        from gofer import Chan, go, sleep
        from gofer.testing import wait
        from gofer.time import now

        @pytest.fixture
        def server(bubble):
            requests, replies = Chan(), Chan()
            def serve():
                for n in requests:
                    sleep(3600)
                    replies.send(n + 1)
            go(serve)
            yield requests, replies
            requests.close()

        def test_an_hour(bubble):
            start = now()
            sleep(3600)
            assert now() == start + 3600

        def test_a_server(server):
            requests, replies = server
            start = now()
            requests.send(1)
            assert replies.recv() == 2
            assert now() == start + 3600
            wait()

        def test_outside():
            with pytest.raises(RuntimeError, match="outside of a bubble"):
                wait()
        """
    )
    result.assert_outcomes(passed=3)


def test_bubble_of_a_test_that_fails(run):
    """The test fails with what has gone wrong, once."""
    result = run(
        """
        import pytest
        from gofer import Chan, go, sleep

        def test_assertion(bubble):
            go(sleep, 3600)
            assert 1 == 2

        def test_panic(bubble):
            go(divmod, 1, 0)
            sleep(3600)

        def test_deadlock(bubble):
            Chan().recv()

        def test_failure(bubble):
            pytest.fail("as I say")

        def test_skipped(bubble):
            go(sleep, 3600)
            pytest.skip("as I say")
        """
    )
    result.assert_outcomes(failed=4, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "FAILED *::test_assertion - assert 1 == 2",
            "FAILED *::test_panic - ZeroDivisionError*",
            "FAILED *::test_deadlock - gofer.errors.Dead*",
            "FAILED *::test_failure - Failed: as I say",
        ]
    )
    assert "all goroutines of the bubble are asleep" in text(result)
    result.stdout.fnmatch_lines(["*goroutine 1 [[]chan receive[]]:", "*test_deadlock(...)"])
    assert "pytest_pyfunc_call(...)" not in text(result)  # nothing of pytest's own


def test_bubble_in_which_somebody_stays(run):
    result = run(
        """
        from gofer import go, sleep

        def test_stays(bubble):
            go(sleep, 3600)
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*Deadlock: the bubble's block has ended*", "*created by test_stays in goroutine 1"]
    )


EXPLORED = """
    from gofer import Group

    def test_counter(explore):
        def fn():
            count = [0]
            def add():
                before = count[0]
                count[0] = before + 1
            with Group() as g:
                g.go(add)
                g.go(add)
            assert count[0] == 2
        print("schedules:", explore(fn, schedules=500, seed=1).schedules)
"""


def test_explore(run):
    result = run(EXPLORED)
    result.assert_outcomes(failed=1)
    (name,) = set(re.findall(r"replay='(.*?)'", text(result)))
    assert name.startswith("pct:3:")
    result.stdout.fnmatch_lines(["*[[]2[]] add", "*count[[]0[]] = before + 1"])
    again = run(EXPLORED, "--gofer-replay", name)
    again.assert_outcomes(failed=1)
    assert name in text(again)
    harmless = run(EXPLORED, "--gofer-replay", "pct:1:0:1", "-s")
    harmless.assert_outcomes(passed=1)
    assert "schedules: 1\n" in str(harmless.stdout)


# --- who is left behind -------------------------------------------------------------------------


def test_who_is_left_behind(run):
    result = run(
        """
        import pytest
        from gofer import Chan, current, fork, go, gosched, sleep

        def stays(ch):
            ch.recv()

        def starts(ch):
            go(stays, ch)

        def test_two():
            ch = Chan()
            go(starts, ch)
            go(stays, ch).name = "named"

        def test_spins():
            def spin():
                while True:
                    gosched()
            go(spin)

        def test_of_others_is_not_told_again():
            pass

        @pytest.mark.allow_leaks
        def test_allowed():
            go(stays, Chan())

        def test_ends_soon():
            go(sleep, 0.01)
            ch = Chan()
            for _ in range(10):
                go(ch.recv_ok)
            ch.close()

        def test_fails_anyway():
            go(stays, Chan())
            assert 1 == 2

        def test_ended():
            fork(int).join()

        def test_is_goroutine_1():
            assert current().id == 1
        """
    )
    result.assert_outcomes(passed=7, failed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*the test has left 2 goroutines behind:",
            "goroutine * 'named' [[]chan receive <Chan 0/0 at *>[]]",
            "    at stays at *.py:5",
            "    started by test_two at *.py:13, in goroutine 1",
            "goroutine * 'stays' [[]chan receive <Chan 0/0 at *>[]]",
            "    started by starts at *.py:8, in goroutine *",
            "*mark it with @pytest.mark.allow_leaks.",
            "*the test has left a goroutine behind:",
            "goroutine * 'test_spins.<locals>.spin' [[]runn*[]]",
        ]
    )


def test_a_whole_file_may_be_allowed_to(run):
    result = run(
        """
        import pytest
        from gofer import Chan, go

        pytestmark = pytest.mark.allow_leaks

        def test_stays():
            go(Chan().recv)
        """,
        "--strict-markers",
    )
    result.assert_outcomes(passed=1)


def test_fixtures_end_first(run):
    result = run(
        """
        import pytest
        from gofer import Chan, go

        @pytest.fixture
        def ended():
            stop = Chan()
            go(stop.recv_ok)
            yield
            stop.close()

        @pytest.fixture
        def forgotten():
            go(Chan().recv)

        def test_ended(ended):
            pass

        def test_forgotten(forgotten):
            pass
        """
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["    started by forgotten at *"])


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_what_wider_fixtures_have_started_is_their_own(run, scope):
    """And what that starts, while the test runs, directly or not."""
    result = run(
        f"""
        import pytest
        from gofer import Chan, go

        def accept(calls):
            for call in calls:
                go(handle, call)

        def handle(call):
            go(call.recv)
            call.recv()

        @pytest.fixture(scope={scope!r})
        def server():
            calls = Chan()
            go(accept, calls)
            return calls

        class Test:
            def test_first(self, server):
                server.send(Chan())

            def test_second(self, server):
                server.send(Chan())

            def test_own(self, server):
                server.send(Chan())
                go(Chan().recv)
        """
    )
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*the test has left a goroutine behind:"])


def test_unittest(run):
    result = run(
        """
        import unittest
        from gofer import Chan, go

        class Test(unittest.TestCase):
            def test_stays(self):
                go(Chan().recv)

            def test_ends(self):
                go(int)
        """
    )
    result.assert_outcomes(passed=2, errors=1)


# --- what is shown ------------------------------------------------------------------------------


def test_a_hang(run):
    """The test goes on; what is shown stands in no captured text."""
    result = run(
        """
        from gofer import Chan, go, sleep

        def helps(ch):
            ch.recv()

        def test_slow():
            ch = Chan()
            go(helps, ch)
            print("captured")
            sleep(0.5)
            ch.send(1)

        def test_quick():
            pass
        """,
        *("-o", "gofer_hang_timeout=0.1"),
    )
    result.assert_outcomes(passed=2)
    shown = str(result.stderr)
    assert shown.count("has been running for 0.1 seconds") == 1
    assert re.search(r"gofer: test_a_hang\.py::test_slow has been running for 0\.1 seconds", shown)
    assert re.search(r"goroutine \d+ \[chan receive\]:\nhelps\(\.\.\.\)\n\t.*:4\n", shown)
    assert re.search(r"goroutine 1 \[sleep\]:\ntest_slow\(\.\.\.\)\n\t.*:10\n", shown)
    assert "Thread 0x" in shown
    assert "captured" not in shown


def test_a_hang_that_is_the_first_use(run):
    result = run(
        """
        import time
        from gofer import current

        def test_first():
            current()
            time.sleep(0.5)
        """,
        *("-o", "gofer_hang_timeout=0.1"),
    )
    result.assert_outcomes(passed=1)
    assert "test_first has been running" in str(result.stderr)


def test_no_hang_is_shown(run):
    source = """
        from gofer import current, sleep

        def test_slow():
            current()
            sleep(0.3)
    """
    for seconds in ("0", "60"):
        result = run(source, "-o", f"gofer_hang_timeout={seconds}")
        result.assert_outcomes(passed=1)
        assert str(result.stderr) == ""
    result = run(source, "-o", "gofer_hang_timeout=soon")
    assert "gofer_hang_timeout = soon: it is a number of seconds" in text(result)


def test_a_hang_does_not_hide_a_deadlock(run):
    """Whatever watches is nobody who could wake a goroutine."""
    result = run(
        """
        from gofer import Chan, sleep

        def test_deadlock():
            sleep(0.3)
            Chan().recv()
        """,
        *("-o", "gofer_hang_timeout=0.1"),
    )
    result.assert_outcomes(failed=1)
    assert "all goroutines are asleep" in text(result)


def test_a_deadlock_does_not_name_our_timer(run):
    result = run(
        """
        import pytest
        from gofer import Chan, Deadlock, current

        @pytest.fixture
        def used():
            current()

        def test_stuck(used):
            with pytest.raises(Deadlock) as caught:
                Chan().recv()
            assert not any("Not counted on" in note for note in caught.value.__notes__)
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("capture", ["fd", "sys", "no"])
def test_a_panic(run, capture):
    result = run(
        """
        from gofer import go, sleep

        def fails():
            1 / 0

        def test_panic():
            go(fails)
            sleep(60)
        """,
        f"--capture={capture}",
    )
    assert result.ret == 2
    result.stderr.fnmatch_lines(
        [
            "gofer: a panic in test_a_panic.py::test_panic ends pytest",
            "panic: ZeroDivisionError: division by zero",
            "goroutine * [[]running[]]:",
            "created by test_panic in goroutine 1 at *:7",
        ]
    )


def test_a_hook_of_the_program_is_left_alone(run, pytester):
    pytester.makeconftest(
        """
        from gofer import runtime

        def hook(goroutine, exception): ...

        runtime.on_panic(hook)
        """
    )
    result = run(
        """
        from gofer import runtime

        def test_hook():
            assert runtime.on_panic(None).__name__ == "hook"
        """
    )
    result.assert_outcomes(passed=1)


# --- those that do not use gofer ------------------------------------------------------------------


def test_tests_without_gofer_notice_nothing(run):
    result = run(
        """
        import os, sys, threading, signal
        import pytest

        @pytest.fixture(scope="session")
        def wide():
            yield threading.active_count()

        def test_nothing_is_started(wide):
            from gofer import _core
            assert wide == threading.active_count() == 1
            assert _core.stats()["workers"] == 0
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

        def test_still_nothing(wide):
            test_nothing_is_started(wide)

        def test_threads_are_not_counted():
            stop = threading.Event()
            thread = threading.Thread(target=stop.wait)
            thread.start()
            stop.set()
            thread.join()

        def test_fails():
            assert 1 == 2
        """,
        *("-o", "gofer_hang_timeout=0.001"),
    )
    result.assert_outcomes(passed=3, failed=1)
    assert str(result.stderr) == ""


def test_without_the_plugin(run):
    result = run(
        """
        from gofer import Chan, go

        def test_stays():
            go(Chan().recv)
        """,
        *("-p", "no:gofer"),
    )
    result.assert_outcomes(passed=1)


def test_runs_of_pytest_in_pytest(run):
    """Each has a plugin of its own; the outer one is in force again afterwards."""
    result = run(
        """
        from gofer import Chan, go

        pytest_plugins = ["pytester"]

        def test_inner(pytester):
            pytester.makepyfile(
                '''
                from gofer import Chan, go

                def test_stays():
                    go(Chan().recv)

                def test_ends():
                    go(int)
                '''
            )
            inner = pytester.runpytest_inprocess()
            inner.assert_outcomes(passed=2, errors=1)

        def test_stays():
            go(Chan().recv)
        """
    )
    result.assert_outcomes(passed=2, errors=2)


def test_gofer_does_not_need_pytest():
    program = "import sys, gofer.testing, gofer.runtime; print('pytest' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"
