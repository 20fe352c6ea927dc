"""Waiting for descriptors: `_core.wait_fd`, `wait_fds` and what closing one does."""

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import threading
from datetime import timedelta

import pytest

from gofer import Cancelled, Chan, cancel_scope, fork, go, gosched, runtime, timeout
from gofer._core import (
    FD_BROKEN,
    FD_CLOSED,
    FD_READ,
    FD_URGENT,
    FD_WRITE,
    fd_closed,
    fd_closing,
    wait_fd,
    wait_fds,
)
from gofer.errors import Canceled
from gofer.testing import bubble
from gofer.time import now, sleep

from shared import in_thread
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left")

LONG = 10_000  # seconds that are not meant to pass


@pytest.fixture
def files():
    """What is entered here is closed at the end."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def pipe(files):
    """`pipe()` is a pair of descriptors; closing one of them early is all right."""

    def make():
        ends = os.pipe()
        for end in ends:
            files.callback(close_if_open, end)
        return ends

    return make


@pytest.fixture
def pair(files):
    """`pair()` is a pair of sockets."""
    return lambda: [files.enter_context(end) for end in socket.socketpair()]


def close_if_open(fd):
    with contextlib.suppress(OSError):
        os.close(fd)


def close(fd):
    """As a cooperative `os.close` does it."""
    fd_closing(fd)
    os.close(fd)
    fd_closed(fd)


def fill(fd):
    """Write until there is no room."""
    os.set_blocking(fd, False)
    n = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            n += os.write(fd, b"x" * 65536)
    return n


def drain(fd, n):
    while n:
        n -= len(os.read(fd, min(n, 65536)))


PLACES = {"here": fork, "elsewhere": elsewhere}
places = pytest.mark.parametrize("start", PLACES.values(), ids=PLACES)

# --- readiness ----------------------------------------------------------------------------------


@places
def test_it_waits_until_there_is_something_to_read(pipe, parked, start):
    r, w = pipe()
    task = start(wait_fd, r, FD_READ, None)
    parked(task)
    os.write(w, b"x")
    assert task.join() == FD_READ
    assert os.read(r, 10) == b"x"


@places
def test_it_waits_until_there_is_room_to_write(pipe, parked, start):
    r, w = pipe()
    n = fill(w)
    task = start(wait_fd, w, FD_WRITE, None)
    parked(task)
    drain(r, n)
    assert task.join() == FD_WRITE


def test_what_is_ready_needs_no_event(pipe, pair):
    r, w = pipe()
    os.write(w, b"x")
    assert wait_fd(r, FD_READ, None) == FD_READ
    assert wait_fd(w, FD_WRITE, None) == FD_WRITE
    a, b = pair()
    b.send(b"x")
    assert wait_fd(a, FD_READ | FD_WRITE, None) == FD_READ | FD_WRITE


def test_only_what_was_asked_for_is_told(pair, parked):
    a, b = pair()
    b.send(b"x")
    assert wait_fd(a, FD_WRITE, None) == FD_WRITE
    a.recv(1)
    assert wait_fd(a, FD_READ | FD_WRITE, None) == FD_WRITE
    task = fork(wait_fd, a, FD_READ, None)
    parked(task)
    b.send(b"x")
    assert task.join() == FD_READ


def test_it_tells_where_it_waits(pipe, parked):
    r, w = pipe()
    task = fork(wait_fd, r, FD_READ, None)
    parked(task)
    assert [g.waiting_on for g in runtime.goroutines() if g.id == task.id] == ["IO wait"]
    os.write(w, b"x")
    task.join()


def test_a_reader_and_a_writer_of_one_socket_do_not_disturb_each_other(pair, parked):
    a, b = pair()
    n = fill(a.fileno())
    reader = fork(wait_fd, a, FD_READ, None)
    writer = fork(wait_fd, a, FD_WRITE, None)
    parked(reader, writer)
    b.send(b"x")
    assert reader.join() == FD_READ
    assert writer.state == "waiting"
    a.recv(1)
    reader = fork(wait_fd, a, FD_READ, None)
    parked(reader, writer)
    drain(b.fileno(), n)
    assert writer.join() == FD_WRITE
    assert reader.state == "waiting"
    b.send(b"x")
    assert reader.join() == FD_READ


@places
def test_all_that_wait_for_one_descriptor_are_woken(pipe, parked, start):
    r, w = pipe()
    tasks = [s(wait_fd, r, FD_READ, None) for s in (fork, start) * 3]
    parked(*tasks)
    os.write(w, b"x")
    assert [task.join() for task in tasks] == [FD_READ] * 6


def test_one_that_gives_up_does_not_take_it_from_the_others(pipe, parked):
    r, w = pipe()
    first, second, third = [fork(wait_fd, r, FD_READ, None) for _ in range(3)]
    parked(first, second, third)
    second.cancel()
    with pytest.raises(Canceled):
        second.join()
    first.cancel()
    with pytest.raises(Canceled):
        first.join()
    os.write(w, b"x")
    assert third.join() == FD_READ


def test_each_reader_gets_its_own_byte(pipe):
    """Those that come too late find nothing and wait again."""
    r, w = pipe()
    os.set_blocking(r, False)

    def read_one():
        while True:
            try:
                return os.read(r, 1)
            except BlockingIOError:
                wait_fd(r, FD_READ, None)

    tasks = [s(read_one) for s in (fork, elsewhere) * 5]
    for n in range(10):
        os.write(w, bytes([n]))
        gosched()
    assert sorted(task.join() for task in tasks) == [bytes([n]) for n in range(10)]


def test_two_that_only_talk_to_each_other_do_not_keep_it_away(pipe, parked):
    r, w = pipe()
    there, back, stop = Chan(), Chan(), Chan()

    def answer():
        for _ in there:
            back.send(None)

    def ask():
        while not task.done:
            there.send(None)
            back.recv()
        there.close()
        stop.close()

    task = fork(wait_fd, r, FD_READ, None)
    parked(task)
    go(answer)
    go(ask)
    os.write(w, b"x")
    assert stop.recv_ok() == (None, False)
    assert task.join() == FD_READ


def test_it_arrives_while_others_only_yield(pipe, parked):
    r, w = pipe()
    task = fork(wait_fd, r, FD_READ, None)
    parked(task)

    def spin():
        while not task.done:
            gosched()

    spinning = [fork(spin) for _ in range(20)]
    os.write(w, b"x")
    for other in spinning:
        other.join()
    assert task.join() == FD_READ


# --- hang-ups and other events ------------------------------------------------------------------


def test_the_writer_of_a_pipe_is_gone(pipe, parked):
    r, w = pipe()
    task = fork(wait_fd, r, FD_READ, None)
    parked(task)
    os.close(w)
    assert task.join() & FD_BROKEN
    assert os.read(r, 1) == b""


def test_the_reader_of_a_pipe_is_gone(pipe, parked):
    r, w = pipe()
    fill(w)
    task = fork(wait_fd, w, FD_WRITE, None)
    parked(task)
    os.close(r)
    assert task.join() & FD_BROKEN


def test_the_other_side_of_a_socket_is_gone(pair, parked):
    a, b = pair()
    task = fork(wait_fd, a, FD_READ, None)
    parked(task)
    b.close()
    assert task.join() & FD_READ
    assert a.recv(1) == b""


def test_the_other_side_of_a_socket_sends_no_more(pair, parked):
    a, b = pair()
    task = fork(wait_fd, a, FD_READ, None)
    parked(task)
    b.shutdown(socket.SHUT_WR)
    assert task.join() == FD_READ


def test_a_hang_up_is_told_to_who_asks_for_nothing(pipe, parked):
    r, w = pipe()
    task = fork(wait_fd, r, 0, None)
    parked(task)
    os.close(w)
    assert task.join() == FD_BROKEN


def test_a_refused_connection(files):
    listener = files.enter_context(socket.create_server(("127.0.0.1", 0)))
    address = listener.getsockname()
    listener.close()
    client = files.enter_context(socket.socket())
    client.setblocking(False)
    client.connect_ex(address)
    assert wait_fd(client, FD_WRITE, None) & FD_BROKEN
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def tcp_pair(files):
    listener = files.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = files.enter_context(socket.create_connection(listener.getsockname()))
    server = files.enter_context(listener.accept()[0])
    return client, server


def test_urgent_data(files, parked):
    a, b = tcp_pair(files)
    urgent = fork(wait_fd, a, FD_URGENT, None)
    parked(urgent)
    b.send(b"!", socket.MSG_OOB)
    assert urgent.join() == FD_URGENT
    assert a.recv(1, socket.MSG_OOB) == b"!"


def test_a_connection_that_is_reset(files, parked):
    a, b = tcp_pair(files)
    task = fork(wait_fd, a, FD_READ, None)
    parked(task)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    b.close()
    assert task.join() & FD_BROKEN
    with pytest.raises(ConnectionResetError):
        a.recv(1)


# --- what can not be waited for -----------------------------------------------------------------


def test_a_regular_file_is_always_ready(tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        assert wait_fd(file, FD_READ, None) == FD_READ
        assert wait_fd(file, FD_WRITE, None) == FD_WRITE
        assert wait_fd(file, FD_READ | FD_WRITE, 0) == FD_READ | FD_WRITE
        assert wait_fds([(file.fileno(), FD_READ)], None) == [FD_READ]


def test_a_folder_is_always_ready(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    assert wait_fd(fd, FD_READ, None) == FD_READ
    os.close(fd)


def test_one_that_is_not_open(pipe):
    r, _ = pipe()
    os.close(r)
    for seconds in (None, 0, LONG):
        assert wait_fd(r, FD_READ, seconds) == FD_CLOSED
        assert wait_fds([(r, FD_READ)], seconds) == [FD_CLOSED]


@pytest.mark.parametrize("number", [2**31 - 1, 2**30, 2**24, 100_000])
def test_numbers_that_are_never_open(number):
    assert wait_fd(number, FD_READ, None) == FD_CLOSED
    assert wait_fd(number, FD_READ, 0) == FD_CLOSED
    fd_closing(number)
    fd_closed(number)


def test_numbers_that_are_none():
    for number in (-1, -(2**31)):
        with pytest.raises(ValueError):
            wait_fd(number, FD_READ, None)
        for seconds in (None, 0):
            assert wait_fds([(number, FD_READ)], seconds) == [FD_CLOSED]
        fd_closing(number)
        fd_closed(number)
    for number in (2**31, 2**32, 2**64):
        with pytest.raises(OverflowError):
            wait_fd(number, FD_READ, None)
        with pytest.raises(OverflowError):
            wait_fds([(number, FD_READ)], None)
    fd_closing(2**31)
    fd_closed(2**32)


def test_a_high_number(files):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    a, b = [files.enter_context(end) for end in socket.socketpair()]
    high = min(limit, 1 << 20) - 1
    os.dup2(a.fileno(), high)
    files.callback(os.close, high)
    task = fork(wait_fd, high, FD_READ, None)
    b.send(b"x")
    assert task.join() == FD_READ


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((0, 8, None), ValueError),
        ((0, -1, None), ValueError),
        ((0, 256, None), ValueError),
        ((0, "r", None), TypeError),
        ((0, 1), TypeError),
        (("0", 1, None), TypeError),
        ((object(), 1, None), TypeError),
        ((0, 1, "1"), TypeError),
        ((0, 1, float("nan")), ValueError),
    ],
)
def test_misuse_of_wait_fd(args, error):
    with pytest.raises(error):
        wait_fd(*args)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (([(0, 8)], None), ValueError),
        (([0], None), TypeError),
        (([(0,)], None), TypeError),
        (([(0, 1, 2)], None), TypeError),
        (((), None), TypeError),
        (([],), TypeError),
        (([], "1"), TypeError),
    ],
)
def test_misuse_of_wait_fds(args, error):
    with pytest.raises(error):
        wait_fds(*args)


def test_the_list_may_change_while_it_is_read(pipe):
    r, _ = pipe()

    class Number:
        def __index__(self):
            fds.clear()
            return r

    fds = [(Number(), 0), (Number(), 0), (r, FD_READ)]
    assert wait_fds(fds, 0) == [0, 0, 0]


def test_a_plain_thread_is_refused(pipe):
    r, _ = pipe()
    with pytest.raises(RuntimeError, match="only a goroutine can park"):
        in_thread(wait_fd, r, FD_READ, None)
    with pytest.raises(RuntimeError, match="only a goroutine can park"):
        in_thread(wait_fds, [(r, FD_READ)], None)


# --- several at a time --------------------------------------------------------------------------


def test_one_of_many(pipe, parked):
    pipes = [pipe() for _ in range(50)]
    for n in (0, 20, 49):
        task = fork(wait_fds, [(r, FD_READ) for r, _ in pipes], None)
        parked(task)
        os.write(pipes[n][1], b"x")
        assert task.join() == [FD_READ * (k == n) for k in range(50)]
        os.read(pipes[n][0], 1)


def test_several_of_many(pipe):
    (r1, w1), (r2, w2), (r3, _) = pipe(), pipe(), pipe()
    os.write(w1, b"x")
    os.write(w2, b"x")
    ready = wait_fds([(r1, FD_READ), (r2, FD_READ), (r3, FD_READ)], 0)
    assert ready == [FD_READ, FD_READ, 0]
    assert wait_fds([(w3, FD_WRITE) for w3 in (w1, w2)], 0) == [FD_WRITE] * 2


def test_the_same_twice(pair, parked):
    a, b = pair()
    n = fill(a.fileno())
    task = fork(wait_fds, [(a.fileno(), FD_READ), (a.fileno(), FD_WRITE)], None)
    parked(task)
    b.send(b"x")
    assert task.join() == [FD_READ, 0]
    task = fork(wait_fds, [(a.fileno(), FD_WRITE), (a.fileno(), FD_WRITE)], None)
    parked(task)
    drain(b.fileno(), n)
    assert task.join() == [FD_WRITE] * 2


def test_one_of_them_is_not_open(pipe):
    r, _ = pipe()
    gone, _ = pipe()
    os.close(gone)
    assert wait_fds([(r, FD_READ), (gone, FD_READ)], None) == [0, FD_CLOSED]
    assert wait_fds([(-1, FD_READ), (r, FD_READ)], None) == [FD_CLOSED, 0]


def test_none_of_none():
    assert wait_fds([], 0) == []
    assert wait_fds([], 0.001) == []


def test_none_of_none_for_ever_is_a_deadlock(program):
    result = program("""
        from gofer import *
        from gofer._core import wait_fds
        try:
            wait_fds([], None)
        except Deadlock as error:
            print(error)
    """)
    assert result == (0, "all goroutines are asleep - deadlock!\n", "")


# --- time-outs and cancellation -----------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.001, 1e-9, -1, timedelta(milliseconds=1)])
def test_the_time_is_over(pipe, seconds):
    r, _ = pipe()
    assert wait_fd(r, FD_READ, seconds) == 0
    assert wait_fds([(r, FD_READ)] * 3, seconds) == [0, 0, 0]


def test_there_was_time_enough(pipe, parked):
    r, w = pipe()
    tasks = [fork(wait_fd, r, FD_READ, d) for d in (LONG, 1e300, timedelta(days=1))]
    parked(*tasks)
    os.write(w, b"x")
    assert [task.join() for task in tasks] == [FD_READ] * 3


def test_no_time_lets_the_others_run(pipe, one_worker):
    r, w = pipe()
    go(os.write, w, b"x")
    assert wait_fd(r, FD_READ, 0) == FD_READ


def test_a_time_out_around_it(pipe):
    r, _ = pipe()
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            wait_fd(r, FD_READ, None)
    with timeout(LONG):
        assert wait_fd(r, FD_READ, 0.001) == 0


def test_who_is_cancelled_gets_what_is_there(pipe):
    r, w = pipe()
    os.write(w, b"x")
    with cancel_scope() as scope:
        scope.cancel()
        assert wait_fd(r, FD_READ, None) == FD_READ
        assert wait_fds([(r, FD_READ)], LONG) == [FD_READ]
        assert wait_fd(r, FD_READ, 0) == FD_READ
        os.read(r, 1)
        for seconds in (None, LONG, 0):
            with pytest.raises(Cancelled):
                wait_fd(r, FD_READ, seconds)
        with pytest.raises(Cancelled):
            wait_fds([], None)


@places
def test_cancelling_a_task(pipe, parked, start):
    r, w = pipe()
    task = start(wait_fds, [(r, FD_READ), (w, FD_READ)], LONG)
    parked(task)
    task.cancel()
    with pytest.raises(Canceled):
        task.join()
    os.write(w, b"x")
    assert wait_fd(r, FD_READ, None) == FD_READ


def test_the_end_of_run(program):
    result = program("""
        import os
        from gofer import *
        from gofer._core import wait_fd

        def wait():
            try:
                wait_fd(r, 1, None)
            finally:
                print("unwound")

        def main():
            go(wait)
            gosched()

        r, w = os.pipe()
        run(main)
        run(main)
    """)
    assert result == (0, "unwound\nunwound\n", "")


def test_the_end_of_the_program(program):
    result = program("""
        import os
        from gofer import *
        from gofer._core import wait_fd

        r, w = os.pipe()
        for seconds in [None, 1000] * 10:
            go(wait_fd, r, 1, seconds)
        gosched()
        print("end")
    """)
    assert result == (0, "end\n", "")


# --- closing ------------------------------------------------------------------------------------


@places
def test_closing_wakes_all(pair, parked, start):
    a, _ = pair()
    fill(a.fileno())
    fd = a.detach()
    tasks = [s(wait_fd, fd, e, None) for s in (fork, start) for e in (FD_READ, FD_WRITE, 0)]
    tasks.append(start(wait_fds, [(fd, FD_READ)], LONG))
    parked(*tasks)
    close(fd)
    assert [task.join() for task in tasks] == [FD_CLOSED] * 6 + [[FD_CLOSED]]


def test_closing_wakes_nobody_else(pipe, parked):
    (r1, _), (r2, w2) = pipe(), pipe()
    task = fork(wait_fd, r2, FD_READ, None)
    parked(task)
    close(r1)
    gosched()
    assert task.state == "waiting"
    os.write(w2, b"x")
    assert task.join() == FD_READ


@places
def test_who_comes_between_is_told_afterwards(pipe, parked, start):
    r, _ = pipe()
    fd_closing(r)
    task = start(wait_fd, r, FD_READ, None)
    parked(task)
    os.close(r)
    fd_closed(r)
    assert task.join() == FD_CLOSED


@places
def test_who_comes_between_and_the_number_is_used_again(pipe, parked, start):
    r, _ = pipe()
    fd_closing(r)
    old = start(wait_fd, r, FD_READ, None)
    parked(old)
    os.close(r)
    again, w = pipe()
    assert again == r
    fd_closed(r)
    assert old.join() == FD_CLOSED
    new = start(wait_fd, r, FD_READ, None)
    parked(new)
    fd_closed(r)  # told late
    gosched()
    assert new.state == "waiting"
    os.write(w, b"x")
    assert new.join() == FD_READ


def test_a_number_that_was_used_again(pipe):
    """What was asked for the file before is no answer for this one."""
    r, _ = pipe()
    assert wait_fd(r, FD_READ, 0.001) == 0
    os.close(r)
    again, w = pipe()
    assert again == r
    task = fork(wait_fd, r, FD_READ, None)
    gosched()
    os.write(w, b"x")
    assert task.join() == FD_READ


@places
def test_one_that_was_closed_behind_our_back(pipe, parked, start):
    """By a library in C; whoever comes next finds it out."""
    r, _ = pipe()
    old = start(wait_fd, r, FD_READ, None)
    parked(old)
    os.close(r)
    assert wait_fd(r, FD_READ, None) == FD_CLOSED
    assert old.join() == FD_CLOSED


@pytest.mark.skipif(sys.platform == "darwin", reason="a kqueue does not tell")
@places
def test_one_that_was_closed_behind_our_back_and_used_again(pipe, parked, start):
    r, _ = pipe()
    old = start(wait_fd, r, FD_READ, None)
    parked(old)
    os.close(r)
    again, w = pipe()
    assert again == r
    new = fork(wait_fd, r, FD_READ, None)
    assert old.join() == FD_CLOSED
    os.write(w, b"x")
    assert new.join() == FD_READ


@pytest.mark.parametrize("waits_before", [False, True])
def test_the_old_file_lives_on_under_another_number(pipe, parked, waits_before):
    """Its events do not reach who waits for the number now."""
    r, w = pipe()
    if waits_before:
        assert wait_fd(r, FD_READ, 0.001) == 0
    kept = os.dup(r)
    close(r)
    again, w_again = pipe()
    assert again == r
    task = fork(wait_fd, r, FD_READ, None)
    parked(task)
    os.write(w, b"x")
    for _ in range(1000):
        gosched()
    assert task.state == "waiting"
    assert wait_fd(kept, FD_READ, None) == FD_READ
    os.write(w_again, b"x")
    assert task.join() == FD_READ
    os.close(kept)


# --- many ---------------------------------------------------------------------------------------


def test_thousands_of_idle_connections(parked):
    """As many as there may be descriptors; each is woken by its own byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 50_000), hard))
    n = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 200, 20_000)
    pairs = [socket.socketpair() for _ in range(n)]

    def serve(end, k):
        assert wait_fd(end, FD_READ, None) == FD_READ
        return int(end.recv(10)) == k

    tasks = [fork(serve, a, k) for k, (a, _) in enumerate(pairs)]
    parked(*tasks)
    gc.collect()
    for k, (_, b) in enumerate(pairs):
        b.send(b"%d" % k)
    assert all(task.join() for task in tasks)
    for ends in pairs:
        for end in ends:
            end.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_wait_for_many(pipe, rng):
    """Everybody waits for all; each byte is read by exactly one."""
    pipes = [pipe() for _ in range(20)]
    for r, _ in pipes:
        os.set_blocking(r, False)
    got = []

    def read():
        while len(got) < 200:
            seen = wait_fds([(r, FD_READ) for r, _ in pipes], LONG)
            for (r, _), ready in zip(pipes, seen, strict=True):
                if ready:
                    with contextlib.suppress(BlockingIOError):
                        got.append(os.read(r, 1))
        for _, w in pipes:  # the end for those that still wait
            os.write(w, b"!")

    tasks = [fork(read) for _ in range(10)]
    for _ in range(200):
        os.write(rng.choice(pipes)[1], b"x")
        if rng.random() < 0.5:
            gosched()
    for task in tasks:
        task.join()
    assert got.count(b"x") == 200


