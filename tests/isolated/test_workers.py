"""Several workers: work finds them, and one that falls asleep knows whether the others do."""

import pytest

from shared import FREE_THREADED

pytestmark = pytest.mark.skipif(not FREE_THREADED, reason="under the GIL there is one worker")

ONE_ON_EACH = """
    import threading
    from gofer import *

    N = 6
    runtime.gomaxprocs(N)
    started = []

    def hold():
        started.append(threading.get_ident())
        while len(started) < N:
            pass
"""


def test_as_many_workers_as_there_is_work(program):
    """Spawned in one go, while the first other worker is still on its way."""
    result = program(f"""{ONE_ON_EACH}
    with WaitGroup() as group:
        for _ in range(N):
            group.go(hold)
    print(len(set(started)))
    """)
    assert result == (0, "6\n", "")


def test_one_that_only_yields_takes_what_waits_behind_one_that_computes(program):
    """The last of them may lie in the queue of a worker that runs another, and nobody is idle."""
    result = program(f"""{ONE_ON_EACH}
    for _ in range(N):
        go(hold)
    while len(started) < N:
        gosched()
    print(len(set(started)))
    """)
    assert result == (0, "6\n", "")


def test_no_deadlock_while_one_value_travels_between_workers(program):
    """All but one worker sleep or fall asleep, always."""
    result = program(f"""{ONE_ON_EACH}
    import random
    channels, back = [Chan() for _ in range(N)], Chan()

    def pass_on(n):
        hold()
        for hops in channels[n]:
            if hops:
                channels[(n + random.randrange(1, N)) % N].send(hops - 1)
            else:
                back.send(None)

    for n in range(N):
        go(pass_on, n)
    for n in range(500):
        channels[n % N].send(20)
        back.recv()
    print("done")
    """)
    assert result == (0, "done\n", "")


@pytest.mark.parametrize("used_again", [False, True])
def test_who_waits_elsewhere_for_a_closed_descriptor_is_woken(program, used_again):
    """Closed behind our back; another worker comes with the number, which may be in other hands."""
    result = program(
        f"""
        import os, threading
        from gofer import *
        from gofer._core import FD_CLOSED, FD_READ, wait_fd

        runtime.gomaxprocs(2)
        workers = []

        def wait():
            workers.append(threading.get_ident())
            return wait_fd(r, FD_READ, None)

        r, w = os.pipe()
        old = fork(wait)
        while old.state != "waiting":           # we do not yield: another worker takes it
            pass
        os.close(r)
        if {used_again}:
            again, w = os.pipe()
            os.write(w, b"x")
            print(again == r, wait_fd(r, FD_READ, None) == FD_READ)
        else:
            print(wait_fd(r, FD_READ, None) == FD_CLOSED)
        print(old.join() == FD_CLOSED, workers != [threading.get_ident()])
        """
    )
    assert result == (0, f"{'True True' if used_again else 'True'}\nTrue True\n", "")


def test_what_an_idle_worker_has_made_is_freed(program):
    """CPython has an object freed by the thread that made it, at its next bytecode."""
    result = program("""
    import threading
    from gofer import *

    runtime.gomaxprocs(2)
    here, freed, there = threading.get_ident(), [], 0

    class Made:
        def __init__(self):
            self.where = threading.get_ident()

        def __del__(self):
            freed.append(threading.get_ident())

    for _ in range(100):
        task = fork(Made)
        while task.state != "dead":       # we do not yield: another worker takes it
            pass
        made = task.join()
        assert made.where != here
        del task, made
        while not freed:
            gosched()
        there += freed.pop() != here
    print(there > 0)                  # not all: a collection that comes first frees them here
    """)
    assert result == (0, "True\n", "")


def test_what_a_busy_worker_has_made_is_freed(program):
    """It runs nothing but functions in C."""
    result = program("""
    import gc
    from gofer import *

    runtime.gomaxprocs(2)
    gc.disable()
    stop = Chan(1)

    def count():
        return sum(isinstance(o, Chan) for o in gc.get_objects())

    before = count()
    for _ in range(100):
        tasks = [fork(Chan) for _ in range(1000)]
        while any(task.state == "new" for task in tasks):
            pass
        del tasks
        gosched()
    print(count() - before < 50_000)
    """)
    assert result == (0, "True\n", "")
