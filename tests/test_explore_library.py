"""gofer itself under many schedules: each program must be right under all of them.

Small ones run under every schedule with few interruptions, larger ones under many random ones.
What of the library is Python may be interrupted before each of its lines (`within`).
"""

import os
from collections import Counter

import pytest

import gofer
from gofer import (
    Chan,
    Cond,
    Group,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    Ticker,
    WaitGroup,
    _cancel,
    _guard,
    after_func,
    cancel_scope,
    context,
    fork,
    go,
    goroutine,
    gosched,
    select,
    shield,
    sleep,
    timeout,
)
from gofer import time as gofer_time
from gofer.errors import Canceled, Cancelled, Closed
from gofer.sync import Pool, SingleFlight, atomic, once_value
from gofer.testing import explore, wait
from gofer.time import now

pytestmark = pytest.mark.usefixtures("nothing_left")

SLOW = os.environ.get("GOFER_TEST_SLOWER", "1") != "1"

LOCKS = [gofer.sync, _guard]
CONTEXTS = [context, _cancel]


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


# --- channels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [0, 1, 2])
def test_each_value_arrives_once_and_in_order(cap):
    def fn():
        ch, got = Chan(cap), []

        def send(n):
            for k in range(3):
                ch.send((n, k))

        with Group() as senders:
            for n in range(2):
                senders.go(send, n)
            got.extend(ch.recv() for _ in range(6))
        assert sorted(got) == [(n, k) for n in range(2) for k in range(3)]
        for n in range(2):
            assert [k for m, k in got if m == n] == [0, 1, 2]

    every(fn, bound=1)
    many(fn)


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_what_was_sent_before_a_close_arrives(cap):
    def fn():
        ch, sent = Chan(cap), []

        def send(n):
            try:
                for k in range(3):
                    ch.send((n, k))
                    sent.append((n, k))
            except Closed:
                pass

        with Group() as g:
            receivers = [g.go(list, ch) for _ in range(2)]
            for n in range(2):
                g.go(send, n)
            g.go(ch.close)
        assert sorted(v for r in receivers for v in r.join()) == sorted(sent)
        assert ch.recv_ok() == (None, False)

    many(fn)


@pytest.mark.parametrize("cap", [0, 1])
def test_a_select_that_is_cancelled_takes_all_or_nothing(cap):
    """A value that races with a cancellation is received, or stays with the channel or sender."""

    def fn():
        inbox, outbox = Chan(cap), Chan(cap)
        selects = fork(lambda: select(inbox.recv, (outbox.send, "out")))
        sender = fork(inbox.send, "in")
        receiver = fork(outbox.recv)
        selects.cancel()
        match outcome(selects):
            case (0, "in"):
                assert outcome(sender) is None
                receiver.cancel()
                assert outcome(receiver) is Canceled
            case (1, None):
                assert outcome(receiver) == "out"
                assert inbox.recv() == "in"
            case other:
                assert other is Canceled
                assert inbox.recv() == "in"
                receiver.cancel()
                assert outcome(receiver) is Canceled
        assert select(inbox.recv, outbox.recv, default=True) == (-1, None)

    every(fn)
    many(fn)


def test_a_receiver_that_is_cancelled_loses_nothing():
    def fn():
        ch = Chan()
        first, second = fork(ch.recv), fork(ch.recv)
        sender = fork(ch.send, "value")
        first.cancel()
        if outcome(first) == "value":
            second.cancel()
            assert outcome(second) is Canceled
        else:
            assert outcome(second) == "value"
        assert outcome(sender) is None

    every(fn)


def test_a_select_of_two_that_select():
    """Each can do either side: they meet, and do the same thing."""

    def fn():
        a, b = Chan(), Chan()
        left = fork(lambda: select((a.send, 1), b.recv))
        right = fork(lambda: select(a.recv, (b.send, 2)))
        assert {outcome(left), outcome(right)} in ({(0, None), (0, 1)}, {(1, 2), (1, None)})

    every(fn)


