"""Descriptors for the tests of the poller: filling, draining, closing them."""

import contextlib
import os

import pytest

from gofer import fork
from gofer._core import fd_closed, fd_closing

from shared.workers import elsewhere


def close(fd):
    """As a cooperative `os.close` does it."""
    fd_closing(fd)
    os.close(fd)
    fd_closed(fd)


def fill(fd):
    """Write until there is no room."""
    os.set_blocking(fd, False)
    n = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            n += os.write(fd, b"x" * 65536)
    return n


def drain(fd, n):
    while n:
        n -= len(os.read(fd, min(n, 65536)))


PLACES = {"here": fork, "elsewhere": elsewhere}
places = pytest.mark.parametrize("start", PLACES.values(), ids=PLACES)
