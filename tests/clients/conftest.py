"""Real clients, unmodified, in goroutines against real servers.

Run by scripts/client-tests; a client or a server that is not there skips its tests. The servers
run in processes of their own, but those that are made of the standard library: these run in
goroutines as well.
"""

import gc

import pytest

from gofer import gosched, patch, unpatch


@pytest.fixture(autouse=True)
def cooperative(nothing_left):
    patch()
    yield
    unpatch()


@pytest.fixture
def until():
    """As elsewhere, and collects: who was called off may leave a connection in a cycle.

    Free-threaded, so does whatever goroutines of another worker have made, if that is idle.
    """

    def wait_until(condition):
        while not condition():
            gc.collect()
            gosched()

    return wait_until
