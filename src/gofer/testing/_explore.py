"""Running a test under many schedules, and any of them again.

What must stay true:
- A run depends on its plan alone, as far as the program does: one worker, the clock of a bubble,
  no collector, seeded choices.
- A plan is what `replay` names: the same plan is the same schedule.
- The trace function that was set is set again, also when the run failed.
"""

import gc
import linecache
import os
import random
import sys
import sysconfig
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import CodeType, ModuleType
from typing import Final, Literal, TypeAlias

from gofer import _core
from gofer.errors import Cancelled, GoroutineExit
from gofer.testing._bubble import bubble

__all__ = ["Exploration", "Livelock", "Strategy", "explore"]

Strategy: TypeAlias = Literal["pct", "random", "exhaustive"]

_MODES: Final = {"random": 0, "pct": 1, "exhaustive": 2}

_Choice: TypeAlias = tuple[int, int]  # of how many, the one that was chosen

_PASSING: Final = (KeyboardInterrupt, SystemExit, GoroutineExit)
"""What comes from outside, and says nothing about the schedule."""


class Livelock(Exception):
    """The goroutines of a schedule went on and on: it took more than `steps`."""


@dataclass(frozen=True)
class Exploration:
    """What `explore` has done, when no schedule failed.

    schedules: how many were run.
    complete: whether these were all there are within the bound (`"exhaustive"` only).
    """

    schedules: int
    complete: bool


# --- plans --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """One schedule."""

    strategy: Strategy
    seed: int = 0
    depth: int = 0  # pct
    length: int = 0  # pct: choices in a run, about
    bound: int = 0  # exhaustive
    prefix: tuple[int, ...] = ()  # exhaustive: the first choices

    def __str__(self) -> str:
        if self.strategy == "random":
            return f"random:{self.seed}"
        if self.strategy == "pct":
            return f"pct:{self.depth}:{self.length}:{self.seed}"
        return f"exhaustive:{self.bound}:{'.'.join(map(str, self.prefix))}"

    @staticmethod
    def parse(text: str) -> "_Plan":
        strategy, *rest = text.split(":")
        try:
            if strategy == "random":
                (seed,) = map(int, rest)
                return _Plan("random", seed)
            if strategy == "pct":
                depth, length, seed = map(int, rest)
                return _Plan("pct", seed, depth, length)
            if strategy == "exhaustive":
                bound, prefix = rest
                return _Plan(
                    "exhaustive",
                    bound=int(bound),
                    prefix=tuple(map(int, prefix.split("."))) if prefix else (),
                )
        except ValueError:
            pass
        raise ValueError(
            f"explore(replay={text!r}): not the name of a schedule; pass what a failure printed"
        )


class _EverySchedule:
    """The plans of `"exhaustive"`: depth first, the last choice that has alternatives first.

    Whoever runs goes on unless another is chosen, so the first schedule has no detours; what comes
    after a prefix is chosen like that too.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._made: list[tuple[int, int, int]] = []  # of how many, first taken, how many since

    def plan(self) -> _Plan:
        prefix = tuple((first + tried) % of for of, first, tried in self._made)
        return _Plan("exhaustive", bound=self._bound, prefix=prefix)

    def go_on(self, choices: list[_Choice]) -> bool:
        """Take note of what the plan's run chose; whether there is another one."""
        made = self._made
        made += [(of, chosen, 0) for of, chosen in choices[len(made) :]]
        while made:
            of, first, tried = made.pop()
            if tried + 1 < of:
                made.append((of, first, tried + 1))
                return True
        return False


# --- one run ------------------------------------------------------------------------------------

_Line: TypeAlias = tuple[int, str, CodeType, int]  # goroutine: id and name; where it is

