"""Scopes under load: whoever is cancelled has done nothing by halves, and nobody is forgotten."""

import gc
import itertools
from contextlib import suppress

import pytest

from gofer import (
    Cancelled,
    Chan,
    Cond,
    Goroutine,
    Group,
    Mutex,
    RWMutex,
    Semaphore,
    WaitGroup,
    cancel_scope,
    current,
    fork,
    go,
    gosched,
    select,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled
from gofer.sync import atomic

pytestmark = pytest.mark.usefixtures("nothing_left")


class Tree:
    """The scopes that somebody is in, to cancel one of them at random."""

    def __init__(self, rng):
        self._rng = rng
        self._scopes = {}
        self._names = itertools.count()

    def enter(self, scope):
        name = next(self._names)
        self._scopes[name] = scope
        return name

    def leave(self, name):
        del self._scopes[name]

    def cancel_one(self):
        names = list(self._scopes)
        scope = self._scopes.get(self._rng.choice(names)) if names else None
        if scope is not None:
            scope.cancel()


def in_random_scopes(tree, rng, depth, body, outermost=True):
    """Calls body inside scopes of random kinds; whether it was not cancelled.

    The outermost is one that can be cancelled: none of them waits for ever.
    """
    if depth == 0:
        body()
        return True
    kind = 0 if outermost else rng.random()
    if kind < 0.6:
        with cancel_scope() as scope:
            name = tree.enter(scope)
            try:
                return in_random_scopes(tree, rng, depth - 1, body, False)
            finally:
                tree.leave(name)
        return False
    if kind < 0.9:
        try:
            with timeout(rng.choice([0, 0.0001, 0.001, 0.01, None])):
                return in_random_scopes(tree, rng, depth - 1, body, False)
        except TimeoutError:
            return False
    with suppress(TimeoutError), shield(), timeout(0.01):
        return in_random_scopes(tree, rng, depth - 1, body, False)
    return False


def storm(rng, tree, bodies, spawn_thread, rounds):
    """Runs the bodies, some in threads, in random scopes that are cancelled at random."""
    ended = WaitGroup()

    def run(body):
        try:
            for _ in range(rounds):
                in_random_scopes(tree, rng, rng.randrange(1, 6), body)
        finally:
            ended.done()

    for n, body in enumerate(bodies):
        ended.add()
        (spawn_thread if n % 5 == 4 else go)(run, body)
    stop = []

    def meddle():
        while not stop:
            tree.cancel_one()
            if rng.random() < 0.02:
                gc.collect()
            for _ in range(rng.randrange(4)):
                gosched()

    meddlers = [go(meddle) for _ in range(2)]
    ended.wait()
    stop.append(True)
    for meddler in meddlers:
        meddler.join()


@pytest.mark.parametrize("cap", [0, 1, 10])
def test_what_was_sent_is_received_once_or_still_there(cap, much, rng, spawn_thread):
    ch, other = Chan(cap), Chan(1)
    sent, received, numbers = [], [], itertools.count()

    def send():
        n = next(numbers)
        ch.send(n)
        sent.append(n)

    def recv():
        received.append(ch.recv())

    def send_by_select():
        n = next(numbers)
        select(other.recv, (ch.send, n), None)
        sent.append(n)

    def recv_by_select():
        received.append(select(ch.recv, other.recv)[1])

    bodies = [send, recv, send_by_select, recv_by_select] * 5
    storm(rng, Tree(rng), bodies, spawn_thread, much(40))
    while (left := select(ch.recv, default=True))[0] == 0:
        received.append(left[1])
    assert len(set(received)) == len(received)
    assert sorted(received) == sorted(sent)


def test_no_permit_is_lost(much, rng, spawn_thread):
    sema = Semaphore(5)

    def use(n):
        sema.acquire(n)
        try:
            gosched()
        finally:
            sema.release(n)

    bodies = [lambda n=n: use(n) for n in (1, 2, 5, 1, 3) * 4]
    storm(rng, Tree(rng), bodies, spawn_thread, much(60))
    assert sema.try_acquire(5)


def test_no_lock_is_lost_and_none_is_shared(much, rng, spawn_thread):
    mutex, rw, inside = Mutex(), RWMutex(), atomic.Int(0)
    readers, writers = atomic.Int(0), atomic.Int(0)

    def lock():
        with mutex:
            assert inside.add(1) == 1
            try:
                gosched()
            finally:
                inside.add(-1)

    def read():
        with rw.reading():
            readers.add(1)
            try:
                assert writers.load() == 0
                gosched()
            finally:
                readers.add(-1)

    def write():
        with rw.writing():
            assert writers.add(1) == 1
            try:
                assert readers.load() == 0
                gosched()
            finally:
                writers.add(-1)

    storm(rng, Tree(rng), [lock, read, write, lock] * 5, spawn_thread, much(60))
    assert mutex.try_lock()
    assert rw.try_lock()


def test_a_buffer_between_two_conditions(much, rng, spawn_thread):
    mutex = Mutex()
    not_full, not_empty = Cond(mutex), Cond(mutex)
    buffer, put_in, got, numbers = [], [], [], itertools.count()

    def put():
        with mutex:
            while len(buffer) >= 2:
                not_full.wait()
            n = next(numbers)
            buffer.append(n)
            put_in.append(n)
            not_empty.signal()

    def get():
        with mutex:
            while not buffer:
                not_empty.wait()
            got.append(buffer.pop())
            not_full.signal()

    storm(rng, Tree(rng), [put, get] * 8, spawn_thread, much(50))
    assert sorted(got + buffer) == sorted(put_in)
    # Nobody sleeps through what is left: all signals have arrived or have been passed on.
    while buffer:
        get()
    put()
    get()
    assert mutex.try_lock()


def test_an_exchange_stays_in_step(much, rng, spawn_thread):
    """Each client asks over one of a few lines, and is cancelled anywhere."""
    lines = Chan(3)
    servers = []

    def serve(requests, replies):
        for n in requests:
            replies.send(n * 2)

    for _ in range(3):
        requests, replies = Chan(), Chan(1)
        servers.append(go(serve, requests, replies))
        lines.send((requests, replies))
    asked = atomic.Int(0)

    def ask():
        requests, replies = line = lines.recv()
        try:
            with shield():
                n = rng.randrange(1_000_000)
                requests.send(n)
                assert replies.recv() == 2 * n
                asked.add(1)
            gosched()
        finally:
            lines.send(line)  # there is room: it need not wait

    storm(rng, Tree(rng), [ask] * 15, spawn_thread, much(40))
    assert asked.load() > 0
    assert len(lines) == 3
    for _ in range(3):
        requests, replies = lines.recv()
        requests.send(21)
        assert replies.recv() == 42
        requests.close()
    for server in servers:
        server.join()


def test_everybody_below_a_cancelled_scope_is_reached(much, rng):
    """Trees of goroutines in scopes of their own, some of which their owners have left."""
    ended = atomic.Int(0)

    def grow(depth, started):
        try:
            scope = cancel_scope()
            with scope:
                if depth:
                    for _ in range(rng.randrange(1, 4)):
                        started.add()
                        go(grow, depth - 1, started)
                if rng.random() < 0.5:
                    Chan().recv()
            if scope.cancelled or rng.random() < 0.5:
                Chan().recv()
        finally:
            ended.add(1)
            started.done()

    for _ in range(much(400)):
        started = WaitGroup()
        with cancel_scope() as root:
            started.add()
            go(grow, 4, started)
            for _ in range(rng.randrange(60)):
                gosched()
            root.cancel()
        started.wait()
    assert ended.load() > 0


def test_groups_in_timeouts(much, rng):
    """Every member has ended when the with does, however it ended."""

    def member(depth, alive):
        alive.add(1)
        try:
            if depth and rng.random() < 0.7:
                tree(depth - 1)
            elif rng.random() < 0.1:
                raise KeyError
            else:
                sleep(rng.choice([0, 0.0005, 10_000]))
        finally:
            alive.add(-1)

    def tree(depth):
        alive = atomic.Int(0)
        tasks = []
        try:
            with timeout(rng.choice([0.001, 0.002, 0])), Group(limit=rng.choice([None, 1, 2])) as g:
                for _ in range(rng.randrange(1, 4)):
                    tasks.append(g.go(member, depth, alive))
        except (TimeoutError, ExceptionGroup):
            pass
        finally:
            assert alive.load() == 0
            assert all(task.done for task in tasks)

    for _ in range(much(200)):
        tasks = [fork(tree, 3) for _ in range(4)]
        for task in tasks:
            task.join()


def test_cancel_races_with_the_end(much, rng, spawn_thread):
    """Cancelled from a thread while it is entered and left; nobody is left cancelled."""
    scopes, stop = Chan(1), []

    def meddle():
        for scope in scopes:
            scope.cancel()

    meddlers = [(spawn_thread if n % 2 else go)(meddle) for n in range(4)]
    tasks = []

    def body():
        for _ in range(much(300)):
            scope = cancel_scope()
            if rng.random() < 0.5:
                scopes.send(scope)
            with scope:
                with shield():
                    scopes.send(scope)
                child = fork(gosched)
                if rng.random() < 0.5:
                    gosched()
            gosched()  # raises if anything of it has stayed
            Goroutine.join(child)

    tasks = [fork(body) for _ in range(4)]
    for task in tasks:
        task.join()
    stop.append(True)
    scopes.close()
    for meddler in meddlers:
        if isinstance(meddler, Goroutine):
            meddler.join()


def test_two_workers_share_scopes_that_end_below_them(much, rng):
    """A scope whose owner has left lives on in what was started in it, and in what that starts."""
    alive = WaitGroup()

    def relay(n):
        try:
            with cancel_scope() as mine:
                if n:
                    alive.add()
                    go(relay, n - 1)
                if rng.random() < 0.1:
                    mine.cancel()
                    gosched()
        finally:
            alive.done()

    for _ in range(much(10)):
        with cancel_scope() as root:
            for _ in range(4):
                alive.add()
                go(relay, 200)
            for _ in range(rng.randrange(100)):
                gosched()
            if rng.random() < 0.5:
                root.cancel()
        alive.wait()


def test_task_cancel_against_shields(much, rng):
    """Cancelled by name at any moment, a task finishes what it has begun in a shield."""
    begun, done = atomic.Int(0), atomic.Int(0)

    def body():
        while True:
            gosched()
            with shield():
                begun.add(1)
                with cancel_scope() as inner:
                    if rng.random() < 0.3:
                        inner.cancel()
                    gosched()
                for _ in range(rng.randrange(3)):
                    gosched()
                done.add(1)

    for _ in range(much(500)):
        tasks = [fork(body) for _ in range(5)]
        for task in tasks:
            for _ in range(rng.randrange(20)):
                gosched()
            task.cancel()
        for task in tasks:
            assert isinstance(task.exception(), Canceled)
    assert begun.load() == done.load()


def test_nobody_but_its_members_is_cancelled(much, rng):
    """Bystanders of other scopes wait through a storm of cancellations around them."""
    gate, bystanders = Chan(), []
    with cancel_scope():
        for _ in range(20):
            with timeout(None):
                bystanders.append(fork(gate.recv_ok))
    victims = WaitGroup()

    def victim(scope):
        try:
            Chan().recv()
        except Cancelled:
            assert scope.cancelled
            assert current().state == "running"
            raise
        finally:
            victims.done()

    for _ in range(much(400)):
        with cancel_scope() as scope:
            for _ in range(rng.randrange(10)):
                victims.add()
                go(victim, scope)
            gosched() if rng.random() < 0.5 else None
            scope.cancel()
        victims.wait()
    assert not any(task.done for task in bystanders)
    gate.close()
    assert [task.join() for task in bystanders] == [(None, False)] * 20
