"""gofer.testing.explore: bugs that it must find, and how it tells of them.

Which schedules there are is in test_explore_strategies.py, what exploring does to the rest in
test_explore_effects.py, and what gofer itself does under many in test_explore_chan.py and its like.
"""

import itertools
import re

import pytest

from gofer.testing import Exploration, explore

from shared.explorations import (
    STRATEGIES,
    fails,
    name_of_schedule,
)
from shared.planted import BUGS, CheckThenAct

pytestmark = pytest.mark.usefixtures("nothing_left")

strategies = pytest.mark.parametrize("strategy", STRATEGIES)


bugs = pytest.mark.parametrize("bug", BUGS)


def story(error):
    (note,) = (note for note in error.__notes__ if "took turns" in note)
    return note.splitlines()[1:]


@bugs
@strategies
@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_a_planted_bug_is_found(bug, strategy, seed):
    error = fails(bug.wrong, strategy=strategy, seed=seed, schedules=300)
    assert type(error) is bug.error


@bugs
@strategies
def test_a_failure_can_be_had_again(bug, strategy):
    error = fails(bug.wrong, strategy=strategy, seed=5, schedules=300)
    for _ in range(3):
        again = fails(bug.wrong, replay=name_of_schedule(error))
        assert type(again) is bug.error
        assert name_of_schedule(again) == name_of_schedule(error)
        assert story(again) == story(error)


@bugs
def test_without_the_bug_every_schedule_is_right(bug):
    done = explore(bug.right, strategy="exhaustive", schedules=20_000)
    assert done.complete
    assert done.schedules > 1
    for strategy in ("pct", "random"):
        assert explore(bug.right, strategy=strategy, seed=3, schedules=200) == Exploration(
            200, False
        )


def test_the_story_is_told_in_the_programs_lines():
    error = fails(CheckThenAct.wrong, strategy="exhaustive")
    first = CheckThenAct.wrong.__code__.co_firstlineno
    look, act = 'if account["money"] >= amount:', 'account["money"] -= amount'
    assert [line.strip() for line in story(error) if line.startswith("[") or "amount" in line] == [
        "[1] main",
        f"planted.py:{first + 4}  def withdraw(amount):",
        "[2] withdraw",
        f"planted.py:{first + 5}  {look}",
        "[3] withdraw",
        f"planted.py:{first + 5}  {look}",
        f"planted.py:{first + 6}  {act}",
        "[2] withdraw",
        f"planted.py:{first + 6}  {act}",
        "[1] main",
    ]
    assert story(error)[-1].strip().endswith('assert account["money"] == 20')


def test_a_long_story_is_cut_at_its_beginning():
    def fn():
        for _ in range(500):
            pass
        raise ValueError

    lines = story(fails(fn, schedules=1))
    assert re.fullmatch(r"\.\.\. \d+ lines before", lines[0])
    assert len(lines) == 202
    assert lines[-1].endswith("raise ValueError")


def test_a_test_that_depends_on_something_else():
    times = itertools.count()

    def fn():
        if next(times) == 3:
            raise ValueError("now and then")

    error = fails(fn)
    assert "it did not fail in the same way again" in error.__notes__[-1]
    assert "The second time it ended by None" in error.__notes__[-1]
