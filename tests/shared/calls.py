"""One call of a client, made by hundreds of goroutines: all at once, or called off at random.

A call takes a number, checks what it is told about that number by the server, and returns nothing.
"""

from gofer import Group, after_func, cancel_scope, fork, gosched, sleep, timeout
from gofer.context import Canceled

from shared.canary import BEATS

MANY = 300
CALLED_OFF = 1000
TOGETHER = 50


def all_at_once(call, many=MANY):
    """call(0) to call(many - 1), from a goroutine each."""
    with Group() as g:
        for n in range(many):
            g.go(call, n)


def all_waiting(call, many, waiting, release):
    """The same, with calls that wait in the server until release() is called.

    waiting() is how many have arrived there. A canary beats when all have, and only then releases
    them: were the worker blocked by one that waits, it would never come to that.
    """
    beats = 0

    def canary():
        nonlocal beats
        while waiting() < many:
            sleep(0.001)
        for _ in range(BEATS):
            gosched()
            beats += 1
        release()

    with Group() as g:
        for n in range(many):
            g.go(call, n)
        g.go(canary)
    assert beats == BEATS


class CallingOff:
    """Makes calls until CALLED_OFF of them were cancelled, each at another moment.

    The time that a call is given is random; its bound follows what happens, so that many are
    called off and many come to their end.
    """

    def __init__(self, rng):
        self._rng = rng
        self._longest = 0.05
        self._called_off = []  # of each call, whether it was

    def __call__(self, call):
        n = 0
        while self._called_off.count(True) < CALLED_OFF:
            with Group() as g:
                for _ in range(TOGETHER):
                    g.go(self._one, call, n, self._rng.random(), self._rng.choice(WAYS))
                    n += 1
            share = self._called_off[-TOGETHER:].count(True) / TOGETHER
            self._longest *= 2 if share > 0.8 else 0.7 if share < 0.3 else 1
        assert False in self._called_off

    def _one(self, call, n, part, way):
        self._called_off.append(way(call, n, part * self._longest))


def _by_time(call, n, seconds):
    try:
        with timeout(seconds) as limit:
            call(n)
    except TimeoutError:
        if not limit.expired:
            raise
        return True
    return False


def _by_another(call, n, seconds):
    ended = False
    with cancel_scope() as scope:
        after_func(seconds, scope.cancel)
        call(n)
        ended = True
    return not ended


def _as_a_task(call, n, seconds):
    task = fork(call, n)
    with cancel_scope() as scope:
        after_func(seconds, scope.cancel)
        task.join()
    task.cancel()
    try:
        task.join()
    except Canceled:
        return True
    return False


WAYS = (_by_time, _by_another, _as_a_task)
