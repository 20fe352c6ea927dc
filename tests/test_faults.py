"""What goes wrong with connections, descriptors, names and children, under patch().

Nothing hangs, no descriptor is left open, and no data is lost that had arrived.
"""

import contextlib
import http.client
import os
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading

import pytest

from gofer import Group, cancel_scope, fork, go, gosched, patch, timeout, unpatch

from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "no_descriptor_left")

MANY = 200
BIG = bytes(range(256)) * 8000
FORKS = ("-W", "ignore:This process:DeprecationWarning")  # with threads about, from 3.12 on
RESET = struct.pack("ii", 1, 0)  # close() throws away what was not sent, and resets


@pytest.fixture
def cooperative():
    patch()
    yield
    unpatch()


def descriptors():
    """What is open, where that can be seen; not the pollers of workers, which may be started."""
    opened = []
    with contextlib.suppress(FileNotFoundError):
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of the list itself
                opened.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [
        name for name in opened if name not in ("anon_inode:[eventpoll]", "anon_inode:[eventfd]")
    ]


@pytest.fixture
def no_descriptor_left(cooperative):
    before = descriptors()
    yield
    assert len(descriptors()) <= len(before)


def connected():
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def read_all(sock):
    return b"".join(iter(lambda: sock.recv(100_000), b""))


# --- resets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 1000], ids=["without limit", "with a limit"])
@pytest.mark.parametrize(
    "wait",
    [
        lambda sock: sock.recv(1),
        lambda sock: sock.recv_into(bytearray(1)),
        lambda sock: sock.makefile("rb").read(1),
        lambda sock: sock.sendall(BIG * 10),
        lambda sock: sock.send(BIG * 10) == len(BIG) or sock.sendall(BIG),
    ],
    ids=["recv", "recv_into", "makefile", "sendall", "send"],
)
def test_a_reset_reaches_who_waits(wait, limit, parked):
    a, b = connected()
    a.settimeout(limit)

    def work():
        with a, pytest.raises((ConnectionResetError, BrokenPipeError)):
            wait(a)

    waiter = fork(work)
    parked(waiter)
    reset(b)
    waiter.join()


def test_resets_at_any_moment(rng):
    """What had arrived before is read."""

    class Server(socketserver.TCPServer):
        request_queue_size = MANY

        def process_request(self, request, address):
            go(self.serve, request)

        def serve(self, sock):
            with sock, contextlib.suppress(ConnectionError):
                n, size = (int(word) for word in sock.recv(100).split())
                sock.sendall(b"%d " % n * size)
                if n % 2:
                    reset(sock)

    def ask(n):
        with socket.create_connection(server.server_address) as sock:
            size = rng.randrange(10_000)
            sock.sendall(b"%d %d" % (n, size))
            seen = bytearray()
            try:
                while data := sock.recv(1000):
                    seen += data
            except ConnectionResetError:
                assert n % 2
            expected = b"%d " % n * size
            assert expected.startswith(seen)
            if n % 2 == 0:
                assert seen == expected

    with Server(("127.0.0.1", 0), None) as server:
        serving = go(server.serve_forever, 0.01)
        with Group() as group:
            for n in range(MANY):
                group.go(ask, n)
        server.shutdown()
        serving.join()


def test_an_http_server_that_goes_away(parked):
    a, b = connected()
    connection = http.client.HTTPConnection("nowhere")
    connection.sock = a

    def ask():
        with contextlib.closing(connection):
            connection.request("GET", "/")
            with pytest.raises(http.client.RemoteDisconnected):
                connection.getresponse()

    asker = fork(ask)
    parked(asker)
    b.recv(1000)
    b.close()
    asker.join()


# --- half-closes --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [connected, socket.socketpair], ids=["TCP", "Unix"])
def test_half_closed(make):
    """One end has sent all it has, and reads on; the other replies when it knows that."""

    def reply(sock):
        with sock:
            sock.sendall(read_all(sock).swapcase())

    def ask(n):
        a, b = make()
        with a:
            replier = fork(reply, b)
            text = b"Text %d " % n * 10_000
            a.sendall(text)
            a.shutdown(socket.SHUT_WR)
            with pytest.raises(BrokenPipeError):
                a.send(b"x")
            assert read_all(a) == text.swapcase()
            replier.join()

    with Group(limit=20) as group:
        for n in range(60):
            group.go(ask, n)


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_RDWR])
def test_shut_down_while_somebody_reads(how, parked):
    a, b = connected()
    with a, b:
        reader = fork(a.recv, 1)
        parked(reader)
        a.shutdown(how)
        assert reader.join() == b""


# --- woken for nothing --------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 1000], ids=["without limit", "with a limit"])
def test_another_was_quicker(limit, parked):
    """All that wait are told; those that find nothing wait on."""
    a, b = connected()
    with a, b:
        a.settimeout(limit)
        readers = [fork(a.recv, 1) for _ in range(10)]
        for n in range(10):
            parked(*(reader for reader in readers if not reader.done))
            b.sendall(b"%d" % n)
            while sum(reader.done for reader in readers) == n:
                gosched()
        assert sorted(reader.join() for reader in readers) == [b"%d" % n for n in range(10)]


