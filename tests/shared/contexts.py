"""What is asked of contexts, and some that are not of gofer's own making."""

import gc
import threading

from gofer import Chan, select
from gofer.context import Canceled, cause

SHORT = 0.002  # seconds


def is_done(ctx):
    """Whether a receive on its `done` returns at once."""
    return select(ctx.done.recv_ok, default=True) == (0, (None, False))


def assert_cancelled(ctx, error=Canceled):
    assert is_done(ctx)
    assert type(ctx.err()) is error


def assert_going_on(ctx):
    assert not is_done(ctx)
    assert ctx.err() is None
    assert cause(ctx) is None


class Wrapper:
    """A foreign context that passes everything on to another one."""

    def __init__(self, inner):
        self.inner = inner

    @property
    def done(self):
        return self.inner.done

    def err(self):
        return self.inner.err()

    def deadline(self):
        return self.inner.deadline()

    def value(self, key):
        return self.inner.value(key)


class OwnDone(Wrapper):
    """A foreign context that has a `done` of its own, to be closed by its `cancel`."""

    def __init__(self, inner):
        super().__init__(inner)
        self.chan = Chan()
        self.error = None

    @property
    def done(self):
        return self.chan.receiver

    def err(self):
        return self.error

    def cancel(self, error=None):
        self.error = error or Canceled("by its own")
        self.chan.close()


class WithAfterFunc(OwnDone):
    """A foreign context that calls back. As in Go it does so under its lock."""

    def __init__(self, inner):
        super().__init__(inner)
        self.functions = []
        self.lock = threading.Lock()

    def after_func(self, fn):
        with self.lock:
            self.functions.append(fn)

        def stop():
            with self.lock:
                if fn not in self.functions:
                    return False
                self.functions.remove(fn)
                return True

        return stop

    def cancel(self, error=None):
        super().cancel(error)
        with self.lock:
            for fn in self.functions:
                fn()
            self.functions.clear()


def assert_gone(references):
    gc.collect()
    assert [ref() for ref in references] == [None] * len(references)


class Key:
    """A key of its own, as in Go."""