def test_a_channel_as_a_semaphore():
    def fn():
        free, inside = Chan(2), []

        def work(n):
            free.send(n)
            inside.append(n)
            assert len(inside) <= 2
            inside.remove(n)
            free.recv()

        with Group() as g:
            for n in range(3):
                g.go(work, n)
        assert len(free) == 0

    every(fn, bound=1)
    many(fn)


# --- locks --------------------------------------------------------------------------------------


class Room:
    """Counts who is in it: any number of readers, or one writer."""

    def __init__(self):
        self.inside = Counter()

    def enter(self, kind):
        self.inside[kind] += 1
        self.check()
        self.check()
        self.inside[kind] -= 1

    def check(self):
        assert self.inside["writer"] + bool(self.inside["reader"]) <= 1


def test_a_mutex_lets_in_one():
    def fn():
        room, mutex = Room(), Mutex()

        def work():
            with mutex:
                room.enter("writer")

        def tries():
            if mutex.try_lock():
                room.enter("writer")
                mutex.unlock()

        with Group() as g:
            g.go(work)
            g.go(work)
            g.go(tries)
        assert mutex.try_lock()

    every(fn, bound=1)
    many(fn)


def test_a_mutex_outlives_a_cancelled_waiter():
    """The wake-up that it may have got goes to the next in line."""

    def fn():
        mutex = Mutex()

        def work():
            with mutex:
                return "worked"

        mutex.lock()
        tasks = [fork(work) for _ in range(3)]
        tasks[0].cancel()
        mutex.unlock()
        assert outcome(tasks[0]) in ("worked", Canceled)
        assert [outcome(task) for task in tasks[1:]] == ["worked", "worked"]
        assert mutex.try_lock()

    every(fn, bound=1)
    many(fn)


def test_a_semaphore_keeps_its_permits():
    def fn():
        semaphore, held = Semaphore(3), atomic.Int()

        def work(n):
            semaphore.acquire(n)
            assert held.add(n) <= 3
            held.add(-n)
            semaphore.release(n)
            return "worked"

        tasks = [fork(work, n) for n in (2, 3, 1)]
        tasks[1].cancel()
        assert outcome(tasks[1]) in ("worked", Canceled)
        assert [outcome(tasks[0]), outcome(tasks[2])] == ["worked", "worked"]
        assert semaphore.try_acquire(3)

    every(fn, bound=1)
    many(fn, within=LOCKS)


def test_a_wait_group_waits_for_all():
    def fn():
        group, done = WaitGroup(), atomic.Int()
        group.add(2)

        def work():
            done.add(1)
            group.done()

        def waiter():
            group.wait()
            assert done.load() == 2

        with Group() as g:
            for task in (waiter, work, waiter, work):
                g.go(task)

    every(fn, bound=1)
    many(fn, within=LOCKS)


def test_readers_and_writers():
    def fn():
        room, lock = Room(), RWMutex()

        def read():
            with lock.reading():
                room.enter("reader")
            return "read"

        def write():
            with lock.writing():
                room.enter("writer")
            return "written"

        def tries():
            if lock.try_lock():
                room.enter("writer")
                lock.unlock()
            if lock.try_rlock():
                room.enter("reader")
                lock.runlock()

        tasks = [fork(read), fork(write), fork(read), fork(write)]
        go(tries)
        tasks[1].cancel()
        assert [outcome(tasks[n]) for n in (0, 2, 3)] == ["read", "read", "written"]
        assert outcome(tasks[1]) in ("written", Canceled)
        wait()
        assert lock.try_lock()

    many(fn, within=LOCKS)


def test_misuse_of_an_rwmutex_is_told():
    """Who unlocks what another one holds for reading is refused, whatever happens meanwhile."""

    def fn():
        lock = RWMutex()
        lock.rlock()
        go(lock.runlock)
        with pytest.raises(RuntimeError):
            lock.unlock()
        wait()
        assert lock.try_lock()

    every(fn, within=LOCKS)


