"""Waiting for descriptors: how it ends otherwise, and what the rest of the library makes of it."""

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import threading
from datetime import timedelta

import pytest

from gofer import Cancelled, cancel_scope, fork, go, gosched, runtime, timeout
from gofer._core import FD_CLOSED, FD_READ, FD_WRITE, fd_closed, fd_closing, wait_fd, wait_fds
from gofer.errors import Canceled
from gofer.testing import bubble
from gofer.time import now, sleep

from shared.clock import LONG
from shared.descriptors import close, fill, places

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- time-outs and cancellation -----------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.001, 1e-9, -1, timedelta(milliseconds=1)])
def test_the_time_is_over(pipe, seconds):
    r, _ = pipe()
    assert wait_fd(r, FD_READ, seconds) == 0
    assert wait_fds([(r, FD_READ)] * 3, seconds) == [0, 0, 0]


def test_there_was_time_enough(pipe, parked):
    r, w = pipe()
    tasks = [fork(wait_fd, r, FD_READ, d) for d in (LONG, 1e300, timedelta(days=1))]
    parked(*tasks)
    os.write(w, b"x")
    assert [task.join() for task in tasks] == [FD_READ] * 3


def test_no_time_lets_the_others_run(pipe, one_worker):
    r, w = pipe()
    go(os.write, w, b"x")
    assert wait_fd(r, FD_READ, 0) == FD_READ


def test_a_time_out_around_it(pipe):
    r, _ = pipe()
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            wait_fd(r, FD_READ, None)
    with timeout(LONG):
        assert wait_fd(r, FD_READ, 0.001) == 0


def test_who_is_cancelled_gets_what_is_there(pipe):
    r, w = pipe()
    os.write(w, b"x")
    with cancel_scope() as scope:
        scope.cancel()
        assert wait_fd(r, FD_READ, None) == FD_READ
        assert wait_fds([(r, FD_READ)], LONG) == [FD_READ]
        assert wait_fd(r, FD_READ, 0) == FD_READ
        os.read(r, 1)
        for seconds in (None, LONG, 0):
            with pytest.raises(Cancelled):
                wait_fd(r, FD_READ, seconds)
        with pytest.raises(Cancelled):
            wait_fds([], None)


@places
def test_cancelling_a_task(pipe, parked, start):
    r, w = pipe()
    task = start(wait_fds, [(r, FD_READ), (w, FD_READ)], LONG)
    parked(task)
    task.cancel()
    with pytest.raises(Canceled):
        task.join()
    os.write(w, b"x")
    assert wait_fd(r, FD_READ, None) == FD_READ


def test_the_end_of_run(program):
    result = program("""
        import os
        from gofer import *
        from gofer._core import wait_fd

        def wait():
            try:
                wait_fd(r, 1, None)
            finally:
                print("unwound")

        def main():
            go(wait)
            gosched()

        r, w = os.pipe()
        run(main)
        run(main)
    """)
    assert result == (0, "unwound\nunwound\n", "")


def test_the_end_of_the_program(program):
    result = program("""
        import os
        from gofer import *
        from gofer._core import wait_fd

        r, w = os.pipe()
        for seconds in [None, 1000] * 10:
            go(wait_fd, r, 1, seconds)
        gosched()
        print("end")
    """)
    assert result == (0, "end\n", "")


# --- closing ------------------------------------------------------------------------------------


@places
def test_closing_wakes_all(pair, parked, start):
    a, _ = pair
    fill(a.fileno())
    fd = a.detach()
    tasks = [s(wait_fd, fd, e, None) for s in (fork, start) for e in (FD_READ, FD_WRITE, 0)]
    tasks.append(start(wait_fds, [(fd, FD_READ)], LONG))
    parked(*tasks)
    close(fd)
    assert [task.join() for task in tasks] == [FD_CLOSED] * 6 + [[FD_CLOSED]]


def test_closing_wakes_nobody_else(pipe, parked):
    (r1, _), (r2, w2) = pipe(), pipe()
    task = fork(wait_fd, r2, FD_READ, None)
    parked(task)
    close(r1)
    gosched()
    assert task.state == "waiting"
    os.write(w2, b"x")
    assert task.join() == FD_READ


@places
def test_who_comes_between_is_told_afterwards(pipe, parked, start):
    r, _ = pipe()
    fd_closing(r)
    task = start(wait_fd, r, FD_READ, None)
    parked(task)
    os.close(r)
    fd_closed(r)
    assert task.join() == FD_CLOSED


