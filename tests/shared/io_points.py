"""Places where the standard library waits for a socket, a pipe or a child process.

A point is something that waits. `wait` does it where it would take for ever, and `wake` lets one
that waits go on, from a goroutine or a thread.
"""

import contextlib
import os
import select
import selectors
import socket
import subprocess
import sys
from typing import NamedTuple

import pytest

from gofer import Cancelled, cancel_scope, go


class Point(NamedTuple):
    wait: object
    wake: object
    sockets: tuple = ()
    close: object = lambda: None


def fill(sock):
    """Send until there is no room; the mode is as before."""
    limit = sock.gettimeout()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(100_000))
    sock.settimeout(limit)


def drain(sock):
    limit = sock.gettimeout()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1_000_000):
            pass
    sock.settimeout(limit)


POINTS = {}


def point(make):
    POINTS[make.__name__] = make
    return make


def receiving(name, call):
    def make():
        a, b = socket.socketpair()
        return Point(lambda: call(a), lambda: b.send(b"hello"), (a, b))

    POINTS[name] = make


receiving("recv", lambda a: a.recv(10))
receiving("recv_into", lambda a: a.recv_into(bytearray(10)))
receiving("recv_into_with_names", lambda a: a.recv_into(buffer=bytearray(10), nbytes=5))
receiving("recvfrom", lambda a: a.recvfrom(10))
receiving("recvfrom_into", lambda a: a.recvfrom_into(bytearray(10)))
receiving("recvmsg", lambda a: a.recvmsg(10, 100))
receiving("recvmsg_into", lambda a: a.recvmsg_into([bytearray(10)]))
receiving("recvmsg_into_of_an_iterator", lambda a: recvmsg_into_of_an_iterator(a))
receiving("makefile", lambda a: a.makefile("rb").read(5))
receiving("select_read", lambda a: select.select([a], [], []))
receiving("select_of_an_iterator", lambda a: select.select(iter([a]), iter([]), ()))
receiving("wait_for_one", lambda a: selected(selectors.DefaultSelector, a))
receiving("wait_by_poll", lambda a: selected(selectors.PollSelector, a))
receiving("wait_by_select", lambda a: selected(selectors.SelectSelector, a))


def recvmsg_into_of_an_iterator(a):
    assert a.recvmsg_into(iter([bytearray(3), bytearray(10)]))[0] == 5


def selected(kind, a):
    with kind() as selector:
        selector.register(a, selectors.EVENT_READ, "data")
        assert [key.data for key, _ in selector.select()] == ["data"]


def sending(name, call):
    def make():
        a, b = socket.socketpair()
        fill(a)
        return Point(lambda: call(a), lambda: drain(b), (a, b))

    POINTS[name] = make


sending("send", lambda a: a.send(b"hello"))
sending("sendall", lambda a: a.sendall(b"hello"))
sending("sendmsg", lambda a: a.sendmsg([b"hel", b"lo"]))
sending("sendmsg_of_iterators", lambda a: sendmsg_of_iterators(a))
sending("select_write", lambda a: select.select([], [a.fileno()], []))


def sendmsg_of_iterators(a):
    assert a.sendmsg(iter([b"hel", b"lo"]), iter([])) == 5


@point
def sendto():
    a, b = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    b.bind("")  # an address of its own, from the system
    name = b.getsockname()
    a.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            a.sendto(bytes(1000), name)
    a.settimeout(None)
    return Point(lambda: a.sendto(b"hello", name), lambda: drain(b), (a, b))


@point
def accept():
    a = socket.create_server(("127.0.0.1", 0))
    callers = []

    def wake():
        callers.append(socket.create_connection(a.getsockname()))

    def close():
        for caller in callers:
            caller.close()

    def wait():
        a.accept()[0].close()

    return Point(wait, wake, (a,), close)


