"""Child processes, in goroutines and threads."""

import os
import signal
import subprocess
import sys

import pytest

from gofer import Group, fork, timeout

from shared.canary import beats_under
from shared.io_points import CHILD

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")


def test_subprocesses():
    code = "import sys, time; time.sleep(0.01); print(sys.stdin.read().upper()); sys.exit(3)"

    def child(n):
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            input=f"n {n}",
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, f"N {n}\n", "")

    with Group(limit=4) as group:
        for n in range(12):
            group.go(child, n)


def test_children_that_are_killed_or_stop(parked):
    child = subprocess.Popen(CHILD, stdin=subprocess.PIPE)
    stopped = fork(os.waitpid, child.pid, os.WUNTRACED)
    parked(stopped)
    os.kill(child.pid, signal.SIGSTOP)
    assert os.WIFSTOPPED(stopped.join()[1])
    waiter = fork(child.wait)
    parked(waiter)
    child.kill()
    assert waiter.join() == -signal.SIGKILL
    child.stdin.close()


def test_a_child_is_not_lost_to_who_was_cancelled():
    child = subprocess.Popen(CHILD, stdin=subprocess.PIPE)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            with timeout(0.01):
                os.waitpid(-1, 0)
    child.stdin.close()
    assert child.wait() == 0


def test_subprocess_timeout():
    child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.02)
    with pytest.raises(subprocess.TimeoutExpired):
        child.communicate(timeout=0.02)
    child.kill()
    assert child.communicate() == (b"", None)


def test_system(one_worker):
    r, w = os.pipe()
    os.set_inheritable(r, True)
    command = f"read line </dev/fd/{r}; exit $line"
    status = beats_under(lambda: os.system(command), lambda: os.write(w, b"3\n"))
    assert os.waitstatus_to_exitcode(status) == 3
    os.close(r)
    os.close(w)