def test_somebody_who_has_gone_before_he_was_accepted(parked):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        reset(socket.create_connection(address))
        with listener.accept()[0] as first, pytest.raises(ConnectionResetError):
            first.recv(1)
        waiter = fork(listener.accept)
        parked(waiter)
        socket.create_connection(address).close()
        waiter.join()[0].close()


# --- too many descriptors -----------------------------------------------------------------------


def test_no_descriptor_is_free(program):
    outcome = program(
        """
        import os, resource, socket, subprocess, sys
        import gofer
        gofer.patch()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            client = socket.create_connection(address)
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            kept = []

            def attempt(name, call):
                try:
                    call()
                except OSError as error:
                    print(name, type(error).__name__, error.errno)

            def fill():
                while True:
                    kept.append(os.open("/dev/null", os.O_RDONLY))

            def from_goroutines():
                attempt("open", fill)
                attempt("accept", listener.accept)
                attempt("socket", lambda: socket.create_connection(address))
                attempt("pair", socket.socketpair)
                attempt("pipe", os.pipe)
                attempt("child", lambda: subprocess.run(["true"], stdout=subprocess.PIPE))

            gofer.fork(from_goroutines).join()
            for fd in kept:
                os.close(fd)
            server = listener.accept()[0]  # who could not be accepted still waits
            reader = gofer.fork(server.recv, 10)
            client.sendall(b"at last")
            print(reader.join().decode())
            print(subprocess.run([sys.executable, "-c", "print(7)"], capture_output=True).stdout)
        """
    )
    emfile = "OSError 24"
    assert outcome.out.splitlines() == [
        *(f"{name} {emfile}" for name in ("open", "accept", "socket", "pair", "pipe", "child")),
        "at last",
        r"b'7\n'",
    ]
    assert outcome[0] == 0


def test_a_child_that_is_waited_for_when_no_descriptor_is_free(program):
    """There is none for a pidfd."""
    outcome = program(
        """
        import os, resource, signal, subprocess, sys
        import gofer
        gofer.patch()
        gofer.fork(int).join()  # what gofer opens for itself

        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        kept = []
        try:
            while True:
                kept.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        waiter = gofer.fork(child.wait)
        while waiter.state != "waiting":
            gofer.gosched()
        child.kill()
        print(waiter.join())
        """
    )
    assert (outcome.status, outcome.out) == (0, f"-{int(signal.SIGKILL)}\n")


def test_no_thread_for_what_blocks(program):
    """The first thread that uses gofer needs descriptors."""
    outcome = program(
        """
        import os, resource
        import gofer
        gofer.fork(int).join()

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        kept = []
        try:
            while True:
                kept.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass

        def attempt():
            try:
                return gofer.blocking(pow, 2, 5)
            except OSError as error:
                return error.errno

        print(gofer.fork(attempt).join())
        for fd in kept:
            os.close(fd)
        print(gofer.fork(attempt).join())
        """,
        GOFER_MAXPROCS="1",  # there is no other thread yet
    )
    assert outcome == (0, "24\n32\n", "")


# --- names that nobody answers ------------------------------------------------------------------


@pytest.fixture
def unanswered():
    """The resolver waits for ever when it is asked for a name; `unanswered.set()` lets it go on."""
    from gofer import _core
    from gofer.stdlib import _socket

    answer = threading.Event()

    def exchanged(original, *args):
        def resolve(host, *args):
            if host != "a-name":
                return original(host, *args)
            answer.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        return stand_in(resolve, *args)

    stand_in = _socket.STAND_INS["_socket.getaddrinfo"]
    _core.patch_leaf("_socket.getaddrinfo", exchanged)
    yield answer
    answer.set()
    _core.patch_leaf("_socket.getaddrinfo", stand_in)


def test_a_resolver_that_hangs_blocks_only_who_asks(unanswered, one_worker):
    def ask():
        with pytest.raises(socket.gaierror, match="Temporary failure"):
            socket.create_connection(("a-name", 80))

    def ask_nobody():
        a, b = connected()  # by its number
        a.close()
        b.close()
        unanswered.set()

    beats_under(ask, ask_nobody)


def test_who_asks_a_resolver_that_hangs_may_give_up(unanswered):
    def ask():
        with pytest.raises(TimeoutError):
            with timeout(0.01):
                socket.create_connection(("a-name", 80))

    with Group() as group:
        for _ in range(20):
            group.go(ask)
    with cancel_scope() as scope:
        asker = fork(socket.getaddrinfo, "a-name", 80)
        scope.cancel()
    with pytest.raises(BaseException, match="cancel"):
        asker.join()


# --- children -----------------------------------------------------------------------------------


