"""That nothing is lost by a cancellation."""

import pytest

from gofer import (
    Chan,
    Cond,
    Goroutine,
    Mutex,
    RWMutex,
    Semaphore,
    cancel_scope,
    fork,
    go,
    gosched,
    shield,
    timeout,
)
from gofer.errors import Canceled
from gofer.sync import SingleFlight

from shared.points import wait_for
from shared.schedules import many, outcome

pytestmark = pytest.mark.usefixtures("nothing_left")


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


@pytest.mark.parametrize("ask", ["ask_shielded", "ask_and_mend", "ask_and_renew"])
def test_an_exchange_that_is_cancelled_at_any_moment_stays_in_step(ask):
    """One of two that share the connection, wherever it stands and whatever the other one does."""

    def fn():
        connection = Connection()
        go(connection.serve)

        def client(n):
            return getattr(connection, ask)(n)

        tasks = [fork(client, n) for n in (2, 3)]
        tasks[0].cancel()
        assert outcome(tasks[0]) in (4, Canceled)
        assert outcome(tasks[1]) == 9
        assert client(5) == 25
        connection.requests.close()

    many(fn)


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