@places
def test_who_comes_between_and_the_number_is_used_again(pipe, parked, start):
    r, _ = pipe()
    fd_closing(r)
    old = start(wait_fd, r, FD_READ, None)
    parked(old)
    os.close(r)
    again, w = pipe()
    assert again == r
    fd_closed(r)
    assert old.join() == FD_CLOSED
    new = start(wait_fd, r, FD_READ, None)
    parked(new)
    fd_closed(r)  # told late
    gosched()
    assert new.state == "waiting"
    os.write(w, b"x")
    assert new.join() == FD_READ


def test_a_number_that_was_used_again(pipe):
    """What was asked for the file before is no answer for this one."""
    r, _ = pipe()
    assert wait_fd(r, FD_READ, 0.001) == 0
    os.close(r)
    again, w = pipe()
    assert again == r
    task = fork(wait_fd, r, FD_READ, None)
    gosched()
    os.write(w, b"x")
    assert task.join() == FD_READ


@places
def test_one_that_was_closed_behind_our_back(pipe, parked, start):
    """By a library in C; whoever comes next finds it out."""
    r, _ = pipe()
    old = start(wait_fd, r, FD_READ, None)
    parked(old)
    os.close(r)
    assert wait_fd(r, FD_READ, None) == FD_CLOSED
    assert old.join() == FD_CLOSED


@pytest.mark.skipif(sys.platform == "darwin", reason="a kqueue does not tell")
@places
def test_one_that_was_closed_behind_our_back_and_used_again(pipe, parked, start):
    r, _ = pipe()
    old = start(wait_fd, r, FD_READ, None)
    parked(old)
    os.close(r)
    again, w = pipe()
    assert again == r
    new = fork(wait_fd, r, FD_READ, None)
    assert old.join() == FD_CLOSED
    os.write(w, b"x")
    assert new.join() == FD_READ


@pytest.mark.parametrize("waits_before", [False, True])
def test_the_old_file_lives_on_under_another_number(pipe, parked, waits_before):
    """Its events do not reach who waits for the number now."""
    r, w = pipe()
    if waits_before:
        assert wait_fd(r, FD_READ, 0.001) == 0
    kept = os.dup(r)
    close(r)
    again, w_again = pipe()
    assert again == r
    task = fork(wait_fd, r, FD_READ, None)
    parked(task)
    os.write(w, b"x")
    for _ in range(1000):
        gosched()
    assert task.state == "waiting"
    assert wait_fd(kept, FD_READ, None) == FD_READ
    os.write(w_again, b"x")
    assert task.join() == FD_READ
    os.close(kept)


# --- many ---------------------------------------------------------------------------------------


