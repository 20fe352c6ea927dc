"""Measures servers: a contender's server and the load in processes of their own.

A server is `servers/NAME.py`, or `bench serve` in Go; the load is always `bench load` in Go. Both
share the machine, so with one core for each of them the load is not what limits.
"""

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from environments import BENCH
from operations import Operation


@dataclass(frozen=True)
class Server:
    pid: int
    port: str


def allow_many_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def running(words: list[str], env: dict[str, str]) -> Iterator[Server]:
    """A server that is killed in the end, with all its processes."""
    with subprocess.Popen(
        words,
        cwd=BENCH,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise OSError("the server did not start")
            yield Server(process.pid, port)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def server_words(contender: str, python: Path, go: Path, kind: str) -> list[str]:
    if contender == "go":
        return [str(go), "serve", kind]
    name, _, variant = contender.partition("-")
    return [str(python), "-m", f"servers.{name}", kind, *([variant] if variant else [])]


def load_words(go: Path, operation: Operation, port: str, seconds: float) -> list[str]:
    numbers = [operation.size, operation.n, seconds]
    return [str(go), "load", operation.load, port, *map(str, numbers)]


def served_kind(operation: Operation) -> str:
    return "http" if operation.load in ("http", "new") else "echo"


def idle_connections(words: list[str], server: Server, operation: Operation, timeout: float):
    """The line that the load prints, with what a connection takes of the server's memory."""
    before = memory(server.pid)
    env = os.environ | {"GOMAXPROCS": "1"}
    with subprocess.Popen(
        words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as load:
        try:
            if load.stdout.readline().strip() != "idle":
                raise OSError("the connections could not be made")
            held = memory(server.pid) - before
            output, _ = load.communicate("go\n", timeout)
        finally:
            load.kill()
    result = json.loads(output)
    if operation.kind == "idle bytes":
        result["value"] = held / operation.n
    return result


def memory(pid: int) -> int:
    """Bytes of memory that a process has for itself (its share of what it has with others)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError("no Pss in smaps_rollup")
