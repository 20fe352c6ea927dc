"""lock_os_thread: nothing starts on a thread that is locked, and everything starts somewhere."""

import os

import pytest

BEGIN = """
    import threading
    from gofer import *
    from gofer.runtime import lock_os_thread, unlock_os_thread

    here = threading.get_ident
    def forks(n):
        return [fork(here) for _ in range(n)]
"""


@pytest.mark.parametrize("workers", ["1", "2", "4"])
def test_nothing_starts_on_a_locked_thread(program, workers):
    result = program(
        f"""{BEGIN}
    mine = here()
    lock_os_thread()
    for _ in range(100):
        assert mine not in [task.join() for task in forks(3)]
        assert here() == mine
    print("done")
    """,
        GOFER_MAXPROCS=workers,
    )
    assert result == (0, "done\n", "")


def test_what_was_to_start_before_starts_elsewhere(program):
    result = program(f"""{BEGIN}
    tasks = forks(300)
    lock_os_thread()
    print(here() in [task.join() for task in tasks])
    """)
    assert result == (0, "False\n", "")


def test_it_is_unlocked_when_it_was_unlocked_as_often_as_locked(program):
    result = program(f"""{BEGIN}
    unlock_os_thread()
    for _ in range(3):
        lock_os_thread()
    for _ in range(2):
        unlock_os_thread()
    assert all(task.join() != here() for task in forks(100))
    unlock_os_thread()
    while fork(here).join() != here():
        pass
    unlock_os_thread()
    lock_os_thread()
    assert all(task.join() != here() for task in forks(100))
    print("done")
    """)
    assert result == (0, "done\n", "")


@pytest.mark.parametrize("end", ["pass", "goexit()", "raise ValueError", "Chan().recv()"])
def test_the_end_of_a_goroutine_unlocks(program, end):
    result = program(f"""{BEGIN}
    import sys
    sys.unraisablehook = lambda args: None

    def locks():
        lock_os_thread()
        lock_os_thread()
        started.send(here())
        {end}

    started = Chan(1)
    task = fork(locks)
    there = started.recv()
    task.cancel()
    Goroutine.join(task)
    tasks = []
    while there not in (task.join() for task in tasks):
        tasks = forks(10)
    print("done")
    """)
    assert result == (0, "done\n", "")


def test_those_that_have_started_there_go_on_there(program):
    result = program(f"""{BEGIN}
    def echo():
        first = here()
        for reply in requests:
            reply.send((first, here()))

    requests = Chan()
    tasks = [fork(echo) for _ in range(4)]
    while any(task.state != "waiting" for task in tasks):
        gosched()
    lock_os_thread()
    for _ in range(100):
        reply = Chan(1)
        requests.send(reply)
        first, now = reply.recv()
        assert first == now
    requests.close()
    print("done")
    """)
    assert result == (0, "done\n", "")


def test_many_lock_their_threads(program):
    """Each is alone on its thread, if all locked before another one started."""
    result = program(f"""{BEGIN}
    def locks():
        lock_os_thread()
        ready.send(here())
        answers = [task.join() for task in forks(5)]
        stop.recv_ok()
        assert here() not in answers
        return here()

    ready, stop = Chan(), Chan()
    lock_os_thread()
    tasks, idents = [], [here()]
    for _ in range(5):
        tasks.append(fork(locks))
        idents.append(ready.recv())
    assert len(set(idents)) == 6
    stop.close()
    assert [task.join() for task in tasks] == idents[1:]
    print("done")
    """)
    assert result == (0, "done\n", "")


def test_a_chain_of_starts_elsewhere_does_not_keep_ours_waiting(program):
    result = program(f"""{BEGIN}
    def chain():
        if not stopped:
            go(chain)

    stopped = []
    lock_os_thread()
    for _ in range(5):
        go(chain)
    for _ in range(20):
        fork(here).join()
    stopped.append(True)
    print("done")
    """)
    assert result == (0, "done\n", "")


def test_a_blocked_worker_does_not_keep_ours_waiting(program):
    result = program(f"""{BEGIN}
    lock_os_thread()
    for _ in range(3):
        event = threading.Event()
        blocked = fork(event.wait)
        while blocked.state != "running":
            gosched()
        fork(event.set).join()
        blocked.join()
    print("done")
    """)
    assert result == (0, "done\n", "")


def test_timers_start_elsewhere(program):
    result = program(f"""{BEGIN}
    lock_os_thread()
    ch = Chan()
    for n in range(20):
        after_func(0.001 * (n % 3), lambda: ch.send(here()))
    print(here() in [ch.recv() for _ in range(20)])
    """)
    assert result == (0, "False\n", "")


def test_a_thread_may_start_goroutines_meanwhile(program):
    result = program(f"""{BEGIN}
    def start():
        lock_os_thread()  # changes nothing
        ch.send([task.join() for task in forks(20)])
        unlock_os_thread()

    ch = Chan()
    lock_os_thread()
    thread = threading.Thread(target=start)
    thread.start()
    print(here() in ch.recv())
    thread.join()
    """)
    assert result == (0, "False\n", "")


def test_a_deadlock_is_told(program):
    result = program(f"""{BEGIN}
    def waits():
        lock_os_thread()
        Chan().recv()

    lock_os_thread()
    for _ in range(3):
        fork(here).join()
        go(waits)
    try:
        Chan().recv()
    except Deadlock as error:
        print(len(error.__notes__))
    """)
    assert result == (0, "4\n", "")


def test_the_end_of_run(program):
    """What has not started never does, and what waits is unwound, here and elsewhere."""
    result = program(f"""{BEGIN}
    def waits():
        try:
            started.send(here())
            Chan().recv()
        finally:
            ended.append(1)

    def main():
        go(waits)
        started.recv()
        lock_os_thread()
        go(waits)
        started.recv()
        for _ in range(100):
            go(late.append, 1)

    started, ended, late = Chan(), [], []
    run(main)
    print(len(ended), runtime.num_goroutine())
    fork(here).join()
    """)
    assert result == (0, "2 1\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_the_child_of_a_fork_is_unlocked(program):
    result = program(f"""{BEGIN}
    import os

    lock_os_thread()
    fork(here).join()
    pid = os.fork()
    if not pid:
        while fork(here).join() != here():
            pass
        unlock_os_thread()
        lock_os_thread()
        assert fork(here).join() != here()
        os._exit(7)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), fork(here).join() != here())
    """)
    assert result[:2] == (0, "7 True\n")  # from 3.12 on it warns


def test_an_interrupt_arrives(program):
    result = program(f"""{BEGIN}
    import os, signal

    lock_os_thread()
    go(os.kill, os.getpid(), signal.SIGINT)
    try:
        sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
    """)
    assert result == (0, "interrupted\n", "")


@pytest.mark.parametrize("workers", ["1", "3"])
def test_storm(program, rng, workers):
    result = program(
        f"""{BEGIN}
    import random
    rng = random.Random({rng.randrange(2**32)})

    def body(depth):
        for _ in range(rng.randrange(3)):
            lock_os_thread()
        children = [fork(body, depth - 1) for _ in range(rng.randrange(4) if depth else 0)]
        for _ in range(rng.randrange(3)):
            gosched()
        for _ in range(rng.randrange(3)):
            unlock_os_thread()
        if rng.random() < 0.2:
            sleep(rng.random() * 0.002)
        return 1 + sum(child.join() for child in children)

    for _ in range(150):
        body(4)
    for _ in range(3):
        unlock_os_thread()
    """,
        GOFER_MAXPROCS=workers,
    )
    assert result == (0, "", "")
