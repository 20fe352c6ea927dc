"""Goroutines on a worker that is not the main thread's, also where there is usually one."""

import threading

from gofer import Chan, fork


def elsewhere(fn, *args):
    """A task that runs fn(*args) on another worker, and has begun to.

    This thread blocks meanwhile, so that somebody else must take it.
    """
    tasks, started = [], Chan(1)

    def body():
        started.send(threading.current_thread() is threading.main_thread())
        return fn(*args)

    def start():
        tasks.append(fork(body))
        started_on_main.append(started.recv())

    started_on_main = []
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert started_on_main == [False]
    return tasks[0]
