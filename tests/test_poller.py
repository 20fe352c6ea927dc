"""Waiting for descriptors: `_core.wait_fd` and `wait_fds`."""

import os
import resource
import socket

import pytest

from gofer import Chan, fork, go, gosched, runtime
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

from shared import in_thread
from shared.clock import LONG
from shared.descriptors import drain, fill, places
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left")


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
    a, b = pair
    b.send(b"x")
    assert wait_fd(a, FD_READ | FD_WRITE, None) == FD_READ | FD_WRITE


def test_only_what_was_asked_for_is_told(pair, parked):
    a, b = pair
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
    a, b = pair
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
    a, b = pair
    task = fork(wait_fd, a, FD_READ, None)
    parked(task)
    b.close()
    assert task.join() & FD_READ
    assert a.recv(1) == b""


def test_the_other_side_of_a_socket_sends_no_more(pair, parked):
    a, b = pair
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


def test_a_refused_connection(closing):
    listener = closing(socket.create_server(("127.0.0.1", 0)))
    address = listener.getsockname()
    listener.close()
    client = closing(socket.socket())
    client.setblocking(False)
    client.connect_ex(address)
    assert wait_fd(client, FD_WRITE, None) & FD_BROKEN
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def tcp_pair(closing):
    listener = closing(socket.create_server(("127.0.0.1", 0)))
    client = closing(socket.create_connection(listener.getsockname()))
    server = closing(listener.accept()[0])
    return client, server


def test_urgent_data(closing, parked):
    a, b = tcp_pair(closing)
    urgent = fork(wait_fd, a, FD_URGENT, None)
    parked(urgent)
    b.send(b"!", socket.MSG_OOB)
    assert urgent.join() == FD_URGENT
    assert a.recv(1, socket.MSG_OOB) == b"!"


def test_a_connection_that_is_reset(closing, parked):
    a, b = tcp_pair(closing)
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


def test_a_high_number(pair):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    a, b = pair
    high = min(limit, 1 << 20) - 1
    os.dup2(a.fileno(), high)
    try:
        task = fork(wait_fd, high, FD_READ, None)
        b.send(b"x")
        assert task.join() == FD_READ
    finally:
        os.close(high)


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
    a, b = pair
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