# --- Cond ---------------------------------------------------------------------------------------


def test_a_signal_wakes_one():
    """Of two that wait one; also if one of them gives up just then."""

    def fn():
        mutex, woken = Mutex(), []
        cond = Cond(mutex)

        def waiter(n):
            with mutex:
                ready.send(None)
                cond.wait()
                woken.append(n)

        ready = Chan(2)
        tasks = [fork(waiter, n) for n in range(2)]
        for _ in tasks:
            ready.recv()
        with mutex:
            pass  # now both of them wait
        go(tasks[0].cancel)
        cond.signal()
        wait()
        if tasks[0].done and outcome(tasks[0]) is Canceled:
            assert woken == [1]
        else:
            assert woken == [0]
            cond.signal()
        assert outcome(tasks[1]) is None
        assert mutex.try_lock()

    every(fn, bound=1, within=LOCKS)
    many(fn, within=LOCKS)


def test_a_broadcast_wakes_all():
    def fn():
        mutex, open_now = Mutex(), []
        cond = Cond(mutex)

        def waiter():
            with mutex:
                while not open_now:
                    cond.wait()
            return "in"

        tasks = [fork(waiter) for _ in range(3)]
        with mutex:
            open_now.append(True)
        cond.broadcast()
        tasks[1].cancel()
        assert [outcome(tasks[0]), outcome(tasks[2])] == ["in", "in"]
        assert outcome(tasks[1]) in ("in", Canceled)

    many(fn, within=LOCKS)


def test_a_queue_made_of_a_cond():
    def fn():
        mutex, items = Mutex(), []
        not_empty, not_full = Cond(mutex), Cond(mutex)

        def put(item):
            with mutex:
                while len(items) == 1:
                    not_full.wait()
                items.append(item)
                not_empty.signal()

        def get():
            with mutex:
                while not items:
                    not_empty.wait()
                item = items.pop()
                not_full.signal()
            return item

        with Group() as g:
            getters = [g.go(get) for _ in range(3)]
            for n in range(3):
                g.go(put, n)
        assert sorted(task.join() for task in getters) == [0, 1, 2]

    many(fn, within=LOCKS)


# --- doing something once -----------------------------------------------------------------------


def test_once_is_once_and_done_when_it_returns():
    def fn():
        once, steps = Once(), []

        def first():
            steps.append("begun")
            gosched()
            steps.append("done")

        def caller():
            once.do(first)
            assert steps == ["begun", "done"]

        with Group() as g:
            for _ in range(3):
                g.go(caller)

    every(fn, bound=1, within=LOCKS)
    many(fn, within=LOCKS)


def test_a_value_whose_first_caller_is_cancelled():
    """The next one makes it, and all get the same."""

    def fn():
        calls = []

        @once_value
        def value():
            calls.append(None)
            sleep(1)
            return len(calls)

        tasks = [fork(value) for _ in range(3)]
        go(tasks[0].cancel)
        first, *others = map(outcome, tasks)
        assert others in ([1, 1], [2, 2])
        assert first in (Canceled, others[0])

    every(fn, bound=1, within=LOCKS)
    many(fn, within=LOCKS)


def test_single_flight_shares_one_call():
    def fn():
        flights, calls = SingleFlight(), atomic.Int()

        def load():
            n = calls.add(1)
            gosched()
            return n

        def caller():
            value, shared = flights.do("key", load)
            return value, shared

        with Group() as g:
            tasks = [g.go(caller) for _ in range(3)]
        got = Counter(task.join() for task in tasks)
        for (value, shared), times in got.items():
            assert shared == (times > 1), got
            assert (value, not shared) not in got
        assert sorted({value for value, _ in got}) == [*range(1, calls.load() + 1)]
        assert flights._calls == {}

    every(fn, bound=1, within=LOCKS)
    many(fn, within=LOCKS)


