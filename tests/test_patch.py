"""patch() itself: exchanging, undoing, choosing, and who sees it."""

import sys
import threading
import time
from contextlib import suppress
from time import sleep as sleep_taken_before

import pytest

import gofer
from gofer import Cancelled, cancel_scope, fork, patch, patched, unpatch

from shared import in_thread
from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(autouse=True)
def as_before():
    yield
    unpatch()
    assert not any(patched().values())


def names(on):
    return {part for part, is_patched in patched().items() if is_patched is on}


def test_nothing_is_patched_at_first():
    assert names(True) == set()


def test_all_parts_and_again():
    patch()
    patch()
    assert names(False) == set()
    unpatch()
    unpatch()
    assert names(True) == set()


def test_only_and_exclude():
    patch(only=["time", "queue"], exclude=["queue"])
    assert names(True) == {"time"}
    patch(exclude=["time", "threading"])
    assert names(False) == {"threading"}


@pytest.mark.parametrize("option", ["only", "exclude"])
def test_unknown_names(option):
    with pytest.raises(ValueError, match="'sleep' is no part; there are time, threading"):
        patch(**{option: ["time", "sleep"]})
    assert names(True) == set()
    with pytest.raises(TypeError, match="several names"):
        patch(**{option: "time"})


def test_names_are_left_alone():
    before = {name: getattr(time, name) for name in dir(time)}
    lock = threading.Lock
    patch()
    assert {name: getattr(time, name) for name in dir(time)} == before
    assert threading.Lock is lock
    assert time.sleep is sleep_taken_before


def test_references_taken_before(one_worker):
    lock = threading.Lock()
    acquire = lock.acquire
    acquire()
    patch()
    beats_under(acquire, lock.release)
    assert lock.locked()

    with cancel_scope() as scope:
        beats_under(lambda: sleep_taken_before(10_000), scope.cancel)
    assert scope.cancelled


def many_times(fn, *args):
    for _ in range(5000):  # by then the interpreter has specialised the call
        fn(*args)


def test_call_sites_that_are_specialised(one_worker):
    lock = threading.Lock()

    def use():
        with lock:
            pass

    many_times(use)
    many_times(sleep_taken_before, 0)
    patch()
    lock.acquire()
    beats_under(use, lock.release)
    many_times(use)
    unpatch()
    many_times(use)
    lock.acquire()
    assert not lock.acquire(timeout=0.01)


def test_undone_in_between(one_worker):
    lock = threading.Lock()
    for _ in range(5):
        lock.acquire()
        patch()
        beats_under(lock.acquire, lock.release)
        unpatch()
        lock.release()
        time.sleep(0)
        assert lock.acquire(False)
        lock.release()


def test_not_undone_while_somebody_waits(parked):
    patch()
    lock = threading.Lock()
    lock.acquire()
    waiter = fork(lock.acquire)
    parked(waiter)
    with pytest.raises(RuntimeError, match="while goroutines wait"):
        unpatch()
    assert names(False) == set()
    lock.release()
    assert waiter.join() is True


def test_from_a_thread():
    in_thread(patch)
    assert names(False) == set()

    def undo():  # goroutine 1 may still wait for this thread to start
        while any(patched().values()):
            with suppress(RuntimeError):
                unpatch()

    in_thread(undo)


def test_errors_are_those_of_before():
    lock, rlock = threading.Lock(), threading.RLock()
    calls = [
        lambda: time.sleep(-1),
        lambda: time.sleep("1"),
        lambda: time.sleep(float("nan")),
        lambda: time.sleep(1e300),
        lambda: time.sleep(),
        lambda: lock.acquire(1, 2, 3),
        lambda: lock.acquire(lock=1),
        lambda: lock.acquire(False, 1),
        lambda: lock.acquire(True, -2),
        lambda: lock.acquire(True, 1e15),
        lambda: lock.acquire(True, "1"),
        lambda: lock.release(),
        lambda: rlock.acquire(False, 1),
        lambda: rlock.acquire(timeout=-2),
        lambda: rlock.acquire(nonsense=1),
        lambda: rlock.release(),
        lambda: rlock._release_save(),
    ]

    def outcomes():
        seen = []
        for call in calls:
            with pytest.raises(Exception) as error:
                call()
            seen.append((error.type, str(error.value)))
        return seen

    before = outcomes()
    patch()
    assert outcomes() == before
    assert fork(outcomes).join() == before
    assert in_thread(outcomes) == before


def test_cancelled_at_once(not_cancelled):
    patch()
    lock = threading.Lock()
    with cancel_scope() as scope:
        scope.cancel()
        assert lock.acquire()  # what needs no waiting is done
        with pytest.raises(Cancelled):
            lock.acquire()
        with pytest.raises(Cancelled):
            time.sleep(1)
        with pytest.raises(Cancelled):
            time.sleep(0)


# --- programs -----------------------------------------------------------------------------------


