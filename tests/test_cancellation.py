"""What cancellation does to each operation that waits, and that nothing is lost by it.

A point is one way to wait: `wait` does it where it would take for ever, `at_once` where it needs no
waiting. `gate` is what the goroutines that make it so wait for.
"""

import threading
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import pytest

from gofer import (
    Cancelled,
    Chan,
    Cond,
    Goroutine,
    Group,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    Ticker,
    Timer,
    WaitGroup,
    after,
    cancel_scope,
    current,
    fork,
    go,
    gosched,
    run,
    select,
    shield,
    sleep,
    timeout,
)
from gofer.sync import SingleFlight, once_value

pytestmark = pytest.mark.usefixtures("nothing_left")

LONG = 10_000  # seconds that are not meant to pass

# --- the points ---------------------------------------------------------------------------------


class Point(NamedTuple):
    wait: object
    at_once: object


POINTS = {}


def point(make):
    POINTS[make.__name__] = make
    return make


def full():
    ch = Chan(1)
    ch.send(1)
    return ch


def locked(lock):
    lock.lock()
    return lock


def closed():
    ch = Chan()
    ch.close()
    return ch


def enter(manager):
    with manager:
        pass


@point
def send(gate):
    return Point(partial(Chan().send, 1), partial(Chan(1).send, 1))


@point
def send_to_a_full_channel(gate):
    return Point(partial(full().send, 1), partial(Chan(1).send, 1))


@point
def recv(gate):
    return Point(Chan().recv, full().recv)


@point
def recv_ok(gate):
    return Point(Chan().recv_ok, closed().recv_ok)


@point
def iteration(gate):
    return Point(partial(list, Chan()), partial(list, closed()))


@point
def views(gate):
    return Point(Chan().receiver.recv, partial(Chan(1).sender.send, 1))


@point
def select_of_two(gate):
    return Point(
        partial(select, Chan().recv, (full().send, 1)), partial(select, Chan().recv, full().recv)
    )


@point
def select_of_nothing(gate):
    return Point(select, partial(select, default=True))


@point
def select_of_never_ready_ones(gate):
    return Point(partial(select, None, None), partial(select, None, closed().recv_ok))


@point
def mutex(gate):
    return Point(locked(Mutex()).lock, Mutex().lock)


@point
def with_mutex(gate):
    return Point(partial(enter, locked(Mutex())), partial(enter, Mutex()))


@point
def write_lock(gate):
    return Point(locked(RWMutex()).lock, RWMutex().lock)


@point
def write_lock_behind_a_reader(gate):
    rw = RWMutex()
    rw.rlock()
    return Point(rw.lock, RWMutex().lock)


@point
def read_lock(gate):
    return Point(locked(RWMutex()).rlock, RWMutex().rlock)


@point
def with_reading(gate):
    return Point(partial(enter, locked(RWMutex()).reading()), partial(enter, RWMutex().reading()))


@point
def with_writing(gate):
    return Point(partial(enter, locked(RWMutex()).writing()), partial(enter, RWMutex().writing()))


@point
def acquire(gate):
    sema = Semaphore(1)
    sema.acquire()
    return Point(sema.acquire, Semaphore(1).acquire)


@point
def acquire_several(gate):
    sema = Semaphore(3)
    sema.acquire(2)
    return Point(partial(sema.acquire, 2), partial(Semaphore(3).acquire, 3))


@point
def acquire_behind_one_that_wants_more(gate):
    sema = Semaphore(3)
    sema.acquire()
    first = fork(sema.acquire, 3)
    wait_for(first)
    gate.at_close(sema.release)
    return Point(sema.acquire, Semaphore(1).acquire)


@point
def wait_group(gate):
    wg = WaitGroup()
    wg.add()
    return Point(wg.wait, WaitGroup().wait)


@point
def with_wait_group(gate):
    wg = WaitGroup()
    wg.add()
    return Point(partial(enter, wg), partial(enter, WaitGroup()))


@point
def join(gate):
    return Point(go(gate.wait).join, ended(go(int)).join)


@point
def join_of_a_task(gate):
    return Point(fork(gate.wait).join, ended(fork(int)).join)


@point
def exception_of_a_task(gate):
    return Point(fork(gate.wait).exception, ended(fork(int)).exception)


@point
def cond(gate):
    mutex = Mutex()
    cond = Cond(mutex)

    def wait():
        with mutex:
            try:
                cond.wait()
            finally:
                assert not mutex.try_lock()

    return Point(wait, cond.signal)


