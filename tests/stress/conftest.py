"""What the stress tests share.

GOFER_STRESS multiplies how much they do: 1 is under a minute in all on a release build, 20 is for
a night. The seed of each test is printed when it fails; GOFER_SEED replays it, as far as a test on
several workers can be replayed.
"""

import os
import threading

import pytest

from gofer import gosched, runtime

SCALE = float(os.environ.get("GOFER_STRESS", "1"))


@pytest.fixture
def much():
    """`much(n)`: n times what the environment asks for, at least 1."""
    return lambda n: max(1, round(n * SCALE))


@pytest.fixture
def spawn_thread():
    """`spawn_thread(fn, *args)` starts a thread that is no worker; all are joined at the end.

    Joined by waiting for the state, which lets goroutines go on, and it must not raise.
    """
    threads, failures = [], []

    def start(fn, *args):
        def body():
            try:
                fn(*args)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=body)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    while any(thread.is_alive() for thread in threads):
        gosched()
    assert failures == []


@pytest.fixture(autouse=True)
def as_many_workers_as_before():
    before = runtime.gomaxprocs()
    yield
    runtime.gomaxprocs(before)
