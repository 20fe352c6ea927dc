"""Descriptors under load: nobody gets what is not his, and nobody waits for ever."""

import contextlib
import os
import socket
from functools import partial

import pytest

from gofer import Cancelled, Chan, Group, cancel_scope, fork, go, gosched, sleep
from gofer._core import FD_CLOSED, FD_READ, FD_WRITE, fd_closed, fd_closing, wait_fd, wait_fds
from gofer.errors import Canceled

from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left")


def close(fd):
    fd_closing(fd)
    os.close(fd)
    fd_closed(fd)


def read(fd, n, rng):
    """All n bytes; gives up waiting again and again on the way."""
    got = b""
    while len(got) < n:
        try:
            got += os.read(fd, n - len(got))
        except BlockingIOError:
            wait_fd(fd, FD_READ, rng.choice([None, 10, 0, 1e-5]))
    return got


def write(fd, data):
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            wait_fd(fd, FD_WRITE, None)


# --- numbers that are used again ----------------------------------------------------------------


def test_every_file_carries_its_own_data(rng, much):
    """Descriptors are opened and closed all the time, as few numbers as can be."""

    def talk(k):
        for n in range(much(100)):
            a, b = socket.socketpair()
            a.setblocking(False)
            b.setblocking(False)
            text = b"%d/%d " % (k, n) * rng.choice([1, 50, 30_000])
            writing = fork(write, a.fileno(), text)
            assert read(b.fileno(), len(text), rng) == text
            writing.join()
            for end in rng.sample([a, b], 2):
                if rng.random() < 0.5:
                    end.close()  # as a library in C would
                else:
                    close(end.detach())

    with Group() as g:
        for k in range(10):
            g.go(talk, k)


def test_who_waits_for_one_that_is_closed_is_told(rng, much):
    """And if the number is open again at once, it is not the new file that he hears of."""

    def wait(fd):
        return wait_fd(fd, FD_READ, None)

    for _ in range(much(300)):
        r, w = os.pipe()
        tasks = [fork(wait, r) for _ in range(rng.randrange(1, 5))]
        for _ in range(rng.randrange(3)):
            gosched()
        close(r)
        again, w_again = os.pipe()
        assert again == r
        news = [fork(wait, r) for _ in range(rng.randrange(1, 5))]
        for _ in range(rng.randrange(3)):
            gosched()
        os.write(w_again, b"x")
        # Those that had not begun to wait when it was closed wait for the new one.
        assert {task.join() for task in tasks} <= {FD_CLOSED, FD_READ}
        assert {task.join() for task in news} == {FD_READ}
        for fd in (r, w, w_again):
            os.close(fd)


@pytest.mark.parametrize("told", [True, False])
def test_one_number_for_many_files(rng, much, told):
    """dup2 in a tight loop; the old files live on and become readable when they have been replaced.

    Who is told that there is something to read must have waited while that was true.
    """
    files = [os.pipe() for _ in range(8)]
    number = os.dup(files[0][0])
    turn, written, over = 0, set(), False
    wrong = []

    def wait():
        while not over:
            first = turn
            ready = wait_fd(number, FD_READ, rng.choice([None, 10, 1e-5, 0]))
            if ready == FD_READ and not written & set(range(first, turn + 1)):
                wrong.append((first, turn))
            gosched()

    def replace():
        nonlocal turn
        turn += 1
        if told:
            fd_closing(number)
        os.dup2(files[turn % 8][0], number)
        if told:
            fd_closed(number)

    tasks = [fork(wait) for _ in range(6)]
    for _ in range(much(1000)):
        for _ in range(rng.randrange(4)):
            gosched()
        old = turn
        replace()
        if told or rng.random() < 0.5:  # unless he is told, one may wait for an old one for ever
            os.write(files[old % 8][1], b"x")
            for _ in range(rng.randrange(3)):
                gosched()
            os.read(files[old % 8][0], 1)
        if rng.random() < 0.2:
            written.add(turn)
            os.write(files[turn % 8][1], b"x")
            for _ in range(rng.randrange(4)):
                gosched()
            os.read(files[turn % 8][0], 1)
    over = True
    while not all(task.done for task in tasks):
        if told:
            replace()
        else:
            written.add(turn)
            for _, w in files:
                os.write(w, b"x")
        gosched()
    for task in tasks:
        task.join()
    assert told is False or wrong == []
    for fd in (number, *(end for ends in files for end in ends)):
        os.close(fd)


# --- several on one descriptor ------------------------------------------------------------------


