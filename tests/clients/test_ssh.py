"""paramiko against OpenSSH: many channels on one connection, which a thread of paramiko's serves."""

import getpass
import os

import pytest

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


def test_all_at_once(client):
    def call(n):
        _, out, err = client.exec_command(f"echo {n}; echo error {n} >&2; exit {n}")
        assert out.read() == b"%d\n" % n
        assert err.read() == b"error %d\n" % n
        assert out.channel.recv_exit_status() == n

    calls.all_at_once(call, MANY)


def test_all_waiting(client, one_worker):
    inputs = []

    def call(n):
        with client.get_transport().open_session() as channel:
            channel.exec_command("cat")
            inputs.append((channel, b"for %d" % n))
            assert channel.recv(100) == b"for %d" % n

    def release():
        for channel, message in inputs:
            channel.sendall(message)

    calls.all_waiting(call, MANY, lambda: len(inputs), release)


def test_files(client, tmp_path):
    def call(n):
        data = b"%d " % n * 10_000
        with client.open_sftp() as files:
            with files.open(f"{tmp_path}/{n}", "wb") as file:
                file.write(data)
            with files.open(f"{tmp_path}/{n}", "rb") as file:
                assert file.read() == data
        assert (tmp_path / str(n)).read_bytes() == data

    calls.all_at_once(call, MANY)


def test_called_off(client, rng, until):
    def call(n):
        with client.get_transport().open_session() as channel:
            channel.exec_command("cat")
            for k in range(3):
                channel.sendall(b"%d %d" % (n, k))
                assert channel.recv(100) == b"%d %d" % (n, k)

    calls.CallingOff(rng)(call)
    calls.all_at_once(call, calls.TOGETHER)