# --- with the rest of the library ---------------------------------------------------------------


def test_garbage_is_collected_meanwhile(pipe, parked):
    r, w = pipe()

    def wait():
        held = [object()]
        held.append(held)
        assert wait_fds([(r, FD_READ)] * 3, LONG) == [FD_READ] * 3
        return len(held)

    tasks = [fork(wait) for _ in range(10)]
    parked(*tasks)
    for _ in range(3):
        gc.collect()
    os.write(w, b"x")
    assert [task.join() for task in tasks] == [2] * 10


def test_the_clock_of_a_bubble_waits_for_it(pipe):
    r, w = pipe()
    log = []

    def write():
        while not any(g.waiting_on == "IO wait" for g in runtime.goroutines()):
            gosched()
        for _ in range(200):
            gosched()
        log.append("written")
        os.write(w, b"x")

    outside = fork(write)
    fork(gosched).join()  # a wait that only the bubble could end, if there were one
    with bubble():
        go(lambda: (sleep(1), log.append("slept")))
        start = now()
        assert wait_fd(r, FD_READ, None) == FD_READ
        assert (log, now()) == (["written"], start)
        sleep(2)
    assert log == ["written", "slept"]
    outside.join()


def test_in_a_bubble_its_time_is_the_worlds(pipe):
    r, _ = pipe()
    with bubble():
        start = now()
        assert wait_fd(r, FD_READ, 0.001) == 0
        assert now() == start


