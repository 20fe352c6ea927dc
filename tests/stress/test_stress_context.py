"""Contexts under load: nobody below a cancelled one is forgotten, however they race."""

import gc

import pytest

from gofer import Chan, WaitGroup, go, gosched
from gofer.context import (
    Canceled,
    DeadlineExceeded,
    after_func,
    background,
    cause,
    with_cancel,
    with_cancel_cause,
    with_timeout,
    with_value,
)
from gofer.sync import atomic

pytestmark = pytest.mark.usefixtures("nothing_left")

LONG = 10_000


class OwnDone:
    """A foreign context: the ones below it are told by a goroutine."""

    def __init__(self, inner):
        self.inner = inner
        self.chan = Chan()
        after_func(inner, self.chan.close)

    @property
    def done(self):
        return self.chan.receiver

    def err(self):
        return self.inner.err() if self.chan.closed else None

    def deadline(self):
        return None

    def value(self, key):
        return self.inner.value(key)


def derive(parent, rng):
    """A context below `parent`, of any kind, and its cancel function."""
    kind = rng.randrange(5)
    if kind == 0:
        return with_timeout(parent, rng.choice([0.001, 0.01, LONG]))
    if kind == 1:
        return with_cancel(with_value(parent, "key", 1))
    if kind == 2:
        return with_cancel(OwnDone(parent))
    return with_cancel(parent)


@pytest.mark.parametrize("foreign_threads", [0, 2])
def test_a_tree_grows_while_it_is_cancelled(rng, much, spawn_thread, foreign_threads):
    for _ in range(much(20)):
        why = ValueError("why")
        root, cancel = with_cancel_cause(background())
        ran, registered = atomic.Int(), atomic.Int()
        finished = WaitGroup()

        def grow(seed, root=root, ran=ran, registered=registered, finished=finished):
            mine = type(rng)(seed)
            contexts, cancels = [root], []
            for n in range(40):
                ctx, cancel = derive(mine.choice(contexts), mine)
                contexts.append(ctx)
                cancels.append(cancel)
                if mine.random() < 0.3:
                    registered.add(1)
                    after_func(ctx, lambda: ran.add(1))
                if mine.random() < 0.2:
                    cancels.pop(mine.randrange(len(cancels)))()
                if mine.random() < 0.2:
                    contexts.pop(mine.randrange(len(contexts)))
                    contexts[:1] = [root]
                if n % 8 == 0:
                    gosched()
            done = [ctx.done for ctx in contexts]
            kept = contexts if mine.random() < 0.5 else []
            del contexts, cancels, ctx, cancel
            for ch in done:
                ch.recv_ok()
            for ctx in kept:
                assert isinstance(ctx.err(), (Canceled, DeadlineExceeded))
                assert ctx.done.closed
            finished.done()

        finished.add(10 + foreign_threads)
        for _ in range(10):
            go(grow, rng.randrange(2**32))
        for _ in range(foreign_threads):
            spawn_thread(grow, rng.randrange(2**32))
        for _ in range(rng.randrange(20)):
            gosched()
        cancel(why)
        finished.wait()
        assert cause(root) is why
        while ran.load() < registered.load():
            gosched()
        assert ran.load() == registered.load()


def test_stop_or_run(rng, much):
    """Each function runs or was stopped, never both and never neither."""
    for _ in range(much(100)):
        ctx, cancel = with_cancel(background())
        ran, stopped = atomic.Int(), atomic.Int()
        stops = [after_func(ctx, lambda ran=ran: ran.add(1)) for _ in range(20)]
        with WaitGroup() as racing:
            for stop in stops:
                racing.go(lambda stop=stop, stopped=stopped: stop() and stopped.add(1))
            racing.go(cancel)
            racing.go(cancel)
        while ran.load() + stopped.load() < len(stops):
            gosched()
        assert ran.load() + stopped.load() == len(stops)


def test_all_is_done_when_any_cancel_returns(much, spawn_thread):
    """Also if it is another one that does the work."""
    for _ in range(much(30)):
        root, cancel = with_cancel(background())
        contexts = [root]
        for n in range(200):
            contexts.append(with_cancel(contexts[n // 3])[0])
        waiting = [ctx.done for ctx in contexts[::7]]

        def check(cancel=cancel, contexts=contexts, waiting=waiting):
            cancel()
            assert all(ctx.err() for ctx in contexts)
            assert all(ch.closed for ch in waiting)

        threads = [spawn_thread(check) for _ in range(2)]
        with WaitGroup() as racing:
            for _ in range(3):
                racing.go(check)
        while any(thread.is_alive() for thread in threads):
            gosched()


def test_dropped_while_cancelled(rng, much):
    """A child dies while its parent looks for it."""
    for _ in range(much(50)):
        root, cancel = with_cancel(background())

        def churn(root=root):
            for _ in range(50):
                ctx, _ = derive(root, rng)
                waits = ctx.done if rng.random() < 0.3 else None
                del ctx, _
                if waits is not None and root.err() is not None:
                    waits.recv_ok()

        with WaitGroup() as racing:
            for _ in range(4):
                racing.go(churn)
            racing.go(cancel)
        assert root.err() is not None
    gc.collect()
