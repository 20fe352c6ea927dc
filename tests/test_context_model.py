"""Random trees of contexts against a model: when each ends, with which error and cause.

They live in a bubble, so all of it happens at exact times.
"""

import math

import pytest

from gofer import fork, sleep
from gofer.context import (
    Canceled,
    DeadlineExceeded,
    background,
    cause,
    with_cancel_cause,
    with_deadline,
    with_timeout_cause,
    with_value,
    without_cancel,
)
from gofer.testing import bubble, wait
from gofer.time import now

from shared.contexts import OwnDone, Wrapper, is_done

pytestmark = pytest.mark.usefixtures("nothing_left")


class Branch:
    """A context, and what is to be known of it."""

    def __init__(self, above, ctx, cancel=None, takes_cause=False):
        self.ctx = ctx
        self.cancel = cancel
        self.takes_cause = takes_cause
        self.below = []
        self.ended = None  # the class of the error, and the cause
        self.deadline = above.deadline if above else None
        self.alarm = None  # when it ends by itself, and with which cause
        self.values = dict(above.values) if above else {}
        self.apart = False
        if above:
            above.below.append(self)
            self.ended = above.ended

    def end(self, error, why):
        if self.ended is None:
            self.ended = error, why
            for branch in self.below:
                if not branch.apart:
                    branch.end(error, why)


def grow(rng, above, key):
    """A branch of any kind."""
    ctx = above.ctx
    kind = rng.randrange(8)
    if kind <= 1:
        return Branch(above, *with_cancel_cause(ctx), takes_cause=True)
    if kind <= 4:
        seconds = rng.randrange(1, 50)
        when = now() + seconds
        why = LookupError(key) if kind < 4 else None
        made = with_timeout_cause(ctx, seconds, why) if why else with_deadline(ctx, when)
        branch = Branch(above, *made)
        if branch.deadline is None or when < branch.deadline:
            branch.deadline = when
            branch.alarm = when, why
        return branch
    if kind == 5:
        branch = Branch(above, with_value(ctx, key % 5, key))
        branch.values[key % 5] = key
        return branch
    if kind == 6:
        branch = Branch(above, without_cancel(ctx))
        branch.apart, branch.ended, branch.deadline = True, None, None
        return branch
    return Branch(above, Wrapper(ctx))


def step(rng, branches):
    """Something that happens."""
    branch = rng.choice(branches)
    if rng.random() < 0.6:
        branches.append(grow(rng, branch, len(branches)))
    elif branch.cancel is not None and branch.ended is None:
        why = ValueError(len(branches)) if branch.takes_cause else None
        fork(branch.cancel, *([why] if why else [])).join()
        branch.end(Canceled, why)


def let_pass(branches, until):
    """The alarms that come until then, in their order."""
    due = [b for b in branches if b.alarm and b.ended is None and b.alarm[0] <= until]
    for branch in sorted(due, key=lambda b: b.alarm[0]):
        branch.end(DeadlineExceeded, branch.alarm[1])


def compare(branches):
    for branch in branches:
        ctx = branch.ctx
        assert is_done(ctx) == (branch.ended is not None)
        assert ctx.deadline() == branch.deadline
        assert {k: ctx.value(k) for k in range(5)} == {k: branch.values.get(k) for k in range(5)}
        if branch.ended is None:
            assert ctx.err() is cause(ctx) is None
        else:
            error, why = branch.ended
            assert type(ctx.err()) is error
            assert cause(ctx) is (ctx.err() if why is None else why)


def ours():
    return Branch(None, *with_cancel_cause(background()), takes_cause=True)


def foreign():
    ctx = OwnDone(background())
    return Branch(None, ctx, ctx.cancel)


@pytest.mark.parametrize("make", [ours, foreign])
def test_random_trees(make, rng):
    for _ in range(20):
        with bubble():
            branches = [make()]
            for _ in range(40):
                if rng.random() < 0.3:
                    sleep(rng.randrange(1, 10))
                    let_pass(branches, now())
                else:
                    step(rng, branches)
                wait()
                compare(branches)
            sleep(100)
            let_pass(branches, math.inf)
            compare(branches)
            if branches[0].ended is None:
                branches[0].cancel()  # or who watches a foreign one would wait for ever