def test_single_flight_whose_worker_is_cancelled():
    def fn():
        flights, calls = SingleFlight(), []

        def load():
            calls.append(None)
            if len(calls) == 1:
                sleep(1)
            return "loaded"

        tasks = [fork(lambda: flights.do("key", load)[0]) for _ in range(3)]
        go(tasks[0].cancel)
        go(flights.forget, "key")
        assert outcome(tasks[0]) in ("loaded", Canceled)
        assert [outcome(task) for task in tasks[1:]] == ["loaded", "loaded"]
        assert flights._calls == {}

    many(fn, within=LOCKS)


def test_atomic_changes_are_whole():
    def fn():
        number, ref = atomic.Int(), atomic.Ref("nobody")

        def work(name):
            number.add(1)
            while True:
                old = number.load()
                if number.compare_and_swap(old, old + 10):
                    break
            return ref.compare_and_swap("nobody", name)

        with Group() as g:
            tasks = [g.go(work, name) for name in ("a", "b", "c")]
        assert number.load() == 33
        assert [task.join() for task in tasks].count(True) == 1

    many(fn, within=LOCKS)


def test_a_pool_gives_each_object_to_one():
    def fn():
        made, held = [], []

        def make():
            it = object()
            made.append(it)
            return it

        pool = Pool(make)

        def work():
            for _ in range(2):
                it = pool.get()
                assert it not in held
                held.append(it)
                held.remove(it)
                pool.put(it)

        with Group() as g:
            for _ in range(3):
                g.go(work)
        assert len(made) <= 3
        assert {pool.get() for _ in made} == set(made)
        assert len(pool._idle) == 0

    many(fn, within=LOCKS)


# --- groups and scopes --------------------------------------------------------------------------


def test_a_group_ends_with_its_members():
    def fn():
        ended = []

        def member(n):
            try:
                if n == 1:
                    raise ValueError(n)
                sleep(n)
            finally:
                ended.append(n)

        def body():
            with Group() as g:
                for n in range(4):
                    g.go(member, n)
                Chan().recv()

        with pytest.raises(ExceptionGroup) as caught:
            body()
        assert [type(error) for error in caught.value.exceptions] == [ValueError]
        assert sorted(ended) == [*range(4)]

    many(fn, within=[goroutine])


def test_a_group_with_a_limit():
    def fn():
        running, most = [], []

        def member(n):
            running.append(n)
            most.append(len(running))
            sleep(n % 2)
            running.remove(n)

        with Group(limit=2) as g:
            for n in range(5):
                g.go(member, n)
        assert len(most) == 5
        assert max(most) <= 2

    every(fn, bound=0, within=[goroutine])
    many(fn, within=[goroutine])


def test_a_group_that_somebody_cancels():
    def fn():
        started, ended = [], []

        def member(n):
            started.append(n)
            try:
                sleep(100)
            finally:
                ended.append(n)

        with Group(limit=2) as g:
            go(g.cancel)
            for n in range(3):
                g.go(member, n)
        assert now() < start + 200
        assert sorted(started) == sorted(ended)

    start = now()
    many(fn, within=[goroutine])


def test_members_that_start_members_while_it_ends():
    """Whoever may still start one is a member itself, so the edge sees all of them."""

    def fn():
        ended = []

        def member(depth):
            if depth:
                g.go(member, depth - 1)
                g.go(member, depth - 1)
            ended.append(depth)

        with Group() as g:
            g.go(member, 2)
        assert sorted(ended) == [0, 0, 0, 0, 1, 1, 2]
        with pytest.raises(RuntimeError):
            g.go(int)

    many(fn, within=[goroutine])


