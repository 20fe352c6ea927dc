"""The plugin of pytest, which pytest loads by itself where gofer is installed.

- The fixtures `bubble` and `explore`.
- A test that leaves goroutines behind fails, and says where they are and who started them;
  `@pytest.mark.allow_leaks` permits it.
- A test that runs for longer than `gofer_hang_timeout` seconds (60; 0: never) is not stopped, but
  every goroutine and thread is shown on the real stderr. So is a panic, before it ends pytest.

What must stay true:
- Tests that do not use gofer notice nothing: nothing here begins to use it, or starts a thread,
  before somebody else has used it.
- Who is left behind is asked after all fixtures of the test have ended. What a wider fixture has
  started is its own, and what that starts too.
"""

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, Final, TextIO

import pytest
from _pytest import python as _innermost

from gofer import _core, _report, runtime
from gofer.testing._bubble import bubble as _bubble
from gofer.testing._explore import Exploration
from gofer.testing._explore import explore as _explore

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "gofer_hang_timeout",
        "after so many seconds the goroutines of a test are shown (default: 60; 0: never)",
        default="60",
    )
    parser.getgroup("gofer").addoption(
        "--gofer-replay",
        metavar="SCHEDULE",
        help="let the fixture `explore` run just the schedule that a failure has named",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "allow_leaks: the test may leave goroutines behind that have not ended"
    )
    text = config.getini("gofer_hang_timeout")
    try:
        seconds = float(text)
    except ValueError:
        raise pytest.UsageError(f"gofer_hang_timeout = {text}: it is a number of seconds") from None
    stderr = _real_stderr(config)
    _report.add_floor(os.path.dirname(_innermost.__file__) + os.sep)
    config.pluginmanager.register(_Leaks(), "gofer leaks")
    config.pluginmanager.register(_Reports(seconds, stderr), "gofer reports")


def _real_stderr(config: pytest.Config) -> TextIO:
    """The one that is not captured."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        return os.fdopen(os.dup(2), "w", buffering=1)
    with capture.global_and_fixture_disabled():
        return os.fdopen(os.dup(2), "w", buffering=1)


def _is_used() -> bool:
    return _core.stats()["workers"] > 0


# --- fixtures -----------------------------------------------------------------------------------

_BLOCK: Final = pytest.StashKey[_bubble]()  # of a test that is in a bubble


@pytest.fixture
def bubble(request: pytest.FixtureRequest) -> Iterator[_bubble]:
    """The test is inside of `gofer.testing.bubble()`, as are the fixtures made after this one."""
    item: pytest.Item = request.node
    block = _bubble()
    block.__enter__()
    item.stash[_BLOCK] = block
    yield block
    if _BLOCK in item.stash:
        _leave_bubble(item, None)


def _leave_bubble(item: pytest.Item, error: BaseException | None) -> None:
    block = item.stash[_BLOCK]
    del item.stash[_BLOCK]
    if error is None:
        block.__exit__(None, None, None)
    else:
        block.__exit__(type(error), error, error.__traceback__)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that fails leaves its bubble at once: what is raised there is why."""
    try:
        return (yield)
    except BaseException as error:
        if _BLOCK in pyfuncitem.stash:
            _leave_bubble(pyfuncitem, error)
        raise


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Exploration]:
    """`gofer.testing.explore`; with `--gofer-replay` it runs just that schedule."""
    name: str | None = request.config.getoption("--gofer-replay")
    return _explore if name is None else partial(_explore, replay=name)


# --- who is left behind -------------------------------------------------------------------------

_MAIN: Final = 1  # the goroutine that runs the tests
_PATIENCE: Final = 1.0  # seconds for goroutines that can run
_LOOKS: Final = 20  # at goroutines that all wait: somebody may be about to wake them