_ROOTS: Final = tuple(
    os.path.join(os.path.abspath(path), "")
    for path in {
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)


_GENERATED: Final = ("<frozen ", "<string>", "<attrs generated ")  # dataclasses and the like


class _Tracer:
    """Makes each line of the program a point at which others may go on."""

    def __init__(self, within: Iterable[ModuleType]) -> None:
        self._known: dict[str, bool] = {}
        self._within = tuple(place for module in within for place in _places(module))
        self.lines: list[_Line] | None = None  # recorded, when a list

    def start(self) -> None:
        _core.explore_trace(self._known, self._is_the_programs, self.lines)

    def _is_the_programs(self, file: str) -> bool:
        return file.startswith(self._within) or not file.startswith((*_GENERATED, *_ROOTS))


def _places(module: ModuleType) -> Iterator[str]:
    """Its file, or the folders of a package."""
    if module.__spec__ is not None and module.__spec__.submodule_search_locations is not None:
        for folder in module.__spec__.submodule_search_locations:
            yield os.path.join(folder, "")
    elif module.__file__ is not None:
        yield module.__file__


@contextmanager
def _alone() -> Generator[None, None, None]:
    """Without what would disturb a run; the trace function that is set inside ends with it."""
    workers = _core.gomaxprocs(1)
    collects = gc.isenabled()
    gc.disable()  # its finalizers would run at other moments the next time
    traced = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(traced)
        if collects:
            gc.enable()
        _core.gomaxprocs(workers)


@dataclass(frozen=True)
class _Run:
    choices: list[_Choice]
    error: BaseException | None


def _run(fn: Callable[[], object], plan: _Plan, steps: int, tracer: _Tracer) -> _Run:
    """Run it under one schedule."""
    error: BaseException | None = None
    choices: list[_Choice] = []
    overran = begun = False

    def end() -> None:
        nonlocal choices, overran
        choices, overran = _core.explore_end()

    try:
        with ExitStack() as to_end, bubble():
            _core.explore_begin(
                mode=_MODES[plan.strategy],
                seed=plan.seed,
                depth=plan.depth,
                length=plan.length,
                bound=plan.bound,
                max_choices=steps,
                prefix=list(plan.prefix),
            )
            begun = True
            to_end.callback(end)
            to_end.enter_context(_alone())
            tracer.start()
            fn()
    except BaseException as raised:
        if not begun:
            raise
        error = raised
    try:
        if overran and not isinstance(error, _PASSING):
            livelock = Livelock(
                f"the goroutines went on for more than {steps} steps and did not end: they wait "
                "for each other without blocking, or need more steps (explore(..., steps=))"
            )
            livelock.__cause__ = error
            error = livelock
            del livelock
        return _Run(choices, error)
    finally:
        del error  # it holds this frame


# --- exploring ----------------------------------------------------------------------------------


def explore(
    fn: Callable[[], object],
    /,
    *,
    schedules: int = 1000,
    strategy: Strategy = "pct",
    depth: int = 3,
    bound: int = 2,
    seed: int | None = None,
    replay: str | None = None,
    steps: int = 100_000,
    within: Iterable[ModuleType] = (),
) -> Exploration:
    """Run `fn()` under many schedules; raise what one of them raises, with how to have it again.

    Each run is in a `bubble` of its own, on one worker. Before each line of the program, and after
    each operation that may wait, another goroutine may go on; which one, and which of several ready
    cases a `select` carries out, is chosen by the strategy:

    - `"pct"`: at random by priorities that change `depth` - 1 times. Of n goroutines and k choices,
      a bug that takes `depth` of them in a certain order is found by a run with a probability of at
      least 1 / (n * k ** (depth - 1)). (Burckhardt et al., ASPLOS 2010.)
    - `"random"`: each choice at random.
    - `"exhaustive"`: every schedule in which no more than `bound` times one that could go on has to
      wait, or the first `schedules` of these. For small tests.

    The first failure ends it: the exception of `fn`, or of a goroutine that would have been a
    panic, `Deadlock`, or `Livelock`. Its notes name the schedule and show it line by line, as the
    goroutines took turns. `explore(fn, replay=name)` runs just that one again.

    fn: makes all that it uses anew, as a test does; it may not depend on time, on the order of sets
        of strings or on other threads.
    schedules: how many to run, at most.
    seed: of the random ones, for the same ones again; None: another each time.
    steps: more choices than that in one run, or calls of `gosched` when nobody else can run, are a
        `Livelock`.
    within: modules and packages of the standard library or of what is installed in which others may
        go on too.

    `RuntimeError` in a bubble, and in a plain thread; `ValueError` for numbers out of range.
    """
    if strategy not in _MODES:
        raise ValueError(f"explore(strategy={strategy!r}): it is one of {', '.join(_MODES)}")
    for name, value, least in (
        ("schedules", schedules, 1),
        ("depth", depth, 1),
        ("bound", bound, 0),
        ("steps", steps, 1),
    ):
        if value < least:
            raise ValueError(f"explore({name}={value}): it is {least} or more")
    if _core.here():
        raise RuntimeError("explore() inside of a bubble: every schedule has a bubble of its own")
    tracer = _Tracer(within)
    if replay is not None:
        _try(fn, _Plan.parse(replay), steps, tracer, "")
        return Exploration(schedules=1, complete=False)
    if strategy == "exhaustive":
        return _explore_all(fn, bound, schedules, steps, tracer)
    first = random.getrandbits(32) if seed is None else seed
    length = 0
    for n in range(schedules):
        plan = _Plan(strategy, first + n)
        if strategy == "pct":
            plan = replace(plan, depth=depth, length=length)
        choices = _try(fn, plan, steps, tracer, f"{n + 1} of {schedules}, ")
        length = max(length, len(choices))
    return Exploration(schedules=schedules, complete=False)


def _explore_all(
    fn: Callable[[], object], bound: int, schedules: int, steps: int, tracer: _Tracer
) -> Exploration:
    every = _EverySchedule(bound)
    for n in range(1, schedules + 1):
        if not every.go_on(_try(fn, every.plan(), steps, tracer, f"{n}, ")):
            return Exploration(schedules=n, complete=True)
    return Exploration(schedules=schedules, complete=False)


def _try(
    fn: Callable[[], object], plan: _Plan, steps: int, tracer: _Tracer, number: str
) -> list[_Choice]:
    _core.gosched()  # the rest of the program is to have a turn, and may cancel us
    run = _run(fn, plan, steps, tracer)
    error = run.error
    if error is None:
        return run.choices
    try:
        if not isinstance(error, (*_PASSING, Cancelled)):
            error.add_note(f"schedule {number}again with explore(..., replay={str(plan)!r})")
            error.add_note(_story(fn, plan, steps, tracer, error))
        raise error
    finally:
        del run, error  # they hold this frame


# --- telling ------------------------------------------------------------------------------------

_TOLD: Final = 200  # lines


def _story(
    fn: Callable[[], object], plan: _Plan, steps: int, tracer: _Tracer, error: BaseException
) -> str:
    """Run it again, and tell which lines ran in which order."""
    tracer.lines = []
    again = _run(fn, plan, steps, tracer).error
    lines, tracer.lines = tracer.lines, None
    told = [
        "this is how its goroutines took turns:"
        if type(again) is type(error)
        else "it did not fail in the same way again: the test depends on something else than the "
        f"schedule, such as time or chance. The second time it ended by {again!r}, like this:"
    ]
    numbers: dict[int, int] = {}
    for goroutine, *_ in lines:
        numbers.setdefault(goroutine, len(numbers) + 1)
    if len(lines) > _TOLD:
        told.append(f"... {len(lines) - _TOLD} lines before")
    last = None
    for goroutine, name, code, line in lines[-_TOLD:]:
        if goroutine != last:
            told.append(f"[{numbers[goroutine]}] {name.rpartition('<locals>.')[2]}")
            last = goroutine
        source = linecache.getline(code.co_filename, line).strip()
        told.append(f"    {os.path.basename(code.co_filename)}:{line}  {source}")
    return "\n".join(told)