def test_many_readers_and_writers_of_one_pipe(rng, much):
    """Each byte is read once; writers wait for room, readers for data, some give up."""
    r, w = os.pipe()
    os.set_blocking(r, False)
    os.set_blocking(w, False)
    each, got = much(30), []
    size = 4096  # what is not more is written as a whole

    def send(k):
        for _ in range(each):
            write(w, bytes([k]) * size)

    def receive():
        while True:
            try:
                data = os.read(r, rng.randrange(1, 3 * size))
            except BlockingIOError:
                with cancel_scope() as scope:
                    if rng.random() < 0.3:
                        go(scope.cancel)
                    ready = wait_fds([(r, FD_READ)] * rng.randrange(1, 4), rng.choice([None, 1e-5]))
                    assert FD_CLOSED not in ready
            else:
                if not data:
                    return
                got.append(data)

    readers = [fork(receive) for _ in range(5)]
    with Group() as g:
        for k in range(6):
            g.go(send, k)
    os.close(w)
    for task in readers:
        task.join()
    whole = b"".join(got)
    assert [whole.count(k) for k in range(6)] == [each * size] * 6
    os.close(r)


def test_many_readers_and_writers_of_one_that_blocks(rng, much, cooperative):
    """Each record arrives once and whole; who gives up has written, or taken, nothing."""
    r, w = os.pipe()
    size = 512
    sent, got = [], []

    def at_risk(call, *args):
        with cancel_scope() as scope:
            if rng.random() < 0.3:
                go(scope.cancel)
            return call(*args)
        return None

    def send(k):
        for n in range(much(60)):
            record = b"%8d" % (1000 * k + n) * (size // 8)
            many = rng.randrange(1, 8)  # what is not more than a page is written as a whole
            if at_risk(os.write, w, record * many) is not None:
                sent.extend([record] * many)

    def receive():
        while (data := at_risk(os.read, r, size * rng.randrange(1, 20))) != b"":
            for at in range(0, len(data or b""), size):
                got.append(data[at : at + size])

    readers = [fork(receive) for _ in range(8)]
    with Group() as g:
        for k in range(8):
            g.go(send, k)
    os.close(w)
    for task in readers:
        task.join()
    assert sorted(got) == sorted(sent)
    os.close(r)


def test_readers_on_two_workers(much, cooperative, until):
    """One takes the byte; were the other to block its worker, the next might never be written."""
    r, w = os.pipe()
    got = []

    def receive():
        while data := os.read(r, 1):
            got.append(data)

    readers = [elsewhere(receive), fork(receive), elsewhere(receive), fork(receive)]
    for n in range(1, much(2000)):
        os.write(w, b"x")
        until(lambda n=n: len(got) == n)
    os.close(w)
    for task in readers:
        task.join()
    os.close(r)


def test_many_accept_from_one_listener(rng, much):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.setblocking(False)
        n = much(150)
        served = Chan(n)

        def serve():
            with contextlib.suppress(Cancelled):
                while True:
                    try:
                        connection, _ = listener.accept()
                    except BlockingIOError:
                        wait_fd(listener, FD_READ, None)
                        continue
                    with connection:
                        connection.setblocking(False)
                        word = read(connection.fileno(), 4, rng)
                        write(connection.fileno(), word)
                        served.send(word)

        def ask(k):
            with socket.socket() as client:
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
                assert wait_fd(client, FD_WRITE, None) & FD_WRITE
                word = b"%04d" % k
                write(client.fileno(), word)
                assert read(client.fileno(), 4, rng) == word

        servers = [fork(serve) for _ in range(8)]
        with Group(limit=40) as g:
            for k in range(n):
                g.go(ask, k)
        for task in servers:
            task.cancel()
            with contextlib.suppress(Canceled):
                task.join()
        assert sorted(served.recv() for _ in range(n)) == [b"%04d" % k for k in range(n)]


# --- events, time-outs, cancellations and closing at the same moment ----------------------------


def test_what_comes_first_counts(rng, much):
    """An event, the end of the time, a cancellation and a close race for each wait."""

    def wait(fd, out):
        try:
            out.append(wait_fd(fd, FD_READ, rng.choice([None, 2e-5, 1e-4])))
        except Cancelled:
            out.append("cancelled")

    for _ in range(much(300)):
        r, w = os.pipe()
        out = []
        tasks = [fork(wait, r, out) for _ in range(4)]
        for _ in range(rng.randrange(3)):
            gosched()
        acts = [partial(os.write, w, b"x"), *(task.cancel for task in tasks)]
        for act in rng.sample(acts, rng.randrange(len(acts))):
            act()
            if rng.random() < 0.3:
                gosched()
            if rng.random() < 0.1:
                sleep(3e-5)
        close(r)
        for task in tasks:
            with contextlib.suppress(Canceled):
                task.join()
        assert set(out) <= {0, FD_READ, FD_CLOSED, FD_READ | FD_CLOSED, "cancelled"}
        os.close(w)