def test_thousands_of_idle_connections(parked):
    """As many as there may be descriptors; each is woken by its own byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 50_000), hard))
    n = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 200, 20_000)
    pairs = [socket.socketpair() for _ in range(n)]

    def serve(end, k):
        assert wait_fd(end, FD_READ, None) == FD_READ
        return int(end.recv(10)) == k

    tasks = [fork(serve, a, k) for k, (a, _) in enumerate(pairs)]
    parked(*tasks)
    gc.collect()
    for k, (_, b) in enumerate(pairs):
        b.send(b"%d" % k)
    assert all(task.join() for task in tasks)
    for ends in pairs:
        for end in ends:
            end.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_wait_for_many(pipe, rng):
    """Everybody waits for all; each byte is read by exactly one."""
    pipes = [pipe() for _ in range(20)]
    for r, _ in pipes:
        os.set_blocking(r, False)
    got = []

    def read():
        while len(got) < 200:
            seen = wait_fds([(r, FD_READ) for r, _ in pipes], LONG)
            for (r, _), ready in zip(pipes, seen, strict=True):
                if ready:
                    with contextlib.suppress(BlockingIOError):
                        got.append(os.read(r, 1))
        for _, w in pipes:  # the end for those that still wait
            os.write(w, b"!")

    tasks = [fork(read) for _ in range(10)]
    for _ in range(200):
        os.write(rng.choice(pipes)[1], b"x")
        if rng.random() < 0.5:
            gosched()
    for task in tasks:
        task.join()
    assert got.count(b"x") == 200


# --- with the rest of the library ---------------------------------------------------------------


def test_garbage_is_collected_meanwhile(pipe, parked):
    r, w = pipe()

    def wait():
        held = [object()]
        held.append(held)
        assert wait_fds([(r, FD_READ)] * 3, LONG) == [FD_READ] * 3
        return len(held)

    tasks = [fork(wait) for _ in range(10)]
    parked(*tasks)
    for _ in range(3):
        gc.collect()
    os.write(w, b"x")
    assert [task.join() for task in tasks] == [2] * 10


def test_the_clock_of_a_bubble_waits_for_it(pipe):
    r, w = pipe()
    log = []

    def write():
        while not any(g.waiting_on == "IO wait" for g in runtime.goroutines()):
            gosched()
        for _ in range(200):
            gosched()
        log.append("written")
        os.write(w, b"x")

    outside = fork(write)
    fork(gosched).join()  # a wait that only the bubble could end, if there were one
    with bubble():
        go(lambda: (sleep(1), log.append("slept")))
        start = now()
        assert wait_fd(r, FD_READ, None) == FD_READ
        assert (log, now()) == (["written"], start)
        sleep(2)
    assert log == ["written", "slept"]
    outside.join()


def test_in_a_bubble_its_time_is_the_worlds(pipe):
    r, _ = pipe()
    with bubble():
        start = now()
        assert wait_fd(r, FD_READ, 0.001) == 0
        assert now() == start


def test_a_signal_handler_runs_meanwhile(pipe, parked):
    r, w = pipe()
    seen = []

    def handler(signum, frame):
        seen.append(signum)
        os.write(w, b"x")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert wait_fd(r, FD_READ, None) == FD_READ
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("main", ["wait_fd(r, 1, None)", "wait_fds([(r, 1)], 99)", "Chan().recv()"])
def test_ctrl_c_when_all_wait_for_descriptors(program, main):
    result = program(f"""
        import os, signal, subprocess, sys
        from gofer import *
        from gofer._core import wait_fd, wait_fds

        KILL = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGINT)"

        def main():
            waiting = [go(wait_fd, r, 1, None) for _ in range(10)]
            while not all(g.state == "waiting" for g in waiting):
                gosched()
            killer = None
            try:
                killer = subprocess.Popen([sys.executable, "-c", KILL, str(os.getpid())])
                {main}
            except KeyboardInterrupt:
                print("interrupted")
            if killer is not None:
                killer.wait()
            os.write(w, b"x")
            for g in waiting:
                g.join()

        r, w = os.pipe()
        run(main)
    """)
    assert result == (0, "interrupted\n", "")


def test_who_waits_for_a_descriptor_is_no_deadlock_and_who_has_waited_is_one(program):
    result = program("""
        import os, subprocess, sys
        from gofer import *
        from gofer._core import wait_fd

        WRITE = "import os; os.write(1, b'x')"
        r, w = os.pipe()
        child = subprocess.Popen([sys.executable, "-c", WRITE], stdout=w)
        go(lambda: print("ready", wait_fd(r, 1, None)))
        try:
            Chan().recv()
        except Deadlock:
            print("deadlock")
        child.wait()
    """)
    assert result == (0, "ready 1\ndeadlock\n", "")


# --- fork ---------------------------------------------------------------------------------------


def test_fork_while_others_wait(program):
    result = program("""
        import os, warnings
        from gofer import *
        from gofer._core import fd_closed, fd_closing, wait_fd

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads
        r, w = os.pipe()
        waiting = [fork(wait_fd, r, 1, seconds) for seconds in [None, 1000] * 5]
        while not all(g.state == "waiting" for g in waiting):
            gosched()

        pid = os.fork()
        if pid == 0:
            # What it does with its own poller and descriptors does not disturb the parent.
            assert runtime.num_goroutine() == 1
            fd_closing(r)
            os.close(r)
            fd_closed(r)
            os.close(w)
            r, w = os.pipe()
            tasks = [fork(wait_fd, r, 1, None) for _ in range(5)]
            gosched()
            os.write(w, b"x")
            assert [task.join() for task in tasks] == [1] * 5
            os._exit(0)

        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print({g.state for g in waiting})
        os.write(w, b"x")
        print({g.join() for g in waiting})
    """)
    assert result == (0, "0\n{'waiting'}\n{1}\n", "")


def test_the_child_of_a_fork_knows_its_deadlock(program):
    result = program("""
        import os, warnings
        from gofer import *
        from gofer._core import wait_fd

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads
        r, w = os.pipe()
        go(wait_fd, r, 1, None)
        gosched()
        pid = os.fork()
        try:
            if pid == 0:
                Chan().recv()
        except Deadlock:
            os._exit(42)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert result == (0, "42\n", "")
