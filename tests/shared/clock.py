"""Order in time: what is certainly due before what."""

import math
import time
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from gofer import after, sleep

LONG = 10_000  # what is not meant to happen while the tests run
ROUNDING = 1e-6  # of seconds as a float


def let_fire(seconds=0):
    """Returns when every timer of this worker with an earlier deadline has fired."""
    after(seconds).recv()
    sleep(0.0001)


class Bounds:
    """When something that is to happen `d` from now may happen, at the earliest and latest."""

    def __init__(self, d):
        self.d = d
        self.earliest = time.monotonic() + d - ROUNDING

    def set(self):
        """It has been armed by now."""
        self.latest = time.monotonic() + self.d + ROUNDING


def assert_in_order(events):
    """events: (bounds, time it happened), in the order in which they did."""
    for bounds, happened in events:
        assert happened >= bounds.earliest
    latest = -math.inf
    for bounds, _ in reversed(events):  # none may come after one that was certainly due later
        if latest != -math.inf:
            assert bounds.earliest <= latest
        latest = bounds.latest if latest == -math.inf else min(latest, bounds.latest)


DURATIONS = [0.002, 0, timedelta(milliseconds=2), Fraction(1, 500), Decimal("0.002"), True * 0]
