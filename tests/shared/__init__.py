"""What tests of several files use and is no fixture; for fixtures see conftest.py."""

import sysconfig
import threading

from gofer import gosched, select

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


class Token:
    """Something that can be referred to weakly and may be part of a cycle."""

    def __init__(self, *held):
        self.held = held


def is_empty(ch):
    """Whether nothing can be received at once."""
    return select(ch.recv_ok, default=True) == (-1, None)


def in_thread(fn, *args):
    """What fn(*args) returns or raises, called in a thread that is no worker."""
    outcome = []

    def body():
        try:
            outcome.append((fn(*args), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    while thread.is_alive():
        gosched()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def error_of(fn):
    """The exception that fn() raises, as its type and its words; None without."""
    try:
        fn()
    except Exception as error:
        return type(error), str(error)
