"""Coroutines for the tests of `gofer.aio`, and the loops that they run on."""

import asyncio

import pytest

from gofer import aio

from shared import in_thread


async def add(a, b):
    await asyncio.sleep(0)
    return a + b


async def settled(*conditions):
    """Returns when all of them hold; the loop goes on meanwhile."""
    for condition in conditions:
        while not condition():
            await asyncio.sleep(0)


class Door:
    """A coroutine that stands at it can be let through from any thread."""

    def __init__(self):
        self.log = []
        self.loop = None

    async def wait(self, value=None):
        self.loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self.log.append("waits")
        try:
            await self._event.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("left")
        return value

    def open(self):
        self.loop.call_soon_threadsafe(self._event.set)


def every_loop(test):
    """In the main thread, in another one, and on the library's own loop."""

    def here(coroutine):
        return asyncio.run(coroutine)

    def in_a_thread(coroutine):
        return in_thread(asyncio.run, coroutine)

    def on_ours(coroutine):
        return aio.await_(coroutine)

    return pytest.mark.parametrize("run", [here, in_a_thread, on_ours])(test)