def test_children_that_are_killed_while_they_write():
    """What they had written is read, and the pipes are closed."""
    code = "import os, sys, time; os.write(1, b'begun'); time.sleep(1000)"

    def watch(n):
        child = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
        with child:
            assert child.stdout.read(5) == b"begun"
            killer = fork(child.kill if n % 2 else child.terminate)
            assert child.communicate() == (b"", None)
            killer.join()
        assert child.returncode == -(signal.SIGKILL if n % 2 else signal.SIGTERM)

    with Group(limit=4) as group:
        for n in range(12):
            group.go(watch, n)


def test_a_child_that_reads_no_more():
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", "import os; os.close(0); os.write(1, b'no'); os.read(3, 1)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(),
    )
    assert child.communicate(BIG)[0] == b"no"


# --- forks with open sockets --------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_server_that_forks(program):
    """Each child replies on a socket that it has inherited, while the parent waits for others."""
    outcome = program(
        """
        import os, socket, socketserver
        import gofer
        gofer.patch()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                for _ in range(3):  # the end does not come: it has inherited the other ends, too
                    line = self.rfile.readline().strip()
                    self.wfile.write(b"%s in a child: %r\\n" % (line, os.getpid() != parent))

        class Server(socketserver.ForkingTCPServer):
            request_queue_size = 100

        def ask(n):
            sock = socket.create_connection(server.server_address)
            with sock, sock.makefile("rwb") as file:
                for k in range(3):
                    file.write(b"%d %d\\n" % (n, k))
                    file.flush()
                    assert file.readline() == b"%d %d in a child: True\\n" % (n, k)

        parent = os.getpid()
        with Server(("127.0.0.1", 0), Handler) as server:
            serving = gofer.go(server.serve_forever, 0.01)
            with gofer.Group() as group:
                for n in range(20):
                    group.go(ask, n)
            server.shutdown()
            serving.join()
        print("all")
        """,
        flags=FORKS,
    )
    assert outcome == (0, "all\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_goroutines_wait_for_sockets(program):
    """The child closes what it has inherited; those who wait in the parent are not disturbed."""
    outcome = program(
        """
        import os, socket
        import gofer
        gofer.patch()

        pairs = [socket.socketpair() for _ in range(50)]
        readers = [gofer.fork(a.recv, 10) for a, _ in pairs]
        while any(reader.state != "waiting" for reader in readers):
            gofer.gosched()
        pid = os.fork()
        if pid == 0:
            for ends in pairs:
                for end in ends:
                    end.close()
            a, b = socket.socketpair()
            reader = gofer.fork(a.recv, 10)
            b.send(b"child")
            os._exit(reader.join() != b"child")
        print(os.waitpid(pid, 0)[1])
        for n, (_, b) in enumerate(pairs):
            b.send(b"%d" % n)
        print([int(reader.join()) for reader in readers] == list(range(50)))
        for ends in pairs:
            for end in ends:
                end.close()
        """,
        flags=FORKS,
    )
    assert outcome == (0, "0\nTrue\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_what_is_called_in_the_child_of_a_fork_waits(program):
    """Before gofer is told: the goroutines of the parent must not run in the child."""
    outcome = program(
        """
        import os, time
        os.register_at_fork(after_in_child=lambda: time.sleep(0.01))
        import gofer
        gofer.patch()
        parent = os.getpid()

        def others():
            while os.getpid() == parent:
                gofer.gosched()
            os._exit(1)

        gofer.go(others)
        gofer.gosched()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        flags=FORKS,
    )
    assert outcome == (0, "0\n", "")


# --- very many ----------------------------------------------------------------------------------


def test_as_many_idle_connections_as_there_may_be(program):
    """Each is served by a goroutine that waits; the other ends are in another process."""
    outcome = program(
        """
        import os, resource, socket, subprocess, sys, tempfile
        import gofer
        gofer.patch()

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = min(hard, 21_000) if hard != resource.RLIM_INFINITY else 21_000
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        many = min(limit - 500, 20_000)

        code = '''if True:
            import socket, sys
            socks = []
            for n in range(int(sys.argv[2])):
                socks.append(socket.socket(socket.AF_UNIX))
                socks[-1].connect(sys.argv[1])
            input()
            for n, sock in enumerate(socks):
                sock.sendall(b"%d" % n)
            for n, sock in enumerate(socks):
                assert sock.recv(10) == b"%d" % -n
                sock.close()
            print("all")
        '''

        def serve(sock):
            with sock:
                sock.sendall(b"%d" % -int(sock.recv(10)))

        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(folder + "/socket")
            listener.listen(1000)
            child = subprocess.Popen(
                [sys.executable, "-S", "-c", code, folder + "/socket", str(many)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            tasks = [gofer.fork(serve, listener.accept()[0]) for _ in range(many)]
            while any(task.state != "waiting" for task in tasks):
                gofer.gosched()
            out, _ = child.communicate("\\n")
            for task in tasks:
                task.join()
        print(out.strip(), child.returncode, many > soft // 2)
        """
    )
    assert outcome == (0, "all 0 True\n", "")