def test_a_signal_handler_runs_meanwhile(pipe, parked):
    r, w = pipe()
    seen = []

    def handler(signum, frame):
        seen.append(signum)
        os.write(w, b"x")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert wait_fd(r, FD_READ, None) == FD_READ
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("main", ["wait_fd(r, 1, None)", "wait_fds([(r, 1)], 99)", "Chan().recv()"])
def test_ctrl_c_when_all_wait_for_descriptors(program, main):
    result = program(f"""
        import os, signal, subprocess, sys
        from gofer import *
        from gofer._core import wait_fd, wait_fds

        KILL = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGINT)"

        def main():
            waiting = [go(wait_fd, r, 1, None) for _ in range(10)]
            while not all(g.state == "waiting" for g in waiting):
                gosched()
            killer = None
            try:
                killer = subprocess.Popen([sys.executable, "-c", KILL, str(os.getpid())])
                {main}
            except KeyboardInterrupt:
                print("interrupted")
            if killer is not None:
                killer.wait()
            os.write(w, b"x")
            for g in waiting:
                g.join()

        r, w = os.pipe()
        run(main)
    """)
    assert result == (0, "interrupted\n", "")


def test_who_waits_for_a_descriptor_is_no_deadlock_and_who_has_waited_is_one(program):
    result = program("""
        import os, subprocess, sys
        from gofer import *
        from gofer._core import wait_fd

        WRITE = "import os; os.write(1, b'x')"
        r, w = os.pipe()
        child = subprocess.Popen([sys.executable, "-c", WRITE], stdout=w)
        go(lambda: print("ready", wait_fd(r, 1, None)))
        try:
            Chan().recv()
        except Deadlock:
            print("deadlock")
        child.wait()
    """)
    assert result == (0, "ready 1\ndeadlock\n", "")