def test_run_patches(program, tmp_path):
    outcome = program(
        """
        import subprocess, sys
        code = "import gofer; print(all(gofer.patched().values()))"
        command = [sys.executable, "-m", "gofer", "run", "-c", code]
        print(subprocess.run(command, capture_output=True, text=True).stdout)
        """
    )
    assert outcome.out.split() == ["True"]


def test_end_waits_for_threads(program):
    outcome = program(
        """
        import sys, threading, time
        import gofer
        gofer.patch()

        def late():
            time.sleep(0.2)
            print("the thread has ended")

        gofer.go(time.sleep, 1000)
        threading.Thread(target=late).start()
        print("main has ended")
        """
    )
    assert outcome == (0, "main has ended\nthe thread has ended\n", "")


def test_executors_end(program):
    outcome = program(
        """
        import time
        import gofer
        gofer.patch()
        from concurrent.futures import ThreadPoolExecutor

        executor = ThreadPoolExecutor(3)

        def work(n):
            time.sleep(0.01)
            return n

        def use():
            return sum(executor.map(work, range(10)))

        tasks = [gofer.fork(use) for _ in range(20)]
        print(sum(task.join() for task in tasks))
        executor.submit(work, 1)
        """
    )
    assert outcome == (0, "900\n", "")


def test_locks_at_exit(program):
    outcome = program(
        """
        import atexit, threading, logging
        import gofer
        lock, held = threading.RLock(), threading.Lock()
        queue = gofer.Chan()

        @atexit.register
        def last():
            with lock, held:
                logging.warning("the end")

        gofer.patch()
        gofer.go(queue.recv)
        gofer.gosched()
        with lock:
            pass
        """
    )
    assert outcome == (0, "", "WARNING:root:the end\n")


def test_deadlock(program):
    outcome = program(
        """
        import threading
        import gofer
        gofer.patch()
        lock = threading.Lock()
        lock.acquire()
        gofer.go(lock.acquire)
        lock.acquire()
        """
    )
    assert outcome.status == 2
    assert "all goroutines are asleep - deadlock!" in outcome.err
    assert outcome.err.count("[lock acquire") == 2


def test_a_daemon_thread_may_wake(program):
    """One that has never used gofer, and that the program would not wait for."""
    outcome = program(
        """
        import queue, threading, time
        import gofer
        gofer.patch()
        q = queue.Queue()

        def put():
            time.sleep(0.3)
            q.put("from the daemon")

        threading.Thread(target=put, daemon=True).start()
        print(q.get())
        """
    )
    assert outcome == (0, "from the daemon\n", "")


def test_a_thread_that_has_not_begun_may_wake(program):
    outcome = program(
        """
        import _thread
        import gofer
        gofer.patch()
        for _ in range(300):
            lock = _thread.allocate_lock()
            lock.acquire()
            _thread.start_new_thread(lock.release, ())
            lock.acquire()
        print("done")
        """
    )
    assert outcome == (0, "done\n", "")


def test_fork(program):
    outcome = program(
        """
        import os, threading, time
        import gofer
        gofer.patch()
        lock, rlock = threading.Lock(), threading.RLock()

        def child():
            assert threading.current_thread() is threading.main_thread()
            lock.release()
            rlock.release()
            with rlock, lock:
                pass
            event = threading.Event()
            threading.Thread(target=event.set).start()
            event.wait()
            gofer.fork(time.sleep, 0.01).join()
            os._exit(7)

        def wait():
            threading.current_thread()
            with lock:
                pass

        def fork():
            threading.current_thread()
            rlock.acquire()
            lock.acquire()
            waiters = [gofer.fork(wait) for _ in range(3)]
            while any(w.state != "waiting" for w in waiters):
                gofer.gosched()
            pid = os.fork()
            if pid == 0:
                child()
            rlock.release()
            lock.release()
            for waiter in waiters:
                waiter.join()
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        print(gofer.fork(fork).join())
        """,
        flags=("-W", "ignore"),
    )
    assert outcome == (0, "7\n", "")


def test_ctrl_c(program):
    outcome = program(
        """
        import os, queue, signal, threading
        import gofer
        gofer.patch()
        q = queue.Queue()
        lock = threading.Lock()
        lock.acquire()
        for wait in (threading.Event().wait, q.get, lock.__enter__, queue.SimpleQueue().get):
            gofer.after_func(0.05, os.kill, os.getpid(), signal.SIGINT)
            try:
                wait()
            except KeyboardInterrupt:
                print("interrupted")
        q.put(1)
        print(q.get())
        """
    )
    assert outcome == (0, "interrupted\n" * 4 + "1\n", "")


def test_a_program_that_never_uses_a_goroutine(program):
    outcome = program(
        """
        import threading, time, queue, sys
        import gofer
        gofer.patch()
        q = queue.Queue()
        threads = [threading.Thread(target=q.put, args=(n,)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.001)
        print(sum(q.get() for _ in range(5)))
        """
    )
    assert outcome == (0, "10\n", "")


def test_top_level_names():
    assert gofer.patch is patch
    assert sys.modules["gofer.stdlib"].patch is patch
