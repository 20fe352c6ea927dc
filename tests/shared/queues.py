"""What of `queue` runs in Python, as a profiler sees it."""

import queue
import sys

import pytest

from shared import FREE_THREADED

EVERY_REFERENCE = sys.version_info >= (3, 12)  # 3.11: what is found in the class

in_c = pytest.mark.skipif(FREE_THREADED, reason="on free-threaded builds all of it is in Python")


def run_in_python(fn, *args, **kwargs):
    """The names of functions of the module `queue` that a call runs."""
    entered = []

    def profile(frame, event, arg):
        if event == "call" and frame.f_globals is vars(queue):
            entered.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        fn(*args, **kwargs)
    except Exception as error:
        entered.append(type(error).__name__)
    finally:
        sys.setprofile(None)
    return entered
