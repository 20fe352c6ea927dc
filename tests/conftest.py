"""What the tests share: programs in processes of their own, seeds, waiting for a state, overruns.

What must stay true:
- Nothing here starts a thread that is no daemon: one would keep `Deadlock` from being raised.
- A test that hangs says where every goroutine stands; gofer's own plugin does so for a panic, and
  sees to it that no test leaves goroutines behind.
- Tests wait for a state (`until`, `parked`), never for a time.

The environment decides: GOFER_SEED replays the random tests; GOFER_TEST_SLOWER multiplies the time
that programs and tests may take, for builds that are slow.
"""

import contextlib
import faulthandler
import gc
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from typing import NamedTuple

import pytest

from gofer import current, gosched, patch, patched, runtime, sleep, unpatch
from gofer.time import now

from shared.gates import Gate

SLOWER = float(os.environ.get("GOFER_TEST_SLOWER", "1"))
PROGRAM_SECONDS = 100

# --- overruns -----------------------------------------------------------------------------------

_stderr = None  # the real one, while pytest captures
_failures = []  # what pytest would tell at the end


def pytest_configure(config):
    global _stderr
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        _stderr = os.fdopen(os.dup(2), "w", buffering=1)


def pytest_collection_finish():
    """What pytest has made so far is no garbage: the many collections of the tests pass over it.

    It also makes some collectors skip a pass that would hide what they were not told of.
    """
    gc.collect()
    gc.freeze()


def overrun(name):
    print(*_failures, f"\noverrun: {name}\n", sep="\n", file=_stderr)
    runtime.dump(_stderr)
    faulthandler.dump_traceback(_stderr)
    os._exit(1)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item, settings):
    """In place of the thread of pytest-timeout, which is no daemon."""
    if item.config.option.usepdb:
        return True
    seconds = settings.timeout * SLOWER
    timer = threading.Timer(seconds, overrun, [item.nodeid])
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + 10, exit=True, file=_stderr)  # needs no GIL

    def cancel():
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()
        timer.join()

    item.stop_timer = cancel
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """pytest-timeout would stop it when a test fails; what that left may hang a fixture."""
    try:
        return (yield)
    finally:
        getattr(item, "stop_timer", lambda: None)()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    item.has_failed = getattr(item, "has_failed", False) or report.failed
    if report.failed:
        _failures.append(f"{item.nodeid}\n{report.longreprtext}\n{report.capstdout}")
    return report


# --- waiting for a state ------------------------------------------------------------------------


def wait_until(condition):
    while not condition():
        gosched()


@pytest.fixture
def until():
    """`until(condition)` lets the others run until it holds."""
    return wait_until


@pytest.fixture
def parked():
    """`parked(*goroutines)` lets the others run until each of them waits."""

    def wait_until_parked(*goroutines):
        wait_until(lambda: all(g.state == "waiting" for g in goroutines))

    return wait_until_parked


@pytest.fixture
def one_worker():
    """For a test of the order in which goroutines of one worker run.

    One that computes for 10 ms without a switch needs a process of its own: once a thread has used
    the library, another worker takes over what such a one has not started.
    """
    before = runtime.gomaxprocs(1)
    yield
    runtime.gomaxprocs(before)


@pytest.fixture
def nothing_left(request):
    """The test must have ended every goroutine that it started; one may be about to end."""
    current()  # the first use makes goroutine 1
    before = runtime.num_goroutine()
    yield
    if not request.node.has_failed:
        wait_until(lambda: runtime.num_goroutine() <= before)


@pytest.fixture
def rng():
    """A random number generator; its seed is printed when the test fails."""
    seed = int(os.environ.get("GOFER_SEED") or random.randrange(2**32))
    print(f"GOFER_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def not_cancelled():
    """Whatever a group did to the goroutine of its body, it must have taken back."""
    yield
    sleep(0)


@pytest.fixture
def unraisable(monkeypatch):
    """The exceptions that reached sys.unraisablehook."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_value))
    return seen


# --- programs -----------------------------------------------------------------------------------


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def program(tmp_path):
    """`program(source, *words)` runs the source as a script and returns its `Outcome`.

    A program that takes too long is made to say where its threads are, and the test fails.
    """

    def execute(source, *words, stdin="", flags=(), **env):
        path = tmp_path / "prog.py"
        path.write_text(textwrap.dedent(source).lstrip("\n"))
        command = [sys.executable, "-X", "faulthandler", *flags, str(path), *map(str, words)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
        )
        try:
            out, err = process.communicate(stdin, timeout=PROGRAM_SECONDS * SLOWER)
            late = False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            out, err = process.communicate()
            late = True
        print(path.read_text())
        print(f"--- status {process.returncode}{', overran' * late}")
        print(f"--- stdout\n{out}--- stderr\n{err}---")
        assert not late
        return Outcome(process.returncode, out, err)

    return execute


# --- time ---------------------------------------------------------------------------------------


@pytest.fixture
def elapsed():
    """`elapsed()` is how much time has passed, for the caller, since the test began to use it."""
    start = []

    def since():
        start.extend([now()] if not start else [])
        return now() - start[0]

    return since


# --- the cooperative standard library -----------------------------------------------------------


@pytest.fixture
def cooperative():
    """The standard library is patched."""
    patch()
    yield
    unpatch()
    assert not any(patched().values())


# --- sockets and pipes --------------------------------------------------------------------------


@pytest.fixture
def closing():
    """`closing(*things)` closes them in the end, and returns the first."""
    with contextlib.ExitStack() as stack:

        def close_later(*things):
            for thing in things:
                stack.enter_context(contextlib.closing(thing))
            return things[0]

        yield close_later


@pytest.fixture
def pair(closing):
    """Two sockets that are connected."""
    a, b = socket.socketpair()
    closing(a, b)
    return a, b


@pytest.fixture
def pipe():
    """`pipe()` is a pair of descriptors; closing one of them early is all right."""
    made = []

    def make():
        made.append(os.pipe())
        return made[-1]

    yield make
    for fd in itertools.chain(*made):
        with contextlib.suppress(OSError):
            os.close(fd)


# --- calls on threads ---------------------------------------------------------------------------


@pytest.fixture
def pool(monkeypatch, until):
    """A pool of `blocking` for this test; all its threads have ended afterwards."""
    module = sys.modules["gofer.blocking"]
    fresh = module._Pool()
    monkeypatch.setattr(module, "_pool", fresh)
    yield fresh
    fresh.close()
    until(lambda: not fresh._workers)


@pytest.fixture
def idle(pool, until):
    """`idle(n)` waits until so many threads have nothing to do, and no other exists."""

    def wait(n):
        until(lambda: len(pool._idle) == len(pool._workers) == n)

    return wait


@pytest.fixture
def gate():
    """A `Gate`, opened in the end."""
    gate = Gate()
    yield gate
    gate.open()
