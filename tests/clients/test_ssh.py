"""paramiko against OpenSSH: many channels on one connection, served by a thread of paramiko."""

import getpass
import os
import socketserver

import pytest

from gofer import go

from shared import calls, servers

paramiko = pytest.importorskip("paramiko")

MANY = 100

SETTINGS = """
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
MaxSessions 1000
Subsystem sftp internal-sftp
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The port of a server, and a folder with the keys."""
    program = servers.needed("sshd", "openssh-server")
    keygen = servers.needed("ssh-keygen", "openssh-client")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # it asks for that
    folder, port = tmp_path_factory.mktemp("ssh"), servers.free_port()
    for key in "host_key", "user_key":
        servers.run(keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    (folder / "settings").write_text(SETTINGS.format(folder=folder))
    with servers.serving(port, program, "-D", "-e", "-f", folder / "settings", "-p", port):
        yield port, folder


@pytest.fixture
def client(place):
    port, folder = place
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            *["127.0.0.1", port, getpass.getuser()],
            key_filename=str(folder / "user_key"),
            allow_agent=False,
            look_for_keys=False,
            channel_timeout=1000,
        )
        yield client


@pytest.fixture
def echo():
    """A server that the other end of the connection can reach."""

    class Echo(socketserver.BaseRequestHandler):
        def handle(self):
            while data := self.request.recv(1000):
                self.request.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 1000

        def process_request(self, request, client_address):
            go(self.process_request_thread, request, client_address)

    with Server(("127.0.0.1", 0), Echo) as server:
        serving = go(server.serve_forever, 0.01)
        yield server.server_address
        server.shutdown()
        serving.join()


def test_programs(client):
    def call(n):
        _, out, err = client.exec_command(f"echo {n}; echo error {n} >&2; exit {n}")
        assert out.read() == b"%d\n" % n
        assert err.read() == b"error %d\n" % n
        assert out.channel.recv_exit_status() == n

    calls.all_at_once(call, 20)


def test_files(client, tmp_path):
    def call(n):
        data = b"%d " % n * 10_000
        with client.open_sftp() as files:
            with files.open(f"{tmp_path}/{n}", "wb") as file:
                file.write(data)
            with files.open(f"{tmp_path}/{n}", "rb") as file:
                assert file.read() == data
        assert (tmp_path / str(n)).read_bytes() == data

    calls.all_at_once(call, 50)


def test_all_waiting(client, echo, one_worker):
    channels = []

    def call(n):
        with client.get_transport().open_channel("direct-tcpip", echo, ("", 0)) as channel:
            channels.append((channel, b"for %d" % n))
            assert channel.recv(100) == b"for %d" % n

    def release():
        for channel, message in channels:
            channel.sendall(message)

    calls.all_waiting(call, MANY, lambda: len(channels), release)


def test_called_off(client, echo, rng):
    def call(n):
        with client.get_transport().open_channel("direct-tcpip", echo, ("", 0)) as channel:
            for k in range(3):
                channel.sendall(b"%d %d" % (n, k))
                assert channel.recv(100) == b"%d %d" % (n, k)

    calls.CallingOff(rng)(call)
    calls.all_at_once(call, MANY)