@point
def once(gate):
    once = Once()
    wait_for(fork(once.do, gate.wait))
    done = Once()
    done.do(int)
    return Point(partial(once.do, int), partial(done.do, int))


@point
def value_made_once(gate):
    value, quick = once_value(gate.wait), once_value(int)
    wait_for(fork(value))
    return Point(value, quick)


@point
def single_flight(gate):
    flight = SingleFlight()
    wait_for(fork(flight.do, 1, gate.wait))
    return Point(partial(flight.do, 1, int), partial(flight.do, 2, int))


@point
def sleep_long(gate):
    return Point(partial(sleep, LONG), current)


@point
def after_long(gate):
    return Point(after(LONG).recv, fired(after(0)).recv)


@point
def timer(gate):
    return Point(Timer(LONG).c.recv, fired(Timer(0).c).recv)


@point
def ticker(gate):
    return Point(partial(next, Ticker(LONG)), current)


@point
def place_in_a_group(gate):
    groups = Chan()

    def owner():
        with Group(limit=1) as g:
            g.go(gate.wait)
            groups.send(g)

    go(owner)
    with Group(limit=1) as roomy:
        pass
    g = groups.recv()

    def at_once():
        with suppress(RuntimeError):
            roomy.go(int)

    return Point(partial(g.go, int), at_once)


@point
def edge_of_a_group(gate):
    def member(owner):
        try:
            Chan().recv()
        finally:
            with shield():
                wait_for(owner)

    def wait():
        with Group() as g:
            g.go(member, current())

    return Point(wait, partial(enter, Group()))


class Gate:
    """Holds until it is closed, whatever becomes of who waits for it."""

    def __init__(self):
        self._ch = Chan()
        self._closers = []

    def wait(self):
        with shield():
            self._ch.recv_ok()

    def at_close(self, fn):
        self._closers.append(fn)

    def close(self):
        self._ch.close()
        for fn in self._closers:
            fn()


def wait_for(goroutine):
    while goroutine.state != "waiting":
        gosched()


def ended(goroutine):
    Goroutine.join(goroutine)
    return goroutine


def fired(ch):
    sleep(0.001)  # has the later deadline, in the same heap
    return ch


@pytest.fixture(params=POINTS)
def at(request):
    gate = Gate()
    yield POINTS[request.param](gate)
    gate.close()


# --- at each of them ----------------------------------------------------------------------------


def test_it_raises_when_it_would_wait_again_and_again(at):
    with cancel_scope() as scope:
        scope.cancel()
        for _ in range(3):
            with pytest.raises(Cancelled):
                at.wait()


def test_it_is_done_when_it_need_not_wait(at):
    with cancel_scope() as scope:
        scope.cancel()
        at.at_once()


def test_it_is_woken(at):
    def body():
        with cancel_scope() as scope:
            scopes.send(scope)
            with pytest.raises(Cancelled):
                at.wait()
            with pytest.raises(Cancelled):
                at.wait()
        return scope

    scopes = Chan()
    task = fork(body)
    scope = scopes.recv()
    wait_for(task)
    scope.cancel()
    assert task.join() is scope


def test_a_timeout_ends_it(at):
    with timeout(0.001) as limit:
        pass
    assert not limit.expired
    with pytest.raises(TimeoutError):
        with timeout(0.001) as limit:
            at.wait()
    assert limit.expired


def test_a_shield_holds_it_off(at):
    """What is shielded waits on: only a scope inside the shield ends it."""
    log = []

    def body():
        with cancel_scope() as outer:
            with shield():
                with cancel_scope() as inner:
                    scopes.send((outer, inner))
                    try:
                        at.wait()
                    finally:
                        log.append(inner.cancelled)
            with pytest.raises(Cancelled):
                at.wait()

    scopes = Chan()
    task = fork(body)
    outer, inner = scopes.recv()
    wait_for(task)
    outer.cancel()
    assert task.state == "waiting"
    inner.cancel()
    task.join()
    assert log == [True]


def test_task_cancel_ends_it(at):
    task = fork(at.wait)
    wait_for(task)
    task.cancel()
    Goroutine.join(task)
    assert type(task.exception()).__name__ == "Canceled"


