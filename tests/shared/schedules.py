"""Running small programs on gofer itself under many schedules: each must be right under all.

Small ones run under every schedule with few interruptions, larger ones under many random ones.
"""

import os

from gofer.testing import explore

SLOW = os.environ.get("GOFER_TEST_SLOWER", "1") != "1"


def every(fn, bound=2, schedules=30_000, **options):
    """Under every schedule in which one that could go on has to wait `bound` times at most."""
    done = explore(fn, strategy="exhaustive", bound=bound, schedules=schedules, **options)
    assert done.complete
    assert done.schedules > 1


def many(fn, schedules=60 if SLOW else 300, **options):
    """Under random ones of both kinds."""
    explore(fn, strategy="pct", schedules=schedules, depth=4, seed=1, **options)
    explore(fn, strategy="random", schedules=schedules, seed=1, **options)


def outcome(task):
    """What a task has come to: its value, or the kind of its exception."""
    error = task.exception()
    return task.join() if error is None else type(error)
