"""Buffered files of pipes and sockets, shared by goroutines of one worker, and by threads."""

import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gofer
from gofer import Cancelled, Chan, Group, cancel_scope, context, fork, gosched, patch, unpatch

from shared import in_thread
from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

MANY = 30
BIG = 1_000_000  # more than any pipe takes at once


@pytest.fixture
def pipe():
    r, w = os.pipe()
    reader, writer = os.fdopen(r, "rb"), os.fdopen(w, "wb")
    yield reader, writer
    with contextlib.suppress(OSError):
        writer.close()
    reader.close()


def say(writer, data):
    writer.write(data)
    writer.flush()


READS = {
    "read": lambda f: f.read(5),
    "read1": lambda f: f.read1(5),
    "peek": lambda f: f.peek(5) and f.read(5),
    "readinto": lambda f: f.readinto(bytearray(5)),
    "readinto1": lambda f: f.readinto1(bytearray(5)),
    "readline": lambda f: f.readline(),
    "readline_of_five": lambda f: f.readline(5),
    "next": next,
    "for": lambda f: [line for _, line in zip(range(1), f, strict=False)],
    "readlines": lambda f: f.readlines(1),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("other", ["read", "readline", "next"])
def test_who_comes_second_waits(one_worker, parked, pipe, name, other):
    reader, writer = pipe
    first = fork(READS[name], reader)
    parked(first)
    second = fork(READS[other], reader)
    parked(first, second)
    beats_under(first.join, lambda: say(writer, b"one.\n"))
    assert not second.done
    say(writer, b"two.\n")
    assert second.join() == b"two.\n"


def test_everybody_gets_a_line(one_worker, pipe):
    reader, writer = pipe
    with Group() as g:
        tasks = [g.go(reader.readline) for _ in range(MANY)]
        for n in range(MANY):
            if n % 3:
                gosched()
            say(writer, b"%d\n" % n)
    assert [task.join() for task in tasks] == [b"%d\n" % n for n in range(MANY)]


def test_a_subclass_made_before(one_worker, parked):
    class Lines(io.BufferedReader):
        pass

    unpatch()
    patch()
    r, w = os.pipe()
    with Lines(io.FileIO(r)) as reader, os.fdopen(w, "wb") as writer:
        tasks = [fork(next, reader) for _ in range(2)]
        parked(*tasks)
        say(writer, b"one\ntwo\n")
        assert [task.join() for task in tasks] == [b"one\n", b"two\n"]


class Gate(io.RawIOBase):
    """Gives a byte when it is opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def readable(self):
        return True

    def readinto(self, buffer):
        self.reached.set()
        self.opened.wait()
        buffer[:1] = b"x"
        return 1


def test_while_a_thread_reads(one_worker):
    gate = Gate()
    file = io.BufferedReader(gate, 1)
    thread = threading.Thread(target=file.read, args=(1,))
    thread.start()
    gate.reached.wait()
    assert beats_under(lambda: file.read(1), gate.opened.set) == b"x"
    thread.join()


def test_while_a_goroutine_reads(one_worker, parked):
    gate = Gate()
    file = io.BufferedReader(gate, 1)
    reading = fork(file.read, 1)
    gate.reached.wait()
    read = []
    thread = threading.Thread(target=lambda: read.append(file.read(1)))
    thread.start()
    another = fork(file.read, 1)
    parked(reading, another)
    gate.opened.set()
    assert (reading.join(), another.join()) == (b"x", b"x")
    thread.join()
    assert read == [b"x"]


def test_threads_and_goroutines(pipe):
    """By `read`: `readline` of CPython loses what another thread has read meanwhile."""
    reader, writer = pipe
    seen, threads = [], []

    def take(n):
        for _ in range(n):
            seen.append(int(reader.read(4)))

    for _ in range(3):
        thread = threading.Thread(target=take, args=(MANY,))
        thread.start()
        threads.append(thread)
    with Group() as g:
        for _ in range(3):
            g.go(take, MANY)
        for n in range(6 * MANY):
            say(writer, b"%4d" % n)
            if n % 5 == 0:
                gosched()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(6 * MANY))


def test_the_same_goroutine_is_told_what_it_was_told():
    class Raw(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            file.read(1)

    file = io.BufferedReader(Raw())
    with pytest.raises(RuntimeError, match="reentrant call"):
        fork(file.read, 1).join()
    with pytest.raises(RuntimeError, match="reentrant call"):
        in_thread(file.read, 1)


def test_cancelled_in_the_read_and_before_it(one_worker, parked, pipe):
    reader, writer = pipe
    first = fork(reader.readline)
    parked(first)
    with cancel_scope() as scope:
        with pytest.raises(Cancelled):
            beats_under(reader.readline, scope.cancel)
        raise Cancelled
    third = fork(reader.readline)
    first.cancel()
    assert isinstance(first.exception(), context.Canceled)
    say(writer, b"for the third\n")
    assert third.join() == b"for the third\n"


def test_many_are_cancelled_at_any_moment(one_worker, pipe, rng):
    """What has been read stays for the next one."""
    reader, writer = pipe
    seen = []

    def take(scope):
        with scope:
            seen.append(int(reader.readline()))

    for turn in range(40):
        scopes = [cancel_scope() for _ in range(5)]
        tasks = [fork(take, scope) for scope in scopes]
        for step in rng.sample([scope.cancel for scope in scopes] + [gosched] * 5, 8):
            step()
        while not all(task.done for task in tasks):
            say(writer, b"%d\n" % turn)
            gosched()
        for task in tasks:
            task.join()
    writer.close()
    seen += [int(line) for line in reader]
    assert seen == sorted(seen)
    assert set(seen) == set(range(40)) or len(seen) > 0


def test_close_waits_for_who_reads(one_worker, parked, pipe):
    reader, writer = pipe
    read = fork(reader.readline)
    parked(read)
    closing = fork(reader.close)
    parked(read, closing)
    say(writer, b"last\n")
    assert read.join() == b"last\n"
    closing.join()
    assert reader.closed


def test_of_a_socket(one_worker):
    a, b = socket.socketpair()
    with a, b, a.makefile("rb") as lines, b.makefile("wb") as out:
        with Group() as g:
            tasks = [g.go(lines.readline) for _ in range(5)]
            for n in range(5):
                gosched()
                say(out, b"%d\n" % n)
        assert [task.join() for task in tasks] == [b"%d\n" % n for n in range(5)]


def test_writers_of_a_socket_share_it(one_worker):
    a, b = socket.socketpair()
    with a, b, a.makefile("wb") as out:
        with Group() as g:
            for n in range(4):
                g.go(lambda n=n: say(out, bytes([n]) * BIG))
            total = 0
            while total < 4 * BIG:
                total += len(b.recv(BIG))


def test_text(one_worker, parked):
    r, w = os.pipe()
    with open(r, encoding="utf-8") as reader, open(w, "w", encoding="utf-8") as writer:
        line = fork(reader.readline)
        parked(line)
        beats_under(line.join, lambda: print("grüße", file=writer, flush=True))
        assert line.join() == "grüße\n"


# --- writing ------------------------------------------------------------------------------------


def drain(reader, n):
    got = bytearray()
    while len(got) < n:
        got += os.read(reader.fileno(), BIG)
    return bytes(got)


def write_text(writer, text):
    file = io.TextIOWrapper(writer, write_through=True)
    file.write(text)
    file.detach()


@pytest.mark.parametrize(
    "write",
    [
        lambda w, data: (w.write(data), w.flush()),
        lambda w, data: w.raw.write(data),
        lambda w, data: write_text(w, data.decode()),
    ],
    ids=["buffered", "raw", "text"],
)
def test_a_pipe_that_is_full(one_worker, pipe, write):
    reader, writer = pipe
    data = b"0123456789" * (BIG // 10)
    drained = Chan(1)
    beats_under(
        lambda: write(writer, data),
        lambda: drained.send(fork(drain, reader, len(data))),
    )
    assert drained.recv().join() == data


def test_writers_wait_for_each_other(one_worker, pipe):
    """What one writes at once is not mixed with another's."""
    reader, writer = pipe
    with Group() as g:
        for n in range(5):
            g.go(writer.write, bytes([n]) * BIG)
        got = g.go(drain, reader, 5 * BIG - io.DEFAULT_BUFFER_SIZE).join()
        flushing = g.go(writer.flush)
        got += drain(reader, 5 * BIG - len(got))
        flushing.join()
    runs = [got[at * BIG : (at + 1) * BIG] for at in range(5)]
    assert sorted(run[0] for run in runs) == list(range(5))
    assert all(run == run[:1] * BIG for run in runs)


def test_prints_to_a_pipe_that_is_full(one_worker, parked):
    r, w = os.pipe()
    out = open(w, "w", encoding="ascii")  # noqa: SIM115
    lines = [str(n) * 5000 for n in range(10)]
    printing = [fork(print, line, file=out, flush=True) for line in lines]
    parked(*printing[8:])
    with open(r, encoding="ascii") as reader:
        assert sorted(reader.readline().rstrip() for _ in lines) == lines
        for one in printing:
            one.join()
        out.close()


def test_a_child_that_answers_late(one_worker):
    """Both pipes are full in between."""
    answer = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[::-1])"
    with subprocess.Popen(
        [sys.executable, "-c", answer], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        data = bytes(range(256)) * 4000

        def feed():
            child.stdin.write(data)
            child.stdin.close()

        feeding = fork(feed)
        assert child.stdout.read() == data[::-1]
        feeding.join()


def test_cancelled_while_it_writes(one_worker, pipe):
    reader, writer = pipe
    with cancel_scope() as scope:
        with pytest.raises(Cancelled):
            beats_under(lambda: say(writer, b"x" * BIG), scope.cancel)
        raise Cancelled
    reading = fork(reader.read)
    writer.close()
    got = reading.join()
    assert len(got) < BIG
    assert got == b"x" * len(got)


def test_the_wrong_end_of_a_pipe():
    """It would never be ready."""
    r, w = os.pipe()
    with open(r, "rb", 0) as reader, open(w, "wb", 0) as writer:
        for wrong in (
            lambda: writer.read(1),
            lambda: writer.read(),
            lambda: writer.readinto(bytearray(1)),
            lambda: reader.write(b"x"),
            lambda: os.read(w, 1),
            lambda: os.write(r, b"x"),
        ):
            with pytest.raises(OSError):
                wrong()


def test_regular_files_are_direct(tmp_path):
    path = tmp_path / "file"
    with open(path, "w+b") as file:

        def use(n):
            for k in range(10):
                file.write(bytes([n]))
                if k % 3 == 0:
                    gosched()
                file.flush()
            return n

        with Group() as g:
            tasks = [g.go(use, n) for n in range(5)]
        assert [task.join() for task in tasks] == list(range(5))
        file.seek(0)
        assert sorted(file.read()) == sorted(n for n in range(5) for _ in range(10))


def test_regular_files_cost_nothing_in_python(one_worker, tmp_path):
    ours, called = str(Path(gofer.__file__).parent), []

    def profile(frame, event, arg):
        if event == "call" and frame.f_code.co_filename.startswith(ours):
            called.append(frame.f_code.co_qualname)

    def use(file, number):
        sys.setprofile(profile)
        try:
            file.write(b"one")
            os.write(number, b"two")
            os.writev(number, [b"thr", b"ee"])
            file.seek(0)
            text = file.read(1) + os.read(number, 1)
            file.readinto(bytearray(1))
            os.readv(number, [bytearray(1)])
            return text + file.readall()
        finally:
            sys.setprofile(None)

    with open(tmp_path / "file", "w+b", buffering=0) as file:
        assert use(file, file.fileno()) == b"onwothree"
    assert called == []
    a, b = socket.socketpair()
    with a, b, a.makefile("rwb", buffering=0) as file, pytest.raises(io.UnsupportedOperation):
        use(file, a.fileno())
    assert "_writev" in called


def test_in_the_child_of_a_fork(program):
    result = program(
        """
        import os, sys
        from gofer import fork, patch

        patch()
        r, w = os.pipe()
        reader = open(r, "rb")
        waiter = fork(reader.readline)
        while waiter.state != "waiting":
            fork(int).join()
        other, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            print(open(other, "rb").readline(), flush=True)
            os._exit(0)
        os.write(tell, b"for the child\\n")
        os.waitpid(pid, 0)
        os.write(w, b"for the parent\\n")
        print(waiter.join())
        """,
        flags=["-W", "ignore"],
    )
    assert result.status == 0
    assert sorted(result.out.splitlines()) == ["b'for the child\\n'", "b'for the parent\\n'"]
