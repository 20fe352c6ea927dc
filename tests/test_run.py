"""run: goroutine 1, and the end of everything that it started."""

import gc
import sys
import threading
import weakref

import pytest

from gofer import (
    Chan,
    Group,
    Mutex,
    WaitGroup,
    current,
    fork,
    go,
    goexit,
    gosched,
    run,
    runtime,
    select,
    sleep,
)
from gofer.errors import Cancelled, Closed, GoroutineExit

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- main ---------------------------------------------------------------------------------------


def test_it_returns_what_main_returns():
    value = object()
    assert run(lambda: value) is value
    assert run(lambda: None) is None


def test_main_gets_its_arguments():
    def main(*args, **kwargs):
        return args, kwargs

    assert run(main, 1, 2, main=3, fn=4) == ((1, 2), {"main": 3, "fn": 4})


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, Cancelled, Closed])
def test_it_raises_what_main_raises(kind):
    error = kind("reason")

    def main():
        raise error

    with pytest.raises(kind) as caught:
        run(main)
    assert caught.value is error


def test_main_is_goroutine_one():
    assert run(lambda: current().id) == 1
    assert run(current) is current()


def test_it_can_be_called_again():
    assert [run(lambda n=n: n) for n in range(50)] == list(range(50))


def test_main_works_after_a_failed_run():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
    assert run(lambda: fork(int).join()) == 0


def test_only_goroutine_one_can_run():
    for task in (fork(run, int), fork(lambda: fork(run, int).join())):
        with pytest.raises(RuntimeError, match="goroutine"):
            task.join()


def test_a_thread_can_not_run():
    outcome = []

    def body():
        try:
            run(int)
        except RuntimeError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert "thread" in outcome[0]


def test_an_inner_run_ends_only_what_it_started(parked):
    gate, log = Chan(), []

    def outer():
        def keep():
            gate.recv()
            log.append("outer one went on")

        keeper = go(keep)
        parked(keeper)
        run(inner)
        log.append("inner run ended")
        gate.send(None)
        keeper.join()

    def inner():
        def lose():
            try:
                Chan().recv()
            finally:
                log.append("inner one unwound")

        parked(go(lose))

    run(outer)
    assert log == ["inner one unwound", "inner run ended", "outer one went on"]


def test_what_was_started_before_goes_on(parked):
    gate, log = Chan(), []
    g = go(lambda: log.append(gate.recv()))
    parked(g)
    run(gosched)
    assert g.state == "waiting"
    gate.send("value")
    g.join()
    assert log == ["value"]


# --- the end ------------------------------------------------------------------------------------


WAITS = {
    "recv": lambda: Chan().recv(),
    "recv_ok": lambda: Chan().recv_ok(),
    "send": lambda: Chan().send(1),
    "iteration": lambda: list(Chan()),
    "select": lambda: select(Chan().recv, (Chan().send, 1)),
    "empty select": lambda: select(),
    "sleep": lambda: sleep(1000),
    "join": lambda: go(Chan().recv).join(),
    "task": lambda: fork(Chan().recv).join(),
    "wait group": lambda: [(wg.add(), wg.wait()) for wg in [WaitGroup()]],
    "mutex": lambda: [(m.lock(), m.lock()) for m in [Mutex()]],
    "gosched": lambda: [gosched() for _ in iter(int, 1)],
}


@pytest.mark.parametrize("how", WAITS)
def test_whoever_waits_is_unwound(how):
    log = []

    class Context:
        def __enter__(self):
            pass

        def __exit__(self, kind, error, trace):
            log.append(kind)

    def wait():
        try:
            with Context():
                started.send(None)
                WAITS[how]()
        finally:
            log.append("finally")

    def main():
        for _ in range(3):
            go(wait)
        fork(wait)
        for _ in range(4):
            started.recv()
        for _ in range(10):
            gosched()

    started = Chan()
    run(main)
    assert sorted(log, key=str) == sorted([GoroutineExit] * 4 + ["finally"] * 4, key=str)


def test_blocks_run_on_every_level(parked):
    log = []

    def generator():
        try:
            yield Chan().recv()
        finally:
            log.append("generator")

    def key(_):
        try:
            return next(generator())
        finally:
            log.append("key")

    def body():
        try:
            sorted([1], key=key)
        finally:
            log.append("body")

    run(lambda: parked(go(body)))
    assert log == ["generator", "key", "body"]


def test_what_has_not_started_never_runs():
    log, token = [], object.__new__(type("Token", (), {}))
    alive = weakref.ref(token)

    def main(token):
        for _ in range(100):
            go(log.append, token)

    def count(token):
        main(token)
        return len(log)

    ran = run(count, token)
    del token
    gc.collect()
    assert len(log) <= 100
    assert ran <= len(log)
    log.clear()
    assert alive() is None


@pytest.mark.usefixtures("one_worker")
def test_with_one_worker_it_does_not_even_begin():
    log = []
    run(lambda: [go(log.append, n) for n in range(10)])
    assert log == []


@pytest.mark.skipif(runtime.gomaxprocs() < 2, reason="one worker: only main runs when it ends")
def test_whoever_runs_is_unwound():
    log, started = [], []

    def compute():
        try:
            started.append(1)
            while True:
                pass
        except GoroutineExit:
            log.append("unwound")
            raise

    def main():
        go(compute)
        while not started:  # not waiting: another worker must take it
            pass

    run(main)
    assert log == ["unwound"]