def test_a_cancel_reaches_who_starts_and_enters_meanwhile():
    def fn():
        ended = []

        def child():
            with timeout(1000):
                with cancel_scope():
                    try:
                        Chan().recv()
                    except Cancelled:
                        ended.append("child")
                        raise

        def parent():
            with cancel_scope():
                go(child)
                Chan().recv()

        with cancel_scope() as scope:
            go(scope.cancel)
            go(parent)
            Chan().recv()
        wait()
        assert ended == ["child"]

    every(fn)
    many(fn)


def test_a_shield_holds_until_its_end():
    def fn():
        steps = []

        def careful():
            try:
                with shield():
                    sleep(1)
                    steps.append("shielded")
                sleep(1)
                steps.append("not reached")
            finally:
                steps.append("ended")

        with cancel_scope() as scope:
            go(scope.cancel)
            careful()
        assert steps == ["shielded", "ended"]

    every(fn)


def test_a_timeout_and_a_cancel_at_the_same_moment():
    def fn():
        outer, inner = [], []

        def body():
            try:
                with timeout(1) as limit:
                    sleep(2)
            except TimeoutError:
                inner.append(limit.expired)

        with cancel_scope() as scope:
            after_func(1, scope.cancel)
            body()
            outer.append("went on")
            sleep(1)
            outer.append("not reached")
        assert (inner, outer) in (([True], ["went on"]), ([], []))

    every(fn)


# --- contexts and tickers -----------------------------------------------------------------------


def test_a_context_ends_with_all_below_it():
    def fn():
        root, cancel = context.with_cancel(context.background())
        below = []

        def derive():
            ctx, _ = context.with_cancel(root)
            leaf, _ = context.with_timeout(ctx, 1000)
            below.extend([ctx, leaf])
            leaf.done.recv_ok()
            assert isinstance(leaf.err(), Canceled)

        with Group() as g:
            g.go(derive)
            g.go(derive)
            g.go(cancel)
        assert all(isinstance(ctx.err(), Canceled) for ctx in below)
        assert all(ctx.done.closed for ctx in below)
        assert root.err() is below[0].err() is below[3].err()

    every(fn, bound=1)
    many(fn, within=CONTEXTS)


def test_the_function_of_a_context_is_called_or_stopped():
    def fn():
        ctx, cancel = context.with_cancel(context.background())
        calls, stopped = [], []

        def register():
            stop = context.after_func(ctx, lambda: calls.append(True))
            stopped.append(stop())
            assert not stop()

        with Group() as g:
            g.go(register)
            g.go(cancel)
        wait()
        assert [*calls, *stopped].count(True) == 1

    every(fn, within=CONTEXTS, schedules=60_000)


def test_a_cause_is_that_of_the_first():
    def fn():
        ctx, cancel = context.with_cancel_cause(context.background())
        errors = [ValueError("one"), ValueError("two")]
        below, _ = context.with_cancel(ctx)
        with Group() as g:
            for error in errors:
                g.go(cancel, error)
            seen = g.go(lambda: [below.done.recv_ok(), context.cause(below)][1])
        assert context.cause(ctx) in errors
        assert context.cause(ctx) is context.cause(below) is seen.join()

    every(fn, bound=1, within=CONTEXTS)
    many(fn, within=CONTEXTS)


def test_a_deadline_and_a_cancel_at_the_same_moment():
    def fn():
        ctx, cancel = context.with_timeout(context.background(), 1)
        after_func(1, cancel)
        ctx.done.recv_ok()
        first = ctx.err()
        assert first is not None
        wait()
        assert ctx.err() is first

    every(fn, bound=1, within=CONTEXTS)
    many(fn, within=CONTEXTS)


def test_a_ticker_that_is_stopped_while_somebody_iterates():
    def fn():
        ticker, ticks = Ticker(1), []

        def iterate():
            ticks.extend(ticker)

        with Group() as g:
            g.go(iterate)
            g.go(iterate)
            sleep(3)
            ticker.stop()
        assert len(ticks) <= 3

    every(fn, bound=1, within=[gofer_time, _guard])
    many(fn, within=[gofer_time, _guard])