class _Leaks:
    """Whether each test has ended the goroutines that it started."""

    def __init__(self) -> None:
        self._before: set[int] = set()
        self._others: set[int] = set()  # of wider fixtures, and of goroutines from before the test
        self._failed = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        self._before = _alive()
        self._failed = False
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        if fixturedef.scope == "function":
            return (yield)
        before = _alive()
        try:
            return (yield)
        finally:
            self._others |= _alive() - before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._failed = self._failed or report.failed
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        result = yield
        if not self._failed and item.get_closest_marker("allow_leaks") is None:
            left = self._left_behind()
            if left:
                pytest.fail(_in_words(left), pytrace=False)
        return result

    def _left_behind(self) -> list[runtime.Info]:
        """Those that have not ended after a fair chance."""
        until = time.monotonic() + _PATIENCE
        looks = 0
        while left := self._from_this_test():
            if any(info.state != "waiting" for info in left):
                runtime.gosched()
            elif looks == _LOOKS:
                break
            else:
                looks += 1
                _core.sleep(0.002)
            if time.monotonic() > until:
                break
        return left

    def _from_this_test(self) -> list[runtime.Info]:
        if _core.stats()["goroutines"] <= 1:
            return []
        alive = {info.id: info for info in runtime.goroutines()}
        known = self._before | self._others | {_MAIN}
        found: list[runtime.Info] = []
        for info in alive.values():
            ancestor: int | None = info.id
            while ancestor in alive and ancestor not in known:
                ancestor = alive[ancestor].parent
            if ancestor in known and ancestor != _MAIN:
                self._others.add(info.id)
            else:
                found.append(info)
        return [info for info in found if info.id != _MAIN]


def _alive() -> set[int]:
    if _core.stats()["goroutines"] <= 1:
        return {_MAIN}
    return {info.id for info in runtime.goroutines()}


def _in_words(left: list[runtime.Info]) -> str:
    number = "a goroutine" if len(left) == 1 else f"{len(left)} goroutines"
    lines = [f"the test has left {number} behind:", ""]
    for info in left:
        doing = info.waiting_on or info.state
        lines.append(f"goroutine {info.id} {info.name!r} [{doing}]")
        if info.where:
            lines.append(f"    at {info.where}")
        if info.created_at:
            lines.append(f"    started by {info.created_at}, in goroutine {info.parent}")
    lines += [
        "",
        "End them in the test (close the channel they wait for, cancel their scope, join them), or "
        "mark it with @pytest.mark.allow_leaks.",
    ]
    return "\n".join(lines)


# --- what is shown of a hang and of a panic -------------------------------------------------------


class _Timer(threading.Timer):
    of_gofer: Final = True  # a Deadlock does not name it


class _Reports:
    """Shows on the real stderr what would be lost."""

    def __init__(self, seconds: float, stderr: TextIO) -> None:
        self._seconds = seconds
        self._stderr = stderr
        self._item: pytest.Item | None = None  # that runs
        self._timer: threading.Timer | None = None
        self._first_use = _core.when_used(self._watch)
        self._panic_hook = runtime.on_panic(self._show_panic)
        if self._panic_hook is not None:
            runtime.on_panic(self._panic_hook)

    def pytest_unconfigure(self) -> None:
        _core.when_used(self._first_use)
        runtime.on_panic(self._panic_hook)
        self._stderr.close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._item = item
        if _is_used():
            self._watch()
        try:
            return (yield)
        finally:
            self._item = None
            self._stop()

    def pytest_enter_pdb(self) -> None:
        self._stop()

    def _watch(self) -> None:
        if self._item is None or self._seconds <= 0:
            return
        self._timer = _Timer(self._seconds, self._show_hang, [self._item.nodeid])
        self._timer.daemon = True  # it keeps no Deadlock from being raised
        self._timer.start()

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _show_hang(self, name: str) -> None:
        out = self._stderr
        out.write(f"\ngofer: {name} has been running for {self._seconds:g} seconds\n\n")
        faulthandler.dump_traceback(out)
        out.write("\n")
        runtime.dump(out)

    def _show_panic(self, goroutine: _core.Goroutine, exception: BaseException) -> None:
        if self._item is not None:
            self._stderr.write(f"\ngofer: a panic in {self._item.nodeid} ends pytest\n\n")
        self._stderr.write(_report.panic_text(goroutine, exception))