def test_whoever_yields_is_unwound():
    log = []

    def compute():
        try:
            while True:
                gosched()
        finally:
            log.append("unwound")

    def main():
        for _ in range(5):
            go(compute)
        for _ in range(50):
            gosched()

    run(main)
    assert len(log) <= 5


def test_main_failing_unwinds_them_too(parked):
    log = []

    def body():
        try:
            Chan().recv()
        finally:
            log.append("unwound")

    def main():
        parked(go(body))
        raise KeyError

    with pytest.raises(KeyError):
        run(main)
    assert log == ["unwound"]


def test_catching_it_does_not_help(parked):
    log = []

    def stubborn():
        for n in range(3):
            try:
                Chan().recv()
            except GoroutineExit:
                log.append(n)

    run(lambda: parked(go(stubborn)))
    assert log == [0, 1, 2]


def test_what_is_ready_still_works_while_unwinding(parked):
    log = Chan(10)

    def body():
        try:
            Chan().recv()
        finally:
            log.send("sent")
            with Mutex():
                log.send("locked")
            log.send(select(Chan().recv, default=True))

    run(lambda: parked(go(body)))
    assert [log.recv() for _ in range(3)] == ["sent", "locked", (-1, None)]


def test_waiting_again_while_unwinding_raises_again(parked):
    log = []

    def body():
        try:
            Chan().recv()
        finally:
            try:
                sleep(1000)
            finally:
                try:
                    gosched()
                finally:
                    log.append("through")

    run(lambda: parked(go(body)))
    assert log == ["through"]


def test_what_is_started_while_unwinding_is_unwound(parked):
    log = []

    def late():
        try:
            Chan().recv()
        finally:
            log.append("late one")

    def body():
        try:
            Chan().recv()
        finally:
            go(late)
            fork(late)
            log.append("first one")

    run(lambda: parked(go(body)))
    assert "first one" in log


def test_what_they_raise_is_reported_and_stops_nobody(parked, unraisable):
    errors = [ValueError("first"), KeyError("second")]

    def body(error):
        try:
            Chan().recv()
        finally:
            raise error

    def main():
        parked(*[go(body, error) for error in errors])
        return "value"

    assert run(main) == "value"
    assert sorted(map(repr, unraisable)) == sorted(map(repr, errors))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_not_even_these_stop_it(kind, parked, unraisable):
    def body():
        try:
            Chan().recv()
        finally:
            raise kind(3)

    def main():
        parked(go(body))
        return "value"

    assert run(main) == "value"
    assert [type(error) for error in unraisable] == [kind]


def test_members_of_a_group_are_unwound(parked):
    log = []

    def member():
        try:
            Chan().recv()
        finally:
            log.append("member")

    def owner():
        try:
            with Group() as group:
                parked(group.go(member), group.go(member))
                ready.send(None)
        finally:
            log.append("owner")

    def main():
        g = go(owner)
        ready.recv()
        parked(g)

    ready = Chan()
    run(main)
    assert sorted(log) == ["member", "member", "owner"]


def test_a_task_that_was_unwound_is_done(parked):
    def main():
        task = fork(Chan().recv)
        parked(task)
        return task

    task = run(main)
    assert task.done
    assert task.state == "dead"


def test_a_thousand_are_unwound(parked):
    log = []

    def body():
        try:
            Chan().recv()
        finally:
            log.append(1)

    run(lambda: parked(*[go(body) for _ in range(1000)]))
    assert len(log) == 1000


def test_two_that_unwind_each_other(parked):
    """Each wakes the other in its finally block; the other is being unwound already."""
    a, b, log = Chan(), Chan(), []

    def body(mine, other):
        try:
            mine.recv()
        finally:
            select((other.send, None), default=True)
            log.append(1)

    run(lambda: parked(go(body, a, b), go(body, b, a)))
    assert log == [1, 1]


# --- leaving ------------------------------------------------------------------------------------


def test_system_exit_of_a_goroutine_ends_main():
    log = []

    def leave():
        raise SystemExit(7)

    def main():
        try:
            go(leave)
            Chan().recv()
        finally:
            log.append("finally")

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 7
    assert log == ["finally"]


def test_system_exit_of_a_goroutine_reaches_a_main_that_computes():
    def leave():
        sys.exit("reason")

    def main():
        go(leave)
        for _ in iter(int, 1):
            gosched()

    with pytest.raises(SystemExit, match="reason"):
        run(main)


def test_system_exit_of_a_task_ends_main():
    def main():
        fork(sys.exit, 3)
        Chan().recv()

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 3


def test_goexit_in_a_nested_call_of_main_runs_finally(program):
    result = program("""
        from gofer import *

        def other():
            print("other\\n", end="")  # in one piece: the other may print at the same time

        def main():
            go(other)
            try:
                goexit()
            finally:
                print("finally\\n", end="")

        run(main)
    """)
    assert result.status == 2
    assert sorted(result.out.split()) == ["finally", "other"]
    assert "all goroutines are asleep - deadlock!" in result.err


def test_goexit_elsewhere_does_not_end_main():
    def main():
        g = go(goexit)
        g.join()
        return "value"

    assert run(main) == "value"
