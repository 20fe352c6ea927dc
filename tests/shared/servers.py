"""Servers in processes of their own, on free ports of this machine, for as long as a test lasts."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

SECONDS = 60


def needed(program, package, *more):
    """The path of a program; without it the test is skipped. `more` are folders to look in."""
    path = shutil.which(
        program, path=os.pathsep.join([*map(str, more), os.environ["PATH"], "/usr/sbin"])
    )
    if path is None:
        pytest.skip(f"there is no {program} (Debian: {package})")
    return path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@contextlib.contextmanager
def folder(user):
    """A new folder that belongs to `user`, and options of subprocess that make a process theirs.

    That is for servers that refuse to run as root; all others are the tests' own user (None).
    """
    options = {}
    with tempfile.TemporaryDirectory() as path:
        if user is not None and os.geteuid() == 0:
            owner = pwd.getpwnam(user)
            os.chown(path, owner.pw_uid, owner.pw_gid)
            options = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        yield Path(path), options


def run(*command, **options):
    """To the end; what it says is told when it fails."""
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, done.stdout


@contextlib.contextmanager
def serving(port, *command, **options):
    """The command runs, and the port has been answered."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options
        )
        try:
            late = time.monotonic() + SECONDS
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > late:
                    log.seek(0)
                    pytest.fail(f"{command[0]} does not serve:\n{log.read()}")
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
