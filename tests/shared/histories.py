"""Whether what several goroutines did can be explained by doing it one after the other.

A history is what each operation came to, and when it began and ended. It is right if there is an
order in which a model, which does one thing at a time, comes to the same, and in which nothing
comes before what had ended when it began (Herlihy and Wing call that linearizable). What was
cancelled has not happened. What never ended must be something that could not be done: no wake-up
was lost.
"""

import itertools
from typing import NamedTuple

from gofer import Cancelled, Closed, fork
from gofer.testing import wait


class Model:
    """What is done one at a time. A state can be compared and hashed."""

    start: object

    def after(self, state, what, result):
        """The state when `what` has come to `result`; None when it can not."""
        raise NotImplementedError

    def rests(self, state):
        """Whether it may stay so."""
        return True

    def is_stuck(self, state, pending):
        """Whether those that never ended had to wait."""
        raise NotImplementedError


class Operation(NamedTuple):
    what: tuple
    began: int
    ended: int
    result: object


class Recorder:
    """`do(what, fn)` calls fn and takes down what it comes to."""

    def __init__(self):
        self._ticks = itertools.count()
        self._pending = {}
        self.done = []

    def do(self, what, fn):
        began = next(self._ticks)
        self._pending[began] = what
        try:
            result = fn()
        except Closed:
            result = Closed
        except Cancelled:
            del self._pending[began]
            raise
        del self._pending[began]
        self.done.append(Operation(what, began, next(self._ticks), result))

    def pending(self):
        return list(self._pending.values())


def is_explained(model, done, pending):
    """Whether some order of the operations done fits the model, and the others had to wait."""
    seen = set()

    def search(left, state):
        if not left:
            return model.rests(state) and model.is_stuck(state, pending)
        if (left, state) in seen:
            return False
        seen.add((left, state))
        first_end = min(done[n].ended for n in left)
        return any(
            next_state is not None and search(left - {n}, next_state)
            for n in left
            if done[n].began < first_end
            for next_state in [model.after(state, done[n].what, done[n].result)]
        )

    return search(frozenset(range(len(done))), model.start)


def check(model, programs, cancelled, carry_out):
    """Each program is a list of operations that a task does; those of these numbers are cancelled.

    carry_out(what) does one and returns what it comes to. To be explored.
    """
    recorder = Recorder()

    def run(program):
        for what in program:
            recorder.do(what, lambda what=what: carry_out(what))

    tasks = [fork(run, program) for program in programs]

    def cancel():
        for n in cancelled:
            tasks[n].cancel()

    canceller = fork(cancel)
    wait()
    done, pending = list(recorder.done), recorder.pending()
    for task in (*tasks, canceller):
        task.cancel()
        task.exception()
    assert is_explained(model, done, pending), (done, pending)