# --- fork ---------------------------------------------------------------------------------------


def test_fork_while_others_wait(program):
    result = program("""
        import os, warnings
        from gofer import *
        from gofer._core import fd_closed, fd_closing, wait_fd

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads
        r, w = os.pipe()
        waiting = [fork(wait_fd, r, 1, seconds) for seconds in [None, 1000] * 5]
        while not all(g.state == "waiting" for g in waiting):
            gosched()

        pid = os.fork()
        if pid == 0:
            # What it does with its own poller and descriptors does not disturb the parent.
            assert runtime.num_goroutine() == 1
            fd_closing(r)
            os.close(r)
            fd_closed(r)
            os.close(w)
            r, w = os.pipe()
            tasks = [fork(wait_fd, r, 1, None) for _ in range(5)]
            gosched()
            os.write(w, b"x")
            assert [task.join() for task in tasks] == [1] * 5
            os._exit(0)

        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print({g.state for g in waiting})
        os.write(w, b"x")
        print({g.join() for g in waiting})
    """)
    assert result == (0, "0\n{'waiting'}\n{1}\n", "")


def test_the_child_of_a_fork_knows_its_deadlock(program):
    result = program("""
        import os, warnings
        from gofer import *
        from gofer._core import wait_fd

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads
        r, w = os.pipe()
        go(wait_fd, r, 1, None)
        gosched()
        pid = os.fork()
        try:
            if pid == 0:
                Chan().recv()
        except Deadlock:
            os._exit(42)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert result == (0, "42\n", "")