@point
def connect_to_a_full_one():
    a = socket.socket(socket.AF_UNIX)
    a.bind("")
    a.listen(0)
    callers = []

    def caller():
        callers.append(socket.socket(socket.AF_UNIX))
        return callers[-1]

    with contextlib.suppress(BlockingIOError):
        while True:
            one = caller()
            one.setblocking(False)
            one.connect(a.getsockname())

    def wake():
        for _ in callers:
            a.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                a.accept()[0].close()

    def close():
        for one in callers:
            one.close()

    return Point(lambda: caller().connect(a.getsockname()), wake, (a,), close)


@point
def read_of_a_pipe():
    r, w = os.pipe()
    return Point(lambda: os.read(r, 10), lambda: os.write(w, b"hello"), (), closes(r, w))


@point
def write_to_a_pipe():
    r, w = os.pipe()
    os.write(w, bytes(1 << 16))
    return Point(lambda: os.write(w, b"hello"), lambda: os.read(r, 1 << 16), (), closes(r, w))


@point
def readv_of_a_pipe():
    r, w = os.pipe()
    buffers = [bytearray(3), bytearray(10)]
    return Point(lambda: os.readv(r, buffers), lambda: os.write(w, b"hello"), (), closes(r, w))


def receiving_a_number(name, call):
    def make():
        fd = os.eventfd(0)
        return Point(lambda: call(fd), lambda: os.eventfd_write(fd, 1), (), closes(fd))

    if hasattr(os, "eventfd"):
        POINTS[name] = make


receiving_a_number("eventfd_read", lambda fd: os.eventfd_read(fd))
receiving_a_number("read_of_an_eventfd", lambda fd: os.read(fd, 8))


@point
def writev_to_a_pipe():
    r, w = os.pipe()
    os.write(w, bytes(1 << 16))
    buffers = [b"hel", b"lo"]
    return Point(lambda: os.writev(w, buffers), lambda: os.read(r, 1 << 16), (), closes(r, w))


@point
def a_file_of_a_pipe():
    r, w = os.pipe()
    file = os.fdopen(r, "rb")
    return Point(file.readline, lambda: os.write(w, b"hello\n"), (file,), closes(w))


@point
def poll():
    r, w = os.pipe()
    it = select.poll()
    it.register(r, select.POLLIN)
    return Point(it.poll, lambda: os.write(w, b"hello"), (), closes(r, w))


@point
def poll_for_the_end():
    r, w = os.pipe()
    it = select.poll()
    it.register(r, 0)
    return Point(it.poll, lambda: os.close(w), (), closes(r))


@point
def epoll():
    r, w = os.pipe()
    it = select.epoll()
    it.register(r, select.EPOLLIN)
    return Point(it.poll, lambda: os.write(w, b"hello"), (it,), closes(r, w))


def closes(*fds):
    def close():
        for fd in fds:
            os.close(fd)

    return close


CHILD = [sys.executable, "-c", "import sys; sys.stdin.read(1)"]


def waiting_for_a_child(name, call):
    def make():
        child = subprocess.Popen(CHILD, stdin=subprocess.PIPE)
        return Point(lambda: call(child), child.stdin.close, (), lambda: ends(child))

    POINTS[name] = make


def ends(child):
    child.stdin.close()
    if child.returncode is None:
        with contextlib.suppress(ChildProcessError):
            child.wait()
    child.returncode = 0


waiting_for_a_child("child_wait", lambda child: child.wait())
waiting_for_a_child("waitpid", lambda child: os.waitpid(child.pid, 0))
waiting_for_a_child("waitpid_of_any", lambda child: os.waitpid(-1, 0))
waiting_for_a_child("wait4", lambda child: os.wait4(child.pid, 0))
waiting_for_a_child("waitid", lambda child: os.waitid(os.P_PID, child.pid, os.WEXITED))


def cancelled_wait(point):
    with cancel_scope() as scope:
        go(scope.cancel)
        with pytest.raises(Cancelled):
            point.wait()
