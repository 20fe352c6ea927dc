"""Real clients, unmodified, in goroutines against real servers.

Run by scripts/client-tests; a client or a server that is not there skips its tests. The servers
run in processes of their own, but those that are made of the standard library: these run in
goroutines as well.
"""

import pytest

from gofer import patch, unpatch


@pytest.fixture(autouse=True)
def cooperative(nothing_left):
    patch()
    yield
    unpatch()