def test_a_plain_thread_is_woken(at):
    log, scopes = [], Chan()

    def body():
        with cancel_scope() as scope:
            scopes.send((scope, current()))
            try:
                at.wait()
            except Cancelled:
                log.append("cancelled")
                raise

    thread = threading.Thread(target=body)
    thread.start()
    scope, goroutine = scopes.recv()
    wait_for(goroutine)
    scope.cancel()
    while thread.is_alive():
        gosched()
    assert log == ["cancelled"]


def test_it_waits_on_after_a_cancelled_scope(at):
    """Cancelled once, the point works again: the same wait is woken a second time."""
    with cancel_scope() as scope:
        scope.cancel()
        at.wait()
    task = fork(at.wait)
    wait_for(task)
    task.cancel()
    Goroutine.join(task)


@pytest.mark.parametrize("turn", [gosched, partial(sleep, 0), partial(sleep, -1)])
def test_giving_way_raises_too(turn):
    with cancel_scope() as scope:
        scope.cancel()
        for _ in range(3):
            with pytest.raises(Cancelled):
                turn()
    turn()


def test_giving_way_raises_when_cancelled_meanwhile():
    with cancel_scope() as scope:
        go(scope.cancel)
        with pytest.raises(Cancelled):
            while True:
                gosched()
    assert scope.cancelled


def test_run_inside_a_scope():
    def main(log):
        inner = fork(Chan().recv)
        wait_for(inner)
        scope.cancel()
        try:
            Chan().recv()
        finally:
            log.append("main")

    log = []
    with cancel_scope() as scope:
        run(main, log)
        log.append("not here")
    assert log == ["main"]


def test_run_that_does_not_wait_returns_in_a_cancelled_scope():
    with cancel_scope() as scope:
        scope.cancel()
        assert run(int) == 0


def test_closing_wakes_and_does_not_wait():
    ch = Chan()
    task = fork(ch.recv_ok)
    wait_for(task)
    with cancel_scope() as scope:
        scope.cancel()
        ch.close()
    assert task.join() == (None, False)


def test_starting_does_not_wait():
    ran = Chan(4)
    with cancel_scope() as scope:
        scope.cancel()
        go(ran.send, 1)
        fork(ran.send, 2)
        WaitGroup().go(ran.send, 3)
        with Group() as g:
            g.go(ran.send, 4)
    assert sorted(ran.recv() for _ in range(4)) == [1, 2, 3, 4]


def test_a_lock_that_is_free_is_taken_although_others_queue():
    """After an unlock the mutex is free for a moment, while its next owner is on the way."""
    mutex, log = locked(Mutex()), []

    def queued():
        with mutex:
            log.append("queued")

    tasks = [fork(queued) for _ in range(3)]
    for task in tasks:
        wait_for(task)
    with cancel_scope() as scope:
        scope.cancel()
        mutex.unlock()
        try:
            taken = mutex.try_lock()
            if taken:
                mutex.unlock()
                mutex.lock()  # as free as it was for try_lock
                mutex.unlock()
        except Cancelled:
            log.append("raised")
    for task in tasks:
        task.join()
    assert log == ["queued"] * 3


# --- nothing is lost ----------------------------------------------------------------------------


def test_a_cancelled_send_has_sent_nothing():
    ch = Chan()
    with cancel_scope() as scope:
        scope.cancel()
        ch.send(1)
    task = fork(ch.recv)
    wait_for(task)
    ch.send(2)
    assert task.join() == 2


def test_a_cancelled_acquire_lets_those_behind_it_pass():
    sema = Semaphore(3)
    sema.acquire()
    with cancel_scope() as scope:
        large = fork(sema.acquire, 3)
        wait_for(large)
        small = [fork(sema.acquire) for _ in range(2)]
        for task in small:
            wait_for(task)
        large.cancel()
        for task in small:
            task.join()
        scope.cancel()
    assert not sema.try_acquire()
    sema.release(3)
    assert sema.try_acquire(3)


def test_a_cancelled_writer_lets_readers_pass():
    rw = RWMutex()
    rw.rlock()
    writer = fork(rw.lock)
    wait_for(writer)
    reader = fork(rw.rlock)
    wait_for(reader)
    writer.cancel()
    reader.join()


def test_a_signal_is_not_lost_with_a_cancelled_waiter():
    mutex = Mutex()
    cond = Cond(mutex)

    def waiter():
        with mutex:
            cond.wait()

    first, second = fork(waiter), fork(waiter)
    wait_for(first)
    wait_for(second)
    with mutex:  # the first gets the signal, and is cancelled before it has the lock again
        cond.signal()
        first.cancel()
    cond.signal()
    Goroutine.join(first)
    Goroutine.join(second)
    assert second.exception() is None or first.exception() is None


def test_who_waits_for_a_single_flight_is_cancelled_alone():
    flight, gate = SingleFlight(), Chan()
    leader = fork(flight.do, 1, gate.recv)
    wait_for(leader)
    followers = [fork(flight.do, 1, int) for _ in range(3)]
    for task in followers:
        wait_for(task)
    followers[0].cancel()
    Goroutine.join(followers[0])
    gate.send("value")
    assert [task.join() for task in (leader, *followers[1:])] == [("value", True)] * 3


def test_followers_do_not_get_the_cancelled_of_the_leader():
    flight = SingleFlight()
    leader = fork(flight.do, 1, Chan().recv)
    wait_for(leader)
    follower = fork(flight.do, 1, lambda: "mine")
    wait_for(follower)
    leader.cancel()
    assert follower.join()[0] == "mine"


# --- an exchange in step ------------------------------------------------------------------------


class Connection:
    """A request and its reply over one line, as a pooled connection of a database has it."""

    def __init__(self):
        self.lock = Mutex()
        self.requests, self.replies = Chan(), Chan(1)

    def ask_shielded(self, n):
        """Begun is finished: Cancelled comes while it waits for the lock, or after it."""
        with self.lock:
            with shield():
                self.requests.send(n)
                return self.replies.recv()

    def ask_and_mend(self, n):
        """Cancelled half-way, it takes the reply that is still to come before it lets go."""
        with self.lock:
            self.requests.send(n)
            try:
                return self.replies.recv()
            except BaseException:
                with shield():
                    self.replies.recv()
                raise

    def ask_and_renew(self, n):
        """Cancelled half-way, the line is thrown away and a new one is used."""
        with self.lock:
            try:
                self.requests.send(n)
                return self.replies.recv()
            except BaseException:
                self.requests.close()
                self.requests, self.replies = Chan(), Chan(1)
                with shield():  # or it would be born cancelled
                    go(self.serve)
                raise

    def serve(self):
        requests, replies = self.requests, self.replies
        for n in requests:
            replies.send(n * n)


def waits(task):
    """Lets it run until it waits; whether it does, rather than having ended."""
    while task.state != "waiting" and not task.done:
        gosched()
    return not task.done


@pytest.mark.parametrize("ask", ["ask_shielded", "ask_and_mend", "ask_and_renew"])
def test_an_exchange_that_is_cancelled_at_any_wait_stays_in_step(ask):
    """The client is cancelled at its k-th wait, for every k until it ends without so many."""
    ends = []
    for k in range(100):
        connection = Connection()
        connection.lock.lock()
        scopes = Chan()

        def client(connection=connection, scopes=scopes):
            with cancel_scope() as scope:
                scopes.send(scope)
                return [getattr(connection, ask)(n) for n in (2, 3)]
            return "cancelled"

        task = fork(client)
        scope = scopes.recv()
        line = connection.requests, connection.replies
        # What the other side does, each when the client has come to wait for it.
        asked = []
        steps = [
            connection.lock.unlock,
            lambda line=line, asked=asked: asked.append(line[0].recv()),
            lambda line=line, asked=asked: line[1].send(asked[-1] ** 2),
        ]
        steps += steps[1:]
        reached = False
        for n, step in enumerate(steps):
            if not waits(task):
                break
            if n == k:
                reached = True
                scope.cancel()
                if not waits(task):
                    if n == 0:
                        connection.lock.unlock()
                    break
            step()
        ends.append(task.join())
        server = go(connection.serve) if connection.requests is line[0] else None
        assert [getattr(connection, ask)(n) for n in (5, 6, 7)] == [25, 36, 49]
        connection.requests.close()
        if server:
            server.join()
        if not reached:
            break
    assert ends[-1] == [4, 9]
    assert len(ends) > 5
    assert set(map(str, ends)) == {"[4, 9]", "cancelled"}


def test_an_unprotected_exchange_gets_out_of_step():
    """Why the others take the trouble: this is what pools of connections have suffered from."""
    requests, replies = Chan(1), Chan(1)

    def ask(n):
        requests.send(n)
        return replies.recv()

    def serve():
        for n in requests:
            replies.send(n)

    with pytest.raises(TimeoutError):
        with timeout(0.001):
            ask(1)
    go(serve)
    assert ask(2) == 1
    assert replies.recv() == 2
    requests.close()
